package audit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"gatepass/broker"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// maxAgainst bounds a file of checkpoints that were kept elsewhere, in bytes:
// some 200,000 of them.
const maxAgainst = 64 << 20

// A kept is a checkpoint that left this machine, or is said to have.
type kept struct {
	size    int64
	root    tlog.Hash
	signer  keyID
	trusted bool // the key to trust signed it
	file    string
	line    int64

	remembered bool // by the file beside the log, not by whoever asks

	earlier bool // the run began after it
	fits    bool // the head of the entries is its own
}

// readAgainst reads the checkpoints in file, ascending: one, or many with or
// without empty lines between them, as a program that appends each that it
// gets leaves them. A file that holds none, or anything else, is a
// [broker.CodeData].
func readAgainst(file string, key note.Verifier) ([]kept, error) {
	f, err := os.Open(file)
	if err != nil {
		code := broker.CodeConfig
		if errors.Is(err, fs.ErrNotExist) {
			code = broker.CodeNotFound
		}
		return nil, broker.Errorf(code, "%w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAgainst+1))
	if err != nil {
		return nil, broker.Errorf(broker.CodeConfig, "%w", err)
	}
	if len(b) > maxAgainst {
		return nil, broker.Errorf(broker.CodeData, "%s is longer than %d bytes", file, maxAgainst)
	}
	var all []kept
	line := int64(1)
	for len(b) > 0 {
		if b[0] == '\n' {
			b = b[1:]
			line++
			continue
		}
		n := noteEnd(b)
		c, _, err := nextCheckpoint(b[:n])
		var k kept
		if err != nil {
			err = errCheckpoint // cut short, it is none either
		} else {
			k, err = keptOf(c, key)
		}
		if err != nil {
			return nil, broker.Errorf(broker.CodeData, "%s line %d: %w", file, line, err)
		}
		k.file, k.line = file, line
		all = append(all, k)
		line += int64(bytes.Count(b[:n], []byte("\n")))
		b = b[n:]
	}
	if len(all) == 0 {
		return nil, broker.Errorf(broker.CodeData, "%s holds no checkpoint", file)
	}
	return all, nil
}

// noteEnd returns where the note at the start of b ends: after its signature
// lines, else at the end of b.
func noteEnd(b []byte) int {
	signed := false
	for n := 0; n < len(b); {
		signature := bytes.HasPrefix(b[n:], []byte(sigPrefix))
		if signed && !signature {
			return n
		}
		signed = signature
		end := bytes.IndexByte(b[n:], '\n')
		if end < 0 {
			break
		}
		n += end + 1
	}
	return len(b)
}

// keptOf takes of a checkpoint what the entries are held against. Of a key that
// is not the one to trust the signature cannot be checked.
func keptOf(c checkpoint, key note.Verifier) (kept, error) {
	k := kept{size: c.size, root: c.root, signer: c.signer()}
	if c.signedBy(keyID{key.Name(), key.KeyHash()}) {
		k.signer = keyID{key.Name(), key.KeyHash()}
		k.trusted = true
		return k, c.check(key)
	}
	return k, nil
}

// prepare puts the kept checkpoints in the order of the entries.
func (v *verifier) prepare() {
	slices.SortStableFunc(v.kept, func(a, b kept) int { return cmp.Compare(a.size, b.size) })
	v.passKept()
}

// passKept holds the tree against the kept checkpoints of its size.
func (v *verifier) passKept() {
	for ; v.passed < len(v.kept) && v.kept[v.passed].size <= v.tree.n; v.passed++ {
		k := &v.kept[v.passed]
		k.earlier = k.size < v.tree.n
		k.fits = !k.earlier && k.root == v.tree.root()
		if k.fits && k.trusted {
			v.rep.Signed = max(v.rep.Signed, k.size)
		}
	}
}

// checkKept names the first kept checkpoint that this log is not the
// continuation of.
func (v *verifier) checkKept() error {
	from := int64(0) // up to here the entries are what a kept checkpoint covers
	for i := range v.kept {
		k := &v.kept[i]
		problem := func(format string, args ...any) error {
			return &found{Problem{Seq: -1, File: k.file, Line: k.line, What: fmt.Sprintf(format, args...)}}
		}
		known := k.trusted || slices.ContainsFunc(v.others, func(f foreign) bool { return f.key == k.signer })
		var lost error
		if k.earlier {
			k.fits, lost = v.leadsTo(k)
		}
		switch {
		case !known:
			return problem("a checkpoint that was kept elsewhere was signed by %s, which is not the key to trust, nor one that it follows: this is another log, or it was begun anew", k.signer)
		case k.size > v.tree.n:
			return problem("a checkpoint that was kept elsewhere covers %d entries, and the log has %d: this is an older copy or another log, or entries were removed together with their checkpoints", k.size, v.tree.n)
		case lost != nil && k.remembered:
			continue // nobody asked
		case lost != nil:
			return problem("nothing can be said of a checkpoint that was kept elsewhere, of %d entries: %v", k.size, lost)
		case !k.fits:
			return problem("a checkpoint that was kept elsewhere covers other entries than the log's %d to %d: they were written and signed anew", from, k.size-1)
		}
		from = k.size
		if !k.remembered {
			v.rep.Against++
		}
	}
	return nil
}

// errLost is for a kept checkpoint of which nobody can tell any more.
var errLost = errors.New("the file " + hashesName + ", which could tell whether its entries were those that were pruned, is damaged")

// leadsTo tells from the file of hashes whether the signed head continues k,
// whose last entries were pruned: the head that the file has of as many
// entries is the one that is continued, or the file is not to be trusted.
func (v *verifier) leadsTo(k *kept) (bool, error) {
	if v.stored == nil {
		return false, errLost
	}
	root, err := tlog.TreeHash(k.size, v.stored)
	if err != nil || !continues(v.stored, v.good.n, v.good.root(), k.size, root) {
		return false, errLost
	}
	return k.root == root, nil
}
