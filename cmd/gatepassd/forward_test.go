package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/audit/forward"
)

// told counts what a forwarder is told.
type told int

func (t *told) Written() { *t++ }
func (t *told) Status(entries int64) []broker.ForwardStatus {
	return []broker.ForwardStatus{{To: "journald", Lag: entries}}
}

// Who sends the log is told of each entry, and asked for the status.
func TestForwardedLog(t *testing.T) {
	book, err := audit.Open(t.Context(), audit.Options{Dir: filepath.Join(t.TempDir(), "audit")})
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close(context.Background())
	var n told
	var log broker.Log = forwardedLog{book, &n}
	for i := range 3 {
		if err := log.Append(t.Context(), broker.Event{Kind: broker.EventCredentialsServed, Outcome: broker.OutcomeOK}, i == 1); err != nil {
			t.Fatal(err)
		}
	}
	if n != 3 {
		t.Errorf("it was told %d times of 3 entries", n)
	}
	if st := log.Status(); st.Entries != 3 || len(st.Forward) != 1 || st.Forward[0].Lag != 3 {
		t.Errorf("%+v", st)
	}
}

// How far the log is sent survives in a file that nobody else reads.
func TestCursorBook(t *testing.T) {
	b := cursorBook{filepath.Join(t.TempDir(), "forward.json")}
	if got, err := b.Cursors(); err != nil || got != nil {
		t.Errorf("no file: %v, %v", got, err)
	}
	want := map[string]forward.Cursor{"journald": {Marks: []forward.Mark{{Next: 42, Hash: []byte{1, 2}, Time: time.Unix(1, 0).UTC()}}}}
	if err := b.SaveCursors(want); err != nil {
		t.Fatal(err)
	}
	got, err := b.Cursors()
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if info, err := os.Stat(b.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	if err := os.WriteFile(b.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Cursors(); err == nil {
		t.Errorf("a torn file: %v", got)
	}
}
