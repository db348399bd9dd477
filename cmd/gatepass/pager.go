package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"

	"gatepass/broker"
)

// A pager shows what is written to it: on the terminal while it fits there,
// else by the program that PAGER names, as git does: a line for the shell, with
// less told to show colours and to stay out of the way (LESS=FRX) unless the
// user's own LESS says otherwise. Where there is no terminal, no shell or no
// such program, it writes through.
type pager struct {
	out     io.Writer
	rows    int // that fit; 0 where nothing is paged
	line    string
	environ []string

	held    bytes.Buffer
	lines   int
	cmd     *exec.Cmd
	in      io.WriteCloser
	through bool // held was written to out
}

// pager returns one for standard output. The caller closes it.
func (c *client) pager() *pager {
	p := &pager{out: c.stdout, environ: c.environ()}
	f, ok := c.stdout.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || c.getenv("TERM") == "dumb" {
		return p
	}
	if _, rows, err := term.GetSize(int(f.Fd())); err == nil {
		p.rows = rows - 1 // the shell's prompt
	}
	p.line = "less"
	for _, v := range p.environ {
		if line, ok := strings.CutPrefix(v, "PAGER="); ok {
			p.line = line
		}
	}
	// What the shell would not find is known ahead only of a plain name.
	if _, err := exec.LookPath(p.line); p.line == "" || p.line == "cat" || err != nil && !strings.ContainsAny(p.line, " \t\n$\"'`\\;&|<>()*?[#~=%") {
		p.rows = 0
	}
	for name, value := range map[string]string{"LESS": "FRX", "LESSCHARSET": "utf-8"} { // which is what we write
		if c.getenv(name) == "" {
			p.environ = append(p.environ, name+"="+value)
		}
	}
	return p
}

// errQuit says that the user has left the pager.
var errQuit = errors.New("the pager was left")

func (p *pager) Write(b []byte) (int, error) {
	switch {
	case p.in != nil:
		n, err := p.in.Write(b)
		if errors.Is(err, syscall.EPIPE) {
			err = errQuit
		}
		return n, err
	case p.rows <= 0 || p.through:
		return p.out.Write(b)
	}
	p.held.Write(b)
	if p.lines += bytes.Count(b, []byte("\n")); p.lines <= p.rows {
		return len(b), nil
	}
	if err := p.start(); err != nil {
		p.through = true
		_, err := p.held.WriteTo(p.out)
		return len(b), err
	}
	_, err := p.Write(p.held.Bytes())
	p.held.Reset()
	return len(b), err
}

func (p *pager) start() error {
	cmd := exec.Command("sh", "-c", p.line)
	cmd.Stdout, cmd.Stderr, cmd.Env = p.out, os.Stderr, p.environ
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	// ^C is for the pager, which stops searching or reading, and goes on.
	signal.Ignore(os.Interrupt)
	p.cmd, p.in = cmd, in
	return nil
}

// paging reports whether a program has the terminal.
func (p *pager) paging() bool { return p.cmd != nil }

// Close writes what is held and waits until the user has seen enough.
func (p *pager) Close() error {
	if p.cmd == nil {
		_, err := p.held.WriteTo(p.out)
		return err
	}
	p.in.Close()
	err := p.cmd.Wait()
	signal.Reset(os.Interrupt)
	p.cmd = nil
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && (exit.ExitCode() == 126 || exit.ExitCode() == 127) { // as shells say it
		return broker.Errorf(broker.CodeConfig, "the pager %q cannot be run", p.line).WithHint("PAGER names it; to do without: PAGER=cat")
	}
	return nil // how a pager ends says nothing of what it showed
}

// paged lets write write to a pager.
func (c *client) paged(write func(p *pager) error) error {
	p := c.pager()
	err := write(p)
	if failed := p.Close(); failed != nil {
		if broker.CodeOf(failed) != broker.CodeConfig {
			failed = notWritten(failed)
		}
		return failed
	}
	if errors.Is(err, errQuit) {
		return nil
	}
	return err
}
