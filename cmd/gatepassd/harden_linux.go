package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps this process's memory to itself: no core files, and no reading
// by ptrace or /proc/PID/mem from programs of the same user (root still can).
func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_DUMPABLE: %w", err)
	}
	return hardenUnix()
}
