//go:build unix

package door

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// Listen listens on the unix socket at path, with mode 0600, in a directory
// that it makes (0700) where there is none. A daemon that answers there
// already is [ErrDaemonRunning]; a socket that nobody listens on is replaced.
// Closing the listener removes the socket, unless another has taken its place.
//
// Daemons that start at once take turns by a lock on path + ".lock", held
// from the look at the old socket until the new one listens; so none removes
// the socket of another.
func Listen(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, broker.Errorf(broker.CodeConfig, "make the socket's directory: %w", err)
	}
	if err := wire.CheckDir(dir); err != nil {
		return nil, err
	}
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, broker.Errorf(broker.CodeConfig, "listen on %s: %w", path, err)
	}
	// Closing would unlink whatever is there by then.
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	l := &listener{Listener: ln, path: path}
	// Until here the umask alone kept other users out, and the door does so
	// whatever the mode.
	if err = os.Chmod(path, 0o600); err == nil {
		l.file, err = os.Lstat(path)
	}
	if err != nil {
		ln.Close()
		return nil, broker.Errorf(broker.CodeConfig, "listen on %s: %w", path, err)
	}
	return l, nil
}

// A listener is a socket that we made, and its file as it was then.
type listener struct {
	net.Listener
	path  string
	file  os.FileInfo
	close sync.Once
}

func (l *listener) Close() error {
	var err error = net.ErrClosed
	l.close.Do(func() {
		// First the name, so that no client connects to what will not accept.
		if unlock, lockErr := lockFile(l.path + ".lock"); lockErr == nil {
			if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
				os.Remove(l.path)
			}
			unlock()
		}
		err = l.Listener.Close()
	})
	return err
}

// removeStale removes the socket at path if nobody listens on it. Anything
// else that is there stays, and is an error.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return broker.Errorf(broker.CodeConfig, "examine the socket: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if info.Mode().Type() != os.ModeSocket || !ok || int(st.Uid) != os.Geteuid() {
		return broker.Errorf(broker.CodeConfig, "%s is in the way: it is not a socket of ours (%s)", path, info.Mode()).
			WithHint("remove it, or set GATEPASS_SOCKET to another path")
	}
	conn, err := net.DialTimeout("unix", path, 2*time.Second)
	switch {
	case err == nil:
		conn.Close()
		return ErrDaemonRunning
	case errors.Is(err, syscall.ECONNREFUSED):
	case errors.Is(err, os.ErrNotExist):
		return nil
	default:
		// A full queue is no stale socket.
		return fmt.Errorf("%w, and does not answer (%w)", ErrDaemonRunning, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return broker.Errorf(broker.CodeConfig, "remove the old socket: %w", err)
	}
	return nil
}

// lockFile waits for the lock at path and returns what releases it. The file
// stays: whoever removed it could let two hold the lock.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, broker.Errorf(broker.CodeConfig, "lock the socket: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, broker.Errorf(broker.CodeConfig, "lock the socket: flock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
