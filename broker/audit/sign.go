package audit

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gatepass/broker"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// signing is the state of the checkpoints.
type signing struct {
	signer  note.Signer // nil until it could be had
	last    *checkpoint // the last one on disk, nil without one
	from    int64       // sign no smaller tree: the entry that links a new key's log is in it
	backoff time.Duration
	refused error // why nothing is signed any more

	f    file  // nil until needed, and after a failure
	off  int64 // bytes of whole checkpoints
	lead []byte

	found []byte // the end of them that Open found and that may be in memory only
}

func (s *signing) closeFile() {
	if s.f != nil {
		s.f.Close()
		s.f = nil
	}
}

// signAll signs the tree's head whenever it has grown, with a pause after each
// time.
func (l *Log) signAll() {
	defer close(l.signerDone)
	ready := l.opts.SignerReady
	select {
	case <-ready:
		ready = nil // from the beginning
	default:
	}
	for {
		select {
		case <-l.signWake:
		case <-ready:
			ready = nil
		case <-l.ctx.Done():
			return
		}
		pause := l.checkpoint(l.ctx)
		if pause == 0 {
			continue
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ready:
			t.Stop()
			ready = nil
			l.wakeSigner()
		case <-l.ctx.Done():
			t.Stop()
			return
		}
	}
}

// checkpoint signs the tree's head and persists what it signed, if there is
// anything new. It returns how long to wait before the next one.
func (l *Log) checkpoint(ctx context.Context) (pause time.Duration) {
	s := &l.sign
	if l.opts.Signer == nil || s.refused != nil {
		return 0
	}
	t, unsigned := l.signable()
	if unsigned == 0 {
		return 0
	}
	if s.signer == nil {
		err := l.readSigner(ctx)
		if s.refused != nil {
			l.log.Error("audit log will not be signed", "err", s.refused)
			l.mu.Lock()
			l.refused = s.refused
			l.mu.Unlock()
			return 0
		}
		if err != nil {
			s.backoff = min(max(2*s.backoff, checkpointInterval), signerBackoff)
			l.log.Warn("audit log is not signed for now", "entries", unsigned, "retry", s.backoff, "err", err)
			return s.backoff
		}
		s.backoff = 0
		t, unsigned = l.signable() // meanwhile came the link to it, and whatever else did
	}
	if unsigned == 0 || t.n < s.from {
		return 0 // we are woken when the link was added, or the cuts are made
	}
	text := checkpointText(s.signer.Name(), t.n, t.root())
	msg, err := note.Sign(&note.Note{Text: text}, s.signer)
	if err == nil {
		err = l.writeCheckpoint(msg)
	}
	if err != nil {
		l.log.Warn("audit log's checkpoint cannot be written", "entries", t.n, "err", err)
		l.wakeSigner() // after the pause; there may be no entry that does
		return checkpointInterval
	}
	// Only what is persisted is told to anybody.
	l.mu.Lock()
	l.signed = t.n
	l.mu.Unlock()
	l.toAnchor(msg)
	l.wakeKeeper()
	return checkpointInterval
}

// signable returns the tree, and how many of its entries can be signed now:
// none while an old segment has lines that a repair has moved. The tree is
// taken first, since it gets such lines after the cut that they need is known.
func (l *Log) signable() (t tree, unsigned int64) {
	l.treeMu.Lock()
	t = l.tree.clone()
	l.treeMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.cuts) > 0 {
		return t, 0
	}
	return t, t.n - l.signed
}

// readSigner gets the key, and makes sure that what it is about to sign on
// from is its own: the last checkpoint must be what this key would sign, or
// be another key's, to whose log this one is then linked.
func (l *Log) readSigner(ctx context.Context) error {
	s := &l.sign
	signer, err := l.opts.Signer(ctx)
	if err != nil {
		return err
	}
	if !validName(signer.Name()) {
		return fmt.Errorf("%q cannot name a key", signer.Name())
	}
	key := keyID{signer.Name(), signer.KeyHash()}
	switch last := s.last; {
	case last == nil:
	case last.signedBy(key):
		msg, err := note.Sign(&note.Note{Text: checkpointText(last.origin, last.size, last.root)}, signer)
		if err != nil {
			return err
		}
		ours := msg[bytes.LastIndex(msg, []byte("\n\n"))+1:]
		if !bytes.Contains(last.note, ours) {
			s.refused = broker.Errorf(broker.CodeData, "the audit log's checkpoint of %d entries names our key, but was not signed by it", last.size).
				WithHint("see gatepass audit verify; to begin a new log, move %s away and keep it", l.dir)
			return s.refused
		}
	default:
		e := broker.Event{Kind: broker.EventLogLinked, Outcome: broker.OutcomeOK, Reason: link{key: key, old: last.signer(), size: last.size, root: last.root}.String()}
		upTo, err := l.append(ctx, &e, true)
		if err != nil {
			return err
		}
		s.from = upTo
	}
	s.signer = signer
	return nil
}

// writeFound brings the checkpoint that Open found to disk. It is written again,
// as the tail of the entries is (see rewrite): the one after it would follow a
// hole.
func (l *Log) writeFound() error {
	s := &l.sign
	if s.found == nil {
		return nil
	}
	f, err := l.fs.OpenFile(filepath.Join(l.dir, checkpointsName), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writeAt(f, s.found, s.off-int64(len(s.found))); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	s.found = nil
	return nil
}

// writeCheckpoint appends a note to the checkpoints file and syncs it.
func (l *Log) writeCheckpoint(msg []byte) error {
	s := &l.sign
	// A checkpoint that nobody will find vouches for nothing.
	err := l.inPlace()
	if err == nil && s.f != nil {
		err = s.f.InPlace()
	}
	if err == nil {
		err = l.writeFound()
	}
	if err != nil {
		return err
	}
	// The hashes first: they are derived, but with them on disk the next
	// Open need not derive them.
	l.syncHashes()
	if s.f == nil {
		flags := os.O_WRONLY
		if s.off == 0 {
			flags |= os.O_CREATE // else it would begin with a hole
		}
		f, err := l.fs.OpenFile(filepath.Join(l.dir, checkpointsName), flags, 0o600)
		if err != nil {
			return err
		}
		// What an attempt that failed may have left is not ours to build on.
		err = f.Truncate(s.off)
		if err == nil {
			err = l.fs.SyncDir(l.dir)
		}
		if err != nil {
			f.Close()
			return err
		}
		s.f = f
	}
	data := append(append(append([]byte(nil), s.lead...), msg...), '\n')
	err = writeAt(s.f, data, s.off)
	if err == nil {
		err = s.f.Sync()
	}
	if err != nil {
		s.f.Truncate(s.off)
		s.closeFile()
		return err
	}
	s.off += int64(len(data))
	s.lead = nil
	return nil
}

func (l *Log) syncHashes() {
	f, err := l.fs.OpenFile(filepath.Join(l.dir, hashesName), os.O_WRONLY, 0)
	if err == nil {
		err = f.Sync()
		f.Close()
	}
	if err != nil {
		l.log.Warn("audit log's hash file cannot be synced; it may have to be rebuilt", "err", err)
	}
}

// A link is what the reason of a log.linked entry says: which key takes over,
// from which one, and the last head that that one signed.
type link struct {
	key, old keyID
	size     int64
	root     tlog.Hash
	seq      int64 // of the entry, where verify needs it; not in the text
}

func (k link) String() string {
	return fmt.Sprintf("key %s follows %s at %d %s", k.key, k.old, k.size, k.root)
}

func parseLink(s string) (k link, ok bool) {
	f := strings.Split(s, " ")
	if len(f) != 7 || f[0] != "key" || f[2] != "follows" || f[4] != "at" {
		return k, false
	}
	var err1, err2 error
	k.key, ok = parseKeyID(f[1])
	old, ok2 := parseKeyID(f[3])
	k.old = old
	k.size, err1 = strconv.ParseInt(f[5], 10, 64)
	k.root, err2 = tlog.ParseHash(f[6])
	return k, ok && ok2 && err1 == nil && err2 == nil && k.String() == s
}

func parseKeyID(s string) (keyID, bool) {
	name, hex, ok := strings.Cut(s, "+")
	hash, err := strconv.ParseUint(hex, 16, 32)
	return keyID{name, uint32(hash)}, ok && err == nil && validName(name)
}
