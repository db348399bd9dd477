package keystore

import (
	"bytes"
	"errors"

	"golang.org/x/sys/unix"
)

// parentProgram returns the path that process pid was started from: the
// string after the argument count in KERN_PROCARGS2 (sysctl.h).
func parentProgram(pid int) (string, error) {
	b, err := unix.SysctlRaw("kern.procargs2", pid)
	if err != nil {
		return "", err
	}
	if len(b) < 4 {
		return "", errors.New("the parent is not known")
	}
	path, _, ok := bytes.Cut(b[4:], []byte{0})
	if !ok || len(path) == 0 || path[0] != '/' {
		return "", errors.New("the parent's program is not known")
	}
	return string(path), nil
}
