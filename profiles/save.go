package profiles

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Names of the temporary files that replaceFile makes beside the file.
const (
	tempPrefix = ".gatepass-"
	tempSuffix = ".tmp"
	tempStale  = time.Hour
)

// replaceFile replaces the file at path, which holds old, by data: after a
// crash it has the one or the other. A link is followed, mode and owner are
// kept. old is nil where there is no file; then the file is made for its owner
// alone.
func replaceFile(path string, old, data []byte) (err error) {
	fail := func(err error) error {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return &ConfigError{File: path, Msg: "cannot be written, and is as it was: " + err.Error(), err: err}
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) && old == nil {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fail(err)
		}
		real, err = path, nil
	}
	if err != nil {
		return fail(err)
	}
	dir := filepath.Dir(real)
	sweep(dir)
	tmp, err := os.CreateTemp(dir, tempPrefix+"*"+tempSuffix) // 0600
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if info, err := os.Stat(real); err == nil {
		if err := checkReplaceable(info); err != nil {
			return fail(err)
		}
		if err := keepOwner(tmp, info); err != nil {
			return fail(err)
		}
	} else if old != nil {
		return fail(err)
	}
	if _, err := tmp.Write(data); err != nil {
		return fail(err)
	}
	if err := tmp.Sync(); err != nil {
		return fail(err)
	}
	if err := tmp.Close(); err != nil {
		return fail(err)
	}
	now, err := os.ReadFile(real)
	switch {
	case errors.Is(err, fs.ErrNotExist) && old == nil:
	case err != nil:
		return fail(err)
	case old == nil || !bytes.Equal(now, old):
		clear(now)
		err = errors.New("somebody else has changed it meanwhile: try again")
		return fail(err)
	}
	clear(now)
	if err = os.Rename(tmp.Name(), real); err != nil {
		return fail(err)
	}
	if d, derr := os.Open(dir); derr == nil {
		d.Sync() // where directories can be
		d.Close()
	}
	return nil
}

// checkReplaceable refuses what a new file must not take the place of. A new
// file is no writing to the system, so it would not mind a mode that forbids
// that; its owner does.
func checkReplaceable(info fs.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file")
	case info.Mode().Perm()&0o200 == 0:
		return errors.New("it is read-only: first make it writable (chmod u+w)")
	case hardLinks(info) > 1:
		return errors.New("it has another name (a hard link), under which the old file would stay: use a symbolic link instead, which is followed")
	}
	return nil
}

// sweep removes what killed runs left behind.
func sweep(dir string) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), tempPrefix) || !strings.HasSuffix(f.Name(), tempSuffix) {
			continue
		}
		if info, err := f.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > tempStale {
			os.Remove(filepath.Join(dir, f.Name()))
		}
	}
}
