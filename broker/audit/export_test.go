package audit

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The seams that tests reach through.

type (
	FileSystem = fileSystem
	File       = file
	OSFS       = osFS
)

func (o Options) WithFS(fsys FileSystem) Options {
	o.fs = fsys
	return o
}

// Plain has closed segments stay uncompressed.
func (o Options) Plain() Options {
	o.plain = true
	return o
}

var (
	MaskCommand  = maskCommand
	AppendString = appendString
)

// EntriesBy is Entries with stretches of size bytes.
func EntriesBy(ctx context.Context, dir string, q Query, size int64) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		r := newReader(ctx, dir)
		r.size, r.apart = size, size
		r.yield(q, yield)
	}
}

const (
	MaxPending = maxPending
	MaxString  = maxString
)

// Abandon is the end of the process without Close: what is in memory is lost,
// the lock is free.
func Abandon(l *Log) {
	l.mu.Lock()
	l.closed = true
	l.batch.lines, l.batch.written, l.unwritten = nil, 0, nil
	l.broken = nil
	l.timer.Stop()
	l.mu.Unlock()
	l.cancel()
	<-l.growerDone
	<-l.signerDone
	<-l.anchor.done
	<-l.keep.done
	<-l.alarm.done
	l.closeFiles()
	close(l.gone)
}

// RewriteProof reads a proof and writes it again.
func RewriteProof(b []byte) ([]byte, error) {
	p, err := parseProof(b)
	if err != nil {
		return nil, err
	}
	return p.marshal(), nil
}

// ForgeProof proves that a log of one leaf has it; "" is the signer's own.
func ForgeProof(leaf []byte, signer, origin string) []byte {
	s, err := note.NewSigner(signer)
	if err != nil {
		panic(err)
	}
	msg, err := note.Sign(&note.Note{Text: checkpointText(cmp.Or(origin, s.Name()), 1, tlog.RecordHash(leaf))}, s)
	if err != nil {
		panic(err)
	}
	return proof{extra: leaf, checkpoint: checkpoint{note: msg}}.marshal()
}

// ForgeHead is a checkpoint as msg, of other entries.
func ForgeHead(msg []byte, signer string) []byte {
	s, err := note.NewSigner(signer)
	if err != nil {
		panic(err)
	}
	c, _, err := nextCheckpoint(msg)
	if err != nil {
		panic(err)
	}
	msg, err = note.Sign(&note.Note{Text: checkpointText(c.origin, c.size, tlog.RecordHash(nil))}, s)
	if err != nil {
		panic(err)
	}
	return msg
}

// CheckContinues holds each head of a log that has the file of hashes and so
// many entries against each earlier one, and against wrong ones.
func CheckContinues(hashes string, entries int64) error {
	f, err := os.Open(hashes)
	if err != nil {
		return err
	}
	defer f.Close()
	stored := storedHashes(f)
	root := func(n int64) tlog.Hash {
		t, rerr := readPeaks(f, n)
		if rerr != nil {
			err = rerr
		}
		return t.root()
	}
	for size := range entries + 1 {
		for n := range entries + 1 {
			right := continues(stored, size, root(size), n, root(n))
			wrong := continues(stored, size, root(size), n, root((n+1)%(entries+1))) || n > 0 && continues(stored, size, root((size+1)%(entries+1)), n, root(n))
			if err != nil || right != (n <= size) || wrong {
				return fmt.Errorf("%d entries continue %d: %v, and of others: %v, %v", size, n, right, wrong, err)
			}
		}
	}
	return nil
}

// ReadCompressed returns the lines of a compressed segment.
func ReadCompressed(name string) ([]byte, error) {
	s, err := openCompressed(name)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	size, err := s.size()
	if err != nil {
		return nil, err
	}
	all := make([]byte, size)
	_, err = s.ReadAt(all, 0)
	return all, err
}

// ForgePruned returns what the file pruned would be if the segments before num
// were removed.
func ForgePruned(dir string, num int) ([]byte, error) {
	n, _, err := firstSeq(dir, num)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(dir, hashesName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := readPeaks(f, n)
	p := prunedTree{tree: t}
	return p.append(nil), err
}

// Tidy does what the keeper does, while that has nothing to do.
func Tidy(l *Log) error { return l.tidy(l.ctx) }
