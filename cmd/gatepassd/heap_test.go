package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// The limit follows what is alive, up and down, and never below the usual.
func TestHeapLimitFollows(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	collections := make(chan int64, 64)
	paceHeap()
	afterEachCollection(func() {
		select {
		case collections <- debug.SetMemoryLimit(-1):
		default:
		}
	})
	t.Cleanup(func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) })
	until := func(what string, ok func(int64) bool) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			runtime.GC()
			select {
			case l := <-collections:
				if ok(l) {
					return
				}
			case <-deadline:
				t.Fatalf("the limit did not become %s; it is %d", what, debug.SetMemoryLimit(-1))
			}
		}
	}
	held := make([]byte, 64<<20)
	until("larger than what is held", func(l int64) bool { return l > int64(len(held)) })
	runtime.KeepAlive(held)
	held = nil
	until("small again", func(l int64) bool { return l < 40<<20 })
	if l := heapLimit(1 << 20); l != usualHeap {
		t.Errorf("with little alive the limit is %d", l)
	}
}
