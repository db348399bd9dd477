//go:build unix

package prompt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gatepass/broker"
)

var question = broker.Question{
	Want: broker.WantCode, Profile: "ops", Program: "terraform <b>&\x1b[31m", Key: "alice", Serial: "arn:aws:iam::111122223333:mfa/alice",
	Attempt: 2, Reason: "100% wrong\nQUIT",
}

// fake makes programs of the given names, shell scripts that write what they
// were given to a file.
func fake(t *testing.T, programs map[string]string) (*Prompter, string) {
	t.Helper()
	dir := t.TempDir()
	for name, script := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return New(Config{
		Env: []string{"PATH=/usr/bin:/bin", "OUT=" + filepath.Join(dir, "out")},
		Look: func(name string) (string, error) {
			if _, ok := programs[name]; ok {
				return filepath.Join(dir, name), nil
			}
			return "", exec.ErrNotFound
		},
	}), filepath.Join(dir, "out")
}

var display = broker.Reachable{Known: true, Env: []string{"DISPLAY=:9"}}

const pinentry = `echo "OK hello"
while read -r line; do
  echo "$line" >>"$OUT"
  case "$line" in
  GETPIN*) %s ;;
  esac
  echo OK
done`

func TestAsk(t *testing.T) {
	pin := func(answer string) string { return strings.Replace(pinentry, "%s", answer, 1) }
	for _, tt := range []struct {
		name, mode string
		programs   map[string]string
		how        broker.Reachable
		code       string
		err        broker.Code
	}{
		{"pinentry", "pinentry", map[string]string{"pinentry": pin(`echo "D 123456"`)}, display, "123456", ""},
		{"pinentry escapes", "pinentry", map[string]string{"pinentry": pin(`echo "D 1%252%0A3%c3%BC%4"`)}, display, "1%2\n3ü%4", ""},
		{"pinentry cancelled", "pinentry", map[string]string{"pinentry": pin(`echo "ERR 83886179 Operation cancelled"; continue`)}, display, "", broker.CodeCancelled},
		{"pinentry timeout", "pinentry", map[string]string{"pinentry": pin(`echo "ERR 83886142 Timeout"; continue`)}, display, "", broker.CodePromptTimeout},
		{"pinentry without display", "pinentry", map[string]string{"pinentry": pin(`echo "ERR 83918950 ioctl"; continue`)}, display, "", broker.CodePromptUnavailable},
		{"pinentry, nothing to show it on", "pinentry", map[string]string{"pinentry": pin(`echo "D 123456"`)}, broker.Reachable{}, "", broker.CodePromptUnavailable},
		{"pinentry talks nonsense", "pinentry", map[string]string{"pinentry": "echo hello"}, display, "", broker.CodePromptUnavailable},
		{"pinentry ends", "pinentry", map[string]string{"pinentry": "exit 0"}, display, "", broker.CodePromptUnavailable},
		{"pinentry floods", "pinentry", map[string]string{"pinentry": "exec yes OKOKOK | tr -d '\\n'"}, display, "", broker.CodePromptUnavailable},
		{"no pinentry", "pinentry", nil, display, "", broker.CodePromptUnavailable},
		{"zenity", "desktop", map[string]string{"zenity": "echo 123456"}, display, "123456", ""},
		{"zenity cancelled", "desktop", map[string]string{"zenity": `exit "$ZENITY_CANCEL"`, "kdialog": "echo 2"}, display, "", broker.CodeCancelled},
		{"zenity closed", "desktop", map[string]string{"zenity": `exit "$ZENITY_ESC"`, "kdialog": "echo 2"}, display, "", broker.CodeCancelled},
		{"zenity without display", "desktop", map[string]string{"zenity": "exit 1"}, display, "", broker.CodePromptUnavailable},
		{"kdialog cancelled", "desktop", map[string]string{"kdialog": "exit 1"}, display, "", broker.CodeCancelled},
		{"kdialog aborts", "desktop", map[string]string{"kdialog": "kill -ABRT $$"}, display, "", broker.CodePromptUnavailable},
		{"zenity fails, kdialog", "desktop", map[string]string{"zenity": "exit 255", "kdialog": "echo 123456"}, display, "123456", ""},
		{"no display", "desktop", map[string]string{"zenity": "echo 123456"}, broker.Reachable{}, "", broker.CodePromptUnavailable},
		{"no dialog", "desktop", nil, display, "", broker.CodePromptUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := fake(t, tt.programs)
			code, err := p.Ask(t.Context(), question, tt.mode, tt.how)
			if broker.CodeOf(err) != tt.err || code.Reveal() != tt.code {
				t.Errorf("got %q, %v, want %q, %q", code.Reveal(), err, tt.code, tt.err)
			}
		})
	}
}

// What others chose is text in every program, and no command or markup.
func TestTextIsText(t *testing.T) {
	p, out := fake(t, map[string]string{
		"pinentry": strings.Replace(pinentry, "%s", `echo "D 123456"`, 1),
		"zenity":   `echo "$@" >>"$OUT"; env >>"$OUT"; echo 123456`,
	})
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-for-dialogs")
	for _, mode := range []string{"pinentry", "desktop"} {
		if _, err := p.Ask(t.Context(), question, mode, display); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	got := string(b)
	for _, bad := range []string{"\x1b", "\nQUIT", "not-for-dialogs", "\u202e"} {
		if strings.Contains(got, bad) {
			t.Errorf("%q in %s", bad, got)
		}
	}
	for _, good := range []string{
		"SETTIMEOUT 0\n", "100%25 wrong?QUIT", "Profile: ops%0A", "Program: terraform <b>&?[31m%0A", "\nProgram: terraform <b>&?[31m\n",
		"mfa/alice", "DISPLAY=:9",
	} {
		if !strings.Contains(got, good) {
			t.Errorf("no %q in %s", good, got)
		}
	}
}

func TestText(t *testing.T) {
	for _, q := range []broker.Question{
		{Want: broker.WantCode, Profile: "ops", Serial: "mfa/alice"},
		{Want: broker.WantPassphrase, Keychain: "file", Program: "zsh", Reason: "wrong"},
		{Want: broker.WantCode, Profile: "<b>ops\n", Program: strings.Repeat("long ", 100), Serial: strings.Repeat("ü", 500), Reason: "a\u2028b\u200fc\u0085d\xff"},
	} {
		first, rest, _ := strings.Cut(text(q), "\n")
		if !strings.Contains(first, "is needed") || !strings.HasPrefix(rest, "\n") {
			t.Errorf("the text begins with %q, %q", first, rest)
		}
		for line := range strings.Lines(rest) {
			if n := len([]rune(line)); n > width+1 {
				t.Errorf("a line has %d characters: %q", n, line)
			}
		}
		if strings.ContainsAny(rest, "\u2028\u200f\u0085") || !utf8.ValidString(rest) {
			t.Errorf("as it is: %q", rest)
		}
	}
	if got := escapeZenity(`a_b\n<&`); got != `a__b\\n<&` {
		t.Errorf("zenity gets %q", got)
	}
	if got := escapeHTML("a_b\\n<&>\n"); got != `a_b\\n&lt;&amp;&gt;<br>` {
		t.Errorf("kdialog gets %q", got)
	}
	if got := escapeKDialog(`a_b\n<&`); got != `a_b\\n<&&` {
		t.Errorf("kdialog gets %q", got)
	}
}

// AppleScript's dialog says by its output what the user did, since every
// error ends osascript with 1.
func TestAppleScript(t *testing.T) {
	for script, want := range map[string]string{
		"echo =123456": "123456", "echo =": "", "echo cancelled": "cancelled", "exit 1": "prompt_unavailable",
	} {
		p, _ := fake(t, map[string]string{"osascript": script})
		code, err := p.dialog(t.Context(), osascript(question), display)
		if got := code.Reveal() + string(broker.CodeOf(err)); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	hidden := func(want string) bool {
		return strings.Contains(osascript(broker.Question{Want: want}).args[1], `default answer "" with hidden answer with title`)
	}
	if hidden(broker.WantCode) || !hidden(broker.WantPassphrase) || !hidden(broker.WantNewPassphrase) {
		t.Error("the wrong answers are hidden")
	}
}

// A dialog whose question is over is taken down, with what it started.
func TestAskEnds(t *testing.T) {
	for mode, programs := range map[string]map[string]string{
		"pinentry": {"pinentry": "echo OK; echo ready >\"$OUT\"; sleep 1000"},
		"desktop":  {"zenity": "echo ready >\"$OUT\"; sleep 1000"},
	} {
		p, out := fake(t, programs)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := p.Ask(ctx, question, mode, display)
			ended <- err
		}()
		for {
			if b, _ := os.ReadFile(out); len(b) > 0 {
				break
			}
			<-time.After(5 * time.Millisecond)
		}
		cancel()
		if err := <-ended; broker.CodeOf(err) != broker.CodePromptTimeout {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

func TestRun(t *testing.T) {
	p, _ := fake(t, nil)
	for _, tt := range []struct {
		command, code string
		err           broker.Code
	}{
		{"echo ' 123456 '", "123456", ""},
		{"printf 123456; echo talk >&2", "123456", ""},
		{"exit 3", "", broker.CodePromptUnavailable},
		{"/does/not/exist", "", broker.CodePromptUnavailable},
		{"env | grep -c AWS_SECRET || true", "0", ""},
	} {
		code, err := p.Run(t.Context(), tt.command, func(int) error { return nil })
		if broker.CodeOf(err) != tt.err || code.Reveal() != tt.code {
			t.Errorf("%s: got %q, %v", tt.command, code.Reveal(), err)
		}
	}
}

// The process is there before it does anything, and does nothing without leave.
func TestRunBegins(t *testing.T) {
	p, _ := fake(t, nil)
	ran := filepath.Join(t.TempDir(), "ran")
	command := "echo $$ >" + ran + "; cat; echo 123456"
	refused := errors.New("no")
	if _, err := p.Run(t.Context(), command, func(int) error { return refused }); err != refused {
		t.Error(err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("it was run without leave")
	}
	var pid int
	code, err := p.Run(t.Context(), command, func(n int) error {
		pid = n
		if _, err := os.Stat(ran); err == nil {
			t.Error("it was run before it had leave")
		}
		return nil
	})
	if data, _ := os.ReadFile(ran); err != nil || code.Reveal() != "123456" || string(data) != fmt.Sprintln(pid) {
		t.Errorf("%q, %v; process %d was to run it, and %q did", code.Reveal(), err, pid, data)
	}
}
