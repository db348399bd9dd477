package door

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// watch returns a function that waits until something happened to the socket
// at path or to its directory, or returns false when ctx ends. The socket is
// watched itself, not the directory's entries: elsewhere in /tmp much
// happens.
func watch(ctx context.Context, path string) (func() bool, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	// A socket's last name going is a change of its attributes: the inode
	// lives on as long as we listen.
	_, err = unix.InotifyAddWatch(fd, path, unix.IN_ATTRIB|unix.IN_MOVE_SELF|unix.IN_DELETE_SELF)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_MOVE_SELF|unix.IN_DELETE_SELF|unix.IN_ONLYDIR)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	events := make([]byte, 4096)
	return func() bool {
		if _, err := f.Read(events); err != nil {
			stop()
			f.Close()
			return false
		}
		return true
	}, nil
}
