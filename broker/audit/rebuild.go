package audit

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
)

// rebuild reads the signed entries, holds them against the signed head, and
// writes the hash file anew.
func (r *recovery) rebuild(ctx context.Context, signed int64) error {
	r.log.Warn("audit log's hash file does not fit; reading all segments", "entries", signed)
	tmp := filepath.Join(r.dir, hashesName+".tmp")
	out, err := r.fs.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer r.fs.Remove(tmp) // gone when renamed
	defer out.Close()
	off, err := r.copyHashes(out)
	if err != nil {
		return err
	}
	r.tree = r.pruned.clone()
	var pending []byte
	flush := func() error {
		err := writeAt(out, pending, off)
		off += int64(len(pending))
		pending = pending[:0]
		return err
	}
	read := func(num int) error {
		in, err := newLineReader(r.dir, num, 0)
		if err != nil {
			return err
		}
		defer in.Close()
		for r.tree.n < signed {
			line, err := in.next()
			if err == io.EOF {
				return nil
			}
			if err != nil && err != errLong {
				return err
			}
			pending = r.tree.push(tlog.RecordHash(line), pending)
			if len(pending) > maxPendingHashes {
				if err := cmp.Or(flush(), ctx.Err()); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, num := range r.segs {
		if err := read(num); err != nil {
			return err
		}
	}
	if r.tree.n < signed {
		return r.damaged("a checkpoint covers %d entries, but the segments hold %d", signed, r.tree.n)
	}
	if r.tree.root() != r.sign.last.root {
		return r.damaged("the first %d entries are not the ones that were signed", signed)
	}
	if err := flush(); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	if err := r.fs.Rename(tmp, filepath.Join(r.dir, hashesName)); err != nil {
		return err
	}
	return r.fs.SyncDir(r.dir)
}

// copyHashes begins a hash file with the hashes of the entries that were
// removed and returns where the next ones go. Where the old file has them no
// more, the edge of their tree is all that is left of them.
func (r *recovery) copyHashes(out file) (int64, error) {
	size := tlog.StoredHashCount(r.pruned.n) * tlog.HashSize
	if size == 0 {
		return 0, nil
	}
	old, err := os.Open(filepath.Join(r.dir, hashesName))
	if err == nil {
		defer old.Close()
		var t tree
		if t, err = readPeaks(old, r.pruned.n); err == nil && t.root() == r.pruned.root() {
			buf := make([]byte, 64<<10)
			for off := int64(0); off < size; off += int64(len(buf)) {
				buf = buf[:min(int64(len(buf)), size-off)]
				if _, err := old.ReadAt(buf, off); err != nil {
					return 0, err
				}
				if err := writeAt(out, buf, off); err != nil {
					return 0, err
				}
			}
			return size, nil
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && err != io.EOF && err != io.ErrUnexpectedEOF {
		return 0, err
	}
	r.log.Warn("audit log's hashes of removed entries are lost", "entries", r.pruned.n)
	for i, at := range peakIndexes(r.pruned.n) {
		if err := writeAt(out, r.pruned.peaks[i][:], at*tlog.HashSize); err != nil {
			return 0, err
		}
	}
	return size, nil
}
