package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gatepass/broker"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxProof bounds a proof, in bytes: an entry in base64, a hash for each level
// of the tree, and a checkpoint with the signatures of witnesses.
const MaxProof = 64 << 10

// Prove returns a proof (C2SP tlog-proof) that entry seq is in the log in dir:
// the entry, the way from it to the newest head that key signed, and that
// head. It reads the files alone and trusts none: what it returns
// [CheckProof] accepts.
//
// An entry that is not there is a [broker.CodeNotFound]; one that is not signed
// yet, or not the one that was signed, a [broker.CodeData].
func Prove(ctx context.Context, dir, key string, seq int64) ([]byte, error) {
	b, err := prove(ctx, dir, key, seq)
	if err != nil && broker.CodeOf(err) == broker.CodeInternal && ctx.Err() == nil { // of the disk
		err = broker.Errorf(broker.CodeConfig, "%w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("prove entry %d: %w", seq, err)
	}
	return b, nil
}

func prove(ctx context.Context, dir, key string, seq int64) ([]byte, error) {
	head, err := NewestHead(dir, key)
	if err != nil {
		return nil, err
	}
	line, err := findEntry(ctx, dir, seq)
	if err != nil {
		return nil, err
	}
	if seq >= head.Size {
		return nil, broker.Errorf(broker.CodeData, "it is not signed yet: the newest checkpoint covers the %d entries before it", head.Size).
			WithHint("the daemon signs within seconds, unless the keychain is locked: see gatepass status")
	}
	c, _, err := nextCheckpoint(head.Checkpoint)
	if err != nil {
		return nil, err
	}
	leaf := tlog.RecordHash(line)
	try := func(r tlog.HashReader) (tlog.RecordProof, error) {
		p, err := tlog.ProveRecord(c.size, seq, r)
		if err == nil {
			err = tlog.CheckRecord(p, c.size, c.root, seq, leaf)
		}
		return p, err
	}
	// The file hashes is quick, and all that is left of entries that were
	// pruned; but only the entries themselves are sure to be what was signed.
	var hashes tlog.RecordProof
	f, err := os.Open(filepath.Join(dir, hashesName))
	if err == nil {
		defer f.Close()
		hashes, err = try(storedHashes(f))
	}
	if err != nil {
		hashes, err = try(computedHashes(ctx, dir, c.size))
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, broker.Errorf(broker.CodeData, "the entries, or the hashes of those that were pruned, do not lead to the signed head: %w", err).
			WithHint("see: gatepass audit verify")
	}
	return proof{seq: seq, extra: line, hashes: hashes, checkpoint: c}.marshal(), nil
}

// findEntry returns the line of an entry.
func findEntry(ctx context.Context, dir string, seq int64) ([]byte, error) {
	for line, err := range Entries(ctx, dir, Query{From: seq}) {
		switch {
		case err != nil:
			return nil, err
		case line.Seq == seq:
			return bytes.Clone(line.Raw), nil
		default:
			return nil, broker.Errorf(broker.CodeNotFound, "it is not in the log, which goes on with entry %d", line.Seq)
		}
	}
	return nil, broker.Errorf(broker.CodeNotFound, "the log does not have so many entries")
}

// computedHashes computes hashes of the tree over the first size entries. Of
// those that were pruned it has the edge of their tree, which is all that the
// proof of another entry needs of them.
func computedHashes(ctx context.Context, dir string, size int64) tlog.HashReader {
	return tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		wanted := map[int64]int{}
		for i, at := range at {
			wanted[at] = i
		}
		hashes := make([]tlog.Hash, len(at))
		nums, err := listSegments(dir)
		if err != nil {
			return nil, err
		}
		before, err := beforeSegments(dir, nums)
		if err != nil {
			return nil, err
		}
		for i, at := range peakIndexes(before.n) {
			if wanted, ok := wanted[at]; ok {
				hashes[wanted] = before.peaks[i]
			}
		}
		t := before.clone()
		var stored []byte
		index := tlog.StoredHashCount(before.n)
		for line, err := range Entries(ctx, dir, Query{}) {
			if err != nil {
				return nil, err
			}
			if line.Seq != t.n {
				return nil, fmt.Errorf("entry %d is missing", t.n)
			}
			stored = t.push(tlog.RecordHash(line.Raw), stored[:0])
			for ; len(stored) > 0; stored, index = stored[tlog.HashSize:], index+1 {
				if i, ok := wanted[index]; ok {
					copy(hashes[i][:], stored)
				}
			}
			if t.n == size {
				return hashes, nil
			}
		}
		return nil, fmt.Errorf("the log ends after %d entries", t.n)
	})
}

// A Proven is what a proof proves.
type Proven struct {
	Seq  int64
	Raw  []byte // the entry as it stands in the log, without the newline
	Log  string // the origin of the checkpoint: the name of the key
	Size int64  // how many entries the log had when the checkpoint was signed
}

// CheckProof checks a proof against the verifier key alone, and returns the
// entry that it proves. Anything else is a [broker.CodeData].
func CheckProof(b []byte, key string) (Proven, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return Proven{}, broker.Errorf(broker.CodeData, "check the proof: the key to trust: %w", err)
	}
	p, err := parseProof(b)
	if err == nil {
		err = p.check(verifier)
	}
	if err != nil {
		return Proven{}, broker.Errorf(broker.CodeData, "check the proof: %w", err)
	}
	return Proven{Seq: p.seq, Raw: p.extra, Log: p.checkpoint.origin, Size: p.checkpoint.size}, nil
}

func (p *proof) check(key note.Verifier) error {
	if err := p.checkpoint.check(key); err != nil {
		return err
	}
	if err := tlog.CheckRecord(p.hashes, p.checkpoint.size, p.checkpoint.root, p.seq, tlog.RecordHash(p.extra)); err != nil {
		return fmt.Errorf("its entry is not entry %d of the signed log", p.seq)
	}
	// Another log than ours may have anything signed; this is to be shown.
	e, err := ParseEntry(p.extra)
	if err != nil {
		return fmt.Errorf("what it proves is not an entry: %w", err)
	}
	if e.Seq != p.seq {
		return fmt.Errorf("its entry says that it is entry %d, and is entry %d", e.Seq, p.seq)
	}
	return nil
}

// A proof is a C2SP tlog-proof, nothing of it checked. Its extra data is the
// entry, without which nobody could compute the leaf.
// https://c2sp.org/tlog-proof
type proof struct {
	extra      []byte
	seq        int64
	hashes     tlog.RecordProof // from the leaf's sibling to the child of the root
	checkpoint checkpoint
}

const (
	proofHeader = "c2sp.org/tlog-proof@v1"
	proofExtra  = "extra "
	proofIndex  = "index "
)

func (p proof) marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n%s%s\n%s%d\n", proofHeader, proofExtra, base64.StdEncoding.EncodeToString(p.extra), proofIndex, p.seq)
	for _, h := range p.hashes {
		fmt.Fprintln(&b, h)
	}
	b.WriteByte('\n')
	b.Write(p.checkpoint.note)
	return b.Bytes()
}

// parseProof reads a proof. There is one way to write each: marshal returns
// the bytes that were read.
func parseProof(b []byte) (p proof, err error) {
	if len(b) > MaxProof {
		return p, fmt.Errorf("it is longer than %d bytes", MaxProof)
	}
	rest := b
	line := func() (string, bool) {
		s, after, ok := bytes.Cut(rest, []byte("\n"))
		rest = after
		return string(s), ok
	}
	if s, ok := line(); !ok || s != proofHeader {
		return p, fmt.Errorf("it does not begin with the line %q", proofHeader)
	}
	s, _ := line()
	b64, ok := strings.CutPrefix(s, proofExtra)
	if ok {
		p.extra, err = base64.StdEncoding.DecodeString(b64)
	}
	if !ok || err != nil || base64.StdEncoding.EncodeToString(p.extra) != b64 {
		return p, errors.New(`its second line is not "extra " and the entry in base64`)
	}
	s, _ = line()
	digits, ok := strings.CutPrefix(s, proofIndex)
	if ok {
		p.seq, err = strconv.ParseInt(digits, 10, 64)
	}
	if !ok || err != nil || p.seq < 0 || strconv.FormatInt(p.seq, 10) != digits {
		return p, errors.New(`its third line is not "index " and the entry's number`)
	}
	for {
		s, ok := line()
		if !ok {
			return p, errors.New("it ends before its checkpoint")
		}
		if s == "" {
			break
		}
		h, err := tlog.ParseHash(s)
		if err != nil || h.String() != s {
			return p, fmt.Errorf("its line %d is not a hash in base64", 4+len(p.hashes))
		}
		p.hashes = append(p.hashes, h)
	}
	c, n, err := nextCheckpoint(rest)
	if err != nil {
		return p, fmt.Errorf("what follows its hashes is %w", err)
	}
	if len(c.note) != len(rest) || n != len(rest) {
		return p, errors.New("something follows its checkpoint")
	}
	p.checkpoint = c
	return p, nil
}
