package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// newClock returns the machine's clocks. Its timers are timerfds on
// CLOCK_BOOTTIME: Go's own stand still while the laptop sleeps, and a session
// would be renewed and dropped that much too late.
func newClock() broker.Clock {
	return broker.Clock{Now: wallNow, Boot: bootNow, AfterFunc: bootAfterFunc}
}

func bootNow() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("CLOCK_BOOTTIME: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

func bootAfterFunc(d time.Duration, f func()) (stop func()) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil { // out of descriptors: late after a suspend beats never
		return stopTimer(time.AfterFunc(d, f))
	}
	// A zero time would disarm it.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(d, 1).Nanoseconds())}
	if err := unix.TimerfdSettime(fd, 0, &spec, nil); err != nil {
		unix.Close(fd)
		return stopTimer(time.AfterFunc(d, f))
	}
	file := os.NewFile(uintptr(fd), "timerfd")
	go func() {
		var expirations [8]byte
		_, err := file.Read(expirations[:])
		file.Close()
		if err == nil { // else it was stopped
			f()
		}
	}()
	return func() { file.Close() }
}
