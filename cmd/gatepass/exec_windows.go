package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
)

const (
	shellVariable = "COMSPEC"
	defaultShell  = "cmd.exe"
)

// lookUp finds the file that a shell would run for name.
func (c *client) lookUp(name string) (string, error) {
	file, err := exec.LookPath(name)
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist), name == "":
		return "", notFound(name)
	case err != nil && !errors.Is(err, exec.ErrDot):
		return "", cannotRun(name, err)
	}
	return file, nil
}

// become runs a program in our place, since Windows cannot replace a process:
// the console's signals reach it by themselves, and its exit status is ours.
// The lease is this process's, and ends with it.
func (c *client) become(program string, argv, env []string) error {
	signal.Ignore(os.Interrupt)
	cmd := exec.Command(program)
	cmd.Args, cmd.Env = argv, env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return &commandError{status: e.ExitCode()}
	}
	if err != nil {
		return cannotRun(program, err)
	}
	return nil
}
