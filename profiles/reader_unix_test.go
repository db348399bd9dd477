//go:build unix

package profiles

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestUnreadableFilesOfUnix(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	put(t, path("file"), "")
	for _, err := range []error{
		syscall.Mkfifo(path("fifo"), 0o600),
		os.Symlink("loop", path("loop")),
		os.Symlink(dir, path("link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	testUnreadable(t, "a FIFO", path("fifo"), "is not a regular file")
	testUnreadable(t, "a device", "/dev/zero", "is not a regular file")
	testUnreadable(t, "a link to itself", path("loop"), "cannot be read")
	testUnreadable(t, "a link to a directory", path("link"), "is a directory")
	testUnreadable(t, "a path below a file", path("file/config"), "cannot be read: not a directory")
	testUnreadable(t, "a path with a NUL", path("a\x00b"), "cannot be read")
}

func TestFileWithoutRights(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads every file")
	}
	path := filepath.Join(t.TempDir(), "config")
	put(t, path, "[profile p]\n")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	testUnreadable(t, "a file without rights", path, "cannot be read: permission denied")
}

// A path that turns into a FIFO after it was looked at does not hang the open.
func TestFIFOAtOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := NewReader().readOnce(path); err == nil {
		t.Error("a FIFO was read")
	}
}
