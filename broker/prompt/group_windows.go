package prompt

import "os/exec"

// ownGroup leaves a program as it is: it is killed alone.
func ownGroup(*exec.Cmd) {}
