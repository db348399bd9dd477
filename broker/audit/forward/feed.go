package forward

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// A sink is the way to a destination.
type sink interface {
	// send delivers the entries in order. After an error none of them counts
	// as delivered, but for *rejected.
	send(ctx context.Context, batch []record) error
	// rest is how long to wait after a batch of n before the next; full says
	// that there is more to send.
	rest(n int, full bool) time.Duration
}

// A rejected is how many entries a destination took and will not keep. They
// are not sent again.
type rejected struct {
	entries int64
	why     string
}

func (r *rejected) Error() string {
	return fmt.Sprintf("%d entries were rejected: %s", r.entries, r.why)
}

const (
	batchEntries = 500
	batchBytes   = 1 << 20
	batchWait    = 100 * time.Millisecond // for further entries
	readAhead    = 64                     // entries

	sendTimeout = 30 * time.Second
)

// restAfter is the rest of sinks that make a connection for a batch: one a
// second, or where there is more to send, so many that sending takes a small
// part of one processor from those whom the daemon serves.
func restAfter(full bool) time.Duration {
	if full {
		return 100 * time.Millisecond
	}
	return time.Second
}

// A feed brings the log to one destination.
type feed struct {
	cfg  Config
	name string
	sink sink
	book *book
	log  *slog.Logger

	mu       sync.Mutex
	cursor   Cursor
	pending  time.Time // of the first entry that was read and is not delivered
	err      error     // of the last attempt
	rejected int64
	ending   bool
	target   int64         // where to end
	wake     chan struct{} // closed by finish
	stop     context.CancelFunc

	news chan struct{} // one place, filled when an entry was written

	most int // entries of the next batch; run's own
}

func newFeed(cfg Config, name string, s sink, b *book) *feed {
	return &feed{cfg: cfg, name: name, sink: s, book: b, log: cfg.Logger.With("to", name), cursor: b.cursor(name),
		wake: make(chan struct{}), news: make(chan struct{}, 1), most: batchEntries}
}

// run sends until ctx ends.
func (f *feed) run(ctx context.Context) {
	ctx, stop := f.stoppable(ctx)
	defer stop()
	pause := firstPause
	for ctx.Err() == nil {
		select {
		case <-f.news: // it is read now
		default:
		}
		before := f.at()
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if f.at() > before { // it had worked
			pause = firstPause
		}
		if f.failed(err) {
			return // there is no time to try again
		}
		pause = f.pause(ctx, err, pause)
	}
}

// stoppable returns a context that finish ends too.
func (f *feed) stoppable(ctx context.Context) (context.Context, context.CancelFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ctx, f.stop = context.WithCancel(ctx)
	if f.ending && f.cursor.next() >= f.target {
		f.stop()
	}
	return ctx, f.stop
}

// follow reads the log from where the destination is, and sends what it reads,
// until something fails. While there is an outage nothing is read, so no file is
// held open. What failed is tried with one entry, then with twice as many each
// time: a destination that takes nothing costs little to ask, and one that takes
// no large batch gets small ones.
func (f *feed) follow(ctx context.Context) error {
	next, there, err := f.resume(ctx)
	if err != nil {
		return err
	}
	reading, cancel := context.WithCancel(ctx)
	records := make(chan record, readAhead)
	ended := make(chan error, 1)
	go func() {
		defer close(records)
		ended <- f.read(reading, next, there, records)
	}()
	defer func() { // once it has let go of the log
		cancel()
		for range records {
		}
	}()
	for ctx.Err() == nil {
		batch := f.collect(records)
		if len(batch) == 0 {
			return <-ended
		}
		if err := f.deliver(ctx, batch); err != nil {
			f.most = 1
			return err
		}
		full := len(batch) == f.most
		f.most = min(2*f.most, batchEntries)
		f.wait(ctx, f.sink.rest(len(batch), full), nil)
	}
	return ctx.Err()
}

// errPruned ends a reading whose beginning was removed meanwhile.
var errPruned = errors.New("entries were removed from the log while it was read")

// read puts what the log holds from next on into records, until ctx ends. there
// says that the log has the entry before that.
func (f *feed) read(ctx context.Context, next int64, there bool, records chan<- record) error {
	var before gap
	numbers := newNumbering(next, -1)
	// Damaged lines have no numbers, so they come wherever they are. Those after
	// the entry that was delivered last count.
	for line, err := range audit.Entries(ctx, f.cfg.Dir, audit.Query{From: next - 1, Follow: true}) {
		var e audit.Entry
		if err == nil {
			e, err = line.Entry()
		}
		switch {
		case err != nil && line.Raw == nil: // of the log, not of a line: there is no more
			return err
		case err != nil: // for verify to tell of; it is not what was written
			if before.damaged++; before.damaged == 1 {
				before.why = err
			}
			numbers.none()
			continue
		case e.Seq < next: // delivered
			before, there, numbers = gap{}, false, newNumbering(next, e.Seq)
			continue
		}
		n := numbers.take(e.Seq)
		if there && n.follows {
			return errPruned
		}
		if there { // older than what was delivered last
			continue
		}
		before.removed = n.missing
		select {
		case records <- record{slices.Clone(line.Raw), e, n.sure, before}:
		case <-ctx.Done():
			return ctx.Err()
		}
		before = gap{}
	}
	return ctx.Err()
}

// collect waits for an entry, and returns it with those that come soon after;
// none once there are no more.
func (f *feed) collect(records <-chan record) []record {
	r, ok := <-records
	if !ok {
		return nil
	}
	f.mu.Lock()
	f.pending = r.entry.Time
	f.mu.Unlock()
	batch, size := []record{r}, len(r.raw)
	soon := time.NewTimer(f.cfg.gather)
	defer soon.Stop()
	// The cursor does not move to one that is not sure.
	for (len(batch) < f.most || !r.sure && len(batch) < batchEntries) && size < batchBytes {
		select {
		case r, ok = <-records:
			if !ok {
				return batch
			}
			batch, size = append(batch, r), size+len(r.raw)
		case <-soon.C:
			return batch
		}
	}
	return batch
}

// deliver sends a batch and moves the cursor on.
func (f *feed) deliver(ctx context.Context, batch []record) error {
	ctx, cancel := context.WithTimeoutCause(ctx, f.cfg.timeout, fmt.Errorf("no answer within %s", f.cfg.timeout))
	defer cancel()
	err := f.sink.send(ctx, batch)
	refused, isRefused := errors.AsType[*rejected](err)
	if err != nil && !isRefused {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	}
	for _, r := range batch {
		f.tell(r)
	}
	if isRefused {
		f.log.Warn("entries were sent and rejected", "err", err)
	}
	f.book.set(f.name, f.delivered(batch, refused))
	return nil
}

// tell tells of what is missing before an entry. It is not sent again once the
// entry is delivered, so that all of it is told once.
func (f *feed) tell(r record) {
	if r.gap.damaged > 0 {
		f.log.Warn("lines of the audit log are not forwarded", "before", r.entry.Seq, "lines", r.gap.damaged, "err", r.gap.why)
	}
	if n := r.gap.removed; n > 0 {
		f.log.Warn("entries were removed from the log before they were forwarded", "first", r.entry.Seq-n, "entries", n)
	}
}

// delivered takes note of a batch that is there, refused in part or not, and
// returns the new cursor.
func (f *feed) delivered(batch []record, refused *rejected) Cursor {
	last := batch[len(batch)-1]
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		f.log.Info("entries are forwarded again", "next", last.entry.Seq+1)
	}
	f.err, f.pending = nil, time.Time{}
	if refused != nil {
		f.rejected += refused.entries
	}
	for _, r := range slices.Backward(batch) {
		if r.sure {
			f.cursor.add(markAfter(r, f.cfg.now()))
			break
		}
	}
	if f.ending && f.cursor.next() >= f.target {
		f.stop()
	}
	return f.cursor
}

// failed takes note of an error, and reports whether it is the end.
func (f *feed) failed(err error) (ending bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.log.Warn("entries are not forwarded for now", "err", err)
	}
	f.err = err
	return f.ending
}

// finish has the feed end once it has delivered as many entries, or fails.
func (f *feed) finish(entries int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending {
		return
	}
	f.ending, f.target = true, entries
	close(f.wake)
	if f.stop != nil && (f.err != nil || f.cursor.next() >= entries) {
		f.stop()
	}
}

// written tells of a new entry. It never waits.
func (f *feed) written() {
	select {
	case f.news <- struct{}{}:
	default:
	}
}

func (f *feed) at() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cursor.next()
}

// resume returns the number to go on with: that of the newest mark whose entry
// the log has as it was delivered, which is there, or no longer has because it
// was pruned.
func (f *feed) resume(ctx context.Context) (next int64, there bool, err error) {
	f.mu.Lock()
	marks := f.cursor.Marks
	f.mu.Unlock()
	for i, m := range marks {
		there, pruned, err := f.holds(ctx, m)
		if err != nil {
			return 0, false, err
		}
		if !there && !pruned {
			continue
		}
		if i > 0 {
			f.moveBack(marks[i:], "the log does not hold what was forwarded last; going on with what it holds", m.Next)
		}
		return m.Next, there, nil
	}
	if len(marks) > 0 {
		f.moveBack(nil, "the log does not hold what was forwarded: it is another one, and is forwarded from its beginning", 0)
	}
	return 0, false, nil
}

func (f *feed) moveBack(marks []Mark, why string, next int64) {
	f.log.Warn(why, "next", next)
	f.mu.Lock()
	f.cursor.Marks = marks
	f.mu.Unlock()
	f.book.set(f.name, Cursor{marks})
}

// holds reports whether the entry before a mark is there and the one that was
// delivered, or is pruned.
func (f *feed) holds(ctx context.Context, m Mark) (there, pruned bool, err error) {
	if m.Next < 1 {
		return false, false, nil // nothing was delivered there
	}
	last := int64(-1)
	for line, err := range audit.Entries(ctx, f.cfg.Dir, audit.Query{From: m.Next - 1}) {
		switch {
		case err != nil && line.Raw == nil:
			return false, false, err
		case err != nil:
		case line.Seq == m.Next-1:
			hash := sha256.Sum256(line.Raw)
			return bytes.Equal(hash[:], m.Hash), false, nil
		case line.Seq == last+1:
			return false, true, nil
		default: // or the number is damaged: the next one tells
			pruned, last = true, line.Seq
		}
	}
	return false, pruned, ctx.Err()
}

// status tells how far the destination is.
func (f *feed) status(entries int64) broker.ForwardStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := broker.ForwardStatus{To: f.name, Lag: max(0, entries-f.cursor.next()), Rejected: f.rejected}
	if st.Lag > 0 && !f.pending.IsZero() {
		st.LagSeconds = int64(max(0, f.cfg.now().Sub(f.pending)).Seconds())
	}
	if len(f.cursor.Marks) > 0 {
		st.LastSent = f.cursor.Marks[0].Time
	}
	if f.err != nil {
		st.Error = f.err.Error()
	}
	return st
}
