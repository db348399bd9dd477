package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gatepass/broker"
	"gatepass/broker/audit/audittest"
)

// longLog is a home whose audit log is longer than a terminal.
func longLog(t *testing.T) *home {
	t.Helper()
	h := newHome(t)
	paths := broker.PathsFor(h.command(nil, nil).getenv, h.env["HOME"])
	if _, err := audittest.Write(t.Context(), audittest.Options{Dir: paths.AuditDir, Entries: 300}); err != nil {
		t.Fatal(err)
	}
	h.env["TERM"], h.env["PATH"] = "xterm", os.Getenv("PATH")
	return h
}

// onTerminal runs gatepass on a terminal of 80 by 24.
func (h *home) onTerminal(t *testing.T, args ...string) *pty {
	t.Helper()
	// Not before the terminal has its size.
	cmd := exec.Command("sh", append([]string{"-c", `read go; exec "$@"`, "sh", filepath.Join(programs(t), "gatepass")}, args...)...)
	p := startPTY(t, cmd, true, h.environ()...)
	p.resize(80, 24)
	p.enter("go\n")
	return p
}

func TestPager(t *testing.T) {
	h := longLog(t)
	h.env["PAGER"] = `sed "s/^/paged with LESS=$LESS: /"; echo "$0"`
	p := h.onTerminal(t, "audit", "list")
	p.expect("paged with LESS=FRX: \x1b[1mTIME")
	p.expect("\r\nsh\r\n") // all of it was read
	if err := p.cmd.Wait(); err != nil || strings.Count(p.seen.String(), "paged with") < 300 {
		t.Errorf("%v: %q", err, p.seen.String())
	}

	h.env["LESS"], h.env["NO_COLOR"] = "-i", "1"
	p = h.onTerminal(t, "audit", "stats")
	p.expect("paged with LESS=-i: 300 entries")
	p.expect("\r\nsh\r\n")

	// What fits, what is followed and what is for programs is not paged.
	for _, args := range [][]string{{"list", "--limit", "5"}, {"list", "--json"}, {"list", "--follow", "--limit", "100"}} {
		p := h.onTerminal(t, append([]string{"audit"}, args...)...)
		p.expect("session.")
		if strings.Contains(p.seen.String(), "paged with") {
			t.Errorf("%q: %q", args, p.seen.String())
		}
	}
	for _, none := range []string{"", "cat", "no-such-pager"} {
		h.env["PAGER"] = none
		p := h.onTerminal(t, "audit", "list")
		p.expect("  299 ")
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("PAGER=%q: %v", none, err)
		}
	}

	// One that the shell cannot run is an error; one that is left is none.
	h.env["PAGER"] = "no-such-pager -x"
	p = h.onTerminal(t, "audit", "list")
	p.expect("PAGER=cat")
	if p.cmd.Wait(); p.cmd.ProcessState.ExitCode() != 78 {
		t.Errorf("exit status %d: %q", p.cmd.ProcessState.ExitCode(), p.seen.String())
	}
	h.env["PAGER"] = "head -1 >/dev/null; exit 3"
	p = h.onTerminal(t, "audit", "list")
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("left: %v, %q", err, p.seen.String())
	}
}

// less itself stops at the first screen, and q ends it.
func TestPagerIsLess(t *testing.T) {
	if ok, err := condition("real:less"); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("less is not installed")
	}
	h := longLog(t)
	p := h.onTerminal(t, "audit", "list", "--reverse")
	p.expect(":\x1b[K")
	p.enter("q")
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v: %q", err, p.seen.String())
	}
	if rows := strings.Count(p.seen.String(), "\n"); rows > 30 {
		t.Errorf("%d rows were shown: %q", rows, p.seen.String())
	}
}
