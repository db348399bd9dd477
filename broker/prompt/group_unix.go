//go:build unix

package prompt

import (
	"os/exec"
	"syscall"
)

// ownGroup makes a program the leader of a session, so that it has no terminal
// of the daemon's and is killed with what it started.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
