package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"gatepass/broker"
)

// A Kind says what an event was found to be.
type Kind string

// The kinds that explain an event.
const (
	KindProcess    Kind = "process"    // of the one process that had the session
	KindCandidates Kind = "candidates" // of one of those that had it
	KindBroker     Kind = "broker"     // the broker's own call
	KindUnanswered Kind = "unanswered" // made a session that the broker asked for, whose answer it never had
	KindForeign    Kind = "foreign"    // of another principal
)

// The kinds that do not.
const (
	KindUnissued Kind = "unissued"  // a session of our key that the broker did not ask for, or its use
	KindDirect   Kind = "direct"    // a use of a long-term key that is not the broker's
	KindOtherKey Kind = "other-key" // a key of our user that the log does not know
	KindUntraced Kind = "untraced"  // a session of our role or user of which neither log nor trail tells the beginning
	KindUnserved Kind = "unserved"  // a session of the broker's that nobody had been handed by then
	KindEnded    Kind = "ended"     // a session whose leases had all ended
	KindAddress  Kind = "address"   // from where this laptop's other events do not come
	KindAgent    Kind = "agent"     // by a user agent that this laptop's other events do not have
)

// Explained reports whether k explains an event.
func (k Kind) Explained() bool {
	return slices.Contains([]Kind{KindProcess, KindCandidates, KindBroker, KindUnanswered, KindForeign}, k)
}

// A Finding is what is known of one event.
type Finding struct {
	Event    *Event     `json:"event"`
	Kind     Kind       `json:"kind"`
	Explains bool       `json:"explained"`
	Why      string     `json:"why"`
	Session  *Session   `json:"session,omitempty"`
	By       []*Process `json:"by,omitempty"`   // who can have made the call; several are candidates
	More     bool       `json:"more,omitempty"` // By is not all of them, but those who had the session last before
	// Past is who had the session, and cannot have made the call any more or
	// not yet.
	Past []*Process `json:"past,omitempty"`
}

// judge says what an event is.
func (f *facts) judge(e *Event) Finding {
	v := f.attribute(e)
	v.Event, v.Explains = e, v.Kind.Explained()
	return v
}

func (f *facts) attribute(e *Event) Finding {
	if s := f.proven(e); s != nil {
		return Finding{Kind: KindBroker, Why: "the broker got session " + s.ID, Session: s}
	}
	if key := e.Identity.AccessKeyID; key != "" {
		if _, ours := f.keys[key]; ours {
			return f.direct(e, key)
		}
		if all := f.byKey[key]; len(all) > 0 {
			return f.ofSession(e, all, "")
		}
		if i := f.issues[key]; i != nil {
			return f.descendant(e, key, i)
		}
	}
	if v, ok := f.byTheName(e); ok {
		return v
	}
	return f.stranger(e)
}

// direct judges a call that was signed with the long-term key keyID, or with
// the session of its MFA proof, which the broker keeps to itself.
func (f *facts) direct(e *Event, keyID string) Finding {
	if e.mints() {
		return f.mint(e, keyID)
	}
	why, known := f.housekeeping(e)
	if known {
		return Finding{Kind: KindBroker, Why: why}
	}
	return Finding{Kind: KindDirect, Why: "signed with " + f.keyName(e) + ", which the broker uses " + why}
}

// mint judges a call that makes a session, signed as for direct; keyID "" is a
// session on the broker's way through a chain.
func (f *facts) mint(e *Event, keyID string) Finding {
	if s := f.proven(e); s != nil {
		return Finding{Kind: KindBroker, Why: "the broker got session " + s.ID, Session: s}
	}
	if i := f.issues[e.Issued]; i != nil && e.Issued != "" && i.hop {
		return Finding{Kind: KindBroker, Why: "the broker's way to a role behind this one"}
	}
	s := f.namedRequest(e, keyID)
	if s == nil && e.byBroker() && f.near(e) {
		s = f.timelyRequest(e, keyID)
	}
	if s != nil && e.ErrorCode == "" && !s.minted.IsZero() && (e.Time.After(s.minted) || !e.byBroker() || !f.near(e)) {
		s = nil // it has what it asked for; only a first try, whose answer was lost, can be beside it
	}
	switch {
	case s != nil && e.ErrorCode != "":
		return Finding{Kind: KindBroker, Why: "the broker asked for session " + s.ID + " and AWS refused it", Session: s}
	case s != nil:
		return Finding{Kind: KindUnanswered, Why: "the broker asked for session " + s.ID + ", and what this call made never reached it", Session: s}
	case e.ErrorCode != "":
		return Finding{Kind: KindUnissued, Why: "a session was asked for with " + f.keyName(e) + ", not by the broker; AWS refused it"}
	}
	return Finding{Kind: KindUnissued, Why: "a session was made with " + f.keyName(e) + " that the broker never asked for"}
}

// housekeeping reports whether e is one of the calls that the broker makes with
// a key beside those that make sessions, and why, or what those are.
func (f *facts) housekeeping(e *Event) (why string, known bool) {
	switch e.Call() {
	case "iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey":
		if c := f.changeOf(e, broker.EventKeyRotating); c != nil && e.byBroker() && f.near(e) {
			return "the broker rotated the key: " + c.reason, true
		}
		return "for this only to rotate it, which it did not do then", false
	case "sts:GetCallerIdentity", "iam:ListAccessKeys", "iam:GetAccessKeyLastUsed", "iam:ListGroupsForUser", "iam:ListMFADevices":
		if !e.byBroker() {
			return "for this under its own name alone, and the user agent is " + quoted(e.Agent), false
		}
		if f.near(e) {
			return "as the broker calls without an entry of its own", true
		}
		if c := f.changeOf(e, broker.EventKeyAdded, broker.EventKeyRotating, broker.EventKeyRotated); c != nil && len(f.addresses) == 0 {
			return "as the broker calls for " + string(c.kind), true
		}
		return "for this from where it calls STS, and this call came from " + e.Address, false
	}
	return "to make sessions, to rotate it and to look up its user", false
}

// near reports whether e comes from where the broker's proven calls come.
func (f *facts) near(e *Event) bool { return e.Address != "" && f.known(network(e.Address)) }

// descendant judges a call with a session that the log does not know and whose
// beginning the trail shows.
func (f *facts) descendant(e *Event, key string, i *issue) Finding {
	for range 64 { // more are a circle
		parents := f.byKey[i.parent]
		switch _, ours := f.keys[i.parent]; {
		case i.hop && e.mints() && f.onTheWay(e):
			return f.mint(e, "")
		case i.hop:
			return Finding{Kind: KindUnserved, Why: "used a session that the broker had on its way to another role, and handed to nobody"}
		case i.made != nil && (ours || len(parents) == 0 && f.isUser(i.made) || kept(parents)):
			return f.ofMinted(e, i)
		case len(parents) > 0:
			return f.ofSession(e, parents, "through a session that was made with it; ")
		case f.issues[i.parent] == nil && i.made != nil && !f.attribute(i.made).Kind.Explained():
			return Finding{Kind: KindUnissued, Why: "used a session that event " + i.made.ID + " made, which is not explained"}
		case f.issues[i.parent] == nil:
			return Finding{Kind: KindForeign, Why: "another principal made the session"}
		}
		i = f.issues[i.parent]
	}
	return Finding{Kind: KindForeign, Why: "the sessions of this trail are made with one another"}
}

// ofMinted judges a call with a session that was made with a long-term key of
// ours, and that the broker did not get.
func (f *facts) ofMinted(e *Event, i *issue) Finding {
	v := f.mint(i.made, f.longTerm(i.made))
	again := e.mints() && agentFamily(e.Agent) == ""
	switch s := v.Session; {
	case !v.Kind.Explained():
		return Finding{Kind: KindUnissued, Why: fmt.Sprintf("used a session that the broker never asked for; event %s made it with %s", i.made.ID, f.keyName(i.made))}
	case s != nil && again && e.SessionName == s.Name && e.ErrorCode != "":
		return Finding{Kind: KindBroker, Session: s, Why: "the broker asked for session " + s.ID + " and AWS refused it"}
	case s != nil && again && e.SessionName == s.Name:
		return Finding{Kind: KindUnanswered, Session: s, Why: "the broker asked for session " + s.ID + ", and what this call made never reached it"}
	default:
		return Finding{Kind: KindUnserved, Session: s, Why: "used a session that was made for the broker, which never had it to hand out"}
	}
}

// kept reports whether sessions are an MFA proof's that nobody was handed.
func kept(sessions []*Session) bool {
	return len(sessions) > 0 && !slices.ContainsFunc(sessions, func(s *Session) bool { return !s.base || len(s.got) > 0 })
}

// longTerm returns the id of the long-term key behind e, a call with it or with
// the session of its MFA proof.
func (f *facts) longTerm(e *Event) string {
	key := e.Identity.AccessKeyID
	if all := f.byKey[key]; len(all) > 0 {
		return all[0].keyID
	}
	if _, ours := f.keys[key]; ours {
		return key
	}
	return cmp.Or(f.principals[e.Identity.PrincipalID], key)
}

// onTheWay reports whether e goes on with a chain that the broker followed.
func (f *facts) onTheWay(e *Event) bool {
	i := f.issues[e.Issued]
	return e.Issued != "" && i != nil && i.hop || f.namedRequest(e, "") != nil
}

// byTheName judges a call with a session that is known by its name alone: the
// trail leaves access keys out at times, and AWS services and the console work
// with others of their own.
func (f *facts) byTheName(e *Event) (Finding, bool) {
	name := e.Identity.sessionName()
	if name == "" {
		return Finding{}, false
	}
	var named, live []*Session
	for _, s := range f.byName[name] {
		if s.RoleARN == "" || !e.Identity.isOf(s.RoleARN) {
			continue
		}
		named = append(named, s)
		if s.Outcome == outcomeIssued && s.liveFor(e) {
			live = append(live, s)
		}
	}
	switch key := e.Identity.AccessKeyID; {
	case len(named) == 0:
		return Finding{}, false
	case len(live) > 0 && (key == "" || e.internal() || e.Identity.Console):
		return f.ofSession(e, live, "by the session's name; "), true
	case key == "" || e.internal() || e.Identity.Console:
		return Finding{Kind: KindUntraced, Session: named[0], Why: "a session has the name " + name + " at a time when the broker's of that name was none"}, true
	}
	return Finding{Kind: KindUnissued, Session: named[0], Why: "a session has the name of " + named[0].ID + " and an access key that the broker never got"}, true
}

// liveFor reports whether e, whose session has s's name, can be of s by its
// time.
func (s *Session) liveFor(e *Event) bool {
	from, to := s.inLog(e.Time)
	until := s.Expires
	if e.internal() || e.Identity.Console {
		until = s.Issued.Add(12 * time.Hour) // an AWS service ends what it began, and the console has sessions of its own
	}
	if to.Before(s.Requested) || from.After(until) {
		return false
	}
	made := e.Identity.Created
	return made.IsZero() || s.asking(made) || e.Identity.Console && !made.Add(s.ahead).Before(s.Issued)
}

// stranger judges a call of which neither key nor session is known.
func (f *facts) stranger(e *Event) Finding {
	id := &e.Identity
	console := id.Console || e.Source == "signin.amazonaws.com"
	switch {
	case id.Type == "AWSAccount" && f.principals[id.PrincipalID] != "":
		return f.direct(e, f.principals[id.PrincipalID])
	case id.Type == "FederatedUser" && f.users[id.RoleARN]: // who issued it
		return Finding{Kind: KindUntraced, Why: "a session that " + id.RoleARN + " gave to " + id.ARN + ", whose beginning neither the log nor these files tell"}
	case id.Type == "AWSService", console && f.isUser(e):
		return Finding{Kind: KindForeign, Why: "not by a key of the broker's"}
	case f.isUser(e) && strings.HasPrefix(id.AccessKeyID, "AKIA"):
		return Finding{Kind: KindOtherKey, Why: fmt.Sprintf("%s has the key %s, which the log does not know", id.ARN, id.AccessKeyID)}
	case f.isUser(e) && id.AccessKeyID != "":
		return Finding{Kind: KindUntraced, Why: "a session of " + id.ARN + " whose beginning neither the log nor these files tell"}
	case f.isUser(e):
		return Finding{Kind: KindForeign, Why: "by no access key"}
	case id.Type == "AssumedRole" && f.ofOurRole(id):
		return Finding{Kind: KindUntraced, Why: "a session of a role that the broker serves, whose beginning neither the log nor these files tell"}
	case len(f.bySource[id.SourceIdentity]) > 0:
		return f.ofSource(e)
	}
	return Finding{Kind: KindForeign, Why: "another principal"}
}

// ofSource judges a call with a session of another role that bears the source
// identity of the broker's: a role keeps that of the session that assumed it,
// and these files do not tell which it was.
func (f *facts) ofSource(e *Event) Finding {
	var live []*Session
	for _, s := range f.bySource[e.Identity.SourceIdentity] {
		if s.mayHaveMade(e) {
			live = append(live, s)
		}
	}
	if len(live) == 0 {
		return Finding{Kind: KindUntraced, Why: "a session has the source identity " + e.Identity.SourceIdentity + ", and was made when none of the broker's of that identity was there"}
	}
	return f.ofSession(e, live, "by the source identity that it was given by a session of the broker's; ")
}

// mayHaveMade reports whether s was there when the session that signed e was
// made; where e does not tell when that was, when it was used.
func (s *Session) mayHaveMade(e *Event) bool {
	made := e.Identity.Created
	if made.IsZero() {
		made = e.Time
	}
	from, to := s.inLog(made)
	return !to.Before(s.Issued) && !from.After(s.Expires)
}

func (f *facts) ofOurRole(id *Identity) bool {
	if id.RoleARN != "" {
		return f.roles[id.RoleARN]
	}
	for role := range f.roles {
		if id.isOf(role) {
			return true
		}
	}
	return false
}

// ofSession judges a call with a session of the broker's, or with one of
// several. how begins the reason.
func (f *facts) ofSession(e *Event, sessions []*Session, how string) Finding {
	v := Finding{Session: sessions[0]}
	early := false
	for _, s := range sessions {
		if len(s.got) > 0 && len(v.By) == 0 {
			v.Session = s
		}
		from, to := s.inLog(e.Time)
		v.More = v.More || s.more
		for _, p := range s.got {
			// What whoami asks for stays in the daemon, which alone uses it then.
			if (p.Via == "whoami") != (e.byBroker() && f.near(e)) {
				continue
			}
			end, over := f.ended[p.Lease]
			switch {
			case p.First.After(to):
				early = true
				v.Past = append(v.Past, p)
			case over && p.Lease != "" && end.Before(from) && !e.internal(): // a stack goes on being made
				v.Past = append(v.Past, p)
			default:
				v.By = append(v.By, p)
			}
		}
	}
	s := v.Session
	v.By = narrow(v.By, e)
	if s.RoleARN == "" && e.byBroker() { // of an MFA proof that is also served
		if why, known := f.housekeeping(e); known {
			return Finding{Kind: KindBroker, Why: why, Session: s}
		}
	}
	switch {
	case kept(sessions):
		return f.direct(e, s.keyID)
	case len(v.By) == 0 && len(v.Past) == 0:
		v.Kind, v.Why = KindUnserved, how+"session "+s.ID+" was handed to nobody"
		return v
	case len(v.By) == 0 && early:
		v.Kind, v.Why = KindUnserved, how+"session "+s.ID+" was handed to nobody before then"
		return v
	case len(v.By) == 0:
		v.Past = v.Past[:min(len(v.Past), mostCandidates)]
		last := slices.MaxFunc(v.Past, func(a, b *Process) int { return f.ended[a.Lease].Compare(f.ended[b.Lease]) })
		v.Kind = KindEnded
		v.Why = fmt.Sprintf("%slease %s, which had session %s, ended at %s", how, last.Lease, s.ID, f.ended[last.Lease].UTC().Format("15:04:05Z"))
		return v
	}
	v.Past = nil
	if len(v.By) > mostCandidates {
		slices.SortStableFunc(v.By, func(a, b *Process) int { return b.First.Compare(a.First) })
		v.By, v.More = v.By[:mostCandidates], true
	}
	v.Kind, v.Why = KindProcess, how+"it alone had session "+s.ID
	if len(v.By) > 1 || v.More {
		v.Kind, v.Why = KindCandidates, how+"one of those who had session "+s.ID
	}
	if e.internal() || e.Presigned || e.Identity.Console || e.Address == "" {
		return v
	}
	if len(f.addresses)+len(f.vouched) > 0 && !f.near(e) {
		v.Kind, v.Why = KindAddress, how+"session "+s.ID+" was used from "+e.Address+", from where the broker never called STS"
	} else if f.oddAgent(s, e) {
		v.Kind, v.Why = KindAgent, how+"session "+s.ID+" alone was used by "+agentFamily(e.Agent)+" ("+quoted(e.Agent)+")"
	}
	return v
}

// narrow keeps those of by whose lease the user agent names, if it names one:
// gatepass exec puts it there, by AWS_SDK_UA_APP_ID.
func narrow(by []*Process, e *Event) []*Process {
	if len(by) < 2 || !strings.Contains(e.Agent, "app/gatepass-l-") {
		return by
	}
	named := slices.DeleteFunc(slices.Clone(by), func(p *Process) bool {
		return p.Lease == "" || !slices.Contains(strings.Fields(e.Agent), "app/gatepass-"+p.Lease)
	})
	if len(named) == 0 {
		return by
	}
	return named
}

// keyName names the key that signed e.
func (f *facts) keyName(e *Event) string {
	id := cmp.Or(e.Identity.AccessKeyID, f.principals[e.Identity.PrincipalID])
	switch name, ours := f.keys[id]; {
	case ours && name != "":
		return "the key " + name + " (" + id + ")"
	case ours:
		return "the key " + id
	case id != "":
		return id
	}
	return "a key of " + cmp.Or(e.Identity.ARN, e.Identity.PrincipalID)
}

func quoted(s string) string { return fmt.Sprintf("%q", s) }
