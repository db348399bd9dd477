package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/audit/reconcile"
	"gatepass/broker/audit/reconcile/trailtest"
)

const (
	alice     = "arn:aws:iam::111122223333:user/alice"
	aliceKey  = "AKIAEXAMPLEALICE0001"
	mallory   = "arn:aws:iam::111122223333:user/mallory"
	deploy    = "arn:aws:iam::111122223333:role/Deploy"
	auditRole = "arn:aws:iam::444455556666:role/Audit"
)

// A world is a laptop whose log is written, and AWS whose trail is. Their
// clocks differ: AWS's is ahead.
type world struct {
	t     testing.TB
	dir   string
	log   *audit.Log
	now   time.Time
	skew  time.Duration
	trail *trailtest.Trail
	n     int
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "audit"), now: time.Date(2026, 11, 3, 9, 0, 0, 0, time.UTC), skew: 42 * time.Second, trail: trailtest.New(1)}
	var err error
	if w.log, err = audit.Open(t.Context(), audit.Options{Dir: w.dir, Now: func() time.Time { return w.now }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.log.Close(context.Background()) })
	return w
}

// pass lets time pass for both.
func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

// aws is AWS's time.
func (w *world) aws() time.Time { return w.now.Add(w.skew) }

func (w *world) record(e broker.Event) {
	w.t.Helper()
	if e.Outcome == "" {
		e.Outcome = broker.OutcomeOK
	}
	if err := w.log.Append(w.t.Context(), e, false); err != nil {
		w.t.Fatal(err)
	}
	w.pass(100 * time.Millisecond)
}

// A session is one that the laptop's broker gets.
type session struct {
	broker.EventSession
	profile, role, lease string
	created              time.Time // AWS's
}

func (s *session) arn() string {
	if s.role == "" {
		return alice
	}
	parts := s.role[len("arn:aws:iam::"):]
	return "arn:aws:sts::" + parts[:12] + ":assumed-role/" + filepath.Base(s.role) + "/" + s.Name
}

func (w *world) event(kind broker.EventKind, s *session) broker.Event {
	return broker.Event{Kind: kind, Profile: s.profile, RoleARN: s.role, Lease: s.lease, Session: &s.EventSession,
		Key: &broker.EventKey{Name: "alice", AccessKeyID: aliceKey, UserARN: alice}}
}

// request announces a session of role.
func (w *world) request(profile, role, lease string) *session {
	s := w.newSession(profile, role, lease)
	if role != "" {
		s.Name = "alice-s" + s.ID[2:]
	}
	w.record(w.event(broker.EventSessionRequested, s))
	return s
}

// requestProof announces that an MFA code is given for a session that role is
// then assumed with.
func (w *world) requestProof(profile, role string) *session {
	s := w.newSession(profile, role, "")
	w.record(w.event(broker.EventSessionRequested, s))
	s.role = ""
	return s
}

func (w *world) newSession(profile, role, lease string) *session {
	w.n++
	s := &session{profile: profile, role: role, lease: lease}
	s.ID = fmt.Sprintf("s-%010d", w.n)
	return s
}

func (w *world) call(c trailtest.Call) trailtest.Call {
	w.n++
	c.Time, c.RequestID, c.Status, c.DurationSeconds = w.aws(), fmt.Sprintf("00000000-0000-4000-8000-%012d", w.n), 200, 3600
	if c.Principal == "" {
		c.Principal, c.AccessKeyID = alice, aliceKey
	}
	if c.Code == "" {
		switch c.Action {
		case "AssumeRole", "GetSessionToken":
			c.IssuedKeyID = fmt.Sprintf("ASIAEXAMPLE%09d", w.n)
		}
	} else {
		c.Status = 403
	}
	w.trail.Call(c)
	return c
}

// mint has the broker get a session of role.
func (w *world) mint(profile, role, lease string) *session {
	s := w.request(profile, role, lease)
	action := "AssumeRole"
	if role == "" {
		action = "GetSessionToken"
	}
	w.answered(s, w.call(trailtest.Call{Action: action, RoleARN: role, SessionName: s.Name}), broker.EventSessionIssued)
	return s
}

func (w *world) answered(s *session, c trailtest.Call, kind broker.EventKind) {
	s.AccessKeyID, s.STSRequestID, s.Expires, s.created = c.IssuedKeyID, c.RequestID, w.now.Add(time.Hour), c.Time
	w.pass(200 * time.Millisecond)
	w.record(w.event(kind, s))
}

// serve hands s to a process.
func (w *world) serve(s *session, program string, pid int, reason string) {
	e := w.event(broker.EventCredentialsServed, s)
	e.Reason = reason
	e.Caller = &broker.Caller{PID: pid + 1, Program: program, Exe: "/usr/local/bin/gatepass", Command: "gatepass credential-process " + s.profile,
		Via: "credential-process", Resolved: true, Ancestors: []broker.Process{{PID: pid, Exe: program, Command: filepath.Base(program) + " --profile " + s.profile}}}
	w.record(e)
}

// whoami has the broker use s itself.
func (w *world) whoami(s *session) {
	e := w.event(broker.EventCredentialsServed, s)
	e.Caller = &broker.Caller{PID: 9000, Program: "/usr/bin/zsh", Exe: "/usr/local/bin/gatepass", Command: "gatepass whoami", Via: "whoami", Resolved: true}
	w.record(e)
}

// use calls AWS with s.
func (w *world) use(s *session, call string, change ...func(*trailtest.Use)) {
	u := trailtest.Use{Time: w.aws(), Call: call, Principal: s.arn(), AccessKeyID: s.AccessKeyID, Created: s.created}
	for _, c := range change {
		c(&u)
	}
	w.trail.Use(u)
	w.pass(time.Second)
}

// A result is what a run finds.
type result struct {
	reconcile.Summary
	found []reconcile.Finding
}

// reconcile holds the log against the trail as it is delivered.
func (w *world) reconcile(change ...func(*reconcile.Options)) result {
	w.t.Helper()
	if err := w.log.Close(context.Background()); err != nil && !errors.Is(err, context.Canceled) {
		w.t.Fatal(err)
	}
	dir := filepath.Join(w.t.TempDir(), "bucket")
	if err := w.trail.Write(dir); err != nil {
		w.t.Fatal(err)
	}
	opts := reconcile.Options{LogDir: w.dir, Files: []string{dir}}
	for _, c := range change {
		c(&opts)
	}
	var r result
	var err error
	r.Summary, err = reconcile.Run(w.t.Context(), opts, func(f reconcile.Finding) error { r.found = append(r.found, f); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// want compares what was found with how many of each kind are wanted.
func (r result) want(t *testing.T, want map[reconcile.Kind]int64) {
	t.Helper()
	if !maps.Equal(r.Kinds, want) {
		t.Errorf("found %v, want %v", r.Kinds, want)
		for _, f := range r.found {
			t.Logf("%s %s %s by %s from %s: %s", f.Kind, f.Event.Time.Format(time.TimeOnly), f.Event.Call(), f.Event.Identity.AccessKeyID, f.Event.Address, f.Why)
		}
	}
}

// the returns the findings of a kind.
func (r result) the(k reconcile.Kind) []reconcile.Finding {
	return slices.DeleteFunc(slices.Clone(r.found), func(f reconcile.Finding) bool { return f.Kind != k })
}

// day is an ordinary one: a key is stored, sessions are got, shared, renewed and
// refused, a lease begins and ends.
func day(w *world) (shared, own *session) {
	w.call(trailtest.Call{Action: "GetCallerIdentity"})
	w.record(broker.Event{Kind: broker.EventKeyAdded, Key: &broker.EventKey{Name: "alice", AccessKeyID: aliceKey, UserARN: alice}})
	w.call(trailtest.Call{Action: "ListAccessKeys"})
	w.pass(time.Hour)

	shared = w.mint("deploy", deploy, "")
	w.serve(shared, "/usr/bin/terraform", 4000, "ticket 4711")
	w.use(shared, "ec2:DescribeInstances")
	w.pass(time.Minute)
	w.serve(shared, "/usr/bin/aws", 5000, "")
	w.use(shared, "s3:GetObject")

	own = w.mint("deploy", deploy, "l-0000000001")
	w.record(broker.Event{Kind: broker.EventLeaseStarted, Profile: "deploy", Lease: "l-0000000001"})
	w.serve(own, "/usr/bin/python3", 6000, "nightly")
	w.use(own, "s3:ListObjects")
	w.use(own, "cloudformation:CreateStack")
	w.use(own, "ec2:RunInstances", func(u *trailtest.Use) {
		u.InvokedBy, u.AccessKeyID = "cloudformation.amazonaws.com", "ASIAEXAMPLEFORWARDED"
	})
	w.pass(10 * time.Minute)
	w.record(broker.Event{Kind: broker.EventLeaseEnded, Profile: "deploy", Lease: "l-0000000001", Reason: "exit status 0"})

	// A refusal, of AWS's.
	refused := w.request("admin", "arn:aws:iam::111122223333:role/Admin", "")
	w.call(trailtest.Call{Action: "AssumeRole", RoleARN: refused.role, SessionName: refused.Name, Code: "AccessDenied"})
	denied := w.event(broker.EventRequestDenied, refused)
	denied.Outcome, denied.Error = broker.OutcomeDenied, &broker.EventError{Code: broker.CodeAWSDenied, Message: "assume role: AWS refused"}
	w.record(denied)

	// Somebody else, and AWS itself.
	w.trail.Use(trailtest.Use{Time: w.aws(), Call: "iam:ListUsers", Principal: mallory, AccessKeyID: "AKIAEXAMPLEMALLORY01", Address: "192.0.2.99"})
	w.call(trailtest.Call{Action: "AssumeRole", Principal: mallory, AccessKeyID: "AKIAEXAMPLEMALLORY01", RoleARN: deploy, SessionName: "mallory"})
	w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:GetObject", Principal: "arn:aws:sts::111122223333:assumed-role/Deploy/mallory",
		AccessKeyID: fmt.Sprintf("ASIAEXAMPLE%09d", w.n), Address: "192.0.2.99"})
	return shared, own
}

// theDay is what of day is explained, and how.
func theDay() map[reconcile.Kind]int64 {
	return map[reconcile.Kind]int64{
		reconcile.KindBroker:     5, // GetCallerIdentity, ListAccessKeys, two sessions, a refusal
		reconcile.KindProcess:    4, // terraform's first, three of the lease
		reconcile.KindCandidates: 1,
	}
}
