package audit_test

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker/audit"
)

// TestSyncTimes follows the clock: what nobody waits for is synced one second
// after the first of it was written, and a log at rest syncs nothing.
func TestSyncTimes(t *testing.T) {
	dir := logDir(t)
	synctest.Test(t, func(t *testing.T) {
		fsys := &faultFS{}
		var syncs atomic.Int32
		fsys.set(func(op, name string) outcome {
			if op == "sync" && strings.HasSuffix(name, ".jsonl") {
				syncs.Add(1)
			}
			return fine
		})
		l, err := audit.Open(t.Context(), audit.Options{Dir: dir}.WithFS(fsys))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close(t.Context())
		syncs.Store(0)
		put(t, l, 1, false)
		time.Sleep(900 * time.Millisecond)
		put(t, l, 1, false)
		time.Sleep(99 * time.Millisecond)
		synctest.Wait()
		if syncs.Load() != 0 {
			t.Errorf("%d syncs within a second", syncs.Load())
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if syncs.Load() != 1 {
			t.Errorf("%d syncs after a second", syncs.Load())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if syncs.Load() != 1 {
			t.Errorf("%d syncs after an hour at rest", syncs.Load())
		}
		put(t, l, 1, true)
		if syncs.Load() != 2 {
			t.Errorf("%d syncs after a durable entry", syncs.Load())
		}
	})
}

// TestRepairTimes lets the disk recover on its own.
func TestRepairTimes(t *testing.T) {
	dir := logDir(t)
	synctest.Test(t, func(t *testing.T) {
		fsys := &faultFS{}
		l, err := audit.Open(t.Context(), audit.Options{Dir: dir}.WithFS(fsys))
		if err != nil {
			t.Fatal(err)
		}
		put(t, l, 1, false)
		var tries atomic.Int32
		fsys.set(func(op, name string) outcome {
			if op == "create" {
				tries.Add(1)
			}
			if op == "sync" || op == "create" {
				return fails
			}
			return fine
		})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if s := l.Status(); tries.Load() < 10 || tries.Load() > 20 || s.Error == "" {
			t.Errorf("%d tries in 10 minutes, %+v", tries.Load(), s)
		}
		fsys.set(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := l.Status(); s.Error != "" {
			t.Errorf("a minute after the disk is back: %+v", s)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if n := bytes.Count(segments(t, dir), []byte("\n")); n != 1 {
		t.Errorf("%d entries", n)
	}
}
