package ocsf

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

func TestEveryEventHasItsClass(t *testing.T) {
	all := broker.EventKinds
	for _, k := range all {
		if _, ok := kinds[k]; !ok {
			t.Errorf("no class is set for %s", k)
		}
	}
	if len(kinds) != len(all) {
		t.Errorf("%d events have a class, and there are %d", len(kinds), len(all))
	}
}

// entryLine is e as the log would hold it, but for what it escapes.
func entryLine(t *testing.T, e audit.Entry) audit.Line {
	t.Helper()
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	// As the log writes times: with six digits.
	text := strings.Replace(string(raw), e.Time.Format(time.RFC3339Nano), e.Time.Format("2006-01-02T15:04:05.000000Z"), 1)
	return audit.Line{Seq: e.Seq, Raw: []byte(text)}
}

// entries are the shapes that an event can have: with everything, with a user's
// session, and with nothing.
func entries(kind broker.EventKind) []audit.Entry {
	full := audit.Entry{Seq: 42, Time: time.Date(2026, 11, 3, 9, 0, 0, 123456000, time.UTC), Event: broker.Event{
		Kind: kind, Outcome: broker.OutcomeOK, Profile: "deploy", Account: "444455556666",
		RoleARN: "arn:aws:iam::444455556666:role/team/Deploy",
		Key:     &broker.EventKey{Name: "alice", AccessKeyID: "AKIAEXAMPLE", UserARN: "arn:aws:iam::111122223333:user/alice"},
		Session: &broker.EventSession{ID: "s-7f3k2m9qxd", AccessKeyID: "ASIAEXAMPLE", Name: "alice-s7f3k2m9qxd",
			Expires: time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC), STSRequestID: "6d1c0a5e-0000-4000-8000-000000000000"},
		Lease: "l-7f3k2m9qxd",
		Caller: &broker.Caller{UID: 1000, User: "alice", PID: 4242, Program: "terraform", Exe: "/usr/bin/gatepass", Command: "gatepass credential-process deploy",
			Cwd: "/home/alice", TTY: "/dev/pts/3", Via: "credential-process", Resolved: true,
			Ancestors: []broker.Process{{PID: 4241, Exe: "/usr/bin/terraform", Command: "terraform apply"}, {PID: 1}}},
		Groups: []string{"it", "ops"}, Reason: "ticket 4711", Decision: "groups.it",
	}, Cut: []string{"caller.command"}}
	user := full
	user.RoleARN, user.Lease, user.Cut, user.Decision, user.Groups = "", "", nil, "", nil
	bare := audit.Entry{Seq: 0, Time: full.Time, Event: broker.Event{Kind: kind, Outcome: broker.OutcomeOK}}
	unseen := bare
	unseen.Caller = &broker.Caller{UID: 0}
	all := []audit.Entry{full, user, bare, unseen}
	for _, e := range all[:4:4] {
		e.Error = &broker.EventError{Code: broker.CodeDenied, Message: "no"}
		e.Outcome = broker.OutcomeDenied
		all = append(all, e)
		e.Outcome = broker.OutcomeFailed
		all = append(all, e)
	}
	full.Outcome = "of.tomorrow"
	all = append(all, full)
	return all
}

// Every event, with all its fields and with none of them, holds to the
// published schema.
func TestEventsHoldToTheSchema(t *testing.T) {
	s := vendored(t)
	for _, kind := range append(broker.EventKinds, "of.tomorrow") {
		for _, e := range entries(kind) {
			got, err := Marshal(entryLine(t, e), "laptop")
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range s.check(got) {
				t.Errorf("%s %s: %s\n%s", kind, e.Outcome, problem, got)
			}
		}
	}
}

// What leads from the log to CloudTrail and back is in its place.
func TestMapping(t *testing.T) {
	one := func(e audit.Entry) map[string]any {
		line := entryLine(t, e)
		b, err := Marshal(line, "laptop")
		if err != nil {
			t.Fatal(err)
		}
		var v map[string]any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		if v["raw_data"] != string(line.Raw) {
			t.Errorf("raw_data is %q", v["raw_data"])
		}
		return v
	}
	at := func(v map[string]any, path string) any {
		var x any = v
		for name := range strings.SplitSeq(path, ".") {
			if list, ok := x.([]any); ok {
				i, _ := strconv.Atoi(name)
				x = list[i]
				continue
			}
			m, _ := x.(map[string]any)
			x = m[name]
		}
		return x
	}
	for _, tt := range []struct {
		entry audit.Entry
		want  map[string]any
	}{
		{entries(broker.EventCredentialsServed)[0], map[string]any{
			"type_uid": 300301.0, "time": 1793696400123.0, "metadata.sequence": 42.0, "metadata.event_code": "credentials.served",
			"metadata.original_time": "2026-11-03T09:00:00.123456Z", "metadata.is_truncated": true, "metadata.correlation_uid": "l-7f3k2m9qxd",
			"privileges.0": "arn:aws:iam::444455556666:role/team/Deploy", "user.name": "alice", "user.uid": "arn:aws:iam::111122223333:user/alice",
			"user.programmatic_credentials.0.uid": "AKIAEXAMPLE", "user.groups.1.name": "ops",
			"session.uid": "s-7f3k2m9qxd", "session.credential_uid": "ASIAEXAMPLE", "session.expiration_time": 1793700000000.0,
			"session.uid_alt":   "arn:aws:sts::444455556666:assumed-role/Deploy/alice-s7f3k2m9qxd",
			"actor.process.pid": 4242.0, "actor.app_name": "terraform", "actor.user.uid": "1000", "actor.process.ancestry.0.path": "/usr/bin/terraform",
			"cloud.account.uid": "444455556666", "api.request.uid": "6d1c0a5e-0000-4000-8000-000000000000", "policy.name": "groups.it",
			"status_id": 1.0, "action_id": 1.0, "unmapped.reason": "ticket 4711", "device.hostname": "laptop",
		}},
		{entries(broker.EventSessionIssued)[1], map[string]any{"privileges.0": "arn:aws:iam::111122223333:user/alice", "api.operation": "GetSessionToken"}},
		{entries(broker.EventRequestDenied)[4], map[string]any{"type_uid": 300301.0, "status_id": 2.0, "action_id": 2.0, "disposition_id": 2.0, "status_code": "denied", "status_detail": "no"}},
		{entries(broker.EventRequestFailed)[9], map[string]any{"type_uid": 600399.0, "activity_name": "request.failed", "disposition_id": 27.0}},
		{entries(broker.EventSessionRequested)[0], map[string]any{"type_uid": 600301.0, "status_id": 0.0, "api.operation": "AssumeRole", "api.service.name": "sts.amazonaws.com"}},
		{entries(broker.EventMFAVerified)[1], map[string]any{"type_uid": 300201.0, "is_mfa": true}},
		{entries(broker.EventSessionEnded)[0], map[string]any{"type_uid": 300202.0, "session.expiration_reason": "ticket 4711"}},
		{entries(broker.EventKeyRotated)[0], map[string]any{"type_uid": 300403.0, "entity.name": "alice", "entity.uid": "AKIAEXAMPLE"}},
		{entries(broker.EventDaemonStarted)[0], map[string]any{"type_uid": 600203.0, "app.name": "gatepass"}},
		{entries(broker.EventCredentialsServed)[12], map[string]any{"type_uid": 300301.0, "status_id": 0.0, "severity_id": 0.0, "action_id": 0.0, "disposition_id": 0.0, "unmapped.outcome": "of.tomorrow"}},
		{entries("of.tomorrow")[2], map[string]any{"type_uid": 99.0, "activity_name": "of.tomorrow"}},
	} {
		got := one(tt.entry)
		for path, want := range tt.want {
			if at(got, path) != want {
				t.Errorf("%s: %s is %v, want %v", tt.entry.Kind, path, at(got, path), want)
			}
		}
	}
}

func TestNoEntry(t *testing.T) {
	if got, err := Marshal(audit.Line{Raw: []byte(`{"seq":1}`)}, ""); err == nil {
		t.Errorf("got %s", got)
	}
}
