package forward

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// newLog begins an audit log, and says where.
func newLog(t testing.TB, opts audit.Options) (*audit.Log, string) {
	t.Helper()
	opts.Dir = filepath.Join(t.TempDir(), "audit")
	l, err := audit.Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(context.Background()) })
	return l, opts.Dir
}

// write appends n entries, which say which of the test's they are, some of
// them long, some bad.
func write(t *testing.T, l *audit.Log, n int) {
	t.Helper()
	for i := range n {
		e := event(i)
		if i%10 == 3 {
			e = longEvent(i)
		}
		if i%10 == 7 {
			e.Kind, e.Outcome, e.Error = broker.EventRequestDenied, broker.OutcomeDenied, &broker.EventError{Code: broker.CodeDenied, Message: "no"}
		}
		if err := l.Append(context.Background(), e, false); err != nil {
			t.Error(err)
			return
		}
	}
}

func event(i int) broker.Event {
	return broker.Event{Kind: broker.EventCredentialsServed, Outcome: broker.OutcomeOK, Profile: "deploy", Reason: fmt.Sprintf("näher %d\n", i),
		Account: "111122223333", Session: &broker.EventSession{ID: "s-1", AccessKeyID: "ASIAEXAMPLE"},
		Caller: &broker.Caller{UID: 1000, PID: 42, Program: "terraform"}}
}

// longEvent makes an entry about as long as they get.
func longEvent(i int) broker.Event {
	e := event(i)
	e.Caller.Command = strings.Repeat("long ", 200)
	for range 16 {
		e.Caller.Ancestors = append(e.Caller.Ancestors, broker.Process{PID: 1, Exe: "/" + strings.Repeat("x", 900), Command: strings.Repeat("y", 900)})
	}
	return e
}

// lines are the log's entries as they stand there.
func lines(t *testing.T, dir string) (all []string) {
	t.Helper()
	for line, err := range audit.Entries(context.Background(), dir, audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(line.Raw))
	}
	return all
}

// records are n entries that need no log.
func records(t *testing.T, n int) (batch []record) {
	t.Helper()
	l, dir := newLog(t, audit.Options{})
	write(t, l, n)
	for _, line := range lines(t, dir) {
		e, err := audit.ParseEntry([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, record{raw: []byte(line), entry: e})
	}
	return batch
}

// memory keeps cursors.
type memory struct {
	mu    sync.Mutex
	all   map[string]Cursor
	saves int
	fail  error
}

func (m *memory) Cursors() (map[string]Cursor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.all), m.fail
}

func (m *memory) SaveCursors(all map[string]Cursor) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.all = maps.Clone(all)
	m.saves++
	return nil
}

// inOrder holds what arrived against what was written: everything is there,
// and nothing comes before what it follows; what comes again comes again from
// some place on, as after a failure. It returns how often that was.
func inOrder(t *testing.T, got, want []string) (seams int) {
	t.Helper()
	at := map[string]int{}
	for i, line := range want {
		at[line] = i
	}
	next := 0
	for n, line := range got {
		i, ok := at[line]
		switch {
		case !ok:
			t.Fatalf("arrival %d was never written: %.200s", n, line)
		case i > next:
			t.Fatalf("arrival %d is entry %d, and %d to %d are missing", n, i, next, i-1)
		case i < next:
			seams++
			next = i + 1
		default:
			next++
		}
	}
	// The last run has to reach the end.
	if next != len(want) {
		t.Fatalf("the last that arrived is %d of %d", next-1, len(want))
	}
	return seams
}

// eventually waits until what says nothing more; what is missing, it says.
func eventually(t testing.TB, what func() string) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		missing := what()
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(missing)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// atEnd waits until the log is delivered.
func atEnd(t testing.TB, f *Forwarder, l *audit.Log) {
	t.Helper()
	eventually(t, func() string {
		n := l.Status().Entries
		for _, st := range f.Status(n) {
			if st.Lag > 0 {
				return fmt.Sprintf("%+v", st)
			}
		}
		return ""
	})
}

// quick is a config that does not rest for long.
func quick(dir string, store Cursors) Config {
	return Config{Dir: dir, Cursors: store, Host: "laptop", Logger: slog.New(slog.DiscardHandler), now: time.Now, timeout: 10 * time.Second,
		sleep: func(ctx context.Context, d time.Duration) error { return sleep(ctx, min(d, 10*time.Millisecond)) }}
}

// forwarding runs a forwarder to one sink.
func forwarding(t testing.TB, cfg Config, s sink) *Forwarder {
	t.Helper()
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.to = append(f.to, namedSink{"fake", s})
	f.Start()
	t.Cleanup(func() { f.stop(); f.wg.Wait() })
	return f
}

// to returns a config that sends to a destination, as gatepass.toml has it.
func to(t testing.TB, cfg Config, url string) Config {
	t.Helper()
	d, err := Parse(url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	cfg.Destinations = []Destination{d}
	return cfg
}

// running runs a forwarder to one destination.
func running(t testing.TB, cfg Config, url string) *Forwarder {
	t.Helper()
	f, err := New(to(t, cfg, url))
	if err != nil {
		t.Fatal(err)
	}
	f.Start()
	t.Cleanup(func() { f.stop(); f.wg.Wait() })
	return f
}

func hashOf(line string) []byte { h := sha256.Sum256([]byte(line)); return h[:] }

// missing is for a program that a test needs and this machine lacks.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GATEPASS_REAL") == "1" {
		t.Fatal("GATEPASS_REAL=1 and " + why)
	}
	t.Skip(why)
}

var errDown = errors.New("it is down")
