package audit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"gatepass/broker"

	"golang.org/x/mod/sumdb/tlog"
)

// A chunk is a run of whole lines of one segment.
type chunk struct {
	num     int
	buf     []byte // from 1 on; the byte before each line may be overwritten
	end     int
	from    int64 // lines that say to be this entry or a later one are fully checked
	lines   []lineSum
	partial int    // bytes after the last newline, at the end of the log
	problem string // after the lines
	err     error
	done    chan struct{} // has a value once lines are there
	free    chan<- *chunk
}

type lineSum struct {
	start, end int32
	own        bool // an event that the log writes itself and verify needs
	seq        int64
	bad        error
	hash       tlog.Hash
}

// A chunk takes at least two lines, so that only what is no entry fills it.
const (
	minChunk = 2 * MaxEntry
	maxChunk = 256 << 10
)

func (c *chunk) release() { c.free <- c }

// sum hashes the chunk's lines and reads their heads.
func (c *chunk) sum() {
	c.lines = c.lines[:0]
	for start := 1; start < c.end; {
		end := start + bytes.IndexByte(c.buf[start:c.end], '\n')
		line := c.buf[start:end]
		s := lineSum{start: int32(start), end: int32(end)}
		h, err := parseHead(line)
		if err == nil && (h.seq >= c.from || len(line) > MaxEntry) {
			_, err = checkLine(line)
			if err == nil {
				_, err = ParseEntry(line)
			}
		}
		s.seq, s.bad = h.seq, err
		s.own = string(h.event) == string(broker.EventLogLinked) || string(h.event) == string(broker.EventLogPruned)
		s.hash = leafHash(c.buf, start, end)
		c.lines = append(c.lines, s)
		start = end + 1
	}
	c.done <- struct{}{}
}

// readChunks reads the segments, of which the first is to be there, and has
// their lines hashed by as many goroutines as there are processors. The chunks
// come in order.
func readChunks(ctx context.Context, wg *sync.WaitGroup, dir string, nums []int, first int, from int64) <-chan *chunk {
	workers := min(runtime.GOMAXPROCS(0), 4)
	size := int64(minChunk)
	for _, num := range nums {
		if info, err := os.Stat(filepath.Join(dir, segmentName(num))); err == nil {
			size = min(max(size, info.Size()), maxChunk)
		} else { // a compressed one
			size = maxChunk
		}
	}
	total := workers + 3
	free := make(chan *chunk, total)
	for range total {
		free <- &chunk{buf: make([]byte, 1+size), done: make(chan struct{}, 1), free: free, from: from}
	}
	jobs := make(chan *chunk, total)
	order := make(chan *chunk, total)
	for range workers {
		wg.Go(func() {
			for c := range jobs {
				c.sum()
			}
		})
	}
	wg.Go(func() {
		defer close(order)
		defer close(jobs)
		take := func(num int) *chunk {
			select {
			case c := <-free:
				c.num, c.end, c.partial, c.problem, c.err = num, 1, 0, "", nil
				return c
			case <-ctx.Done():
				return nil
			}
		}
		give := func(c *chunk) { order <- c; jobs <- c }
		for i, num := range nums {
			if num != first+i {
				if c := take(first + i); c != nil {
					c.problem = fmt.Sprintf("the segment %s is missing", segmentName(first+i))
					give(c)
				}
				return
			}
			if !readSegment(dir, num, i+1 == len(nums), take, give) {
				return
			}
		}
	})
	return order
}

// readSegment cuts a segment into chunks. It returns false when there is
// nothing to be read after it.
func readSegment(dir string, num int, last bool, take func(int) *chunk, give func(*chunk)) bool {
	c := take(num)
	if c == nil {
		return false
	}
	fail := func(err error) bool {
		if unreadable(err) {
			c.problem = err.Error()
		} else {
			c.err = err
		}
		give(c)
		return false
	}
	f, err := openSegment(dir, num)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	size, err := f.size()
	if err != nil {
		return fail(err)
	}
	in := io.NewSectionReader(f, 0, size) // a writer may be faster than we are
	fill := 1                             // where the next bytes go
	for {
		n, err := io.ReadFull(in, c.buf[fill:])
		fill += n
		eof := err == io.EOF || err == io.ErrUnexpectedEOF
		c.end = 1 + bytes.LastIndexByte(c.buf[1:fill], '\n') + 1
		if err != nil && !eof {
			return fail(err)
		}
		rest := fill - c.end
		if eof {
			switch {
			case rest > 0 && last:
				c.partial = rest
			case rest > 0:
				c.problem = fmt.Sprintf("the line has no end, and %s follows", segmentName(num+1))
			}
			ok := c.problem == ""
			give(c)
			return ok
		}
		if c.end == 1 {
			c.problem = fmt.Sprintf("the line is longer than %d bytes", MaxEntry)
			give(c)
			return false
		}
		next := take(num)
		if next == nil {
			return false
		}
		copy(next.buf[1:], c.buf[c.end:fill])
		give(c)
		c, fill = next, 1+rest
	}
}
