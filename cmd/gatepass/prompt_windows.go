package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"gatepass/broker"
)

// canAskTerminal reports whether there is a console to ask on.
func canAskTerminal(bool) bool {
	in, err := os.OpenFile("CONIN$", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	in.Close()
	return true
}

// end is not reached here: the console's ^C ends the process.
func (e *endedError) end() error {
	return broker.Errorf(broker.CodeCancelled, "%v", e)
}

// askTerminal asks on the console. ctx ends the asking before it has begun,
// not while the console is read.
func askTerminal(ctx context.Context, question string, e echo) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	in, err := os.OpenFile("CONIN$", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoTerminal, err)
	}
	defer in.Close()
	out, err := os.OpenFile("CONOUT$", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoTerminal, err)
	}
	defer out.Close()
	if _, err := io.WriteString(out, question); err != nil {
		return "", err
	}
	if e == shown {
		return readLine(in)
	}
	line, err := term.ReadPassword(int(in.Fd()))
	io.WriteString(out, "\n")
	return string(line), err
}
