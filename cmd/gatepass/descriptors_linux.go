package main

import (
	"math"

	"golang.org/x/sys/unix"
)

// closeOnExec marks every descriptor but the standard streams, ours and
// inherited alike, so that no program that we start gets it.
func closeOnExec() {
	if unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) != nil { // before Linux 5.11
		markListed("/proc/self/fd")
	}
}
