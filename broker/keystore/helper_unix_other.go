//go:build unix && !linux

package keystore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// harden keeps core files from being written. What other programs of the user
// may read of this process is the system's policy.
func harden() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }

// checkParent returns nil where stdin and stdout are unix sockets, our parent
// lives and, where the system tells it, runs this same program.
func checkParent() error {
	ppid := os.Getppid()
	for fd := range 2 {
		if a, err := unix.Getsockname(fd); err != nil {
			return errors.New("stdin is not a socket of it")
		} else if _, ok := a.(*unix.SockaddrUnix); !ok {
			return errors.New("stdin is not a unix socket")
		}
	}
	if ppid <= 1 {
		return errors.New("the parent is gone")
	}
	exe, err := parentProgram(ppid)
	if err != nil || exe == "" {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ours, err := os.Stat(self)
	if err != nil {
		return err
	}
	if theirs, err := os.Stat(exe); err != nil || !os.SameFile(ours, theirs) {
		return errors.New("the parent is another program")
	}
	if os.Getppid() != ppid {
		return errors.New("the parent is gone")
	}
	return nil
}
