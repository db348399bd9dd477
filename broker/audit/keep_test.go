package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// settle lets the log sign and tidy up, in a bubble.
func settle() {
	time.Sleep(11 * time.Second)
	synctest.Wait()
}

// forms returns the names of the segments' files.
func forms(t testing.TB, dir string) (plain, compressed []string) {
	t.Helper()
	files, err := os.ReadDir(dir) // sorted
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		switch name := f.Name(); {
		case strings.HasSuffix(name, ".jsonl"):
			plain = append(plain, name)
		case strings.HasSuffix(name, ".jsonl.zst"):
			compressed = append(compressed, name)
		}
	}
	return plain, compressed
}

// tidied fails if unfinished files are left.
func tidied(t testing.TB, dir string) {
	t.Helper()
	for name := range read(t, dir) {
		if strings.HasSuffix(name, ".tmp") {
			t.Errorf("%s was left behind", name)
		}
	}
}

// entriesOf reads all entries as a reader does.
func entriesOf(t testing.TB, dir string, q audit.Query) (lines []byte) {
	t.Helper()
	for line, err := range audit.Entries(t.Context(), dir, q) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(append(lines, line.Raw...), '\n')
	}
	return lines
}

// Nothing is removed before a checkpoint covers the entry that says so.
func TestPruneOnlySigned(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	synctest.Test(t, func(t *testing.T) {
		opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 20 << 10, Keep: 100 * 24 * time.Hour}
		l := prunable(t, opts, 3)
		shut(t, l)
		fsys := &faultFS{}
		fsys.set(func(op, name string) outcome {
			if op == "write" && name == "checkpoints" {
				return fails
			}
			return fine
		})
		l = openAsIs(t, opts.WithFS(fsys))
		for range 3 {
			settle()
			if err := audit.Tidy(l); err != nil {
				t.Error(err)
			}
		}
		if said := entriesOf(t, dir, audit.Query{Event: []string{string(broker.EventLogPruned)}}); bytes.Count(said, []byte("\n")) != 1 {
			t.Errorf("the log says %q", said)
		}
		if !exists(filepath.Join(dir, "000001.jsonl.zst")) {
			t.Error("removed, and no checkpoint covers the entry that says so")
		}
		fsys.set(nil)
		put(t, l, 1, true)
		settle()
		settle()
		if exists(filepath.Join(dir, "000001.jsonl.zst")) {
			t.Error("not removed once it was signed")
		}
		shut(t, l)
		if _, err := verify(t, dir, key); err != nil {
			t.Error(err)
		}
	})
}

// What is not as it was signed is not removed either, however old.
func TestPruneNothingChanged(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	synctest.Test(t, func(t *testing.T) {
		opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 20 << 10, Keep: 100 * 24 * time.Hour}
		l := prunable(t, opts.Plain(), 3)
		shut(t, l)
		im := read(t, dir)
		im.with("000001.jsonl", bytes.Replace(im["000001.jsonl"], []byte("alice"), []byte("malia"), 1)).write(t, dir)
		l = openAsIs(t, opts)
		dayByDay(t, l, 2)
		shut(t, l)
	})
	after := read(t, dir)
	if after["000001.jsonl"] == nil || after["pruned"] != nil {
		t.Error("evidence was removed")
	}
	if rep, err := verify(t, dir, key); err == nil || rep.Problem.File != "000001.jsonl" || rep.Problem.Line != 1 {
		t.Errorf("%+v", rep.Problem)
	}
}

// prunable is a log that keeps 100 days: n segments from day 0, and one that
// was begun much later.
func prunable(t *testing.T, opts audit.Options, n int) *audit.Log {
	t.Helper()
	l := openAsIs(t, opts)
	fillTo(t, l, opts, n)
	time.Sleep(200 * 24 * time.Hour)
	fillTo(t, l, opts, n+1) // the last of the old ones goes on
	return l
}

// aged leaves such a log for the next run, which is the first to compress and
// to remove anything.
func aged(t *testing.T, opts audit.Options, n int) {
	t.Helper()
	opts.Keep = 0
	shut(t, prunable(t, opts.Plain(), n))
}

// fillTo writes until the log has so many segments.
func fillTo(t testing.TB, l *audit.Log, opts audit.Options, n int) {
	t.Helper()
	for {
		plain, compressed := forms(t, opts.Dir)
		all := append(plain, compressed...)
		if slices.ContainsFunc(all, func(name string) bool { return strings.HasPrefix(name, fmt.Sprintf("%06d", n)) }) {
			return // others may be there in both forms
		}
		put(t, l, 1, false)
	}
}

// dayByDay lives with the log, with some entries each day.
func dayByDay(t testing.TB, l *audit.Log, days int) {
	t.Helper()
	for range days {
		for range 12 {
			put(t, l, 1, true)
			settle() // the entry that tells of it
			settle()
			time.Sleep(time.Hour)
		}
		time.Sleep(12*time.Hour - 12*22*time.Second)
	}
}

// Segments go one a day once they are old, and what is left verifies at every
// time.
func TestPrune(t *testing.T) {
	key := newKey(t)
	dir := logDir(t)
	synctest.Test(t, func(t *testing.T) {
		opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 10 << 10, Keep: 100 * 24 * time.Hour}
		l := prunable(t, opts, 4)
		all := entriesOf(t, dir, audit.Query{})
		before := head(t, dir, key)
		for day := range 6 {
			dayByDay(t, l, 1)
			plain, compressed := forms(t, dir)
			tidied(t, dir)
			first := slices.Min(append(plain, compressed...))
			// The fourth has newer entries as well.
			if want := fmt.Sprintf("%06d.jsonl.zst", min(day+2, 4)); first != want {
				t.Errorf("after %d days the first is %s, not %s", day+1, first, want)
			}
			rep, err := verify(t, dir, key)
			if err != nil || rep.Pruned == 0 || rep.Entries-rep.Pruned != int64(bytes.Count(entriesOf(t, dir, audit.Query{}), []byte("\n"))) {
				t.Errorf("day %d: %+v, %v", day, rep, err)
			}
			if rest := entriesOf(t, dir, audit.Query{}); !bytes.HasPrefix(rest, lineFrom(all, rep.Pruned)) {
				t.Errorf("day %d: the entries are not those after %d", day, rep.Pruned)
			}
		}
		said := entriesOf(t, dir, audit.Query{Event: []string{string(broker.EventLogPruned)}})
		if n := bytes.Count(said, []byte("\n")); n != 3 || !bytes.Contains(said, []byte("kept from entry ")) {
			t.Errorf("the log says %d times\n%s", n, said)
		}
		shut(t, l)
		// An older head, of entries that are gone now, is still continued.
		kept := filepath.Join(t.TempDir(), "kept")
		os.WriteFile(kept, before, 0o600)
		if rep, err := verifyAgainst(t, dir, key, kept); err != nil || rep.Against != 1 {
			t.Errorf("against a head from before: %+v, %v", rep, err)
		}
		for _, lost := range []string{"", "hashes"} {
			if lost != "" {
				os.Remove(filepath.Join(dir, lost))
			}
			l = openAsIs(t, opts)
			put(t, l, 1, true)
			shut(t, l)
			if rep, err := verify(t, dir, key); err != nil || rep.Unsigned != 0 {
				t.Errorf("gone on without %q: %+v, %v", lost, rep, err)
			}
		}
	})
}

// Where segments come faster than one a day, they go as fast.
func TestPruneKeepsUp(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	synctest.Test(t, func(t *testing.T) {
		opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 4 << 10, Keep: 7 * 24 * time.Hour}
		l := openAsIs(t, opts)
		for range 30 * 24 {
			put(t, l, 1, false)
			settle()
			settle()
			time.Sleep(time.Hour - 22*time.Second)
		}
		shut(t, l)
		rep, err := verify(t, dir, key)
		if left := rep.Last.Sub(rep.First); err != nil || left < opts.Keep || left > 10*24*time.Hour {
			t.Errorf("%v are left: %+v, %v", left, rep, err)
		}
	})
}

// lineFrom returns lines without the first n.
func lineFrom(lines []byte, n int64) []byte {
	for range n {
		lines = lines[bytes.IndexByte(lines, '\n')+1:]
	}
	return lines
}

// A wrong clock costs little: before a segment was written with it nothing,
// then one segment a day.
func TestPruneByAWrongClock(t *testing.T) {
	key := newKey(t)
	dir := logDir(t)
	synctest.Test(t, func(t *testing.T) {
		wrong := time.Duration(0)
		opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 200 << 10, Keep: 100 * 24 * time.Hour,
			Now: func() time.Time { return time.Now().Add(wrong) }}
		l := openAsIs(t, opts)
		fillTo(t, l, opts, 6)
		first := func() string {
			plain, compressed := forms(t, dir)
			return slices.Min(append(plain, compressed...))
		}
		wrong = 1000 * 24 * time.Hour
		dayByDay(t, l, 3)
		if first() != "000001.jsonl.zst" {
			t.Error("pruned at once by a clock that was set forward")
		}
		fillTo(t, l, opts, 7)
		dayByDay(t, l, 2)
		if first() != "000003.jsonl.zst" {
			t.Errorf("two days after a segment was begun by the wrong clock, the first is %s", first())
		}
		wrong = 0
		dayByDay(t, l, 3)
		if first() != "000003.jsonl.zst" {
			t.Errorf("with the clock right again, the first is %s", first())
		}
		wrong = -1000 * 24 * time.Hour
		dayByDay(t, l, 3)
		if first() != "000003.jsonl.zst" {
			t.Errorf("with the clock set back, the first is %s", first())
		}
		shut(t, l)
		if _, err := verify(t, dir, key); err != nil {
			t.Error(err)
		}
	})
}

// Whoever removes entries by hand cannot say that they were pruned.
func TestPrunedByHand(t *testing.T) {
	key := newKey(t)
	dir := logDir(t)
	var im image
	synctest.Test(t, func(t *testing.T) {
		opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 10 << 10, Keep: 100 * 24 * time.Hour}
		l := prunable(t, opts, 4)
		dayByDay(t, l, 2)
		shut(t, l)
		im = read(t, dir)
	})
	pruned := string(im["pruned"])
	if im["000003.jsonl.zst"] == nil || im["000002.jsonl.zst"] != nil || strings.Count(pruned, "\n\n") != 2 {
		t.Fatalf("not the log this test is about: %q", pruned)
	}
	at := strings.Index(pruned, "\n\n") + 2
	flipped := func(i int) image {
		b := []byte(pruned)
		b[i] ^= 1
		return im.with("pruned", b)
	}
	forged, err := audit.ForgePruned(dir, 4)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		im   image
		file string
		what string
	}{
		"nothing":                        {im, "", ""},
		"one more segment":               {im.with("000003.jsonl.zst", nil), "000004.jsonl", "missing"},
		"one more segment, and its edge": {im.with("000003.jsonl.zst", nil).with("pruned", forged), "pruned", "no signed entry says that they were removed"},
		"no edge":                        {im.with("pruned", nil), "000001.jsonl", "missing"},
		"another size":                   {flipped(at), "", "is"},
		"another hash":                   {flipped(at + 35), "pruned", ""},
		"no edge, an empty file":         {im.with("pruned", []byte{}), "000001.jsonl", "missing"},
		"half an edge":                   {im.with("pruned", []byte(pruned[:len(pruned)-1])), "pruned", "not as it was written"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := dirOf(t, tt.im)
			rep, err := verify(t, dir, key)
			if name == "nothing" {
				if err != nil || rep.Pruned == 0 {
					t.Errorf("%+v, %v", rep, err)
				}
				return
			}
			if err == nil || !strings.Contains(rep.Problem.File, tt.file) || !strings.Contains(rep.Problem.What, tt.what) {
				t.Errorf("%+v", rep.Problem)
			}
			t.Log(rep.Problem)
			l, err := audit.Open(t.Context(), audit.Options{Dir: dir})
			if err == nil {
				l.Close(t.Context())
			} else if broker.CodeOf(err) != broker.CodeData {
				t.Errorf("open: %v", err)
			}
		})
	}
}

// Those who read and verify beside a daemon that compresses and removes
// segments see a whole log at every time.
func TestReadersBesideTheKeeper(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	var day atomic.Int64
	opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 8 << 10, Keep: 10 * 24 * time.Hour,
		Now: func() time.Time { return time.Unix(0, 0).Add(time.Duration(day.Load()) * 25 * time.Hour) }}
	live := func() { // a day of the daemon
		day.Add(1)
		l := openAsIs(t, opts)
		put(t, l, 30, true)
		shut(t, l)
	}
	live()
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	reads := 0
	var verified atomic.Int64
	readers.Go(func() {
		for ; ctx.Err() == nil; reads++ {
			next := int64(-1)
			for line, err := range audit.Entries(t.Context(), dir, audit.Query{}) {
				if err != nil || next >= 0 && line.Seq != next {
					t.Errorf("entry %d where %d should be: %v", line.Seq, next, err)
					return
				}
				next = line.Seq + 1
			}
		}
	})
	for range 4 { // more than one, for one to be between two steps of a pruning
		readers.Go(func() {
			for ; ctx.Err() == nil; verified.Add(1) {
				if rep, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir, Key: key.verifier}); err != nil {
					t.Errorf("%+v, %v", rep, err)
					return
				}
			}
		})
	}
	for range 30 {
		live()
	}
	stop()
	readers.Wait()
	rep, err := verify(t, dir, key)
	if err != nil || rep.Pruned < 100 {
		t.Errorf("%+v, %v", rep, err)
	}
	t.Logf("read %d times, verified %d times; %d of %d entries pruned", reads, verified.Load(), rep.Pruned, rep.Entries)
}
