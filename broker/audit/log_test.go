package audit_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"

	"golang.org/x/mod/sumdb/note"
)

// testKey is a signing key and the verifier that is pinned for it.
type testKey struct{ signer, verifier string }

func newKey(t testing.TB) testKey {
	t.Helper()
	s, v, err := audit.GenerateKey(audit.KeyName("alice", "laptop"))
	if err != nil {
		t.Fatal(err)
	}
	return testKey{s.Reveal(), v}
}

func (k testKey) Signer(context.Context) (note.Signer, error) { return note.NewSigner(k.signer) }

func logDir(t testing.TB) string { return filepath.Join(t.TempDir(), "audit") }

// open opens a log whose segments stay plain, to be looked at.
func open(t testing.TB, opts audit.Options) *audit.Log {
	t.Helper()
	return openAsIs(t, opts.Plain())
}

func openAsIs(t testing.TB, opts audit.Options) *audit.Log {
	t.Helper()
	l, err := audit.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(context.Background()) })
	return l
}

func shut(t testing.TB, l *audit.Log) {
	t.Helper()
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// event is an entry as a busy laptop writes them.
func event(i int) broker.Event {
	return broker.Event{
		Kind:    broker.EventCredentialsServed,
		Outcome: broker.OutcomeOK,
		Profile: "prod-admin",
		Account: "111122223333",
		RoleARN: "arn:aws:iam::111122223333:role/Admin",
		Key:     &broker.EventKey{Name: "work", AccessKeyID: "AKIAIOSFODNN7EXAMPLE"},
		Session: &broker.EventSession{ID: fmt.Sprintf("s-%d", i), AccessKeyID: "ASIAIOSFODNN7EXAMPLE", Name: "alice-s7f3k2", Expires: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)},
		Caller: &broker.Caller{UID: 1000, User: "alice", PID: 4242, Program: "terraform", Exe: "/usr/local/bin/gatepass",
			Command: "gatepass credential-process prod-admin", Cwd: "/home/alice/infra", TTY: "/dev/pts/3", Via: "credential-process", Resolved: true,
			Ancestors: []broker.Process{
				{PID: 4241, Exe: "/usr/bin/terraform", Command: "terraform apply -auto-approve"},
				{PID: 4000, Exe: "/usr/bin/zsh", Command: "-zsh"},
			}},
	}
}

func put(t testing.TB, l *audit.Log, n int, durable bool) {
	t.Helper()
	for i := range n {
		if err := l.Append(t.Context(), event(i), durable); err != nil {
			t.Fatal(err)
		}
	}
}

// segments returns the bytes of all segments, in order.
func segments(t testing.TB, dir string) []byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	var all []byte
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// reasons counts the entries that have each reason.
func reasons(t testing.TB, dir string) map[string]int {
	t.Helper()
	found := map[string]int{}
	for line, err := range audit.Entries(t.Context(), dir, audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := line.Entry()
		if err != nil {
			t.Fatal(err)
		}
		found[e.Reason]++
	}
	return found
}

func TestAppend(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	l := open(t, audit.Options{Dir: dir, Signer: key.Signer})
	put(t, l, 3, true)
	put(t, l, 2, false)
	if s := l.Status(); s.Entries != 5 || s.Error != "" {
		t.Errorf("status = %+v", s)
	}
	shut(t, l)
	lines := bytes.SplitAfter(segments(t, dir), []byte("\n"))
	if len(lines) != 6 || len(lines[5]) != 0 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, line := range lines[:5] {
		e, err := audit.ParseEntry(line[:len(line)-1])
		if err != nil || e.Seq != int64(i) {
			t.Errorf("line %d: seq %d, %v", i, e.Seq, err)
		}
	}
	// Everything is signed at the end, and goes on after it.
	l = open(t, audit.Options{Dir: dir, Signer: key.Signer})
	if s := l.Status(); s.Entries != 5 || s.Signed != 5 {
		t.Errorf("after Close: %+v", s)
	}
	put(t, l, 1, true)
	shut(t, l)
	l = open(t, audit.Options{Dir: dir})
	if s := l.Status(); s.Entries != 6 || s.Signed != 6 {
		t.Errorf("after the second Close: %+v", s)
	}
}

func TestConcurrent(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	l := open(t, audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 20 << 10})
	var wg sync.WaitGroup
	const writers, each = 32, 40
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				e := event(i)
				e.Reason = fmt.Sprintf("w%d-%d.", w, i)
				if err := l.Append(t.Context(), e, i%3 > 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	shut(t, l)
	all := string(segments(t, dir))
	if n := strings.Count(all, "\n"); n != writers*each {
		t.Errorf("%d lines, want %d", n, writers*each)
	}
	for w := range writers {
		for i := range each {
			if strings.Count(all, fmt.Sprintf(`"w%d-%d."`, w, i)) != 1 {
				t.Errorf("entry w%d-%d is not there once", w, i)
			}
		}
	}
	l = open(t, audit.Options{Dir: dir})
	if s := l.Status(); s.Entries != writers*each || s.Signed != s.Entries {
		t.Errorf("reopened: %+v", s)
	}
}

func TestRefuseDirectory(t *testing.T) {
	dir := logDir(t)
	os.Mkdir(dir, 0o700)
	os.Chmod(dir, 0o750)
	_, err := audit.Open(t.Context(), audit.Options{Dir: dir})
	if broker.CodeOf(err) != broker.CodeConfig || !strings.Contains(err.Error(), "0750") {
		t.Errorf("a directory that others can enter: %v", err)
	}
	if _, err := audit.Open(t.Context(), audit.Options{Dir: "audit"}); broker.CodeOf(err) != broker.CodeConfig {
		t.Errorf("a relative directory: %v", err)
	}
	if _, err := audit.Open(t.Context(), audit.Options{Dir: dir, Command: "all"}); broker.CodeOf(err) != broker.CodeConfig {
		t.Errorf("an unknown command mode: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	if _, err := audit.Open(t.Context(), audit.Options{Dir: file}); broker.CodeOf(err) != broker.CodeLogUnwritable {
		t.Errorf("a file: %v", err)
	}
	// Files are for their owner alone, too.
	dir = logDir(t)
	l := open(t, audit.Options{Dir: dir, Signer: newKey(t).Signer})
	put(t, l, 1, true)
	shut(t, l)
	names, _ := os.ReadDir(dir)
	for _, n := range names {
		if info, err := n.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", n.Name(), info.Mode(), err)
		}
	}
	if len(names) != 4 {
		t.Errorf("the directory holds %v", names)
	}
}

// Whoever closes a log that is being closed waits until it is.
func TestCloseTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, key := logDir(t), newKey(t)
		had := make(chan struct{})
		l := open(t, audit.Options{Dir: dir, Signer: func(ctx context.Context) (note.Signer, error) {
			select {
			case <-had:
				return key.Signer(ctx)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}})
		put(t, l, 1, true)
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- l.Close(context.Background()) }()
		synctest.Wait()
		go func() { second <- l.Close(context.Background()) }()
		synctest.Wait()
		select {
		case err := <-second:
			t.Errorf("got %v while it was being closed", err)
			second <- err
		default:
		}
		close(had)
		if err := cmp.Or(<-first, <-second); err != nil {
			t.Error(err)
		}
		if s := l.Status(); s.Signed != 1 {
			t.Errorf("%+v", s)
		}
	})
}
