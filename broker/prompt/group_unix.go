//go:build unix

package prompt

import (
	"os/exec"
	"syscall"
)

// ownGroup makes a program the leader of a session, so that it has no terminal
// of the daemon's and is ended with what it started.
func ownGroup(cmd *exec.Cmd, signal syscall.Signal) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, signal) }
}
