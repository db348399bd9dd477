package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	// Against is a file of checkpoints that were kept elsewhere, of which
	// the log must be a continuation: those that [NewestHead] returned, or
	// that Anchor in [Options] was given. "" is none. The one that the file
	// anchored remembers is always among them.
	Against string
}

// A Report is what [Verify] found.
type Report struct {
	Entries     int64         `json:"entries"`
	Bytes       int64         `json:"bytes"`
	Segments    int           `json:"segments"`
	Pruned      int64         `json:"pruned,omitempty"`  // of the entries, so many, the first ones, were removed
	Checkpoints int64         `json:"checkpoints"`       // read, and found to fit the entries
	Signed      int64         `json:"signed"`            // so many entries, the first ones, are signed by the key
	Unsigned    int64         `json:"unsigned"`          // entries after them
	Partial     int64         `json:"partial,omitempty"` // bytes of a last line that is still being written, or was torn
	Against     int64         `json:"against,omitempty"` // checkpoints kept elsewhere that the entries fit
	Anchored    broker.Anchor `json:"anchored,omitzero"` // as the file beside the log tells
	Earlier     []string      `json:"earlier,omitempty"` // keys of which the log was before, by name and hash
	First       time.Time     `json:"first,omitzero"`    // time of the first entry
	Last        time.Time     `json:"last,omitzero"`     // time of the last entry
	Problem     *Problem      `json:"problem,omitempty"` // the first one; the numbers above are up to it
}

// A Problem is the first thing in a log that is not as it was signed.
type Problem struct {
	Seq  int64  `json:"seq"`            // the entry, -1 when it is about none
	File string `json:"file,omitempty"` // in the log's directory, or Against
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
// problem, which is also in the report. Without a problem in the report, a
// [broker.CodeData] is about the key or the file to hold it against; a log or a
// file that is not there is a [broker.CodeNotFound], and one that cannot be read
// a [broker.CodeConfig].
func Verify(ctx context.Context, opts VerifyOptions) (Report, error) {
	key, err := note.NewVerifier(opts.Key)
	if err != nil {
		return Report{}, broker.Errorf(broker.CodeData, "verify the audit log: the key to trust: %w", err)
	}
	var kept []kept
	if opts.Against != "" {
		if kept, err = readAgainst(opts.Against, key); err != nil {
			return Report{}, fmt.Errorf("verify the audit log against a checkpoint: %w", err)
		}
	}
	var rep Report
	// A daemon that has just cut off a torn line and written another in its
	// place can be seen halfway. So a problem after the last checkpoint must
	// be there again.
	for try := 0; ; try++ {
		v := &verifier{dir: opts.Dir, key: key, kept: slices.Clone(kept)}
		rep, err = v.verify(ctx)
		switch {
		case ctx.Err() != nil:
			return rep, ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			moved, lerr := v.moved()
			if moved {
				try = -1 // it was pruned meanwhile, which it cannot be for ever
				continue
			}
			if lerr == nil && try < 2 {
				continue
			}
			return rep, broker.Errorf(broker.CodeNotFound, "verify the audit log: %w", err).WithHint(noLogHint)
		case err != nil:
			return rep, broker.Errorf(broker.CodeConfig, "verify the audit log: %w", err)
		case rep.Problem == nil:
			return rep, nil
		case !v.unsigned || try == 2:
			return rep, broker.Errorf(broker.CodeData, "verify the audit log: %s", rep.Problem)
		}
	}
}

// A verifier is one run over the log.
type verifier struct {
	dir string
	key note.Verifier

	rep      Report
	oldest   int             // the number of the first segment that is there, 0 without any
	first    int             // of the one that is to be
	pruned   tree            // over the entries that were removed
	stored   tlog.HashReader // their hashes, nil without
	tree     tree
	at       position // of the line after the tree's last leaf
	good     tree     // at the last checkpoint that fits
	goodAt   position
	unsigned bool // the problem is in what no checkpoint covers

	checkpoints <-chan checked
	next        *checked // the one to come
	others      []foreign
	links       []link
	saidPruned  int64 // the entry that says so of pruned; -1 for none

	kept   []kept // checkpoints that left this machine, ascending
	passed int    // so many of them the tree was held against
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

func (v *verifier) verify(ctx context.Context) (Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	// The order is what makes it safe to read beside a daemon: the entry about
	// a pruning is signed before the edge of the tree is written down, an
	// entry is on disk before a checkpoint that covers it, and that before it
	// is sent away.
	if err := v.readAnchored(); err != nil {
		return v.result(err)
	}
	if err := v.readEdge(); err != nil {
		return v.result(err)
	}
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
	if oldest(nums) != v.oldest {
		return v.rep, errPrunedMeanwhile
	}
	if v.pruned.n > 0 {
		v.tree, v.good = v.pruned.clone(), v.pruned.clone()
		v.rep.Pruned = v.pruned.n
		if f, err := os.Open(filepath.Join(v.dir, hashesName)); err == nil {
			defer f.Close()
			v.stored = storedHashes(f)
		}
	}
	v.goodAt = position{num: v.first}
	feed := make(chan checked, 16)
	v.checkpoints = feed
	wg.Go(func() {
		defer close(feed)
		if cps != nil {
			readCheckpoints(ctx, cps, size, v.key, feed)
		}
	})
	chunks := readChunks(ctx, &wg, v.dir, nums, v.first, claimed)

	return v.result(v.run(ctx, chunks))
}

// errPrunedMeanwhile is a [fs.ErrNotExist] as that of a segment that is
// removed before it is opened.
var errPrunedMeanwhile = fmt.Errorf("the first segment %w any more", fs.ErrNotExist)

// readEdge finds the first segment, and the tree before it.
func (v *verifier) readEdge() error {
	nums, err := listSegments(v.dir)
	if err != nil {
		return err
	}
	v.oldest = oldest(nums)
	v.first = max(v.oldest, 1)
	switch v.pruned, err = beforeSegments(v.dir, nums); err {
	case errPruned:
		return &found{Problem{Seq: -1, File: prunedName, What: err.Error()}}
	case errNoFirst:
		v.first, err = 1, nil
	}
	return err
}

// moved reports whether the first segment is another one by now.
func (v *verifier) moved() (bool, error) {
	nums, err := listSegments(v.dir)
	return err == nil && v.oldest > 0 && oldest(nums) > v.oldest, err
}

// oldest returns the first of the segments, 0 where there is none.
func oldest(nums []int) int {
	if len(nums) == 0 {
		return 0
	}
	return nums[0]
}

// readAnchored adds the checkpoint that last left this machine, as far as it
// is remembered here, to those that were kept.
func (v *verifier) readAnchored() error {
	c, at, err := readAnchored(v.dir)
	if c == nil && err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return err
	}
	var k kept
	if err == nil {
		k, err = keptOf(*c, v.key)
	}
	if err != nil {
		return &found{Problem{Seq: -1, File: anchoredName, What: err.Error()}}
	}
	k.file, k.line, k.remembered = anchoredName, 2, true
	v.kept = append(v.kept, k)
	v.rep.Anchored = broker.Anchor{Time: at, Entries: c.size}
	return nil
}

// result completes the report of a run that ended with err.
func (v *verifier) result(err error) (Report, error) {
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
	v.prepare()
	v.saidPruned = -1
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
			if v.tree.n == v.pruned.n {
				v.rep.First = parseTime(c.buf[l.start:l.end])
			}
			if l.own {
				v.own(c.buf[l.start:l.end])
			}
			v.tree.add(l.hash)
			v.at.off += int64(l.end-l.start) + 1
			v.at.line++
			if v.next != nil && v.next.size == v.tree.n {
				if err := v.atCheckpoint(); err != nil {
					return err
				}
			}
			if v.passed < len(v.kept) && v.kept[v.passed].size == v.tree.n {
				v.passKept()
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
	if err := v.checkForeign(); err != nil {
		return err
	}
	if v.pruned.n > 0 && (v.saidPruned < 0 || v.saidPruned >= v.rep.Signed) {
		return &found{Problem{Seq: -1, File: prunedName, What: fmt.Sprintf("the entries before %d are not there, and no signed entry says that they were removed", v.pruned.n)}}
	}
	return v.checkKept()
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
		case c.size <= v.pruned.n && v.tree.n == v.pruned.n:
			if c.size < v.pruned.n && !v.fitsPruned(&c) {
				continue // of entries that are gone, and their hashes too
			}
			if c.size == v.pruned.n && c.root != v.pruned.root() {
				return bad("a checkpoint of %d entries is not of those that were removed", c.size)
			}
			if err := v.accept(&c); err != nil {
				return err
			}
			continue
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
	if c.trusted {
		v.good, v.goodAt = v.tree.clone(), v.at
	}
	return v.accept(c)
}

// fitsPruned reports whether the file hashes proves that a checkpoint is of
// entries that were removed.
func (v *verifier) fitsPruned(c *checked) bool {
	return v.stored != nil && continues(v.stored, v.pruned.n, v.pruned.root(), c.size, c.root)
}

// accept counts a checkpoint that fits.
func (v *verifier) accept(c *checked) error {
	v.rep.Checkpoints++
	if !c.trusted {
		return v.addForeign(c)
	}
	v.rep.Signed = max(v.rep.Signed, c.size)
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

// own remembers what the log's own entries say of keys and of pruning.
func (v *verifier) own(line []byte) {
	e, err := ParseEntry(line)
	if err != nil {
		return
	}
	if k, ok := parseLink(e.Reason); ok && e.Kind == broker.EventLogLinked && k.size <= v.tree.n && len(v.links) <= maxForeign {
		k.seq = v.tree.n
		v.links = append(v.links, k)
	}
	if p, ok := parsePruning(e.Reason); ok && e.Kind == broker.EventLogPruned && v.saidPruned < 0 && p == (pruning{v.pruned.n, v.pruned.root()}) {
		v.saidPruned = v.tree.n
	}
}

// checkForeign accepts the checkpoints of other keys only where the key to
// trust has signed an entry that says that it, or a key after them, took over
// at their last head. That entry may have been removed, and all that they
// covered before it: then they are nothing to be accepted or not.
func (v *verifier) checkForeign() error {
	var before []keyID
	for _, f := range v.others {
		linked := slices.ContainsFunc(v.links, func(k link) bool {
			return k.seq < v.rep.Signed && k.old == f.key && k.size == f.last.size && k.root == f.last.root
		})
		if !linked && f.last.size < v.pruned.n {
			before = append(before, f.key)
		} else if !linked {
			return v.notOurs(f.key, f.line)
		}
	}
	v.others = slices.DeleteFunc(v.others, func(f foreign) bool { return slices.Contains(before, f.key) })
	return nil
}
