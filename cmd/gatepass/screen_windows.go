package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/windows"
	"golang.org/x/term"
)

// A terminalState is the console's modes, as they were.
type terminalState struct {
	in      *term.State
	outMode uint32
}

// openScreen takes the console.
func openScreen(out *os.File) (*screen, error) {
	keys := make(chan byte)
	s := &screen{out: out, keys: keys, signals: make(chan os.Signal, 8)}
	handle := windows.Handle(out.Fd())
	if err := windows.GetConsoleMode(handle, &s.terminal.outMode); err != nil {
		return nil, err
	}
	if err := windows.SetConsoleMode(handle, s.terminal.outMode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING); err != nil {
		return nil, err
	}
	var err error
	if s.terminal.in, err = term.MakeRaw(int(os.Stdin.Fd())); err != nil { // ^C becomes a key
		windows.SetConsoleMode(handle, s.terminal.outMode)
		return nil, err
	}
	signal.Notify(s.signals, os.Interrupt)
	if _, err := out.WriteString(enterScreen); err != nil {
		s.close()
		return nil, err
	}
	go func() { // ends with the console, or with the process
		defer close(keys)
		var b [1]byte
		for {
			if n, err := os.Stdin.Read(b[:]); n == 0 || err != nil {
				return
			}
			keys <- b[0]
		}
	}()
	return s, nil
}

// close gives the console back as it was.
func (s *screen) close() {
	s.out.WriteString(leaveScreen)
	term.Restore(int(os.Stdin.Fd()), s.terminal.in)
	windows.SetConsoleMode(windows.Handle(s.out.Fd()), s.terminal.outMode)
	signal.Stop(s.signals)
}

// measure finds how large the console is now.
func (s *screen) measure() {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	if width != s.width || height != s.height {
		s.width, s.height, s.drawn = width, height, ""
	}
}

// handle has nothing to do: there is no signal but the interrupt.
func (s *screen) handle(os.Signal) error { return nil }
