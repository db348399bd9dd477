package audit_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"

	"golang.org/x/mod/sumdb/note"
)

// TestForgedCheckpoint has somebody without the key change an entry and write
// the hashes and a checkpoint to fit: the daemon must not sign on from there.
func TestForgedCheckpoint(t *testing.T) {
	im, key := signedLog(t, 1, 4)
	forged, _ := signedLog(t, 1, 4)
	// The forger's own tree and head, under our origin, with our signature.
	ours := bytes.Split(im["checkpoints"], []byte("\n"))
	theirs := bytes.Split(forged["checkpoints"], []byte("\n"))
	last := len(ours) - 6 // the last note begins six newlines before the end
	theirs = theirs[len(theirs)-7:]
	theirs[0], theirs[4] = ours[last], ours[len(ours)-3]
	forged["checkpoints"] = bytes.Join(theirs, []byte("\n"))
	dir := logDir(t)
	forged.write(t, dir)
	l := open(t, audit.Options{Dir: dir, Signer: key.Signer})
	put(t, l, 1, true)
	shut(t, l)
	if s := l.Status(); s.Signed != 4 || !strings.Contains(s.Error, "was not signed by it") {
		t.Errorf("status: %+v", s)
	}
	if !bytes.Equal(read(t, dir)["checkpoints"], forged["checkpoints"]) {
		t.Error("a forged log was signed")
	}
	if _, err := verify(t, dir, key); err == nil {
		t.Error("a forged log verifies")
	}
}

func TestNewKey(t *testing.T) {
	im, first := signedLog(t, 2, 4)
	dir := logDir(t)
	im.write(t, dir)
	second, third := newKey(t), newKey(t)
	for _, key := range []testKey{second, third} {
		synctest.Test(t, func(t *testing.T) {
			l, err := audit.Open(t.Context(), audit.Options{Dir: dir, Signer: key.Signer})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close(t.Context())
			put(t, l, 3, true)
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if s := l.Status(); s.Signed != s.Entries {
				t.Errorf("not signed by the new key: %+v", s)
			}
			put(t, l, 1, true)
		})
	}
	rep, err := verify(t, dir, third)
	if err != nil || rep.Entries != 8+2*(1+4) || rep.Unsigned != 0 || len(rep.Earlier) != 2 {
		t.Errorf("with the new key: %+v, %v", rep, err)
	}
	for _, key := range []testKey{first, second} {
		if rep, err := verify(t, dir, key); err == nil || !strings.Contains(err.Error(), "not the key to trust") {
			t.Errorf("with an old key: %+v, %v", rep, err)
		}
	}
	full := read(t, dir)
	// The old heads still bind, and so does the link.
	for old, seq := range map[string]int64{"alice": 0, " follows ": 8} {
		var changed image
		for name, b := range full {
			if strings.HasSuffix(name, ".jsonl") && bytes.Contains(b, []byte(old)) && changed == nil {
				changed = full.with(name, bytes.Replace(b, []byte(old), []byte("malia"), 1))
				if old != "alice" {
					break
				}
			}
		}
		changed.write(t, dir)
		if rep, err := verify(t, dir, third); err == nil || old != "alice" && rep.Problem.Seq < seq {
			t.Errorf("%q changed: %+v", old, rep)
		}
	}
	// Nobody can write the link but the log.
	l := open(t, audit.Options{Dir: logDir(t)})
	err = l.Append(t.Context(), broker.Event{Kind: broker.EventLogLinked, Outcome: broker.OutcomeOK}, true)
	if broker.CodeOf(err) != broker.CodeInternal {
		t.Errorf("log.linked from outside: %v", err)
	}
}

// TestCheckpointTimes follows the clock: the first entry is signed at once,
// those after it when 10 s have passed, and without entries nothing wakes up.
func TestCheckpointTimes(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	synctest.Test(t, func(t *testing.T) {
		var signed atomic.Int32
		signer := &countSigner{n: &signed}
		l, err := audit.Open(t.Context(), audit.Options{Dir: dir, Signer: func(ctx context.Context) (note.Signer, error) {
			s, err := key.Signer(ctx)
			signer.Signer = s
			return signer, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close(t.Context())
		put(t, l, 1, true)
		synctest.Wait()
		if s := l.Status(); s.Signed != 1 {
			t.Errorf("at once: %+v", s)
		}
		for range 9 {
			time.Sleep(time.Second)
			put(t, l, 1, true)
		}
		synctest.Wait()
		if s := l.Status(); s.Signed != 1 || signed.Load() != 1 {
			t.Errorf("after 9 s: %+v", s)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s := l.Status(); s.Signed != 10 || signed.Load() != 2 {
			t.Errorf("after 10 s: %+v, %d signatures", s, signed.Load())
		}
		time.Sleep(time.Hour)
		if signed.Load() != 2 {
			t.Errorf("idle for an hour: %d signatures", signed.Load())
		}
		put(t, l, 1, true)
		synctest.Wait()
		if s := l.Status(); s.Signed != 11 {
			t.Errorf("after an hour: %+v", s)
		}
	})
}

type countSigner struct {
	note.Signer
	n *atomic.Int32
}

func (s *countSigner) Sign(msg []byte) ([]byte, error) {
	s.n.Add(1)
	return s.Signer.Sign(msg)
}

// TestSignerUnavailable has the keychain locked at first.
func TestSignerUnavailable(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	synctest.Test(t, func(t *testing.T) {
		var asked, unlocked atomic.Int32
		l, err := audit.Open(t.Context(), audit.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler), Signer: func(ctx context.Context) (note.Signer, error) {
			asked.Add(1)
			if unlocked.Load() == 0 {
				return nil, errors.New("the keychain is locked")
			}
			return key.Signer(ctx)
		}})
		if err != nil {
			t.Fatal(err)
		}
		// Entries are appended all the same; it is asked less and less often.
		for range 3600 {
			put(t, l, 1, false)
			time.Sleep(time.Second)
		}
		if s := l.Status(); s.Signed != 0 || s.Entries != 3600 || asked.Load() < 5 || asked.Load() > 14 {
			t.Errorf("asked %d times in an hour: %+v", asked.Load(), s)
		}
		before := asked.Load()
		time.Sleep(24 * time.Hour)
		if asked.Load() > before+1 {
			t.Errorf("asked %d times at rest", asked.Load()-before)
		}
		unlocked.Store(1)
		put(t, l, 1, true)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if s := l.Status(); s.Signed != 3601 {
			t.Errorf("once unlocked: %+v", s)
		}
		l.Close(t.Context())
	})
}

// A key that can be had signs at once what was left unsigned, whatever the
// pause between two attempts is, or without any further entry.
func TestSignerReady(t *testing.T) {
	for _, entries := range []int{1, 3} {
		dir, key := logDir(t), newKey(t)
		synctest.Test(t, func(t *testing.T) {
			ready := make(chan struct{})
			asked := 0
			l, err := audit.Open(t.Context(), audit.Options{Dir: dir, SignerReady: ready, Signer: func(ctx context.Context) (note.Signer, error) {
				asked++
				select {
				case <-ready:
					return key.Signer(ctx)
				default:
					return nil, broker.Errorf(broker.CodeKeychainLocked, "locked")
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close(t.Context())
			for range entries {
				put(t, l, 1, true)
				time.Sleep(time.Hour)
			}
			synctest.Wait()
			if s := l.Status(); s.Signed != 0 || asked != entries {
				t.Errorf("before: %+v, asked %d times", s, asked)
			}
			close(ready)
			synctest.Wait()
			if s := l.Status(); s.Signed != int64(entries) {
				t.Errorf("after: %+v", s)
			}
			time.Sleep(time.Hour)
			if synctest.Wait(); asked != entries+1 {
				t.Errorf("asked %d times", asked)
			}
		})
	}
}
