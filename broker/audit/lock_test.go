package audit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"gatepass/broker/audit"
)

func TestLock(t *testing.T) {
	dir := logDir(t)
	if _, held, err := audit.LockHolder(dir); held || err != nil {
		t.Errorf("no log: %v, %v", held, err)
	}
	l := open(t, audit.Options{Dir: dir, Socket: "/run/user/1000/gatepass/gatepass.sock"})
	if s, held, err := audit.LockHolder(dir); s.Socket != "/run/user/1000/gatepass/gatepass.sock" || !held || err != nil {
		t.Errorf("while it is held: %q, %v, %v", s, held, err)
	}
	_, err := audit.Open(t.Context(), audit.Options{Dir: dir, Socket: "/other"})
	locked, ok := errors.AsType[*audit.ErrLocked](err)
	if !ok || locked.Socket != "/run/user/1000/gatepass/gatepass.sock" {
		t.Errorf("a second daemon: %v", err)
	}
	if s, held, _ := audit.LockHolder(dir); s.Socket != "/run/user/1000/gatepass/gatepass.sock" || !held {
		t.Errorf("after a second daemon: %q, %v", s, held)
	}
	shut(t, l)
	if _, held, err := audit.LockHolder(dir); held || err != nil {
		t.Errorf("after Close: %v, %v", held, err)
	}
	// A hold is over when its holder has let go, though another at the same
	// socket has it already, and not before.
	l = open(t, audit.Options{Dir: dir, Socket: "/same"})
	first, _, err := audit.LockHolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := audit.AwaitRelease(ended, dir, first); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it is held: %v", err)
	}
	shut(t, l)
	l = open(t, audit.Options{Dir: dir, Socket: "/same"})
	if err := audit.AwaitRelease(t.Context(), dir, first); err != nil {
		t.Errorf("while another holds it: %v", err)
	}
	shut(t, l)
	if err := audit.AwaitRelease(t.Context(), dir, first); err != nil {
		t.Errorf("while nobody holds it: %v", err)
	}
	// Who looks does not keep a daemon out, nor do many who look at once.
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				audit.LockHolder(dir)
			}
		}
	}()
	for range 20 {
		l, err := audit.Open(t.Context(), audit.Options{Dir: dir})
		if err != nil {
			t.Error(err)
			break
		}
		shut(t, l)
	}
	close(stop)
	<-done
}
