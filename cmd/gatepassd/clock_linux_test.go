package main

import (
	"testing"
	"time"
)

func TestBootTimer(t *testing.T) {
	ran := make(chan time.Duration)
	start := bootNow()
	bootAfterFunc(5*time.Millisecond, func() { ran <- bootNow() - start })
	if d := <-ran; d < 5*time.Millisecond {
		t.Errorf("it ran after %v", d)
	}
	bootAfterFunc(-time.Hour, func() { ran <- 0 })
	<-ran // what is past runs now

	// A stopped one does not run, though a later one does.
	stop := bootAfterFunc(10*time.Millisecond, func() { t.Error("a stopped timer ran") })
	stop()
	stop()
	bootAfterFunc(30*time.Millisecond, func() { ran <- 0 })
	<-ran
}
