package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"gatepass/broker"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// VerifyOptions say what is verified, and by whom it must be signed.
type VerifyOptions struct {
	Dir string
	// Key is the verifier key to trust, as [ReadPinnedKey] returns it. The
	// files beside the log are never asked whom to trust.
	Key string
}

// A Report is what [Verify] found.
type Report struct {
	Entries     int64     `json:"entries"`
	Bytes       int64     `json:"bytes"`
	Segments    int       `json:"segments"`
	Checkpoints int64     `json:"checkpoints"`       // read, and found to fit the entries
	Signed      int64     `json:"signed"`            // so many entries, the first ones, are signed by the key
	Unsigned    int64     `json:"unsigned"`          // entries after them
	Partial     int64     `json:"partial,omitempty"` // bytes of a last line that is still being written, or was torn
	Earlier     []string  `json:"earlier,omitempty"` // keys of which the log was before, by name and hash
	First       time.Time `json:"first,omitzero"`    // time of the first entry
	Last        time.Time `json:"last,omitzero"`     // time of the last entry
	Problem     *Problem  `json:"problem,omitempty"` // the first one; the numbers above are up to it
}

// A Problem is the first thing in a log that is not as it was signed.
type Problem struct {
	Seq  int64  `json:"seq"`            // the entry, -1 when it is about none
	File string `json:"file,omitempty"` // in the log's directory
	Line int64  `json:"line,omitempty"` // from 1; 0 when it is about none
	What string `json:"what"`
	// Signer is who signed a checkpoint that counts for nothing here, as
	// another key did: a new key of the user's, or a forger's.
	Signer string `json:"signer,omitempty"`
}

func (p *Problem) String() string {
	switch {
	case p.File == "":
		return p.What
	case p.Line == 0:
		return fmt.Sprintf("%s: %s", p.File, p.What)
	}
	return fmt.Sprintf("%s line %d: %s", p.File, p.Line, p.What)
}

// Verify holds the log in opts.Dir against the checkpoints that opts.Key
// signed, and returns what it found. It reads the files alone: it needs no
// daemon and no lock, and a daemon may go on writing. It keeps a few MiB in
// memory, however long the log is.
//
// A log that does not verify is a [broker.CodeData] that names the first
// problem, which is also in the report.
func Verify(ctx context.Context, opts VerifyOptions) (Report, error) {
	key, err := note.NewVerifier(opts.Key)
	if err != nil {
		return Report{}, broker.Errorf(broker.CodeData, "verify the audit log: the key to trust: %w", err)
	}
	var rep Report
	// A daemon that has just cut off a torn line and written another in its
	// place can be seen halfway. So a problem after the last checkpoint must
	// be there again.
	for range 3 {
		v := &verifier{dir: opts.Dir, key: key}
		rep, err = v.verify(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return rep, ctx.Err()
			}
			if errors.Is(err, fs.ErrNotExist) {
				return rep, broker.Errorf(broker.CodeNotFound, "verify the audit log: %w", err)
			}
			return rep, broker.Errorf(broker.CodeConfig, "verify the audit log: %w", err)
		}
		if rep.Problem == nil {
			return rep, nil
		}
		if !v.unsigned {
			break
		}
	}
	return rep, broker.Errorf(broker.CodeData, "verify the audit log: %s", rep.Problem)
}

// A verifier is one run over the log.
type verifier struct {
	dir string
	key note.Verifier

	rep      Report
	tree     tree
	at       position // of the line after the tree's last leaf
	good     tree     // at the last checkpoint that fits
	goodAt   position
	unsigned bool // the problem is in what no checkpoint covers

	checkpoints <-chan checked
	next        *checked // the one to come
	others      []foreign
	links       []link
}

// A position is where a line is.
type position struct {
	num  int   // of the segment, from 1; 0 before the first
	off  int64 // bytes
	line int64 // lines before it
}

// foreign are the checkpoints in the file that another key signed.
type foreign struct {
	key  keyID
	last checkpoint
	line int64
}

// maxForeign bounds how many earlier keys a log may have had.
const maxForeign = 100

// checked is a checkpoint from the file, or what is wrong with what should
// be one.
type checked struct {
	checkpoint
	line    int64 // where it begins, from 1
	trusted bool  // signed by the key
	problem string
	err     error // of reading
}

func (v *verifier) verify(ctx context.Context) (Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	// The order is what makes it safe to read beside a daemon: an entry is on
	// disk before a checkpoint that covers it.
	cps, size, err := openCheckpoints(v.dir)
	if err != nil {
		return v.rep, err
	}
	claimed := int64(0) // what the last checkpoint covers, for now unproved
	if cps != nil {
		defer cps.Close()
		last, _, _, err := lastCheckpoint(cps, size)
		if err == nil && last != nil {
			claimed = last.size
		}
	}
	nums, err := listSegments(v.dir)
	if err != nil {
		return v.rep, err
	}
	feed := make(chan checked, 16)
	v.checkpoints = feed
	wg.Go(func() {
		defer close(feed)
		if cps != nil {
			readCheckpoints(ctx, cps, size, v.key, feed)
		}
	})
	chunks := readChunks(ctx, &wg, v.dir, nums, claimed)

	err = v.run(ctx, chunks)
	v.rep.Entries = v.tree.n
	v.rep.Signed = min(v.rep.Signed, v.rep.Entries)
	v.rep.Unsigned = v.rep.Entries - v.rep.Signed
	for _, f := range v.others {
		v.rep.Earlier = append(v.rep.Earlier, f.key.String())
	}
	if p, ok := errors.AsType[*found](err); ok {
		v.rep.Problem = &p.Problem
		err = nil
	}
	return v.rep, err
}

// found carries a problem up to verify.
type found struct{ Problem }

func (f *found) Error() string { return f.What }

// run goes through the entries in order.
func (v *verifier) run(ctx context.Context, chunks <-chan *chunk) error {
	if err := v.nextCheckpoint(); err != nil {
		return err
	}
	var lastTime []byte
	for c := range chunks {
		<-c.done
		if c.err != nil {
			return c.err
		}
		if c.num != v.at.num {
			v.at = position{num: c.num}
			v.rep.Segments++
		}
		for i := range c.lines {
			l := &c.lines[i]
			if l.bad == nil && l.seq != v.tree.n {
				l.bad = fmt.Errorf("says that it is entry %d, where entry %d should be", l.seq, v.tree.n)
			}
			if l.bad != nil {
				return v.explain(l.bad.Error())
			}
			if v.tree.n == 0 {
				v.rep.First = parseTime(c.buf[l.start:l.end])
			}
			if l.linked {
				v.link(c.buf[l.start:l.end])
			}
			v.tree.add(l.hash)
			v.at.off += int64(l.end-l.start) + 1
			v.at.line++
			if v.next != nil && v.next.size == v.tree.n {
				if err := v.atCheckpoint(); err != nil {
					return err
				}
			}
		}
		if n := len(c.lines); n > 0 {
			l := c.lines[n-1]
			lastTime = append(lastTime[:0], c.buf[l.start:l.end]...)
			v.rep.Last = parseTime(lastTime)
			v.rep.Bytes += int64(l.end - c.lines[0].start + 1)
		}
		if c.problem != "" {
			return v.explain(c.problem)
		}
		v.rep.Partial = int64(c.partial)
		c.release()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if v.next != nil {
		return v.explain(fmt.Sprintf("the log ends after %d entries, but %d were signed", v.tree.n, v.next.size))
	}
	return v.checkForeign()
}

// parseTime reads the time of a line whose head is well-formed.
func parseTime(line []byte) time.Time {
	h, err := parseHead(line)
	if err != nil {
		return time.Time{}
	}
	t, _ := time.Parse(timeFormat, string(h.time))
	return t
}

// nextCheckpoint takes the next checkpoint from the file; those that cover no
// more than the last one are dealt with at once.
func (v *verifier) nextCheckpoint() error {
	for {
		c, ok := <-v.checkpoints
		if !ok {
			v.next = nil
			return nil
		}
		bad := func(format string, args ...any) error {
			return &found{Problem{Seq: -1, File: checkpointsName, Line: c.line, What: fmt.Sprintf(format, args...)}}
		}
		switch {
		case c.err != nil:
			return c.err
		case c.problem != "":
			return bad("%s", c.problem)
		case c.size < v.tree.n:
			return bad("a checkpoint of %d entries follows one of %d", c.size, v.tree.n)
		}
		v.next = &c
		if c.size > v.tree.n {
			return nil
		}
		if err := v.fits(); err != nil {
			return err
		}
	}
}

// atCheckpoint holds the tree against the checkpoint of its size.
func (v *verifier) atCheckpoint() error {
	if err := v.fits(); err != nil {
		return err
	}
	return v.nextCheckpoint()
}

func (v *verifier) fits() error {
	c := v.next
	if c.root != v.tree.root() {
		return v.explain("")
	}
	v.rep.Checkpoints++
	if !c.trusted {
		return v.addForeign(c)
	}
	v.rep.Signed = c.size
	v.good, v.goodAt = v.tree.clone(), v.at
	return nil
}

func (v *verifier) addForeign(c *checked) error {
	key := c.signer()
	for i := range v.others {
		if v.others[i].key == key {
			v.others[i].last = c.checkpoint
			return nil
		}
	}
	if len(v.others) == maxForeign {
		return v.notOurs(key, c.line)
	}
	v.others = append(v.others, foreign{key, c.checkpoint, c.line})
	return nil
}

func (v *verifier) notOurs(key keyID, line int64) error {
	return &found{Problem{Seq: -1, File: checkpointsName, Line: line, Signer: key.String(),
		What: fmt.Sprintf("a checkpoint signed by %s, which is not the key to trust, nor one that it follows", key)}}
}

func (v *verifier) link(line []byte) {
	if len(v.links) > maxForeign {
		return
	}
	if e, err := ParseEntry(line); err == nil {
		if k, ok := parseLink(e.Reason); ok && k.size <= v.tree.n {
			k.seq = v.tree.n
			v.links = append(v.links, k)
		}
	}
}

// checkForeign accepts the checkpoints of other keys only where the key to
// trust has signed an entry that says that it, or a key after them, took over
// at their last head.
func (v *verifier) checkForeign() error {
	for _, f := range v.others {
		linked := slices.ContainsFunc(v.links, func(k link) bool {
			return k.seq < v.rep.Signed && k.old == f.key && k.size == f.last.size && k.root == f.last.root
		})
		if !linked {
			return v.notOurs(f.key, f.line)
		}
	}
	return nil
}

// explain names the first entry that is not the signed one, between the last
// checkpoint that fits and the next one. seen is what was wrong where the run
// stopped, "" for nothing but the next checkpoint itself.
//
// The hash file may say which entry, once it is proved to lead to that
// checkpoint.
func (v *verifier) explain(seen string) error {
	here := func(format string, args ...any) error {
		p := Problem{Seq: v.tree.n, Line: v.at.line + 1, What: fmt.Sprintf(format, args...)}
		if v.at.num > 0 {
			p.File = segmentName(v.at.num)
		}
		return &found{p}
	}
	// The next checkpoint of our key is what can be trusted.
	for v.next != nil && !v.next.trusted {
		c, ok := <-v.checkpoints
		if !ok || c.err != nil || c.problem != "" {
			v.next = nil
		} else {
			v.next = &c
		}
	}
	c := v.next
	if c == nil {
		if seen == "" {
			return &found{Problem{Seq: -1, File: checkpointsName, What: "a checkpoint of another key does not fit the entries"}}
		}
		v.unsigned = true
		return here("%s", seen)
	}
	hashes, err := os.Open(filepath.Join(v.dir, hashesName))
	if err == nil {
		defer hashes.Close()
		want := v.good.clone()
		for want.n < c.size && err == nil {
			var leaf tlog.Hash
			if leaf, err = readHash(hashes, tlog.StoredHashIndex(0, want.n)); err == nil {
				want.add(leaf)
			}
		}
		if err == nil && want.root() != c.root {
			err = errors.New("the file hashes does not lead to the signed head")
		}
	}
	if err != nil {
		if seen != "" {
			return here("%s (the file hashes, which could tell whether an entry before it was changed, is damaged too)", seen)
		}
		first := v.goodAt
		return &found{Problem{Seq: v.good.n, File: segmentName(max(first.num, 1)), Line: first.line + 1,
			What: fmt.Sprintf("one of the entries %d to %d is not the one that was signed (the file hashes, which could tell which, is damaged too)", v.good.n, c.size-1)}}
	}
	return v.findChanged(hashes, c, seen)
}

// findChanged reads again from the last good checkpoint, leaf by leaf.
func (v *verifier) findChanged(hashes *os.File, c *checked, seen string) error {
	seq, at := v.good.n, v.goodAt
	if at.num == 0 {
		at.num = 1
	}
	problem := func(format string, args ...any) error {
		return &found{Problem{Seq: seq, File: segmentName(at.num), Line: at.line + 1, What: fmt.Sprintf(format, args...)}}
	}
	// Beyond c.size these are not proved: good enough to say what a line is
	// that is in the wrong place anyway.
	leaf := func(n int64) tlog.Hash {
		h, _ := readHash(hashes, tlog.StoredHashIndex(0, n))
		return h
	}
	for {
		in, err := newLineReader(v.dir, at.num, at.off)
		if errors.Is(err, fs.ErrNotExist) {
			at.line = -1
			nums, err := listSegments(v.dir)
			if err != nil {
				return err
			}
			if len(nums) > 0 && at.num < nums[len(nums)-1] {
				return problem("the segment is missing, and with it entry %d", seq)
			}
			at.num = max(1, at.num-1)
			return problem("the log ends before entry %d, but %d entries were signed", seq, c.size)
		}
		if err != nil {
			return err
		}
		defer in.Close()
		for seq < c.size {
			line, err := in.next()
			if err == io.EOF {
				if len(line) > 0 {
					return problem("entry %d is cut short", seq)
				}
				break
			}
			if err != nil && err != errLong {
				return err
			}
			hash := tlog.RecordHash(line)
			if hash == leaf(seq) {
				seq++
				at.line++
				continue
			}
			h, herr := parseHead(line)
			switch {
			case err == errLong:
				return problem("entry %d was changed: it %v", seq, err)
			case herr != nil:
				return problem("entry %d was changed: the line %v", seq, herr)
			case h.seq == seq:
				return problem("entry %d was changed", seq)
			case h.seq < seq && hash == leaf(h.seq):
				return problem("entry %d is here again, where entry %d should be", h.seq, seq)
			case h.seq > seq && hash == leaf(h.seq):
				follower := h.seq
				if after, err := in.next(); err == nil && tlog.RecordHash(after) == leaf(seq) {
					return problem("entry %d comes before entry %d", follower, seq)
				}
				if follower == seq+1 {
					return problem("entry %d is missing: entry %d is in its place", seq, follower)
				}
				return problem("the entries %d to %d are missing: entry %d is in their place", seq, follower-1, follower)
			}
			return problem("entry %d was changed: the line says that it is entry %d", seq, h.seq)
		}
		if seq == c.size {
			// All is as it was signed, so the log has just been mended.
			if seen == "" {
				seen = "the entries changed while they were read"
			}
			v.unsigned = true
			return problem("%s", seen)
		}
		at = position{num: at.num + 1}
	}
}

// openCheckpoints opens the checkpoints file and says how much of it to read;
// f is nil when there is none.
func openCheckpoints(dir string) (f *os.File, size int64, err error) {
	f, err = os.Open(filepath.Join(dir, checkpointsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// readCheckpoints sends the checkpoints of the file, their signatures
// checked. It ends after the first problem.
func readCheckpoints(ctx context.Context, f io.ReaderAt, size int64, key note.Verifier, feed chan<- checked) {
	send := func(c checked) bool {
		select {
		case feed <- c:
			return c.problem == "" && c.err == nil
		case <-ctx.Done():
			return false
		}
	}
	ours := keyID{key.Name(), key.KeyHash()}
	known := note.VerifierList(key)
	in := io.NewSectionReader(f, 0, size)
	var buf []byte
	line := int64(1)
	for eof := false; ; {
		c, n, err := nextCheckpoint(buf)
		// At the end of what was read, more may belong to it.
		if !eof && (err == errCheckpointTorn && len(buf) <= maxCheckpoint || err == nil && n == len(buf)) {
			more := make([]byte, 64<<10)
			m, rerr := in.Read(more)
			if rerr != nil && rerr != io.EOF {
				send(checked{err: rerr})
				return
			}
			eof = rerr == io.EOF
			buf = append(buf, more[:m]...)
			continue
		}
		if len(buf) == 0 {
			return
		}
		out := checked{checkpoint: c, line: line}
		switch {
		case err == errCheckpointTorn && bytes.HasPrefix([]byte(key.Name()+"\n"), buf[:min(len(buf), len(key.Name())+1)]):
			return // being written, or torn: it never counted
		case err != nil:
			out.problem = err.Error()
		case c.signedBy(ours):
			out.trusted = true
			if _, err := note.Open(c.note, known); err != nil {
				out.problem = "the checkpoint's signature is not one of the key to trust: " + err.Error()
			}
		}
		if out.trusted && c.origin != key.Name() {
			out.problem = fmt.Sprintf("a checkpoint of another log, %q", c.origin)
		}
		if !send(out) {
			return
		}
		line += int64(bytes.Count(buf[:n], []byte("\n")))
		buf = buf[n:]
	}
}

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
	linked     bool
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
		s.linked = string(h.event) == string(broker.EventLogLinked)
		s.hash = leafHash(c.buf, start, end)
		c.lines = append(c.lines, s)
		start = end + 1
	}
	c.done <- struct{}{}
}

// readChunks reads the segments, and has their lines hashed by as many
// goroutines as there are processors. The chunks come in order.
func readChunks(ctx context.Context, wg *sync.WaitGroup, dir string, nums []int, from int64) <-chan *chunk {
	workers := min(runtime.GOMAXPROCS(0), 4)
	size := int64(minChunk)
	for _, num := range nums {
		if info, err := os.Stat(filepath.Join(dir, segmentName(num))); err == nil {
			size = min(max(size, info.Size()), maxChunk)
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
			if num != i+1 {
				if c := take(i + 1); c != nil {
					c.problem = fmt.Sprintf("the segment %s is missing", segmentName(i+1))
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
		c.err = err
		give(c)
		return false
	}
	f, err := openSegment(dir, num, 0)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	in := io.LimitReader(f, info.Size()) // a writer may be faster than we are
	fill := 1                            // where the next bytes go
	for {
		n, err := io.ReadFull(in, c.buf[fill:])
		fill += n
		eof := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !eof {
			return fail(err)
		}
		c.end = 1 + bytes.LastIndexByte(c.buf[1:fill], '\n') + 1
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
