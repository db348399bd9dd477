package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// A powerFS remembers each step that changes the disk, so that it can tell
// what a power cut could have left after any of them. Nothing is synced.
//
// Times are numbers of steps: time k is when the first k of them were done.
type powerFS struct {
	audit.OSFS
	mu    sync.Mutex
	fail  func(op, name string) bool // what is not done, if set
	log   []string                   // what each step did
	now   map[string]*powerFile
	start map[string]*powerFile // now, at time 0
	names []rename
	syncs []syncSpan     // of the directory
	acked map[string]int // since when a durable entry counts as written
	heads []sentHead
}

// A rename is a change of names: a new file has no from, a removed one no to.
type rename struct {
	at       int
	from, to string
	file     *powerFile
}

// A syncSpan is what a sync covers, and when it was done.
type syncSpan struct{ upTo, at int }

// A sentHead is a checkpoint that has left the machine.
type sentHead struct {
	at   int
	note []byte
}

// A powerFile is a file by whatever name.
type powerFile struct {
	versions []version // the first one is the file at time 0, or as it was created
	events   []fileEvent
}

type version struct {
	at   int
	data []byte
}

// A fileEvent is a write, a truncation of what was longer, or a sync.
type fileEvent struct {
	at       int
	from, to int64 // bytes that were written, or cut off
	cut      bool
	sync     bool
	failed   bool
	upTo     int // what the sync covers
}

// newPowerFS is for a directory of which all is on disk.
func newPowerFS(im image) *powerFS {
	p := &powerFS{now: map[string]*powerFile{}, acked: map[string]int{}}
	for name, b := range im {
		p.now[name] = &powerFile{versions: []version{{-1, b}}}
	}
	delete(p.now, "lock") // not a part of the log
	p.start = maps.Clone(p.now)
	return p
}

// killed returns a powerFS that goes on after step k with another process: what
// was not on disk still is not.
func (p *powerFS) killed(k int) *powerFS {
	q := &powerFS{log: slices.Clone(p.log[:k]), acked: map[string]int{}}
	files := map[*powerFile]*powerFile{}
	file := func(f *powerFile) *powerFile {
		if files[f] == nil {
			g := &powerFile{}
			for _, v := range f.versions {
				if v.at < k {
					g.versions = append(g.versions, v)
				}
			}
			for _, e := range f.events {
				if e.at < k {
					g.events = append(g.events, e)
				}
			}
			files[f] = g
		}
		return files[f]
	}
	q.start = map[string]*powerFile{}
	for name, f := range p.start {
		q.start[name] = file(f)
	}
	q.now = maps.Clone(q.start)
	for _, n := range p.names {
		if n.at < k {
			n.file = file(n.file)
			q.names = append(q.names, n)
			delete(q.now, n.from)
			if n.to != "" {
				q.now[n.to] = n.file
			}
		}
	}
	for _, s := range p.syncs {
		if s.at < k {
			q.syncs = append(q.syncs, s)
		}
	}
	return q
}

func (p *powerFS) stepLocked(format string, args ...any) (at int) {
	p.log = append(p.log, fmt.Sprintf(format, args...))
	return len(p.log) - 1
}

func (p *powerFS) failsLocked(op, name string) bool {
	return p.fail != nil && p.fail(op, filepath.Base(name))
}

func (p *powerFS) set(fail func(op, name string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = fail
}

// ack is told of each durable entry, once it was acknowledged.
func (p *powerFS) ack(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked[reason] = len(p.log)
}

func (p *powerFS) Anchor(_ context.Context, head []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heads = append(p.heads, sentHead{len(p.log), head})
	return nil
}

func (p *powerFS) OpenFile(name string, flag int, perm fs.FileMode) (audit.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	base := filepath.Base(name)
	if p.failsLocked("open", name) {
		return nil, errFault
	}
	file := p.now[base]
	if file == nil && p.failsLocked("create", name) {
		return nil, errFault
	}
	f, err := p.OSFS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	if file == nil {
		at := p.stepLocked("create %s", base)
		file = &powerFile{versions: []version{{-1, nil}}}
		p.names = append(p.names, rename{at, "", base, file})
		p.now[base] = file
	}
	h := &powerHandle{f, p, file, base}
	if flag&os.O_TRUNC != 0 {
		h.truncatedLocked(0)
	}
	return h, nil
}

func (p *powerFS) Rename(from, to string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.OSFS.Rename(from, to); err != nil {
		return err
	}
	from, to = filepath.Base(from), filepath.Base(to)
	at := p.stepLocked("rename %s to %s", from, to)
	p.names = append(p.names, rename{at, from, to, p.now[from]})
	p.now[to] = p.now[from]
	delete(p.now, from)
	return nil
}

func (p *powerFS) Remove(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.OSFS.Remove(name); err != nil {
		return err
	}
	base := filepath.Base(name)
	at := p.stepLocked("remove %s", base)
	p.names = append(p.names, rename{at, base, "", p.now[base]})
	delete(p.now, base)
	return nil
}

func (p *powerFS) SyncDir(string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.stepLocked("sync the directory")
	p.syncs = append(p.syncs, syncSpan{at, at})
	return nil
}

// A powerHandle is an open file.
type powerHandle struct {
	audit.File
	fs   *powerFS
	file *powerFile
	name string
}

func (h *powerHandle) WriteAt(b []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	n, err := h.File.WriteAt(b, off)
	if n > 0 {
		at := h.fs.stepLocked("write %d bytes at %d of %s", n, off, h.name)
		end := off + int64(n)
		data := make([]byte, max(int64(len(h.file.at(at))), end))
		copy(data, h.file.at(at))
		copy(data[off:], b[:n])
		h.file.versions = append(h.file.versions, version{at, data})
		h.file.events = append(h.file.events, fileEvent{at: at, from: off, to: end})
	}
	return n, err
}

func (h *powerHandle) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.fs.failsLocked("truncate", h.name) {
		return errFault
	}
	err := h.File.Truncate(size)
	if err == nil {
		h.truncatedLocked(size)
	}
	return err
}

func (h *powerHandle) truncatedLocked(size int64) {
	old := h.file.at(len(h.fs.log))
	if int64(len(old)) == size {
		return
	}
	at := h.fs.stepLocked("truncate %s to %d bytes", h.name, size)
	data := make([]byte, size)
	copy(data, old)
	h.file.versions = append(h.file.versions, version{at, data})
	h.file.events = append(h.file.events, fileEvent{at: at, from: size, to: int64(len(old)), cut: true})
}

func (h *powerHandle) Sync() error {
	h.fs.mu.Lock()
	upTo := len(h.fs.log)
	h.fs.mu.Unlock()
	for range 50 {
		runtime.Gosched() // others write meanwhile, and that is not covered
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	failed := h.fs.failsLocked("sync", h.name)
	at := h.fs.stepLocked("sync %s, failed %v", h.name, failed)
	h.file.events = append(h.file.events, fileEvent{at: at, sync: true, failed: failed, upTo: upTo})
	if failed {
		return errFault
	}
	return nil
}

// at returns the file's bytes at time k, as programs read them.
func (f *powerFile) at(k int) []byte {
	i := len(f.versions) - 1
	for f.versions[i].at >= k {
		i--
	}
	return f.versions[i].data
}

// left returns what a power cut at time k leaves of the file: of its size, and
// of each block, one of the states since they were last known to be on disk. A
// block that was not there yet is zeros. pick chooses a time.
func (f *powerFile) left(k int, block int64, pick func(low, high int) int) []byte {
	type dirt struct {
		low         int // the block at this time is on disk
		since, last int // of the writes that are not; a failed sync forgets them
		dirty       bool
	}
	blocks := map[int64]*dirt{}
	size := 0 // the size at this time is on disk
	for _, e := range f.events {
		switch {
		case e.at >= k:
		case e.sync:
			if !e.failed {
				size = e.upTo
			}
			for _, b := range blocks {
				if !b.dirty || b.since >= e.upTo {
					continue
				}
				if !e.failed {
					b.low = e.upTo
				}
				b.dirty, b.since = b.last >= e.upTo, b.last
			}
		case !e.cut:
			for i := e.from / block; i*block < e.to; i++ {
				b := blocks[i]
				if b == nil {
					b = &dirt{}
					blocks[i] = b
				}
				if !b.dirty {
					b.dirty, b.since = true, e.at
				}
				b.last = e.at
			}
		}
	}
	when := pick(size, k)
	data := make([]byte, len(f.at(when)))
	for off := int64(0); off < int64(len(data)); off += block {
		low := 0
		if b := blocks[off/block]; b != nil {
			low = b.low
		}
		of := pick(low, k)
		// What was cut off is gone with the size, and comes back with it.
		for _, e := range f.events {
			if e.at < k && e.cut && e.from < off+block && off < e.to {
				if when > e.at {
					of = max(of, e.at+1)
				} else {
					of = min(of, e.at)
				}
			}
		}
		if b := f.at(of); off < int64(len(b)) {
			copy(data[off:min(off+block, int64(len(data)))], b[off:])
		}
	}
	return data
}

// A cut chooses among what a power cut may leave.
type cut struct {
	block int64                                      // in bytes; of 64, so that one checkpoint is in several, as it can be in two of a disk's
	data  func(r *rand.Rand) func(low, high int) int // for each file
	names func(r *rand.Rand, last bool) bool         // whether a change that is not on disk yet is there; the last one of all
	order bool                                       // then so are those before it, as with a journal

	killed bool // the process ends here, and the power fails in the next run
}

func low(low, _ int) int   { return low }
func high(_, high int) int { return high }

func oldData(*rand.Rand) func(int, int) int { return low }
func newData(*rand.Rand) func(int, int) int { return high }
func someData(r *rand.Rand) func(int, int) int {
	switch r.IntN(5) {
	case 0:
		return low
	case 1:
		return high
	}
	return func(low, high int) int {
		switch r.IntN(3) {
		case 0:
			return low
		case 1:
			return high
		}
		return low + r.IntN(high-low+1)
	}
}

func oldNames(*rand.Rand, bool) bool        { return false }
func newNames(*rand.Rand, bool) bool        { return true }
func lastName(_ *rand.Rand, last bool) bool { return last }

// cuts are the states that are tried after one step.
func cuts(r *rand.Rand, random int) []cut {
	all := []cut{
		{64, newData, newNames, true, true},
		{64, oldData, oldNames, true, false},
		{64, oldData, newNames, true, false},
		{64, newData, oldNames, true, false},
		{64, newData, newNames, true, false},
		{64, newData, lastName, false, false},
	}
	for range random {
		p := r.Float64()
		all = append(all, cut{[]int64{64, 512, 4096}[r.IntN(3)], someData, func(r *rand.Rand, _ bool) bool { return r.Float64() < p }, r.IntN(2) == 0, false})
	}
	return all
}

// left returns what a power cut at time k leaves of the directory.
func (p *powerFS) left(k int, c cut, r *rand.Rand) image {
	synced := 0
	for _, s := range p.syncs {
		if s.at < k {
			synced = max(synced, s.upTo)
		}
	}
	changes := p.names
	for i, n := range p.names {
		if n.at >= k {
			changes = p.names[:i]
			break
		}
	}
	names := maps.Clone(p.start)
	for i, n := range changes {
		if n.at >= synced && !c.names(r, i == len(changes)-1) {
			if c.order {
				break
			}
			continue
		}
		if n.from != "" && names[n.from] == n.file {
			delete(names, n.from)
		}
		if n.to != "" {
			names[n.to] = n.file
		}
	}
	im := image{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		im[name] = names[name].left(k, c.block, c.data(r))
	}
	return im
}

// powerEnv is how many random states are tried after each step, and of what
// seed, where it is to be more than a few.
const powerEnv = "GATEPASS_POWER" // "10 2" is ten of seed 2

// A powerCase is a life of a log before the power cut.
type powerCase struct {
	opts  audit.Options
	key   testKey
	old   testKey // of the log so far, if it is another one
	fs    *powerFS
	until time.Time
}

// TestPower cuts the power after each step that the writer does, in many ways,
// and demands: what was acknowledged and what was signed is there once, the log
// verifies and goes on. Now and then the power fails again while it is opened.
func TestPower(t *testing.T) {
	random, seed := 1, uint64(1)
	if s := os.Getenv(powerEnv); s != "" {
		if _, err := fmt.Sscanf(s+" 1", "%d %d", &random, &seed); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range powerScenes {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c := &powerCase{key: newKey(t), opts: audit.Options{Dir: logDir(t)}}
			synctest.Test(t, func(t *testing.T) {
				s.live(t, c)
				c.until = time.Now()
			})
			c.cut(t, random, seed)
		})
	}
}

// begin opens the log, and remembers what it does to the disk.
func (c *powerCase) begin(t *testing.T) *audit.Log {
	if c.fs == nil {
		im := image{}
		if exists(c.opts.Dir) {
			im = read(t, c.opts.Dir)
		}
		c.fs = newPowerFS(im)
	}
	opts := c.opts
	opts.Signer, opts.Anchor = c.key.Signer, c.fs.Anchor
	return openAsIs(t, opts.WithFS(c.fs))
}

func (c *powerCase) put(t *testing.T, l *audit.Log, reason string, durable bool) {
	e := event(0)
	e.Reason = reason
	if err := l.Append(t.Context(), e, durable); err == nil && durable {
		c.fs.ack(reason)
	}
}

func (c *powerCase) writers(t *testing.T, l *audit.Log, run string) {
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range 4 {
				c.put(t, l, fmt.Sprintf("%s-%d-%d", run, w, i), (i+w)%3 > 0)
				if i == 2 {
					time.Sleep(time.Duration(w) * 5 * time.Second)
				}
			}
		})
	}
	wg.Wait()
}

// cut cuts the power after each step.
func (c *powerCase) cut(t *testing.T, random int, seed uint64) {
	type state struct {
		sum    uint64
		acked  int
		killed bool
	}
	done, hash := map[state]bool{}, maphash.MakeSeed()
	n, few := 0, random < 2
	for k := range len(c.fs.log) + 1 {
		r := rand.New(rand.NewPCG(seed, uint64(k)))
		for i, how := range cuts(r, random) {
			im := c.fs.left(k, how, r)
			acked := c.fs.ackedAt(k)
			var b []byte
			for _, name := range slices.Sorted(maps.Keys(im)) {
				b = fmt.Appendf(b, "%s %d %s", name, len(im[name]), im[name])
			}
			s := state{maphash.Bytes(hash, b), len(acked) + len(c.fs.headsAt(k)), how.killed}
			if done[s] || how.killed && few && r.IntN(2) > 0 || raceEnabled && r.IntN(8) > 0 {
				continue // what could race was before
			}
			done[s] = true
			n++
			where := fmt.Sprintf("seed %d, state %d after step %d of %d", seed, i, k, len(c.fs.log))
			again := newPowerFS(im)
			if how.killed {
				where += ", killed"
				again = c.fs.killed(k)
			}
			begin := len(again.log)
			synctest.Test(t, func(t *testing.T) { c.survive(t, im, c.fs, again, k, where) })
			if t.Failed() {
				c.tell(t, im, c.fs.log[:k])
				return
			}
			if !how.killed && n%8 > 0 {
				continue
			}
			// And again, while it is opened or goes on.
			k2 := begin + r.IntN(len(again.log)-begin+1)
			i2 := 1 + r.IntN(7)
			if how.killed && r.IntN(2) == 0 {
				i2 = 3 // the names that the process before left are not on disk yet
			}
			how = cuts(r, 2)[i2]
			im2 := again.left(k2, how, r)
			where += fmt.Sprintf(", and then state %d after step %d of %d", i2, k2, len(again.log))
			synctest.Test(t, func(t *testing.T) { c.survive(t, im2, again, newPowerFS(im2), k2, where) })
			if t.Failed() {
				c.tell(t, im, c.fs.log[:k])
				c.tell(t, im2, again.log[begin:k2])
				return
			}
		}
	}
	t.Logf("%d steps, %d states", len(c.fs.log), n)
}

// tell tells of the last steps, and of what they left.
func (c *powerCase) tell(t *testing.T, im image, log []string) {
	t.Logf("the last steps:\n%s", strings.Join(log[max(0, len(log)-25):], "\n"))
	for _, name := range slices.Sorted(maps.Keys(im)) {
		short := im[name]
		if i := bytes.IndexByte(short, 0); i >= 0 && name != "hashes" {
			t.Logf("%s: %d bytes, zeros at %d", name, len(short), i)
		} else {
			t.Logf("%s: %d bytes", name, len(short))
		}
	}
}

func (p *powerFS) ackedAt(k int) (reasons []string) {
	for reason, at := range p.acked {
		if at <= k {
			reasons = append(reasons, reason)
		}
	}
	return reasons
}

func (p *powerFS) headsAt(k int) (heads [][]byte) {
	for _, h := range p.heads {
		if h.at <= k {
			heads = append(heads, h.note)
		}
	}
	return heads
}

// survive opens what a power cut at time k has left, goes on with it, and holds
// it against what was promised until then; again remembers what that does to the
// disk.
func (c *powerCase) survive(t *testing.T, im image, before, again *powerFS, k int, where string) {
	t.Helper()
	opts := c.opts
	opts.Dir = filepath.Join(t.TempDir(), "audit")
	im.write(t, opts.Dir)
	acked, heads := before.ackedAt(k), before.headsAt(k)

	for _, head := range heads {
		if !bytes.Contains(im["checkpoints"], head) {
			t.Errorf("%s: a checkpoint was sent away and is not there:\n%s", where, head)
		}
	}
	var last audit.Head
	for _, key := range []testKey{c.key, c.old} {
		if head, err := audit.NewestHead(opts.Dir, key.verifier); err == nil {
			last = head
		}
	}
	rep, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: opts.Dir, Key: c.key.verifier})
	if err != nil && c.old.verifier != "" {
		// The new key has signed nothing yet.
		rep, err = audit.Verify(t.Context(), audit.VerifyOptions{Dir: opts.Dir, Key: c.old.verifier})
	}
	switch {
	case err == nil:
	case broker.CodeOf(err) == broker.CodeNotFound && len(acked) == 0:
		// The log was not begun.
	case rep.Problem != nil && rep.Problem.Seq >= last.Size:
		// Entries that were not signed may be there in part until the log is opened.
	case rep.Problem != nil && rep.Problem.File == "checkpoints" && unfinished(im["checkpoints"], last.Checkpoint, rep.Problem.Line):
		// A checkpoint that was not finished is cut off when the log is
		// opened. Where it has zeros, Verify cannot tell that from one that
		// was changed.
	default:
		t.Errorf("%s: with %d entries signed: %v", where, last.Size, err)
	}

	for _, reason := range acked {
		again.acked[reason] = len(again.log)
	}
	for _, h := range heads {
		again.heads = append(again.heads, sentHead{len(again.log), h})
	}
	now := time.Now()
	opts.Signer, opts.Anchor, opts.Now = c.key.Signer, again.Anchor, func() time.Time { return c.until.Add(time.Since(now)) }
	l, err := audit.Open(t.Context(), opts.WithFS(again))
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	e := event(0)
	e.Reason = "after " + where
	if err := l.Append(t.Context(), e, true); err != nil {
		t.Errorf("%s: %v", where, err)
	}
	again.ack(e.Reason)
	settle()
	put(t, l, 1, false)
	if err := l.Close(t.Context()); err != nil {
		t.Errorf("%s: close: %v", where, err)
	}
	against := filepath.Join(filepath.Dir(opts.Dir), "heads")
	if err := os.WriteFile(against, bytes.Join(again.headsAt(len(again.log)), []byte("\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if len(again.heads) == 0 {
		against = ""
	}
	if rep, err = audit.Verify(t.Context(), audit.VerifyOptions{Dir: opts.Dir, Key: c.key.verifier, Against: against}); err != nil || rep.Unsigned > 0 {
		t.Errorf("%s: in the end %+v, %v", where, rep, err)
		return
	}
	found := map[string]int{}
	for line, err := range audit.Entries(t.Context(), opts.Dir, audit.Query{Event: []string{string(broker.EventCredentialsServed)}}) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := line.Entry()
		if err != nil {
			t.Fatal(err)
		}
		found[e.Reason]++
	}
	for reason := range again.acked {
		if found[reason] == 0 {
			t.Errorf("%s: %s was acknowledged and is not there", where, reason)
		}
	}
	for reason, n := range found {
		if n > 1 && reason != "" {
			t.Errorf("%s: %s is there %d times", where, reason, n)
		}
	}
	// They could be, but of removed entries there would be no hashes any more.
	for line, err := range audit.Entries(t.Context(), opts.Dir, audit.Query{Event: []string{string(broker.EventLogRecovered)}}) {
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(line.Raw, []byte("computed the file hashes again")) {
			t.Errorf("%s: the hashes were not on disk before the checkpoint", where)
		}
	}
}

// unfinished reports whether a line is where the checkpoint after the last one
// begins, and that has zeros.
func unfinished(checkpoints, last []byte, line int64) bool {
	rest := checkpoints
	if last != nil {
		end := bytes.LastIndex(checkpoints, last) + len(last)
		rest = bytes.TrimPrefix(checkpoints[end:], []byte("\n"))
	}
	before := checkpoints[:len(checkpoints)-len(rest)]
	return bytes.IndexByte(rest, 0) >= 0 && line == int64(bytes.Count(before, []byte("\n")))+1
}

var powerScenes = []struct {
	name string
	live func(t *testing.T, c *powerCase)
}{
	{"first start", func(t *testing.T, c *powerCase) {
		l := c.begin(t)
		c.put(t, l, "first", true)
		settle()
		c.put(t, l, "second", false)
		shut(t, l)
	}},
	{"writers", func(t *testing.T, c *powerCase) {
		c.opts.SegmentSize = 6 << 10
		c.opts = c.opts.Plain()
		l := c.begin(t)
		c.writers(t, l, "one")
		settle()
		c.put(t, l, "not yet signed", true)
		c.put(t, l, "not yet synced", false)
		audit.Abandon(l)
		l = c.begin(t)
		c.writers(t, l, "two")
		shut(t, l)
	}},
	{"repair", func(t *testing.T, c *powerCase) {
		c.opts.SegmentSize = 6 << 10
		c.opts = c.opts.Plain()
		l := c.begin(t)
		c.put(t, l, "before", true)
		synctest.Wait()
		for _, late := range []bool{false, true} {
			bad := slices.Max(slices.Collect(maps.Keys(read(t, c.opts.Dir).segments())))
			c.fs.set(func(op, name string) bool {
				return name == bad && (op == "sync" || late && op == "open")
			})
			c.writers(t, l, fmt.Sprintf("late %v", late))
			c.fs.set(nil)
			c.put(t, l, fmt.Sprintf("goes on, late %v", late), true)
			settle()
		}
		shut(t, l)
	}},
	{"killed after a failed sync", func(t *testing.T, c *powerCase) {
		c.opts.SegmentSize = 6 << 10
		c.opts = c.opts.Plain()
		l := c.begin(t)
		c.put(t, l, "before", true)
		settle()
		for i, bad := range []string{"000001.jsonl", "checkpoints", "checkpoints"} {
			c.fs.set(func(op, name string) bool {
				return op == "sync" && name == bad || op == "truncate" && name == bad || op == "create" && name == "000002.jsonl"
			})
			c.put(t, l, fmt.Sprint("failed ", i), true)
			c.put(t, l, fmt.Sprint("failed and not durable ", i), false)
			settle()
			audit.Abandon(l)
			if i < 2 {
				c.fs.set(nil)
			}
			l = c.begin(t)
			c.fs.set(nil)
			c.put(t, l, fmt.Sprint("goes on ", i), true)
			settle()
		}
		shut(t, l)
	}},
	{"keep", func(t *testing.T, c *powerCase) {
		c.opts.SegmentSize, c.opts.Keep = 5<<10, 100*24*time.Hour
		c.opts.Signer = c.key.Signer
		shut(t, prunable(t, c.opts.Plain(), 3))
		l := c.begin(t)
		for i := range 3 {
			c.put(t, l, fmt.Sprint("entry ", i), i != 1)
			settle()
		}
		shut(t, l)
	}},
	{"keep, the first one empty", func(t *testing.T, c *powerCase) {
		c.opts.SegmentSize, c.opts.Keep = 5<<10, 100*24*time.Hour
		c.opts.Signer = c.key.Signer
		fsys := &faultFS{}
		fsys.set(func(op, name string) outcome {
			if op == "sync" && name == "000001.jsonl" {
				return fails
			}
			return fine
		})
		l := openAsIs(t, c.opts.Plain().WithFS(fsys))
		put(t, l, 1, true)
		fsys.set(nil)
		shut(t, l)
		shut(t, prunable(t, c.opts.Plain(), 4))
		l = c.begin(t)
		for i := range 3 {
			c.put(t, l, fmt.Sprint("entry ", i), i != 1)
			settle()
		}
		shut(t, l)
	}},
	{"new key", func(t *testing.T, c *powerCase) {
		c.old = newKey(t)
		c.opts.SegmentSize = 6 << 10
		opts := c.opts
		opts.Signer = c.old.Signer
		l := open(t, opts)
		put(t, l, 3, true)
		shut(t, l)
		l = c.begin(t)
		c.put(t, l, "one", true)
		c.put(t, l, "two", false)
		settle()
		c.put(t, l, "three", true)
		shut(t, l)
	}},
}

func (im image) segments() map[string][]byte {
	s := map[string][]byte{}
	for name, b := range im {
		if strings.HasSuffix(name, ".jsonl") {
			s[name] = b
		}
	}
	return s
}
