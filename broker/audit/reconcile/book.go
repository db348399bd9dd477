package reconcile

import (
	"context"
	"slices"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// A Session is one that the broker asked STS for, as the log tells it.
type Session struct {
	ID          string    `json:"id"`
	AccessKeyID string    `json:"access_key_id,omitempty"` // "" when none came
	Name        string    `json:"name,omitempty"`
	Source      string    `json:"source_identity,omitempty"`
	Profile     string    `json:"profile,omitempty"`
	RoleARN     string    `json:"role_arn,omitempty"`
	Key         string    `json:"key,omitempty"`
	Lease       string    `json:"lease,omitempty"`
	Requested   time.Time `json:"requested,omitzero"`
	Issued      time.Time `json:"issued,omitzero"`
	Expires     time.Time `json:"expires,omitzero"`
	Outcome     string    `json:"outcome"` // issued, failed, or unknown

	keyID   string // of the long-term key
	base    bool   // of an MFA proof: chains start with it, and nobody gets it
	decided time.Time
	seen    bool      // the trail has an event of it
	minted  time.Time // of the trail's event that made it; zero where it has none
	got     []*Process
	more    bool // got is not all

	// How far this machine's clock was ahead of AWS's, at least and at most.
	ahead, atMost time.Duration
}

// The outcomes of a session's request.
const (
	outcomeIssued  = "issued"
	outcomeFailed  = "failed"
	outcomeUnknown = "unknown"
)

// A Process is who was handed a session, in short: "gatepass audit trace" tells
// all of it.
type Process struct {
	Program  string    `json:"program,omitempty"`
	PID      int       `json:"pid,omitempty"`
	Command  string    `json:"command,omitempty"`
	Via      string    `json:"via,omitempty"`
	Lease    string    `json:"lease,omitempty"`
	Profile  string    `json:"profile,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	First    time.Time `json:"first"` // hand-out
	Last     time.Time `json:"last"`
	Handouts int64     `json:"handouts"`
	Seq      int64     `json:"seq"` // the entry of the first
}

const (
	// clockSlack is how far this machine's clock may be from AWS's where
	// nothing tells better: AWS refuses signatures that are 5 minutes off.
	clockSlack = 5 * time.Minute
	// callSlack is how long after session.requested STS may still be called:
	// each call has 15 s, and a refused MFA code is asked for again.
	callSlack = 5 * time.Minute
	// mostRecipients bounds what is kept of one session, mostCandidates what a
	// finding has of them.
	mostRecipients = 4096
	mostCandidates = 16
)

// A keyChange is an entry about a long-term key, by which calls of IAM with it
// are explained.
type keyChange struct {
	at          time.Time
	kind        broker.EventKind
	keyID, user string
	reason      string
}

// A book is what the log knows that a trail can be held against.
type book struct {
	opts audit.Query // how far the log is read

	keys    map[string]string // access key ids of long-term keys: the name they are stored by
	users   map[string]bool   // ARNs
	roles   map[string]bool   // ARNs
	changes []keyChange
	ended   map[string]time.Time // leases

	byID      map[string]*Session
	byKey     map[string][]*Session // by the session's access key id: several where an MFA proof is served as it is
	byName    map[string][]*Session // in the order of the log
	bySource  map[string][]*Session // by source identity: those that STS gave
	byRequest map[string]*Session   // by STS's request id
	asked     map[string][]*Session // by the long-term key's id, in the order of the log

	// What is known of the clocks where a session tells nothing better, as in
	// Session.
	ahead, atMost time.Duration
}

// readBook reads all but hand-outs.
func readBook(ctx context.Context, dir string, bounds audit.Query) (*book, error) {
	b := &book{
		opts: bounds, keys: map[string]string{}, users: map[string]bool{}, roles: map[string]bool{}, ended: map[string]time.Time{},
		byID: map[string]*Session{}, byKey: map[string][]*Session{}, byName: map[string][]*Session{}, bySource: map[string][]*Session{}, byRequest: map[string]*Session{}, asked: map[string][]*Session{},
		ahead: -clockSlack, atMost: clockSlack,
	}
	q := bounds
	q.Decode = true
	for _, kind := range []broker.EventKind{
		broker.EventSessionRequested, broker.EventSessionIssued, broker.EventSessionRenewed, broker.EventMFAVerified, broker.EventRequestDenied,
		broker.EventRequestFailed, broker.EventKeyAdded, broker.EventKeyRotating, broker.EventKeyRotated, broker.EventKeyRemoved, broker.EventKeyMoved, broker.EventLeaseEnded,
	} {
		q.Event = append(q.Event, string(kind))
	}
	err := b.entriesOf(ctx, dir, q, func(line audit.Line) error {
		e, err := line.Entry()
		if err == nil {
			b.add(&e)
		}
		return err
	})
	for _, all := range b.asked { // a clock may have been set back
		slices.SortStableFunc(all, func(x, y *Session) int { return x.Requested.Compare(y.Requested) })
	}
	return b, err
}

// entriesOf calls f with each entry. One that cannot be read may be the one
// that explains, so it is an error.
func (b *book) entriesOf(ctx context.Context, dir string, q audit.Query, f func(audit.Line) error) error {
	for line, err := range audit.Entries(ctx, dir, q) {
		if err == nil {
			err = f(line)
		}
		if err != nil && line.Raw != nil {
			return broker.Errorf(broker.CodeData, "entry %d of the audit log cannot be read: %w", line.Seq, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *book) add(e *audit.Entry) {
	if e.Key != nil && e.Key.AccessKeyID != "" {
		b.keys[e.Key.AccessKeyID] = e.Key.Name
		if e.Key.UserARN != "" {
			b.users[e.Key.UserARN] = true
		}
	}
	switch e.Kind {
	case broker.EventLeaseEnded:
		if _, known := b.ended[e.Lease]; !known {
			b.ended[e.Lease] = e.Time
		}
		return
	case broker.EventKeyAdded, broker.EventKeyRotating, broker.EventKeyRotated, broker.EventKeyRemoved, broker.EventKeyMoved:
		if e.Key != nil {
			b.changes = append(b.changes, keyChange{e.Time, e.Kind, e.Key.AccessKeyID, e.Key.UserARN, e.Reason})
		}
		return
	}
	if e.Session == nil || e.Session.ID == "" {
		return
	}
	if e.RoleARN != "" {
		b.roles[e.RoleARN] = true
	}
	s := b.byID[e.Session.ID]
	if s == nil {
		s = &Session{ID: e.Session.ID, Outcome: outcomeUnknown, Requested: e.Time, ahead: -clockSlack, atMost: clockSlack}
		b.byID[s.ID] = s
		if e.Key != nil {
			s.Key, s.keyID = e.Key.Name, e.Key.AccessKeyID
			b.asked[s.keyID] = append(b.asked[s.keyID], s)
		}
	}
	s.Profile, s.Lease = e.Profile, e.Lease
	if e.Session.Name != "" && s.Name == "" {
		s.Name = e.Session.Name
		b.byName[s.Name] = append(b.byName[s.Name], s)
	}
	if e.RoleARN != "" {
		s.RoleARN = e.RoleARN
	}
	switch e.Kind {
	case broker.EventRequestDenied, broker.EventRequestFailed:
		if s.Outcome == outcomeUnknown {
			s.Outcome, s.decided = outcomeFailed, e.Time
		}
	case broker.EventSessionIssued, broker.EventSessionRenewed, broker.EventMFAVerified:
		s.Outcome, s.decided, s.Issued, s.Expires = outcomeIssued, e.Time, e.Time, e.Session.Expires
		s.AccessKeyID = e.Session.AccessKeyID
		if e.Kind == broker.EventMFAVerified {
			s.base, s.RoleARN = true, ""
		}
		b.byKey[s.AccessKeyID] = append(b.byKey[s.AccessKeyID], s)
		if s.Source = e.Session.SourceIdentity; s.Source != "" {
			b.bySource[s.Source] = append(b.bySource[s.Source], s)
		}
		if e.Session.STSRequestID != "" && b.byRequest[e.Session.STSRequestID] == nil {
			b.byRequest[e.Session.STSRequestID] = s
		}
	}
}

// readRecipients reads who got the sessions that the trail has seen.
func (b *book) readRecipients(ctx context.Context, dir string) error {
	q := b.opts
	q.Event = []string{string(broker.EventCredentialsServed)}
	type who struct {
		pid                             int
		program, lease, profile, reason string
	}
	known := map[*Session]map[who]*Process{}
	return b.entriesOf(ctx, dir, q, func(line audit.Line) error {
		s := b.byID[line.Field("id")]
		if s == nil || !s.seen {
			return nil
		}
		e, err := line.Entry()
		if err != nil {
			return err
		}
		if e.Session == nil || e.Session.ID != s.ID {
			return nil
		}
		p := processOf(&e)
		key := who{p.PID, p.Program, p.Lease, p.Profile, p.Reason}
		if before := known[s][key]; before != nil {
			before.Last = e.Time
			before.Handouts++
			return nil
		}
		if len(s.got) == mostRecipients {
			s.more = true
			return nil
		}
		if known[s] == nil {
			known[s] = map[who]*Process{}
		}
		known[s][key] = p
		s.got = append(s.got, p)
		return nil
	})
}

// processOf is the process that an entry names.
func processOf(e *audit.Entry) *Process {
	p := &Process{Lease: e.Lease, Profile: e.Profile, Reason: e.Reason, First: e.Time, Last: e.Time, Handouts: 1, Seq: e.Seq}
	if e.Caller != nil {
		asker := e.Caller.Asker()
		p.Program, p.PID, p.Command, p.Via = e.Caller.Program, asker.PID, asker.Command, e.Caller.Via
	}
	return p
}

// inLog returns between which times of the log's clock an event of the second
// at was.
func (s *Session) inLog(at time.Time) (from, to time.Time) {
	return at.Add(s.ahead), at.Add(time.Second + s.atMost)
}

// learnClock narrows how far the clocks are apart, by the event that made the
// session: STS answered between two entries.
func (s *Session) learnClock(e *Event) {
	const margin = time.Second // STS may stamp before or after it works
	s.minted = e.Time
	s.ahead = max(-clockSlack, s.Requested.Sub(e.Time.Add(time.Second))-margin)
	s.atMost = min(clockSlack, s.Issued.Sub(e.Time)+margin)
	if s.ahead > s.atMost {
		s.ahead, s.atMost = -clockSlack, clockSlack
	}
}

// setClocks gives to the sessions whose making the trail does not tell what all
// others say of the clocks.
func (b *book) setClocks() {
	known := false
	for _, s := range b.byID {
		switch {
		case s.minted.IsZero():
		case !known:
			known, b.ahead, b.atMost = true, s.ahead, s.atMost
		default:
			b.ahead, b.atMost = min(b.ahead, s.ahead), max(b.atMost, s.atMost)
		}
	}
	for _, s := range b.byID {
		if s.minted.IsZero() {
			s.ahead, s.atMost = b.ahead, b.atMost
		}
	}
}

// asking reports whether the broker was asking for s at a time of AWS's.
func (s *Session) asking(at time.Time) bool {
	until := s.decided
	if until.IsZero() {
		until = s.Requested.Add(callSlack)
	}
	from, to := s.inLog(at)
	return !to.Before(s.Requested) && !from.After(until)
}

// namedRequest returns the session that e, a call of STS, was made for, as the
// name says that it asks for. keyID is the long-term key's, "" for any. What
// calls itself another program is not the broker.
func (b *book) namedRequest(e *Event, keyID string) *Session {
	if agentFamily(e.Agent) != "" {
		return nil
	}
	for _, s := range b.byName[e.SessionName] {
		if (keyID == "" || s.keyID == keyID) && s.asking(e.Time) {
			return s
		}
	}
	return nil
}

// timelyRequest returns a session that the broker was asking for with the key
// when e was, and that e may have been for: the log does not tell the names of
// sessions on the way to a role, and those of users have none.
func (b *book) timelyRequest(e *Event, keyID string) *Session {
	all := b.asked[keyID]
	at, _ := slices.BinarySearchFunc(all, e.Time.Add(b.ahead-2*callSlack), func(s *Session, t time.Time) int { return s.Requested.Compare(t) })
	for _, s := range all[at:] {
		if s.Requested.After(e.Time.Add(clockSlack)) {
			break
		}
		other := s.Name != "" && s.RoleARN != e.Role
		if s.asking(e.Time) && (other && e.Name == "AssumeRole" || s.Name == "" && e.Name == "GetSessionToken") {
			return s
		}
	}
	return nil
}

// changeOf returns the entry about a change of keys that e, a call of IAM or
// STS of the user, belongs to.
func (b *book) changeOf(e *Event, kinds ...broker.EventKind) *keyChange {
	for i := range b.changes {
		c := &b.changes[i]
		if slices.Contains(kinds, c.kind) && (c.user == e.Identity.ARN || c.keyID == e.Identity.AccessKeyID) &&
			!e.Time.Add(time.Second+b.atMost).Before(c.at) && !e.Time.Add(b.ahead).After(c.at.Add(callSlack)) {
			return c
		}
	}
	return nil
}
