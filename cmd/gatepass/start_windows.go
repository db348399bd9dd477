package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/windows"

	"gatepass/broker"
)

// spawnDetached starts program without a console, with nothing of ours but
// env and the pipe's other end, whose handle it names as a descriptor.
func spawnDetached(program string, args, env []string) (news *os.File, p *os.Process, err error) {
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
	handle := windows.Handle(w.Fd())
	err = windows.SetHandleInformation(handle, windows.HANDLE_FLAG_INHERIT, windows.HANDLE_FLAG_INHERIT)
	if err == nil {
		p, err = os.StartProcess(program, append([]string{program}, args...), &os.ProcAttr{
			Dir:   filepath.VolumeName(program) + `\`,
			Env:   append(env, fmt.Sprintf("GATEPASS_READY_FD=%d", handle)),
			Files: []*os.File{null, null, null},
			Sys: &syscall.SysProcAttr{
				HideWindow:                 true,
				CreationFlags:              windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP,
				AdditionalInheritedHandles: []syscall.Handle{syscall.Handle(handle)},
			},
		})
	}
	if err != nil {
		news.Close()
		return nil, nil, err
	}
	return news, p, nil
}

// lockName is among the user's own files: named pipes have no directory.
func lockName(string) (string, error) {
	dir, err := os.UserCacheDir() // %LocalAppData%
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "gatepass")
	return filepath.Join(dir, "starting.lock"), os.MkdirAll(dir, 0o700)
}

func openLock(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
}

// lockFile waits for the lock on f, which closing f gives up.
func lockFile(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, new(windows.Overlapped))
}

// becomeDaemon runs program in our place: Windows cannot replace a process.
func becomeDaemon(program string, args, env []string) error {
	cmd := exec.Command(program, args...)
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return broker.Errorf(broker.CodeDaemonUnreachable, "gatepassd ended: %s", e.ProcessState)
	}
	return err
}
