package wire

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func newSocket() (int, error) {
	syscall.ForkLock.RLock() // no SOCK_CLOEXEC here
	defer syscall.ForkLock.RUnlock()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	return fd, err
}

// listenerUID returns the effective user that called listen on the other end.
func listenerUID(fd int) (int, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

// runtimeDirs names TMPDIR too: macOS gives each user one.
func runtimeDirs(getenv func(string) string, uid int) []string {
	return []string{getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR")}
}
