//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"gatepass/broker/wire"
)

// spawnDetached starts program in a session of its own, in "/", with nothing
// of ours but env and the pipe's other end: a daemon that held the standard
// output of a credential-process would keep the AWS CLI waiting for its end.
func spawnDetached(program string, args, env []string) (news *os.File, p *os.Process, err error) {
	closeOnExec() // also what was inherited without the flag, which fork and exec would pass on
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	news, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	mask := unix.Umask(0o077)
	defer unix.Umask(mask)
	p, err = os.StartProcess(program, append([]string{program}, args...), &os.ProcAttr{
		Dir:   "/",
		Env:   append(env, "GATEPASS_READY_FD=3"),
		Files: []*os.File{null, null, null, w},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		news.Close()
		return nil, nil, err
	}
	return news, p, nil
}

// lockName is a file beside the socket, in a directory where nobody else can
// have put it. It is not the daemon's own lock, which the daemon being started needs.
func lockName(socket string) (string, error) {
	dir := filepath.Dir(socket)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return socket + ".starting", wire.CheckDir(dir)
}

func openLock(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
}

// lockFile waits for the lock on f, which closing f gives up.
func lockFile(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

// becomeDaemon replaces this process by program.
func becomeDaemon(program string, args, env []string) error {
	return syscall.Exec(program, append([]string{program}, args...), env)
}

// markListed marks the descriptors above 2 that a directory lists.
func markListed(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
