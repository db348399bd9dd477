//go:build unix

package door

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gatepass/broker"
)

func TestListen(t *testing.T) {
	path := socketPath(t)
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	for file, mode := range map[string]os.FileMode{path: os.ModeSocket | 0o600, filepath.Dir(path): os.ModeDir | 0o700, path + ".lock": 0o600} {
		if info, err := os.Lstat(file); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v, want %v", file, info.Mode(), err, mode)
		}
	}
	if _, err := Listen(path); !errors.Is(err, ErrDaemonRunning) {
		t.Errorf("a second listener: %v", err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
	if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close: %v", err)
	}
}

// A daemon that was killed leaves its socket behind.
func TestListenReplacesStaleSocket(t *testing.T) {
	path := socketPath(t)
	os.Mkdir(filepath.Dir(path), 0o700)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

// However many start at once over a stale socket, one listens and stays.
func TestListenRace(t *testing.T) {
	for range 10 {
		path := socketPath(t)
		os.Mkdir(filepath.Dir(path), 0o700)
		if stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path}); err == nil {
			stale.SetUnlinkOnClose(false)
			stale.Close()
		}
		var wg sync.WaitGroup
		listeners := make([]net.Listener, 16)
		for i := range listeners {
			wg.Go(func() {
				var err error
				if listeners[i], err = Listen(path); err != nil && !errors.Is(err, ErrDaemonRunning) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var winner net.Listener
		for _, ln := range listeners {
			if ln == nil {
				continue
			}
			if winner != nil {
				t.Fatal("two listen")
			}
			winner = ln
		}
		if winner == nil {
			t.Fatal("none listens")
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		winner.Close()
	}
}

// What is in the way and is not a dead socket of ours stays.
func TestListenRefuses(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"file":    func(path string) error { return os.WriteFile(path, []byte("mine"), 0o600) },
		"dir":     func(path string) error { return os.Mkdir(path, 0o700) },
		"symlink": func(path string) error { return os.Symlink("/nowhere", path) },
		"symlink to a socket": func(path string) error {
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + "2"})
			if err != nil {
				return err
			}
			ln.SetUnlinkOnClose(false)
			ln.Close()
			return os.Symlink(path+"2", path)
		},
		"writable by others":  func(path string) error { return os.Chmod(filepath.Dir(path), 0o777) },
		"writable by a group": func(path string) error { return os.Chmod(filepath.Dir(path), 0o770) },
		"symlink for a lock":  func(path string) error { return os.Symlink(path+".target", path+".lock") },
		"another user's directory": func(path string) error {
			if os.Getuid() != 0 {
				return errors.ErrUnsupported
			}
			return os.Chown(filepath.Dir(path), 65534, 65534)
		},
		"another user's socket": func(path string) error {
			if os.Getuid() != 0 {
				return errors.ErrUnsupported
			}
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
			if err != nil {
				return err
			}
			ln.SetUnlinkOnClose(false)
			ln.Close()
			return os.Chown(path, 65534, 65534)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			os.Mkdir(filepath.Dir(path), 0o700)
			if err := prepare(path); errors.Is(err, errors.ErrUnsupported) {
				t.Skip("needs root, to make something another user's")
			} else if err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(path)
			ln, err := Listen(path)
			if err == nil {
				ln.Close()
			}
			if broker.CodeOf(err) != broker.CodeConfig || errors.Is(err, ErrDaemonRunning) {
				t.Errorf("Listen: %v", err)
			}
			if after, _ := os.Lstat(path); before != nil && (after == nil || !os.SameFile(before, after)) {
				t.Error("what was in the way is gone")
			}
		})
	}
}

// A socket in /tmp itself is fine: there nobody can replace what is not his.
func TestListenInStickyDirectory(t *testing.T) {
	path := socketPath(t)
	os.Mkdir(filepath.Dir(path), 0o700)
	if err := os.Chmod(filepath.Dir(path), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
}

// Closing must not take away what another daemon listens on by then.
func TestCloseLeavesAnothersSocket(t *testing.T) {
	path := socketPath(t)
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	other, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ln.Close()
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

func TestVanished(t *testing.T) {
	for name, happens := range map[string]func(path string) error{
		"removed":  os.Remove,
		"renamed":  func(path string) error { return os.Rename(path, path+"2") },
		"replaced": func(path string) error { return os.WriteFile(path+"2", nil, 0o600) },
		"directory renamed": func(path string) error {
			return os.Rename(filepath.Dir(path), filepath.Dir(path)+"2")
		},
		"directory removed": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"replaced by another daemon": func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			ln, err := Listen(path)
			if err == nil {
				t.Cleanup(func() { ln.Close() })
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			ln, err := Listen(path)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			gone := Vanished(t.Context(), ln)
			// What changes nothing is no loss.
			if err := errors.Join(os.Chmod(path, 0o400), os.Chmod(path, 0o600), os.WriteFile(path+".other", nil, 0o600)); err != nil {
				t.Fatal(err)
			}
			select {
			case <-gone:
				t.Fatal("vanished before anything happened")
			case <-time.After(20 * time.Millisecond):
			}
			err = happens(path)
			if name == "replaced" {
				err = errors.Join(err, os.Rename(path+"2", path))
			}
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-gone:
			case <-time.After(vanishInterval + 10*time.Second):
				t.Error("nobody noticed")
			}
		})
	}
	t.Run("before the watch", func(t *testing.T) {
		path := socketPath(t)
		ln, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		os.Remove(path)
		<-Vanished(t.Context(), ln)
	})
	t.Run("not after ctx ended", func(t *testing.T) {
		path := socketPath(t)
		ln, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		ctx, cancel := context.WithCancel(t.Context())
		gone := Vanished(ctx, ln)
		cancel()
		os.Remove(path)
		select {
		case <-gone:
			t.Error("vanished")
		case <-time.After(50 * time.Millisecond):
		}
	})
	t.Run("a listener without a path", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		select {
		case <-Vanished(t.Context(), ln):
			t.Error("vanished")
		default:
		}
	})
}

func TestListenPathTooLong(t *testing.T) {
	if _, err := Listen(filepath.Join(t.TempDir(), strings.Repeat("x", 200))); broker.CodeOf(err) != broker.CodeConfig {
		t.Errorf("Listen: %v", err)
	}
}
