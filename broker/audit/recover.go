package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gatepass/broker"

	"golang.org/x/mod/sumdb/tlog"
)

// recover brings the log to where the next entry can be written, and returns
// what it had to mend, "" for nothing. Where no mending was needed it reads
// the last checkpoint, the hashes of the tree's edge, and the entries that
// the checkpoint does not cover.
func (l *Log) recover(ctx context.Context) (mended string, err error) {
	r := &recovery{Log: l}
	if err := r.run(ctx); err != nil {
		if e, ok := errors.AsType[*broker.Error](err); ok {
			return "", e
		}
		if unreadable(err) {
			return "", r.damaged("%v", err)
		}
		if ctx.Err() != nil {
			return "", err
		}
		return "", unwritable(l.dir, err)
	}
	return strings.Join(r.mended, "; "), nil
}

type recovery struct {
	*Log
	mended []string
	segs   []int // numbers of the segments
	pruned tree  // over the entries that were removed before them
	skip   int64 // bytes at the start of the next segment that were read in this one
}

// A place is where a line begins.
type place struct {
	seg int   // index in segs
	off int64 // bytes
}

func (r *recovery) run(ctx context.Context) (err error) {
	if r.segs, err = listSegments(r.dir); err != nil {
		return err
	}
	r.pruned, err = beforeSegments(r.dir, r.segs)
	if err == errNoFirst || err == errPruned {
		return r.damaged("%v", err)
	}
	if err != nil {
		return err
	}
	for i, num := range r.segs {
		if num != r.segs[0]+i {
			return r.damaged("the segment %s is missing", segmentName(r.segs[0]+i))
		}
	}
	if err := r.lastCheckpoint(); err != nil {
		return err
	}
	var signed int64
	if r.sign.last != nil {
		signed = r.sign.last.size
	}
	r.signed = signed
	if r.pruned.n > 0 && signed <= r.pruned.n {
		return r.damaged("%d entries were removed, but checkpoints cover %d", r.pruned.n, signed)
	}
	if len(r.segs) == 0 {
		if signed > 0 {
			return r.damaged("a checkpoint covers %d entries, but there is no segment", signed)
		}
		f, err := r.createSegment(1)
		if err != nil {
			return err
		}
		r.seg = segment{num: 1, f: f}
		return r.hashes.open(r.fs, r.dir, 0)
	}

	at, err := r.edge(ctx, signed)
	if err != nil {
		return err
	}
	stored := tlog.StoredHashCount(signed) * tlog.HashSize
	if err := r.hashes.open(r.fs, r.dir, stored); err != nil {
		return err
	}
	if err := r.tail(ctx, at); err != nil {
		return err
	}
	return r.hashes.flush()
}

// damaged is for what a checkpoint says was otherwise.
func (l *Log) damaged(format string, args ...any) error {
	return broker.Errorf(broker.CodeData, "open the audit log in %s: %s", l.dir, fmt.Sprintf(format, args...)).
		WithHint("gatepass audit verify tells what else was changed; to begin a new log, move %s away and keep it as evidence", l.dir)
}

func (r *recovery) mend(format string, args ...any) {
	r.mended = append(r.mended, fmt.Sprintf(format, args...))
}

// lastCheckpoint finds the last checkpoint and cuts off a torn one after it.
func (r *recovery) lastCheckpoint() error {
	f, size, err := openCheckpoints(r.dir)
	if f == nil {
		return err
	}
	defer f.Close()
	last, end, whole, err := lastCheckpoint(f, size)
	if err != nil {
		if errors.Is(err, errCheckpoint) {
			return r.damaged("the end of the file %s: %v", checkpointsName, err)
		}
		return err
	}
	if end < size {
		if err := r.cutFile(checkpointsName, end); err != nil {
			return err
		}
		r.mend("cut %d bytes of an unfinished checkpoint", size-end)
	}
	if last != nil {
		r.sign.found = last.note
		if whole {
			r.sign.found = append(slices.Clone(last.note), '\n')
		}
	}
	if !whole {
		r.sign.lead = []byte("\n")
	}
	r.sign.last, r.sign.off = last, end
	return nil
}

// edge loads the tree over the signed entries and finds where the first
// unsigned one begins. The hash file is believed when it leads to the signed
// head and to the last signed line; else all is read again.
func (r *recovery) edge(ctx context.Context, signed int64) (place, error) {
	if signed == 0 {
		return place{}, nil
	}
	at, last, err := r.locate(signed)
	if err != nil {
		return at, err
	}
	f, err := os.Open(filepath.Join(r.dir, hashesName))
	if err == nil {
		defer f.Close()
		var leaf tlog.Hash
		if r.tree, err = readPeaks(f, signed); err == nil {
			leaf, err = readHash(f, tlog.StoredHashIndex(0, signed-1))
		}
		if err == nil && r.tree.root() == r.sign.last.root && leaf == tlog.RecordHash(last) {
			return at, nil
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && err != io.EOF && err != io.ErrUnexpectedEOF {
		return at, err
	}
	if err := r.rebuild(ctx, signed); err != nil {
		return at, err
	}
	r.mend("computed the file %s again", hashesName)
	return at, nil
}

// locate finds the end of the signed entries from the end of the log, and
// returns the last of them.
func (r *recovery) locate(signed int64) (at place, last []byte, err error) {
	i := len(r.segs) - 1
	for ; i > 0; i-- {
		first, ok, err := firstSeq(r.dir, r.segs[i])
		if err != nil {
			return at, nil, err
		}
		if ok && first < signed {
			break
		}
	}
	b, err := newBackReader(r.dir, r.segs[i])
	if err != nil {
		return at, nil, err
	}
	defer b.Close()
	for end := int64(-1); ; {
		line, start, err := b.prev()
		if err != nil && err != io.EOF {
			return at, nil, err
		}
		h, herr := parseHead(line)
		if err == io.EOF || end >= 0 && herr == nil && h.seq < signed-1 {
			return at, nil, r.damaged("a checkpoint covers %d entries, but entry %d is not where it should be, in %s", signed, signed-1, segmentName(r.segs[i]))
		}
		// The line before end is whole: a newline follows it.
		if end >= 0 && herr == nil && h.seq == signed-1 {
			return place{i, end}, slices.Clone(line), nil
		}
		end = start
	}
}

// tail reads the unsigned entries from at on, adds them to the tree, and
// mends what a crash may leave there: a torn last line; lines at the end of a
// segment that a repair has moved to the next one, whole or in part.
func (r *recovery) tail(ctx context.Context, at place) error {
	r.next = r.tree.n
	first := at.seg
	for i := first; i < len(r.segs); i++ {
		off := r.skip
		if r.skip = 0; i == first {
			off = at.off
		}
		end, err := r.tailSegment(ctx, i, off)
		if err != nil {
			return err
		}
		last := i == len(r.segs)-1
		if !last {
			continue
		}
		if r.compressed(i) { // and what came after it is gone
			f, err := r.createSegment(r.segs[i] + 1)
			if err != nil {
				return err
			}
			r.seg = segment{num: r.segs[i] + 1, f: f}
			continue
		}
		f, err := r.fs.OpenFile(r.segPath(i), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		r.seg = segment{num: r.segs[i], f: f, size: end, synced: end}
	}
	for i := first; i < len(r.segs); i++ {
		if r.compressed(i) {
			continue
		}
		off := int64(0)
		if i == first {
			off = at.off
		}
		if err := r.rewrite(segmentName(r.segs[i]), off); err != nil {
			return err
		}
	}
	return r.fs.SyncDir(r.dir)
}

// rewrite brings a file to disk from off on: what the last run wrote may be in
// memory only. It is written again, in its place: where a sync failed in that
// run, the kernel may take for written what is not, and would not sync it.
func (r *recovery) rewrite(name string, off int64) error {
	in, err := os.Open(filepath.Join(r.dir, name))
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := r.fs.OpenFile(filepath.Join(r.dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := in.ReadAt(buf, off)
		if n > 0 {
			if err := writeAt(out, buf[:n], off); err != nil {
				return err
			}
			off += int64(n)
		}
		if err == io.EOF {
			return out.Sync()
		}
		if err != nil {
			return err
		}
	}
}

func (r *recovery) segPath(i int) string { return filepath.Join(r.dir, segmentName(r.segs[i])) }

// compressed reports whether segment i is on disk and final.
func (r *recovery) compressed(i int) bool {
	_, err := os.Lstat(r.segPath(i))
	return errors.Is(err, fs.ErrNotExist)
}

// tailSegment reads one segment of the tail and returns where its entries
// end.
func (r *recovery) tailSegment(ctx context.Context, i int, off int64) (end int64, err error) {
	in, err := newLineReader(r.dir, r.segs[i], off)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	for {
		line, err := in.next()
		if err == io.EOF && len(line) == 0 {
			break
		}
		what := ""
		switch {
		case err == io.EOF:
			what = "has no end"
		case err == errLong:
			what = err.Error()
		case err != nil:
			return 0, err
		default:
			h, err := checkLine(line)
			if err != nil {
				what = err.Error()
			} else if h.seq != r.next {
				what = fmt.Sprintf("says that it is entry %d", h.seq)
			}
		}
		if what != "" {
			if err := r.cutTail(i, off, what); err != nil {
				return 0, err
			}
			break
		}
		r.hashes.pending = r.tree.push(tlog.RecordHash(line), r.hashes.pending)
		if len(r.hashes.pending) > maxPendingHashes {
			if err := cmp.Or(r.hashes.flush(), ctx.Err()); err != nil {
				return 0, err
			}
		}
		r.next++
		off = in.off
	}
	if i+1 == len(r.segs) {
		return off, nil
	}
	// Does the next segment go on where this one ends?
	f, ok, err := firstSeq(r.dir, r.segs[i+1])
	if err != nil || !ok || f == r.next {
		return off, err
	}
	if f > r.next {
		return 0, r.damaged("%s begins with entry %d, not %d", segmentName(r.segs[i+1]), f, r.next)
	}
	return off, r.overlap(i, f)
}

// cutTail deals with the bytes of segment i from off on, which are not the
// entry that is next. A torn line goes; more than one line is kept beside the
// log, since it may tell somebody something.
func (r *recovery) cutTail(i int, off int64, what string) error {
	if r.compressed(i) {
		return r.damaged("what should be entry %d, at byte %d of %s, %s", r.next, off, segmentName(r.segs[i]), what)
	}
	if i+1 < len(r.segs) {
		f, ok, err := firstSeq(r.dir, r.segs[i+1])
		if err != nil {
			return err
		}
		// Only what goes on in the next segment, or what a repair has copied
		// there or was about to, may be cut off.
		if repaired := ok && f < r.next || !ok && i+2 == len(r.segs); f != r.next && !repaired {
			return r.damaged("what should be entry %d, at byte %d of %s, %s", r.next, off, segmentName(r.segs[i]), what)
		}
	}
	rest, err := os.ReadFile(r.segPath(i))
	if err != nil {
		return err
	}
	rest = rest[off:]
	if bytes.IndexByte(rest, '\n') < 0 {
		r.mend("cut %d bytes of an unfinished line in %s, where entry %d should be", len(rest), segmentName(r.segs[i]), r.next)
	} else {
		aside := cutName(r.segs[i], strconv.FormatInt(r.next, 10))
		if err := writeFile(r.fs, r.dir, filepath.Join(r.dir, aside), rest); err != nil {
			return err
		}
		r.mend("moved %d bytes from %s, where entry %d should be, to the file %s: the line %s", len(rest), segmentName(r.segs[i]), r.next, aside, what)
	}
	return r.cutFile(segmentName(r.segs[i]), off)
}

// overlap mends what is left when a repair was interrupted, or could not cut
// the old segment: the one after segment i, which begins with entry f, repeats
// its last lines. Where it has all of them, it is the one that stays: the old
// one could not be synced, and what is read of it may be in memory alone.
func (r *recovery) overlap(i int, f int64) error {
	old, err := os.ReadFile(r.segPath(i))
	if err != nil {
		return err
	}
	copied, err := os.ReadFile(r.segPath(i + 1))
	if err != nil {
		return err
	}
	from := bytes.LastIndex(old, fmt.Appendf(nil, "\n%s%d,", headSeq, f)) + 1
	if from == 0 && !bytes.HasPrefix(old, fmt.Appendf(nil, "%s%d,", headSeq, f)) || f < r.signed {
		return r.damaged("%s begins with entry %d, not %d", segmentName(r.segs[i+1]), f, r.next)
	}
	moved, whole := old[from:], wholeEntries(copied, f)
	rest := copied[len(whole):]
	switch {
	case bytes.HasPrefix(whole, moved):
		if err := r.rewrite(segmentName(r.segs[i+1]), 0); err != nil {
			return err
		}
		if err := r.cutFile(segmentName(r.segs[i]), int64(from)); err != nil {
			return err
		}
		r.skip = int64(len(moved))
		r.mend("cut %d lines of %s that %s repeats", bytes.Count(moved, []byte("\n")), segmentName(r.segs[i]), segmentName(r.segs[i+1]))
	case bytes.HasPrefix(moved, whole) && i+2 == len(r.segs):
		// The copy was not finished: nobody was told of it.
		if bytes.IndexByte(rest, '\n') < 0 {
			if err := r.fs.Remove(r.segPath(i + 1)); err != nil {
				return err
			}
			r.mend("removed the unfinished copy %s of %d lines", segmentName(r.segs[i+1]), bytes.Count(moved, []byte("\n")))
		} else {
			aside := cutName(r.segs[i+1], strconv.FormatInt(f, 10))
			if err := r.fs.Rename(r.segPath(i+1), filepath.Join(r.dir, aside)); err != nil {
				return err
			}
			r.mend("moved the unfinished copy %s of %d lines to the file %s", segmentName(r.segs[i+1]), bytes.Count(moved, []byte("\n")), aside)
		}
		r.segs = r.segs[:i+1]
	default:
		return r.damaged("%s and %s both have an entry %d", segmentName(r.segs[i]), segmentName(r.segs[i+1]), f)
	}
	return nil
}

// wholeEntries returns the entries at the start of b, from number seq on.
// Something else may follow: of lines that were not synced, a power cut leaves
// any part.
func wholeEntries(b []byte, seq int64) []byte {
	for end := 0; ; seq++ {
		line, _, ok := bytes.Cut(b[end:], []byte("\n"))
		if h, err := checkLine(line); !ok || err != nil || h.seq != seq {
			return b[:end]
		}
		end += len(line) + 1
	}
}
