package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"gatepass/broker/sts/ststest"
)

// A setup is what a newcomer needs to know to use a sandbox.
type setup struct {
	URL, Gatepass, ConfigFlag, CABundle string

	User, MFAUser string // "" for none
	RoleARN       string // the first role that may be assumed with a key alone
}

// setupFor picks a user and a role to show from a configuration.
func setupFor(config ststest.Config, configFile, url, tlsCert string) setup {
	s := setup{URL: url, Gatepass: gatepassPath(), CABundle: tlsCert}
	if configFile != "" {
		s.ConfigFlag = " --config '" + strings.ReplaceAll(configFile, "'", `'\''`) + "'"
	}
	if abs, err := filepath.Abs(tlsCert); err == nil && tlsCert != "" {
		s.CABundle = abs
	}
	for _, a := range config.Accounts {
		for _, u := range a.Users {
			usable := len(u.Keys) > 0 && (u.Keys[0].Status == "" || u.Keys[0].Status == ststest.Active)
			if !usable {
				continue
			}
			if s.User == "" {
				s.User = u.Name
			}
			if s.MFAUser == "" && len(u.MFA) > 0 {
				s.MFAUser = u.Name
			}
		}
		for _, r := range a.Roles {
			if s.RoleARN == "" && len(r.Trust) > 0 && !r.Trust[0].MFA && r.Trust[0].MFAAge == 0 && r.Trust[0].ExternalID == "" {
				s.RoleARN = roleARN(a, r)
			}
		}
	}
	return s
}

func roleARN(a ststest.Account, r ststest.Role) string {
	partition, path := a.Partition, r.Path
	if partition == "" {
		partition = "aws"
	}
	if path == "" {
		path = "/"
	}
	return "arn:" + partition + ":iam::" + a.ID + ":role" + path + r.Name
}

// gatepassPath is the absolute path that credential_process needs: of the
// gatepass beside this program, else on PATH.
func gatepassPath() string {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), "gatepass"+filepath.Ext(self))
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	if path, err := exec.LookPath("gatepass"); err == nil && filepath.IsAbs(path) {
		return path
	}
	return "/path/to/gatepass"
}

var setupText = template.Must(template.New("setup").Funcs(template.FuncMap{"quote": quote}).Parse(
	`1. Send gatepass to it: in gatepass.toml ($XDG_CONFIG_HOME/gatepass/ or $GATEPASS_CONFIG)

[aws]
endpoint_url = {{quote .URL}}
{{- if .CABundle}}
ca_bundle    = {{quote .CABundle}}
{{- end}}

2. A profile, in ~/.aws/config

[profile sandbox]
gatepass_key       = {{or .User "USER"}}
{{- if .RoleARN}}
gatepass_role_arn  = {{.RoleARN}}
{{- end}}
region             = us-east-1
endpoint_url       = {{.URL}}
{{- if .CABundle}}
ca_bundle          = {{.CABundle}}
{{- end}}
credential_process = {{.Gatepass}} credential-process sandbox

3. The key, straight from here into the keychain

gatepass-sandbox{{.ConfigFlag}} --print-key {{or .User "USER"}} | gatepass keys add {{or .User "USER"}} --stdin

4. Use it

aws --profile sandbox sts get-caller-identity
gatepass audit list
{{- if .MFAUser}}

An MFA code for {{.MFAUser}}: gatepass-sandbox{{.ConfigFlag}} --print-code {{.MFAUser}}
{{- end}}
Calls so far: curl {{if .CABundle}}--cacert {{.CABundle}} {{end}}{{.URL}}/sandbox/calls
Faults: gatepass-sandbox --help
`))

func printSetup(w io.Writer, s setup) error { return setupText.Execute(w, s) }

// quote writes a TOML basic string.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
