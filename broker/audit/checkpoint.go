package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gatepass/broker"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const checkpointsName = "checkpoints"

// sigPrefix begins a note's signature line.
const sigPrefix = "— "

// maxCheckpoint bounds one note in the checkpoints file, in bytes: three
// lines and room for the signatures of witnesses.
const maxCheckpoint = 16 << 10

// A checkpoint is what one note in the checkpoints file says, its signatures
// unchecked.
type checkpoint struct {
	note   []byte // without the empty line that ends it in the file
	origin string
	size   int64
	root   tlog.Hash
	keys   []keyID // who signed, in order
}

// A keyID names a note key as its signatures do.
type keyID struct {
	name string
	hash uint32
}

func (k keyID) String() string { return fmt.Sprintf("%s+%08x", k.name, k.hash) }

// checkpointText returns the text to be signed, as in C2SP tlog-checkpoint.
// https://c2sp.org/tlog-checkpoint
func checkpointText(origin string, size int64, root tlog.Hash) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, size, root)
}

var (
	errCheckpoint     = errors.New("not a checkpoint")
	errCheckpointTorn = errors.New("a checkpoint without its end")
)

// nextCheckpoint reads the note at the start of b, which is the rest of the
// checkpoints file or a part that holds a whole note. It returns how many
// bytes it takes with the empty line after it, [errCheckpointTorn] when b
// ends within it, and [errCheckpoint] when it is not one.
func nextCheckpoint(b []byte) (c checkpoint, n int, err error) {
	var lines [4]string
	for i := range lines {
		end := bytes.IndexByte(b[n:], '\n')
		if end < 0 {
			return c, 0, errCheckpointTorn
		}
		lines[i] = string(b[n : n+end])
		n += end + 1
	}
	c.origin = lines[0]
	if !validName(c.origin) || lines[3] != "" {
		return c, 0, errCheckpoint
	}
	if c.size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.size < 0 || strconv.FormatInt(c.size, 10) != lines[1] {
		return c, 0, errCheckpoint
	}
	if c.root, err = tlog.ParseHash(lines[2]); err != nil || c.root.String() != lines[2] {
		return c, 0, errCheckpoint
	}
	for {
		rest := b[n:]
		if len(c.keys) > 0 && (len(rest) == 0 || rest[0] == '\n') {
			c.note = b[:n]
			return c, min(n+1, len(b)), nil
		}
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			// The beginning of another signature line, or rubbish?
			if n := min(len(rest), len(sigPrefix)); string(rest[:n]) != sigPrefix[:n] {
				return c, 0, errCheckpoint
			}
			return c, 0, errCheckpointTorn
		}
		k, ok := signatureKey(string(rest[:end]))
		if !ok {
			return c, 0, errCheckpoint
		}
		c.keys = append(c.keys, k)
		n += end + 1
	}
}

// signatureKey reads who signed from a note's signature line.
func signatureKey(line string) (keyID, bool) {
	line, ok := strings.CutPrefix(line, sigPrefix)
	if !ok {
		return keyID{}, false
	}
	name, b64, _ := strings.Cut(line, " ")
	sig, err := base64.StdEncoding.DecodeString(b64)
	// Strict: a second spelling of the same bytes is a changed byte.
	if err != nil || len(sig) < 5 || base64.StdEncoding.EncodeToString(sig) != b64 || !validName(name) {
		return keyID{}, false
	}
	return keyID{name, binary.BigEndian.Uint32(sig)}, true
}

// signedBy reports whether k is among those who signed c.
func (c *checkpoint) signedBy(k keyID) bool {
	for _, s := range c.keys {
		if s == k {
			return true
		}
	}
	return false
}

// signer returns the key that c is the checkpoint of: the one whose name is
// the origin, else the first. Witnesses sign under names of their own.
func (c *checkpoint) signer() keyID {
	for _, k := range c.keys {
		if k.name == c.origin {
			return k
		}
	}
	return c.keys[0]
}

// check holds c against the one key that may have signed it.
func (c *checkpoint) check(key note.Verifier) error {
	if !c.signedBy(keyID{key.Name(), key.KeyHash()}) {
		return fmt.Errorf("the checkpoint was signed by %s, not by the key to trust", c.signer())
	}
	if _, err := note.Open(c.note, note.VerifierList(key)); err != nil {
		return fmt.Errorf("the checkpoint's signature is not one of the key to trust: %w", err)
	}
	if c.origin != key.Name() {
		return fmt.Errorf("a checkpoint of another log, %q", c.origin)
	}
	return nil
}

// lastCheckpoint finds the last checkpoint of a checkpoints file of the given
// size from its end, nil when there is none. end is where its bytes end: what
// follows is a torn one. whole says that the empty line after it is there.
// An [errCheckpoint] says that something else is in its place.
func lastCheckpoint(f io.ReaderAt, size int64) (last *checkpoint, end int64, whole bool, err error) {
	start := max(0, size-2*maxCheckpoint)
	b := make([]byte, size-start)
	if _, err := f.ReadAt(b, start); err != nil && err != io.EOF {
		return nil, 0, false, err
	}
	i := 0
	for first := start > 0; first; first = bytes.HasPrefix(b[i:], []byte(sigPrefix)) {
		// A note begins after an empty line that no signature follows.
		n := bytes.Index(b[i:], []byte("\n\n"))
		if n < 0 {
			return nil, 0, false, errCheckpoint
		}
		i += n + 2
	}
	for i < len(b) {
		c, n, err := nextCheckpoint(b[i:])
		if err == errCheckpointTorn || err != nil && hole(b[i:]) {
			break
		}
		if err != nil {
			return nil, 0, false, fmt.Errorf("byte %d: %w", start+int64(i), err)
		}
		if last != nil && c.size < last.size {
			return nil, 0, false, fmt.Errorf("byte %d: it goes back from %d entries to %d: %w", start+int64(i), last.size, c.size, errCheckpoint)
		}
		last = &c
		i += n
	}
	return last, start + int64(i), i == 0 || bytes.HasSuffix(b[:i], []byte("\n\n")), nil
}

// hole reports whether b, the end of a checkpoints file, can be what a power
// cut has left of one checkpoint: zeros where bytes were not on disk yet, before
// some that were. Where one more begins in it, it is damage: the one before was
// on disk by then.
func hole(b []byte) bool {
	if len(b) > maxCheckpoint || bytes.IndexByte(b, 0) < 0 {
		return false
	}
	for {
		_, rest, found := bytes.Cut(b, []byte("\n\n"))
		if !found {
			return true
		}
		if len(rest) > 0 && rest[0] != 0 && !bytes.HasPrefix(rest, []byte(sigPrefix)) {
			return false
		}
		b = rest
	}
}

// checked is a checkpoint from the file, or what is wrong with what should
// be one.
type checked struct {
	checkpoint
	line    int64 // where it begins, from 1
	trusted bool  // signed by the key
	problem string
	err     error // of reading
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
			if err := c.check(key); err != nil {
				out.problem = err.Error()
			}
		}
		if !send(out) {
			return
		}
		line += int64(bytes.Count(buf[:n], []byte("\n")))
		buf = buf[n:]
	}
}

// A Head is a checkpoint as it was signed.
type Head struct {
	Checkpoint []byte // C2SP tlog-checkpoint
	Size       int64  // so many entries it covers
}

// NewestHead returns the newest checkpoint of the log in dir, which key must
// have signed. It does not read the entries: [Verify] says whether they are
// those that it covers.
//
// A log that is not there, or has none, is a [broker.CodeNotFound], one that
// may not be read a [broker.CodeConfig], and a checkpoint that key has not
// signed, or no key, a [broker.CodeData].
func NewestHead(dir, key string) (Head, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return Head{}, broker.Errorf(broker.CodeData, "the key to trust: %w", err)
	}
	f, size, err := openCheckpoints(dir)
	if err != nil {
		return Head{}, broker.Errorf(broker.CodeConfig, "read the checkpoints: %w", err)
	}
	if f == nil {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return Head{}, noLog(err)
		}
		return Head{}, noHead()
	}
	defer f.Close()
	last, _, _, err := lastCheckpoint(f, size)
	switch {
	case err != nil:
		return Head{}, broker.Errorf(broker.CodeData, "the newest checkpoint cannot be read: %w", err).WithHint("see: gatepass audit verify")
	case last == nil:
		return Head{}, noHead()
	}
	if err := last.check(verifier); err != nil {
		return Head{}, broker.Errorf(broker.CodeData, "the newest checkpoint is not to be trusted: %w", err).WithHint("see: gatepass audit verify")
	}
	return Head{last.note, last.size}, nil
}

func noHead() error {
	return broker.Errorf(broker.CodeNotFound, "no checkpoint was signed yet").
		WithHint("the daemon signs within seconds, unless the keychain is locked: see gatepass status")
}
