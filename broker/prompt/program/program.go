// Package program runs the programs of others for the daemon, by itself or in
// place of the user: they get an environment of their own and no terminal, and
// are ended with all that they started.
package program

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// MaxOutput bounds what is kept of what a program prints, in bytes.
const MaxOutput = 4 << 10

// Shell returns the arguments by which the system's shell runs a command, as
// the configuration files of AWS and ours have them. What follows is $0, $1…
// to it.
func Shell(command string, args ...string) []string {
	shell := []string{"/bin/sh", "-c", command}
	if runtime.GOOS == "windows" {
		shell = []string{"cmd.exe", "/C", command}
	}
	return append(shell, args...)
}

// Run runs a program to its end and returns what it printed, up to
// [MaxOutput], and its status. A program that ctx ends is killed with all that
// it started.
func Run(ctx context.Context, args, env []string, stdin []byte) (out []byte, status int, err error) {
	return RunBegun(ctx, args, env, func(_ int, w io.Writer) {
		w.Write(stdin) // who does not read it has no need of it
	})
}

// RunBegun is [Run], and calls begun when the program has been started; all
// that it gets on its standard input is what begun writes.
func RunBegun(ctx context.Context, args, env []string, begun func(pid int, stdin io.Writer)) (out []byte, status int, err error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = env
	cmd.Dir = "/"
	if runtime.GOOS == "windows" {
		cmd.Dir = ""
	}
	w := limited{left: MaxOutput}
	cmd.Stdout = &w
	OwnGroup(cmd, syscall.SIGKILL)
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		begun(cmd.Process.Pid, stdin)
		stdin.Close()
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return w.b, exit.ExitCode(), nil
	}
	return w.b, 0, err
}

// limited keeps the first bytes that are written to it.
type limited struct {
	b    []byte
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	n := min(len(b), l.left)
	l.b, l.left = append(l.b, b[:n]...), l.left-n
	return len(b), nil
}

// Env returns the variables of environ by which programs find their own
// files. Nothing else of the daemon's environment reaches them.
func Env(environ []string) []string {
	var env []string
	for _, v := range environ {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "GNUPGHOME",
			"SystemRoot", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "ComSpec", "PATHEXT":
			env = append(env, v)
		}
	}
	return env
}
