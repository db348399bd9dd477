package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// elsewhere is where checkpoints are sent to.
type elsewhere struct {
	mu    sync.Mutex
	got   []string // sizes of what came
	err   error
	hangs bool
	busy  int
}

func (e *elsewhere) Anchor(ctx context.Context, checkpoint []byte) error {
	e.mu.Lock()
	e.got = append(e.got, strings.Split(string(checkpoint), "\n")[1])
	err, hangs := e.err, e.hangs
	e.busy++
	if e.busy > 1 {
		err = errors.New("two at a time")
	}
	e.mu.Unlock()
	if hangs {
		<-ctx.Done()
		err = ctx.Err()
	}
	e.mu.Lock()
	e.busy--
	e.mu.Unlock()
	return err
}

// sizes returns what came since the last call.
func (e *elsewhere) sizes() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	got := strings.Join(e.got, " ")
	e.got = nil
	return got
}

func (e *elsewhere) set(err error, hangs bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err, e.hangs = err, hangs
}

func TestAnchor(t *testing.T) {
	dir, key, away := logDir(t), newKey(t), &elsewhere{}
	opts := audit.Options{Dir: dir, Signer: key.Signer, Anchor: away.Anchor, Logger: slog.New(slog.DiscardHandler)}
	synctest.Test(t, func(t *testing.T) {
		l := must(audit.Open(t.Context(), opts))
		if s := l.Status(); s.Anchored != (broker.Anchor{}) {
			t.Errorf("at first: %+v", s)
		}
		put(t, l, 1, true)
		synctest.Wait()
		if got, s := away.sizes(), l.Status(); got != "1" || s.Anchored.Entries != 1 || !s.Anchored.Time.Equal(time.Now()) || s.Anchored.Error != "" {
			t.Errorf("the first checkpoint: %q, %+v", got, s)
		}
		put(t, l, 2, true)
		time.Sleep(time.Hour)
		if got := away.sizes(); got != "3" {
			t.Errorf("an hour later: %q", got)
		}

		// It fails: it is tried again, less and less often, and never in the
		// way of an entry.
		away.set(errors.New("no route to host"), false)
		put(t, l, 1, true)
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		if n, s := len(strings.Fields(away.sizes())), l.Status(); n < 30 || n > 40 || s.Anchored.Entries != 3 || s.Anchored.Error != "no route to host" || s.Error != "" {
			t.Errorf("%d attempts in 5 h: %+v", n, s)
		}
		put(t, l, 1, true)
		time.Sleep(time.Minute)
		put(t, l, 1, true)
		away.sizes()
		away.set(nil, false)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got, s := away.sizes(), l.Status(); got != "6" || s.Anchored.Entries != 6 || s.Anchored.Error != "" {
			t.Errorf("it works again: %q, %+v", got, s)
		}

		// It hangs when the daemon ends, which it does not hold up.
		away.set(nil, true)
		put(t, l, 1, true)
		synctest.Wait()
		put(t, l, 1, true)
		before := time.Now()
		if err := l.Close(t.Context()); err != nil || !time.Now().Equal(before) {
			t.Errorf("closed after %v: %v", time.Since(before), err)
		}
		if got := away.sizes(); got != "7" {
			t.Errorf("at the end: %q", got)
		}
		away.set(nil, false)
	})
	b, err := os.ReadFile(filepath.Join(dir, "anchored"))
	if when, kept, _ := strings.Cut(string(b), "\n"); err != nil || !strings.HasPrefix(when, "2000-01-01T") || !strings.Contains(string(read(t, dir)["checkpoints"]), kept) || !strings.Contains(kept, "\n6\n") {
		t.Errorf("remembered: %q, %v", b, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "anchored")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if rep, err := verify(t, dir, key); err != nil || rep.Anchored.Entries != 6 || rep.Anchored.Time.Year() != 2000 || rep.Against != 0 {
		t.Errorf("%+v, %v", rep, err)
	}

	// Another run remembers, and sends what the last one could not.
	synctest.Test(t, func(t *testing.T) {
		opts := opts
		opts.Anchor = nil
		l := must(audit.Open(t.Context(), opts))
		if s := l.Status(); s.Anchored.Entries != 6 || s.Anchored.Time.IsZero() {
			t.Errorf("after a restart: %+v", s)
		}
		shut(t, l)
		opts.Anchor = away.Anchor
		for range 2 {
			l = must(audit.Open(t.Context(), opts))
			synctest.Wait()
			if s := l.Status(); s.Anchored.Entries != 8 {
				t.Errorf("after another: %+v", s)
			}
			shut(t, l)
		}
		if got := away.sizes(); got != "8" {
			t.Errorf("sent %q", got)
		}
	})

	// What it remembers is damaged: it is sent again, and whole again.
	im := read(t, dir)
	for name, b := range map[string]string{
		"empty": "", "no time": "soon\n" + string(im["anchored"][28:]), "no checkpoint": string(im["anchored"][:28]),
		"something after it": string(im["anchored"]) + "\n",
	} {
		im.with("anchored", []byte(b)).write(t, dir)
		if rep, err := verify(t, dir, key); err == nil || rep.Problem.File != "anchored" {
			t.Errorf("%s: %+v", name, rep)
		}
		synctest.Test(t, func(t *testing.T) {
			l := must(audit.Open(t.Context(), opts))
			synctest.Wait()
			shut(t, l)
		})
		if _, err := verify(t, dir, key); err != nil || away.sizes() != "8" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What beside the log remembers the last anchor is held against the log, too:
// an older copy of the other files is found, by accident or not.
func TestAnchoredIsHeldAgainstTheLog(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	run(t, dir, key, 5)
	older := read(t, dir)
	run(t, dir, key, 4)
	anchored := fmt.Appendf(nil, "2026-11-23T08:40:10.123456Z\n%s", head(t, dir, key))
	im := read(t, dir).with("anchored", anchored)
	im.write(t, dir)
	if rep, err := verify(t, dir, key); err != nil || rep.Anchored.Entries != 9 {
		t.Errorf("%+v, %v", rep, err)
	}
	older.with("anchored", anchored).write(t, dir)
	if rep, err := verify(t, dir, key); err == nil || rep.Problem.File != "anchored" || !strings.Contains(err.Error(), "older copy") {
		t.Errorf("%+v, %v", rep, err)
	}
	// Every byte of it counts, but for the time's, which nobody signs.
	for i, was := range anchored {
		for _, to := range []byte{was ^ 1, '\n', 0xff} {
			if to == was {
				continue
			}
			anchored[i] = to
			im.with("anchored", anchored).write(t, dir)
			if _, err := verify(t, dir, key); err == nil && i > len("2026-11-23T08:40:10.123456") {
				t.Errorf("byte %d from %q to %q is not found", i, was, to)
			}
			anchored[i] = was
		}
	}
}

// A disk that does not take the memory of it does not make an anchor undone.
func TestAnchoredCannotBeWritten(t *testing.T) {
	dir, key, away := logDir(t), newKey(t), &elsewhere{}
	synctest.Test(t, func(t *testing.T) {
		fsys := &faultFS{}
		fsys.set(func(op, name string) outcome {
			if strings.HasPrefix(filepath.Base(name), "anchored") {
				return fails
			}
			return fine
		})
		l := must(audit.Open(t.Context(), audit.Options{Dir: dir, Signer: key.Signer, Anchor: away.Anchor}.WithFS(fsys)))
		defer l.Close(t.Context())
		put(t, l, 1, true)
		time.Sleep(time.Hour)
		if got, s := away.sizes(), l.Status(); got != "1" || s.Anchored.Entries != 1 || s.Anchored.Error != "" || s.Error != "" {
			t.Errorf("sent %q: %+v", got, s)
		}
	})
	if _, err := verify(t, dir, key); err != nil {
		t.Error(err)
	}
}
