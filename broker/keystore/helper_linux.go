package keystore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// harden keeps other programs of the user from reading this process: no
// ptrace, no /proc/PID/mem, no core file.
func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}

// checkParent returns nil where stdin and stdout are a socket pair that our
// parent made, and our parent runs this same program. It also has the kernel
// end us with the parent.
func checkParent() error {
	ppid := os.Getppid()
	for fd := range 2 {
		peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return fmt.Errorf("descriptor %d is not a socket of it: %w", fd, err)
		}
		if peer.Pid == 0 || int(peer.Pid) != ppid || int(peer.Uid) != os.Getuid() {
			return fmt.Errorf("descriptor %d belongs to process %d of user %d", fd, peer.Pid, peer.Uid)
		}
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0); err != nil {
		return err
	}
	ours, err := os.Stat("/proc/self/exe")
	if err != nil {
		return err
	}
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", ppid))
	switch {
	case err == nil && !os.SameFile(ours, theirs):
		return errors.New("the parent is another program")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		// An undumpable parent, as gatepassd is, does not show its file to its
		// own user; with /proc mounted hidepid=2 it is not there at all.
	case err != nil:
		return err
	}
	if os.Getppid() != ppid {
		return errors.New("the parent is gone")
	}
	return nil
}
