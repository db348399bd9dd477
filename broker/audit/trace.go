package audit

import (
	"bytes"
	"context"
	"strings"

	"gatepass/broker"
)

// A Trace is what the log tells of what an id names.
type Trace struct {
	ID         string         `json:"id"`
	Sessions   []SessionStory `json:"sessions,omitempty"` // in the order of their first entries
	Leases     []LeaseStory   `json:"leases,omitempty"`
	Key        *KeyStory      `json:"key,omitempty"`
	Unreadable int            `json:"unreadable,omitempty"` // lines of the log that are no entries
}

// FindTrace finds what id names in the log in dir, and tells its story: a
// session by its id, its access key id or its name at AWS, which several may
// bear; a lease; or a long-term key by its access key id. Where it names nothing
// the error is [broker.CodeNotFound]. It reads the whole log, twice, and decodes
// what belongs to the story.
func FindTrace(ctx context.Context, dir, id string) (Trace, error) {
	needle, cut := appendString(nil, id, maxString)
	if cut || id == "" {
		return Trace{}, nothingNamed(id)
	}
	// The ids of the sessions and leases that it names come from the entries
	// that have it; the first entry of a session knows nothing but its id.
	found := newTeller()
	var key bool
	r := newReader(ctx, dir)
	err := r.every(func(line []byte, _ lineHead) (*Entry, bool, error) {
		return nil, bytes.Contains(line, needle), nil
	}, func(h hit) error {
		if h.bad != nil {
			return nil // counted below
		}
		l := identify(h.line)
		switch {
		case l.session != "" && (l.session == id || l.accessKey == id || l.name == id):
			found.session(l.session)
			found.lease(l.lease, false)
		case l.lease == id:
			found.session(l.session)
			found.lease(id, true)
		case l.key == id:
			key = true
		}
		return nil
	})
	switch {
	case err != nil:
		return Trace{}, logError(err)
	case len(found.sessions)+len(found.leases) > 0:
		return found.tell(ctx, dir, id)
	case key:
		return keyTrace(ctx, dir, id, bytes.Trim(needle, `"`)) // as a part of a reason, too
	}
	return Trace{}, nothingNamed(id)
}

func nothingNamed(id string) error {
	return broker.Errorf(broker.CodeNotFound, "no entry of the audit log names %q", id).
		WithHint("it is the access key id, the name or the id of a session, or the id of a lease; other text is found by: gatepass audit list --reason, --program")
}

// TraceOf tells what the log in dir has of the session and the lease that e is
// about: nothing for an entry that is about neither.
func TraceOf(ctx context.Context, dir string, e *Entry) (Trace, error) {
	t := newTeller()
	id := e.Lease
	t.lease(e.Lease, false)
	if e.Session != nil && e.Session.ID != "" {
		id = e.Session.ID
		t.session(id)
	}
	if id == "" {
		return Trace{}, nil
	}
	return t.tell(ctx, dir, id)
}

// every reads the whole log.
func (r *reader) every(wanted filter, each func(hit) error) error {
	nums, err := listSegments(r.dir)
	if err != nil {
		return err
	}
	parts, _, err := r.stretches(nums, bounds{})
	if err != nil {
		return err
	}
	return r.scan(parts, wanted, false, r.inOrder(each))
}

// identity is what a line names.
type identity struct{ session, accessKey, name, lease, key string }

var (
	sessionToken = []byte(`"session":{`)
	sessionID    = []byte(`"session":{"id":"`) // the id comes first
	keyToken     = []byte(`"key":{`)
	leaseToken   = []byte(`"lease":"`)
)

// identify reads what a line names, without decoding it.
func identify(line []byte) (l identity) {
	object(line, sessionToken, func(name, value []byte) {
		switch string(name) {
		case "id":
			l.session = unquote(value)
		case "access_key_id":
			l.accessKey = unquote(value)
		case "name":
			l.name = unquote(value)
		}
	})
	object(line, keyToken, func(name, value []byte) {
		if string(name) == "access_key_id" {
			l.key = unquote(value)
		}
	})
	if v, _, ok := nextField(line, leaseToken); ok {
		l.lease = unquote(v)
	}
	return l
}

// object calls each with the fields of the object that token begins, as long as
// they are strings.
func object(line, token []byte, each func(name, value []byte)) {
	i := bytes.Index(line, token)
	if i < 0 {
		return
	}
	for rest := line[i+len(token):]; len(rest) > 0 && rest[0] == '"'; {
		end := bytes.IndexByte(rest[1:], '"') + 1
		if end == 0 {
			return
		}
		value, after, ok := nextField(rest[end:], []byte(`":"`))
		if !ok || len(rest[end:])-len(after)-len(value) != len(`":""`) {
			return
		}
		each(rest[1:end], value)
		if rest = after; len(rest) > 0 && rest[0] == ',' {
			rest = rest[1:]
		}
	}
}

// A teller gathers stories.
type teller struct {
	sessions map[string]*sessionTeller
	leases   map[string]*leaseTeller
	order    []*sessionTeller
	begun    []*leaseTeller
}

func newTeller() *teller {
	return &teller{sessions: map[string]*sessionTeller{}, leases: map[string]*leaseTeller{}}
}

func (t *teller) session(id string) {
	if id != "" && t.sessions[id] == nil {
		s := &sessionTeller{SessionStory: SessionStory{ID: id}}
		t.sessions[id] = s
		t.order = append(t.order, s)
	}
}

// lease wants a lease's beginning and end or, with whole, all that was in it.
func (t *teller) lease(id string, whole bool) {
	if id == "" {
		return
	}
	l := t.leases[id]
	if l == nil {
		l = &leaseTeller{LeaseStory: LeaseStory{ID: id}}
		t.leases[id] = l
		t.begun = append(t.begun, l)
	}
	l.whole = l.whole || whole
}

// tell reads the log once more, for all entries of the stories.
func (t *teller) tell(ctx context.Context, dir, id string) (Trace, error) {
	trace := Trace{ID: id}
	err := newReader(ctx, dir).every(func(line []byte, h lineHead) (*Entry, bool, error) {
		if !t.wants(line, h) {
			return nil, false, nil
		}
		e, err := ParseEntry(line)
		return &e, true, err
	}, func(h hit) error {
		if h.bad != nil {
			trace.Unreadable++
			return nil
		}
		e := h.entry
		if e.Session != nil {
			if s := t.sessions[e.Session.ID]; s != nil {
				s.add(e)
			}
		}
		if l := t.leases[e.Lease]; l != nil && (l.whole || strings.HasPrefix(string(e.Kind), "lease.")) {
			l.add(e)
		}
		return nil
	})
	if err != nil {
		return Trace{}, logError(err)
	}
	for _, s := range t.order {
		trace.Sessions = append(trace.Sessions, s.told())
	}
	for _, l := range t.begun {
		trace.Leases = append(trace.Leases, l.told())
	}
	return trace, nil
}

// wants reports whether a line belongs to a story. Several goroutines call it:
// what is wanted does not change any more.
func (t *teller) wants(line []byte, h lineHead) bool {
	if v, _, ok := nextField(line, sessionID); ok && t.sessions[unquote(v)] != nil {
		return true
	}
	if len(t.leases) == 0 {
		return false
	}
	v, _, ok := nextField(line, leaseToken)
	if !ok {
		return false
	}
	l := t.leases[unquote(v)]
	return l != nil && (l.whole || bytes.HasPrefix(h.event, []byte("lease.")))
}

// keyTrace tells of a long-term key.
func keyTrace(ctx context.Context, dir, id string, needle []byte) (Trace, error) {
	t := Trace{ID: id, Key: &KeyStory{Key: broker.EventKey{AccessKeyID: id}}}
	err := newReader(ctx, dir).every(func(line []byte, h lineHead) (*Entry, bool, error) {
		changed := bytes.HasPrefix(h.event, []byte("key."))
		switch {
		case !changed && string(h.event) != string(broker.EventSessionIssued) && string(h.event) != string(broker.EventSessionRenewed),
			!bytes.Contains(line, needle), !changed && identify(line).key != id:
			return nil, false, nil
		}
		e, err := ParseEntry(line)
		return &e, true, err
	}, func(h hit) error {
		if h.bad != nil {
			t.Unreadable++
		} else {
			t.Key.add(h.entry)
		}
		return nil
	})
	if err != nil {
		return Trace{}, logError(err)
	}
	return t, nil
}
