package audit

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// An inotifyWatcher is told by the kernel of new segments and of writes.
type inotifyWatcher struct{ f *os.File }

func watch(dir string) (watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return pollWatcher{}, nil // all of the user's instances are in use
	}
	// Non-blocking, so that a read is given up when the file is closed.
	f := os.NewFile(uintptr(fd), "inotify")
	_, err = unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR)
	switch {
	case errors.Is(err, unix.ENOSPC): // or all watches
		f.Close()
		return pollWatcher{}, nil
	case err != nil:
		f.Close()
		return nil, &os.PathError{Op: "watch", Path: dir, Err: err}
	}
	return inotifyWatcher{f}, nil
}

func (w inotifyWatcher) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.f.Close() })
	defer stop()
	// What the events say does not matter: the reader looks for itself.
	_, err := w.f.Read(make([]byte, 4096))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (w inotifyWatcher) close() { w.f.Close() }
