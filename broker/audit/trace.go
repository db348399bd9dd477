package audit

import (
	"bytes"
	"context"
	"fmt"
	"slices"
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
// long-term key by its access key id; a session by its id, its access key id or
// its name at AWS, which several may bear; or a lease. Where it names nothing
// the error is [broker.CodeNotFound]; others are those of [Entries]. It reads the
// whole log, and decodes what belongs to the story.
func FindTrace(ctx context.Context, dir, id string) (Trace, error) {
	quoted, cut := appendString(nil, id, maxString)
	if cut || id == "" {
		return Trace{}, nothingNamed(id)
	}
	inText := bytes.Trim(quoted, `"`) // as a part of a key's reason, too
	t := newTeller(id)
	var first *hit  // the first that may be about a key of this id
	unreadable := 0 // before it
	r := newReader(ctx, dir)
	err := r.every(bounds{}, func(line []byte, h lineHead) (*Entry, bool, error) {
		if !bytes.Contains(line, inText) {
			return nil, false, nil
		}
		switch l := identify(line); {
		case l.key == id:
			return nil, true, nil
		case t.named(&l):
			return decoded(line)
		}
		return nil, isKey(h.event), nil
	}, func(h hit) error {
		switch {
		case h.bad != nil:
			t.unreadable++
		case h.entry == nil:
			if first == nil {
				first, unreadable = &hit{seq: h.seq, num: h.num, off: h.off}, t.unreadable
			}
			if identify(h.line).key == id {
				return errEnough
			}
		default:
			t.open(h.entry)
			t.add(h.entry)
		}
		return nil
	})
	switch {
	case err == errEnough:
		return keyTrace(ctx, dir, id, inText, *first, unreadable)
	case err != nil:
		return Trace{}, logError(err)
	case len(t.sessions)+len(t.leases) == 0:
		return Trace{}, nothingNamed(id)
	}
	if err := t.complete(ctx, dir); err != nil {
		return Trace{}, logError(err)
	}
	return t.told(), nil
}

func nothingNamed(id string) error {
	return broker.Errorf(broker.CodeNotFound, "no entry of the audit log names %q", id).
		WithHint("it is the access key id, the name or the id of a session, or the id of a lease; other text is found by: gatepass audit list --reason, --program")
}

// TraceOf tells what the log in dir has of the session and the lease that e is
// about: nothing for an entry that is about neither. Its errors are those of
// [FindTrace].
func TraceOf(ctx context.Context, dir string, e *Entry) (Trace, error) {
	if e.Session != nil && e.Session.ID != "" {
		return FindTrace(ctx, dir, e.Session.ID)
	}
	if e.Lease == "" {
		return Trace{}, nil
	}
	t := newTeller("")
	t.open(e)
	t.add(e)
	if err := t.complete(ctx, dir); err != nil {
		return Trace{}, logError(err)
	}
	return t.told(), nil
}

// every reads all of the log that b does not pass over.
func (r *reader) every(b bounds, wanted filter, each func(hit) error) error {
	nums, err := listSegments(r.dir)
	if err != nil {
		return err
	}
	parts, _, err := r.stretches(nums, b)
	if err != nil {
		return err
	}
	return r.scan(parts, wanted, false, r.inOrder(each))
}

// identity is what a line names.
type identity struct{ session, accessKey, name, lease, key string }

var (
	sessionToken = []byte(`"session":{`)
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

// A teller gathers the stories of the sessions and leases that id names.
type teller struct {
	id          string
	sessions    map[string]*sessionTeller
	leases      map[string]*leaseTeller
	inOrder     []*sessionTeller
	leasesFound []*leaseTeller
	first, last int64 // the numbers of the first and the last entry
	unreadable  int
}

func newTeller(id string) *teller {
	return &teller{id: id, first: -1, sessions: map[string]*sessionTeller{}, leases: map[string]*leaseTeller{}}
}

// named reports whether a line is about what id names.
func (t *teller) named(l *identity) bool {
	return t.id != "" && (l.session != "" && (l.session == t.id || l.accessKey == t.id || l.name == t.id) || l.lease == t.id)
}

// open begins the stories that e belongs to.
func (t *teller) open(e *Entry) {
	if e.Session != nil && e.Session.ID != "" && t.sessions[e.Session.ID] == nil {
		s := &sessionTeller{SessionStory: SessionStory{ID: e.Session.ID}}
		t.sessions[s.ID], t.inOrder = s, append(t.inOrder, s)
	}
	if e.Lease != "" && t.leases[e.Lease] == nil {
		l := &leaseTeller{LeaseStory: LeaseStory{ID: e.Lease}}
		t.leases[l.ID], t.leasesFound = l, append(t.leasesFound, l)
	}
}

// add adds e to the stories it belongs to: to that of a lease which is not what
// id names, its beginning and end alone.
func (t *teller) add(e *Entry) {
	if t.first < 0 || e.Seq < t.first {
		t.first = e.Seq
	}
	t.last = max(t.last, e.Seq)
	if e.Session != nil {
		if s := t.sessions[e.Session.ID]; s != nil {
			s.add(e)
		}
	}
	if l := t.leases[e.Lease]; l != nil && (l.ID == t.id || isLease(e.Kind)) {
		l.add(e)
	}
}

func isLease[K broker.EventKind | []byte](kind K) bool {
	return strings.HasPrefix(string(kind), "lease.")
}

// complete reads what id itself does not lead to. A session's first entry has
// its id alone, and so has one that says that STS refused it; a lease's
// beginning and end are about no session.
func (t *teller) complete(ctx context.Context, dir string) error {
	more := func(line []byte, h lineHead) (*Entry, bool, error) {
		l := identify(line)
		if t.named(&l) || t.sessions[l.session] == nil && (t.leases[l.lease] == nil || !isLease(h.event)) {
			return nil, false, nil
		}
		return decoded(line)
	}
	r := newReader(ctx, dir)
	seen := map[int64]bool{}
	look := func(b bounds, reverse bool, enough func() bool) error {
		if enough() {
			return nil
		}
		nums, err := listSegments(dir)
		if err != nil {
			return err
		}
		parts, _, err := r.stretches(nums, b)
		if err != nil {
			return err
		}
		if reverse {
			slices.Reverse(parts)
		}
		err = r.scan(parts, more, reverse, func(h hit) error {
			if h.bad != nil || h.seq < b.from || b.to > 0 && h.seq >= b.to || seen[h.seq] {
				return nil
			}
			seen[h.seq] = true
			t.add(h.entry)
			if enough() {
				return errEnough
			}
			return nil
		})
		if err == errEnough {
			return nil
		}
		return err
	}
	from, to := t.first, t.last
	if t.scattered() {
		if !t.requested() {
			from = 0
		}
		if err := look(bounds{from: from}, false, never); err != nil {
			return err
		}
	}
	if err := look(bounds{to: to + 1}, true, t.begun); err != nil {
		return err
	}
	return look(bounds{from: from}, false, t.ended)
}

func never() bool { return false }

// scattered reports whether entries of the stories may be anywhere: those of a
// session that was not issued under the name that id is, and those of sessions
// that others than the lease got.
func (t *teller) scattered() bool {
	for _, s := range t.sessions {
		if s.Issued == nil && s.Failed == nil && s.Requested != nil || t.leases[t.id] != nil && (s.Ended == nil || s.Ended.Lease != t.id) {
			return true
		}
	}
	return false
}

// requested reports whether the first entry of each session is there.
func (t *teller) requested() bool {
	for _, s := range t.sessions {
		if s.Requested == nil {
			return false
		}
	}
	return true
}

// begun reports whether the beginning of each story is there.
func (t *teller) begun() bool {
	if !t.requested() {
		return false
	}
	for _, l := range t.leases {
		if l.Started == nil {
			return false
		}
	}
	return true
}

// ended reports whether the end of each lease is there.
func (t *teller) ended() bool {
	for _, l := range t.leases {
		if l.Ended == nil {
			return false
		}
	}
	return true
}

func (t *teller) told() Trace {
	trace := Trace{ID: t.id, Unreadable: t.unreadable}
	for _, s := range t.inOrder {
		trace.Sessions = append(trace.Sessions, s.told())
	}
	for _, l := range t.leasesFound {
		trace.Leases = append(trace.Leases, l.told())
	}
	return trace
}

// decoded is a line that is wanted.
func decoded(line []byte) (*Entry, bool, error) {
	e, err := ParseEntry(line)
	if err != nil {
		return nil, false, fmt.Errorf("is not an entry: %w", err)
	}
	return &e, true, nil
}

// keyTrace tells of a long-term key. The first entry that is about it is known,
// and how many lines before it are no entries.
func keyTrace(ctx context.Context, dir, id string, inText []byte, first hit, unreadable int) (Trace, error) {
	t := Trace{ID: id, Unreadable: unreadable, Key: &KeyStory{Key: broker.EventKey{AccessKeyID: id}}}
	err := newReader(ctx, dir).every(bounds{from: first.seq}, func(line []byte, h lineHead) (*Entry, bool, error) {
		switch {
		case !isKey(h.event) && string(h.event) != string(broker.EventSessionIssued) && string(h.event) != string(broker.EventSessionRenewed),
			!bytes.Contains(line, inText), !isKey(h.event) && identify(line).key != id:
			return nil, false, nil
		}
		return decoded(line)
	}, func(h hit) error {
		switch {
		case h.num < first.num || h.num == first.num && h.off < first.off: // in the same stretch
		case h.bad != nil:
			t.Unreadable++
		default:
			t.Key.add(h.entry)
		}
		return nil
	})
	if err != nil {
		return Trace{}, logError(err)
	}
	return t, nil
}

// isKey reports whether an entry is about what was done with a long-term key.
func isKey(event []byte) bool { return bytes.HasPrefix(event, []byte("key.")) }
