package audit_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// oneProcessor makes writers come in a row: each goes on until it lets others.
func oneProcessor(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// Writers who do not wait for the disk share writes, and each returns when its
// entry is in the file, not before.
func TestSharedWrites(t *testing.T) {
	oneProcessor(t)
	dir := logDir(t)
	var writes atomic.Int32
	fsys := &faultFS{fault: func(op, _ string) outcome {
		if op == "write" {
			writes.Add(1)
		}
		return fine
	}}
	l := open(t, audit.Options{Dir: dir}.WithFS(fsys))
	const writers, each = 32, 20
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				e := event(i)
				e.Reason = fmt.Sprintf("w%d-%d.", w, i)
				if err := l.Append(t.Context(), e, false); err != nil {
					t.Error(err)
				}
				data, err := os.ReadFile(filepath.Join(dir, "000001.jsonl"))
				if err != nil || !bytes.Contains(data, []byte(e.Reason)) {
					t.Errorf("%s was let go before it was written (%v)", e.Reason, err)
				}
			}
		})
	}
	all.Wait()
	if n := writes.Load(); n > writers*each/2 {
		t.Errorf("%d entries took %d writes", writers*each, n)
	}
	shut(t, l)
}

// When a shared write fails, of those who share it only they go on whose
// entries are there whole; and of what a reader has seen by then, nothing is
// taken back.
func TestSharedWriteFails(t *testing.T) {
	oneProcessor(t)
	dir := logDir(t)
	fsys := &faultFS{}
	l := open(t, audit.Options{Dir: dir}.WithFS(fsys))
	put(t, l, 1, true)
	want := 1
	for _, how := range []outcome{fails, short, quiet, persisted} {
		var seen []byte
		fsys.set(func(op, _ string) outcome {
			switch op {
			case "write":
				return how
			case "truncate":
				seen = entriesOf(t, dir, audit.Query{})
			}
			return fine
		})
		var all sync.WaitGroup
		var released atomic.Int32
		for i := range 8 {
			all.Go(func() {
				err := l.Append(t.Context(), event(i), false)
				if err == nil {
					released.Add(1)
				} else if broker.CodeOf(err) != broker.CodeLogUnwritable {
					t.Errorf("outcome %d: %v", how, err)
				}
			})
		}
		all.Wait()
		n := int(released.Load())
		if some := how == short || how == quiet; some != (n > 0) || n == 8 {
			t.Errorf("outcome %d: %d of 8 were released", how, n)
		}
		want += n
		if how != persisted && !bytes.HasPrefix(segments(t, dir), seen) { // of that nobody can know
			t.Errorf("outcome %d: what was seen was taken back", how)
		}
	}
	fsys.set(nil)
	put(t, l, 1, false)
	shut(t, l)
	if n := bytes.Count(segments(t, dir), []byte("\n")); n != want+1 {
		t.Errorf("%d entries, want %d", n, want+1)
	}
}

// A writer whose turn to write has not come when the log breaks does not go on.
func TestBreaksBeforeTheWrite(t *testing.T) {
	oneProcessor(t)
	fsys := &faultFS{}
	l := open(t, audit.Options{Dir: logDir(t)}.WithFS(fsys))
	var other sync.WaitGroup
	var late error
	var once sync.Once
	fsys.set(func(op, _ string) outcome {
		switch op {
		case "sync":
			once.Do(func() {
				other.Go(func() { late = l.Append(t.Context(), event(2), false) })
				runtime.Gosched() // it adds its entry, and lets us go on before it writes
			})
			return fails
		case "create":
			return fails
		}
		return fine
	})
	if err := l.Append(t.Context(), event(1), true); broker.CodeOf(err) != broker.CodeLogUnwritable {
		t.Errorf("the one who waited for the disk: %v", err)
	}
	other.Wait()
	if broker.CodeOf(late) != broker.CodeLogUnwritable {
		t.Errorf("the one who was about to write: %v", late)
	}
	fsys.set(nil)
	put(t, l, 1, true)
	shut(t, l)
}
