package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"time"

	"gatepass/broker"
)

// A Query selects entries. Zero fields select all.
type Query struct {
	From  int64 // the first number
	Last  int   // only the last so many of those selected
	Since time.Time
	Until time.Time // up to, but not at

	Event   broker.EventKind
	Outcome string
	Profile string
	Lease   string
	Key     string // name or access key id
	Session string // id or access key id
	Program string // as recorded, or its last path element

	// Follow goes on with entries as they are written, until the context
	// ends.
	Follow bool
}

// A Line is an entry as it stands in the log.
type Line struct {
	Seq int64
	Raw []byte // without the newline; valid until the iteration goes on
}

// Entry decodes the line.
func (l Line) Entry() (Entry, error) { return ParseEntry(l.Raw) }

// Entries yields the entries of the log in dir that q selects, in order. It
// reads beside a daemon that writes, and shows what is there: whether it is
// what was signed is for [Verify] to say.
//
// A line that is no entry is yielded with an error that says where it is, and
// the iteration goes on; after any other error it ends. A missing log is
// [broker.CodeNotFound], one that may not be read [broker.CodeConfig].
func Entries(ctx context.Context, dir string, q Query) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		r := &reader{ctx: ctx, dir: dir, q: q, match: q.matcher(), yield: yield}
		if err := r.read(); err != nil && err != errStopped {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				err = broker.Errorf(broker.CodeNotFound, "read the audit log: %w", err)
			case errors.Is(err, fs.ErrPermission):
				err = broker.Errorf(broker.CodeConfig, "read the audit log: %w", err)
			}
			yield(Line{}, err)
		}
	}
}

var errStopped = errors.New("the caller has seen enough")

type reader struct {
	ctx   context.Context
	dir   string
	q     Query
	match func(line []byte, h lineHead) (bool, error)
	yield func(Line, error) bool

	num  int   // of the segment to go on in
	off  int64 // and where
	next int64 // no entry below this number is new
}

func (r *reader) read() error {
	var w watcher
	if r.q.Follow {
		// First, so that nothing is missed between the last read and it.
		var err error
		if w, err = watch(r.dir); err != nil {
			return err
		}
		defer w.close()
	}
	nums, err := listSegments(r.dir)
	if err != nil {
		return err
	}
	r.num = 1
	if len(nums) > 0 {
		r.num = nums[0]
	}
	if r.q.Last > 0 {
		if err := r.lastOnes(nums); err != nil {
			return err
		}
	} else {
		for _, num := range slices.Backward(nums) {
			r.num = num
			first, ok, err := firstSeq(r.dir, num)
			if err != nil {
				return err
			}
			if ok && first <= r.q.From {
				break
			}
		}
		if err := r.forward(nums); err != nil {
			return err
		}
	}
	for w != nil {
		if err := r.fresh(); err != nil {
			return err
		}
		if err := w.wait(r.ctx); err != nil {
			return err
		}
	}
	return nil
}

// forward reads from the place in r to the end of the listed segments.
func (r *reader) forward(nums []int) error {
	for _, num := range nums {
		if num < r.num {
			continue
		}
		if num > r.num {
			r.num, r.off = num, 0
		}
		if err := r.segment(); err != nil {
			return err
		}
	}
	return nil
}

// fresh reads what was written since the last call.
func (r *reader) fresh() error {
	for {
		// Seen before the segment is read to its end: nothing is written to
		// a segment once there is a next one.
		nums, err := listSegments(r.dir)
		if err != nil {
			return err
		}
		i, found := slices.BinarySearch(nums, r.num)
		if found {
			if err := r.segment(); err != nil {
				return err
			}
			i++
		}
		if i == len(nums) {
			return nil
		}
		r.num, r.off = nums[i], 0
	}
}

// segment reads one segment from the place in r to its end.
func (r *reader) segment() error {
	in, err := newLineReader(r.dir, r.num, r.off)
	if err != nil {
		return err
	}
	defer in.Close()
	for n := 0; ; n++ {
		if n%1024 == 0 && r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		start := in.off
		line, err := in.next()
		if err == io.EOF {
			r.off = in.off
			return nil // what has no newline is not written yet
		}
		if err != nil && err != errLong {
			return err
		}
		if err := r.line(line, r.num, start, err); err != nil {
			return err
		}
	}
}

// line yields a line if it is selected.
func (r *reader) line(line []byte, num int, off int64, bad error) error {
	h, err := parseHead(line)
	if bad == nil {
		bad = err
	}
	if bad == nil {
		if h.seq < r.next {
			return nil // moved to this segment by a repair, and seen
		}
		r.next = h.seq + 1
		var ok bool
		if ok, bad = r.match(line, h); bad == nil && !ok {
			return nil
		}
	}
	if bad != nil {
		bad = broker.Errorf(broker.CodeData, "read the audit log: byte %d of %s: the line %w", off, segmentName(num), bad)
	}
	if !r.yield(Line{h.seq, line}, bad) {
		return errStopped
	}
	return nil
}

// lastOnes reads from the end until it has found enough, yields them, and
// leaves in r the place where the log ended.
func (r *reader) lastOnes(nums []int) error {
	type hit struct {
		line []byte
		num  int
		off  int64
	}
	var hits []hit
	below := int64(-1) // the number of the line after
	for i, num := range slices.Backward(nums) {
		in, err := newBackReader(r.dir, num)
		if err != nil {
			return err
		}
		defer in.Close()
		_, end, err := in.prev() // what has no newline is not written yet
		if err != nil {
			return err
		}
		if i == len(nums)-1 {
			r.num, r.off = num, end
		}
		for n := 0; len(hits) < r.q.Last; n++ {
			if n%1024 == 0 && r.ctx.Err() != nil {
				return r.ctx.Err()
			}
			line, off, err := in.prev()
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			h, bad := parseHead(line)
			if bad == nil {
				if below >= 0 && h.seq >= below {
					continue // a repair has moved it on
				}
				below = h.seq
				if r.next == 0 {
					r.next = h.seq + 1
				}
				if h.seq < r.q.From {
					break
				}
				var ok bool
				if ok, bad = r.match(line, h); bad == nil && !ok {
					continue
				}
			}
			hits = append(hits, hit{slices.Clone(line), num, off})
		}
	}
	next := r.next
	r.next = 0
	for _, h := range slices.Backward(hits) {
		if err := r.line(h.line, h.num, h.off, nil); err != nil {
			return err
		}
	}
	r.next = next
	return nil
}

// matcher returns what tells whether a line is selected. Lines are decoded
// only where the looked-for values stand in them somewhere.
func (q *Query) matcher() func(line []byte, h lineHead) (bool, error) {
	bound := func(t time.Time) []byte {
		if t.IsZero() {
			return nil
		}
		return appendTime(nil, t)
	}
	since, until := bound(q.Since), bound(q.Until)
	var needles [][]byte
	for _, s := range []string{q.Outcome, q.Profile, q.Lease, q.Key, q.Session, q.Program} {
		if s != "" {
			b, _ := appendString(nil, s, maxString)
			if s == q.Program {
				b = b[1:] // the end of a path will do
			}
			needles = append(needles, b)
		}
	}
	return func(line []byte, h lineHead) (bool, error) {
		if h.seq < q.From ||
			since != nil && bytes.Compare(h.time, since) < 0 ||
			until != nil && bytes.Compare(h.time, until) >= 0 ||
			q.Event != "" && string(h.event) != string(q.Event) {
			return false, nil
		}
		for _, n := range needles {
			if !bytes.Contains(line, n) {
				return false, nil
			}
		}
		if len(needles) == 0 {
			return true, nil
		}
		e, err := ParseEntry(line)
		if err != nil {
			return false, fmt.Errorf("is not an entry: %w", err)
		}
		return q.selects(&e), nil
	}
}

func (q *Query) selects(e *Entry) bool {
	is := func(want string, have ...string) bool { return want == "" || slices.Contains(have, want) }
	var key broker.EventKey
	if e.Key != nil {
		key = *e.Key
	}
	var session broker.EventSession
	if e.Session != nil {
		session = *e.Session
	}
	program := ""
	if e.Caller != nil {
		program = e.Caller.Program
	}
	return is(q.Outcome, e.Outcome) && is(q.Profile, e.Profile) && is(q.Lease, e.Lease) &&
		is(q.Key, key.Name, key.AccessKeyID) && is(q.Session, session.ID, session.AccessKeyID) &&
		is(q.Program, program, path.Base(program))
}
