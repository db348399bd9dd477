//go:build !linux

package main

import (
	"time"

	"gatepass/broker"
)

// newClock returns the machine's clocks. Go's monotonic clock and timers do
// not count suspend here, so after a sleep only the wall clock tells that a
// session has expired; what has is still never handed out.
func newClock() broker.Clock {
	start := time.Now()
	return broker.Clock{
		Now:       wallNow,
		Boot:      func() time.Duration { return time.Since(start) },
		AfterFunc: func(d time.Duration, f func()) func() { return stopTimer(time.AfterFunc(d, f)) },
	}
}
