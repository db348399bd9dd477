//go:build unix

package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"gatepass/broker"
)

// A socket is a blocking unix stream socket, used by one goroutine. Its reads
// and writes fail with [os.ErrDeadlineExceeded] at the deadline, and end when
// the context does. The system calls are made here because package net is
// what this client cannot afford.
type socket struct {
	fd       int
	deadline time.Time
	stop     func() bool // unhooks the context

	mu     sync.Mutex // held to close fd, and to shut it down from the context
	closed bool
}

// dial connects to the socket at path and makes sure that our own user
// listens there.
func dial(ctx context.Context, deadline time.Time, path string) (*socket, error) {
	fd, err := newSocket()
	if err != nil {
		return nil, fmt.Errorf("create a socket: %w", err)
	}
	s := &socket{fd: fd, deadline: deadline, stop: func() bool { return true }}
	if err := s.connect(ctx, path); err != nil {
		s.Close()
		return nil, err
	}
	if err := checkListener(fd, path); err != nil {
		s.Close()
		return nil, err
	}
	if ctx.Done() != nil {
		s.stop = context.AfterFunc(ctx, s.interrupt)
	}
	return s, nil
}

// connect waits, in the order of arrival, for a place in the daemon's queue.
func (s *socket) connect(ctx context.Context, path string) error {
	for {
		var most time.Duration = math.MaxInt64
		if ctx.Done() != nil {
			// A blocked connect cannot be interrupted, so it is begun anew.
			most = 200 * time.Millisecond
		}
		if err := s.limit(syscall.SO_SNDTIMEO, most); err != nil {
			return err
		}
		err := syscall.Connect(s.fd, &syscall.SockaddrUnix{Name: path})
		switch {
		case err == nil, err == syscall.EISCONN:
			return nil
		case err == syscall.EINTR:
		case err == syscall.EAGAIN: // the queue is full, and the time is over
			if err := ctx.Err(); err != nil {
				return err
			}
		case err == syscall.ENOENT, err == syscall.ECONNREFUSED, err == syscall.ENOTDIR:
			return broker.Errorf(broker.CodeDaemonUnreachable, "call gatepassd: %w at %s", ErrNoDaemon, path).
				WithHint("gatepass daemon start")
		default:
			return fmt.Errorf("connect: %w", err)
		}
	}
}

// limit sets a time-out to what is left until the deadline, or to most.
func (s *socket) limit(option int, most time.Duration) error {
	left := time.Until(s.deadline)
	if left <= 0 {
		return os.ErrDeadlineExceeded
	}
	// Zero would mean none.
	tv := syscall.NsecToTimeval(max(min(left, most), time.Millisecond).Nanoseconds())
	if err := syscall.SetsockoptTimeval(s.fd, syscall.SOL_SOCKET, option, &tv); err != nil {
		return fmt.Errorf("set a time-out: %w", err)
	}
	return nil
}

func (s *socket) Read(p []byte) (int, error) {
	for {
		if err := s.limit(syscall.SO_RCVTIMEO, math.MaxInt64); err != nil {
			return 0, err
		}
		switch n, err := syscall.Read(s.fd, p); {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, os.ErrDeadlineExceeded
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (s *socket) Write(p []byte) (int, error) {
	for done := 0; ; {
		if done == len(p) {
			return done, nil
		}
		if err := s.limit(syscall.SO_SNDTIMEO, math.MaxInt64); err != nil {
			return done, err
		}
		switch n, err := syscall.Write(s.fd, p[done:]); {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return done, os.ErrDeadlineExceeded
		case err != nil:
			return done, err
		default:
			done += n
		}
	}
}

// interrupt ends what Read or Write is waiting for.
func (s *socket) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		syscall.Shutdown(s.fd, syscall.SHUT_RDWR)
	}
}

func (s *socket) Close() error {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return syscall.Close(s.fd)
}

// checkListener refuses a socket that another user serves, or could have put
// in the place of ours: before a daemon runs, anyone may create
// /tmp/gatepass-UID.
func checkListener(fd int, path string) error {
	uid, err := listenerUID(fd)
	if err != nil {
		return fmt.Errorf("learn who listens: %w", err)
	}
	if own := os.Geteuid(); uid != own {
		return broker.Errorf(broker.CodeDaemonUnreachable, "the socket %s is served by user %d, not by us (%d): nothing was sent", path, uid, own)
	}
	return CheckDir(filepath.Dir(path))
}

// CheckDir returns nil when nobody but our user and root can put or replace a
// socket in dir.
func CheckDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return broker.Errorf(broker.CodeConfig, "examine the socket's directory: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch own := os.Geteuid(); {
	case !ok || !info.IsDir():
		return broker.Errorf(broker.CodeConfig, "the socket's directory %s is none", dir)
	case int(st.Uid) != own && st.Uid != 0:
		return broker.Errorf(broker.CodeConfig, "the socket's directory %s belongs to user %d, not to us (%d)", dir, st.Uid, own)
	case info.Mode()&0o022 != 0 && info.Mode()&os.ModeSticky == 0:
		return broker.Errorf(broker.CodeConfig, "others may write to the socket's directory %s (mode %04o)", dir, info.Mode().Perm()).
			WithHint("chmod go-w %s", dir)
	}
	return nil
}

// isDir reports whether path is a directory of user uid, not a link to one.
func isDir(path string, uid int) (os.FileInfo, bool) {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() {
		return nil, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return info, ok && int(st.Uid) == uid
}

// SocketPath returns where the daemon of user uid listens:
//
//   - $GATEPASS_SOCKET, when it is set; it must be absolute
//   - gatepass/gatepass.sock in $XDG_RUNTIME_DIR, where that is a directory of
//     the user's own (not so after su)
//   - the same in $TMPDIR, which on macOS is the user's own
//   - the same in /run/user/UID, likewise
//   - /tmp/gatepass-UID/gatepass.sock
//
// It fails with [broker.CodeConfig] when the path is too long for a socket,
// and when /tmp/gatepass-UID is somebody else's. It creates nothing.
func SocketPath(getenv func(string) string, uid int) (string, error) {
	const name = "gatepass/gatepass.sock"
	if path := getenv("GATEPASS_SOCKET"); path != "" {
		if !filepath.IsAbs(path) {
			return "", broker.Errorf(broker.CodeConfig, "GATEPASS_SOCKET=%q is not an absolute path", path)
		}
		return checkLength(filepath.Clean(path))
	}
	for _, dir := range runtimeDirs(getenv, uid) {
		if filepath.IsAbs(dir) {
			if _, ok := isDir(dir, uid); ok {
				return checkLength(filepath.Join(dir, name))
			}
		}
	}
	dir := fmt.Sprintf("/tmp/gatepass-%d", uid)
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		if info, ok := isDir(dir, uid); !ok || info.Mode()&0o077 != 0 {
			return "", broker.Errorf(broker.CodeConfig, "%s is not a directory that only user %d can enter: somebody else may have made it", dir, uid).
				WithHint("set XDG_RUNTIME_DIR or GATEPASS_SOCKET, or have %s removed", dir)
		}
	}
	return checkLength(dir + "/gatepass.sock")
}

// checkLength refuses a path that does not fit into a sockaddr_un with the
// NUL after it.
func checkLength(path string) (string, error) {
	if limit := len(syscall.RawSockaddrUnix{}.Path) - 1; len(path) > limit {
		return "", broker.Errorf(broker.CodeConfig, "the socket's path has %d bytes, and the system takes %d: %s", len(path), limit, path).
			WithHint("set GATEPASS_SOCKET to a shorter path")
	}
	return path, nil
}
