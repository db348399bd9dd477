package audit

import (
	"bytes"
	"encoding/json"
	"path"
	"slices"
	"strings"
	"time"

	"gatepass/broker"
)

// A Query selects entries. Zero fields select all.
type Query struct {
	From int64 // the first number
	To   int64 // up to, but not with, this number; 0 for no bound

	// Since and Until bound the time that an entry bears; it is up to, but not
	// at, Until. See [Entries] for clocks that were wrong.
	Since, Until time.Time

	// Each of these selects entries in whose field one of its patterns is
	// found. A pattern is for the whole value and does not tell upper case from
	// lower case; in it, "*" stands for any text, "?" for a character, "[a-z]"
	// for one of these, and a backslash takes their meaning from them.
	Event   []string
	Outcome []string
	Profile []string
	Account []string
	Role    []string // ARN, what comes after ":role/", or the last part of that
	Key     []string // name or access key id
	Session []string // id, access key id, or the name that it has at AWS
	Lease   []string
	Program []string // as recorded, or its last path element
	Reason  []string

	Last    int  // only the last so many of those selected
	Reverse bool // the newest first; not together with Follow

	// Decode has the lines' entries decoded by all processors, for those that
	// need [Line.Entry] of each.
	Decode bool

	// Follow goes on with entries as they are written, until the context
	// ends.
	Follow bool
}

// Check returns the error of a malformed pattern, as [Entries] would.
func (q *Query) Check() error {
	_, err := q.matcher()
	return err
}

// A Line is an entry as it stands in the log.
type Line struct {
	Seq   int64
	Raw   []byte // without the newline; valid until the iteration goes on
	entry *Entry // where it is decoded already
}

// Entry decodes the line; its error is that of [ParseEntry].
func (l Line) Entry() (Entry, error) {
	if l.entry != nil {
		return *l.entry, nil
	}
	return ParseEntry(l.Raw)
}

// Time is the time that the entry bears, without decoding it; zero where it
// has none.
func (l Line) Time() time.Time { return parseTime(l.Raw) }

// Field returns the value of the string field name, as "profile" or
// "program", without decoding the entry: that of the first field of this name
// in any of its objects, "" for none.
func (l Line) Field(name string) string {
	v, _, ok := nextField(l.Raw, []byte(`"`+name+`":"`))
	if !ok {
		return ""
	}
	return unquote(v)
}

// nextField finds the first field in line that begins with token, as
// `"profile":"`, and returns what stands between its quotes and what comes
// after it. A quotation mark within a string is escaped, so token is found
// nowhere else.
func nextField(line, token []byte) (value, rest []byte, ok bool) {
	i := bytes.Index(line, token)
	if i < 0 {
		return nil, nil, false
	}
	line = line[i+len(token):]
	for end := 0; end < len(line); end++ {
		switch line[end] {
		case '"':
			return line[:end], line[end+1:], true
		case '\\':
			end++
		}
	}
	return nil, nil, false
}

// unquote returns what the text between a string's quotes stands for.
func unquote(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw)
	}
	var s string
	if json.Unmarshal(slices.Concat([]byte{'"'}, raw, []byte{'"'}), &s) != nil {
		return ""
	}
	return s
}

// A matcher tells which lines a query selects.
type matcher struct {
	from, to     int64
	since, until []byte // as entries write times; nil for no bound
	event        patterns
	fields       []fieldMatcher
	decode       bool
}

// A fieldMatcher looks for the values of one of a query's fields. A line is
// decoded only where one of the fields that tokens begin has such a value.
type fieldMatcher struct {
	patterns patterns
	tokens   [][]byte
	variants func(string) []string      // of a value, nil for the value alone
	values   func(*Entry, func(string)) // the field's values in an entry
}

// matcher compiles q; its error is a malformed pattern's.
func (q *Query) matcher() (*matcher, error) {
	m := &matcher{from: q.From, to: q.To, since: timeBound(q.Since), until: timeBound(q.Until), decode: q.Decode}
	var err error
	if m.event, err = compile(q.Event); err != nil {
		return nil, err
	}
	add := func(globs []string, variants func(string) []string, values func(*Entry, func(string)), fields ...string) {
		p, bad := compile(globs)
		if bad != nil {
			err = bad
		}
		if len(p) == 0 {
			return
		}
		f := fieldMatcher{patterns: p, variants: variants, values: values}
		for _, name := range fields {
			f.tokens = append(f.tokens, []byte(`"`+name+`":"`))
		}
		m.fields = append(m.fields, f)
	}
	add(q.Outcome, nil, func(e *Entry, is func(string)) { is(e.Outcome) }, "outcome")
	add(q.Profile, nil, func(e *Entry, is func(string)) { is(e.Profile) }, "profile")
	add(q.Account, nil, func(e *Entry, is func(string)) { is(e.Account) }, "account")
	add(q.Role, roleNames, func(e *Entry, is func(string)) { is(e.RoleARN) }, "role_arn")
	add(q.Key, nil, func(e *Entry, is func(string)) {
		if e.Key != nil {
			is(e.Key.Name)
			is(e.Key.AccessKeyID)
		}
	}, "name", "access_key_id")
	add(q.Session, nil, func(e *Entry, is func(string)) {
		if e.Session != nil {
			is(e.Session.ID)
			is(e.Session.AccessKeyID)
			is(e.Session.Name)
		}
	}, "id", "access_key_id", "name")
	add(q.Lease, nil, func(e *Entry, is func(string)) { is(e.Lease) }, "lease")
	add(q.Program, programNames, func(e *Entry, is func(string)) {
		if e.Caller != nil {
			is(e.Caller.Program)
		}
	}, "program")
	add(q.Reason, nil, func(e *Entry, is func(string)) { is(e.Reason) }, "reason")
	return m, err
}

// roleNames are the ways to name a role.
func roleNames(arn string) []string {
	names := []string{arn}
	if _, name, ok := strings.Cut(arn, ":role/"); ok {
		names = append(names, name, path.Base(name))
	}
	return names
}

// programNames are the ways to name a program.
func programNames(p string) []string { return []string{p, path.Base(p)} }

// match reports whether a line is selected, and its entry where it was
// decoded. The error is that of a line which is no entry.
func (m *matcher) match(line []byte, h lineHead) (*Entry, bool, error) {
	if h.seq < m.from || m.to > 0 && h.seq >= m.to ||
		m.since != nil && bytes.Compare(h.time, m.since) < 0 ||
		m.until != nil && bytes.Compare(h.time, m.until) >= 0 ||
		len(m.event) > 0 && !m.event.match(string(h.event)) {
		return nil, false, nil
	}
	for i := range m.fields {
		if !m.fields[i].maybe(line) {
			return nil, false, nil
		}
	}
	if len(m.fields) == 0 && !m.decode {
		return nil, true, nil
	}
	e, ok, err := decoded(line)
	for i := range m.fields {
		ok = ok && m.fields[i].selects(e)
	}
	return e, ok, err
}

// maybe reports whether line may have one of the values. It looks at the bytes
// alone.
func (f *fieldMatcher) maybe(line []byte) bool {
	for _, token := range f.tokens {
		for rest := line; ; {
			value, after, ok := nextField(rest, token)
			if !ok {
				break
			}
			if f.matches(unquote(value)) {
				return true
			}
			rest = after
		}
	}
	return false
}

func (f *fieldMatcher) selects(e *Entry) (found bool) {
	f.values(e, func(v string) { found = found || v != "" && f.matches(v) })
	return found
}

func (f *fieldMatcher) matches(value string) bool {
	if f.variants == nil {
		return f.patterns.match(value)
	}
	for _, v := range f.variants(value) {
		if f.patterns.match(v) {
			return true
		}
	}
	return false
}

// timeBound is t as entries write it, so that bytes compare as times do; nil
// for the zero time.
func timeBound(t time.Time) []byte {
	switch year := t.UTC().Year(); {
	case t.IsZero():
		return nil
	case year < 0:
		return []byte("0")
	case year > 9999:
		return []byte("9999-99")
	}
	return appendTime(nil, t)
}

// patterns are a field's, compiled.
type patterns []pattern

type pattern struct {
	text    string
	literal bool
}

// Globs of the path package keep "/" apart; of those of a log, none does.
var slashes = strings.NewReplacer("/", "\x00")

func compile(globs []string) (patterns, error) {
	var ps patterns
	for _, g := range globs {
		p := pattern{text: g, literal: !strings.ContainsAny(g, `*?[\`)}
		if !p.literal {
			p.text = slashes.Replace(strings.ToLower(g))
			if _, err := path.Match(p.text, ""); err != nil {
				return nil, broker.Errorf(broker.CodeUsage, "the pattern %q is malformed", g).
					WithHint(`"*" stands for any text, "?" for a character, "[a-z]" for one of these; "\" takes their meaning from them`)
			}
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// Match reports whether a pattern of a [Query] is found in a value. A
// malformed one is [broker.CodeUsage].
func Match(pattern, value string) (bool, error) {
	ps, err := compile([]string{pattern})
	return err == nil && ps.match(value), err
}

func (ps patterns) match(s string) bool {
	for _, p := range ps {
		if p.literal {
			if strings.EqualFold(p.text, s) {
				return true
			}
		} else if ok, _ := path.Match(p.text, slashes.Replace(strings.ToLower(s))); ok {
			return true
		}
	}
	return false
}
