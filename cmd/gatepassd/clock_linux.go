package main

import (
	"container/heap"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// newClock returns the machine's clocks. Its timers count the time in which
// the laptop sleeps: Go's own stand still then, and a session would be renewed
// and dropped that much too late.
func newClock() broker.Clock {
	after := func(d time.Duration, f func()) func() { return stopTimer(time.AfterFunc(d, f)) }
	if timers, err := newBootTimers(); err == nil { // without, late after a suspend beats never
		after = timers.after
	}
	return broker.Clock{Now: wallNow, Boot: bootNow, AfterFunc: after}
}

func bootNow() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("CLOCK_BOOTTIME: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

// bootTimers run functions at a time of CLOCK_BOOTTIME. Each lease has three,
// so all of them share one timerfd, set to the first, and the goroutine that
// reads it for as long as the program runs. mu guards queue and the timerfd's
// setting.
type bootTimers struct {
	fd    int
	file  *os.File // of fd
	mu    sync.Mutex
	queue timerQueue
}

type bootTimer struct {
	at    time.Duration
	f     func()
	place int // in the queue; -1 once it is not in it any more
}

func newBootTimers() (*bootTimers, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	b := &bootTimers{fd: fd, file: os.NewFile(uintptr(fd), "timerfd")}
	go b.run()
	return b, nil
}

func (b *bootTimers) after(d time.Duration, f func()) (stop func()) {
	t := &bootTimer{at: bootNow() + d, f: f}
	b.mu.Lock()
	defer b.mu.Unlock()
	heap.Push(&b.queue, t)
	b.setLocked()
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if t.place >= 0 {
			heap.Remove(&b.queue, t.place)
		}
	}
}

// setLocked has the timerfd tell when the first timer's time has come.
func (b *bootTimers) setLocked() {
	if len(b.queue) == 0 {
		return
	}
	// A zero time would disarm it.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(b.queue[0].at, 1).Nanoseconds())}
	if err := unix.TimerfdSettime(b.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		panic("timerfd_settime: " + err.Error()) // there is no such time
	}
}

func (b *bootTimers) run() {
	for {
		var expirations [8]byte
		if _, err := b.file.Read(expirations[:]); err != nil {
			panic("timerfd: " + err.Error()) // nobody closes it
		}
		b.mu.Lock()
		for now := bootNow(); len(b.queue) > 0 && b.queue[0].at <= now; {
			go heap.Pop(&b.queue).(*bootTimer).f()
		}
		b.setLocked()
		b.mu.Unlock()
	}
}

// A timerQueue is a heap with the first timer in front. See container/heap.
type timerQueue []*bootTimer

func (q timerQueue) Len() int           { return len(q) }
func (q timerQueue) Less(i, j int) bool { return q[i].at < q[j].at }

func (q timerQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *timerQueue) Push(t any) {
	t.(*bootTimer).place = len(*q)
	*q = append(*q, t.(*bootTimer))
}

func (q *timerQueue) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	t.place = -1
	return t
}
