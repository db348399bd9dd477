package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

const prunedName = "pruned"

// maxPruned bounds the file of pruned trees: two of at most 63 hashes.
const maxPruned = 8 << 10

// A prunedTree is the edge of the tree over entries that were removed, from
// which the tree over all entries can still be made.
type prunedTree struct {
	tree
	at time.Time // when it was written
}

func (p *prunedTree) append(b []byte) []byte {
	b = strconv.AppendInt(b, p.n, 10)
	b = appendTime(append(b, ' '), p.at)
	for _, h := range p.peaks {
		b = append(append(b, '\n'), h.String()...)
	}
	return append(b, "\n\n"...)
}

var errPruned = errors.New("the file " + prunedName + " is not as it was written")

// readPruned returns what the file of pruned trees holds, the smaller one
// first; none where there is no file.
func readPruned(dir string) ([]prunedTree, error) {
	f, err := os.Open(filepath.Join(dir, prunedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := io.ReadAll(io.LimitReader(f, maxPruned+1))
	if err != nil {
		return nil, err
	}
	var trees []prunedTree
	for rest := all; len(rest) > 0; {
		one, after, ok := bytes.Cut(rest, []byte("\n\n"))
		if !ok || len(trees) == 2 {
			return nil, errPruned
		}
		p, err := parsePruned(string(one))
		if err != nil || len(trees) == 1 && p.n <= trees[0].n {
			return nil, errPruned
		}
		trees, rest = append(trees, p), after
	}
	return trees, nil
}

func parsePruned(s string) (p prunedTree, err error) {
	lines := strings.Split(s, "\n")
	size, at, _ := strings.Cut(lines[0], " ")
	if p.n, err = strconv.ParseInt(size, 10, 64); err != nil || p.n <= 0 || bits.OnesCount64(uint64(p.n)) != len(lines)-1 {
		return p, errPruned
	}
	if p.at, err = time.Parse(timeFormat, at); err != nil {
		return p, errPruned
	}
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			return p, errPruned
		}
		p.peaks = append(p.peaks, h)
	}
	if string(p.append(nil)) != s+"\n\n" {
		return p, errPruned
	}
	return p, nil
}

// errNoFirst is for a log whose first segment is not there, although nothing
// was pruned.
var errNoFirst = fmt.Errorf("the segment %s is missing", segmentName(1))

// beforeSegments returns the tree over the entries before those in the
// segments, which is empty unless the log was pruned. It is as the file says,
// which only checkpoints can prove.
func beforeSegments(dir string, nums []int) (tree, error) {
	if len(nums) == 0 || nums[0] == 1 {
		return tree{}, nil
	}
	trees, err := readPruned(dir)
	if err != nil {
		return tree{}, err
	}
	if len(trees) == 0 {
		return tree{}, errNoFirst
	}
	// While a segment is being removed there are two, and the entries say
	// from which on they are there: from 0 on, if only empty segments before
	// the first one to go are gone. Where they say none of these, they are
	// wrong.
	for _, num := range nums {
		seq, ok, err := firstSeq(dir, num)
		if err != nil && !unreadable(err) {
			return tree{}, err
		}
		if ok && seq == 0 {
			return tree{}, nil
		}
		if ok && seq == trees[0].n {
			return trees[0].tree, nil
		}
		if ok {
			break
		}
	}
	return trees[len(trees)-1].tree, nil
}

// A pruning is what the reason of a log.pruned entry says: how many entries,
// the first ones, were removed, and the head of the tree over them.
type pruning struct {
	size int64
	root tlog.Hash
}

func (p pruning) String() string {
	return fmt.Sprintf("kept from entry %d on, after %s", p.size, p.root)
}

func parsePruning(s string) (p pruning, ok bool) {
	var head string
	if n, err := fmt.Sscanf(s, "kept from entry %d on, after %s", &p.size, &head); n != 2 || err != nil {
		return p, false
	}
	var err error
	p.root, err = tlog.ParseHash(head)
	return p, err == nil && p.String() == s
}
