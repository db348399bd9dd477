package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// heldLog returns a log that a daemon has, where that says that it listens, and
// what opens the log for the next one.
func heldLog(t *testing.T) (first *audit.Log, socket string, opener func(context.Context) (*audit.Log, error)) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "audit")
	socket = filepath.Join(t.TempDir(), "s")
	opener = func(ctx context.Context) (*audit.Log, error) {
		return audit.Open(ctx, audit.Options{Dir: dir, Socket: socket})
	}
	first, err := opener(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return first, socket, opener
}

// A daemon that comes while another one is ending waits for the log; one that
// comes while another serves does not.
func TestOpenLog(t *testing.T) {
	first, socket, opener := heldLog(t)
	if _, err := openLog(t.Context(), "", time.Millisecond, opener); broker.CodeOf(err) != broker.CodeDaemonUnreachable || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("beside one without a socket: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openLog(gone, "", time.Hour, opener); !errors.Is(err, context.Canceled) {
		t.Errorf("when it is over: %v", err)
	}

	tries := 0
	second, err := openLog(t.Context(), "", time.Hour, func(ctx context.Context) (*audit.Log, error) {
		if tries++; tries == 2 { // it has ended meanwhile
			if err := first.Close(ctx); err != nil {
				t.Error(err)
			}
		}
		return opener(ctx)
	})
	if err != nil || tries != 2 {
		t.Fatalf("after %d tries: %v", tries, err)
	}
	defer second.Close(t.Context())

	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = openLog(t.Context(), "", time.Hour, opener)
	if other, ok := errors.AsType[*audit.ErrLocked](err); !ok || other.Socket != socket {
		t.Errorf("beside one that serves: %v", err)
	}
}

// A daemon that systemd started for its socket does not take what answers there,
// which is its own, for the one that was there before and is ending.
func TestOpenLogBehindOwnSocket(t *testing.T) {
	first, socket, opener := heldLog(t)
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := openLog(t.Context(), socket, time.Millisecond, opener); broker.CodeOf(err) != broker.CodeDaemonUnreachable {
		t.Errorf("beside one that does not end: %v", err)
	}
	tries := 0
	second, err := openLog(t.Context(), socket, time.Hour, func(ctx context.Context) (*audit.Log, error) {
		if tries++; tries == 2 {
			if err := first.Close(ctx); err != nil {
				t.Error(err)
			}
		}
		return opener(ctx)
	})
	if err != nil || tries != 2 {
		t.Fatalf("after %d tries: %v", tries, err)
	}
	second.Close(t.Context())
}
