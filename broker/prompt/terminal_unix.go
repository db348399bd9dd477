//go:build unix

package prompt

import (
	"os"

	"golang.org/x/sys/unix"
)

// keepTerminal returns what sets a terminal as it is now, if there is one.
func keepTerminal(name string) (restore func()) {
	if name == "" {
		return func() {}
	}
	tty, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return func() {}
	}
	before, err := unix.IoctlGetTermios(int(tty.Fd()), getTermios)
	return func() {
		if err == nil {
			unix.IoctlSetTermios(int(tty.Fd()), setTermios, before)
		}
		tty.Close()
	}
}
