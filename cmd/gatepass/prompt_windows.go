package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// askTerminal asks on the console.
func askTerminal(question string, e echo) (string, error) {
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
