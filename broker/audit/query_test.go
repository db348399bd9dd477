package audit_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// Patterns are for whole values, in either case, and "/" is as any other
// character.
func TestQueryPatterns(t *testing.T) {
	dir := logDir(t)
	l := open(t, audit.Options{Dir: dir})
	for _, e := range []broker.Event{
		0: {Kind: broker.EventKeyAdded, Key: &broker.EventKey{Name: "work", AccessKeyID: "AKIAIOSFODNN7EXAMPLE"}},
		1: {Kind: broker.EventCredentialsServed, Profile: "prod-eu", Account: "111122223333", RoleARN: "arn:aws:iam::111122223333:role/team/Deploy",
			Session: &broker.EventSession{ID: "s-1", Name: "work", AccessKeyID: "ASIA1"}, Caller: &broker.Caller{Program: "/opt/bin/terraform"}, Reason: "ticket 4711"},
		2: {Kind: broker.EventCredentialsServed, Profile: "prod/us", Account: "444455556666", RoleARN: "arn:aws:iam::444455556666:role/Deploy", Caller: &broker.Caller{Program: "python -m awscli"}, Reason: "Ticket 42"},
		3: {Kind: broker.EventLeaseStarted, Profile: `we"ird*\`, Lease: "l-1", Caller: &broker.Caller{Program: "\x1b[31m"}},
		4: {Kind: broker.EventLeaseEnded, Profile: "profile", Lease: "l-1", Reason: `","profile":"prod-eu","x":"`},
	} {
		e.Outcome = broker.OutcomeOK
		if err := l.Append(t.Context(), e, false); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, l)
	for _, tt := range []struct {
		q    audit.Query
		want []int64
	}{
		{audit.Query{Profile: []string{"prod-*"}}, []int64{1}},
		{audit.Query{Profile: []string{"prod?*"}}, []int64{1, 2}},
		{audit.Query{Profile: []string{"PROD-EU"}}, []int64{1}},
		{audit.Query{Profile: []string{"Prod*", "profile"}}, []int64{1, 2, 4}},
		{audit.Query{Profile: []string{"prod"}}, nil},
		{audit.Query{Profile: []string{"p[a-q]*"}}, nil},
		{audit.Query{Profile: []string{"p[q-s]o[f]*"}}, []int64{4}},
		{audit.Query{Profile: []string{"p[s-q]*"}}, nil},
		{audit.Query{Profile: []string{`we"ird\*\\`}}, []int64{3}},
		{audit.Query{Profile: []string{"*"}}, []int64{1, 2, 3, 4}},
		{audit.Query{Profile: []string{""}}, nil},
		{audit.Query{Role: []string{"deploy"}}, []int64{1, 2}},
		{audit.Query{Role: []string{"team/*"}}, []int64{1}},
		{audit.Query{Role: []string{"arn:*:444455556666:*"}}, []int64{2}},
		{audit.Query{Account: []string{"1111*"}}, []int64{1}},
		{audit.Query{Key: []string{"work"}}, []int64{0}}, // not the session of that name
		{audit.Query{Session: []string{"work"}}, []int64{1}},
		{audit.Query{Session: []string{"asia1"}}, []int64{1}},
		{audit.Query{Program: []string{"terraform"}}, []int64{1}},
		{audit.Query{Program: []string{"/opt/*"}}, []int64{1}},
		{audit.Query{Program: []string{"*awscli"}}, []int64{2}},
		{audit.Query{Program: []string{"\x1b*"}}, []int64{3}},
		{audit.Query{Reason: []string{"*ticket*"}, Profile: []string{"prod*"}}, []int64{1, 2}},
		{audit.Query{Event: []string{"lease.*"}}, []int64{3, 4}},
		{audit.Query{Event: []string{"lease.*", "key.added"}, To: 4}, []int64{0, 3}},
	} {
		if got := seqs(t, dir, tt.q); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.q, got, tt.want)
		}
	}
	for _, bad := range []string{"[", "a[", `a\`, "[]"} {
		for _, q := range []audit.Query{{Profile: []string{"fine", bad}}, {Event: []string{bad}}} {
			if err := refused(t, dir, q); broker.CodeOf(err) != broker.CodeUsage {
				t.Errorf("%q: %v", bad, err)
			}
		}
	}
	for line := range audit.Entries(t.Context(), dir, audit.Query{From: 3, To: 4}) {
		if got := line.Field("profile"); got != `we"ird*\` || line.Field("nosuch") != "" || line.Field("program") != "\x1b[31m" {
			t.Errorf("fields: %q", got)
		}
		if e, _ := line.Entry(); !e.Time.Equal(line.Time()) || line.Time().IsZero() {
			t.Errorf("time: %v, %v", e.Time, line.Time())
		}
	}
}

// However the log is cut into stretches, and whatever its clock did, the same
// entries are found as by looking at each, in either direction.
func TestEntriesBySearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 1))
	for round := range 8 {
		dir := logDir(t)
		now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		start := now
		compressed := round%3 == 2
		opts := audit.Options{Dir: dir, Signer: newKey(t).Signer, SegmentSize: int64(2+rng.IntN(30)) << 10, Now: func() time.Time { return now }}
		l := open(t, opts)
		var times []time.Time
		for i := range 300 {
			switch step := rng.IntN(200); {
			case step < 2 && round > 0: // an empty battery, or the clock of another system
				now = now.Add(-time.Duration(rng.Int64N(int64(20 * 24 * time.Hour))))
			case step < 4 && round > 0:
				now = now.Add(time.Duration(rng.Int64N(int64(20 * 24 * time.Hour))))
			default:
				now = now.Add(time.Duration(rng.Int64N(int64(4 * time.Hour)))).Truncate(time.Microsecond)
			}
			times = append(times, now)
			e := event(i)
			e.Profile = []string{"a", "b", "c"}[rng.IntN(3)]
			if err := l.Append(t.Context(), e, false); err != nil {
				t.Fatal(err)
			}
		}
		shut(t, l)
		if compressed {
			synctest.Test(t, func(t *testing.T) {
				l := openAsIs(t, opts)
				synctest.Wait()
				shut(t, l)
			})
		}
		all := make([]audit.Entry, 0, len(times))
		for line, err := range audit.Entries(t.Context(), dir, audit.Query{Decode: true}) {
			if err != nil {
				t.Fatal(err)
			}
			e, err := line.Entry()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
		for range 40 {
			var q audit.Query
			at := func() time.Time { return start.Add(time.Duration(rng.Int64N(int64(60 * 24 * time.Hour)))) }
			switch rng.IntN(4) {
			case 0:
				q.Since = at()
			case 1:
				q.Until = at()
			case 2:
				q.Since, q.Until = at(), at()
			}
			if rng.IntN(3) == 0 {
				q.From = rng.Int64N(300)
			}
			if rng.IntN(4) == 0 {
				q.To = rng.Int64N(300)
			}
			if rng.IntN(2) == 0 {
				q.Profile = []string{"b"}
			}
			if rng.IntN(3) == 0 {
				q.Last = 1 + rng.IntN(20)
			}
			// A stretch of one line hides nothing; a whole segment may.
			size := int64(rng.IntN(400)) + 200
			if compressed {
				q.Since, q.Until = time.Time{}, time.Time{}
			}
			var want []int64
			for _, e := range all {
				if e.Seq >= q.From && (q.To == 0 || e.Seq < q.To) && (q.Since.IsZero() || !e.Time.Before(q.Since)) &&
					(q.Until.IsZero() || e.Time.Before(q.Until)) && (q.Profile == nil || e.Profile == "b") {
					want = append(want, e.Seq)
				}
			}
			if q.Last > 0 {
				want = want[max(0, len(want)-q.Last):]
			}
			if q.Reverse = rng.IntN(2) == 0; q.Reverse {
				slices.Reverse(want)
			}
			if got := numbers(t, audit.EntriesBy(t.Context(), dir, q, size)); !slices.Equal(got, want) {
				t.Fatalf("round %d, stretches of %d, compressed %v, %+v:\n%v, want\n%v", round, size, compressed, q, got, want)
			}
		}
	}
}

// A reading that is cancelled ends, wherever it is.
func TestEntriesOfACancelledContext(t *testing.T) {
	dir := logDir(t)
	l := open(t, audit.Options{Dir: dir})
	for range 100 {
		if err := l.Append(t.Context(), broker.Event{Kind: broker.EventKeyAdded}, false); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, l)
	for round := range 1000 {
		ctx, cancel := context.WithCancel(t.Context())
		if round%2 == 0 {
			cancel()
		} else {
			go cancel()
		}
		for _, err := range audit.EntriesBy(ctx, dir, audit.Query{}, 1000) {
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		cancel()
	}
}
