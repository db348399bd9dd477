package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

func TestExportFormats(t *testing.T) {
	h := newHome(t)
	got := h.serveDocument("eu-west-1")
	for format, want := range map[string]string{
		"env": `unset AWS_PROFILE
unset AWS_DEFAULT_PROFILE
unset AWS_SECURITY_TOKEN
export AWS_ACCESS_KEY_ID=ASIAEXAMPLE
export AWS_SECRET_ACCESS_KEY=wJalr/XUtn+FEMI
export AWS_SESSION_TOKEN=FwoG/tok+en==
export AWS_CREDENTIAL_EXPIRATION=2026-11-03T10:00:00Z
export AWS_REGION=eu-west-1
export AWS_DEFAULT_REGION=eu-west-1
`,
		"env-no-export": `AWS_ACCESS_KEY_ID=ASIAEXAMPLE
AWS_SECRET_ACCESS_KEY=wJalr/XUtn+FEMI
AWS_SESSION_TOKEN=FwoG/tok+en==
AWS_CREDENTIAL_EXPIRATION=2026-11-03T10:00:00Z
AWS_REGION=eu-west-1
AWS_DEFAULT_REGION=eu-west-1
`,
		"json":    document,
		"process": document,
		"ini": `[ops]
aws_access_key_id = ASIAEXAMPLE
aws_secret_access_key = wJalr/XUtn+FEMI
aws_session_token = FwoG/tok+en==
aws_credential_expiration = 2026-11-03T10:00:00Z
region = eu-west-1
`,
		"fish": `set -e AWS_PROFILE
set -e AWS_DEFAULT_PROFILE
set -e AWS_SECURITY_TOKEN
set -gx AWS_ACCESS_KEY_ID 'ASIAEXAMPLE'
set -gx AWS_SECRET_ACCESS_KEY 'wJalr/XUtn+FEMI'
set -gx AWS_SESSION_TOKEN 'FwoG/tok+en=='
set -gx AWS_CREDENTIAL_EXPIRATION '2026-11-03T10:00:00Z'
set -gx AWS_REGION 'eu-west-1'
set -gx AWS_DEFAULT_REGION 'eu-west-1'
`,
		"powershell": `Remove-Item -ErrorAction SilentlyContinue Env:AWS_PROFILE
Remove-Item -ErrorAction SilentlyContinue Env:AWS_DEFAULT_PROFILE
Remove-Item -ErrorAction SilentlyContinue Env:AWS_SECURITY_TOKEN
$Env:AWS_ACCESS_KEY_ID = 'ASIAEXAMPLE'
$Env:AWS_SECRET_ACCESS_KEY = 'wJalr/XUtn+FEMI'
$Env:AWS_SESSION_TOKEN = 'FwoG/tok+en=='
$Env:AWS_CREDENTIAL_EXPIRATION = '2026-11-03T10:00:00Z'
$Env:AWS_REGION = 'eu-west-1'
$Env:AWS_DEFAULT_REGION = 'eu-west-1'
`,
		"windows-cmd": `set "AWS_PROFILE="
set "AWS_DEFAULT_PROFILE="
set "AWS_SECURITY_TOKEN="
set "AWS_ACCESS_KEY_ID=ASIAEXAMPLE"
set "AWS_SECRET_ACCESS_KEY=wJalr/XUtn+FEMI"
set "AWS_SESSION_TOKEN=FwoG/tok+en=="
set "AWS_CREDENTIAL_EXPIRATION=2026-11-03T10:00:00Z"
set "AWS_REGION=eu-west-1"
set "AWS_DEFAULT_REGION=eu-west-1"
`,
	} {
		if r := h.run("export", "ops", "--format", format); r != (result{stdout: want}) {
			t.Errorf("%s: got\n%+v\nwant\n%s", format, r, want)
		}
	}
	for _, r := range got() {
		if r.Via != "export" || r.Profile != "ops" {
			t.Errorf("request %+v", r)
		}
	}
	if len(formats) != len(strings.Split(formatNames, ", ")) {
		t.Errorf("%d formats, and the error names %s", len(formats), formatNames)
	}
}

func TestExportFallsBackToAWSProfile(t *testing.T) {
	h := newHome(t)
	got := h.serveDocument("")
	h.env["AWS_PROFILE"] = "from-env"
	r := h.run("export")
	if r.code != 0 || strings.Contains(r.stdout, "REGION") || got()[0].Profile != "from-env" {
		t.Errorf("%+v, requests %+v", r, got())
	}
	if h.run("export", "named"); got()[1].Profile != "named" {
		t.Errorf("requests %+v", got())
	}
	if r := h.run("credential-process"); r.code != 64 {
		t.Errorf("credential-process takes AWS_PROFILE, which would call itself: %+v", r)
	}
}

func TestExportUnsetAsksNobody(t *testing.T) {
	h := newHome(t)
	h.env["GATEPASS_AUTOSTART"] = "0" // and no daemon
	for format, line := range map[string]string{
		"env": "unset AWS_SESSION_TOKEN\n", "fish": "set -e AWS_SESSION_TOKEN\n", "windows-cmd": "set \"AWS_SESSION_TOKEN=\"\n",
		"powershell": "Remove-Item -ErrorAction SilentlyContinue Env:AWS_SESSION_TOKEN\n",
	} {
		r := h.run("export", "--unset", "--format", format)
		if r.code != 0 || strings.Count(r.stdout, "\n") != len(exported) || !strings.Contains(r.stdout, line) {
			t.Errorf("%s: %+v", format, r)
		}
	}
}

// hostile are values that mean something to one shell or another.
var hostile = []string{
	"a'b", `a"b`, "a b", "$HOME", "`id`", "$(id)", "a;id", "a|id", "a&id", "a>f", "*", "~", "=ls", "a:=ls", "a:~",
	`a\b`, `\`, `'`, "a'$(id)'b", "#x", "!x", "{a,b}", "[a]", "a=b", "-n", "%PATH%", "^a", "(a)", "a?b", `a\'b`,
}

// Shells that are here read back every value exactly, and run nothing.
func TestExportedValuesSurviveShells(t *testing.T) {
	shells := map[string][]string{
		"sh": {"env", "env-no-export"}, "bash": {"env", "env-no-export"}, "dash": {"env", "env-no-export"},
		"busybox": {"env", "env-no-export"}, "zsh": {"env", "env-no-export"}, "fish": {"fish"},
	}
	for shell, names := range shells {
		path, err := exec.LookPath(shell)
		if err != nil {
			if shell == "sh" {
				t.Fatal(err)
			}
			t.Logf("%s is not here", shell)
			continue
		}
		for _, name := range names {
			t.Run(shell+"/"+name, func(t *testing.T) {
				for _, value := range hostile {
					out, err := formats[name].print(handedOut{
						AccessKeyID: value, SecretAccessKey: value, SessionToken: value, Expiration: value, region: value, profile: "p",
					})
					if err != nil {
						t.Fatalf("%q: %v", value, err)
					}
					script := string(out)
					for _, variable := range exported {
						script += fmt.Sprintf(`printf '%%s\n' "$%s"`+"\n", variable)
					}
					args := []string{"-c", script}
					if shell == "busybox" {
						args = append([]string{"sh"}, args...)
					}
					cmd := exec.Command(path, args...)
					cmd.Dir = t.TempDir()
					cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nowhere", "AWS_PROFILE=x"}
					got, err := cmd.CombinedOutput()
					if want := strings.Repeat(value+"\n", len(exported)); err != nil || string(got) != want {
						t.Errorf("%q: %v\ngot  %q\nfrom %q", value, err, got, out)
					}
				}
			})
		}
	}
}

// eval of the env format leaves the variables and takes AWS_PROFILE away;
// --unset takes them away again.
func TestExportEvaluated(t *testing.T) {
	h := newHome(t)
	h.serveDocument("eu-west-1")
	r := h.run("export", "ops")
	u := h.run("export", "--unset")
	cmd := exec.Command("sh", "-c", r.stdout+"env | grep ^AWS | sort; echo --\n"+u.stdout+"env | grep ^AWS; true")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "AWS_PROFILE=old", "AWS_SECURITY_TOKEN=old", "AWS_DEFAULT_PROFILE=old"}
	out, err := cmd.CombinedOutput()
	want := `AWS_ACCESS_KEY_ID=ASIAEXAMPLE
AWS_CREDENTIAL_EXPIRATION=2026-11-03T10:00:00Z
AWS_DEFAULT_REGION=eu-west-1
AWS_REGION=eu-west-1
AWS_SECRET_ACCESS_KEY=wJalr/XUtn+FEMI
AWS_SESSION_TOKEN=FwoG/tok+en==
--
`
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s", err, out)
	}
}

// What a format cannot hold is refused, and the secret is not in the error.
func TestExportRefusesWhatAFormatCannotHold(t *testing.T) {
	good := handedOut{AccessKeyID: "A", SecretAccessKey: "sEcReT", SessionToken: "T", Expiration: "E", profile: "p", region: "r"}
	for name, f := range formats {
		if f.print == nil {
			continue
		}
		if _, err := f.print(good); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, bad := range []string{"a\nb", "a\rb", "a\x00b", "a\x1bb", "a\x7fb", "a\u2019b", "a\u00a0b", "a\xffb"} {
			s := good
			s.region = bad
			if out, err := f.print(s); broker.CodeOf(err) != broker.CodeData || strings.Contains(err.Error(), "sEcReT") {
				t.Errorf("%s: region %q: %q, %v", name, bad, out, err)
			}
		}
	}
	for _, bad := range []string{`a"b`, "%PATH%", "a!b", "a^b"} {
		s := good
		s.SecretAccessKey = bad
		if out, err := formats["windows-cmd"].print(s); broker.CodeOf(err) != broker.CodeData {
			t.Errorf("windows-cmd: %q: %q, %v", bad, out, err)
		}
	}
	for _, bad := range []string{"", "a]b", "a b", "a;b", "a#b", "é", "a\nb", "ā"} {
		s := good
		s.profile = bad
		if out, err := formats["ini"].print(s); broker.CodeOf(err) != broker.CodeData {
			t.Errorf("ini: profile %q: %q, %v", bad, out, err)
		}
	}
	s := good
	s.SecretAccessKey = "a #b"
	if out, err := formats["ini"].print(s); broker.CodeOf(err) != broker.CodeData {
		t.Errorf("ini: a comment in a value: %q, %v", out, err)
	}
	if out, _ := formats["powershell"].print(handedOut{AccessKeyID: "a'b", SecretAccessKey: "$x"}); !bytes.Contains(out, []byte("= 'a''b'\n")) {
		t.Errorf("powershell: %s", out)
	}
}

// A daemon's answer that is no document is refused without being shown.
func TestExportRefusesABadDocument(t *testing.T) {
	for _, answer := range []string{"{}\n", `{"AccessKeyId":"A"}` + "\n", `{"AccessKeyId":"A","SecretAccessKey":7}` + "\n", "{sEcReT}\n"} {
		h := newHome(t)
		h.serve(map[string]func([]byte) (int, map[string]string, string){
			"POST " + wire.PathCredentials: func([]byte) (int, map[string]string, string) { return 200, nil, answer },
		})
		if r := h.run("export", "ops"); r.code != 65 || r.stdout != "" || strings.Contains(r.stderr, "sEcReT") {
			t.Errorf("%q: %+v", answer, r)
		}
	}
}

func TestShadowingIsNotExported(t *testing.T) {
	for _, name := range shadowing {
		if slices.Contains(exported, name) {
			t.Errorf("%s is unset, then set", name)
		}
	}
}

// A session that is shorter than was asked for is noted, a cached one with most
// of its life left is not.
func TestShorterThan(t *testing.T) {
	now := time.Date(2026, 11, 3, 10, 0, 0, 0, time.Local)
	for _, tt := range []struct {
		asked int
		left  time.Duration
		noted bool
	}{
		{0, time.Hour, false},
		{3600, time.Hour, false},
		{3600, 55 * time.Minute, false},
		{7200, time.Hour, true},
		{43200, 11 * time.Hour, false},
	} {
		s := handedOut{Expiration: now.Add(tt.left).UTC().Format(time.RFC3339)}
		if note := shorterThan(s, tt.asked, now); (note != "") != tt.noted || tt.noted && note != "the session ends in 1h0m, at 11:00: a role that is assumed by a role lasts 1 h at most" {
			t.Errorf("%d s asked, %v left: %q", tt.asked, tt.left, note)
		}
	}
	if note := shorterThan(handedOut{Expiration: "soon"}, 3600, now); note != "" {
		t.Error(note)
	}
}
