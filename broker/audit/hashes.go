package audit

import (
	"bufio"
	"io"
	"math"
	"math/bits"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
)

const hashesName = "hashes"

// maxPendingHashes is how much waits for a hash file that cannot be written
// before it is given up, in bytes.
const maxPendingHashes = 1 << 20

// A hashFile is the file of stored hashes while it is written. All of it can
// be computed again from the segments, so no failure here fails an entry.
type hashFile struct {
	fs      fileSystem
	name    string
	f       file   // nil while it could not be opened, or once given up
	size    int64  // bytes written
	pending []byte // to be written at size
	gone    bool   // given up: it has a gap
}

// open opens the file, which holds size good bytes.
func (h *hashFile) open(fsys fileSystem, dir string, size int64) error {
	h.fs, h.name, h.size = fsys, filepath.Join(dir, hashesName), size
	f, err := fsys.OpenFile(h.name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return err
	}
	h.f = f
	return nil
}

func (h *hashFile) flush() (err error) {
	if h.gone {
		h.pending = h.pending[:0]
		return nil
	}
	if h.f == nil {
		err = h.open(h.fs, filepath.Dir(h.name), h.size)
	}
	if err == nil {
		err = writeAt(h.f, h.pending, h.size)
	}
	if err != nil {
		if len(h.pending) > maxPendingHashes {
			h.gone, h.pending = true, nil
		}
		return err
	}
	h.size += int64(len(h.pending))
	h.pending = h.pending[:0]
	return nil
}

func (h *hashFile) close() {
	if h.f != nil {
		h.f.Close()
	}
}

// readPeaks reads the edge of the tree with n leaves from a file of stored
// hashes.
func readPeaks(f *os.File, n int64) (tree, error) {
	t := tree{n: n}
	for _, at := range peakIndexes(n) {
		h, err := readHash(f, at)
		if err != nil {
			return tree{}, err
		}
		t.peaks = append(t.peaks, h)
	}
	return t, nil
}

func readHash(f *os.File, at int64) (h tlog.Hash, err error) {
	_, err = f.ReadAt(h[:], at*tlog.HashSize)
	return h, err
}

// storedHashes reads hashes as the file of them has them.
func storedHashes(f *os.File) tlog.HashReader {
	return tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(at))
		for i, at := range at {
			var err error
			if hashes[i], err = readHash(f, at); err != nil {
				return nil, err
			}
		}
		return hashes, nil
	})
}

// A leafReader reads the leaves' hashes from a file of stored hashes in order.
type leafReader struct {
	r *bufio.Reader
	n int64 // the next leaf's number
}

func newLeafReader(f io.ReaderAt, n int64) *leafReader {
	off := tlog.StoredHashIndex(0, n) * tlog.HashSize
	return &leafReader{bufio.NewReaderSize(io.NewSectionReader(f, off, math.MaxInt64-off), 64<<10), n}
}

func (r *leafReader) next() (leaf tlog.Hash, err error) {
	if _, err := io.ReadFull(r.r, leaf[:]); err != nil {
		return leaf, err
	}
	// The subtrees that the leaf completes follow it.
	_, err = r.r.Discard(bits.TrailingZeros64(uint64(r.n)+1) * tlog.HashSize)
	r.n++
	return leaf, err
}
