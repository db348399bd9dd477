package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
)

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
		if v.pruned.n > 0 && v.good.n == v.pruned.n {
			return &found{Problem{Seq: -1, File: prunedName, What: fmt.Sprintf("it and the entries %d to %d do not lead to the head that was signed", v.good.n, c.size-1)}}
		}
		return &found{Problem{Seq: v.good.n, File: segmentName(v.goodAt.num), Line: v.goodAt.line + 1,
			What: fmt.Sprintf("one of the entries %d to %d is not the one that was signed (the file hashes, which could tell which, is damaged too)", v.good.n, c.size-1)}}
	}
	return v.findChanged(hashes, c, seen)
}

// findChanged reads again from the last good checkpoint, leaf by leaf.
func (v *verifier) findChanged(hashes *os.File, c *checked, seen string) error {
	seq, at := v.good.n, v.goodAt
	problem := func(format string, args ...any) error {
		return &found{Problem{Seq: seq, File: segmentName(at.num), Line: at.line + 1, What: fmt.Sprintf(format, args...)}}
	}
	// Beyond c.size these are not proved: good enough to say what a line is
	// that is in the wrong place anyway.
	leaf := func(n int64) tlog.Hash {
		h, _ := readHash(hashes, tlog.StoredHashIndex(0, n))
		return h
	}
	inSegment := func(in *lineReader) error {
		for seq < c.size {
			line, err := in.next()
			if err == io.EOF {
				if len(line) > 0 {
					return problem("entry %d is cut short", seq)
				}
				return nil
			}
			if unreadable(err) {
				return problem("entry %d cannot be read: %v", seq, err)
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
		return nil
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
		if unreadable(err) {
			return problem("entry %d cannot be read: %v", seq, err)
		}
		if err != nil {
			return err
		}
		err = inSegment(in)
		in.Close()
		if err != nil {
			return err
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
