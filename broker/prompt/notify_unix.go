//go:build unix

package prompt

import (
	"os"
	"strings"
	"syscall"
)

// writeLine writes a line on a terminal of our own user's, without becoming
// its reader or waiting for it.
func writeLine(tty, line string) {
	if !strings.HasPrefix(tty, "/dev/") {
		return
	}
	f, err := os.OpenFile(tty, os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return
	}
	// One write, so that no other output comes between; a program in raw mode
	// needs the carriage returns.
	f.WriteString("\r\n" + line + "\r\n")
}
