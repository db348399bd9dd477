package audit_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// The alarm is given once for as long as nothing can be written, whoever asks
// and however often, and once when all is well again.
func TestAlarm(t *testing.T) {
	dir := logDir(t)
	synctest.Test(t, func(t *testing.T) {
		fsys := &faultFS{}
		var told []string
		opts := audit.Options{Dir: dir, Alarm: func(_ context.Context, why error) {
			if why == nil {
				told = append(told, "well")
			} else {
				told = append(told, why.Error())
			}
		}}
		l := open(t, opts.WithFS(fsys))
		full := func(op, name string) outcome {
			if op == "write" && name == "000001.jsonl" {
				return fails
			}
			return fine
		}
		expect := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			for i := range max(len(told), len(want)) {
				if i >= len(told) || i >= len(want) || !strings.Contains(told[i], want[i]) {
					t.Fatalf("%s: told %q, want %q", when, told, want)
				}
			}
		}
		put(t, l, 3, true)
		expect("at first")
		fsys.set(full)
		for i := range 10 {
			if err := l.Append(t.Context(), event(i), i%2 == 0); broker.CodeOf(err) != broker.CodeLogUnwritable {
				t.Fatal(err)
			}
		}
		expect("full", "no space left")
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Append(gone, event(0), true); err == nil {
			t.Fatal("written for somebody who is gone")
		}
		time.Sleep(time.Minute)
		expect("full for a while", "no space left")
		fsys.set(nil)
		put(t, l, 3, true)
		put(t, l, 3, false)
		expect("with room again", "no space left", "well")
		// It comes and goes: nobody wants to know each time.
		for i := range 21 {
			fsys.set(full)
			l.Append(t.Context(), event(i), true)
			synctest.Wait()
			if i < 20 {
				fsys.set(nil)
				put(t, l, 1, true)
			}
		}
		time.Sleep(time.Minute)
		expect("coming and going", "no space left", "well", "no space left")
		fsys.set(nil)
		put(t, l, 1, true)
		time.Sleep(time.Minute)
		expect("well", "no space left", "well", "no space left", "well")
		// What could not be synced is written again without anybody asking.
		fsys.set(func(op, name string) outcome {
			if op == "sync" || op == "create" {
				return fails
			}
			return fine
		})
		if err := l.Append(t.Context(), event(0), true); broker.CodeOf(err) != broker.CodeLogUnwritable {
			t.Fatal(err)
		}
		expect("not synced", "no space left", "well", "no space left", "well", "no space left")
		fsys.set(nil)
		time.Sleep(time.Minute)
		expect("healed", "no space left", "well", "no space left", "well", "no space left", "well")
		shut(t, l)
	})
}
