package audit

import (
	"cmp"
	"slices"
	"time"

	"gatepass/broker"
)

// A SessionStory is the life of one STS session: which key asked for which
// role, why, and who got it until it ended.
type SessionStory struct {
	ID      string              `json:"id"`
	Session broker.EventSession `json:"session"` // all that is known of it
	Profile string              `json:"profile,omitempty"`
	Account string              `json:"account,omitempty"`
	RoleARN string              `json:"role_arn,omitempty"`
	Key     *broker.EventKey    `json:"key,omitempty"`
	Lease   string              `json:"lease,omitempty"` // that it was made for

	Requested *Entry `json:"requested,omitempty"` // on disk before STS was asked
	Issued    *Entry `json:"issued,omitempty"`    // or renewed ahead, or a proof of MFA
	Failed    *Entry `json:"failed,omitempty"`    // STS said no
	Ended     *Entry `json:"ended,omitempty"`

	// Recipients are the processes that got it, in the order in which they
	// did first. Where there are several, what AWS records of the access key
	// is the doing of one of them, and the log cannot say of which.
	Recipients []Recipient `json:"recipients,omitempty"`
	Shared     bool        `json:"shared"` // several did
}

// A LeaseStory is the life of one lease.
type LeaseStory struct {
	ID         string      `json:"id"`
	Profile    string      `json:"profile,omitempty"`
	Started    *Entry      `json:"started,omitempty"`
	Ended      *Entry      `json:"ended,omitempty"`
	Released   *Entry      `json:"released,omitempty"`
	Recipients []Recipient `json:"recipients,omitempty"`
	Refused    int         `json:"refused,omitempty"`  // requests from inside it
	Refusals   []Entry     `json:"refusals,omitempty"` // the first of them
}

// maxRefusals is how many of a lease's refusals are kept.
const maxRefusals = 100

// A KeyStory is what became of a long-term key.
type KeyStory struct {
	Key      broker.EventKey `json:"key"`
	Changes  []Entry         `json:"changes,omitempty"` // it was added, rotated, moved, removed
	Sessions int             `json:"sessions"`          // that were issued from it
	First    time.Time       `json:"first,omitzero"`    // when
	Last     time.Time       `json:"last,omitzero"`
}

// A Recipient is a process that got credentials. Hand-outs to the same pid,
// program and lease are one recipient's.
type Recipient struct {
	Program   string           `json:"program,omitempty"`
	Process   broker.Process   `json:"process"` // see [broker.Caller.Asker]
	Ancestors []broker.Process `json:"ancestors,omitempty"`
	Resolved  bool             `json:"resolved"` // the ancestors are all there are
	User      string           `json:"user,omitempty"`
	Cwd       string           `json:"cwd,omitempty"`
	TTY       string           `json:"tty,omitempty"`
	Via       string           `json:"via,omitempty"`
	Lease     string           `json:"lease,omitempty"`
	Reasons   []string         `json:"reasons,omitempty"` // each once
	Handouts  int              `json:"handouts"`
	FirstSeq  int64            `json:"first_seq"`
	LastSeq   int64            `json:"last_seq"`
	First     time.Time        `json:"first"`
	Last      time.Time        `json:"last"`
}

// recipients gathers them.
type recipients struct {
	list  []Recipient
	known map[recipient]int
}

type recipient struct {
	pid            int
	program, lease string
}

// add counts a hand-out.
func (rs *recipients) add(e *Entry) {
	var c broker.Caller
	if e.Caller != nil {
		c = *e.Caller
	}
	p := c.Asker()
	is := recipient{p.PID, c.Program, e.Lease}
	i, ok := rs.known[is]
	if !ok {
		if rs.known == nil {
			rs.known = map[recipient]int{}
		}
		i = len(rs.list)
		rs.known[is] = i
		r := Recipient{Program: c.Program, Process: p, Resolved: c.Resolved, User: c.User, Cwd: c.Cwd, TTY: c.TTY, Via: c.Via,
			Lease: e.Lease, FirstSeq: e.Seq, First: e.Time}
		r.Ancestors = c.Ancestors
		if at := slices.IndexFunc(c.Ancestors, func(a broker.Process) bool { return a.PID == p.PID }); at >= 0 {
			r.Ancestors = c.Ancestors[at+1:]
		}
		rs.list = append(rs.list, r)
	}
	r := &rs.list[i]
	r.Handouts++
	if e.Seq < r.FirstSeq {
		r.FirstSeq, r.First = e.Seq, e.Time
	}
	if e.Seq >= r.LastSeq {
		r.LastSeq, r.Last = e.Seq, e.Time
	}
	if e.Reason != "" && !slices.Contains(r.Reasons, e.Reason) {
		r.Reasons = append(r.Reasons, e.Reason)
	}
}

// inOrder returns them by their first hand-outs.
func (rs *recipients) inOrder() []Recipient {
	slices.SortFunc(rs.list, func(a, b Recipient) int { return cmp.Compare(a.FirstSeq, b.FirstSeq) })
	return rs.list
}

type sessionTeller struct {
	SessionStory
	got recipients
}

// add takes an entry of the session, in any order.
func (s *sessionTeller) add(e *Entry) {
	fill(&s.Profile, e.Profile)
	fill(&s.Account, e.Account)
	fill(&s.RoleARN, e.RoleARN)
	if s.Key == nil {
		s.Key = e.Key
	}
	fill(&s.Session.ID, e.Session.ID)
	fill(&s.Session.AccessKeyID, e.Session.AccessKeyID)
	fill(&s.Session.Name, e.Session.Name)
	fill(&s.Session.SourceIdentity, e.Session.SourceIdentity)
	fill(&s.Session.STSRequestID, e.Session.STSRequestID)
	if s.Session.Expires.IsZero() {
		s.Session.Expires = e.Session.Expires
	}
	switch e.Kind {
	case broker.EventSessionRequested:
		s.Requested = e
		fill(&s.Lease, e.Lease)
	case broker.EventSessionIssued, broker.EventSessionRenewed, broker.EventMFAVerified:
		s.Issued = e
		fill(&s.Lease, e.Lease)
	case broker.EventSessionEnded:
		s.Ended = e
	case broker.EventRequestDenied, broker.EventRequestFailed:
		s.Failed = e
	case broker.EventCredentialsServed:
		s.got.add(e)
	}
}

func (s *sessionTeller) told() SessionStory {
	s.Recipients, s.Shared = s.got.inOrder(), len(s.got.list) > 1
	return s.SessionStory
}

type leaseTeller struct {
	LeaseStory
	got recipients
}

// add takes an entry of the lease.
func (l *leaseTeller) add(e *Entry) {
	switch e.Kind {
	case broker.EventLeaseStarted:
		l.Started = e
		fill(&l.Profile, e.Profile)
	case broker.EventLeaseEnded:
		l.Ended = e
		fill(&l.Profile, e.Profile)
	case broker.EventLeaseReleased:
		l.Released = e
	case broker.EventRequestDenied, broker.EventRequestFailed:
		if l.Refused++; l.Refused <= maxRefusals {
			l.Refusals = append(l.Refusals, *e)
		}
	case broker.EventCredentialsServed:
		l.got.add(e)
	}
}

func (l *leaseTeller) told() LeaseStory {
	l.Recipients = l.got.inOrder()
	return l.LeaseStory
}

// add takes the key's next entry.
func (k *KeyStory) add(e *Entry) {
	if e.Key != nil && e.Key.AccessKeyID == k.Key.AccessKeyID {
		fill(&k.Key.Name, e.Key.Name)
		fill(&k.Key.UserARN, e.Key.UserARN)
	}
	if e.Kind != broker.EventSessionIssued && e.Kind != broker.EventSessionRenewed {
		k.Changes = append(k.Changes, *e)
		return
	}
	if k.Sessions++; k.Sessions == 1 {
		k.First = e.Time
	}
	k.Last = e.Time
}

// fill sets what is not known yet.
func fill(s *string, value string) {
	if *s == "" {
		*s = value
	}
}
