package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gatepass/broker/audit/reconcile"
)

// A reconciliation gathers findings for a person: those that are alike are told
// together.
type reconciliation struct {
	all    bool
	groups map[string]*findings
	more   int64 // found beyond mostGroups, and told by number alone
}

// findings are alike but for the call.
type findings struct {
	reconcile.Finding // the first one
	first, last       time.Time
	calls             map[string]int64
	n                 int64
}

const (
	mostGroups = 10_000 // what a person will look at, and so what is kept
	mostShown  = 6      // calls, and candidates, of one group
)

func newReconciliation(all bool) *reconciliation {
	return &reconciliation{all: all, groups: map[string]*findings{}}
}

func (r *reconciliation) add(f reconcile.Finding) error {
	e := f.Event
	key := fmt.Sprint(f.Kind, "\n", f.Why, "\n", e.Identity.AccessKeyID, "\n", e.Identity.ARN)
	for _, p := range f.By {
		key += fmt.Sprint("\n", p.Seq)
	}
	g := r.groups[key]
	if g == nil {
		if len(r.groups) == mostGroups {
			r.more++
			return nil
		}
		g = &findings{Finding: f, first: e.Time, last: e.Time, calls: map[string]int64{}}
		r.groups[key] = g
	}
	g.n++
	if e.Time.Before(g.first) {
		g.first, g.Event = e.Time, e
	}
	if e.Time.After(g.last) {
		g.last = e.Time
	}
	call := e.Call()
	if e.ErrorCode != "" {
		call += " (" + e.ErrorCode + ")"
	}
	g.calls[call]++
	return nil
}

// in returns the groups that are explained or not, the earliest first.
func (r *reconciliation) in(explained bool) []*findings {
	all := slices.DeleteFunc(slices.Collect(maps.Values(r.groups)), func(g *findings) bool { return g.Explains != explained })
	slices.SortFunc(all, func(a, b *findings) int {
		return cmp.Or(a.first.Compare(b.first), cmp.Compare(a.Why, b.Why), cmp.Compare(a.Event.ID, b.Event.ID))
	})
	return all
}

// reconciliation writes the summary, what is not explained, and what is.
func (w *prose) reconciliation(r *reconciliation, sum *reconcile.Summary, log string) {
	const minutes = "2006-01-02 15:04"
	ours := sum.Explained + sum.Unexplained
	verdict := "all explained"
	paint := w.palette.green
	if sum.Unexplained > 0 {
		verdict, paint = fmt.Sprintf("%d NOT explained", sum.Unexplained), w.palette.red
	}
	if len(sum.Incomplete) > 0 {
		verdict, paint = verdict+" of what could be read", w.palette.red
	}
	w.WriteString(paint(count(ours, "event", "events")+" of your keys and sessions: "+verdict) + "\n")
	w.fact("by", kinds(sum))
	w.fact("besides", fmt.Sprintf("%s of others, %d delivered again%s", count(sum.Foreign, "event", "events"), sum.Duplicates, outside(sum)))
	if !sum.First.IsZero() {
		w.fact("files", fmt.Sprintf("%d, from %s to %s", sum.Files, sum.First.Local().Format(minutes), sum.Last.Local().Format(minutes)))
	}
	for _, bad := range sum.Incomplete {
		w.fact("unread", bad.Error())
	}
	if len(sum.Addresses) > 0 {
		w.fact("from", strings.Join(sum.Addresses[:min(len(sum.Addresses), mostShown)], ", ")+", as the broker's calls")
	} else {
		w.fact("from", "not compared: no call of the broker's is in these files")
	}
	if sum.Missing > 0 {
		w.fact("missing", fmt.Sprintf("%s of which these files do not tell that STS made them (%s): of an account, a region or a day there are none", count(sum.Missing, "session", "sessions"), sum.FirstMissing))
	}
	w.hang("  log       ", strings.TrimSuffix(strings.ReplaceAll(log, "\n", "; "), "; "))
	w.groups("not explained", r.in(false), w.palette.red)
	w.groups("explained", r.in(true), nil)
	if r.more > 0 {
		w.say(0, fmt.Sprintf("and %s more; --json has them all", count(r.more, "event", "events")))
	}
}

func kinds(sum *reconcile.Summary) string {
	var parts []string
	for _, k := range []struct {
		kind reconcile.Kind
		text string
	}{
		{reconcile.KindProcess, "one process"}, {reconcile.KindCandidates, "one of several processes"}, {reconcile.KindBroker, "the broker"},
		{reconcile.KindUnanswered, "the broker, whom no answer reached"},
	} {
		if n := sum.Kinds[k.kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", k.text, n))
		}
	}
	return strings.Join(parts, ", ")
}

func outside(sum *reconcile.Summary) string {
	if sum.Outside == 0 {
		return ""
	}
	return fmt.Sprintf(", %d before or after", sum.Outside)
}

func (w *prose) groups(title string, all []*findings, paint func(string) string) {
	if len(all) == 0 {
		return
	}
	w.WriteByte('\n')
	w.title(title)
	w.day = ""
	for _, g := range all {
		w.date(g.first)
		w.group(g, paint)
	}
}

func (w *prose) group(g *findings, paint func(string) string) {
	const indent = len("15:04:05  ")
	head := callsText(g.calls)
	if g.n > 1 && !g.last.Equal(g.first) {
		head += ", until " + clock(g.last, g.first)
	}
	w.painted(g.first.Local().Format("15:04:05")+"  ", head, paint)
	why := g.Why
	if !g.Explains {
		why = string(g.Kind) + ": " + why
	}
	if len(g.By) > 0 {
		w.say(indent, candidates(g))
	}
	w.say(indent, why)
	if g.Explains {
		return
	}
	e := g.Event
	at := "from " + e.Address
	if e.Region != "" {
		at += ", " + e.Region
	}
	w.say(indent, fmt.Sprintf("%s, by %q; event %s", at, e.Agent, e.ID))
	for _, p := range g.Past[:min(len(g.Past), mostShown)] {
		w.say(indent, "had it: "+processText(p))
	}
}

// callsText lists calls, the most frequent first.
func callsText(calls map[string]int64) string {
	names := slices.SortedFunc(maps.Keys(calls), func(a, b string) int { return cmp.Or(cmp.Compare(calls[b], calls[a]), cmp.Compare(a, b)) })
	var parts []string
	for _, name := range names[:min(len(names), mostShown)] {
		if n := calls[name]; n > 1 {
			name = fmt.Sprintf("%s × %d", name, n)
		}
		parts = append(parts, name)
	}
	text := strings.Join(parts, ", ")
	if more := len(names) - mostShown; more > 0 {
		text += fmt.Sprintf(" and %d other calls", more)
	}
	return text
}

func candidates(g *findings) string {
	var parts []string
	for _, p := range g.By[:min(len(g.By), mostShown)] {
		parts = append(parts, processText(p))
	}
	text := strings.Join(parts, "; or ")
	if len(g.By) > mostShown || g.More {
		text += "; or others: gatepass audit trace " + g.Session.ID
	}
	return "by " + text
}

func processText(p *reconcile.Process) string {
	text := cmp.Or(p.Program, "a process without a name")
	if p.PID != 0 {
		text += fmt.Sprintf(" (pid %d)", p.PID)
	}
	text += ofProfile(p.Profile)
	if p.Lease != "" {
		text += ", lease " + p.Lease
	}
	return text + because(p.Reason)
}
