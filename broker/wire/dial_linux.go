package wire

import (
	"fmt"
	"syscall"
)

func newSocket() (int, error) {
	return syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
}

// listenerUID returns the effective user that called listen on the other end.
func listenerUID(fd int) (int, error) {
	cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

func runtimeDirs(getenv func(string) string, uid int) []string {
	return []string{getenv("XDG_RUNTIME_DIR"), fmt.Sprintf("/run/user/%d", uid)}
}
