package main

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// watching runs status --watch on a terminal of 80 by 24, with what the daemon
// says in st.
func watching(t *testing.T, st *broker.Status) (*home, *pty) {
	h, gatepass := newLeaseHome(t)
	h.env["TERM"] = "xterm"
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"GET " + wire.PathGlance: func([]byte) (int, map[string]string, string) { return 200, nil, jsonOf(t, st) },
	})
	p := startPTY(t, exec.Command(gatepass, "status", "--watch"), true, h.environ()...)
	p.resize(80, 24)
	return h, p
}

func (p *pty) resize(width, height int) {
	p.t.Helper()
	if err := unix.IoctlSetWinsize(int(p.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(width), Row: uint16(height)}); err != nil {
		p.t.Fatal(err)
	}
}

// rest reads what the terminal has shown beyond what was expected.
func (p *pty) rest() string {
	p.t.Helper()
	conn, err := p.master.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	buf := make([]byte, 1024)
	conn.Control(func(fd uintptr) {
		for {
			n, err := unix.Read(int(fd), buf)
			if n <= 0 || err != nil { // there is no more; it does not block
				return
			}
			p.seen.Write(buf[:n])
		}
	})
	return p.seen.String()
}

func liveStatus() *broker.Status {
	st := exampleStatus()
	st.Leases = []broker.LeaseStatus{{ID: "l-1", Profiles: []string{"ops"}, State: "live", PID: 1, Renewable: true, Expires: time.Now().Add(42*time.Minute + 30*time.Second)}}
	return &st
}

// However it ends, the terminal is as it was: q, ^C and signals.
func TestWatchLeavesTheTerminalAsItWas(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(*pty)
		signal syscall.Signal // that ends it
	}{
		"q":       {end: func(p *pty) { p.enter("xyzq") }},
		"^C":      {end: func(p *pty) { p.enter("\x03") }},
		"^D":      {end: func(p *pty) { p.enter("\x04") }},
		"SIGTERM": {func(p *pty) { p.cmd.Process.Signal(syscall.SIGTERM) }, syscall.SIGTERM},
		"SIGHUP":  {func(p *pty) { p.cmd.Process.Signal(syscall.SIGHUP) }, syscall.SIGHUP},
	} {
		t.Run(name, func(t *testing.T) {
			_, p := watching(t, liveStatus())
			p.expect(endFrame)
			if p.echoes() {
				t.Error("what is typed is shown")
			}
			c.end(p)
			status := p.waitFor(0)
			if c.signal == 0 && status.ExitStatus() != 0 || c.signal != 0 && (!status.Signaled() || status.Signal() != c.signal) {
				t.Errorf("ended with %#x", status)
			}
			seen := p.rest()
			if !p.echoes() || strings.LastIndex(seen, leaveScreen) < strings.LastIndex(seen, enterScreen) || !strings.HasSuffix(seen, leaveScreen) && c.signal == 0 {
				t.Errorf("echo on: %v; seen %q", p.echoes(), seen)
			}
			if !strings.Contains(seen, "ops") || !strings.Contains(seen, "42m") {
				t.Errorf("seen %q", seen)
			}
		})
	}
}

// A page is drawn over the one before it, all at once: nothing is cleared in
// between. It follows the daemon, its absence and the terminal's size.
func TestWatchRedraws(t *testing.T) {
	t.Parallel()
	st := liveStatus()
	h, p := watching(t, st)
	p.expect(endFrame)
	h.mu.Lock()
	st.Leases[0].Profiles = []string{"another"}
	h.mu.Unlock()
	p.expect("another")
	p.expect(endFrame)

	p.resize(30, 6)
	p.cmd.Process.Signal(syscall.SIGWINCH) // the kernel sends it to the foreground
	// A page that was being drawn meanwhile may come first.
	for lines := 24; lines > 5; {
		p.expect(beginFrame)
		from := p.found
		p.expect(endFrame)
		lines = strings.Count(p.seen.String()[from:p.found], "\r\n")
	}

	p.cmd.Process.Signal(syscall.SIGTSTP)
	if status := p.waitFor(syscall.WUNTRACED); !status.Stopped() || !p.echoes() {
		t.Errorf("stopped with %#x, echo on: %v", status, p.echoes())
	}
	p.cmd.Process.Signal(syscall.SIGCONT)
	p.expect(enterScreen)
	p.expect(endFrame)
	p.enter("q")
	p.exits(0)
	seen := p.rest()
	if n := strings.Count(seen, "\x1b[2J"); n != strings.Count(seen, enterScreen) {
		t.Errorf("cleared %d times: %q", n, seen)
	}
	if strings.Count(seen, "\x1b[?2026h") != strings.Count(seen, "\x1b[?2026l") {
		t.Errorf("a frame was not ended: %q", seen)
	}
}

// Where no daemon runs it says so at once, and starts none.
func TestWatchWithoutADaemon(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	p := startPTY(t, exec.Command(gatepass, "status", "--watch"), true, h.environ()...)
	p.exits(69)
	if seen := p.rest(); !strings.Contains(seen, "the daemon is not running") || strings.Contains(seen, "\x1b[?1049h") {
		t.Errorf("seen %q", seen)
	}
}

// A terminal that knows no words gets none.
func TestWatchOnADumbTerminal(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	h.serveStatus(*liveStatus())
	h.env["TERM"] = "dumb"
	p := startPTY(t, exec.Command(gatepass, "status", "--watch"), true, h.environ()...)
	p.exits(64)
	if seen := p.rest(); !strings.Contains(seen, "TERM=dumb") || strings.Contains(seen, "\x1b") {
		t.Errorf("seen %q", seen)
	}
}

// A shell on a terminal has its job control, and is told where it is.
func TestExecOfAShellOnATerminal(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	h.env["SHELL"], h.env["PS1"] = "/bin/sh", "$GATEPASS_PROFILE% "
	h.serveLease(exampleLease())
	p := startPTY(t, exec.Command(gatepass, "exec", "ops"), true, h.environ()...)
	p.expect("lease l-7f3k2m9qxd: the role of ops and no other; exit leaves it")
	p.expect("ops% ")
	p.enter(`sh -c 'echo it "ru"ns; read word; echo "go"t $word'` + "\n")
	p.expect("it runs")
	p.enter("\x1a") // ^Z
	p.expect("topped")
	p.enter("fg\nit\n")
	p.expect("got it")
	p.enter("exit 5\n")
	p.exits(5)
}
