package forward

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker/audit"
)

// pausing is a feed that has failed, on a clock of its own.
func pausing() *feed {
	cfg := Config{Cursors: &memory{}, Logger: slog.New(slog.DiscardHandler), now: time.Now, sleep: sleep}
	return newFeed(cfg, "fake", &fakeSink{}, openBook(cfg.Cursors, cfg.now, cfg.Logger))
}

// A destination that is down is asked less and less often, once a minute at
// last, and never at the same time as others'.
func TestPausesAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := pausing()
		due, varied := firstPause, 0
		for n := range 12 {
			start := time.Now()
			next := f.pause(t.Context(), errDown, due)
			d := time.Since(start)
			if d < due/2 || d > due || due != min(firstPause<<n, lastPause) {
				t.Errorf("pause %d: %s, where %s is due", n, d, due)
			}
			if d != due && d != due/2 {
				varied++
			}
			due = next
		}
		if varied < 10 {
			t.Errorf("of 12 pauses, %d are no round ones", varied)
		}
	})
}

// A new entry cuts a pause short, but entries without end do not have a
// destination asked without end.
func TestNewEntriesCutPausesShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := pausing()
		paused := func(due time.Duration) time.Duration {
			start := time.Now()
			f.pause(t.Context(), errDown, due)
			return time.Since(start)
		}
		for range 50 {
			f.written() // before the pause, or soon after its beginning
			if d := paused(lastPause); d < newsPause/2 || d > newsPause {
				t.Errorf("with entries waiting it pauses %s", d)
			}
			time.AfterFunc(20*time.Second, f.written)
			if d := paused(lastPause); d != 20*time.Second {
				t.Errorf("an entry comes after 20 s, and it pauses %s", d)
			}
			f.written() // and a short pause stays as short
			if d := paused(firstPause); d < firstPause/2 || d > firstPause {
				t.Errorf("the first pause is %s", d)
			}
			select {
			case <-f.news:
			default:
			}
		}
	})
}

// Who says when to come again is not asked before, unless that is long.
func TestPauseThatIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for in, want := range map[time.Duration]time.Duration{90 * time.Second: 90 * time.Second, 42 * time.Minute: longestLater} {
			f := pausing()
			f.written()
			start := time.Now()
			f.pause(t.Context(), &later{errDown, in}, firstPause)
			if d := time.Since(start); d != want {
				t.Errorf("asked to come in %s, it pauses %s", in, d)
			}
		}
	})
}

// The end is near: nobody waits for a pause.
func TestPauseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, err := range []error{errDown, &later{errDown, time.Hour}} {
			f := pausing()
			time.AfterFunc(time.Millisecond, func() { f.finish(0) })
			start := time.Now()
			f.pause(t.Context(), err, lastPause)
			if d := time.Since(start); d != time.Millisecond {
				t.Errorf("%v: it pauses %s", err, d)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			pausing().pause(ctx, err, lastPause)
			if d := time.Since(start); d != time.Millisecond {
				t.Errorf("%v: it pauses %s", err, d)
			}
		}
	})
}

// A destination that is back gets the next entry long before its pause is over.
func TestBackAgain(t *testing.T) {
	l, dir := newLog(t, audit.Options{})
	write(t, l, 10)
	cfg := quick(dir, &memory{})
	long := make(chan struct{}, 1)
	cfg.sleep = func(ctx context.Context, d time.Duration) error {
		if d <= newsPause {
			return sleep(ctx, min(d, 10*time.Millisecond))
		}
		select {
		case long <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}
	s := &fakeSink{do: func(_ context.Context, batch []record) (int, error) {
		if len(long) == 0 {
			return 0, errDown
		}
		return len(batch), nil
	}}
	f := forwarding(t, cfg, s)
	eventually(t, func() string {
		if len(long) == 0 {
			return "no pause gets long"
		}
		return ""
	})
	if st := f.Status(10)[0]; st.Lag != 10 || st.Error != errDown.Error() {
		t.Errorf("while it is down: %+v", st)
	}
	write(t, l, 1)
	f.Written()
	atEnd(t, f, l)
	inOrder(t, s.arrived(), lines(t, dir))
	if st := f.Status(11)[0]; st.Error != "" {
		t.Errorf("it is back: %+v", st)
	}
}
