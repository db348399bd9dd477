package main

import "time"

// wallNow is the time without Go's monotonic reading: comparing it must use
// what the clock on the wall says.
func wallNow() time.Time { return time.Now().Round(0) }

func stopTimer(t *time.Timer) func() { return func() { t.Stop() } }
