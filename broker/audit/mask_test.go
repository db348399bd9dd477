package audit_test

import (
	"bytes"
	"strings"
	"testing"

	"gatepass/broker/audit"
)

func TestMask(t *testing.T) {
	const (
		secret  = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
		session = "IQoJb3JpZ2luX2VjEHMaCXVzLWVhc3QtMSJHMEUCIQDexample"
	)
	for _, tt := range []struct{ in, want string }{
		{"aws s3 ls", "aws s3 ls"},
		{"", ""},
		{"terraform apply -var-file=prod.tfvars -auto-approve", "terraform apply -var-file=prod.tfvars -auto-approve"},
		{"x --secret abc y", "x --secret *** y"},
		{"x --client-secret=abc y", "x --client-secret=*** y"},
		{"x --clientSecret 'a b' y", "x --clientSecret '***' y"},
		{`x --password="a b" y`, `x --password="***" y`},
		{"x -password abc", "x -password ***"},
		{"x --PASSWORD=abc", "x --PASSWORD=***"},
		{"x --passphrase", "x --passphrase"},
		{"x --password --other y", "x --password --other y"},
		{"docker login --password-stdin -u alice", "docker login --password-stdin -u alice"},
		{"x --password-file /run/p --secret-id prod/db --token-source env", "x --password-file /run/p --secret-id prod/db --token-source env"},
		{"env DB_PASSWORD=hunter2 run", "env DB_PASSWORD=*** run"},
		{"PGPASSWORD=hunter2 psql", "PGPASSWORD=*** psql"},
		{"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE AWS_SECRET_ACCESS_KEY=" + secret, "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE AWS_SECRET_ACCESS_KEY=***"},
		{"x " + secret, "x ***"},
		{"x=" + secret + ";", "x=***;"},
		{"x AKIAIOSFODNN7EXAMPLE:abcDEF0123456789abcDEF0123456789", "x AKIAIOSFODNN7EXAMPLE:***"},
		{"AWS_SESSION_TOKEN=" + session, "AWS_SESSION_TOKEN=***"},
		{"x " + session, "x ***"},
		{"aws sts assume-role --token-code 123456 --role-arn a", "aws sts assume-role --token-code *** --role-arn a"},
		{`curl -H "Authorization: Bearer abc.def" https://h`, `curl -H "Authorization: *** https://h`},
		{"curl -H Bearer abc.def", "curl -H Bearer ***"},
		{"curl -u alice:pw https://h", "curl -u alice:*** https://h"},
		{"curl --user alice:pw https://h", "curl --user alice:*** https://h"},
		{"git clone https://alice:pw@host/repo.git", "git clone https://***@host/repo.git"},
		{"git clone https://ghp_abcdefghijklmnopqrstuvwxyz0123456789@host/r", "git clone https://***@host/r"},
		{"git clone ssh://git@host/r", "git clone ssh://***@host/r"},
		{"curl 'https://h/p?user=a&token=abc&x=1'", "curl 'https://h/p?user=a&token=***&x=1'"},
		{"gh auth ghp_abcdefghijklmnopqrstuvwxyz0123456789", "gh auth ***"},
		{"x eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln y", "x *** y"},
		{`x {"password":"a b","user":"c"}`, `x {"password":"***","user":"c"}`},
		{`x {\"password\": \"abc\"}`, `x {\"password\": \"***"}`},
		{"git show 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12", "git show 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"},
		{"aws --profile tokens sts get-session-token", "aws --profile tokens sts get-session-token"},
	} {
		if got := audit.MaskCommand(tt.in); got != tt.want {
			t.Errorf("%s\n got  %s\n want %s", tt.in, got, tt.want)
		}
	}
	// A secret is seen before the line is cut, wherever the cut would be.
	for pad := 950; pad < 1100; pad++ {
		e := event(1)
		e.Caller.Command = strings.Repeat("p ", pad/2) + "--x " + secret + strings.Repeat(" more", 500)
		e.Caller.Ancestors[0].Command = e.Caller.Command
		if line := logged(t, e, ""); bytes.Contains(line, []byte(secret[:8])) {
			t.Fatalf("part of a secret at %d: %s", pad, line)
		}
	}
}

func TestCommandModes(t *testing.T) {
	e := event(1)
	e.Caller.Command = "/usr/bin/deploy --to prod"
	e.Caller.Ancestors[0].Command = "TOKEN=abc run"
	name, err := audit.ParseEntry(logged(t, e, audit.CommandName))
	if err != nil || name.Caller.Command != "deploy" || name.Caller.Ancestors[0].Command != "TOKEN" {
		t.Errorf("name: %+v, %v", name.Caller, err)
	}
	none, err := audit.ParseEntry(logged(t, e, audit.CommandNone))
	if err != nil || none.Caller.Command != "" || none.Caller.Ancestors[0].Command != "" {
		t.Errorf("none: %+v, %v", none.Caller, err)
	}
}

// A reason that somebody pasted a key into is masked, whatever is recorded of
// command lines.
func TestReasonIsMasked(t *testing.T) {
	e := event(7)
	e.Reason = "ticket 42, AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	for _, mode := range []audit.CommandMode{audit.CommandMasked, audit.CommandNone} {
		line := logged(t, e, mode)
		if bytes.Contains(line, []byte("wJalrXUtnFEMI")) || !bytes.Contains(line, []byte("ticket 42")) {
			t.Errorf("%s: %s", mode, line)
		}
	}
}
