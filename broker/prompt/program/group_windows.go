package program

import (
	"os/exec"
	"syscall"
)

// OwnGroup leaves a program as it is: it is killed alone.
func OwnGroup(*exec.Cmd, syscall.Signal) {}
