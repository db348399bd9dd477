package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"gatepass/broker"
)

// An echo says whether what is typed at a prompt is shown.
type echo bool

const (
	shown  echo = true
	hidden echo = false
)

// errNoTerminal says that there is nobody to ask.
var errNoTerminal = errors.New("there is no terminal to ask on")

// prompt asks on the controlling terminal, whatever the standard streams are,
// and returns the line that was typed, without its end. It returns
// errNoTerminal or, at the end of input (^D), [io.EOF].
func (c *client) prompt(question string, e echo) (string, error) {
	line, err := c.terminal(context.Background(), printable(question), e)
	if ended, ok := errors.AsType[*endedError](err); ok {
		return "", ended.end()
	}
	return line, err
}

// An endedError says that a signal ended a question. The terminal is as it
// was before.
type endedError struct{ signal os.Signal }

func (e *endedError) Error() string { return "ended at the prompt: " + e.signal.String() }

// promptError turns a prompt's error into what the user reads: doing is what
// could not be done, and the hint is the way to answer without a terminal.
func promptError(err error, doing, hint string, args ...any) error {
	if _, ok := errors.AsType[*broker.Error](err); ok {
		return err
	}
	if errors.Is(err, io.EOF) {
		return broker.Errorf(broker.CodeCancelled, "cancelled at the prompt")
	}
	return broker.Errorf(broker.CodePromptUnavailable, "%s: %w", doing, err).WithHint(hint, args...)
}

// readLine reads a line byte by byte, so that nothing after it is swallowed.
func readLine(r io.Reader) (string, error) {
	var line strings.Builder
	var b [1]byte
	for line.Len() < 4<<10 {
		if n, err := r.Read(b[:]); n == 0 {
			if err == nil {
				continue
			}
			if err == io.EOF && line.Len() > 0 {
				break
			}
			return "", err
		}
		if b[0] == '\n' {
			break
		}
		line.WriteByte(b[0])
	}
	return strings.TrimSuffix(line.String(), "\r"), nil
}
