package report

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

const (
	mostLanes  = 20   // profiles of the timeline
	mostLeases = 50   // in the table below it
	breadth    = 1000 // of the timeline, in its own units
	narrowest  = 2    // a bar: what is there is never invisible
	ticks      = 4    // parts of the time that is drawn; page.css has as many columns
)

// A lease is a process tree that held a role, as the log tells it.
type lease struct {
	ID, Profile, Program, Reason string
	From, To                     time.Time // zero where the log does not have it
}

// leases are all of them, in the order in which the log tells of them.
type leases struct {
	byID map[string]*lease
	all  []*lease
}

func newLeases() *leases { return &leases{byID: map[string]*lease{}} }

// add takes a lease's next entry. That of its end tells the profile too, for
// when the one of its beginning was pruned.
func (l *leases) add(e *audit.Entry) {
	one := l.byID[e.Lease]
	if one == nil {
		one = &lease{ID: e.Lease, Profile: e.Profile}
		l.byID[e.Lease] = one
		l.all = append(l.all, one)
	}
	if e.Kind == broker.EventLeaseEnded {
		one.To = e.Time
		return
	}
	one.From, one.Reason = e.Time, e.Reason
	if e.Caller != nil {
		one.Program = e.Caller.Program
	}
}

// A timeline shows when which profile was leased.
type timeline struct {
	From, To   time.Time
	Ticks      []tick
	Lanes      []lane
	MoreLanes  int // profiles that are not shown
	MoreLeases int // their leases
	Leases     []*lease
	Count      int // of leases
}

type tick struct {
	X     int
	Label string
}

// A lane is a profile's leases.
type lane struct {
	Profile string
	Leases  int
	Held    time.Duration // for so long there was at least one
	Bars    []bar
}

// A bar is a lease, or several that overlap or lie too near to be told apart.
type bar struct {
	X, Width float64
	Text     string

	from, to time.Time
	leases   int
	first    *lease
}

// draw lays out the leases of a time.
func (l *leases) draw(from, to time.Time) timeline {
	if !to.After(from) {
		to = from.Add(time.Second)
	}
	t := timeline{From: from, To: to}
	layout := time.DateOnly
	if to.Sub(from) < ticks*24*time.Hour {
		layout = "01-02 15:04"
	}
	if to.Sub(from) < ticks*time.Minute {
		layout = "15:04:05"
	}
	for i := range ticks + 1 {
		at := from.Add(to.Sub(from) / ticks * time.Duration(i))
		t.Ticks = append(t.Ticks, tick{X: i * breadth / ticks, Label: at.UTC().Format(layout)})
	}
	byProfile := map[string][]*lease{}
	for _, one := range l.all {
		if !one.To.IsZero() && one.To.Before(from) || one.From.After(to) {
			continue
		}
		byProfile[one.Profile] = append(byProfile[one.Profile], one)
		t.Leases = append(t.Leases, one)
	}
	t.Count = len(t.Leases)
	for profile, all := range byProfile {
		t.Lanes = append(t.Lanes, draw(profile, all, from, to))
	}
	slices.SortFunc(t.Lanes, func(a, b lane) int { return cmp.Or(cmp.Compare(b.Leases, a.Leases), cmp.Compare(a.Profile, b.Profile)) })
	for _, hidden := range t.Lanes[min(len(t.Lanes), mostLanes):] {
		t.MoreLeases += hidden.Leases
	}
	t.Lanes, t.MoreLanes = first(t.Lanes, mostLanes)
	slices.Reverse(t.Leases)
	t.Leases, _ = first(t.Leases, mostLeases)
	return t
}

// draw lays out the leases of one profile.
func draw(profile string, all []*lease, from, to time.Time) lane {
	bounds := func(one *lease) (time.Time, time.Time) {
		start, end := one.From, one.To
		if start.Before(from) {
			start = from
		}
		if end.IsZero() || end.After(to) {
			end = to
		}
		if end.Before(start) { // the clock was set back
			end = start
		}
		return start, end
	}
	at := func(t time.Time) float64 { return breadth * float64(t.Sub(from)) / float64(to.Sub(from)) }
	slices.SortStableFunc(all, func(a, b *lease) int { return a.From.Compare(b.From) })
	l := lane{Profile: profile, Leases: len(all)}
	var held time.Time // until then it is counted
	for _, one := range all {
		start, end := bounds(one)
		if end.After(held) {
			l.Held += end.Sub(later(start, held))
			held = end
		}
		x := min(at(start), breadth-narrowest)
		width := max(at(end)-x, narrowest)
		if n := len(l.Bars) - 1; n >= 0 && x <= l.Bars[n].X+l.Bars[n].Width+0.5 {
			last := &l.Bars[n]
			last.Width = max(last.Width, x+width-last.X)
			last.to = later(last.to, end)
			last.leases++
			continue
		}
		l.Bars = append(l.Bars, bar{X: x, Width: width, from: start, to: end, leases: 1, first: one})
	}
	l.Held = l.Held.Round(time.Minute)
	for i := range l.Bars {
		b := &l.Bars[i]
		b.X, b.Width = round(b.X), round(b.Width)
		b.Text = fmt.Sprintf("%s to %s", b.from.UTC().Format(minutes), b.to.UTC().Format(minutes))
		if b.leases > 1 {
			b.Text = fmt.Sprintf("%d leases, %s", b.leases, b.Text)
		} else {
			b.Text = fmt.Sprintf("%s, %s, by %s", b.first.ID, b.Text, orNone(b.first.Program))
		}
	}
	return l
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func round(x float64) float64 { return float64(int(x*10+0.5)) / 10 }
