//go:build unix

package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// hardenUnix does what every Unix can: no core files, and no file of ours is
// readable by others.
func hardenUnix() error {
	unix.Umask(0o077)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("setrlimit RLIMIT_CORE: %w", err)
	}
	return nil
}

func closeOnExec(f *os.File) { unix.CloseOnExec(int(f.Fd())) }
