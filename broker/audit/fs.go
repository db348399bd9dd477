package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A fileSystem is what the writer changes the disk through, so that tests can
// make each step fail. Nothing is read through it.
type fileSystem interface {
	OpenFile(name string, flag int, perm fs.FileMode) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	SyncDir(name string) error
}

type file interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error    // the data and what is needed to read it again
	InPlace() error // nil while the file is where it was opened
	Close() error
}

type osFS struct{}

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return osFile{f, info}, nil
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(name string) error     { return os.Remove(name) }
func (osFS) SyncDir(name string) error    { return syncDir(name) }

type osFile struct {
	*os.File
	info fs.FileInfo // as it was opened
}

func (f osFile) Sync() error { return syncData(f.File) }

// InPlace asks for the file by its name: an entry in a file that was moved or
// removed is an entry that nobody will find.
func (f osFile) InPlace() error {
	info, err := os.Stat(f.Name())
	if err == nil && !os.SameFile(info, f.info) {
		err = errors.New("another file is there")
	}
	if err != nil {
		return fmt.Errorf("%s %w: %w", f.Name(), errNotInPlace, err)
	}
	return nil
}

var errNotInPlace = errors.New("was moved or removed")

// writeAt writes all of p at off, or says that it did not.
func writeAt(f file, p []byte, off int64) error {
	_, err := writeSome(f, p, off)
	return err
}

// writeSome writes p at off and returns how much of it is there: a short write
// is an error, whatever made it.
func writeSome(f file, p []byte, off int64) (n int, err error) {
	n, err = f.WriteAt(p, off)
	if err == nil && n < len(p) {
		err = fmt.Errorf("%d of %d bytes were written", n, len(p))
	}
	return n, err
}

// writeFile replaces dir/name by data, so that after a crash it holds the old
// bytes or the new ones: temporary file, fsync, rename, fsync of the
// directory.
func writeFile(fsys fileSystem, dir, name string, data []byte) error {
	tmp := name + ".tmp"
	f, err := fsys.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = writeAt(f, data, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		fsys.Remove(tmp)
		return err
	}
	return fsys.SyncDir(dir)
}
