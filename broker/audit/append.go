package audit

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"sync/atomic"

	"gatepass/broker"
)

// A batch is a run of lines that one sync brings to disk.
type batch struct {
	lines   []byte // whole lines, newlines included
	written int    // bytes of them that are in the file
	waiters atomic.Int32
	done    chan struct{} // closed once err and room are final
	err     error         // the lines are not known to be on disk
	room    error         // there is no segment to write to
}

var errClosed = errors.New("the log is closed")

// Append numbers, stamps and writes the entry. When it returns nil, write(2)
// has taken the entry, so that it survives the end of this process however it
// comes; if durable, it is on disk as well. Others reach the disk within a
// second.
//
// An error is a [broker.CodeLogUnwritable], or ctx's while it waited for the
// disk. Then nothing may be released, though the entry can still turn up in
// the log: the log may tell of more than was done, never of less. The next
// call tries again, so a log whose disk has room again just works.
func (l *Log) Append(ctx context.Context, e broker.Event, durable bool) error {
	if e.Kind == broker.EventLogLinked || e.Kind == broker.EventLogPruned {
		return broker.Errorf(broker.CodeInternal, "write the audit log: %s is the log's own event", e.Kind)
	}
	_, err := l.append(ctx, &e, durable)
	return err
}

// append is Append for the log's own events as well. It returns how many
// entries the log has up to this one.
func (l *Log) append(ctx context.Context, e *broker.Event, durable bool) (upTo int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	x := l.events.Get().(*encoder)
	x.encode(e, &l.commands)

	l.mu.Lock()
	if err := l.makeRoomLocked(ctx, len(x.b)); err != nil {
		l.mu.Unlock()
		l.events.Put(x)
		return 0, err
	}
	b := l.addLocked(x)
	upTo = l.next
	leads := !durable && l.flushed == nil
	if leads {
		l.flushed = make(chan struct{})
	}
	flushed := l.flushed
	if durable {
		b.waiters.Add(1)
	}
	wake := durable || len(b.lines) >= syncBytes
	if !wake && !l.waiting {
		l.waiting = true
		l.timer.Reset(syncDelay)
	}
	l.mu.Unlock()
	if wake {
		l.wakeSyncer()
	}
	switch {
	case durable:
		if err := wait(ctx, b); err != nil {
			return 0, err // and x is not ours to give back
		}
	case leads:
		l.flush()
	default:
		<-flushed
	}
	err = x.err
	if err == nil && durable {
		err = b.err
	}
	l.events.Put(x)
	return upTo, err
}

// makeRoomLocked waits until n bytes can be written: for a repair, a new
// segment, or a disk that is far behind. It lets go of mu while it waits.
func (l *Log) makeRoomLocked(ctx context.Context, n int) error {
	for {
		if l.closed {
			return unwritable(l.dir, errClosed)
		}
		size := l.seg.size + int64(len(l.batch.lines)-l.batch.written)
		tooLong := size > 0 && size+int64(n) > l.opts.SegmentSize
		if l.broken == nil && !tooLong && !l.full && len(l.batch.lines) < maxPending {
			return nil
		}
		l.full = l.full || l.broken == nil && tooLong
		b := l.batch
		b.waiters.Add(1)
		l.mu.Unlock()
		l.wakeSyncer()
		err := wait(ctx, b)
		if err == nil {
			err = b.room
		}
		l.mu.Lock()
		if err != nil {
			return err
		}
	}
}

// addLocked gives the entry its place in the log. It is not written yet: one
// write serves all who wait together.
func (l *Log) addLocked(x *encoder) *batch {
	b := l.batch
	if n := len(l.spare); b.lines == nil && n > 0 {
		b.lines, l.spare = l.spare[n-1], l.spare[:n-1]
	}
	x.err = nil
	b.lines = append(b.lines, x.line(l.next, l.opts.Now())...)
	l.next++
	l.unwritten = append(l.unwritten, x)
	return b
}

// flush writes what was added, by the writer who came first for all who have
// come by then. He lets those go first who are about to add an entry; when
// nobody is, he waits for nothing.
func (l *Log) flush() {
	runtime.Gosched()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushLocked()
	close(l.flushed)
	l.flushed = nil
}

// flushLocked writes what was added. When that fails, the entries that are not
// in the file whole are taken back, and their writers find the error in their
// encoders; what the write left of them is cut off again, so that the next one
// begins where they did. Those that are whole stay, since a reader may have
// seen them. Where the rest cannot be cut off, that stays too, since it may be in
// the file: other entries with its numbers would make two logs of it.
func (l *Log) flushLocked() {
	b := l.batch
	lines := b.lines[b.written:]
	if len(lines) == 0 {
		return
	}
	n := 0
	err := l.seg.f.InPlace()
	wrote := err == nil
	if wrote {
		n, err = writeSome(l.seg.f, lines, l.seg.size)
	}
	whole := lines[:bytes.LastIndexByte(lines[:n], '\n')+1]
	l.seg.size += int64(len(whole))
	b.written += len(whole)
	if err == nil {
		l.failLocked(nil)
		l.writtenLocked(len(l.unwritten), nil)
		return
	}
	if wrote {
		// What is at the end of the segment is not known, if this fails,
		// so the next entry goes to another one.
		l.broken = l.seg.f.Truncate(l.seg.size)
	}
	kept := bytes.Count(whole, []byte("\n"))
	if l.broken != nil {
		b.written = len(b.lines) // as far as this segment goes
	} else {
		b.lines = b.lines[:b.written]
		l.next -= int64(len(l.unwritten) - kept)
	}
	err = unwritable(l.dir, err)
	l.failLocked(err)
	l.writtenLocked(kept, err)
}

// writtenLocked tells the writers of what was not written yet that the first n
// entries of it are, and why the others cannot be.
func (l *Log) writtenLocked(n int, err error) {
	for _, x := range l.unwritten[n:] {
		x.err = err
	}
	clear(l.unwritten)
	l.unwritten = l.unwritten[:0]
}

func wait(ctx context.Context, b *batch) error {
	if ctx.Done() == nil {
		<-b.done
		return nil
	}
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
