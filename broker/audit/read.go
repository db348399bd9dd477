package audit

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"slices"

	"gatepass/broker"
)

// Entries yields the entries of the log in dir that q selects, in order. It
// reads beside a daemon that writes, and shows what is there: whether it is
// what was signed is for [Verify] to say.
//
// Since and Until need not read the whole log. The log is looked at in
// stretches of 1 MiB (of a compressed segment, 4 MiB or the whole), and one is
// passed over where its first entry and the next one's are in order and both
// more than an hour before Since, or after Until. So an entry that is within
// bounds is left out only if the clock that stamped it was wrong by more than
// an hour and was put right within the same stretch: it was written at another
// time.
//
// A line that is no entry is yielded with an error that says where it is, and
// the iteration goes on; after any other error it ends. A missing log is
// [broker.CodeNotFound], one that may not be read [broker.CodeConfig], and a
// pattern that makes no sense [broker.CodeUsage].
func Entries(ctx context.Context, dir string, q Query) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		newReader(ctx, dir).yield(q, yield)
	}
}

func (r *reader) yield(q Query, yield func(Line, error) bool) {
	if err := r.query(q, yield); err != nil && err != errStopped {
		yield(Line{}, logError(err))
	}
}

// logError gives an error in reading the log its code.
func logError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return noLog(err)
	case errors.Is(err, fs.ErrPermission):
		return broker.Errorf(broker.CodeConfig, "read the audit log: %w", err)
	case unreadable(err):
		return broker.Errorf(broker.CodeData, "read the audit log: %w", err)
	}
	return err
}

// noLogHint helps who has never started the daemon, and who had a log.
const noLogHint = "the daemon begins it when it first starts; if there was one, it was moved or removed"

// noLog says that there is no log, as err tells.
func noLog(err error) error {
	return broker.Errorf(broker.CodeNotFound, "read the audit log: %w", err).WithHint(noLogHint)
}

var errStopped = errors.New("the caller has seen enough")

// A reader reads the log in dir.
type reader struct {
	ctx   context.Context
	dir   string
	size  int64 // of a stretch
	apart int64 // bytes of a plain segment from mark to mark

	num          int // of the segment to follow, from off on
	off          int64
	shown        int   // the segment of the entry that was shown last
	before, next int64 // the numbers after the last two that were shown
}

func newReader(ctx context.Context, dir string) *reader {
	return &reader{ctx: ctx, dir: dir, size: stretchSize, apart: markEvery}
}

func (r *reader) query(q Query, yield func(Line, error) bool) error {
	m, err := q.matcher()
	if err != nil {
		return err
	}
	var w watcher
	if q.Follow {
		// First, so that nothing is missed between the last read and it.
		if w, err = watch(r.dir); err != nil {
			return err
		}
		defer w.close()
	}
	nums, err := listSegments(r.dir)
	if err != nil {
		return err
	}
	parts, end, err := r.stretches(nums, q.bounds())
	if err != nil {
		return err
	}
	if r.num, r.off = 1, end; len(nums) > 0 {
		r.num = nums[len(nums)-1]
	}
	show := func(h hit) error {
		if !yield(h.shown()) {
			return errStopped
		}
		return nil
	}
	if q.Last > 0 || q.Reverse {
		err = r.backward(parts, m.match, q, show)
	} else {
		err = r.scan(parts, m.match, false, r.inOrder(show))
	}
	for err == nil && w != nil {
		if err = r.fresh(m.match, r.inOrder(show)); err == nil {
			err = w.wait(r.ctx)
		}
	}
	return err
}

// shown is a hit as it is yielded.
func (h hit) shown() (Line, error) {
	var err error
	if h.bad != nil {
		err = broker.Errorf(broker.CodeData, "read the audit log: byte %d of %s: the line %w", h.off, segmentName(h.num), h.bad)
	}
	return Line{h.seq, h.line, h.entry}, err
}

// inOrder leaves out what was moved to a later segment by a repair, and seen:
// what that segment begins with. A number that is lower than the one before it
// is no such sign elsewhere, nor is one between the last two: the last was
// damaged, and too high.
func (r *reader) inOrder(each func(hit) error) func(hit) error {
	return func(h hit) error {
		if h.bad == nil {
			if h.num != r.shown && h.seq < r.next && (h.seq < r.before || h.seq == r.next-1) {
				return nil
			}
			r.shown, r.before, r.next = h.num, r.next, h.seq+1
		}
		return each(h)
	}
}

// backward reads from the end and, unless the newest come first, shows the
// last ones once it has them.
func (r *reader) backward(parts []stretch, wanted filter, q Query, each func(hit) error) error {
	slices.Reverse(parts)
	var last []hit
	seen, newest, num := 0, 0, 0
	below, after := int64(-1), int64(-1) // the numbers of the two entries after
	top := int64(-1)
	err := r.scan(parts, wanted, true, func(h hit) error {
		if h.bad == nil {
			// A repair has moved it on: see inOrder.
			if below >= 0 && h.num != num && h.seq <= top && (h.seq == below || after >= 0 && h.seq >= after) {
				return nil
			}
			num, below, after, top = h.num, h.seq, below, max(top, h.seq)
			switch newest++; newest {
			case 1:
				r.shown, r.next = h.num, h.seq+1
			case 2:
				r.before = h.seq + 1
			}
		}
		if q.Reverse {
			if err := each(h); err != nil {
				return err
			}
		} else {
			h.line = slices.Clone(h.line)
			last = append(last, h)
		}
		if seen++; seen == q.Last {
			return errEnough
		}
		return nil
	})
	if err != nil && err != errEnough {
		return err
	}
	for _, h := range slices.Backward(last) {
		if err := each(h); err != nil {
			return err
		}
	}
	return nil
}

var errEnough = errors.New("there are as many as were asked for")

// fresh reads what was written since the last call.
func (r *reader) fresh(wanted filter, each func(hit) error) error {
	for {
		// Seen before the segment is read to its end: nothing is written to
		// a segment once there is something in the next one.
		nums, err := listSegments(r.dir)
		if err != nil {
			return err
		}
		i, found := slices.BinarySearch(nums, r.num)
		if found {
			i++
		}
		goesOn := i < len(nums)
		if i == len(nums)-1 {
			if goesOn, err = r.begun(nums[i]); err != nil {
				return err
			}
		}
		if found {
			// One that is gone was removed meanwhile, like those before it.
			if r.off, err = r.segment(r.num, r.off, wanted, each); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if !goesOn {
			return nil
		}
		r.num, r.off = nums[i], 0
	}
}

// begun reports whether there is something in a segment. One that is empty may
// be removed again, when its name cannot be brought to disk.
func (r *reader) begun(num int) (bool, error) {
	f, err := openSegment(r.dir, num)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	size, err := f.size()
	return size > 0, err
}

// segment reads one segment forward from off and returns where its last whole
// line ends.
func (r *reader) segment(num int, off int64, wanted filter, each func(hit) error) (int64, error) {
	in, err := newLineReader(r.dir, num, off)
	if err != nil {
		return off, err
	}
	defer in.Close()
	for n := 0; ; n++ {
		if n%1024 == 0 && r.ctx.Err() != nil {
			return off, r.ctx.Err()
		}
		start := in.off
		line, err := in.next()
		if err == io.EOF {
			return in.off, nil // what has no newline is not written yet
		}
		if err != nil && err != errLong {
			return off, err
		}
		if h, ok := wanted.look(line, num, start, err); ok {
			if err := each(h); err != nil {
				return off, err
			}
		}
	}
}
