package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gatepass/broker"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	keepBackoff = 10 * time.Minute // the longest pause between two attempts to tidy up

	// pruneInterval is how long after a segment the next one may be removed,
	// so that a wrong clock costs one and not all; less where segments come so
	// fast that this would not keep up.
	pruneInterval = 24 * time.Hour
)

// keeping is the state of what is done to segments that are not written any
// more. It is the keeper's own.
type keeping struct {
	wake chan struct{} // one place
	done chan struct{}

	upTo     int       // the segments up to this one are compressed, or stay as they are
	began    time.Time // of the first entry in segment beganIn
	beganIn  int
	newest   time.Time // of the newest entry in segment newestIn
	newestIn int
	leaving  *leaving
}

// leaving is the segment that is about to be removed.
type leaving struct {
	nums      []int // with empty ones before it
	tree      tree  // over its entries and those before
	announced int64 // so many entries there are with the one that says so
}

// keepAll compresses and prunes whenever more of the log was signed. It is
// one goroutine, which nobody waits for.
func (l *Log) keepAll() {
	defer close(l.keep.done)
	var backoff time.Duration
	for {
		select {
		case <-l.keep.wake:
		case <-l.ctx.Done():
			return
		}
		err := l.tidy(l.ctx)
		if l.ctx.Err() != nil {
			return
		}
		if err == nil {
			backoff = 0
			continue
		}
		backoff = min(max(2*backoff, checkpointInterval), keepBackoff)
		l.log.Warn("audit log's old segments stay as they are for now", "retry", backoff, "err", err)
		if rest(l.ctx, backoff) == nil {
			l.wakeKeeper()
		}
	}
}

// tidy does the next step of removing the oldest segment if it is due, and
// compresses what can be compressed.
func (l *Log) tidy(ctx context.Context) error {
	l.mu.Lock()
	// The entries below signed are in segments that are never cut again.
	current, next, signed, uncut := l.seg.num, l.next, l.signed, len(l.cuts) > 0
	l.mu.Unlock()
	if uncut || signed == 0 {
		return nil
	}
	// The quick one first: it makes room, and a daemon may not live for long.
	pruned := l.prune(ctx, current, next, signed)
	if pruned != nil {
		pruned = fmt.Errorf("prune: %w", pruned)
	}
	return errors.Join(pruned, l.compressAll(ctx, current, next, signed))
}

// compressAll compresses what is signed of the segments before current.
func (l *Log) compressAll(ctx context.Context, current int, next, signed int64) error {
	if err := l.inPlace(); err != nil {
		return err
	}
	nums, err := listSegments(l.dir)
	if err != nil {
		return err
	}
	for i, num := range nums {
		if num <= l.keep.upTo || num >= current || l.opts.plain {
			continue
		}
		first, end, err := l.span(nums[i:], next)
		if err == nil && end > signed {
			break
		}
		if err == nil && end > first {
			err = l.compressOnce(ctx, num, first, end)
		}
		if err != nil {
			return fmt.Errorf("compress %s: %w", segmentName(num), err)
		}
		l.keep.upTo = num
	}
	return nil
}

// compressOnce compresses a segment unless it is. What is not as it was
// written stays: it is evidence, and the same in a year.
func (l *Log) compressOnce(ctx context.Context, num int, first, end int64) error {
	_, err := os.Stat(filepath.Join(l.dir, segmentName(num)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = l.compress(ctx, num, first, end)
	}
	if errors.Is(err, errNotWritten) {
		l.log.Error("audit log's segment stays uncompressed", "segment", segmentName(num), "err", err)
		return nil
	}
	return err
}

// span returns the numbers of the first entry in the first of the segments
// and of the one after its last; the same where it is empty. next is the
// number of the log's next entry.
func (l *Log) span(nums []int, next int64) (first, end int64, err error) {
	first = -1
	for i, num := range nums {
		seq, ok, err := firstSeq(l.dir, num)
		if err != nil {
			return 0, 0, err
		}
		switch {
		case !ok && i == 0:
			return 0, 0, nil
		case ok && i == 0:
			first = seq
		case ok:
			return first, seq, nil
		}
	}
	return first, next, nil
}

// prune removes the oldest segment once all that is in it is older than
// Options.Keep, in steps: an entry says so, a checkpoint covers that, the edge
// of the tree is written down, the file goes. After a crash in between, it
// begins anew.
func (l *Log) prune(ctx context.Context, current int, next, signed int64) error {
	k := &l.keep
	nums, err := listSegments(l.dir)
	if err != nil {
		return err
	}
	if k.leaving == nil {
		if l.opts.Keep <= 0 {
			return nil
		}
		if k.leaving, err = l.oldest(ctx, nums, current, next, signed); k.leaving == nil {
			return err
		}
		l.wakeSigner()
		return nil // until that is signed
	}
	if signed < k.leaving.announced {
		return nil
	}
	return l.remove(nums)
}

// finishPruning is the last step where the log is closed before it: what was
// announced is signed now.
func (l *Log) finishPruning() {
	l.mu.Lock()
	signed := l.signed
	l.mu.Unlock()
	if l.keep.leaving == nil || signed < l.keep.leaving.announced {
		return
	}
	nums, err := listSegments(l.dir)
	if err == nil {
		err = l.remove(nums)
	}
	if err != nil {
		l.log.Warn("audit log's old segment stays for now", "err", err)
	}
}

// remove removes the segment that is leaving.
func (l *Log) remove(nums []int) error {
	k := &l.keep
	if err := l.inPlace(); err != nil {
		return err
	}
	if err := l.writePruned(nums, k.leaving.tree); err != nil {
		return err
	}
	for _, num := range k.leaving.nums {
		if err := l.removeSegment(num); err != nil {
			return err
		}
		// Before the next goes: what is left is to have no gap.
		if err := l.fs.SyncDir(l.dir); err != nil {
			return err
		}
	}
	l.log.Info("audit log pruned", "entries", k.leaving.tree.n)
	k.leaving = nil
	return nil
}

// oldest returns the oldest segment if it is to go, and has written the entry
// that says so.
//
// The time that counts is not the clock's alone, which may be wrong, but no
// later than that of the first entry in the segment that is being written. So
// a clock that is set forward has to stay so until that is full.
func (l *Log) oldest(ctx context.Context, nums []int, current int, next, signed int64) (*leaving, error) {
	k := &l.keep
	if k.beganIn != current {
		at, err := l.firstTime(current)
		if err != nil || at.IsZero() {
			return nil, err
		}
		k.began, k.beganIn = at, current
	}
	now := l.opts.Now()
	limit := now
	if k.began.Before(now) {
		limit = k.began
	}
	limit = limit.Add(-l.opts.Keep)

	var first, end int64
	n := 0
	for end == first {
		if n == len(nums) || nums[n] >= current {
			return nil, nil
		}
		var err error
		if first, end, err = l.span(nums[n:], next); err != nil {
			return nil, err
		}
		n++
	}
	num := nums[n-1]
	if end > signed || k.newestIn == num && !k.newest.Before(limit) {
		return nil, nil
	}
	trees, err := readPruned(l.dir)
	if err != nil {
		return nil, err
	}
	if i := len(trees) - 1; i >= 0 && trees[i].n != end {
		interval := min(pruneInterval, l.opts.Keep/time.Duration(2*len(nums)))
		if ago := now.Sub(trees[i].at); 0 <= ago && ago < interval {
			return nil, nil
		}
	}
	if at, err := l.firstTime(num); err != nil || !at.Before(limit) {
		return nil, err
	}

	t, newest, err := l.readWhole(ctx, nums, num, end)
	if err != nil {
		return nil, err
	}
	k.newest, k.newestIn = newest, num
	if !newest.Before(limit) {
		return nil, nil
	}
	if err := l.checkEdge(t); err != nil {
		return nil, err
	}
	e := broker.Event{Kind: broker.EventLogPruned, Outcome: broker.OutcomeOK, Reason: pruning{t.n, t.root()}.String()}
	upTo, err := l.append(ctx, &e, true)
	if err != nil {
		return nil, err
	}
	return &leaving{nums: nums[:n], tree: t, announced: upTo}, nil
}

// firstTime returns the time of a segment's first entry, zero without one.
func (l *Log) firstTime(num int) (time.Time, error) {
	in, err := newLineReader(l.dir, num, 0)
	if err != nil {
		return time.Time{}, err
	}
	defer in.Close()
	line, err := in.next()
	if err == io.EOF {
		return time.Time{}, nil
	}
	return parseTime(line), err
}

// readWhole reads the oldest segment, num, and returns the tree over the
// entries before end and the newest time in it.
func (l *Log) readWhole(ctx context.Context, nums []int, num int, end int64) (t tree, newest time.Time, err error) {
	t, err = beforeSegments(l.dir, nums)
	if err != nil {
		return t, newest, err
	}
	in, err := newLineReader(l.dir, num, 0)
	if err != nil {
		return t, newest, err
	}
	defer in.Close()
	var p pace
	for {
		line, err := in.next()
		if err == io.EOF && len(line) == 0 && t.n == end {
			return t, newest, nil
		}
		if err != nil {
			return t, newest, fmt.Errorf("read entry %d: %w", t.n, err)
		}
		if at := parseTime(line); at.After(newest) {
			newest = at
		}
		t.add(tlog.RecordHash(line))
		if err := p.at(ctx, in.off); err != nil {
			return t, newest, err
		}
	}
}

// checkEdge makes sure that what is about to be written down as the edge of
// the tree leads to the tree that is signed: once the entries are gone, there
// is nothing to make it from.
func (l *Log) checkEdge(t tree) error {
	f, err := os.Open(filepath.Join(l.dir, hashesName))
	if err != nil {
		return err
	}
	defer f.Close()
	l.treeMu.Lock()
	now := l.tree.clone()
	l.treeMu.Unlock()
	if !continues(storedHashes(f), now.n, now.root(), t.n, t.root()) {
		return fmt.Errorf("the first %d entries do not lead to the head of all %d, by the file %s", t.n, now.n, hashesName)
	}
	return nil
}

// writePruned writes down the edge of the tree, beside the one that counts
// until the segment is removed.
func (l *Log) writePruned(nums []int, t tree) error {
	before, err := beforeSegments(l.dir, nums)
	if err != nil {
		return err
	}
	now := l.opts.Now()
	var b []byte
	if 0 < before.n && before.n < t.n {
		b = (&prunedTree{before, now}).append(b)
	}
	b = (&prunedTree{t, now}).append(b)
	if err := writeFile(l.fs, l.dir, filepath.Join(l.dir, prunedName), b); err != nil {
		return err
	}
	// With the entries gone, nothing else leads to the signed heads.
	trees, err := readPruned(l.dir)
	if err == nil && (len(trees) == 0 || trees[len(trees)-1].root() != t.root()) {
		err = errPruned
	}
	return err
}

// removeSegment removes a segment, in both forms and half compressed, and what
// was cut out of it.
func (l *Log) removeSegment(num int) error {
	files, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if segmentNumber(strings.TrimSuffix(f.Name(), ".tmp")) != num && !strings.HasPrefix(f.Name(), cutName(num, "")) {
			continue
		}
		if err := l.fs.Remove(filepath.Join(l.dir, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
