//go:build unix && !linux

package main

import "time"

// waitGone waits until process pid has ended, and reports whether it did in
// time.
func waitGone(pid int, timeout time.Duration) (bool, error) { return pollGone(pid, timeout) }
