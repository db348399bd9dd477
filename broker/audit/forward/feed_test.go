package forward

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// A fakeSink does with a batch what the test says.
type fakeSink struct {
	do func(ctx context.Context, batch []record) (taken int, err error)

	mu      sync.Mutex
	got     []string
	batches []int
}

func (s *fakeSink) send(ctx context.Context, batch []record) error {
	n, err := len(batch), error(nil)
	if s.do != nil {
		n, err = s.do(ctx, batch)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range batch[:n] {
		s.got = append(s.got, string(r.raw))
	}
	s.batches = append(s.batches, len(batch))
	return err
}

func (s *fakeSink) rest(int, bool) time.Duration { return 0 }

func (s *fakeSink) arrived() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.got...)
}

func (s *fakeSink) last() string {
	if got := s.arrived(); len(got) > 0 {
		return got[len(got)-1]
	}
	return "nothing"
}

// Whatever a destination does, everything arrives in order, what was not
// acknowledged again, across restarts and segments.
func TestInOrderAtLeastOnce(t *testing.T) {
	l, dir := newLog(t, audit.Options{SegmentSize: 256 << 10})
	store := &memory{}
	random := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	tries := 0
	s := &fakeSink{do: func(_ context.Context, batch []record) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		if tries++; tries%3 == 2 {
			return 1 + random.IntN(len(batch)), errDown // it may have taken some of them, and all
		}
		return len(batch), nil
	}}
	for range 5 {
		f := forwarding(t, quick(dir, store), s)
		write(t, l, 400)
		f.stop() // as at the end of the process: nothing is flushed
		f.wg.Wait()
	}
	f := forwarding(t, quick(dir, store), s)
	atEnd(t, f, l)
	seams := inOrder(t, s.arrived(), lines(t, dir))
	t.Logf("%d entries in %d batches; it went back %d times", 2000, len(s.batches), seams)
	if seams == 0 {
		t.Error("no failure was tried")
	}
}

// What is in memory is bounded, however long the log and its entries are.
func TestBatchesAreBounded(t *testing.T) {
	l, dir := newLog(t, audit.Options{})
	write(t, l, 1500)
	for i := range 600 {
		if err := l.Append(t.Context(), longEvent(i), false); err != nil {
			t.Fatal(err)
		}
	}
	var most int
	s := &fakeSink{do: func(_ context.Context, batch []record) (int, error) {
		size := 0
		for _, r := range batch {
			size += len(r.raw)
		}
		if most = max(most, len(batch)); len(batch) > batchEntries || size > batchBytes+audit.MaxEntry {
			t.Errorf("a batch of %d entries, %d bytes", len(batch), size)
		}
		return len(batch), nil
	}}
	f := forwarding(t, quick(dir, &memory{}), s)
	atEnd(t, f, l)
	inOrder(t, s.arrived(), lines(t, dir))
	if most < 50 {
		t.Errorf("no batch has more than %d entries", most)
	}
}

// A destination that is down is asked with one entry, not with all that waits;
// once it is up it soon gets as many at once as before.
func TestOutageIsProbed(t *testing.T) {
	want := []int{500, 1, 1, 1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 500, 500} // the first four fail
	l, dir := newLog(t, audit.Options{})
	for i := range 1 + 2 + 4 + 8 + 16 + 32 + 64 + 128 + 256 + 500 + 500 {
		if err := l.Append(t.Context(), event(i), false); err != nil {
			t.Fatal(err)
		}
	}
	tries := 0
	s := &fakeSink{do: func(_ context.Context, batch []record) (int, error) {
		if tries++; tries <= 4 {
			return 0, errDown
		}
		return len(batch), nil
	}}
	cfg := quick(dir, &memory{})
	cfg.gather = time.Hour // each batch gets full
	f := forwarding(t, cfg, s)
	atEnd(t, f, l)
	inOrder(t, s.arrived(), lines(t, dir))
	if !slices.Equal(s.batches, want) {
		t.Errorf("batches of %d entries, want %d", s.batches, want)
	}
}

// A destination that takes no large batch, as one behind a slow line that has
// no time for it, gets everything in small ones.
func TestDestinationThatTakesLittle(t *testing.T) {
	l, dir := newLog(t, audit.Options{})
	write(t, l, 100)
	s := &fakeSink{do: func(_ context.Context, batch []record) (int, error) {
		if len(batch) > 5 {
			return len(batch) / 2, errDown
		}
		return len(batch), nil
	}}
	f := forwarding(t, quick(dir, &memory{}), s)
	atEnd(t, f, l)
	inOrder(t, s.arrived(), lines(t, dir))
}

// The cursor is on disk soon, not once a batch, and at the end.
func TestCursorIsSavedNowAndThen(t *testing.T) {
	l, dir := newLog(t, audit.Options{})
	write(t, l, 1500)
	store := &memory{}
	cfg := quick(dir, store)
	var mu sync.Mutex
	now := time.Date(2026, 11, 3, 9, 0, 0, 0, time.UTC)
	cfg.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	saves := func() int { store.mu.Lock(); defer store.mu.Unlock(); return store.saves }
	f := forwarding(t, cfg, &fakeSink{})
	atEnd(t, f, l)
	if n := saves(); n != 1 {
		t.Errorf("%d saves at the same time", n)
	}
	mu.Lock()
	now = now.Add(saveInterval)
	mu.Unlock()
	write(t, l, 1)
	atEnd(t, f, l)
	write(t, l, 1)
	atEnd(t, f, l)
	if n := saves(); n != 2 {
		t.Errorf("%d saves at two times", n)
	}
	f.Close(l.Status().Entries)
	if n := store.all["fake"].next(); n != 1502 || saves() != 3 {
		t.Errorf("at the end the cursor is at %d, after %d saves", n, saves())
	}
}

// Where the last daemon still moves the cursor while this one waits for the log,
// what that one has sent does not come again.
func TestCursorIsReadAtTheStart(t *testing.T) {
	l, dir := newLog(t, audit.Options{})
	write(t, l, 10)
	all := lines(t, dir)
	store, s := &memory{}, &fakeSink{}
	cfg := quick(dir, store)
	cfg.drain = time.Hour // it ends because all is there
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.to = append(f.to, namedSink{"fake", s})
	store.all = map[string]Cursor{"fake": {[]Mark{{Next: 8, Hash: hashOf(all[7])}}}}
	f.Start()
	f.Close(10)
	inOrder(t, append(all[:8:8], s.arrived()...), all)
	if n := len(s.arrived()); n != 2 {
		t.Errorf("%d entries came", n)
	}
}

// A destination that hangs is given up, and is in nobody's way meanwhile.
func TestHangingDestination(t *testing.T) {
	l, dir := newLog(t, audit.Options{})
	cfg := quick(dir, &memory{})
	cfg.timeout = 50 * time.Millisecond
	hangs := make(chan struct{}, 100)
	s := &fakeSink{do: func(ctx context.Context, batch []record) (int, error) {
		select {
		case hangs <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return 0, ctx.Err()
	}}
	f := forwarding(t, cfg, s)
	write(t, l, 100)
	<-hangs
	<-hangs
	eventually(t, func() string {
		st := f.Status(100)[0]
		if st.Lag != 100 || !strings.Contains(st.Error, "no answer within") {
			return st.Error
		}
		return ""
	})
	start := time.Now()
	f.Close(100)
	if d := time.Since(start); d > drainTime+5*time.Second {
		t.Errorf("closing took %s", d)
	}
}

// The last entries leave before the daemon does.
func TestCloseDrains(t *testing.T) {
	l, dir := newLog(t, audit.Options{})
	store := &memory{}
	s := &fakeSink{}
	cfg := quick(dir, store)
	cfg.sleep = sleep
	cfg.drain = time.Hour // it ends because all is there
	f := forwarding(t, cfg, s)
	write(t, l, 20)
	f.Close(20)
	inOrder(t, s.arrived(), lines(t, dir))
	if n := store.all["fake"].next(); n != 20 {
		t.Errorf("the cursor that is kept is at %d", n)
	}
	f.Close(20) // twice is once
}

func TestRejectedIsCountedAndNotRepeated(t *testing.T) {
	l, dir := newLog(t, audit.Options{})
	write(t, l, 10)
	s := &fakeSink{do: func(_ context.Context, batch []record) (int, error) { return len(batch), &rejected{2, "too old"} }}
	f := forwarding(t, quick(dir, &memory{}), s)
	atEnd(t, f, l)
	if seams := inOrder(t, s.arrived(), lines(t, dir)); seams > 0 {
		t.Errorf("it went back %d times", seams)
	}
	if st := f.Status(10)[0]; st.Rejected != 2*int64(len(s.batches)) || st.Error != "" {
		t.Errorf("%+v after %d batches", st, len(s.batches))
	}
}

// Lag is told in entries and in seconds.
func TestLag(t *testing.T) {
	l, dir := newLog(t, audit.Options{})
	cfg := quick(dir, &memory{})
	cfg.now = func() time.Time { return time.Now().Add(90 * time.Second) }
	open := make(chan struct{})
	s := &fakeSink{do: func(ctx context.Context, batch []record) (int, error) {
		<-open
		return len(batch), nil
	}}
	f := forwarding(t, cfg, s)
	write(t, l, 7)
	eventually(t, func() string {
		if st := f.Status(7)[0]; st.Lag != 7 || st.LagSeconds < 90 || st.LagSeconds > 150 {
			return "the lag does not show"
		}
		return ""
	})
	close(open)
	atEnd(t, f, l)
	if st := f.Status(7)[0]; st.LagSeconds != 0 || st.LastSent.IsZero() || st.To != "fake" {
		t.Errorf("%+v", st)
	}
}

// After a power cut, other entries may have the numbers of those that were
// sent; and the log may be another one, or begin later.
func TestResume(t *testing.T) {
	l, dir := newLog(t, audit.Options{SegmentSize: 4 << 10})
	write(t, l, 60)
	all := lines(t, dir)
	mark := func(next int64, line string) Mark { return Mark{Next: next, Hash: hashOf(line)} }
	for _, tt := range []struct {
		name  string
		marks []Mark
		want  int64
	}{
		{"never", nil, 0},
		{"where it was", []Mark{mark(40, all[39])}, 40},
		{"at the end", []Mark{mark(60, all[59])}, 60},
		{"the newest", []Mark{mark(40, all[39]), mark(20, all[19])}, 40},
		{"the tail is gone", []Mark{mark(70, "lost"), mark(20, all[19]), mark(10, all[9])}, 20},
		{"others have the numbers", []Mark{mark(50, "lost"), mark(45, "lost too"), mark(10, all[9])}, 10},
		{"another log", []Mark{mark(50, "lost"), mark(45, "lost too")}, 0},
		{"from the future", []Mark{mark(math.MaxInt64, all[59]), mark(61, all[59])}, 0},
		{"damaged", []Mark{mark(-5, all[0]), mark(math.MinInt64, all[0]), mark(0, all[0]), {}, {Next: 20}, mark(10, all[9])}, 10},
	} {
		cfg := quick(dir, &memory{all: map[string]Cursor{"fake": {tt.marks}}})
		f := newFeed(cfg, "fake", &fakeSink{}, openBook(cfg.Cursors, time.Now, cfg.Logger))
		got, _, err := f.resume(context.Background())
		if err != nil || got != tt.want || f.at() != tt.want {
			t.Errorf("%s: got %d at %d, %v, want %d", tt.name, got, f.at(), err, tt.want)
		}
	}

	// Of a log whose beginning is pruned, what is left is sent, and what was
	// sent before counts.
	if err := os.Remove(filepath.Join(dir, "000001.jsonl")); err != nil {
		t.Fatal(err)
	}
	left := lines(t, dir)
	if len(left) == len(all) || len(left) == 0 {
		t.Fatalf("%d of %d are left", len(left), len(all))
	}
	cfg := quick(dir, &memory{all: map[string]Cursor{"fake": {[]Mark{mark(1, all[0])}}}})
	sent := newFeed(cfg, "fake", &fakeSink{}, openBook(cfg.Cursors, time.Now, cfg.Logger))
	if got, _, err := sent.resume(context.Background()); err != nil || got != 1 || sent.at() != 1 {
		t.Errorf("pruned: got %d at %d, %v", got, sent.at(), err)
	}
	for _, marks := range [][]Mark{nil, {mark(1, all[0])}} {
		s := &fakeSink{}
		f := forwarding(t, quick(dir, &memory{all: map[string]Cursor{"fake": {marks}}}), s)
		atEnd(t, f, l)
		inOrder(t, s.arrived(), left)
		f.stop()
		f.wg.Wait()
	}
}

func TestMarksAreApart(t *testing.T) {
	var c Cursor
	now := time.Date(2026, 11, 3, 9, 0, 0, 0, time.UTC)
	for i := range int64(400) {
		c.add(Mark{Next: i, Time: now.Add(time.Duration(i) * 250 * time.Millisecond)})
	}
	if len(c.Marks) != marksKept || c.next() != 399 {
		t.Fatalf("%+v", c)
	}
	if d := c.Marks[1].Time.Sub(c.Marks[2].Time); d < markDistance {
		t.Errorf("the oldest is %s older than the next", d)
	}
	if d := c.Marks[0].Time.Sub(c.Marks[2].Time); d < markDistance {
		t.Errorf("the oldest is %s older than the newest", d)
	}
}

// A line that is no entry is left out, and what comes after it is not. That it
// is, and what was removed, is told once, however often the rest is sent.
func TestBrokenLines(t *testing.T) {
	l, dir := newLog(t, audit.Options{})
	write(t, l, 30)
	all := lines(t, dir)
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	// 10 is altered, 20 to 22 are not there, and there are three lines more.
	altered := append(slices.Clone(all[:10]), strings.Replace(all[10], `"seq"`, `"SEQ"`, 1))
	altered = append(altered, all[11:15]...)
	altered = append(altered, "nonsense", "", "more of it")
	altered = append(append(altered, all[15:20]...), all[23:]...)
	if err := os.WriteFile(filepath.Join(dir, "000001.jsonl"), []byte(strings.Join(altered, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(all[:10], all[11:20], all[23:])
	tries := 0
	s := &fakeSink{do: func(_ context.Context, batch []record) (int, error) {
		if tries++; tries%2 == 1 {
			return 0, errDown
		}
		return len(batch), nil
	}}
	cfg := quick(dir, &memory{})
	var told bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&told, nil))
	f := forwarding(t, cfg, s)
	atEnd(t, f, l)
	f.stop()
	f.wg.Wait()
	if got := s.arrived(); !slices.Equal(got, want) {
		t.Errorf("%d entries arrived, want %d", len(got), len(want))
	}
	for _, once := range []string{"are not forwarded\" to=fake before=11 lines=1 err=", "are not forwarded\" to=fake before=15 lines=3 err=", "were removed from the log before they were forwarded\" to=fake first=20 entries=3\n"} {
		if n := strings.Count(told.String(), once); n != 1 {
			t.Errorf("%q is told %d times:\n%s", once, n, told.String())
		}
	}
	if n := strings.Count(told.String(), "not forwarded\"") + strings.Count(told.String(), "removed"); n != 3 {
		t.Errorf("%d tidings:\n%s", n, told.String())
	}
}

// A line whose number is damaged arrives like all others, and those after it do
// too: with it the cursor goes nowhere.
func TestDamagedNumbers(t *testing.T) {
	for name, numbers := range map[string]map[int]string{
		"too high":          {12: "9012"},
		"highest":           {12: "9223372036854775807"},
		"two, one by one":   {12: "9012", 14: "8000"},
		"one after another": {12: "9012", 13: "8000"},
		"first":             {0: "77"},
		"last":              {29: "999"},
		"too low":           {12: "2"},
	} {
		t.Run(name, func(t *testing.T) {
			l, dir := newLog(t, audit.Options{})
			write(t, l, 30)
			all := lines(t, dir)
			if err := l.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, n := range numbers {
				_, rest, _ := strings.Cut(all[i], ",")
				all[i] = `{"seq":` + n + "," + rest
			}
			segment := filepath.Join(dir, "000001.jsonl")
			if err := os.WriteFile(segment, []byte(strings.Join(all[:20], "\n")+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			tries := 0
			s := &fakeSink{do: func(_ context.Context, batch []record) (int, error) {
				if tries++; tries%3 == 0 {
					return 0, errDown
				}
				return len(batch), nil
			}}
			store := &memory{}
			f := forwarding(t, quick(dir, store), s)
			eventually(t, func() string { return strings.TrimPrefix(s.last(), all[19]) })
			later, err := os.OpenFile(segment, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer later.Close()
			for _, line := range all[20:] {
				if _, err := later.WriteString(line + "\n"); err != nil {
					t.Fatal(err)
				}
				eventually(t, func() string { return strings.TrimPrefix(s.last(), line) })
				f.Close(0) // and the daemon starts again
				f = forwarding(t, quick(dir, store), s)
			}
			inOrder(t, s.arrived(), all)
		})
	}
}

// How far it is can be asked while the disk takes its time with the cursor.
func TestStatusDoesNotWaitForTheDisk(t *testing.T) {
	l, dir := newLog(t, audit.Options{})
	slow := &slowMemory{saving: make(chan struct{}), saved: make(chan struct{})}
	f := forwarding(t, quick(dir, slow), &fakeSink{})
	write(t, l, 1)
	<-slow.saving
	asked := make(chan int64, 1)
	go func() { asked <- f.Status(1)[0].Lag }()
	select {
	case lag := <-asked:
		if lag != 0 {
			t.Errorf("it was sent, and the lag is %d", lag)
		}
	case <-time.After(10 * time.Second):
		t.Error("the status waits for the disk")
	}
	close(slow.saved)
}

// A slowMemory takes until the test lets it.
type slowMemory struct {
	memory
	saving, saved chan struct{}
}

func (m *slowMemory) SaveCursors(map[string]Cursor) error {
	close(m.saving)
	<-m.saved
	return nil
}

// Without a place for its cursor a destination still gets everything; and what
// cannot be read makes everything come again, not nothing.
func TestCursorsThatCannotBeKept(t *testing.T) {
	l, dir := newLog(t, audit.Options{})
	write(t, l, 30)
	store := &memory{fail: errors.New("no space left on device")}
	cfg := quick(dir, store)
	s := &fakeSink{}
	f := forwarding(t, cfg, s)
	atEnd(t, f, l)
	inOrder(t, s.arrived(), lines(t, dir))
	store.mu.Lock()
	store.fail = nil
	store.mu.Unlock()
	write(t, l, 1)
	atEnd(t, f, l)
	f.Close(31)
	if n := store.all["fake"].next(); n != 31 {
		t.Errorf("the cursor is at %d once it can be kept", n)
	}
}

func TestNewTellsOfWhatItCannotUse(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"syslog+tls://host?ca=/", "read the authorities: / is not a regular file"},
		{"syslog+tls://host?ca=/nonexistent.pem", "read the authorities: stat /nonexistent.pem"},
		{"syslog+tls://host?cert=/nonexistent.pem&key=/nonexistent.key", "read the certificate: stat /nonexistent.pem"},
		{"otlp+https://host?headers=/nonexistent", "read headers: stat /nonexistent"},
	} {
		_, err := New(to(t, quick(t.TempDir(), &memory{}), tt.url))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.url, err, tt.want)
		}
	}
}

func TestFields(t *testing.T) {
	r := record{entry: audit.Entry{Event: broker.Event{Kind: broker.EventRequestDenied, Outcome: broker.OutcomeDenied, Profile: "ops",
		Key: &broker.EventKey{Name: "work"}, Error: &broker.EventError{Code: broker.CodeDenied}}}}
	want := []field{{"event", "request.denied"}, {"outcome", "denied"}, {"profile", "ops"}, {"key", "work"}, {"error", "denied"}}
	got := r.fields()
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
}

// A log that was moved away and is back is followed on, whether or not that
// was noticed meanwhile.
func TestLogMovedAwayAndBack(t *testing.T) {
	for _, noticed := range []bool{false, true} {
		l, dir := newLog(t, audit.Options{})
		s := &fakeSink{}
		f := forwarding(t, quick(dir, &memory{}), s)
		write(t, l, 5)
		atEnd(t, f, l)
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		if noticed {
			if err := os.WriteFile(filepath.Join(dir+".away", "note"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() string {
				if f.Status(5)[0].Error == "" {
					return "nobody misses the log"
				}
				return ""
			})
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		write(t, l, 5)
		atEnd(t, f, l)
		if seams := inOrder(t, s.arrived(), lines(t, dir)); seams > 0 {
			t.Errorf("it went back %d times", seams)
		}
	}
}
