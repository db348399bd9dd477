package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/audit/audittest"
)

// Every kind of event has a sentence of its own, and what is strange in an
// entry is shown, not obeyed.
func TestWhatEntriesSay(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "..", "broker", "event.go"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := regexp.MustCompile(`EventKind = "([a-z.]+)"`).FindAllSubmatch(source, -1)
	if len(kinds) < 20 {
		t.Fatalf("%d kinds of events", len(kinds))
	}
	seen := map[string]string{}
	for _, k := range kinds {
		e := &audit.Entry{Seq: 7, Time: time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC), Cut: []string{"caller.command"}, Event: broker.Event{
			Kind: broker.EventKind(k[1]), Outcome: "ok", Profile: "ops\x1b[31m", Account: "111122223333", RoleARN: "arn:aws:iam::111122223333:role/Ops",
			Key: &broker.EventKey{Name: "work"}, Session: &broker.EventSession{ID: "s-1"}, Lease: "l-1", Reason: "because\u202e", Groups: []string{"it"}, Decision: "a rule",
			Caller: &broker.Caller{PID: 9, Program: "/bin/\x1b]0;evil\a", Exe: "/bin/evil", Command: "evil\r\n\x1b[2J", Via: "container"},
			Error:  &broker.EventError{Code: broker.CodeDenied, Message: "no\x9b2J"},
		}}
		sentence := whatItSays(e)
		if other, ok := seen[sentence]; ok || strings.HasPrefix(strings.ToLower(sentence), string(k[1])) {
			t.Errorf("%s: %q, as %s", k[1], sentence, other)
		}
		seen[sentence] = string(k[1])
		w := &prose{width: 60}
		w.entry(e, e.Time)
		w.neighbours(e, &audit.Trace{Sessions: []audit.SessionStory{{ID: "s-1", Issued: e, Failed: e, Requested: e, Ended: e}}, Leases: []audit.LeaseStory{{ID: "l-1", Started: e, Ended: e, Released: e}}})
		checkScreen(t, w)
		for _, want := range []string{`ops\x1b[31m`, `because\u202e`, `evil\x0d\x0a\x1b[2J`, "caller.command", "a rule", "its ancestors are not all known", "what belongs to it"} {
			if !strings.Contains(strings.Join(strings.Fields(w.String()), " "), want) {
				t.Errorf("%s: no %q in\n%s", k[1], want, w.String())
			}
		}
	}
	w := &prose{width: 60}
	w.entry(&audit.Entry{Event: broker.Event{Kind: "a.new.kind"}}, time.Now()) // of a later version
	if !strings.Contains(w.String(), "a.new.kind, by somebody") {
		t.Errorf("a kind that is not known:\n%s", w.String())
	}
}

// checkScreen wants lines that fit, and nothing that a terminal obeys.
func checkScreen(t *testing.T, w *prose) {
	t.Helper()
	for line := range strings.Lines(w.String()) {
		line = strings.TrimSuffix(line, "\n")
		if utf8.RuneCountInString(line) > w.width || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 || r == 0x202e }) || strings.TrimRight(line, " ") != line {
			t.Errorf("%d columns, %q", utf8.RuneCountInString(line), line)
		}
	}
}

// All stories of a large log, hostile strings among them, fit a terminal.
func TestStoriesFitATerminal(t *testing.T) {
	log, err := audittest.Write(t.Context(), audittest.Options{Dir: filepath.Join(t.TempDir(), "audit"), Entries: 4000, Seed: 4})
	if err != nil {
		t.Fatal(err)
	}
	for _, width := range []int{60, 80, 100} {
		for _, id := range []string{log.Shared.AccessKeyID, log.Leased.Name, log.Lease, "AKIAIOSFODNN7EXAMPLE"} {
			trace, err := audit.FindTrace(t.Context(), log.Dir, id)
			if err != nil {
				t.Fatal(err)
			}
			w := &prose{width: width}
			w.trace(&trace, time.Now())
			checkScreen(t, w)
		}
		stats, err := audit.FindStats(t.Context(), log.Dir, audit.Query{}, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		w := &prose{width: width}
		w.stats(&stats)
		checkScreen(t, w)
	}
}

// An ancestor whose program nobody may know is named by its command line.
func TestSurroundings(t *testing.T) {
	above := []broker.Process{{PID: 40, Exe: "/usr/bin/zsh", Command: "-zsh"}, {PID: 30, Command: "sshd: alice"}, {PID: 1, Exe: "/sbin/init"}}
	if got, want := surroundings("alice", "/home/alice", "", above, true), "as alice, in /home/alice, below zsh (40), sshd: alice (30)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What a story means is said for each way that it can go.
func TestSessionVerdict(t *testing.T) {
	now := time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC)
	e := &audit.Entry{}
	known := broker.EventSession{AccessKeyID: "ASIA1", Expires: now.Add(42 * time.Minute)}
	for want, s := range map[string]audit.SessionStory{
		"There was no such session":          {Requested: e, Failed: e},
		"what it answered is not in the log": {Requested: e},
		"Nobody got it from gatepass. What AWS records of ASIA1 would be somebody else's doing. It is good for another 42m.": {Issued: e, Session: known},
		"One process got it: what AWS records of ASIA1 was done by it":                                                       {Issued: e, Ended: e, Session: known, Recipients: make([]audit.Recipient, 1)},
		"It is shared: 2 processes got it":                                                                                   {Issued: e, Session: known, Recipients: make([]audit.Recipient, 2)},
		"Its end is not in the log; it expired":                                                                              {Issued: e, Session: broker.EventSession{Expires: now}, Recipients: make([]audit.Recipient, 1)},
	} {
		if got := sessionVerdict(&s, false, now); !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := sessionVerdict(&audit.SessionStory{Issued: e, Ended: e}, true, now); !strings.Contains(got, "The daemon keeps it for itself") {
		t.Errorf("a proof: %q", got)
	}
}

func TestBars(t *testing.T) {
	for _, tt := range []struct {
		n, most int64
		want    int
	}{{0, 10, 0}, {1, 1000000, 1}, {5, 10, 10}, {10, 10, 20}} {
		if got := utf8.RuneCountInString(bar(tt.n, tt.most, 20)); got != tt.want {
			t.Errorf("%d of %d: %d, want %d", tt.n, tt.most, got, tt.want)
		}
	}
}
