package audit_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/audit/audittest"
)

// In a log of many sessions, each name of one leads to it and to all who got
// it, and to nothing else.
func TestTraceInALargeLog(t *testing.T) {
	log, err := audittest.Write(t.Context(), audittest.Options{Dir: logDir(t), Entries: 6000, Seed: 2, SegmentSize: 512 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []audittest.Session{log.Shared, log.Leased} {
		for _, id := range []string{want.ID, want.AccessKeyID, want.Name} {
			got, err := audit.FindTrace(t.Context(), log.Dir, id)
			if err != nil || len(got.Sessions) != 1 || got.ID != id || got.Key != nil || got.Unreadable != 0 {
				t.Fatalf("%s: %+v, %v", id, got, err)
			}
			s := got.Sessions[0]
			if s.ID != want.ID || s.Session.AccessKeyID != want.AccessKeyID || s.Session.Name != want.Name || s.Profile != want.Profile ||
				s.Requested == nil || s.Issued == nil || s.Ended == nil || s.Failed != nil || s.Shared != (len(s.Recipients) > 1) ||
				s.Requested.Seq >= s.Issued.Seq || s.Issued.Seq >= s.Recipients[0].FirstSeq || s.Session.STSRequestID == "" {
				t.Errorf("%s: %+v", id, s)
			}
			handouts, programs := 0, map[string]int{}
			for _, r := range s.Recipients {
				handouts += r.Handouts
				programs[r.Program] += r.Handouts
				if r.Process.PID == 0 || strings.HasSuffix(r.Process.Exe, "gatepass") || strings.HasSuffix(r.Process.Exe, "dash") {
					t.Errorf("%s: %+v is not who asked", id, r.Process)
				}
			}
			if handouts != want.Handouts || fmt.Sprint(programs) != fmt.Sprint(want.Programs) {
				t.Errorf("%s: %d hand-outs, %v; want %d, %v", id, handouts, programs, want.Handouts, want.Programs)
			}
			if leased := want.ID == log.Leased.ID; leased != (s.Lease == log.Lease) {
				t.Errorf("%s: lease %q", id, s.Lease)
			}
		}
	}
	got, err := audit.FindTrace(t.Context(), log.Dir, log.Lease)
	if err != nil || len(got.Leases) != 1 || got.Leases[0].Started == nil || got.Leases[0].Ended == nil || len(got.Leases[0].Recipients) == 0 ||
		!slices.ContainsFunc(got.Sessions, func(s audit.SessionStory) bool { return s.ID == log.Leased.ID }) {
		t.Errorf("lease: %+v, %v", got, err)
	}
	key, err := audit.FindTrace(t.Context(), log.Dir, "AKIAIOSFODNN7EXAMPLE")
	if err != nil || key.Key == nil || key.Key.Key.Name != "work" || len(key.Key.Changes) != 1 || key.Key.Sessions < 10 || !key.Key.First.Before(key.Key.Last) || key.Sessions != nil {
		t.Errorf("key: %+v, %v", key.Key, err)
	}
	if whole, err := json.Marshal(got); err != nil || !json.Valid(whole) {
		t.Errorf("%s, %v", whole, err)
	}
}

// asks is a caller whose gatepass was run by the process pid.
func asks(gatepass, pid int, program string) *broker.Caller {
	return &broker.Caller{UID: 1, PID: gatepass, Program: program, Exe: "/usr/bin/gatepass", Command: "gatepass credential-process ops", Via: "credential-process", Resolved: true,
		Ancestors: []broker.Process{
			{PID: gatepass - 1, Exe: "/usr/bin/dash", Command: "sh -c gatepass credential-process ops"},
			{PID: pid, Exe: program, Command: program + " apply"},
			{PID: 7, Exe: "/usr/bin/zsh", Command: "-zsh"}}}
}

func TestTraceOfOddSessions(t *testing.T) {
	dir := logDir(t)
	l := open(t, audit.Options{Dir: dir})
	end := time.Date(2026, 11, 3, 11, 0, 0, 0, time.UTC)
	key := &broker.EventKey{Name: "work", AccessKeyID: "AKIAWORK"}
	about := func(id, name string) *broker.EventSession {
		return &broker.EventSession{ID: id, AccessKeyID: "ASIA" + id, Name: name, Expires: end}
	}
	for _, e := range []broker.Event{
		0:  {Kind: broker.EventSessionRequested, Profile: "ops", Key: key, Session: &broker.EventSession{ID: "s-1", Name: "fixed"}, Reason: "first"},
		1:  {Kind: broker.EventSessionIssued, Profile: "ops", Key: key, Session: about("s-1", "fixed")},
		2:  {Kind: broker.EventCredentialsServed, Profile: "ops", Key: key, Session: about("s-1", "fixed"), Caller: asks(101, 50, "/bin/tf"), Reason: "one"},
		3:  {Kind: broker.EventCredentialsServed, Profile: "ops", Key: key, Session: about("s-1", "fixed"), Caller: asks(103, 50, "/bin/tf"), Reason: "two"},
		4:  {Kind: broker.EventCredentialsServed, Profile: "ops", Key: key, Session: about("s-1", "fixed"), Caller: asks(105, 50, "/bin/tf"), Reason: "one"},
		5:  {Kind: broker.EventCredentialsServed, Profile: "ops", Key: key, Session: about("s-1", "fixed"), Caller: asks(107, 51, "/bin/tf"), Lease: "l-1"},
		6:  {Kind: broker.EventLeaseEnded, Profile: "ops", Lease: "l-1"},
		7:  {Kind: broker.EventSessionRequested, Profile: "ops", Key: key, Session: &broker.EventSession{ID: "s-2", Name: "fixed"}},
		8:  {Kind: broker.EventRequestDenied, Profile: "ops", Key: key, Session: &broker.EventSession{ID: "s-2"}, Error: &broker.EventError{Code: broker.CodeAWSDenied, Message: "no"}},
		9:  {Kind: broker.EventSessionRequested, Profile: "ops", Key: key, Session: &broker.EventSession{ID: "s-3"}, Reason: `s-1 ASIAs-1 "fixed" "session":{"id":"s-1"}`},
		10: {Kind: broker.EventRequestDenied, Profile: "s-1", Lease: "l-1", Error: &broker.EventError{Code: broker.CodeDenied, Message: "wall"}},
		11: {Kind: broker.EventKeyRotated, Key: &broker.EventKey{Name: "work", AccessKeyID: "AKIANEW"}, Reason: "it takes the place of AKIAWORK"},
	} {
		e.Outcome = broker.OutcomeOK
		if err := l.Append(t.Context(), e, false); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, l)
	trace := func(id string) audit.Trace {
		t.Helper()
		got, err := audit.FindTrace(t.Context(), dir, id)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}

	one := trace("ASIAs-1")
	s := one.Sessions[0]
	if len(one.Sessions) != 1 || len(s.Recipients) != 2 || !s.Shared || s.Ended != nil || s.Requested.Reason != "first" || len(one.Leases) != 1 {
		t.Errorf("s-1: %+v", one)
	}
	if r := s.Recipients[0]; r.Process.PID != 50 || r.Handouts != 3 || r.FirstSeq != 2 || r.LastSeq != 4 || !slices.Equal(r.Reasons, []string{"one", "two"}) ||
		len(r.Ancestors) != 1 || r.Ancestors[0].PID != 7 {
		t.Errorf("the first recipient: %+v", r)
	}
	if l := one.Leases[0]; l.ID != "l-1" || l.Ended == nil || l.Started != nil || l.Recipients != nil || l.Refused != 0 {
		t.Errorf("the lease of a session: %+v", l)
	}
	if got := trace("fixed"); len(got.Sessions) != 2 || got.Sessions[1].ID != "s-2" || got.Sessions[1].Failed.Error.Message != "no" || got.Sessions[1].Issued != nil {
		t.Errorf("a name that two bear: %+v", got)
	}
	if got := trace("s-3").Sessions[0]; got.Requested == nil || got.Issued != nil || got.Failed != nil || len(got.Recipients) != 0 {
		t.Errorf("requested, and no more: %+v", got)
	}
	if got := trace("l-1"); len(got.Leases) != 1 || got.Leases[0].Refused != 1 || len(got.Leases[0].Recipients) != 1 || len(got.Sessions) != 1 || len(got.Sessions[0].Recipients) != 2 {
		t.Errorf("l-1: %+v", got)
	}
	if got := trace("AKIAWORK").Key; got == nil || got.Sessions != 1 || len(got.Changes) != 1 || got.Key.Name != "work" {
		t.Errorf("the key: %+v", got)
	}
	for _, id := range []string{"", "s-", "s-9", "ops", "first", "work", `"fixed"`, strings.Repeat("x", 2000), "\x00"} {
		if got, err := audit.FindTrace(t.Context(), dir, id); broker.CodeOf(err) != broker.CodeNotFound {
			t.Errorf("%q: %+v, %v", id, got, err)
		}
	}
	if _, err := audit.FindTrace(t.Context(), logDir(t), "s-1"); broker.CodeOf(err) != broker.CodeNotFound {
		t.Errorf("no log: %v", err)
	}

	// What belongs to an entry; and lines that are none are counted.
	for line := range audit.Entries(t.Context(), dir, audit.Query{From: 5, To: 6}) {
		e, err := line.Entry()
		if err != nil {
			t.Fatal(err)
		}
		got, err := audit.TraceOf(t.Context(), dir, &e)
		if err != nil || len(got.Sessions) != 1 || got.Sessions[0].Recipients[1].FirstSeq != 5 || len(got.Leases) != 1 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	name := filepath.Join(dir, "000001.jsonl")
	b, _ := os.ReadFile(name)
	os.WriteFile(name, append(b, "rubbish\n"...), 0o600)
	if got := trace("s-1"); got.Unreadable != 1 || len(got.Sessions) != 1 {
		t.Errorf("beside rubbish: %+v", got)
	}
	// The story of a key begins at its first entry; each line counts once.
	os.WriteFile(name, slices.Concat([]byte("rubbish\nmore\n"), b, []byte("rubbish\n")), 0o600)
	if got := trace("AKIAWORK"); got.Unreadable != 3 || got.Key.Sessions != 1 || len(got.Key.Changes) != 1 {
		t.Errorf("a key beside rubbish: %+v", got)
	}
}
