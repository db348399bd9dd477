package audit

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// syncer brings batches to disk until Close.
func (l *Log) syncer() {
	defer close(l.synced)
	for {
		select {
		case <-l.wake:
			l.gather()
			l.commit()
		case <-l.ctx.Done():
			l.commit()
			return
		}
	}
}

// gather lets the writers whose entries the last sync brought to disk come
// back with their next ones, as those in a loop do, so that they share one
// sync instead of falling into two groups that wait for each other. It gives
// up after a quarter of what a sync takes.
func (l *Log) gather() {
	if l.released < 2 {
		return
	}
	start := time.Now()
	// The count bounds it where time stands still (testing/synctest).
	for range 1000 {
		// Only this goroutine changes which batch is open.
		if int(l.batch.waiters.Load()) >= l.released || time.Since(start) > l.lastSync/4 {
			return
		}
		runtime.Gosched()
	}
}

// commit syncs what was written, begins a new segment if one is wanted,
// repairs if that is needed, and tells those who wait.
func (l *Log) commit() {
	l.mu.Lock()
	b := l.batch
	if len(b.lines) == 0 && b.waiters.Load() == 0 && len(l.cuts) == 0 {
		l.mu.Unlock()
		return
	}
	l.flushLocked()
	l.batch = &batch{done: make(chan struct{})}
	l.timer.Stop()
	l.waiting = false
	seg, full, err := l.seg, l.full, l.broken
	l.mu.Unlock()

	lines := b.lines
	if err == nil && len(lines) > 0 {
		start := time.Now()
		err = seg.f.Sync()
		l.lastSync = time.Since(start)
	}
	if err != nil {
		lines = l.repair(b, err)
	} else {
		l.mu.Lock()
		l.seg.synced = seg.size
		l.mu.Unlock()
		if full {
			b.room = l.turn()
		}
		l.released = int(b.waiters.Load() + l.batch.waiters.Load())
		close(b.done)
	}
	l.finishCuts()
	if len(lines) > 0 {
		l.synced <- lines
	}
}

// turn begins the next segment. No writer is in the old one: they wait while
// full is set, and all of their lines are synced.
func (l *Log) turn() error {
	old := l.seg
	f, err := l.nextSegment(old)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = false
	if err != nil {
		// Here, not by those who wait: by when they hear of it, it may be over.
		err = unwritable(l.dir, err)
		l.failLocked(err)
		return err
	}
	old.f.Close()
	l.seg = segment{num: old.num + 1, f: f}
	return nil
}

// nextSegment makes the segment after old, if that is still in its place: else
// it would begin in whatever directory took the log's.
func (l *Log) nextSegment(old segment) (file, error) {
	if err := old.f.InPlace(); err != nil {
		return nil, err
	}
	return l.createSegment(old.num + 1)
}

// createSegment makes an empty segment whose name survives a crash.
func (l *Log) createSegment(num int) (file, error) {
	name := filepath.Join(l.dir, segmentName(num))
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if l.made == num {
		// A failed attempt may have left it behind, with anything in it.
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := l.fs.OpenFile(name, flags, 0o600)
	if !errors.Is(err, fs.ErrExist) {
		l.made = num
	}
	if err != nil {
		return nil, err
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		f.Close()
		l.fs.Remove(name)
		return nil, err
	}
	return f, nil
}

// repair is for a segment whose descriptor is not to be trusted, because
// fsync failed (the kernel may have dropped what it could not write, and will
// not say so again) or because a torn line could not be cut off. The lines
// that are not known to be on disk, b's and those written since, go to a new
// segment, and the old one is cut where they began. It returns the lines that
// are on disk now.
func (l *Log) repair(b *batch, cause error) (lines []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	later := l.batch
	l.batch = &batch{done: make(chan struct{})}
	lines = append(b.lines, later.lines...)

	err := l.moveLocked(lines)
	if err != nil {
		l.broken = cause
		l.batch.lines, l.batch.written = lines, len(lines)
		lines = nil
		err = unwritable(l.dir, err)
		l.failLocked(err)
		l.log.Error("audit log cannot be written", "segment", segmentName(l.seg.num), "cause", cause, "err", err)
		l.repairIn = min(max(2*l.repairIn, syncDelay), repairBackoff)
		if len(l.batch.lines) > 0 && !l.closed {
			l.waiting = true
			l.timer.Reset(l.repairIn)
		}
	} else {
		l.log.Warn("audit log moved to a new segment", "segment", segmentName(l.seg.num), "cause", cause)
		l.broken, l.full = nil, false
		l.failLocked(nil)
		l.repairIn = 0
	}
	l.writtenLocked(0, err) // moved or kept with the others
	for _, b := range []*batch{b, later} {
		b.err, b.room = err, err
		close(b.done)
	}
	return lines
}

// moveLocked makes a new segment of lines.
func (l *Log) moveLocked(lines []byte) error {
	old := l.seg
	f, err := l.nextSegment(old)
	if err != nil {
		return err
	}
	err = writeAt(f, lines, 0)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Close()
		l.fs.Remove(filepath.Join(l.dir, segmentName(old.num+1)))
		return err
	}
	// From here on the lines are on disk, and the new segment is the log's.
	old.f.Close()
	l.seg = segment{num: old.num + 1, f: f, size: int64(len(lines)), synced: int64(len(lines))}
	l.cuts = append(l.cuts, cut{old.num, old.synced})
	return nil
}

// finishCuts takes out of old segments what repairs have moved. Until that
// has worked, no checkpoint is signed, so that what one covers never has such
// a piece.
func (l *Log) finishCuts() {
	l.mu.Lock()
	cuts := l.cuts
	l.mu.Unlock()
	if len(cuts) == 0 {
		return
	}
	var left []cut
	for _, c := range cuts {
		err := l.inPlace()
		if err == nil {
			err = l.cutFile(segmentName(c.num), c.to)
		}
		if err != nil {
			l.log.Warn("audit log keeps moved lines in an old segment", "segment", segmentName(c.num), "err", err)
			left = append(left, c)
		}
	}
	l.mu.Lock()
	l.cuts = left // only the syncer adds to them
	l.mu.Unlock()
	if len(left) == 0 {
		l.wakeSigner()
	}
}

// cutFile shortens one of the log's files through a descriptor of its own.
func (l *Log) cutFile(name string, to int64) error {
	f, err := l.fs.OpenFile(filepath.Join(l.dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(to); err != nil {
		return err
	}
	return f.Sync()
}

// grow adds synced lines to the tree and their hashes to the hash file. It
// has a goroutine of its own, so that this is done while the next lines are
// on their way to the disk.
func (l *Log) grow() {
	defer close(l.growerDone)
	var leaf []byte // 0x00 and a line, to be hashed
	for lines := range l.synced {
		t := l.tree.clone() // nobody else changes it
		for rest := lines; len(rest) > 0; {
			end := bytes.IndexByte(rest, '\n')
			leaf = append(append(leaf[:0], 0), rest[:end]...)
			l.hashes.pending = t.push(leafHash(leaf, 1, 1+end), l.hashes.pending)
			rest = rest[end+1:]
		}
		if err := l.hashes.flush(); err != nil {
			l.log.Warn("audit log's hash file cannot be written; it will be rebuilt", "err", err)
		}
		// Who sees the tree is to find its hashes in the file.
		l.treeMu.Lock()
		l.tree = t
		l.treeMu.Unlock()
		l.wakeSigner()

		// What a burst has made large goes when there is less to do.
		if keep := 4 * max(len(lines), 16<<10); cap(lines) <= min(keep, maxPending) {
			l.mu.Lock()
			// One is filled while another is on its way to the disk.
			if len(l.spare) < 2 {
				l.spare = append(l.spare, lines[:0])
			}
			l.mu.Unlock()
		}
	}
}
