//go:build unix

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	shellVariable = "SHELL"
	defaultShell  = "/bin/sh"
	defaultPath   = "/usr/bin:/bin" // where PATH is not set at all
)

// lookUp finds the file that a shell would run for name.
func (c *client) lookUp(name string) (string, error) {
	if strings.Contains(name, "/") {
		switch err := executable(name); {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			return "", notFound(name)
		case err != nil:
			return "", cannotRun(name, err)
		}
		return name, nil
	}
	path := c.getenv("PATH")
	if path == "" {
		path = defaultPath
	}
	var found error
	for dir := range strings.SplitSeq(path, ":") {
		file := filepath.Join(dir, name) // an empty dir is the current one
		switch err := executable(file); {
		case err == nil:
			return file, nil
		case errors.Is(err, unix.EACCES) && found == nil:
			found = cannotRun(file, err)
		}
	}
	if found != nil {
		return "", found
	}
	return "", notFound(name)
}

// executable returns nil for a file that we may execute.
func executable(file string) error {
	var info unix.Stat_t
	if err := unix.Stat(file, &info); err != nil {
		return err
	}
	if info.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
}

// become replaces this process by a program: its number, terminal, signals and
// exit status are the program's from here on. It returns only if that fails.
func (c *client) become(program string, argv, env []string) error {
	adoptOrphans()
	err := syscall.Exec(program, argv, env)
	if errors.Is(err, unix.ENOEXEC) { // a script that does not say of what; so does execvp(3)
		err = syscall.Exec("/bin/sh", append([]string{"sh", program}, argv[1:]...), env)
	}
	return cannotRun(program, &os.PathError{Op: "exec", Path: program, Err: err})
}
