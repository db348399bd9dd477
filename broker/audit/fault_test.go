package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"gatepass/broker"
	"gatepass/broker/audit"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A faultFS makes chosen steps fail.
type faultFS struct {
	audit.OSFS
	mu    sync.Mutex
	fault func(op, name string) outcome
	hits  int
	hold  func(op, name string) // called before a step, which it may hold up
}

// An outcome is how a step fails.
type outcome int

const (
	fine      outcome = iota
	fails             // nothing is done
	persisted         // all is done, but it says that it failed
	short             // a write does half of it and says so
	quiet             // a write does half of it and says nothing
)

var errFault = &os.PathError{Op: "fault", Path: "injected", Err: syscall.ENOSPC}

func (f *faultFS) set(fault func(op, name string) outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

func (f *faultFS) step(op, name string, do func() error) error {
	switch f.outcome(op, name) {
	case fails, short, quiet:
		return errFault
	case persisted:
		do()
		return errFault
	}
	return do()
}

func (f *faultFS) holdUp(hold func(op, name string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = hold
}

func (f *faultFS) outcome(op, name string) outcome {
	f.mu.Lock()
	hold := f.hold
	f.mu.Unlock()
	if hold != nil {
		hold(op, filepath.Base(name))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault == nil {
		return fine
	}
	o := f.fault(op, filepath.Base(name))
	if o != fine {
		f.hits++
	}
	return o
}

func (f *faultFS) OpenFile(name string, flag int, perm fs.FileMode) (file audit.File, err error) {
	op := "open"
	if flag&os.O_CREATE != 0 {
		op = "create"
	}
	err = f.step(op, name, func() error {
		file, err = f.OSFS.OpenFile(name, flag, perm)
		return err
	})
	if err != nil {
		if file != nil {
			file.Close()
		}
		return nil, err
	}
	return &faultFile{file, f, name}, nil
}

func (f *faultFS) Rename(from, to string) error {
	return f.step("rename", to, func() error { return f.OSFS.Rename(from, to) })
}

func (f *faultFS) Remove(name string) error {
	return f.step("remove", name, func() error { return f.OSFS.Remove(name) })
}

func (f *faultFS) SyncDir(name string) error {
	return f.step("syncdir", name, func() error { return f.OSFS.SyncDir(name) })
}

type faultFile struct {
	audit.File
	fs   *faultFS
	name string
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	switch f.fs.outcome("write", f.name) {
	case fails:
		return 0, errFault
	case persisted:
		f.File.WriteAt(p, off)
		return 0, errFault
	case short:
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, errFault
	case quiet:
		return f.File.WriteAt(p[:len(p)/2], off)
	}
	return f.File.WriteAt(p, off)
}

func (f *faultFile) Truncate(size int64) error {
	return f.fs.step("truncate", f.name, func() error { return f.File.Truncate(size) })
}

func (f *faultFile) Sync() error {
	for range 50 {
		runtime.Gosched() // others write meanwhile, as on a real disk
	}
	return f.fs.step("sync", f.name, f.File.Sync)
}

// steps are what the writer does to the disk. "next" is the segment after the
// one that is being written.
var steps = []struct{ op, file string }{
	{"write", "000001.jsonl"},
	{"sync", "000001.jsonl"},
	{"truncate", "000001.jsonl"},
	{"open", "000001.jsonl"},
	{"create", "000002.jsonl"},
	{"write", "000002.jsonl"},
	{"sync", "000002.jsonl"},
	{"remove", "000002.jsonl"},
	{"syncdir", "audit"},
	{"write", "hashes"},
	{"open", "hashes"},
	{"sync", "hashes"},
	{"create", "checkpoints"},
	{"write", "checkpoints"},
	{"sync", "checkpoints"},
	{"truncate", "checkpoints"},
}

// TestFaults lets each step, and each pair of them, fail in each way while
// entries are written, ends the process in the middle or lets the disk
// recover, and demands: whatever Append acknowledged is in the log once, the
// log goes on and verifies.
func TestFaults(t *testing.T) {
	for i, a := range steps {
		for _, b := range steps[i:] {
			if raceEnabled && b != a {
				break // the pairs are for what comes of them
			}
			for _, how := range []struct{ a, b outcome }{{fails, fails}, {fails, persisted}, {persisted, persisted}, {persisted, fails}, {short, fails}, {quiet, fails}} {
				if how.a > persisted && a.op != "write" {
					continue
				}
				for _, crash := range []bool{false, true} {
					name := fmt.Sprintf("%s %s, %s %s, %v, crash %v", a.op, a.file, b.op, b.file, how, crash)
					fault := func(op, file string) outcome {
						if op == a.op && file == a.file {
							return how.a
						}
						if op == b.op && file == b.file {
							return how.b
						}
						return fine
					}
					if !t.Run(name, func(t *testing.T) { testFault(t, fault, crash) }) {
						return
					}
				}
			}
		}
	}
}

func testFault(t *testing.T, fault func(op, file string) outcome, crash bool) {
	dir, key := logDir(t), newKey(t)
	fsys := &faultFS{}
	opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 40 << 10}
	l, err := audit.Open(t.Context(), opts.WithFS(fsys))
	if err != nil {
		t.Fatal(err)
	}
	// What was acknowledged, and what was refused.
	var mu sync.Mutex
	acked, refused := map[string]bool{}, map[string]bool{}
	add := func(reason string, durable bool) error {
		e := event(0)
		e.Reason = reason
		switch {
		case strings.HasPrefix(reason, "after"):
			e.Caller = nil // all of them are shorter than what may be left over
		case reason == "during-5":
			for range 16 {
				e.Caller.Ancestors = append(e.Caller.Ancestors, broker.Process{PID: 1, Command: strings.Repeat("long ", 120)})
			}
		}
		err := l.Append(t.Context(), e, durable)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			acked[reason] = true
		} else {
			refused[reason] = true
			if broker.CodeOf(err) != broker.CodeLogUnwritable || broker.AsError(err).Hint == "" || !errors.Is(err, syscall.ENOSPC) && !strings.Contains(err.Error(), "bytes were written") {
				t.Errorf("the error is %v (%s)", err, broker.CodeOf(err))
			}
		}
		return err
	}
	for i := range 3 {
		if err := add(fmt.Sprintf("before-%d", i), i > 0); err != nil {
			t.Fatal(err)
		}
	}
	fsys.set(fault)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 4 {
				add(fmt.Sprintf("during-%d-%d", w, i), i%2 == w%2)
			}
		})
	}
	wg.Wait()
	for i := range 4 {
		if err := add(fmt.Sprintf("during-%d", i), i%2 == 0); err != nil && l.Status().Error == "" {
			t.Error("status does not say why the log cannot be written")
		}
	}
	add("during-5", false)
	if crash {
		// Nothing of the process's own survives, the disk is whole again.
		fsys.set(nil)
		audit.Abandon(l)
	} else {
		fsys.set(nil)
		for i := range 3 {
			if err := add(fmt.Sprintf("after-%d", i), i != 1); err != nil {
				t.Fatalf("with the disk whole again: %v", err)
			}
		}
		if s := l.Status(); s.Error != "" {
			t.Errorf("status still says %s", s.Error)
		}
		shut(t, l)
		rep, err := verify(t, dir, key)
		if err != nil || rep.Unsigned != 0 {
			t.Errorf("verify after Close: %+v", rep)
		}
	}
	l, err = audit.Open(t.Context(), opts)
	if err != nil {
		t.Fatalf("open again: %v", err)
	}
	if err := l.Append(t.Context(), event(0), true); err != nil {
		t.Fatal(err)
	}
	shut(t, l)
	rep, err := verify(t, dir, key)
	if err != nil || rep.Unsigned != 0 {
		t.Fatalf("verify: %+v, %v\n%s", rep, err, segments(t, dir))
	}
	found := reasons(t, dir)
	for reason := range acked {
		if found[reason] != 1 {
			t.Errorf("%s was acknowledged and is there %d times", reason, found[reason])
		}
	}
	for reason := range refused {
		if found[reason] > 1 {
			t.Errorf("%s was refused and is there %d times", reason, found[reason])
		}
	}
}

// What a repair moved stays in the old segment for as long as that cannot be
// cut. However many segments follow, the next run finds its way.
func TestOldSegmentCannotBeCut(t *testing.T) {
	for _, c := range []struct {
		name        string
		crash, late bool // late: the key comes when the piece was moved already
	}{{name: "shut"}, {name: "crash", crash: true}, {name: "late key", late: true}} {
		dir, key := logDir(t), newKey(t)
		asked, had := make(chan struct{}), make(chan struct{})
		opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 4 << 10}
		slow := opts
		slow.Signer = func(ctx context.Context) (note.Signer, error) {
			close(asked)
			<-had
			return key.Signer(ctx)
		}
		if !c.late {
			close(had)
		}
		fsys := &faultFS{}
		l := open(t, slow.WithFS(fsys))
		put(t, l, 2, true)
		<-asked
		fsys.set(func(op, file string) outcome {
			if file == "000001.jsonl" && (op == "sync" || op == "open") {
				return fails
			}
			return fine
		})
		put(t, l, 20, true)
		if c.late {
			close(had)
		}
		if c.crash {
			audit.Abandon(l)
		} else {
			shut(t, l)
		}
		if plain, _ := forms(t, dir); len(plain) < 4 {
			t.Fatalf("only the segments %v", plain)
		}
		l = open(t, opts)
		if s := l.Status(); s.Entries != 23 { // and one that says so
			t.Errorf("%s: %+v", c.name, s)
		}
		shut(t, l)
		if rep, err := verify(t, dir, key); err != nil || rep.Signed != 23 {
			t.Errorf("%s: %+v, %v", c.name, rep, err)
		}
	}
}

// TestCheckpointFaults lets the steps of signing fail while the log is closed:
// nothing is lost, and the next run signs.
func TestCheckpointFaults(t *testing.T) {
	for _, step := range []struct{ op, file string }{
		{"create", "checkpoints"}, {"open", "checkpoints"}, {"truncate", "checkpoints"}, {"syncdir", "audit"}, {"write", "checkpoints"},
		{"sync", "checkpoints"}, {"open", "hashes"}, {"sync", "hashes"}, {"write", "hashes"},
	} {
		for _, how := range []outcome{fails, persisted, short, quiet} {
			for _, first := range []bool{true, false} {
				if first && step.op == "open" && step.file == "checkpoints" || !first && step.op == "create" {
					continue // not what it does
				}
				dir, key := logDir(t), newKey(t)
				opts := audit.Options{Dir: dir, Signer: key.Signer}
				if !first {
					l := open(t, opts)
					put(t, l, 3, true)
					shut(t, l)
				}
				fsys := &faultFS{}
				l := open(t, opts.WithFS(fsys))
				fsys.set(func(op, file string) outcome {
					if op == step.op && file == step.file {
						return how
					}
					return fine
				})
				put(t, l, 3, true)
				shut(t, l)
				before, err := verify(t, dir, key)
				if err != nil && !(how == quiet && step.file == "checkpoints") {
					t.Errorf("%v %d, first %v: %v", step, how, first, err)
				}
				l = open(t, opts)
				put(t, l, 1, true)
				shut(t, l)
				rep, err := verify(t, dir, key)
				if err != nil || rep.Unsigned != 0 || rep.Signed < before.Signed {
					t.Errorf("%v %d, first %v, in the next run: %+v, %v", step, how, first, rep, err)
				}
				if fsys.hits == 0 && !(step.op == "write" && step.file == "hashes") && (step.op != "truncate" || how == fails) && step.op != "syncdir" {
					t.Errorf("%v: never happened", step)
				}
			}
		}
	}
}

// What was written of the hashes in part is written again: proofs, and the
// compression of the segment, read all of them, the next run only the last.
func TestHashesWrittenInPart(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	fsys, once := &faultFS{}, true
	l := open(t, audit.Options{Dir: dir, Signer: key.Signer}.WithFS(fsys))
	fsys.set(func(op, file string) outcome {
		if op == "write" && file == "hashes" && once {
			once = false
			return quiet
		}
		return fine
	})
	put(t, l, 5, true)
	shut(t, l)
	if once {
		t.Fatal("it never happened")
	}
	if err := audit.CheckContinues(filepath.Join(dir, "hashes"), 5); err != nil {
		t.Error(err)
	}
}

// What a failed write has left whole in a segment that could not be cut keeps
// its number: no other entry has it in the segment after.
func TestFailedWriteStays(t *testing.T) {
	for _, durable := range []bool{false, true} {
		dir, key, fsys := logDir(t), newKey(t), &faultFS{}
		opts := audit.Options{Dir: dir, Signer: key.Signer}
		l := open(t, opts.WithFS(fsys))
		put(t, l, 2, true)
		fsys.set(func(op, file string) outcome {
			switch {
			case op == "write" && file == "000001.jsonl":
				return persisted
			case (op == "truncate" || op == "open") && file == "000001.jsonl":
				return fails
			}
			return fine
		})
		e := event(0)
		e.Reason = "refused"
		if err := l.Append(t.Context(), e, durable); broker.CodeOf(err) != broker.CodeLogUnwritable {
			t.Errorf("durable %v: got %v", durable, err)
		}
		e.Reason = "acknowledged"
		if err := l.Append(t.Context(), e, true); err != nil {
			t.Fatal(err)
		}
		audit.Abandon(l)
		l, err := audit.Open(t.Context(), opts)
		if err != nil {
			t.Fatalf("durable %v: open again: %v", durable, err)
		}
		shut(t, l)
		if rep, err := verify(t, dir, key); err != nil || rep.Unsigned != 0 {
			t.Errorf("durable %v: %+v, %v", durable, rep, err)
		}
		if found := reasons(t, dir); found["acknowledged"] != 1 || found["refused"] > 1 {
			t.Errorf("durable %v: there are %v", durable, found)
		}
	}
}

// A writer that hears late that there was no room does not take back that
// there is by now.
func TestStatusOfALateWriter(t *testing.T) {
	fsys := &faultFS{}
	l := open(t, audit.Options{Dir: logDir(t), SegmentSize: 1 << 10}.WithFS(fsys))
	put(t, l, 1, true) // most of the segment
	failed := make(chan struct{})
	fsys.set(func(op, file string) outcome {
		if op == "create" && file == "000002.jsonl" {
			close(failed)
			return fails
		}
		return fine
	})
	slow := slowContext{t.Context(), make(chan struct{})}
	late := make(chan error)
	go func() { late <- l.Append(slow, event(1), true) }()
	<-failed
	small := broker.Event{Kind: broker.EventDaemonStopped, Outcome: broker.OutcomeOK}
	if err := l.Append(t.Context(), small, true); err != nil {
		t.Fatal(err)
	}
	close(slow.ready)
	if err := <-late; broker.CodeOf(err) != broker.CodeLogUnwritable {
		t.Errorf("got %v", err)
	}
	if s := l.Status(); s.Error != "" {
		t.Errorf("the status says: %s", s.Error)
	}
}

// A slowContext holds up who asks when it is done.
type slowContext struct {
	context.Context
	ready chan struct{}
}

func (c slowContext) Done() <-chan struct{} {
	<-c.ready
	return c.Context.Done()
}

// A segment that could not be synced may be right in memory and not on disk.
// So of lines that a repair has moved, what stays is the copy, which is on disk
// before the others are cut off.
func TestCrashAfterRepair(t *testing.T) {
	dir, fsys := logDir(t), &faultFS{}
	opts := audit.Options{Dir: dir}
	l := open(t, opts.WithFS(fsys))
	put(t, l, 2, true)
	onDisk := int64(len(read(t, dir)["000001.jsonl"]))
	fsys.set(func(op, file string) outcome {
		if file == "000001.jsonl" && (op == "sync" || op == "open") {
			return fails
		}
		return fine
	})
	e := event(0)
	e.Reason = "acknowledged"
	if err := l.Append(t.Context(), e, true); err != nil {
		t.Fatal(err)
	}
	audit.Abandon(l)

	synced, again := false, &faultFS{}
	again.set(func(op, file string) outcome {
		synced = synced || op == "sync" && file == "000002.jsonl"
		if op == "truncate" && file == "000001.jsonl" && !synced {
			t.Error("the lines were cut off before the copy was on disk")
		}
		return fine
	})
	l = open(t, opts.WithFS(again))
	audit.Abandon(l)
	// The power fails.
	if err := os.Truncate(filepath.Join(dir, "000001.jsonl"), onDisk); err != nil {
		t.Fatal(err)
	}
	l = open(t, opts)
	shut(t, l)
	if found := reasons(t, dir); found["acknowledged"] != 1 {
		t.Errorf("what was acknowledged is there %d times", found["acknowledged"])
	}
}

// A checkpoint is not on disk before the hashes of what it covers are: by the
// last of them, the next run believes the file.
func TestHashesBeforeCheckpoint(t *testing.T) {
	dir, key, fsys := logDir(t), newKey(t), &faultFS{}
	asked, had := make(chan struct{}), make(chan struct{})
	l := open(t, audit.Options{Dir: dir, Signer: func(ctx context.Context) (note.Signer, error) {
		close(asked)
		<-had
		return key.Signer(ctx)
	}}.WithFS(fsys))
	put(t, l, 1, true)
	<-asked
	begun, signing := make(chan struct{}), make(chan struct{})
	var begin, sign sync.Once
	hashes := 0 // bytes of them
	fsys.holdUp(func(op, file string) {
		switch {
		case op == "write" && file == "hashes":
			begin.Do(func() { close(begun) })
			<-signing
		case op == "write" && file == "checkpoints":
			sign.Do(func() {
				hashes = len(read(t, dir)["hashes"])
				close(signing)
			})
		}
	})
	put(t, l, 1, true)
	<-begun
	close(had)
	<-signing
	shut(t, l)
	var covered int64
	if _, err := fmt.Sscanf(string(read(t, dir)["checkpoints"]), "%s\n%d\n", new(string), &covered); err != nil {
		t.Fatal(err)
	}
	if want := tlog.StoredHashCount(covered) * tlog.HashSize; int64(hashes) < want {
		t.Errorf("a checkpoint of %d entries was written when there were %d bytes of hashes, not %d", covered, hashes, want)
	}
}

// What a new key signs from is the entry that links its log, not others that
// were not written in the end.
func TestLinkBesideRefusedEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, old, key, fsys := logDir(t), newKey(t), newKey(t), &faultFS{}
		l := open(t, audit.Options{Dir: dir, Signer: old.Signer})
		put(t, l, 1, true)
		shut(t, l)

		syncing, goOn := make(chan struct{}), make(chan struct{})
		l = open(t, audit.Options{Dir: dir, Signer: key.Signer}.WithFS(fsys))
		synctest.Wait()
		syncs := 0
		fsys.holdUp(func(op, file string) {
			if op == "sync" && file == "000001.jsonl" {
				if syncs++; syncs == 2 { // of the link, which the first one asked for
					close(syncing)
					<-goOn
				}
			}
		})
		put(t, l, 1, true)
		<-syncing
		refused := make(chan error)
		go func() { refused <- l.Append(t.Context(), event(1), true) }()
		synctest.Wait()
		fsys.set(func(op, file string) outcome {
			if op == "write" && file == "000001.jsonl" {
				return fails
			}
			return fine
		})
		close(goOn)
		if err := <-refused; broker.CodeOf(err) != broker.CodeLogUnwritable {
			t.Errorf("got %v", err)
		}
		shut(t, l)
		if s := l.Status(); s.Entries != 3 || s.Signed != 3 {
			t.Errorf("%+v", s)
		}
	})
}
