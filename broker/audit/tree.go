package audit

import (
	"crypto/sha256"

	"golang.org/x/mod/sumdb/tlog"
)

// A tree is the right edge of an RFC 6962 Merkle tree: the roots of its
// complete subtrees, largest first. It is all that is needed to add leaves
// and to compute the head, and takes one hash per set bit of n.
type tree struct {
	n     int64
	peaks []tlog.Hash
}

// push adds a leaf and appends to stored the hashes that it completes, in the
// order of [tlog.StoredHashIndex].
func (t *tree) push(leaf tlog.Hash, stored []byte) []byte {
	stored = append(stored, leaf[:]...)
	for n := t.n; n&1 == 1; n >>= 1 {
		last := len(t.peaks) - 1
		leaf = tlog.NodeHash(t.peaks[last], leaf)
		t.peaks = t.peaks[:last]
		stored = append(stored, leaf[:]...)
	}
	t.peaks = append(t.peaks, leaf)
	t.n++
	return stored
}

// add is push for those who keep no stored hashes.
func (t *tree) add(leaf tlog.Hash) {
	for n := t.n; n&1 == 1; n >>= 1 {
		last := len(t.peaks) - 1
		leaf = tlog.NodeHash(t.peaks[last], leaf)
		t.peaks = t.peaks[:last]
	}
	t.peaks = append(t.peaks, leaf)
	t.n++
}

// root returns the head of the tree.
func (t *tree) root() tlog.Hash {
	if t.n == 0 {
		return tlog.Hash(sha256.Sum256(nil))
	}
	last := len(t.peaks) - 1
	h := t.peaks[last]
	for i := last - 1; i >= 0; i-- {
		h = tlog.NodeHash(t.peaks[i], h)
	}
	return h
}

func (t *tree) clone() tree {
	return tree{n: t.n, peaks: append([]tlog.Hash(nil), t.peaks...)}
}

// peakIndexes returns where a file of stored hashes keeps the peaks of the
// tree with n leaves.
func peakIndexes(n int64) []int64 {
	var at []int64
	for lo, level := int64(0), 62; level >= 0; level-- {
		if size := int64(1) << level; n&size != 0 {
			at = append(at, tlog.StoredHashIndex(level, lo>>level))
			lo += size
		}
	}
	return at
}

// continues reports whether the tree of size leaves with that root has, as
// its first n leaves, those of the tree with root old.
func continues(r tlog.HashReader, size int64, root tlog.Hash, n int64, old tlog.Hash) bool {
	if n == 0 {
		return old == (&tree{}).root()
	}
	if n > size {
		return false
	}
	p, err := tlog.ProveTree(size, n, r)
	return err == nil && tlog.CheckTree(p, size, root, n, old) == nil
}

// leafHash returns SHA-256(0x00 ‖ line). It writes over the byte before line:
// buf[start-1] must be the caller's to lose.
func leafHash(buf []byte, start, end int) tlog.Hash {
	buf[start-1] = 0
	return sha256.Sum256(buf[start-1 : end])
}
