//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// askTerminal asks on /dev/tty.
func askTerminal(question string, e echo) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoTerminal, err)
	}
	defer tty.Close()
	if e == hidden {
		return askHidden(tty, question)
	}
	if _, err := io.WriteString(tty, question); err != nil {
		return "", err
	}
	return readLine(tty)
}

// askHidden reads a line that the terminal does not show. Whatever ends or
// stops the process meanwhile, the terminal shows what is typed again before
// it does; a process that is continued goes on asking.
func askHidden(tty *os.File, question string) (string, error) {
	fd := int(tty.Fd())
	visible, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return "", err
	}
	unseen := *visible
	unseen.Lflag &^= unix.ECHO
	unseen.Lflag |= unix.ICANON | unix.ISIG
	unseen.Iflag |= unix.ICRNL

	signals := make(chan os.Signal, 8)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTSTP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)

	// The question comes after the echo is off: an answer may follow it at once.
	if err := unix.IoctlSetTermios(fd, setTermios, &unseen); err != nil {
		return "", err
	}
	defer unix.IoctlSetTermios(fd, setTermios, visible)
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
			io.WriteString(tty, "\n")
			return a.line, a.err
		case s := <-signals:
			unix.IoctlSetTermios(fd, setTermios, visible)
			if s != syscall.SIGTSTP {
				io.WriteString(tty, "\n")
				signal.Reset(s)
				syscall.Kill(os.Getpid(), s.(syscall.Signal))
				time.Sleep(time.Second) // the signal ends us sooner, except process 1 of a container
				return "", broker.Errorf(broker.CodeCancelled, "ended at the prompt: %v", s)
			}
			continued := make(chan os.Signal, 1)
			signal.Notify(continued, syscall.SIGCONT)
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			<-continued
			signal.Stop(continued)
			if err := unix.IoctlSetTermios(fd, setTermios, &unseen); err != nil {
				return "", err
			}
			io.WriteString(tty, question)
		}
	}
}
