//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A terminalState is the terminal's mode, as it was and as it is for us: what
// is typed comes at once and is not shown; ^C and ^Z are signals as ever.
type terminalState struct {
	tty        *os.File
	was, while unix.Termios
}

// openScreen takes the terminal.
func openScreen(out *os.File) (*screen, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	was, err := unix.IoctlGetTermios(int(tty.Fd()), getTermios)
	if err != nil {
		tty.Close()
		return nil, err
	}
	keys := make(chan byte)
	s := &screen{out: out, keys: keys, signals: make(chan os.Signal, 8), terminal: terminalState{tty: tty, was: *was, while: *was}}
	s.terminal.while.Lflag &^= unix.ICANON | unix.ECHO
	s.terminal.while.Lflag |= unix.ISIG
	s.terminal.while.Cc[unix.VMIN], s.terminal.while.Cc[unix.VTIME] = 1, 0
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGWINCH} {
		if !signal.Ignored(sig) {
			signal.Notify(s.signals, sig)
		}
	}
	if err := s.enter(); err != nil {
		s.close()
		return nil, err
	}
	go func() { // ends with the terminal, or with the process
		defer close(keys)
		var b [1]byte
		for {
			if n, err := tty.Read(b[:]); n == 0 || err != nil {
				return
			}
			keys <- b[0]
		}
	}()
	return s, nil
}

func (s *screen) enter() error {
	if err := unix.IoctlSetTermios(int(s.terminal.tty.Fd()), setTermios, &s.terminal.while); err != nil {
		return err
	}
	s.drawn = ""
	_, err := s.out.WriteString(enterScreen)
	return err
}

// leave gives the terminal back as it was.
func (s *screen) leave() {
	s.out.WriteString(leaveScreen)
	unix.IoctlSetTermios(int(s.terminal.tty.Fd()), setTermios, &s.terminal.was)
}

func (s *screen) close() {
	s.leave()
	signal.Stop(s.signals)
}

// measure finds how large the terminal is now.
func (s *screen) measure() {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	s.width, s.height = width, height
}

// handle does as a signal says: one that stops us is obeyed with the terminal
// as it was, and one that ends us is returned, for the same.
func (s *screen) handle(sig os.Signal) error {
	switch sig {
	case syscall.SIGWINCH:
		s.drawn = "" // whatever the terminal made of it
		return nil
	case syscall.SIGTSTP:
		s.leave()
		continued := make(chan os.Signal, 1)
		signal.Notify(continued, syscall.SIGCONT)
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		<-continued
		signal.Stop(continued)
		return s.enter()
	}
	s.leave()
	return (&endedError{sig}).end()
}
