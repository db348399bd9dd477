package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
)

const exportHelp = `gatepass export prints a session's credentials for a shell, a file or a tool.

usage: gatepass export [NAME] [flags]

NAME is a profile of ~/.aws/config; without it, AWS_PROFILE says which.

  --format F      env (default), env-no-export, json, process, ini, fish,
                  powershell or windows-cmd; json and process are both the
                  credential_process document
  --unset         print what removes the variables again (env, fish,
                  powershell, windows-cmd); asks nobody
  --duration D    how long the session should last: 3600, 90m, 1h
  --min-left D    take a cached session with at least this much time left
  --mfa-code C    the code that the MFA device shows, where one is needed
  --prompt WAY    how to ask for it: auto, tty, pinentry, desktop, none
                  (default: 90 % of its life), else get a new one
  --region R      region to use and to print
  --reason R      why you need it, for the audit log (or GATEPASS_REASON)

The shell formats set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_CREDENTIAL_EXPIRATION and, where a region is known,
AWS_REGION and AWS_DEFAULT_REGION. They unset AWS_PROFILE, AWS_DEFAULT_PROFILE
and AWS_SECURITY_TOKEN, which some SDKs would use instead. --unset removes what
was set; an AWS_PROFILE that was set before does not come back.

Credentials in an environment are not renewed. Prefer credential_process in
~/.aws/config where the program can use it.

examples:
  eval "$(gatepass export ops)"
  gatepass export ops --format fish | source
  gatepass export ops --format powershell | Out-String | Invoke-Expression
  gatepass export ops --format env-no-export > ops.env
  eval "$(gatepass export --unset)"
`

func exportCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "export",
		UsageText: exportHelp,
		Flags: append(requestFlags(),
			&cli.StringFlag{Name: "format", Value: "env"},
			&cli.BoolFlag{Name: "unset"},
		),
		Action: c.export,
	}
}

func (c *client) export(ctx *cli.Context) error {
	f, ok := formats[ctx.String("format")]
	if !ok {
		return broker.Errorf(broker.CodeUsage, "there is no format %q", ctx.String("format")).
			WithHint("choose one of %s", formatNames)
	}
	if ctx.Bool("unset") {
		if err := noArguments(ctx); err != nil {
			return err
		}
		if f.unset == nil {
			return broker.Errorf(broker.CodeUsage, "--unset has no meaning with --format %s", ctx.String("format")).
				WithHint("it works with env, fish, powershell and windows-cmd")
		}
		var b bytes.Buffer
		for _, name := range exported {
			b.WriteString(f.unset(name))
		}
		return c.write(b.Bytes())
	}
	profile, err := c.profileArgument(ctx)
	if err != nil {
		return err
	}
	req, err := c.request(profile, "export")
	if err != nil {
		return err
	}
	if err := applyFlags(ctx, &req); err != nil {
		return err
	}
	document, region, err := c.credentials(ctx.Context, req)
	if err != nil {
		return err
	}
	if f.print == nil && req.DurationSeconds == 0 {
		return c.write(document)
	}
	s, err := parseDocument(document)
	if err != nil {
		return err
	}
	if note := shorterThan(s, req.DurationSeconds, time.Now()); note != "" {
		say(c.stderr, note)
	}
	if f.print == nil {
		return c.write(document)
	}
	s.profile, s.region = profile, region
	out, err := f.print(s)
	if err != nil {
		return err
	}
	return c.write(out)
}

// exported are the variables that a shell format sets, in its order.
var exported = []string{
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CREDENTIAL_EXPIRATION",
	"AWS_REGION", "AWS_DEFAULT_REGION",
}

// shadowing are the variables that would win over those, or confuse an SDK
// beside them: the JS SDK prefers AWS_PROFILE to keys in the environment, and
// AWS_SECURITY_TOKEN is the session token's old name.
var shadowing = []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SECURITY_TOKEN"}

// handedOut is a session as the daemon's document describes it.
type handedOut struct {
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      string
	profile, region string
}

// parseDocument reads the daemon's document. Its errors never quote it.
func parseDocument(document []byte) (handedOut, error) {
	var s handedOut
	if err := json.Unmarshal(document, &s); err != nil || s.AccessKeyID == "" || s.SecretAccessKey == "" {
		return s, broker.Errorf(broker.CodeData, "the daemon's answer is not a credentials document")
	}
	return s, nil
}

// shorterThan says that a session is clearly shorter than what was asked for
// by name, and why; "" where it is not.
func shorterThan(s handedOut, asked int, now time.Time) string {
	ends, err := time.Parse(time.RFC3339, s.Expiration)
	left := ends.Sub(now)
	// A session from the cache has nine tenths of its life left.
	if wanted := time.Duration(asked) * time.Second; err != nil || asked == 0 || left >= wanted*8/10 {
		return ""
	}
	return fmt.Sprintf("the session ends in %s, at %s: a role that is assumed by a role lasts 1 h at most", span(left), ends.Local().Format("15:04"))
}

// values returns the variables to set. AWS's own values are printable ASCII,
// and no shell's quoting is safe for all that is not (PowerShell, for one,
// takes typographic quotes for quotes), so anything else is refused.
func (s handedOut) values() ([][2]string, error) {
	all := [][2]string{
		{exported[0], s.AccessKeyID}, {exported[1], s.SecretAccessKey}, {exported[2], s.SessionToken},
		{exported[3], s.Expiration}, {exported[4], s.region}, {exported[5], s.region},
	}
	all = slices.DeleteFunc(all, func(v [2]string) bool { return v[1] == "" })
	for _, v := range all {
		if strings.ContainsFunc(v[1], func(r rune) bool { return r < ' ' || r > '~' }) {
			return nil, broker.Errorf(broker.CodeData, "%s would hold a character that is not printable ASCII", v[0]).
				WithHint("is the profile's region right? --format json is safe for any value")
		}
	}
	return all, nil
}

// A format is one way to print a session.
type format struct {
	print func(handedOut) ([]byte, error) // nil prints the document as it is
	unset func(name string) string        // nil where nothing can be unset
}

const formatNames = "env, env-no-export, json, process, ini, fish, powershell, windows-cmd"

var formats = map[string]format{
	"env": {
		print: lines(posixUnset, func(name, v string) (string, bool) { return "export " + name + "=" + posixQuote(v), true }),
		unset: posixUnset,
	},
	"env-no-export": {
		print: lines(nil, func(name, v string) (string, bool) { return name + "=" + posixQuote(v), true }),
	},
	"json":    {},
	"process": {},
	"ini":     {print: printINI},
	"fish": {
		print: lines(fishUnset, func(name, v string) (string, bool) { return "set -gx " + name + " " + fishQuote(v), true }),
		unset: fishUnset,
	},
	"powershell": {
		print: lines(powershellUnset, func(name, v string) (string, bool) {
			return "$Env:" + name + " = '" + strings.ReplaceAll(v, "'", "''") + "'", true
		}),
		unset: powershellUnset,
	},
	"windows-cmd": {
		print: lines(cmdUnset, func(name, v string) (string, bool) {
			// Inside set "…" only these have a meaning, and none can be escaped in both a batch file and at the prompt.
			return `set "` + name + "=" + v + `"`, !strings.ContainsAny(v, `"%!^`)
		}),
		unset: cmdUnset,
	},
}

func posixUnset(name string) string { return "unset " + name + "\n" }
func fishUnset(name string) string  { return "set -e " + name + "\n" }
func cmdUnset(name string) string   { return `set "` + name + "=\"\n" }
func powershellUnset(name string) string {
	return "Remove-Item -ErrorAction SilentlyContinue Env:" + name + "\n"
}

// lines prints one statement a variable: the shadowing ones are unset, where
// the format can, then the others are set. assign reports false for a value
// that the format cannot hold.
func lines(unset func(string) string, assign func(name, value string) (string, bool)) func(handedOut) ([]byte, error) {
	return func(s handedOut) ([]byte, error) {
		values, err := s.values()
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		if unset != nil {
			for _, name := range shadowing {
				b.WriteString(unset(name))
			}
		}
		for _, v := range values {
			line, ok := assign(v[0], v[1])
			if !ok {
				return nil, broker.Errorf(broker.CodeData, "this format cannot hold the value of %s", v[0]).
					WithHint("--format json is safe for any value")
			}
			b.WriteString(line)
			b.WriteByte('\n')
		}
		return b.Bytes(), nil
	}
}

// posixQuote quotes v for sh and its kin where it must: tools that read
// env-no-export lines without a shell take quotes literally, and AWS's values
// need none. zsh expands "=" at the start of a value and after a colon.
func posixQuote(v string) string {
	plain := !strings.HasPrefix(v, "=") && !strings.Contains(v, ":=")
	for i := range len(v) {
		plain = plain && (isWord(v[i]) || strings.IndexByte("+/=:.,@%-", v[i]) >= 0)
	}
	if plain && v != "" {
		return v
	}
	return "'" + strings.ReplaceAll(v, "'", `'\''`) + "'"
}

// fishQuote quotes v for fish, where a backslash counts inside single quotes.
func fishQuote(v string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// printINI prints a section for ~/.aws/credentials.
func printINI(s handedOut) ([]byte, error) {
	// Names and values outside these sets read differently in one SDK than in another.
	if s.profile == "" || strings.ContainsFunc(s.profile, func(r rune) bool {
		return r > '~' || !isWord(byte(r)) && !strings.ContainsRune("-.@%+:/", r)
	}) {
		return nil, broker.Errorf(broker.CodeData, "the name %q cannot be written as a section that every SDK reads", s.profile).
			WithHint("--format json is safe for any name")
	}
	fields := [][2]string{
		{"aws_access_key_id", s.AccessKeyID}, {"aws_secret_access_key", s.SecretAccessKey},
		{"aws_session_token", s.SessionToken}, {"aws_credential_expiration", s.Expiration}, {"region", s.region},
	}
	var b bytes.Buffer
	b.WriteString("[" + s.profile + "]\n")
	for _, f := range fields {
		if f[1] == "" {
			continue
		}
		if strings.ContainsFunc(f[1], func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, broker.Errorf(broker.CodeData, "the value of %s cannot be written in an ini file", f[0]).
				WithHint("--format json is safe for any value")
		}
		b.WriteString(f[0] + " = " + f[1] + "\n")
	}
	return b.Bytes(), nil
}
