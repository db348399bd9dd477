package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// usualHeap is what the daemon may take for its heap while it holds what it
// usually does. With some 2 MiB alive the collector's own pace would be 100
// times a second under load; the limit, not the pace, keeps the heap small.
// The program's text, some 8 MiB, is resident beside it.
const usualHeap = 11 << 20

// paceHeap keeps the heap small as long as little of it is alive. With a limit
// below what is alive, as after reading a config of 10,000 profiles, the
// collector would run without end: the limit grows and shrinks with that.
func paceHeap() {
	debug.SetGCPercent(200)
	debug.SetMemoryLimit(usualHeap)
	afterEachCollection(func() {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		debug.SetMemoryLimit(heapLimit(live[0].Value.Uint64()))
	})
}

// heapLimit leaves three times what is alive while that is little: the limit
// counts stacks and the collector's own memory too, and with less of it the
// collector costs more than all hand-outs. Of what comes on top, as with a
// thousand leases, it leaves twice.
func heapLimit(live uint64) int64 {
	const little = usualHeap / 2
	return max(usualHeap, little+2*int64(live)+min(int64(live), little))
}

// afterEachCollection calls f when a garbage collection has ended: an object
// that nobody holds is found by each.
func afterEachCollection(f func()) {
	type unheld struct{ again func(*unheld) }
	again := func(u *unheld) {
		f()
		runtime.SetFinalizer(u, u.again)
	}
	runtime.SetFinalizer(&unheld{again}, again)
}
