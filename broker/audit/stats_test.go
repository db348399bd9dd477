package audit_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/audit/audittest"
)

// The counts are those of the decoded entries, one by one.
func TestStats(t *testing.T) {
	log, err := audittest.Write(t.Context(), audittest.Options{Dir: logDir(t), Entries: 3000, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	where := time.FixedZone("", 5*3600)
	got, err := audit.FindStats(t.Context(), log.Dir, audit.Query{}, where)
	if err != nil {
		t.Fatal(err)
	}
	days, profiles, programs := map[string]audit.Count{}, map[string]audit.Count{}, map[string]audit.Count{}
	events, outcomes := map[string]int64{}, map[string]int64{}
	for line := range audit.Entries(t.Context(), log.Dir, audit.Query{}) {
		e, err := line.Entry()
		if err != nil {
			t.Fatal(err)
		}
		events[string(e.Kind)]++
		outcomes[e.Outcome]++
		add := func(m map[string]audit.Count, name string) {
			c := m[name]
			c.Name = name
			switch e.Kind {
			case broker.EventCredentialsServed:
				c.Handouts++
			case broker.EventRequestDenied:
				c.Denied++
			case broker.EventRequestFailed:
				c.Failed++
			default:
				return
			}
			m[name] = c
		}
		add(days, e.Time.In(where).Format("2006-01-02"))
		add(profiles, e.Profile)
		add(programs, e.Caller.Program)
	}
	for _, tt := range []struct {
		name string
		got  []audit.Count
		want map[string]audit.Count
	}{{"days", got.Days, days}, {"profiles", got.Profiles, profiles}, {"programs", got.Programs, programs}} {
		if len(tt.got) != len(tt.want) {
			t.Errorf("%s: %d, want %d", tt.name, len(tt.got), len(tt.want))
		}
		for i, c := range tt.got {
			if c != tt.want[c.Name] {
				t.Errorf("%s: %+v, want %+v", tt.name, c, tt.want[c.Name])
			}
			if i == 0 {
				continue
			}
			before := tt.got[i-1]
			inOrder := before.All() > c.All() || before.All() == c.All() && before.Name < c.Name
			if tt.name == "days" {
				inOrder = before.Name < c.Name
			}
			if !inOrder {
				t.Errorf("%s: %+v after %+v", tt.name, c, before)
			}
		}
	}
	for _, tt := range []struct {
		name string
		got  []audit.Tally
		want map[string]int64
	}{{"events", got.Events, events}, {"outcomes", got.Outcomes, outcomes}} {
		if len(tt.got) != len(tt.want) {
			t.Errorf("%s: %d, want %d", tt.name, len(tt.got), len(tt.want))
		}
		for i, e := range tt.got {
			if tt.want[e.Name] != e.Entries || i > 0 && tt.got[i-1].Entries < e.Entries {
				t.Errorf("%s: %+v, want %v", tt.name, tt.got, tt.want)
			}
		}
	}
	if got.Entries != 3000 || got.Total.All() == 0 || got.Total.All() != got.Total.Handouts+int64(events["request.denied"]+events["request.failed"]) || !got.First.Before(got.Last) {
		t.Errorf("%+v", got)
	}

	none, err := audit.FindStats(t.Context(), log.Dir, audit.Query{Profile: []string{"nosuch"}}, where)
	if err != nil || none.Entries != 0 || none.Days != nil {
		t.Errorf("nothing: %+v, %v", none, err)
	}
	name := filepath.Join(log.Dir, "000001.jsonl")
	b, _ := os.ReadFile(name)
	os.WriteFile(name, append(b, "rubbish\n"...), 0o600)
	if got, err := audit.FindStats(t.Context(), log.Dir, audit.Query{}, where); err != nil || got.Unreadable != 1 || got.Entries != 3000 {
		t.Errorf("beside rubbish: %+v, %v", got.Unreadable, err)
	}
}

func TestMonths(t *testing.T) {
	days := []audit.Count{{Name: "2026-10-30", Handouts: 1}, {Name: "2026-10-31", Denied: 2}, {Name: "2026-11-01", Failed: 3}}
	want := []audit.Count{{Name: "2026-10", Handouts: 1, Denied: 2}, {Name: "2026-11", Failed: 3}}
	if got := audit.Months(days); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}
