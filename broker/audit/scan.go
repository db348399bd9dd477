package audit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"sync"
)

// A filter tells which lines are wanted, and a line's entry where it had to
// decode it. The error is that of a line which is no entry. Several goroutines
// call it at once.
type filter func(line []byte, h lineHead) (*Entry, bool, error)

// A hit is a line that a filter wants, or one that is no entry.
type hit struct {
	seq   int64
	line  []byte
	entry *Entry
	num   int
	off   int64
	bad   error // why it is no entry
}

// look returns a line as a hit if it is one.
func (f filter) look(line []byte, num int, off int64, bad error) (hit, bool) {
	h, err := parseHead(line)
	if bad == nil {
		bad = err
	}
	var e *Entry
	if bad == nil {
		var wanted bool
		if e, wanted, bad = f(line, h); bad == nil && !wanted {
			return hit{}, false
		}
	}
	return hit{h.seq, line, e, num, off, bad}, true
}

// A find is what was found in a stretch.
type find struct {
	hits []hit
	buf  *[]byte // holds their lines, and can be used again after them
	err  error   // nothing can be read from here on
}

// scan reads stretches on all processors and calls each with what wanted finds
// in them, in the order of parts: of a line's bytes, each must keep a copy. It
// returns each's error, or the first in reading.
func (r *reader) scan(parts []stretch, wanted filter, reverse bool, each func(hit) error) error {
	ctx, cancel := context.WithCancel(r.ctx)
	type job struct {
		part  stretch
		found chan find
	}
	workers := min(runtime.GOMAXPROCS(0), len(parts))
	todo, inOrder := make(chan job), make(chan job, 2*workers)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	sub := *r
	sub.ctx = ctx
	wg.Go(func() {
		defer close(todo)
		defer close(inOrder)
		for _, p := range parts {
			j := job{p, make(chan find, 1)}
			select {
			case inOrder <- j:
			case <-ctx.Done():
				return
			}
			select {
			case todo <- j:
			case <-ctx.Done():
				close(j.found) // it is waited for
				return
			}
		}
	})
	bufs := sync.Pool{New: func() any { return new([]byte) }}
	for range workers {
		wg.Go(func() {
			for j := range todo {
				s := scanner{reader: &sub, wanted: wanted, bufs: &bufs, reverse: reverse, send: func(b find) bool {
					select {
					case j.found <- b:
						return true
					case <-ctx.Done():
						return false
					}
				}}
				s.stretch(j.part)
				close(j.found)
			}
		})
	}
	for j := range inOrder {
		for b := range j.found {
			for _, h := range b.hits {
				if err := each(h); err != nil {
					return err
				}
			}
			if b.err != nil {
				return b.err
			}
			if b.buf != nil {
				bufs.Put(b.buf)
			}
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
	}
	return r.ctx.Err()
}

// A scanner reads one stretch.
type scanner struct {
	*reader
	wanted  filter
	bufs    *sync.Pool // of *[]byte
	reverse bool
	send    func(find) bool // false when nobody wants more
}

func (s *scanner) stretch(p stretch) {
	f, err := openSegment(s.dir, p.num)
	switch {
	case errors.Is(err, fs.ErrNotExist): // pruned meanwhile
	case err != nil:
		s.send(find{err: err})
	default:
		defer f.Close()
		b := find{buf: s.bufs.Get().(*[]byte)}
		if *b.buf, b.err = p.read(f, *b.buf); b.err == nil {
			b.hits = s.lines(p, *b.buf)
		}
		if s.reverse {
			slices.Reverse(b.hits)
		}
		s.send(b)
	}
}

// read reads p into buf: the byte before it, p, and what is missing of the last
// line that begins in it.
func (p stretch) read(f segmentReader, buf []byte) ([]byte, error) {
	if p.whole {
		buf = slices.Grow(buf[:0], int(p.to-p.from))[:p.to-p.from]
		_, err := f.ReadAt(buf, p.from)
		return buf, err
	}
	start := max(0, p.from-1)
	n := int(p.to - start)
	buf = slices.Grow(buf[:0], n+MaxEntry+1)
	for _, more := range []int{4 << 10, MaxEntry + 1} { // mostly the first will do
		got, err := f.ReadAt(buf[len(buf):n+more], start+int64(len(buf)))
		buf = buf[:len(buf)+got]
		if err != nil && err != io.EOF {
			return buf, err
		}
		if err == io.EOF || bytes.IndexByte(buf[n-1:], '\n') >= 0 {
			break
		}
	}
	return buf, nil
}

// lines returns the hits among the lines of a stretch that was read.
func (s *scanner) lines(p stretch, rest []byte) (hits []hit) {
	off := p.from
	if p.from > 0 && !p.whole {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return nil // all of it belongs to a line that began before
		}
		off, rest = p.from+int64(i), rest[i+1:]
	}
	for off < p.to {
		line, bad := rest, error(nil)
		n := bytes.IndexByte(rest, '\n')
		if n >= 0 {
			line = rest[:n]
		}
		if len(line) > MaxEntry {
			line, bad = line[:MaxEntry], errLong
		} else if n < 0 {
			break // what has no newline is not written yet
		}
		if h, ok := s.wanted.look(line, p.num, off, bad); ok {
			hits = append(hits, h)
		}
		if n < 0 {
			break
		}
		off, rest = off+int64(n)+1, rest[n+1:]
	}
	return hits
}
