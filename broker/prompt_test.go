package broker_test

import (
	"testing"
	"time"

	"gatepass/broker"
)

// A client comes back in its own time: whenever that is, it is asked.
func TestWhoComesBackIsAsked(t *testing.T) {
	start := time.Now()
	clock := broker.Clock{
		Now: time.Now, Boot: func() time.Duration { return time.Since(start) },
		AfterFunc: func(d time.Duration, f func()) func() {
			timer := time.AfterFunc(d, f)
			return func() { timer.Stop() }
		},
	}
	for n := range 100_000 {
		if !broker.ComesBack(clock) {
			t.Fatalf("the %dth is not found", n)
		}
	}
}
