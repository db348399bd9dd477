package main

import (
	"errors"
	"time"

	"golang.org/x/sys/windows"
)

// waitGone waits until process pid has ended, and reports whether it did in
// time.
func waitGone(pid int, timeout time.Duration) (bool, error) {
	h, err := windows.OpenProcess(windows.SYNCHRONIZE, false, uint32(pid))
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) { // there is no such process
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer windows.CloseHandle(h)
	event, err := windows.WaitForSingleObject(h, uint32(timeout/time.Millisecond))
	return event == windows.WAIT_OBJECT_0, err
}
