package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBootTimers(t *testing.T) {
	after := newClock().AfterFunc
	ran := make(chan time.Duration)
	start := bootNow()
	after(5*time.Millisecond, func() { ran <- bootNow() - start })
	if d := <-ran; d < 5*time.Millisecond {
		t.Errorf("it ran after %v", d)
	}
	after(-time.Hour, func() { ran <- 0 })
	<-ran // what is past runs now

	// A stopped one does not run, though a later one does.
	stop := after(10*time.Millisecond, func() { t.Error("a stopped timer ran") })
	stop()
	stop()
	after(30*time.Millisecond, func() { ran <- 0 })
	<-ran
}

// Each runs at its own time, in whatever order they were made, and those that
// are stopped are gone.
func TestManyBootTimers(t *testing.T) {
	timers, err := newBootTimers()
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	ran := make(chan int, n)
	var stops []func()
	start := bootNow()
	for _, i := range rand.Perm(n) {
		d := time.Duration(i) * time.Millisecond / 4
		timers.after(d, func() {
			if at := bootNow() - start; at < d {
				t.Errorf("timer %d ran after %v", i, at)
			}
			ran <- i
		})
		stops = append(stops, timers.after(time.Hour+d, func() { t.Error("a stopped timer ran") }))
	}
	var got []int
	for _, stop := range stops {
		stop()
		got = append(got, <-ran)
	}
	slices.Sort(got)
	for i := range n {
		if got[i] != i {
			t.Fatalf("there ran %v", got)
		}
	}
	timers.mu.Lock()
	defer timers.mu.Unlock()
	if len(timers.queue) > 0 {
		t.Errorf("%d are left", len(timers.queue))
	}
}
