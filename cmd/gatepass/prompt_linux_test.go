package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A pty is a terminal with a gatepass process in its foreground.
type pty struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	cmd    *exec.Cmd
	seen   bytes.Buffer // all that the terminal showed
	found  int          // as far as what was expected goes
}

// onTerminal runs gatepass with a terminal of its own, which is not among its
// standard streams.
func onTerminal(t *testing.T, h *home, args ...string) *pty {
	t.Helper()
	return startOnTerminal(t, exec.Command(filepath.Join(programs(t), "gatepass"), args...), h.environ()...)
}

// startOnTerminal starts cmd so, with env added to its environment.
func startOnTerminal(t *testing.T, cmd *exec.Cmd, env ...string) *pty {
	t.Helper()
	return startPTY(t, cmd, false, env...)
}

// startPTY starts cmd with a terminal of its own, which is also its standard
// streams if streams says so.
func startPTY(t *testing.T, cmd *exec.Cmd, streams bool, env ...string) *pty {
	t.Helper()
	// What nohup or a shell's & makes us ignore, cmd would inherit; what is
	// caught here has its default there.
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("there are no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	conn, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	conn.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("the terminal cannot be opened: %v", err)
	}
	t.Cleanup(func() { slave.Close() })
	p := &pty{t: t, master: master, slave: slave, cmd: cmd}
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.ExtraFiles = []*os.File{slave}
	if streams {
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	master.SetDeadline(time.Now().Add(time.Minute))
	return p
}

// expect reads what the terminal shows until text comes, after what was
// expected before.
func (p *pty) expect(text string) {
	p.t.Helper()
	buf := make([]byte, 1024)
	for {
		if i := strings.Index(p.seen.String()[p.found:], text); i >= 0 {
			p.found += i + len(text)
			return
		}
		n, err := p.master.Read(buf)
		if err != nil {
			p.t.Fatalf("waiting for %q: %v; seen %q", text, err, p.seen.String())
		}
		p.seen.Write(buf[:n])
	}
}

func (p *pty) enter(text string) {
	p.t.Helper()
	if _, err := p.master.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// echoes reports whether the terminal shows what is typed.
func (p *pty) echoes() bool {
	p.t.Helper()
	state, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// waitFor waits for a change of the process: its end, a stop or a continuation.
func (p *pty) waitFor(options int) syscall.WaitStatus {
	p.t.Helper()
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.cmd.Process.Pid, &status, options, nil)
		if err == nil {
			return status
		}
		if err != syscall.EINTR {
			p.t.Fatal(err)
		}
	}
}

func TestPromptOnATerminal(t *testing.T) {
	h := newHome(t)
	added, _ := h.serveKeys()
	p := onTerminal(t, h, "keys", "add", "work")
	p.expect("Access key ID: ")
	if !p.echoes() {
		t.Error("the id is typed unseen")
	}
	p.enter(testID + "\n")
	p.expect("Secret access key (not shown): ")
	if p.echoes() {
		t.Error("the secret is asked for with the echo on")
	}
	p.enter(testSecret + "\n")
	if status := p.waitFor(0); !status.Exited() || status.ExitStatus() != 0 {
		t.Fatalf("status %v; seen %q", status, p.seen.String())
	}
	p.master.SetDeadline(time.Now())
	p.seen.ReadFrom(p.master) // what is left
	if strings.Contains(p.seen.String(), testSecret) || !p.echoes() {
		t.Errorf("echo on: %v; seen %q", p.echoes(), p.seen.String())
	}
	if len(added()) != 1 || added()[0].SecretAccessKey != testSecret || added()[0].AccessKeyID != testID {
		t.Errorf("%d were added", len(added()))
	}
}

// Whatever signal ends the process at the secret, the terminal is left as it
// was and nothing is stored.
func TestPromptEndedBySignals(t *testing.T) {
	for name, end := range map[string]func(*pty){
		"^C":      func(p *pty) { p.enter("\x03") },
		"^\\":     func(p *pty) { p.enter("\x1c") },
		"SIGTERM": func(p *pty) { p.cmd.Process.Signal(syscall.SIGTERM) },
		"SIGHUP":  func(p *pty) { p.cmd.Process.Signal(syscall.SIGHUP) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			added, _ := h.serveKeys()
			p := onTerminal(t, h, "keys", "add", "work")
			p.expect("Access key ID: ")
			p.enter(testID + "\n")
			p.expect("(not shown): ")
			p.enter("half a sec")
			end(p)
			status := p.waitFor(0)
			want := map[string]syscall.Signal{"^C": syscall.SIGINT, "^\\": syscall.SIGQUIT, "SIGTERM": syscall.SIGTERM, "SIGHUP": syscall.SIGHUP}[name]
			// Go's runtime ends on SIGQUIT with the goroutines' stacks and 2.
			if !(status.Signaled() && status.Signal() == want) && !(want == syscall.SIGQUIT && status.ExitStatus() == 2) {
				t.Errorf("status %#x", status)
			}
			if !p.echoes() || len(added()) != 0 {
				t.Errorf("echo on: %v, %d were added", p.echoes(), len(added()))
			}
		})
	}
	t.Run("^D", func(t *testing.T) {
		h := newHome(t)
		added, _ := h.serveKeys()
		p := onTerminal(t, h, "keys", "add", "work")
		p.expect("Access key ID: ")
		p.enter(testID + "\n")
		p.expect("(not shown): ")
		p.enter("\x04")
		if status := p.waitFor(0); status.ExitStatus() != 77 || !p.echoes() || len(added()) != 0 {
			t.Errorf("status %#x, echo on: %v, %d were added", status, p.echoes(), len(added()))
		}
	})
}

// A prompt that is stopped gives the terminal back, and asks on when it is
// continued.
func TestPromptStoppedAndContinued(t *testing.T) {
	h := newHome(t)
	added, _ := h.serveKeys()
	p := onTerminal(t, h, "keys", "add", "work")
	p.expect("Access key ID: ")
	p.enter(testID + "\n")
	p.expect("(not shown): ")
	p.cmd.Process.Signal(syscall.SIGTSTP)
	if status := p.waitFor(syscall.WUNTRACED); !status.Stopped() || !p.echoes() {
		t.Fatalf("status %#x, echo on: %v", status, p.echoes())
	}
	p.cmd.Process.Signal(syscall.SIGCONT)
	p.expect("(not shown): ")
	if p.echoes() {
		t.Error("the echo is on after the continuation")
	}
	p.enter(testSecret + "\n")
	if status := p.waitFor(0); status.ExitStatus() != 0 || len(added()) != 1 || !p.echoes() {
		t.Errorf("status %#x, echo on: %v, %d were added", status, p.echoes(), len(added()))
	}
}

// Without a controlling terminal nothing is asked, whatever stdin is.
func TestPromptWithoutATerminal(t *testing.T) {
	h := newHome(t)
	h.serveKeys()
	h.stdin = testID + "\n" + testSecret + "\n"
	cmd := exec.Command(filepath.Join(programs(t), "gatepass"), "keys", "add", "work")
	cmd.Env = h.environ()
	cmd.Stdin = strings.NewReader(h.stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 75 || !strings.Contains(string(out), "--stdin") {
		t.Errorf("%v\n%s", err, out)
	}
}

// --stdin on a terminal would show the secret.
func TestStdinOnATerminal(t *testing.T) {
	h := newHome(t)
	added, _ := h.serveKeys()
	p := onTerminal(t, h, "version") // for its terminal
	p.waitFor(0)
	cmd := exec.Command(filepath.Join(programs(t), "gatepass"), "keys", "add", "work", "--stdin")
	cmd.Env = h.environ()
	cmd.Stdin = p.slave
	p.enter(testID + "\n" + testSecret + "\n\x04")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 64 || !strings.Contains(string(out), "would show the secret") || len(added()) != 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
