package profiles

import (
	"bytes"
	"slices"
)

// A Plaintext is a long-term key that stands in one of the files.
type Plaintext struct {
	Profile     string
	File        string
	Line        int
	AccessKeyID string
	Secret      []byte // the caller clears it
	Problem     string // why it cannot be moved; then there is no Secret
}

var plaintextKeys = []string{"aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_security_token"}

// Plaintext returns the keys in the files, in their order, the credentials
// file's first. The two files' keys of one profile are one when they are the
// same.
func (e *Editor) Plaintext() ([]Plaintext, error) {
	var found []Plaintext
	for _, d := range []*document{&e.credentials, &e.config} {
		s, cerr := parse(d.data)
		if cerr != nil {
			cerr.File = d.path
			return nil, cerr
		}
		for i := range s.sections {
			p, ok := e.plaintextIn(d, s, &s.sections[i])
			if !ok {
				continue
			}
			at := slices.IndexFunc(found, func(f Plaintext) bool { return f.Profile == p.Profile })
			if at < 0 {
				found = append(found, p)
				continue
			}
			if same := found[at].AccessKeyID == p.AccessKeyID && bytes.Equal(found[at].Secret, p.Secret); !same {
				clear(found[at].Secret)
				found[at].Secret = nil
				found[at].Problem = "the config file and the credentials file have different keys of this profile: remove the wrong one"
			}
			clear(p.Secret)
		}
	}
	return found, nil
}

// plaintextIn returns the key in one section.
func (e *Editor) plaintextIn(d *document, s *syntax, sec *section) (p Plaintext, ok bool) {
	if p.Profile, ok = sec.name, true; d == &e.config {
		p.Profile, ok = profileOf(sec)
	}
	has := map[string]*entry{}
	for i := sec.first; i < sec.last; i++ {
		if entry := &s.entries[i]; slices.Contains(plaintextKeys, entry.key) {
			has[entry.key] = entry
		}
	}
	if sec.name == inherited {
		p.Profile, ok = sec.name, true
	}
	if !ok || len(has) == 0 {
		return p, false
	}
	p.File = d.path
	id, secret := has["aws_access_key_id"], has["aws_secret_access_key"]
	switch {
	case id != nil:
		p.Line = id.line
		p.AccessKeyID = valueOf(d.data, id)
	default:
		p.Line = sec.line
	}
	switch {
	case sec.name == inherited:
		p.Problem = "the section [DEFAULT] gives its key to every profile: move it to the profile that it is for"
	case has["aws_session_token"] != nil || has["aws_security_token"] != nil:
		p.Problem = "it is a temporary session, which ends by itself: only long-term keys are moved"
	case id == nil || secret == nil || p.AccessKeyID == "":
		p.Problem = "half of the key is missing: aws_access_key_id and aws_secret_access_key belong together"
	default:
		p.Secret = []byte(valueOf(d.data, secret))
		if len(p.Secret) == 0 {
			p.Problem = "the secret is empty"
		}
	}
	return p, true
}

// Leave tells that the plaintext key of a profile is on its way out: Adopt
// then takes the profile, makes its section in the config file where there is
// none, and the key's lines do not stand in its way.
func (e *Editor) Leave(profile string) { e.leaving[profile] = true }

// Through returns the profiles, other than the one itself, whose chain starts
// with the key in the named one's section, in no order.
func (e *Editor) Through(profile string) []string {
	s, err := e.read()
	if err != nil {
		return nil
	}
	var names []string
	for _, name := range s.names {
		if name == profile {
			continue
		}
		if chain, err := s.resolve(name); err == nil && len(chain.Way) > 0 && chain.Way[len(chain.Way)-1] == profile && !chain.KeyFrom.Explicit {
			names = append(names, name)
		}
	}
	return names
}

// RemovePlaintext takes the key of a profile out of both files. A section of
// the credentials file of which nothing is left goes too. Everything else
// stays byte for byte; a layout that does not allow it is refused.
func (e *Editor) RemovePlaintext(profile string) error {
	for _, d := range []*document{&e.credentials, &e.config} {
		before, cerr := parse(d.data)
		if cerr != nil {
			cerr.File = d.path
			return cerr
		}
		st := &state{data: d.data, syntax: before}
		var edits []edit
		gone := map[*section]bool{}
		for i := range before.sections {
			sec := &before.sections[i]
			name, ok := sec.name, true
			if d == &e.config {
				name, ok = profileOf(sec)
			}
			if !ok || name != profile || sec.name == inherited {
				continue
			}
			all := true
			for j := sec.first; j < sec.last; j++ {
				entry := &before.entries[j]
				if !slices.Contains(plaintextKeys, entry.key) {
					all = false
					continue
				}
				edits = append(edits, edit{section: sec, start: entry.start, end: entry.end, keys: -1})
			}
			if d == &e.credentials && all && sec.first < sec.last && !st.remarks(sec) {
				gone[sec] = true
				edits = slices.DeleteFunc(edits, func(x edit) bool { return x.section == sec })
				edits = append(edits, edit{section: sec, start: sec.start, end: sec.end})
			}
		}
		if len(edits) == 0 {
			continue
		}
		data := st.apply(edits)
		after, cerr := parse(data)
		wrong := cerr != nil
		if !wrong {
			// As if the sections that go had never been.
			kept := *before
			kept.sections = slices.DeleteFunc(slices.Clone(before.sections), func(s section) bool {
				for g := range gone {
					if g.start == s.start {
						return true
					}
				}
				return false
			})
			changed := map[int]int{}
			for _, ed := range edits {
				changed[ed.section.start] += ed.keys
			}
			wrong = misreadBy(&state{data: d.data, syntax: &kept}, &state{data: data, syntax: after}, changed, 0) != ""
		}
		if wrong {
			return &ConfigError{File: d.path, Profile: profile, Msg: "the way this section is written does not allow to remove the key safely: remove its lines by hand"}
		}
		clear(d.data)
		d.data = data
	}
	delete(e.leaving, profile)
	return nil
}

// remarks reports whether a section has comments.
func (s *state) remarks(sec *section) bool {
	_, _, off := s.line(sec.start)
	for off < sec.end {
		text, _, next := s.line(off)
		if t := trim([]byte(text)); len(t) > 0 && isComment(t) {
			return true
		}
		off = next
	}
	return false
}
