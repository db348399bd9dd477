package audit

import (
	"cmp"
	"context"
	"slices"
	"time"

	"gatepass/broker"
)

// Stats count what a query selects.
type Stats struct {
	Entries  int64     `json:"entries"`
	First    time.Time `json:"first,omitzero"` // the earliest time, and the latest
	Last     time.Time `json:"last,omitzero"`
	Total    Count     `json:"total"`
	Days     []Count   `json:"days,omitempty"`     // in order, "2026-11-03"; those without an entry are left out
	Profiles []Count   `json:"profiles,omitempty"` // the most asked for first; "" for requests that named none
	Programs []Count   `json:"programs,omitempty"` // the busiest first
	Events   []Tally   `json:"events,omitempty"`   // the most frequent first
	Outcomes []Tally   `json:"outcomes,omitempty"` // of all entries

	Unreadable int64 `json:"unreadable,omitempty"` // lines that are no entries
}

// A Count counts requests by what became of them.
type Count struct {
	Name     string `json:"name,omitempty"`
	Handouts int64  `json:"handouts"`
	Denied   int64  `json:"denied"`
	Failed   int64  `json:"failed"`
}

// All is how many requests there were.
func (c Count) All() int64 { return c.Handouts + c.Denied + c.Failed }

// A Tally counts entries.
type Tally struct {
	Name    string `json:"name"`
	Entries int64  `json:"entries"`
}

// Months adds up days.
func Months(days []Count) (all []Count) {
	for _, d := range days {
		month := d.Name[:len("2006-01")]
		if len(all) == 0 || all[len(all)-1].Name != month {
			all = append(all, Count{Name: month})
		}
		m := &all[len(all)-1]
		m.Handouts, m.Denied, m.Failed = m.Handouts+d.Handouts, m.Denied+d.Denied, m.Failed+d.Failed
	}
	return all
}

// FindStats counts the entries of the log in dir that q selects. Days are
// those of where. Lines that are no entries are counted and no error; its errors
// are those of [Entries].
func FindStats(ctx context.Context, dir string, q Query, where *time.Location) (Stats, error) {
	var s Stats
	days, profiles, programs := counts{}, counts{}, counts{}
	events, outcomes := map[string]int64{}, map[string]int64{}
	for line, err := range Entries(ctx, dir, q) {
		if err != nil && line.Raw == nil {
			return Stats{}, err
		}
		at := line.Time()
		if err != nil || at.IsZero() {
			s.Unreadable++
			continue
		}
		s.Entries++
		if s.First.IsZero() || at.Before(s.First) {
			s.First = at
		}
		if at.After(s.Last) {
			s.Last = at
		}
		h, _ := parseHead(line.Raw)
		events[string(h.event)]++
		outcomes[line.Field("outcome")]++
		var became func(*Count)
		switch broker.EventKind(h.event) {
		case broker.EventCredentialsServed:
			became = func(c *Count) { c.Handouts++ }
		case broker.EventRequestDenied:
			became = func(c *Count) { c.Denied++ }
		case broker.EventRequestFailed:
			became = func(c *Count) { c.Failed++ }
		default:
			continue
		}
		became(&s.Total)
		became(days.of(at.In(where).Format(time.DateOnly)))
		became(profiles.of(line.Field("profile")))
		became(programs.of(line.Field("program")))
	}
	s.Days = days.by(func(a, b Count) int { return cmp.Compare(a.Name, b.Name) })
	busiest := func(a, b Count) int { return cmp.Or(cmp.Compare(b.All(), a.All()), cmp.Compare(a.Name, b.Name)) }
	s.Profiles, s.Programs = profiles.by(busiest), programs.by(busiest)
	s.Events, s.Outcomes = tallies(events), tallies(outcomes)
	return s, nil
}

type counts map[string]*Count

func (c counts) of(name string) *Count {
	if c[name] == nil {
		c[name] = &Count{Name: name}
	}
	return c[name]
}

func (c counts) by(order func(a, b Count) int) (all []Count) {
	for _, n := range c {
		all = append(all, *n)
	}
	slices.SortFunc(all, order)
	return all
}

func tallies(m map[string]int64) (all []Tally) {
	for name, n := range m {
		all = append(all, Tally{name, n})
	}
	slices.SortFunc(all, func(a, b Tally) int { return cmp.Or(cmp.Compare(b.Entries, a.Entries), cmp.Compare(a.Name, b.Name)) })
	return all
}
