//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// canAskTerminal reports whether a question on /dev/tty would reach a user:
// only the terminal's foreground may read from it. background says that
// nobody started us by hand: then a terminal that another program has made its
// own (an editor, a pager) is left alone as well.
func canAskTerminal(background bool) bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	fd := int(tty.Fd())
	foreground, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	if err != nil || foreground != unix.Getpgrp() {
		return false
	}
	mode, err := unix.IoctlGetTermios(fd, getTermios)
	return err == nil && (!background || mode.Lflag&unix.ICANON != 0)
}

// askTerminal asks on /dev/tty and reads a line, which the terminal shows or
// does not. Whatever ends or stops the process meanwhile, the terminal is as
// it was before it does; a process that is continued goes on asking. A signal
// that would end it is an *[endedError]; ctx ends the question too.
func askTerminal(ctx context.Context, question string, e echo) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoTerminal, err)
	}
	defer tty.Close()
	fd := int(tty.Fd())
	before, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return "", err
	}
	asking := *before
	asking.Lflag |= unix.ICANON | unix.ISIG | unix.ECHO
	if e == hidden {
		asking.Lflag &^= unix.ECHO
	}
	asking.Iflag |= unix.ICRNL

	signals := make(chan os.Signal, 8)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTSTP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)

	// The question comes after the echo is off: an answer may follow it at once.
	if err := unix.IoctlSetTermios(fd, setTermios, &asking); err != nil {
		return "", err
	}
	defer unix.IoctlSetTermios(fd, setTermios, before)
	if _, err := io.WriteString(tty, question); err != nil {
		return "", err
	}
	type answer struct {
		line string
		err  error
	}
	answers := make(chan answer, 1)
	go func() { // ends with the answer, or with the process
		line, err := readLine(tty)
		answers <- answer{line, err}
	}()
	for {
		select {
		case a := <-answers:
			if e == hidden || a.err != nil {
				io.WriteString(tty, "\n")
			}
			return a.line, a.err
		case <-ctx.Done():
			io.WriteString(tty, "\n")
			return "", ctx.Err()
		case s := <-signals:
			unix.IoctlSetTermios(fd, setTermios, before)
			if s != syscall.SIGTSTP {
				io.WriteString(tty, "\n")
				return "", &endedError{s}
			}
			continued := make(chan os.Signal, 1)
			signal.Notify(continued, syscall.SIGCONT)
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			<-continued
			signal.Stop(continued)
			if ctx.Err() != nil {
				continue
			}
			if err := unix.IoctlSetTermios(fd, setTermios, &asking); err != nil {
				return "", err
			}
			io.WriteString(tty, question)
		}
	}
}

// end ends the process by the signal that came, as it would have ended
// without us.
func (e *endedError) end() error {
	signal.Reset(e.signal)
	syscall.Kill(os.Getpid(), e.signal.(syscall.Signal))
	time.Sleep(time.Second) // the signal ends us sooner, except process 1 of a container
	return broker.Errorf(broker.CodeCancelled, "%v", e)
}
