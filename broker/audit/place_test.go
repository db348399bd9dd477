package audit_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"

	"golang.org/x/mod/sumdb/note"
)

// What is written into a log that was moved or removed is lost to whoever
// looks for it, so it counts as not written; and all is well once the log is
// back.
func TestAppendToALogThatIsGone(t *testing.T) {
	for _, durable := range []bool{true, false} {
		for name, away := range map[string]func(dir, elsewhere string) error{
			"directory moved": func(dir, elsewhere string) error { return os.Rename(dir, elsewhere) },
			"replaced by an empty one": func(dir, elsewhere string) error {
				if err := os.Rename(dir, elsewhere); err != nil {
					return err
				}
				return os.Mkdir(dir, 0o700)
			},
			"replaced by a copy": func(dir, elsewhere string) error {
				if err := os.Rename(dir, elsewhere); err != nil {
					return err
				}
				return os.CopyFS(dir, os.DirFS(elsewhere))
			},
		} {
			t.Run(name, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "audit")
				elsewhere := dir + ".away"
				l, err := audit.Open(t.Context(), audit.Options{Dir: dir})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close(t.Context())
				event := broker.Event{Kind: broker.EventCredentialsServed, Outcome: broker.OutcomeOK}
				if err := l.Append(t.Context(), event, durable); err != nil {
					t.Fatal(err)
				}
				if err := away(dir, elsewhere); err != nil {
					t.Fatal(err)
				}
				if err := l.Append(t.Context(), event, durable); broker.CodeOf(err) != broker.CodeLogUnwritable {
					t.Errorf("durable %v: got %v", durable, err)
				}
				if l.Status().Error == "" {
					t.Error("the status shows a healthy log")
				}
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(elsewhere, dir); err != nil {
					t.Fatal(err)
				}
				if err := l.Append(t.Context(), event, durable); err != nil {
					t.Errorf("put back: %v", err)
				}
				if got := l.Status(); got.Entries != 2 || got.Error != "" {
					t.Errorf("put back: %+v", got)
				}
			})
		}
	}
}

// A log whose place an empty directory took begins no segment there either.
func TestNewSegmentOfALogThatIsGone(t *testing.T) {
	for _, repair := range []bool{false, true} {
		dir, key, fsys := logDir(t), newKey(t), &faultFS{}
		opts := audit.Options{Dir: dir, SegmentSize: 1 << 10}
		l := open(t, opts.WithFS(fsys))
		put(t, l, 1, true) // most of the segment
		small := broker.Event{Kind: broker.EventDaemonStopped, Outcome: broker.OutcomeOK}
		if err := l.Append(t.Context(), small, false); err != nil {
			t.Fatal(err)
		}
		replace(t, dir)
		if repair {
			fsys.set(func(op, name string) outcome {
				if op == "sync" && name == "000001.jsonl" {
					return fails
				}
				return fine
			})
		}
		for i := range 4 {
			if err := l.Append(t.Context(), event(i), i%2 == 0); broker.CodeOf(err) != broker.CodeLogUnwritable || !strings.Contains(broker.AsError(err).Hint, "put it back") {
				t.Errorf("repair %v: got %v", repair, err)
			}
		}
		if im := read(t, dir); len(im) > 0 {
			t.Errorf("repair %v: it made %v", repair, slices.Sorted(maps.Keys(im)))
		}
		fsys.set(nil)
		putBack(t, dir)
		put(t, l, 2, true)
		shut(t, l)
		if rep, err := verify(t, dir, key); err != nil || rep.Unsigned != 4 {
			t.Errorf("repair %v, put back: %+v, %v", repair, rep, err)
		}
	}
}

// A checkpoint is not said to be there that was written where nobody will find
// it, and is written once the log is back.
func TestCheckpointOfALogThatIsGone(t *testing.T) {
	for _, signed := range []bool{false, true} { // before it is gone
		for name, gone := range map[string]struct {
			away, back func(t testing.TB, dir string)
		}{
			"directory": {replace, putBack},
			"checkpoints": {
				func(t testing.TB, dir string) { replace(t, filepath.Join(dir, "checkpoints")) },
				func(t testing.TB, dir string) { putBack(t, filepath.Join(dir, "checkpoints")) },
			},
		} {
			if name == "checkpoints" && !signed {
				continue // there are none
			}
			synctest.Test(t, func(t *testing.T) {
				dir, key := logDir(t), newKey(t)
				var ready atomic.Bool
				opts := audit.Options{Dir: dir, Signer: func(ctx context.Context) (note.Signer, error) {
					if !ready.Load() {
						return nil, errors.New("the keychain is locked")
					}
					return key.Signer(ctx)
				}}
				ready.Store(signed)
				l := open(t, opts)
				put(t, l, 1, true)
				synctest.Wait()
				before := l.Status().Signed
				put(t, l, 1, true)
				gone.away(t, dir)
				ready.Store(true)
				time.Sleep(time.Minute)
				synctest.Wait()
				if s := l.Status(); s.Signed != before || s.Entries != 2 {
					t.Errorf("%s, signed %v: %+v", name, signed, s)
				}
				gone.back(t, dir)
				time.Sleep(time.Minute)
				synctest.Wait()
				if s := l.Status(); s.Signed != 2 {
					t.Errorf("%s, signed %v, put back: %+v", name, signed, s)
				}
				if rep, err := verify(t, dir, key); err != nil || rep.Signed != 2 {
					t.Errorf("%s, signed %v, put back: %+v, %v", name, signed, rep, err)
				}
				shut(t, l)
			})
		}
	}
}

// The same where the checkpoints are those of an earlier run: none is written
// into a file that holds nothing of them.
func TestFirstCheckpointWithoutTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, key := logDir(t), newKey(t)
		opts := audit.Options{Dir: dir, Signer: key.Signer}
		l := open(t, opts)
		put(t, l, 1, true)
		shut(t, l)
		name := filepath.Join(dir, "checkpoints")
		l = open(t, opts)
		if err := os.Rename(name, name+".away"); err != nil {
			t.Fatal(err)
		}
		put(t, l, 1, true)
		settle()
		if s := l.Status(); s.Signed != 1 || exists(name) {
			t.Errorf("%+v, and it made the file: %v", s, exists(name))
		}
		putBack(t, name)
		settle()
		if s := l.Status(); s.Signed != 2 {
			t.Errorf("put back: %+v", s)
		}
		if rep, err := verify(t, dir, key); err != nil || rep.Signed != 2 {
			t.Errorf("put back: %+v, %v", rep, err)
		}
		shut(t, l)
	})
}

// What is left to be done to old segments is not done to those of a copy that
// took the log's place.
func TestOldSegmentsOfAnotherLog(t *testing.T) {
	for name, test := range map[string]struct {
		old    int // segments
		keep   time.Duration
		op, on string // fails while the log is in its place
	}{
		"cut":      {0, 0, "open sync", "000001.jsonl"},
		"prune":    {3, 100 * 24 * time.Hour, "remove", "000001.jsonl"},
		"compress": {3, 0, "create", "000001.jsonl.zst.tmp"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, key, fsys := logDir(t), newKey(t), &faultFS{}
				opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 20 << 10, Keep: test.keep}
				if test.old > 0 {
					aged(t, opts, test.old)
				}
				if test.keep > 0 {
					opts = opts.Plain()
				}
				fsys.set(func(op, name string) outcome {
					if strings.Contains(test.op, op) && name == test.on {
						return fails
					}
					return fine
				})
				l := openAsIs(t, opts.WithFS(fsys))
				put(t, l, 2, true)
				settle()
				put(t, l, 1, true)
				settle()
				if fsys.hits == 0 {
					t.Fatal("nothing failed")
				}
				if err := cmp.Or(os.Rename(dir, dir+".away"), os.CopyFS(dir, os.DirFS(dir+".away"))); err != nil {
					t.Fatal(err)
				}
				fsys.set(nil)
				before := read(t, dir)
				for range 4 {
					settle()
				}
				l.Close(t.Context())
				if after := read(t, dir); !maps.EqualFunc(before, after, bytes.Equal) {
					t.Errorf("of %v there are %v, or not as they were", slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
				}
			})
		})
	}
}

// replace moves a log or one of its files away and has an empty directory in
// its place.
func replace(t testing.TB, name string) {
	t.Helper()
	if err := cmp.Or(os.Rename(name, name+".away"), os.Mkdir(name, 0o700)); err != nil {
		t.Fatal(err)
	}
}

func putBack(t testing.TB, name string) {
	t.Helper()
	if err := cmp.Or(os.RemoveAll(name), os.Rename(name+".away", name)); err != nil {
		t.Fatal(err)
	}
}
