package profiles

import (
	"errors"
	"slices"
	"strings"
)

// Restore undoes what Adopt did to profiles, and nothing else: what was added
// to them or changed since stays. Of a profile that was written for gatepass
// by hand, the keys get the names that SDKs read.
func (e *Editor) Restore(names ...string) []Adoption {
	return e.each(names, func(s *state, name string) ([]edit, *Chain, error) {
		edits, err := s.restore(name)
		return edits, nil, err
	}, func(after *state, name string, _ *Chain) (*Chain, error) {
		if after.isOurs(name) {
			return nil, errors.New("it would still ask gatepass")
		}
		return nil, nil // what is left may be for others to serve
	})
}

// Adopted returns the profiles that ask gatepass, in the order of the file.
func (e *Editor) Adopted() []string {
	s, err := e.read()
	if err != nil {
		return nil
	}
	var names []string
	for _, name := range e.Names() {
		if s.isOurs(name) {
			names = append(names, name)
		}
	}
	return names
}

func (s *state) isOurs(name string) bool {
	sec, _ := s.sectionOf(name)
	if sec == nil {
		return false
	}
	own := s.entryOf(sec, "credential_process")
	if own == nil {
		return false
	}
	asked, ours := ownProcess(valueOf(s.data, own))
	return ours && asked == name
}

// restore returns what undoes the adoption of a profile.
func (s *state) restore(name string) ([]edit, error) {
	p := s.profiles[name]
	if p == nil {
		_, err := s.resolve(name)
		return nil, err
	}
	sec, _ := s.sectionOf(name)
	if sec == nil || !s.isOurs(name) {
		return nil, &ConfigError{File: p.file, Line: p.line, Profile: name, Msg: "the profile does not ask gatepass: there is nothing to restore"}
	}
	own := s.entryOf(sec, "credential_process")
	edits := []edit{{section: sec, start: own.start, end: own.end, keys: -1}}
	has := map[string]bool{}
	for i := sec.first; i < sec.last; i++ {
		has[s.syntax.entries[i].key] = true
	}

	var moved []string
	at, list, marked := s.movedLine(sec)
	if marked {
		_, _, next := s.line(at)
		edits = append(edits, edit{section: sec, start: at, end: next})
		if moved = strings.Fields(list); len(moved) == 1 && moved[0] == "nothing" {
			moved = nil
		}
	} else {
		for _, m := range movable {
			moved = append(moved, m[0])
		}
	}
	done := map[string]bool{}
	for _, was := range moved {
		if added, ok := strings.CutPrefix(was, "+"); ok {
			if e := s.entryOf(sec, foldKey([]byte(added))); e != nil && slices.Contains(addable, added) && !done[added] {
				done[added] = true
				edits = append(edits, edit{section: sec, start: e.start, end: e.end, keys: -1})
			}
			continue
		}
		key := foldKey([]byte(was))
		twin := twinOf(key)
		if twin == "" || has[key] || done[twin] { // the comment was changed, or the key written anew
			continue
		}
		e := s.entryOf(sec, twin)
		if e == nil {
			continue
		}
		done[twin] = true
		if !marked && key == "duration_seconds" {
			if d, ok := parseDuration(valueOf(s.data, e), true); ok && d > 0 {
				text, br, next := s.line(e.start)
				lead := text[:len(text)-len(trimLeft([]byte(text)))]
				edits = append(edits, edit{section: sec, start: e.start, end: next, text: lead + "duration_seconds = " + itoa(int(d.Seconds())) + br})
			}
			continue
		}
		edits = append(edits, s.rename(sec, e, was))
	}
	return append(edits, s.uncomment(sec, has)...), nil
}

// uncomment brings back the lines that were put aside, unless somebody has
// written their key anew.
func (s *state) uncomment(sec *section, has map[string]bool) (edits []edit) {
	deepest := -1 // indentation of the last key that was put aside; what is deeper continues it
	keep := false
	for off := sec.start; off < sec.end; {
		start := off
		text, br, next := s.line(off)
		off = next
		line, ok := strings.CutPrefix(text, replacedMark)
		if !ok {
			deepest = -1
			continue
		}
		ed := edit{section: sec, start: start, end: next, text: line + br}
		if depth := indentation([]byte(line)); deepest < 0 || depth <= deepest {
			deepest = depth
			key, _, _ := strings.Cut(line, "=")
			key, _, _ = strings.Cut(key, ":")
			key = foldKey(trim([]byte(key)))
			keep = has[key] && key != "credential_process"
			ed.keys = 1
		}
		if !keep {
			edits = append(edits, ed)
		}
	}
	return edits
}
