package report

import (
	"cmp"
	"context"
	"slices"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// How much of each is shown; the rest is counted.
const (
	mostPrograms = 20
	mostRefusals = 25
	mostKeys     = 50
	mostDays     = 120 // beyond which requests are counted by month

	// oldKey is when a key should have been replaced, as AWS's own checks of
	// IAM (access-keys-rotated) have it.
	oldKey = 90 * 24 * time.Hour
)

// facts are what the log tells besides its entries.
type facts struct {
	Stats    audit.Stats
	Timeline timeline
	Periods  []bars // hand-outs and refusals by day, or by month
	Unit     string // of Periods
	Busiest  int64  // requests in one of them
	Programs []bars
	Others   int // programs that are not shown
	Refusals []*refusal
	MoreKind int // kinds of refusals that are not shown
	Keys     []key
	MoreKeys int
}

// bars are a count and how much of the largest one it is, in percent.
type bars struct {
	audit.Count
	Good, Bad float64
}

// Refused are all that got nothing.
func (b bars) Refused() int64 { return b.Denied + b.Failed }

// Y and YBad are where a column's parts begin, of which the lower one is good.
func (b bars) Y() float64    { return 100 - b.Good }
func (b bars) YBad() float64 { return max(0, 100-b.Good-b.Bad) }

// A refusal is all requests that were refused, or failed, in one way.
type refusal struct {
	Outcome, Code, Profile, Program string
	Count                           int64
	Last                            time.Time
	Seq                             int64  // of the last one
	Message                         string // of the last one
}

// A key is a long-term key, as the log knows it.
type key struct {
	broker.EventKey
	Since time.Time // added or rotated
	How   string    // which
	Gone  time.Time // removed, or replaced
	State string
	Days  int64 // its age, at its end or now
	Old   bool
	Share float64 // of the oldest one's age, in percent
}

// gather reads the log twice: all of it to count it, and what is rare to tell
// of it. Leases and keys that go on began before, so that of those everything
// is read up to the end.
func gather(ctx context.Context, opts Options) (*facts, error) {
	f := &facts{}
	q := audit.Query{To: opts.To, Since: opts.Since, Until: opts.Until}
	var err error
	if f.Stats, err = audit.FindStats(ctx, opts.LogDir, q, time.UTC); err != nil {
		return nil, err
	}
	f.count()

	type way struct{ outcome, code, profile, program string }
	refusals := map[way]*refusal{}
	leases := newLeases()
	var keys []key
	q = audit.Query{To: opts.To, Until: opts.Until, Decode: true, Event: []string{
		string(broker.EventLeaseStarted), string(broker.EventLeaseEnded), string(broker.EventRequestDenied), string(broker.EventRequestFailed),
		string(broker.EventKeyAdded), string(broker.EventKeyRotated), string(broker.EventKeyRemoved),
	}}
	err = entries(ctx, opts.LogDir, q, func(e *audit.Entry) error {
		switch e.Kind {
		case broker.EventLeaseStarted, broker.EventLeaseEnded:
			leases.add(e)
		case broker.EventRequestDenied, broker.EventRequestFailed:
			if e.Time.Before(opts.Since) {
				return nil
			}
			w := way{outcome: e.Outcome, profile: e.Profile}
			if e.Error != nil {
				w.code = string(e.Error.Code)
			}
			if e.Caller != nil {
				w.program = e.Caller.Program
			}
			r := refusals[w]
			if r == nil {
				r = &refusal{Outcome: w.outcome, Code: w.code, Profile: w.profile, Program: w.program}
				refusals[w] = r
			}
			r.Count++
			r.Last, r.Seq = e.Time, e.Seq
			if e.Error != nil {
				r.Message = e.Error.Message
			}
		default:
			keys = learnKey(keys, e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, r := range refusals {
		f.Refusals = append(f.Refusals, r)
	}
	slices.SortFunc(f.Refusals, func(a, b *refusal) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(b.Seq, a.Seq)) })
	f.Refusals, f.MoreKind = first(f.Refusals, mostRefusals)
	f.Keys, f.MoreKeys = first(aged(keys, opts.Now), mostKeys)
	f.Timeline = leases.draw(span(f.Stats, opts))
	return f, nil
}

// span is the time that is drawn: what was asked for, or what there is.
func span(s audit.Stats, opts Options) (from, to time.Time) {
	from, to = s.First, s.Last
	if !opts.Since.IsZero() {
		from = opts.Since
	}
	if !opts.Until.IsZero() {
		to = opts.Until
	}
	return from, to
}

func first[T any](all []T, most int) (shown []T, more int) {
	n := min(len(all), most)
	return all[:n], len(all) - n
}

// count makes bars of what was counted.
func (f *facts) count() {
	days := f.Stats.Days
	f.Unit = "day"
	if len(days) > mostDays {
		f.Unit, days = "month", audit.Months(days)
	}
	f.Periods, f.Busiest = drawn(days)
	programs, more := first(f.Stats.Programs, mostPrograms)
	f.Programs, _ = drawn(programs)
	f.Others = more
}

func drawn(all []audit.Count) (drawn []bars, largest int64) {
	largest = 1
	for _, c := range all {
		largest = max(largest, c.All())
	}
	for _, c := range all {
		c.Name = broker.Printable(c.Name)
		drawn = append(drawn, bars{c, percent(c.Handouts, largest), percent(c.Denied+c.Failed, largest)})
	}
	return drawn, largest
}

// percent is how much n is of largest; what is there is never invisible.
func percent(n, largest int64) float64 {
	if n == 0 {
		return 0
	}
	return max(0.5, float64(n*1000/largest)/10)
}

// learnKey takes the next change of a key. Of a name only the newest is in use.
func learnKey(keys []key, e *audit.Entry) []key {
	if e.Key == nil || e.Outcome != broker.OutcomeOK {
		return keys
	}
	for i := range keys {
		k := &keys[i]
		if k.Name != e.Key.Name || !k.Gone.IsZero() {
			continue
		}
		if k.Gone, k.State = e.Time, "replaced"; e.Kind == broker.EventKeyRemoved {
			k.State = "removed"
		}
	}
	switch e.Kind {
	case broker.EventKeyAdded:
		keys = append(keys, key{EventKey: *e.Key, Since: e.Time, How: "added"})
	case broker.EventKeyRotated:
		keys = append(keys, key{EventKey: *e.Key, Since: e.Time, How: "rotated"})
	}
	return keys
}

// aged are keys with their ages, those in use first and of those the oldest.
func aged(keys []key, now time.Time) []key {
	var longest int64
	for i := range keys {
		k := &keys[i]
		end := now
		if !k.Gone.IsZero() {
			end = k.Gone
		}
		k.Days = max(0, int64(end.Sub(k.Since)/(24*time.Hour)))
		k.Old = k.Gone.IsZero() && end.Sub(k.Since) > oldKey
		longest = max(longest, k.Days)
	}
	for i := range keys {
		keys[i].Share = percent(keys[i].Days, max(longest, 1))
	}
	slices.SortStableFunc(keys, func(a, b key) int {
		switch {
		case a.Gone.IsZero() && b.Gone.IsZero():
			return a.Since.Compare(b.Since)
		case a.Gone.IsZero():
			return -1
		case b.Gone.IsZero():
			return 1
		}
		return b.Gone.Compare(a.Gone)
	})
	return keys
}
