package audit_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// seqs reads the numbers of what q selects.
func seqs(t *testing.T, dir string, q audit.Query) []int64 {
	t.Helper()
	return numbers(t, audit.Entries(t.Context(), dir, q))
}

// numbers reads those of entries.
func numbers(t *testing.T, entries iter.Seq2[audit.Line, error]) (got []int64) {
	t.Helper()
	for line, err := range entries {
		if err != nil {
			t.Fatal(err)
		}
		e, err := line.Entry()
		if err != nil || e.Seq != line.Seq {
			t.Fatalf("entry %d: %d, %v", line.Seq, e.Seq, err)
		}
		got = append(got, line.Seq)
	}
	return got
}

// refused returns the error that is all there is to read.
func refused(t *testing.T, dir string, q audit.Query) (refused error) {
	t.Helper()
	for line, err := range audit.Entries(t.Context(), dir, q) {
		if err == nil || refused != nil {
			t.Errorf("%+v: entry %d, %v, after %v", q, line.Seq, err, refused)
		}
		refused = err
	}
	return refused
}

func span(from, to int64) (s []int64) {
	for ; from < to; from++ {
		s = append(s, from)
	}
	return s
}

// A log that may not be read is no bug of ours, and is not missing.
func TestEntriesOfALogThatMayNotBeRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	if err := os.Mkdir(dir, 0o300); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	if err := refused(t, dir, audit.Query{}); broker.CodeOf(err) != broker.CodeConfig {
		t.Errorf("got %v, want a config error", err)
	}
}

func TestEntries(t *testing.T) {
	dir := logDir(t)
	start := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	now := start
	l := open(t, audit.Options{Dir: dir, SegmentSize: 4 << 10, Now: func() time.Time { return now }})
	for i := range 40 {
		e := event(i)
		switch i {
		case 7, 21:
			e.Profile = "datacentre"
			e.Lease = "l-1"
		case 8:
			e.Profile = `a "quoted" näme`
		case 9:
			e.Kind = broker.EventRequestDenied
			e.Outcome = broker.OutcomeDenied
			e.Key, e.Session, e.Caller = nil, nil, nil
		case 10:
			e.Key.Name = "datacentre" // not its profile
			e.Caller.Program = "/opt/bin/deploy.py"
		}
		if err := l.Append(t.Context(), e, false); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Minute)
	}
	for _, tt := range []struct {
		name string
		q    audit.Query
		want []int64
	}{
		{"all", audit.Query{}, span(0, 40)},
		{"from", audit.Query{From: 17}, span(17, 40)},
		{"from the end", audit.Query{From: 40}, nil},
		{"last", audit.Query{Last: 13}, span(27, 40)},
		{"more than all", audit.Query{Last: 50}, span(0, 40)},
		{"last from", audit.Query{Last: 13, From: 35}, span(35, 40)},
		{"since", audit.Query{Since: start.Add(30 * time.Minute)}, span(30, 40)},
		{"until", audit.Query{Until: start.Add(3 * time.Minute)}, span(0, 3)},
		{"profile", audit.Query{Profile: []string{"datacentre"}}, []int64{7, 21}},
		{"last of profile", audit.Query{Profile: []string{"datacentre"}, Last: 1}, []int64{21}},
		{"escaped", audit.Query{Profile: []string{`a "quoted" näme`}}, []int64{8}},
		{"event", audit.Query{Event: []string{string(broker.EventRequestDenied)}}, []int64{9}},
		{"outcome", audit.Query{Outcome: []string{broker.OutcomeDenied}}, []int64{9}},
		{"lease", audit.Query{Lease: []string{"l-1"}}, []int64{7, 21}},
		{"key", audit.Query{Key: []string{"datacentre"}}, []int64{10}},
		{"session", audit.Query{Session: []string{"s-33"}}, []int64{33}},
		{"program", audit.Query{Program: []string{"deploy.py"}}, []int64{10}},
		{"program's path", audit.Query{Program: []string{"/opt/bin/deploy.py"}}, []int64{10}},
		{"nothing", audit.Query{Profile: []string{"data"}}, nil},
	} {
		if got := seqs(t, dir, tt.q); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}

	// The lines are the file's, byte for byte.
	var all []byte
	for line := range audit.Entries(t.Context(), dir, audit.Query{}) {
		all = append(append(all, line.Raw...), '\n')
	}
	if !bytes.Equal(all, segments(t, dir)) {
		t.Error("lines differ from the file")
	}
	// A caller may stop.
	for range audit.Entries(t.Context(), dir, audit.Query{}) {
		break
	}
}

func TestEntriesOfBrokenLog(t *testing.T) {
	dir := logDir(t)
	if err := refused(t, dir, audit.Query{}); broker.CodeOf(err) != broker.CodeNotFound {
		t.Errorf("no log: %v", err)
	}
	l := open(t, audit.Options{Dir: dir})
	put(t, l, 3, false)
	shut(t, l)
	name := filepath.Join(dir, "000001.jsonl")
	b, _ := os.ReadFile(name)
	lines := bytes.SplitAfter(b, []byte("\n"))
	b = slices.Concat(lines[0], []byte("rubbish\n"), lines[1], bytes.Repeat([]byte("x"), 200<<10), []byte("\n"), lines[2], []byte(`{"seq":3,`))
	os.WriteFile(name, b, 0o600)
	for _, q := range []audit.Query{{}, {Last: 10}, {Profile: []string{"prod-admin"}}} {
		var good, bad int
		for line, err := range audit.Entries(t.Context(), dir, q) {
			switch {
			case err == nil:
				good++
			case broker.CodeOf(err) != broker.CodeData || len(line.Raw) == 0:
				t.Errorf("%+v: %q, %v", q, line.Raw, err)
			default:
				bad++
			}
		}
		if good != 3 || bad != 2 {
			t.Errorf("%+v: %d entries and %d other lines", q, good, bad)
		}
	}
}

// A damaged number hides no other entry, and what a repair has moved to the next
// segment is shown once all the same.
func TestEntriesWithDamagedNumbers(t *testing.T) {
	dir := logDir(t)
	l := open(t, audit.Options{Dir: dir})
	put(t, l, 10, false)
	shut(t, l)
	all := bytes.SplitAfter(segments(t, dir), []byte("\n"))[:10]
	numbered := func(i int, n string) []byte { return renumbered(all[i], n) }
	for _, tt := range []struct {
		name          string
		first, second [][]byte
		want          []int64
	}{
		{"moved", all[:6], all[3:], span(0, 10)},
		{"too high", [][]byte{all[0], all[1], numbered(2, "77"), all[3], all[4], all[5]}, all[6:], []int64{0, 1, 77, 3, 4, 5, 6, 7, 8, 9}},
		{"two", [][]byte{all[0], numbered(1, "76"), numbered(2, "77"), all[3], all[4], all[5]}, all[6:], []int64{0, 76, 77, 3, 4, 5, 6, 7, 8, 9}},
		{"too low", [][]byte{all[0], all[1], all[2], numbered(3, "1"), all[4], all[5]}, all[6:], []int64{0, 1, 2, 1, 4, 5, 6, 7, 8, 9}},
		{"at the end", [][]byte{all[0], all[1], numbered(2, "77")}, all[3:], []int64{0, 1, 77, 3, 4, 5, 6, 7, 8, 9}},
		{"at the beginning", [][]byte{numbered(0, "77"), all[1], all[2]}, all[3:], []int64{77, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{"and moved", [][]byte{all[0], numbered(1, "77"), all[2], all[3], all[4], all[5]}, all[4:], []int64{0, 77, 2, 3, 4, 5, 6, 7, 8, 9}},
	} {
		for i, b := range [][][]byte{tt.first, tt.second} {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%06d.jsonl", i+1)), slices.Concat(b...), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := seqs(t, dir, audit.Query{}); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		got := seqs(t, dir, audit.Query{Reverse: true})
		if slices.Reverse(got); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v from the end, want %v", tt.name, got, tt.want)
		}
	}
}

// renumbered is an entry's line with another number.
func renumbered(line []byte, n string) []byte {
	_, rest, _ := bytes.Cut(line, []byte(","))
	return slices.Concat([]byte(`{"seq":`+n+","), rest)
}

// A segment that begins with a damaged number takes no entry from the one before.
func TestEntriesFromBeforeADamagedNumber(t *testing.T) {
	dir := logDir(t)
	l := open(t, audit.Options{Dir: dir})
	put(t, l, 12, false)
	shut(t, l)
	all := bytes.SplitAfter(segments(t, dir), []byte("\n"))[:12]
	all[8] = renumbered(all[8], "1")
	for i := range 3 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%06d.jsonl", i+1)), slices.Concat(all[4*i:4*i+4]...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := seqs(t, dir, audit.Query{From: 6}), []int64{6, 7, 9, 10, 11}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFollow(t *testing.T) {
	for _, q := range []audit.Query{{Follow: true}, {Follow: true, Last: 5}} {
		dir := logDir(t)
		l := open(t, audit.Options{Dir: dir, SegmentSize: 2 << 10})
		put(t, l, 5, false)
		ctx, cancel := context.WithCancel(t.Context())
		var got []int64
		for line, err := range audit.Entries(ctx, dir, q) {
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				break
			}
			got = append(got, line.Seq)
			switch n := len(got); {
			case n >= 5 && n < 30:
				put(t, l, 1, false) // over several segments
			case n == 30:
				cancel()
			}
		}
		cancel()
		if !slices.Equal(got, span(0, 30)) {
			t.Errorf("%+v: %v", q, got)
		}
		shut(t, l)
	}
}

// Where the segment that is read is removed, following goes on in the next one.
func TestFollowWhereItIsPruned(t *testing.T) {
	dir := logDir(t)
	l := open(t, audit.Options{Dir: dir})
	put(t, l, 6, false)
	shut(t, l)
	all := bytes.SplitAfter(segments(t, dir), []byte("\n"))[:6]
	first, next := filepath.Join(dir, "000001.jsonl"), filepath.Join(dir, "000002.jsonl")
	if err := os.WriteFile(first, slices.Concat(all[:4]...), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []int64
	for line, err := range audit.Entries(ctx, dir, audit.Query{Follow: true}) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			break
		}
		got = append(got, line.Seq)
		switch line.Seq {
		case 3:
			// Listed, and not there any more when it is opened.
			err := cmp.Or(os.Remove(first), os.Symlink("nowhere", first), os.WriteFile(next, slices.Concat(all[4:]...), 0o600))
			if err != nil {
				t.Fatal(err)
			}
		case 5:
			cancel()
		}
	}
	if !slices.Equal(got, span(0, 6)) {
		t.Errorf("it showed %v", got)
	}
}

// A next segment that could not be begun is not one to go on in: entries still
// come in the one before.
func TestFollowWhereNoSegmentIsBegun(t *testing.T) {
	dir, fsys := logDir(t), &faultFS{}
	l := open(t, audit.Options{Dir: dir, SegmentSize: 3 << 9}.WithFS(fsys))
	small := broker.Event{Kind: broker.EventDaemonStopped, Outcome: broker.OutcomeOK}
	add := func() {
		if err := l.Append(t.Context(), small, false); err != nil {
			t.Error(err)
		}
	}
	put(t, l, 1, false) // most of the segment
	held, looked := make(chan struct{}), make(chan struct{})
	refused := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reads := 0
	follow := watchedContext{ctx, func() {
		select {
		case <-held:
			if reads++; reads == 2 { // it has seen both, and reads the first again
				close(looked)
			}
		default:
		}
	}}
	var got []int64
	for line, err := range audit.Entries(follow, dir, audit.Query{Follow: true}) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			break
		}
		got = append(got, line.Seq)
		switch len(got) {
		case 1:
			add()
		case 2:
			fsys.set(func(op, file string) outcome {
				if op == "syncdir" {
					return fails
				}
				return fine
			})
			fsys.holdUp(func(op, file string) {
				if op == "syncdir" {
					close(held)
					<-looked
				}
			})
			go func() {
				err := l.Append(t.Context(), event(1), false)
				fsys.set(nil)
				fsys.holdUp(nil)
				add()
				put(t, l, 1, false) // in the next segment
				refused <- err
			}()
			<-held
		}
		if line.Seq == 3 {
			cancel()
		}
	}
	if err := <-refused; broker.CodeOf(err) != broker.CodeLogUnwritable {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(got, span(0, 4)) {
		t.Errorf("it showed %v", got)
	}
	shut(t, l)
}

// A watchedContext tells of those who ask whether it is done.
type watchedContext struct {
	context.Context
	asked func()
}

func (c watchedContext) Err() error {
	c.asked()
	return c.Context.Err()
}
