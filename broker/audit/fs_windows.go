package audit

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// syncDir does nothing: NTFS journals names, and directories cannot be
// flushed.
func syncDir(string) error { return nil }

// CheckPrivate trusts the profile directory's ACL: Windows has no mode bits.
func CheckPrivate(fs.FileInfo) error { return nil }

// lockFile takes a lock on one byte far beyond f's end without waiting, so
// that what f says can still be read. It reports false when somebody else
// holds one that excludes it.
func lockFile(f *os.File, exclusive bool) (bool, error) {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{OffsetHigh: 1})
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION), errors.Is(err, windows.ERROR_IO_PENDING):
		return false, nil
	}
	return false, os.NewSyscallError("LockFileEx", err)
}

func outOfSpace(err error) bool { return errors.Is(err, windows.ERROR_DISK_FULL) }
