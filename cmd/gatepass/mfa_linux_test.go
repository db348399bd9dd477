package main

import (
	"errors"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/prompt/prompttest"
	"gatepass/broker/sts/ststest"
)

// newMFARealm is a realm whose profile deploy needs the code of alice's
// device.
func newMFARealm(t *testing.T) *realm {
	r := newRealm(t)
	r.write(t, ".aws/config", "[profile deploy]\ngatepass_key = alice\nrole_arn = "+ststest.AdminARN+"\nmfa_serial = "+ststest.AliceDevice+"\n")
	return r
}

func (r *realm) onTerminal(t *testing.T, args ...string) *pty {
	t.Helper()
	return startOnTerminal(t, r.command("gatepass", args...))
}

func (p *pty) exits(status int) {
	p.t.Helper()
	if s := p.waitFor(0); !s.Exited() || s.ExitStatus() != status {
		p.master.SetDeadline(time.Now())
		p.seen.ReadFrom(p.master)
		p.t.Fatalf("ended with %v; seen %q", s, p.seen.String())
	}
}

func exitStatus(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// Fifty processes without a terminal and one with: one question, one code,
// and all are served; a new daemon asks nobody.
func TestMFAAskedOnce(t *testing.T) {
	r := newMFARealm(t)
	asks := r.onTerminal(t, "credential-process", "deploy")
	asks.expect("MFA code of " + ststest.AliceDevice + ": ")
	if seen := asks.seen.String(); !strings.Contains(seen, "profile deploy") {
		t.Errorf("seen %q", seen)
	}
	var crowd sync.WaitGroup
	for range 50 {
		crowd.Go(func() {
			cmd := r.command("gatepass", "credential-process", "deploy")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), `"Version":1`) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	asks.enter(r.aws.Code("alice") + "\n")
	asks.exits(0)
	crowd.Wait()
	if out, err := r.command("gatepass", "daemon", "restart").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	after := r.command("gatepass", "credential-process", "deploy")
	after.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if out, err := after.CombinedOutput(); err != nil {
		t.Errorf("after a restart: %v: %s", err, out)
	}
	if n := r.aws.Count("GetSessionToken"); n != 1 {
		t.Errorf("GetSessionToken was called %d times", n)
	}
	if n := r.entries(t, "mfa.verified"); n != 1 {
		t.Errorf("%d proofs are recorded", n)
	}
}

// A wrong code is asked for again with the reason, and the same one is not
// sent twice.
func TestMFAWrongCodeOnATerminal(t *testing.T) {
	r := newMFARealm(t)
	p := r.onTerminal(t, "credential-process", "deploy")
	p.expect("alice: ")
	code := r.aws.Code("alice")
	wrong := "000000"
	if code == wrong {
		wrong = "000001"
	}
	p.enter(wrong + "\n")
	p.expect("alice: ")
	p.enter(wrong + "\n")
	p.expect("alice: ")
	for _, reason := range []string{"\ngatepass: get session token: AWS refused", "\ngatepass: that code has been used", "wait for the next"} {
		if !strings.Contains(p.seen.String(), reason) {
			t.Errorf("no %q in %q", reason, p.seen.String())
		}
	}
	p.enter(r.aws.Code("alice") + "\n")
	p.exits(0)
	if n := r.aws.Count("GetSessionToken"); n != 2 {
		t.Errorf("%d codes were sent", n)
	}
}

// ^C cancels for all who wait, and programs are not asked for again; the code
// on a command line is taken.
func TestMFACancelledOnATerminal(t *testing.T) {
	r := newMFARealm(t)
	p := r.onTerminal(t, "credential-process", "deploy")
	p.expect("alice: ")
	waits := r.command("gatepass", "credential-process", "deploy")
	waits.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	waiting := make(chan error, 1)
	go func() {
		_, err := waits.Output()
		waiting <- err
	}()
	p.enter("\x03")
	if s := p.waitFor(0); !s.Signaled() || s.Signal() != syscall.SIGINT {
		t.Errorf("ended with %v", s)
	}
	// It joined before the cancel or after it.
	cancelled, quiet := broker.CodeCancelled.ExitStatus(), broker.CodePromptUnavailable.ExitStatus()
	if s := exitStatus(<-waiting); s != cancelled && s != quiet {
		t.Errorf("who waited ended with %d", s)
	}
	storm := startOnTerminal(t, exec.Command("sh", "-c", `exec "$0" credential-process deploy 2>/dev/tty`, r.bin+"/gatepass"), r.env...)
	storm.expect("was cancelled")
	storm.exits(quiet)
	if out, err := r.command("gatepass", "export", "deploy", "--mfa-code", r.aws.Code("alice")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// A client that is stopped while it asks is passed over, and is served from
// the other's answer once it goes on.
func TestMFAStoppedPrompter(t *testing.T) {
	t.Parallel()
	r := newMFARealm(t)
	stopped := r.onTerminal(t, "credential-process", "deploy")
	stopped.expect("alice: ")
	if err := stopped.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	next := r.onTerminal(t, "credential-process", "deploy")
	next.expect("alice: ")
	next.enter(r.aws.Code("alice") + "\n")
	next.exits(0)
	if err := stopped.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	stopped.exits(0)
	if n := r.aws.Count("GetSessionToken"); n != 1 {
		t.Errorf("%d codes were sent", n)
	}
}

// Nobody to ask: no terminal at all, one that another program uses, or one
// in whose background we are.
func TestMFANobodyToAsk(t *testing.T) {
	r := newMFARealm(t)
	unavailable := broker.CodePromptUnavailable.ExitStatus()
	alone := r.command("gatepass", "credential-process", "deploy")
	alone.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := alone.CombinedOutput()
	if exitStatus(err) != unavailable || !strings.Contains(string(out), "--mfa-code") {
		t.Errorf("%v: %s", err, out)
	}
	full := startOnTerminal(t, exec.Command("sh", "-c", `stty -icanon </dev/tty; "$0" credential-process deploy 2>&1 >/dev/tty; echo status $? >/dev/tty; stty icanon </dev/tty`, r.bin+"/gatepass"), r.env...)
	full.expect("status 75")
	if seen := full.seen.String(); strings.Contains(seen, "MFA code of") {
		t.Errorf("a full-screen program was written into: %q", seen)
	}
	background := startOnTerminal(t, exec.Command("sh", "-c", `set -m; "$0" credential-process deploy >/dev/null 2>&1 & wait $!; echo status $? >/dev/tty`, r.bin+"/gatepass"), r.env...)
	background.expect("status 75")
	if seen := background.seen.String(); strings.Contains(seen, "MFA code of") {
		t.Errorf("a background job asked: %q", seen)
	}
}

// A credential-process gives up before SDKs do, on a terminal as before a
// dialog, which stands: its answer is for the next.
func TestMFAPatience(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it waits for 45 s")
	}
	t.Parallel()
	terminal, display := newMFARealm(t), newMFARealm(t)
	d := prompttest.New(t)
	display.setenv("DISPLAY=" + d.Name)
	display.withPrograms(t, map[string]string{"zenity": "zenity"})
	began := time.Now()
	p := terminal.onTerminal(t, "credential-process", "deploy")
	waits := []func() []ended{terminal.crowd(1, "credential-process", "deploy"), display.crowd(3, "credential-process", "deploy")}
	window := d.First()
	for _, wait := range waits {
		for _, e := range wait() {
			// The machine may be busy, but that is not the 3 min of a dialog.
			if took := time.Since(began); took < 44*time.Second || took > 75*time.Second || e.status != unavailable || !strings.Contains(e.output, "nobody") {
				t.Errorf("after %s: %d: %s", took, e.status, e.output)
			}
		}
	}
	p.exits(unavailable)
	d.Type(window, display.aws.Code("alice"), "Return")
	d.Gone()
	if e := display.crowd(1, "credential-process", "deploy")()[0]; e.status != 0 {
		t.Errorf("%d: %s", e.status, e.output)
	}
}
