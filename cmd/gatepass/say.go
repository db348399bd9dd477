package main

import (
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"gatepass/broker"
)

// say writes text to w for a person, each line behind the prefix and all of
// it at once, so that programs that write together stay readable.
func say(w io.Writer, text string) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("gatepass: ")
		b.WriteString(printable(strings.TrimSuffix(line, "\n")))
		b.WriteByte('\n')
	}
	io.WriteString(w, b.String())
}

// report says what went wrong and, where there is one, the next thing to do.
func report(w io.Writer, err error) {
	if e, ok := errors.AsType[*commandError](err); ok && e.err == nil {
		return // the command has said it
	}
	e := broker.AsError(err)
	text := e.Message
	if e.Hint != "" {
		text += "\n" + e.Hint
	}
	say(w, text)
}

// printable is [broker.Printable], which all goes through that a terminal gets.
func printable(s string) string { return broker.Printable(s) }

// isTerminal reports whether what is read from or written to v is a terminal.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// columns is the width of the terminal w, and false where w is none.
func columns(w io.Writer) (int, bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		return 80, true
	}
	return width, true
}

// A palette colours words for a terminal, or leaves them alone.
type palette bool

// colours are used on a terminal that can show them, unless NO_COLOR is set
// to anything (https://no-color.org).
func (c *client) palette() palette {
	return palette(isTerminal(c.stdout) && c.getenv("NO_COLOR") == "" && c.getenv("TERM") != "dumb")
}

func (p palette) paint(sgr, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

func (p palette) red(s string) string    { return p.paint("31", s) }
func (p palette) yellow(s string) string { return p.paint("33", s) }
func (p palette) green(s string) string  { return p.paint("32", s) }
func (p palette) dim(s string) string    { return p.paint("2", s) }
func (p palette) bold(s string) string   { return p.paint("1", s) }
