package main

import (
	"strings"
	"testing"

	"gatepass/broker"
)

func TestArrange(t *testing.T) {
	h := newHome(t)
	commands := h.command(nil, nil).commands()
	for _, c := range []struct{ typed, path, args string }{
		{"export ops --format json", "export", "--format json -- ops"},
		{"export --format json ops", "export", "--format json -- ops"},
		{"export --format=json ops", "export", "--format=json -- ops"},
		{"export -format json ops", "export", "-format json -- ops"},
		{"export ops --region x --unset --reason y", "export", "--region x --unset --reason y -- ops"},
		{"export ops -- --format json", "export", "-- ops --format json"},
		{"export -- --help", "export", "-- --help"},
		{"export --reason --unset ops", "export", "--reason --unset -- ops"}, // as package flag has it
		{"export -", "export", "-- -"},
		{"keys add work --stdin", "keys add", "--stdin -- work"},
		{"keys add --csv f work", "keys add", "--csv f -- work"},
		{"keys list --json", "keys list", "--json --"},
		{"status", "status", "--"},
		{"export export", "export", "-- export"}, // a profile may be called anything
		{"exec --reason r ops --env -- ls -l --env", "exec", "--reason r --env -- ops -- ls -l --env"},
		{"exec -- ls -- x", "exec", "-- -- ls -- x"},
	} {
		r, err := arrange(commands, strings.Fields(c.typed))
		if err != nil {
			t.Errorf("%s: %v", c.typed, err)
			continue
		}
		if got := strings.Join(r.path, " "); got != c.path {
			t.Errorf("%s: command %q, want %q", c.typed, got, c.path)
		}
		if got := strings.Join(r.args, " "); got != c.args {
			t.Errorf("%s: arguments %q, want %q", c.typed, got, c.args)
		}
	}
	for typed, want := range map[string]string{
		"exprot ops":              `gatepass has no command "exprot"; did you mean "export"?`,
		"xyzzy":                   `gatepass has no command "xyzzy"`,
		"keys lst":                `gatepass keys has no command "lst"; did you mean "list"?`,
		"export ops --fromat env": "gatepass export has no flag --fromat; did you mean --format?",
		"export ops --zzzzz":      "gatepass export has no flag --zzzzz",
		"export ops --format":     "the flag --format needs a value",
		"--json status":           "flags come after the command, and gatepass itself has no --json",
		"keys --json list":        "gatepass keys has no flag --json",
		"-- keys list":            "a command stands before --, not after it",
	} {
		_, err := arrange(commands, strings.Fields(typed))
		if err == nil || err.Error() != want || broker.CodeOf(err) != broker.CodeUsage {
			t.Errorf("%s: %v, want %s", typed, err, want)
		}
	}
}

// A flag means the same on either side of the argument.
func TestFlagsOnEitherSide(t *testing.T) {
	h := newHome(t)
	got := h.serveDocument("")
	before := h.run("credential-process", "--region", "eu-west-1", "--reason", "why", "--duration", "1h", "--min-left", "600", "ops")
	after := h.run("credential-process", "ops", "--region", "eu-west-1", "--reason", "why", "--duration", "1h", "--min-left", "600")
	if before != after || before.stdout != document || before.stderr != "" {
		t.Errorf("before: %+v\nafter: %+v", before, after)
	}
	if r := got(); len(r) != 2 || r[0] != r[1] || r[0].Profile != "ops" || r[0].Region != "eu-west-1" || r[0].Reason != "why" ||
		r[0].DurationSeconds != 3600 || r[0].MinLeftSeconds != 600 || r[0].Via != "credential-process" {
		t.Errorf("requests: %+v", r)
	}
	dashed := h.run("credential-process", "--", "-x")
	if r := got(); dashed.code != 0 || r[2].Profile != "-x" {
		t.Errorf("a name after --: %+v %+v", dashed, r)
	}
}

func FuzzArrange(f *testing.F) {
	f.Add("export\x00ops\x00--format\x00json")
	f.Add("keys\x00add\x00--\x00--csv")
	f.Add("-\x00--\x00--=\x00-=x")
	commands := newHome(f).command(nil, nil).commands()
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		r, err := arrange(commands, args)
		if err != nil {
			if broker.CodeOf(err) != broker.CodeUsage {
				t.Errorf("%q: %v", args, err)
			}
			return
		}
		// Arranging what is arranged changes nothing.
		again, err := arrange(commands, append(append([]string{}, r.path...), r.args...))
		if r.cmd == nil {
			return
		}
		if err != nil || strings.Join(again.args, "\x00") != strings.Join(r.args, "\x00") {
			t.Errorf("%q: %q, then %q (%v)", args, r.args, again.args, err)
		}
	})
}
