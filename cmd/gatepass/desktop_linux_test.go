package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/prompt/prompttest"
	"gatepass/broker/sts/ststest"
)

const (
	cancelled   = 77 // also what was refused
	unavailable = 75
)

// withPrograms starts the daemon anew where it finds these real programs, by
// the name under which it looks for them, and no others.
func (r *realm) withPrograms(t *testing.T, programs map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, program := range programs {
		prompttest.Need(t, program)
		path, err := exec.LookPath(program)
		if err == nil {
			err = os.Symlink(path, filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r.setenv("PATH=" + dir)
	r.setenv("GSETTINGS_BACKEND=memory")
	r.restart(t)
}

// overhear has what the daemon tells this pinentry kept in a file.
func overhear(t *testing.T, program string) (pinentry, told string) {
	t.Helper()
	prompttest.Need(t, program, "tee")
	dir := t.TempDir()
	pinentry, told = filepath.Join(dir, program), filepath.Join(dir, "told")
	path, err := exec.LookPath(program)
	if err == nil {
		var tee string
		if tee, err = exec.LookPath("tee"); err == nil {
			err = os.WriteFile(pinentry, fmt.Appendf(nil, "#!/bin/sh\n%s -a %s | %s\n", tee, told, path), 0o700)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return pinentry, told
}

func (r *realm) restart(t testing.TB) {
	t.Helper()
	if out, err := r.command("gatepass", "daemon", "restart").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// An ended is how a process ended.
type ended struct {
	status int
	output string
}

// crowd runs the command n times at once, each without a terminal, and
// returns what waits for all of them.
func (r *realm) crowd(n int, args ...string) (wait func() []ended) {
	all := make([]ended, n)
	var running sync.WaitGroup
	for i := range n {
		cmd := r.command("gatepass", args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		running.Go(func() {
			out, err := cmd.CombinedOutput()
			if err != nil && exitStatus(err) == 0 {
				out = append(out, err.Error()...)
			}
			all[i] = ended{exitStatus(err), string(out)}
		})
	}
	return func() []ended { running.Wait(); return all }
}

// crowdSize is that of a large one: with the race detector a process takes a
// second to start, and TestMFAAskedOnce has fifty of them.
func crowdSize() int {
	if raceEnabled {
		return 16
	}
	return 50
}

// wrongCode is one that alice's device does not show now.
func (r *realm) wrongCode() string {
	if code := r.aws.Code("alice"); code != "000000" {
		return "000000"
	}
	return "000001"
}

// However many processes wait, one dialog comes, and all are served from its
// answer. A wrong code brings another with the reason.
func TestMFADialogs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, program string
		crowd         int
	}{
		{"pinentry", "pinentry-gtk-2", crowdSize()},
		{"zenity", "zenity", 2},
		{"kdialog", "kdialog", 2},
	} {
		t.Run(tt.program, func(t *testing.T) {
			d := prompttest.New(t)
			r := newMFARealm(t)
			r.setenv("DISPLAY=" + d.Name)
			program, told := tt.program, ""
			if tt.name == "pinentry" {
				program, told = overhear(t, tt.program)
			}
			r.withPrograms(t, map[string]string{tt.name: program})
			wait := r.crowd(tt.crowd, "credential-process", "deploy")
			first := d.First()
			d.Type(first, r.wrongCode(), "Return")
			d.Type(d.Dialog(first), r.aws.Code("alice"), "Return")
			for _, e := range wait() {
				if e.status != 0 || !strings.Contains(e.output, `"Version":1`) {
					t.Errorf("%d: %s", e.status, e.output)
				}
			}
			d.Gone()
			if n, m := r.aws.Count("GetSessionToken"), r.aws.Count("AssumeRole"); n != 2 || m != 1 {
				t.Errorf("%d codes were sent, %d roles assumed", n, m)
			}
			if tt.name != "pinentry" {
				return
			}
			text, err := os.ReadFile(told)
			if err != nil || strings.Count(string(text), "GETPIN") != 2 {
				t.Errorf("%v: %s", err, text)
			}
			for _, part := range []string{
				"Profile: deploy%0A", "Program: " + os.Args[0], "Device: " + ststest.AliceDevice + "\n",
				"needed once more.%0A%0Aget session token: AWS refused", "wait for the next",
			} {
				// Lines are broken somewhere in the program's path.
				if !strings.Contains(strings.ReplaceAll(string(text), "%0A", ""), strings.ReplaceAll(part, "%0A", "")) {
					t.Errorf("no %q in %s", part, text)
				}
			}
		})
	}
}

// A dialog that is cancelled refuses all who wait, and no other comes for
// programs; a person's own command brings one.
func TestMFADialogCancelled(t *testing.T) {
	t.Parallel()
	d := prompttest.New(t)
	r := newMFARealm(t)
	r.setenv("DISPLAY=" + d.Name)
	pinentry, told := overhear(t, "pinentry-gtk-2")
	r.withPrograms(t, map[string]string{"pinentry": pinentry, "zenity": "zenity"})
	wait := r.crowd(crowdSize(), "credential-process", "deploy")
	d.Type(d.First(), "", "Escape")
	refused := 0
	for _, e := range wait() {
		switch {
		case e.status == cancelled && strings.Contains(e.output, "cancelled in pinentry"):
			refused++
		case e.status == unavailable && strings.Contains(e.output, "was cancelled"): // it came later
		default:
			t.Errorf("%d: %s", e.status, e.output)
		}
	}
	if refused == 0 {
		t.Error("nobody waited")
	}
	for _, e := range r.crowd(20, "credential-process", "deploy")() {
		if e.status != unavailable || !strings.Contains(e.output, "was cancelled; programs are not asked for again for ") {
			t.Errorf("%d: %s", e.status, e.output)
		}
	}
	if text, err := os.ReadFile(told); err != nil || strings.Count(string(text), "GETPIN") != 1 || len(d.Windows()) != 0 {
		t.Errorf("asked again: %v: %s", err, text)
	}
	wait = r.crowd(1, "whoami", "deploy")
	d.Type(d.First(), r.aws.Code("alice"), "Return")
	if e := wait()[0]; e.status != 0 {
		t.Errorf("%d: %s", e.status, e.output)
	}
}

// A dialog that somebody kills is no answer: the next way is taken.
func TestMFADialogKilled(t *testing.T) {
	t.Parallel()
	d := prompttest.New(t)
	r := newMFARealm(t)
	r.setenv("DISPLAY=" + d.Name)
	r.withPrograms(t, map[string]string{"pinentry": "pinentry-gtk-2", "zenity": "zenity"})
	wait := r.crowd(3, "credential-process", "deploy")
	first := d.First()
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.Type(d.Dialog(first), r.aws.Code("alice"), "Return")
	for _, e := range wait() {
		if e.status != 0 {
			t.Errorf("%d: %s", e.status, e.output)
		}
	}
}

// Where the question appears, with a display and a terminal: by the surface,
// by [mfa] prompt, by --prompt.
func TestMFAChosenWay(t *testing.T) {
	t.Parallel()
	d := prompttest.New(t)
	r := newMFARealm(t)
	r.setenv("DISPLAY=" + d.Name)
	toml, err := os.ReadFile(filepath.Join(r.home, ".config/gatepass/gatepass.toml"))
	if err != nil {
		t.Fatal(err)
	}
	onTerminal := func(args ...string) {
		t.Helper()
		p := r.onTerminal(t, args...)
		p.expect("MFA code of")
		if n := len(d.Windows()); n != 0 {
			t.Errorf("%q: there are %d dialogs as well", args, n)
		}
		p.enter("\x03")
		p.waitFor(0)
	}
	inDialog := func(args ...string) {
		t.Helper()
		p := r.onTerminal(t, args...)
		d.Type(d.First(), "", "Escape")
		p.exits(cancelled)
		if seen := p.rest(); strings.Contains(seen, "MFA code of") {
			t.Errorf("%q: the terminal shows %q", args, seen)
		}
		d.Gone()
	}
	r.withPrograms(t, map[string]string{"pinentry": "pinentry-gtk-2", "zenity": "zenity"})
	inDialog("credential-process", "deploy")
	onTerminal("whoami", "deploy")
	inDialog("whoami", "deploy", "--prompt", "desktop")
	r.restart(t) // or programs are not asked for after a cancel
	onTerminal("credential-process", "deploy", "--prompt", "tty")

	r.write(t, ".config/gatepass/gatepass.toml", string(toml)+"[mfa]\nprompt = \"desktop\"\n")
	r.restart(t)
	inDialog("whoami", "deploy")
	r.onTerminal(t, "export", "deploy", "--prompt", "none").exits(unavailable)

	r.write(t, ".config/gatepass/gatepass.toml", string(toml)+"[mfa]\nprompt = \"none\"\n")
	r.restart(t)
	r.onTerminal(t, "export", "deploy").exits(unavailable)
	inDialog("export", "deploy", "--prompt", "pinentry")
}

// The real pinentry on the caller's terminal, where that is asked for. It is
// gone with the caller, and the terminal is as before.
func TestMFAPinentryOnATerminal(t *testing.T) {
	t.Parallel()
	for program, cancel := range map[string]string{"pinentry-tty": "\x04", "pinentry-curses": "\t\t\r"} {
		t.Run(program, func(t *testing.T) {
			r := newMFARealm(t)
			r.withPrograms(t, map[string]string{"pinentry": program})
			ask := func() *pty {
				p := startOnTerminal(t, r.command("gatepass", "export", "deploy", "--prompt", "pinentry"), "TERM=xterm")
				p.expect("mfa/alice")
				if !strings.Contains(p.seen.String(), "Profile: deploy") {
					t.Errorf("the terminal shows %q", p.seen.String())
				}
				for p.echoes() { // it draws first
					runtime.Gosched()
				}
				return p
			}
			p := ask()
			p.enter(cancel)
			p.exits(cancelled)

			p = ask()
			p.cmd.Process.Signal(syscall.SIGINT)
			if s := p.waitFor(0); !s.Signaled() {
				t.Errorf("ended with %v", s)
			}
			for end := time.Now().Add(20 * time.Second); !p.echoes(); runtime.Gosched() {
				if time.Now().After(end) {
					t.Fatal("the terminal has no echo")
				}
			}

			p = ask()
			p.enter(r.aws.Code("alice") + "\r")
			p.exits(0)
			if n := r.aws.Count("GetSessionToken"); n != 1 {
				t.Errorf("%d codes were sent", n)
			}
		})
	}
}

// A program that has the whole screen keeps it: a credential-process that it
// starts does not ask there.
func TestMFAFullScreenProgram(t *testing.T) {
	t.Parallel()
	prompttest.Need(t, "less")
	r := newMFARealm(t)
	script := `less -X /etc/passwd </dev/tty >/dev/tty & screen=$!
until test "$(stty -F /dev/tty -a | grep -c -- -icanon)" = 1; do :; done
"$0" credential-process deploy >out 2>&1 </dev/null; status=$?
kill $screen; wait; stty -F /dev/tty sane; echo "status $status" >/dev/tty`
	cmd := r.command("gatepass")
	cmd.Args = []string{"sh", "-c", script, cmd.Path}
	cmd.Path = "/bin/sh"
	p := startOnTerminal(t, cmd, "TERM=xterm")
	p.expect("status 75")
	if strings.Contains(p.seen.String(), "MFA code of") || !strings.Contains(p.seen.String(), "root:") {
		t.Errorf("the terminal shows %q", p.seen.String())
	}
}

// A client that is killed while it asks is passed over.
func TestMFAKilledPrompter(t *testing.T) {
	t.Parallel()
	r := newMFARealm(t)
	killed := r.onTerminal(t, "credential-process", "deploy")
	killed.expect("alice: ")
	wait := r.crowd(5, "credential-process", "deploy")
	killed.cmd.Process.Kill()
	next := r.onTerminal(t, "credential-process", "deploy")
	next.expect("alice: ")
	next.enter(r.aws.Code("alice") + "\n")
	next.exits(0)
	for _, e := range wait() {
		if e.status != 0 {
			t.Errorf("%d: %s", e.status, e.output)
		}
	}
}

// The third wrong code is the last.
func TestMFAThreeWrongCodes(t *testing.T) {
	t.Parallel()
	r := newMFARealm(t)
	p := startOnTerminal(t, exec.Command("sh", "-c", `exec "$0" credential-process deploy 2>/dev/tty`, r.bin+"/gatepass"), r.env...)
	code := r.aws.Code("alice")
	for i := range 3 {
		p.expect("alice: ")
		wrong := fmt.Sprintf("00000%d", i)
		if wrong == code {
			wrong = "000009"
		}
		p.enter(wrong + "\n")
	}
	p.expect("AWS refused")
	p.exits(cancelled)
	if n := r.aws.Count("GetSessionToken"); n != 3 || broker.CodeMFAFailed.ExitStatus() != cancelled {
		t.Errorf("%d codes were sent", n)
	}
}

// A profile's own program gives the code, where its file is trusted.
func TestMFAProcess(t *testing.T) {
	t.Parallel()
	r := newMFARealm(t)
	config, err := os.ReadFile(filepath.Join(r.home, ".aws/config"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(config) + "mfa_process = echo asked >>asked; cat " + r.home + "/code\n"
	text = strings.ReplaceAll(text, ">>asked", ">>"+r.home+"/asked")
	r.write(t, "elsewhere", text)
	r.setenv("AWS_CONFIG_FILE=" + filepath.Join(r.home, "elsewhere"))
	if e := r.crowd(1, "credential-process", "deploy")()[0]; e.status != unavailable {
		t.Errorf("%d: %s", e.status, e.output)
	}
	if _, err := os.Stat(filepath.Join(r.home, "asked")); err == nil {
		t.Error("a program of a file that is not trusted was run")
	}

	r.setenv("AWS_CONFIG_FILE=")
	r.write(t, ".aws/config", text)
	if e := r.crowd(1, "credential-process", "deploy")()[0]; e.status != unavailable || !strings.Contains(e.output, "mfa_process: it ended with status 1") {
		t.Errorf("%d: %s", e.status, e.output)
	}
	r.write(t, "code", r.aws.Code("alice")+"\n")
	for _, e := range r.crowd(10, "credential-process", "deploy")() {
		if e.status != 0 {
			t.Errorf("%d: %s", e.status, e.output)
		}
	}
	if asked, err := os.ReadFile(filepath.Join(r.home, "asked")); err != nil || len(asked) != 2*len("asked\n") {
		t.Errorf("%v: %q", err, asked)
	}
}
