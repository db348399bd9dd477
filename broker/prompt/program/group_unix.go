//go:build unix

package program

import (
	"os/exec"
	"syscall"
)

// OwnGroup makes a program the leader of a session, so that it has no terminal
// of the daemon's and is ended with what it started.
func OwnGroup(cmd *exec.Cmd, signal syscall.Signal) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, signal) }
}
