package audit_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker/audit"
)

// keepSteps are what compressing and removing the first segment do to the
// disk.
var keepSteps = []struct{ op, file string }{
	{"create", "000001.jsonl.zst.tmp"},
	{"write", "000001.jsonl.zst.tmp"},
	{"sync", "000001.jsonl.zst.tmp"},
	{"rename", "000001.jsonl.zst"},
	{"syncdir", "audit"},
	{"remove", "000001.jsonl"},
	{"remove", "000001.jsonl.zst"},
	{"remove", "000001.jsonl.zst.tmp"},
	{"create", "pruned.tmp"},
	{"write", "pruned.tmp"},
	{"sync", "pruned.tmp"},
	{"rename", "pruned"},
	{"remove", "pruned.tmp"},
}

// TestKeepFaults lets each step fail in each way, ends the process in the
// middle or lets the disk recover, and demands that what is there verifies at
// every time, that no entry is lost that was not to go, and that all is done
// in the end.
func TestKeepFaults(t *testing.T) {
	for _, step := range keepSteps {
		for _, how := range []outcome{fails, persisted, short, quiet} {
			if how > persisted && step.op != "write" {
				continue
			}
			for _, crash := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s, %v, crash %v", step.op, step.file, how, crash), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testKeepFault(t, step.op, step.file, how, crash) })
				})
			}
		}
	}
}

func testKeepFault(t *testing.T, op, file string, how outcome, crash bool) {
	dir, key := logDir(t), newKey(t)
	opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 20 << 10, Keep: 100 * 24 * time.Hour}
	aged(t, opts, 3)
	all := segments(t, dir)
	kept := lineFrom(all, int64(bytes.Count(read(t, dir)["000001.jsonl"], []byte("\n"))))

	whole := func(when string) {
		t.Helper()
		if rep, err := verify(t, dir, key); err != nil {
			t.Errorf("%s: %+v", when, rep.Problem)
		}
		if got := entriesOf(t, dir, audit.Query{}); !bytes.HasPrefix(got, all) && !bytes.HasPrefix(got, kept) {
			t.Errorf("%s: entries are missing", when)
		}
	}
	fsys, opening := &faultFS{}, true
	fsys.set(func(o, name string) outcome {
		if o != op || name != file || o == "syncdir" && opening {
			opening = opening && o != "syncdir"
			return fine
		}
		return how
	})
	l := openAsIs(t, opts.WithFS(fsys))
	for range 3 {
		if err := l.Append(t.Context(), event(0), false); err != nil {
			t.Fatal(err)
		}
		settle()
		whole("while it fails")
	}
	// These are steps only after others have failed.
	if fsys.hits == 0 && file != "000001.jsonl.zst.tmp" && file != "pruned.tmp" {
		t.Error("it never happened")
	}
	fsys.set(nil)
	if crash {
		audit.Abandon(l)
		whole("after the crash")
		l = openAsIs(t, opts)
	}
	// It tries again less and less often.
	for range 4 {
		if err := l.Append(t.Context(), event(0), false); err != nil {
			t.Fatal(err)
		}
		settle()
	}
	shut(t, l)
	whole("in the end")
	plain, compressed := forms(t, dir)
	if !slices.Equal(plain, []string{"000004.jsonl"}) || !slices.Equal(compressed, []string{"000002.jsonl.zst", "000003.jsonl.zst"}) {
		t.Errorf("in the end there are %v and %v", plain, compressed)
	}
	tidied(t, dir)
}

// A crash between any two steps leaves a log that verifies and goes on. The
// steps' own outcomes are those of TestKeepFaults; here each of them is the
// last that the process did.
func TestKeepCrashes(t *testing.T) {
	ended := 0
	for last := 1; ; last++ {
		done := false
		synctest.Test(t, func(t *testing.T) {
			dir, key := logDir(t), newKey(t)
			opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 20 << 10, Keep: 100 * 24 * time.Hour}
			aged(t, opts, 3)
			fsys, n := &faultFS{}, 0
			fsys.set(func(op, name string) outcome {
				if !strings.HasPrefix(name, "000001") && !strings.HasPrefix(name, "pruned") {
					return fine
				}
				if n++; n > last {
					return fails // the process is not there any more
				}
				return fine
			})
			l := openAsIs(t, opts.WithFS(fsys))
			for range 3 {
				put(t, l, 1, false)
				settle()
			}
			done = fsys.hits == 0
			audit.Abandon(l)
			if rep, err := verify(t, dir, key); err != nil {
				t.Errorf("after step %d: %+v", last, rep.Problem)
			}
			l = openAsIs(t, opts)
			for range 4 {
				put(t, l, 1, false)
				settle()
			}
			shut(t, l)
			if rep, err := verify(t, dir, key); err != nil || rep.Pruned == 0 {
				t.Errorf("after step %d, in the next run: %+v, %v", last, rep, err)
			}
			tidied(t, dir)
			if _, err := os.Stat(dir + "/000001.jsonl.zst"); err == nil {
				t.Errorf("after step %d, in the next run: the first segment is still there", last)
			}
		})
		if ended++; done || t.Failed() {
			break
		}
	}
	if ended < 10 {
		t.Errorf("only %d steps", ended)
	}
}

// Where there is no room to compress a segment, the oldest is removed all the
// same: that makes room.
func TestPruneWithoutRoomToCompress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, key := logDir(t), newKey(t)
		opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 20 << 10, Keep: 100 * 24 * time.Hour}
		aged(t, opts, 3)
		fsys := &faultFS{}
		fsys.set(func(op, name string) outcome {
			if op == "write" && strings.HasSuffix(name, ".zst.tmp") {
				return fails
			}
			return fine
		})
		l := openAsIs(t, opts.WithFS(fsys))
		for range 4 {
			if err := l.Append(t.Context(), event(0), false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		shut(t, l)
		plain, compressed := forms(t, dir)
		if !slices.Equal(plain, []string{"000002.jsonl", "000003.jsonl", "000004.jsonl"}) || len(compressed) > 0 {
			t.Errorf("there are %v and %v", plain, compressed)
		}
		if rep, err := verify(t, dir, key); err != nil {
			t.Errorf("%+v", rep.Problem)
		}
	})
}

// emptyFirst begins a log whose first segment is empty, since its first sync
// failed.
func emptyFirst(t *testing.T, opts audit.Options) {
	t.Helper()
	fsys := &faultFS{}
	fsys.set(func(op, name string) outcome {
		if op == "sync" && name == "000001.jsonl" {
			return fails
		}
		return fine
	})
	l := openAsIs(t, opts.WithFS(fsys))
	put(t, l, 1, true)
	fsys.set(nil)
	shut(t, l)
}

// An empty segment goes with the one after it: of a log whose first sync had
// failed, the first of all. A crash between the two leaves a log that verifies,
// and of which the rest goes.
func TestPruneEmptyFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, key := logDir(t), newKey(t)
		opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 20 << 10, Keep: 100 * 24 * time.Hour}
		emptyFirst(t, opts)
		aged(t, opts, 4)
		if im := read(t, dir); len(im["000001.jsonl"]) > 0 || len(im["000002.jsonl"]) == 0 {
			t.Fatal("the first segment is not empty")
		}
		all := segments(t, dir)

		fsys := &faultFS{}
		fsys.set(func(op, name string) outcome {
			if op == "remove" && (name == "000002.jsonl" || name == "000002.jsonl.zst") {
				return fails
			}
			return fine
		})
		l := openAsIs(t, opts.WithFS(fsys))
		for range 3 {
			put(t, l, 1, false)
			settle()
		}
		audit.Abandon(l)
		if exists(dir+"/000001.jsonl") || !exists(dir+"/000002.jsonl") || !exists(dir+"/pruned") {
			t.Fatal("not the crash this test is about")
		}
		if rep, err := verify(t, dir, key); err != nil || rep.Pruned > 0 {
			t.Errorf("after the crash: %+v, %v", rep.Problem, err)
		}
		changed := read(t, dir)
		if got := entriesOf(t, dir, audit.Query{}); !bytes.HasPrefix(got, all) {
			t.Error("after the crash entries are missing")
		}

		l = openAsIs(t, opts)
		for range 4 {
			put(t, l, 1, false)
			settle()
		}
		shut(t, l)
		if rep, err := verify(t, dir, key); err != nil || rep.Pruned == 0 {
			t.Errorf("in the next run: %+v, %v", rep, err)
		}
		if exists(dir+"/000002.jsonl") || exists(dir+"/000002.jsonl.zst") {
			t.Error("in the next run: the old segment is still there")
		}

		changed = changed.with("000002.jsonl", bytes.Replace(changed["000002.jsonl"], []byte("alice"), []byte("malia"), 1))
		if rep, err := verify(t, dirOf(t, changed), key); err == nil || rep.Problem.File != "000002.jsonl" || rep.Problem.Line != 1 {
			t.Errorf("with an entry changed after the crash: %+v, %v", rep.Problem, err)
		}
	})
}

// An empty segment is gone for good before the one after it goes: else a power
// cut could leave it, and a log that lacks a segment in the middle.
func TestPruneInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, key := logDir(t), newKey(t)
		opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 20 << 10, Keep: 100 * 24 * time.Hour}
		emptyFirst(t, opts)
		aged(t, opts, 4)

		fsys := &faultFS{}
		var removed string // and not known to be on disk
		fsys.set(func(op, name string) outcome {
			switch {
			case op == "syncdir":
				removed = ""
			case op == "remove" && strings.HasSuffix(name, ".jsonl"):
				if removed != "" {
					t.Errorf("%s was removed before it was known that %s is", name, removed)
				}
				removed = name
			}
			return fine
		})
		l := openAsIs(t, opts.Plain().WithFS(fsys))
		for range 3 {
			put(t, l, 1, false)
			settle()
		}
		shut(t, l)
		if exists(dir + "/000002.jsonl") {
			t.Error("the old segment is still there")
		}
	})
}
