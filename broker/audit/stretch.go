package audit

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"time"
)

// A stretch is a part of the log that is read at once: the lines that begin
// in it.
type stretch struct {
	num      int
	from, to int64 // bytes
	whole    bool  // a line begins at from, and one ends at to
}

const (
	stretchSize = 256 << 10 // bytes, mostly

	// markEvery is how far apart the marks are that are looked at in a plain
	// segment, in bytes. Each is a read somewhere else in the log.
	markEvery = 1 << 20

	// slack is how far a clock may be wrong without Since and Until being
	// so. What it costs is an hour's entries more to read.
	slack = time.Hour
)

// A mark is what is known of the place where a stretch begins: its first
// entry.
type mark struct {
	known bool
	seq   int64
	time  [len(timeFormat)]byte
}

func markOf(h lineHead) mark {
	m := mark{known: true, seq: h.seq}
	copy(m.time[:], h.time)
	return m
}

// bounds are what a query says of places in the log.
type bounds struct {
	from, to      int64
	after, before []byte // what is wanted is, but for slack, not before after and not from before on; nil for no bound
}

func (q *Query) bounds() bounds {
	b := bounds{from: q.From, to: q.To}
	if !q.Since.IsZero() {
		b.after = timeBound(q.Since.Add(-slack))
	}
	if !q.Until.IsZero() {
		b.before = timeBound(q.Until.Add(slack))
	}
	return b
}

func (b bounds) none() bool { return b.from <= 0 && b.to <= 0 && b.after == nil && b.before == nil }

// pass reports whether what lies between two marks need not be read. Numbers
// ascend. Times do not always: a stretch is passed over only where they are in
// order, so that where a clock was set back everything is looked at.
func (b bounds) pass(first, next mark) bool {
	switch {
	case first.known && next.known && first.seq > next.seq: // one of them is damaged
		return false
	case next.known && next.seq <= b.from, first.known && b.to > 0 && first.seq >= b.to:
		return true
	case !first.known || !next.known || bytes.Compare(first.time[:], next.time[:]) > 0:
		return false
	}
	return b.after != nil && bytes.Compare(next.time[:], b.after) < 0 ||
		b.before != nil && bytes.Compare(first.time[:], b.before) >= 0
}

// stretches returns the parts of the listed segments that have to be read for
// what b bounds, in order, and where the log ends.
func (r *reader) stretches(nums []int, b bounds) (parts []stretch, end int64, err error) {
	marks := make([]mark, len(nums)+1) // the last knows nothing: more may be written
	if !b.none() {
		for i, num := range nums {
			if marks[i], err = r.firstMark(num); err != nil {
				return nil, 0, err
			}
		}
	}
	for i, num := range nums {
		last := i == len(nums)-1
		f, err := openSegment(r.dir, num)
		if errors.Is(err, fs.ErrNotExist) && !last {
			continue // pruned meanwhile
		}
		if err != nil {
			return nil, 0, err
		}
		size, err := f.size()
		if err == nil && last {
			end, err = lastNewline(f, size)
			size = end
		}
		if c, ok := f.(*compressedSegment); ok {
			// The whole is passed over, if it can be, undecoded.
			if err == nil && !b.pass(marks[i], marks[i+1]) {
				parts, err = withinFrames(parts, c, num, b, marks[i], marks[i+1])
			}
		} else if err == nil {
			parts, err = r.within(parts, f, num, size, b, marks[i], marks[i+1])
		}
		f.Close()
		if err != nil {
			return nil, 0, err
		}
	}
	return parts, end, nil
}

// withinFrames appends the frames of one compressed segment. To look at the
// entry at the beginning of one is to decode it, so they are passed over many
// at a time.
func withinFrames(parts []stretch, c *compressedSegment, num int, b bounds, first, next mark) ([]stretch, error) {
	const together = 16
	at := first
	for some := range slices.Chunk(c.frames, together) {
		last := some[len(some)-1]
		to := last.start + int64(last.size)
		after := next
		if size, _ := c.size(); !b.none() && to < size {
			var err error
			if after, err = markAt(c, to); err != nil {
				return nil, err
			}
		}
		if b.none() || !b.pass(at, after) {
			for _, f := range some {
				parts = append(parts, stretch{num: num, from: f.start, to: f.start + int64(f.size), whole: true})
			}
		}
		at = after
	}
	return parts, nil
}

// within appends the stretches of one plain segment. Between first and next it
// looks at marks.
func (r *reader) within(parts []stretch, f segmentReader, num int, size int64, b bounds, first, next mark) ([]stretch, error) {
	at := first
	for from := int64(0); from < size; from += r.apart {
		to := min(from+r.apart, size)
		after := next
		if !b.none() && to < size {
			var err error
			if after, err = markNear(f, to); err != nil {
				return nil, err
			}
		}
		if b.none() || !b.pass(at, after) {
			for start := from; start < to; start += r.size {
				parts = append(parts, stretch{num: num, from: start, to: min(start+r.size, to)})
			}
		}
		at = after
	}
	return parts, nil
}

// firstMark looks at the beginning of a segment.
func (r *reader) firstMark(num int) (mark, error) {
	in, err := newLineReader(r.dir, num, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, nil // pruned meanwhile
	}
	if err != nil {
		return mark{}, err
	}
	defer in.Close()
	line, err := in.next()
	if err == errLong || err == io.EOF {
		return mark{}, nil
	}
	if err != nil {
		return mark{}, err
	}
	h, err := parseHead(line)
	if err != nil {
		return mark{}, nil
	}
	return markOf(h), nil
}

// markNear looks at the first line that begins at off or after it, if it
// begins soon.
func markNear(f segmentReader, off int64) (mark, error) {
	var buf [4 << 10]byte
	n, err := f.ReadAt(buf[:], off-1)
	if err != nil && err != io.EOF {
		return mark{}, err
	}
	i := bytes.IndexByte(buf[:n], '\n')
	if i < 0 {
		return mark{}, nil
	}
	return headOf(buf[i+1 : n]), nil
}

// markAt looks at the line that begins at off.
func markAt(f segmentReader, off int64) (mark, error) {
	var buf [512]byte
	n, err := f.ReadAt(buf[:], off)
	if err != nil && err != io.EOF {
		return mark{}, err
	}
	return headOf(buf[:n]), nil
}

// headOf returns the mark of the line at the start of b, whose end may not be
// there: its head is all that is wanted.
func headOf(line []byte) mark {
	if end := bytes.IndexByte(line, '\n'); end >= 0 {
		line = line[:end]
	}
	h, err := parseHead(line)
	if err != nil && err != errNoEnd {
		return mark{}
	}
	return markOf(h)
}

// lastNewline returns where the last whole line before size ends.
func lastNewline(f segmentReader, size int64) (int64, error) {
	buf := make([]byte, 32<<10)
	for size > 0 {
		n := min(size, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], size-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return size - n + int64(i) + 1, nil
		}
		size -= n
	}
	return 0, nil
}
