package reconcile

import (
	"net/netip"
	"strings"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// An issue is a session that the trail shows being made.
type issue struct {
	parent string // access key id of the caller; "" where the trail tells none
	made   *Event // kept where one of our keys, or its user, made it
	hop    bool   // the broker assumed the next role of a chain with it
}

// facts are what a first reading of the trail finds for the second to judge
// by.
type facts struct {
	*book
	issues     map[string]*issue // by access key id
	principals map[string]string // unique ids of our users: a long-term key of each
	addresses  map[string]bool   // networks from which the broker called STS
	vouched    []netip.Prefix
	agents     []string // patterns of those that are vouched for
	sightings  map[sighting]bool
	families   map[string]*Session // by kind of user agent: the only session that has it, or nil for several

	first, last int64 // Unix seconds of the trail's events, 0 before there is one
	interned    map[string]string
}

// A sighting is where, and by what kind of user agent, a session was used.
type sighting struct {
	session         *Session
	network, family string
}

// mostSightings bounds what a thief can have kept by calling himself something
// else each time.
const mostSightings = 100_000

func newFacts(b *book) *facts {
	return &facts{
		book: b, issues: map[string]*issue{}, principals: map[string]string{}, addresses: map[string]bool{},
		sightings: map[sighting]bool{}, families: map[string]*Session{}, interned: map[string]string{},
	}
}

// keep returns s in one copy for all who keep it.
func (f *facts) keep(s string) string {
	if k, ok := f.interned[s]; ok {
		return k
	}
	s = strings.Clone(s)
	f.interned[s] = s
	return s
}

// proven returns the session that the broker got by e, as AWS's id of the
// request and the broker's entry agree, or the answer does.
func (b *book) proven(e *Event) *Session {
	if s := b.byRequest[e.RequestID]; s != nil && e.RequestID != "" && e.mints() {
		return s
	}
	if all := b.byKey[e.Issued]; len(all) > 0 && e.Issued != "" {
		return all[0]
	}
	return nil
}

// learn takes in an event of the first reading.
func (f *facts) learn(e *Event) error {
	if at := e.Time.Unix(); f.first == 0 {
		f.first, f.last = at, at
	} else {
		f.first, f.last = min(f.first, at), max(f.last, at)
	}
	key := e.Identity.AccessKeyID
	if _, ours := f.keys[key]; ours && e.Identity.PrincipalID != "" {
		f.principals[f.keep(e.Identity.PrincipalID)] = f.keep(key)
	}
	all := f.byKey[key]
	for _, s := range all {
		s.seen = true
	}
	if len(all) > 0 {
		if name := agentFamily(e.Agent); name != "" && !e.internal() && !e.Presigned && len(f.sightings) < mostSightings {
			f.sightings[sighting{all[0], f.keep(network(e.Address)), f.keep(name)}] = true
		}
	} else {
		for _, s := range f.byName[e.Identity.sessionName()] {
			s.seen = true
		}
		for _, s := range f.bySource[e.Identity.SourceIdentity] {
			s.seen = s.seen || s.mayHaveMade(e)
		}
	}
	if s := f.proven(e); s != nil {
		s.learnClock(e)
		if !e.internal() && e.Address != "" {
			f.addresses[f.keep(network(e.Address))] = true
		}
		f.hops(key)
	}
	if e.ErrorCode != "" || e.Issued == "" {
		return nil
	}
	if e.Name == "CreateAccessKey" {
		// The broker's own new key, even where the log never says its id:
		// a rotation may have been undone.
		if e.byBroker() && f.users[e.Identity.ARN] && f.changeOf(e, broker.EventKeyRotating) != nil && f.keys[e.Issued] == "" {
			f.keys[f.keep(e.Issued)] = "a new key"
		}
		return nil
	}
	if e.mints() && (key != "" || f.roles[e.Role] || e.Identity.Type == "AWSAccount") {
		f.issued(e)
	}
	return nil
}

func (f *facts) issued(e *Event) {
	i := f.issues[e.Issued]
	if i == nil {
		i = &issue{}
		f.issues[f.keep(e.Issued)] = i
	}
	if i.parent == "" {
		i.parent = f.keep(e.Identity.AccessKeyID)
	}
	if i.made == nil || i.made.Identity.Type == "AWSAccount" { // the caller's account tells more
		if f.isUser(e) || len(f.byKey[e.Identity.AccessKeyID]) > 0 || f.roles[e.Role] || f.ofOurRole(&e.Identity) {
			i.made = e
		}
	}
	if i.hop {
		i.hop = false
		f.hops(e.Issued)
	}
}

// hops marks the session with the access key id key, and those that it was made
// with, as the broker's way to a session that it got. Events come in any
// order, so one may be marked before it is seen.
func (f *facts) hops(key string) {
	for key != "" {
		if _, ours := f.keys[key]; ours || len(f.byKey[key]) > 0 || !strings.HasPrefix(key, "ASIA") {
			return
		}
		i := f.issues[key]
		if i == nil {
			i = &issue{}
			f.issues[f.keep(key)] = i
		}
		if i.hop {
			return
		}
		i.hop = true
		key = i.parent
	}
}

// isUser reports whether an IAM user of ours called, with whatever key.
func (f *facts) isUser(e *Event) bool {
	_, ours := f.keys[e.Identity.AccessKeyID]
	return ours || f.users[e.Identity.ARN] || f.principals[e.Identity.PrincipalID] != ""
}

// conclude is called once everything was learned.
func (f *facts) conclude() {
	f.setClocks()
	for at := range f.sightings {
		if !f.known(at.network) {
			continue
		}
		if only, seen := f.families[at.family]; !seen {
			f.families[at.family] = at.session
		} else if only != at.session {
			f.families[at.family] = nil
		}
	}
}

// oddAgent reports whether s alone was used by user agents of e's kind, while
// other sessions were used by others.
func (f *facts) oddAgent(s *Session, e *Event) bool {
	name := agentFamily(e.Agent)
	if only, seen := f.families[name]; name == "" || seen && only != s {
		return false
	}
	for _, p := range f.agents {
		if ok, _ := audit.Match(p, e.Agent); ok {
			return false
		}
	}
	for _, other := range f.families {
		if other != s {
			return true
		}
	}
	return false
}

// byBroker reports whether e says that gatepassd called. Anybody can say so.
func (e *Event) byBroker() bool { return strings.HasPrefix(e.Agent, "gatepass/") }
