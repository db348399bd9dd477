//go:build !linux

package wire

import "os"

// LeaseAbove looks at our own environment alone: other processes' initial
// ones cannot be read here as Linux lets us.
func LeaseAbove(pid int) int {
	if os.Getenv("GATEPASS_LEASE") != "" {
		return pid
	}
	return 0
}
