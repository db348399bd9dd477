package profiles

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// An Editor changes profiles in the AWS config file, in memory until
// [Editor.Save]: whole lines, in place, and nothing but what was asked for.
// Each change is read back before it counts: a layout in which it would mean
// something else, or would change what another profile means, is refused.
type Editor struct {
	// Accept is asked about what a profile means before it is adopted; its
	// errors are the reason to leave it. Nil accepts all.
	Accept func(*Chain) error

	files       Files
	config      document
	credentials document
	leaving     map[string]bool // profiles whose plaintext keys are on their way out
	vaulted     map[string]bool // profiles that aws-vault has served
	changes     []Change
}

// A document is a file that is being changed.
type document struct {
	path string
	old  []byte // as read; nil for a file that does not exist
	data []byte // with the changes
}

// save writes what was changed.
func (d *document) save() error {
	if bytes.Equal(d.old, d.data) {
		return nil
	}
	if err := replaceFile(d.path, d.old, d.data); err != nil {
		return err
	}
	clear(d.old)
	d.old = bytes.Clone(d.data)
	return nil
}

// A Change is a run of lines of the config file that was replaced.
type Change struct {
	Section  string   // the header's line
	Old, New []string // without their line breaks
}

// OpenEditor reads the files. It fails with a *[ConfigError] for files that
// cannot be read or do not parse.
func OpenEditor(files Files) (*Editor, error) {
	files.Trusted = true // what does not count is edited like what does
	r := NewReader()
	config, _, err := r.readFile(files.Config)
	if err != nil {
		return nil, err
	}
	credentials, _, err := r.readFile(files.Credentials)
	if err != nil {
		return nil, err
	}
	e := &Editor{
		files: files, leaving: map[string]bool{}, vaulted: map[string]bool{},
		config:      document{path: files.Config, old: config, data: bytes.Clone(config)},
		credentials: document{path: files.Credentials, old: credentials, data: bytes.Clone(credentials)},
	}
	if _, err := e.read(); err != nil {
		return nil, err
	}
	return e, nil
}

// Close forgets what the files hold.
func (e *Editor) Close() {
	for _, d := range []*document{&e.config, &e.credentials} {
		clear(d.old)
		clear(d.data)
	}
}

// Names returns the profiles of the config file, in its order.
func (e *Editor) Names() []string {
	s, err := e.read()
	if err != nil {
		return nil
	}
	var names []string
	seen := map[string]bool{}
	for i := range s.syntax.sections {
		if name, ok := profileOf(&s.syntax.sections[i]); ok && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

// Changes returns what Save would write, in the order it was asked for.
func (e *Editor) Changes() []Change { return e.changes }

// Save writes what was changed, the config file first: what a profile needs is
// there before what it had is gone. It fails, and leaves a file as it is, when
// that was changed by somebody else since it was read.
func (e *Editor) Save() error {
	if err := e.config.save(); err != nil {
		return err
	}
	if err := e.credentials.save(); err != nil {
		return err
	}
	e.changes = nil
	return nil
}

// A state is the config file's text and what both files mean.
type state struct {
	data   []byte
	syntax *syntax
	byName map[string][]*section // the config file's sections of a profile
	*resolver
}

func (e *Editor) read() (*state, error) { return e.readAs(e.config.data) }

func (e *Editor) readAs(config []byte) (*state, error) {
	set, err := newProfileSet(e.files, config, e.credentials.data, keep)
	if err != nil {
		return nil, err
	}
	s, cerr := parse(config)
	if cerr != nil { // newProfileSet has parsed it
		return nil, cerr
	}
	st := &state{data: config, syntax: s, byName: map[string][]*section{}, resolver: newResolver(e.files, set)}
	for i := range s.sections {
		if name, ok := profileOf(&s.sections[i]); ok {
			st.byName[name] = append(st.byName[name], &s.sections[i])
		}
	}
	return st, nil
}

// An edit replaces the lines data[start:end], whole lines, by text.
type edit struct {
	section    *section // nil for one that is made
	start, end int
	text       string
	keys       int // how many more keys the section has after it
}

// sectionOf returns the section of the config file that says what a profile
// is, and how many sections have its name: the last one counts.
func (s *state) sectionOf(name string) (found *section, n int) {
	all := s.byName[name]
	if len(all) == 0 {
		return nil, 0
	}
	return all[len(all)-1], len(all)
}

// profileOf returns the name of the profile that a section of the config file
// is about.
func profileOf(sec *section) (name string, ok bool) {
	if strings.HasPrefix(sec.name, "profile") {
		return secondWord(sec.name)
	}
	return sec.name, sec.name == "default"
}

// entryOf returns the entry of a section that has the key.
func (s *state) entryOf(sec *section, key string) *entry {
	if sec == nil {
		return nil
	}
	for i := sec.first; i < sec.last; i++ {
		if s.syntax.entries[i].key == key {
			return &s.syntax.entries[i]
		}
	}
	return nil
}

// line returns the line that starts at off, and its line break.
func (s *state) line(off int) (text, ending string, next int) {
	end, next := lineEnd(s.data, off, true)
	return string(s.data[off:end]), string(s.data[end:next]), next
}

// ending returns the line break that the file uses at a section's header.
func (s *state) ending(sec *section) string {
	if sec != nil {
		if _, br, _ := s.line(sec.start); br != "" {
			return br
		}
	}
	if _, br, _ := s.line(0); br != "" {
		return br
	}
	return "\n"
}

// indent returns the white space before the keys of a section. A key that
// stood less deep than the one after it would swallow that.
func (s *state) indent(sec *section) string {
	off := sec.start
	if sec.first < sec.last {
		off = s.syntax.entries[sec.first].start
	}
	text, _, _ := s.line(off)
	return text[:len(text)-len(trimLeft([]byte(text)))]
}

// apply makes the edits, which do not overlap, and returns the new text.
func (s *state) apply(edits []edit) []byte {
	edits = slices.Clone(edits)
	slices.SortFunc(edits, func(a, b edit) int { return cmp.Or(a.start-b.start, a.end-b.end) })
	var out []byte
	at := 0
	for _, e := range edits {
		out = append(out, s.data[at:e.start]...)
		text := e.text
		if e.start == len(s.data) && len(out) > 0 && text != "" && !endsLine(out) {
			// The file's last line has no end: it gets one, and ours has none.
			br := s.ending(e.section)
			text = br + strings.TrimSuffix(text, br)
		}
		out = append(out, text...)
		at = e.end
	}
	if at == len(s.data) && len(s.data) > 0 && !endsLine(s.data) && endsLine(out) {
		out = out[:len(out)-breakBefore(out)] // and the other way round
	}
	return append(out, s.data[at:]...)
}

func endsLine(b []byte) bool { return breakBefore(b) > 0 }

// breakBefore returns the length of the line break that b ends with.
func breakBefore(b []byte) int {
	switch {
	case bytes.HasSuffix(b, []byte("\r\n")):
		return 2
	case bytes.HasSuffix(b, []byte("\n")), bytes.HasSuffix(b, []byte("\r")):
		return 1
	}
	return 0
}

// misread says which section of after is not what the edits were meant to
// make of it, "" if all are.
func misread(before, after *state, edits []edit) string {
	changed := map[int]int{}
	made := 0
	for _, e := range edits {
		if e.section == nil {
			made++
			continue
		}
		changed[e.section.start] += e.keys
	}
	return misreadBy(before, after, changed, made)
}

// misreadBy is misread for sections, by their start, that should have so many
// keys more, and so many sections that were made.
func misreadBy(before, after *state, changed map[int]int, made int) string {
	for i := range before.syntax.sections {
		old := &before.syntax.sections[i]
		if i == len(after.syntax.sections) {
			return old.name
		}
		now := &after.syntax.sections[i]
		keys, touched := changed[old.start]
		if now.name != old.name || now.last-now.first != old.last-old.first+keys {
			return old.name
		}
		for j := old.first; !touched && j < old.last; j++ {
			a, b := &before.syntax.entries[j], &after.syntax.entries[now.first+j-old.first]
			if !bytes.Equal(trim(before.data[a.start:a.end]), trim(after.data[b.start:b.end])) {
				return old.name
			}
		}
	}
	if n := len(before.syntax.sections); len(after.syntax.sections) != n+made {
		return after.syntax.sections[min(n, len(after.syntax.sections)-1)].name
	}
	return ""
}

// commit makes the edits part of what Save writes.
func (e *Editor) commit(before, after *state, edits []edit) {
	lines := func(text string) []string {
		var out []string
		for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
			out = append(out, line)
		}
		return out
	}
	for _, ed := range edits {
		header := "a new section"
		if ed.section != nil {
			header, _, _ = before.line(ed.section.start)
		}
		e.changes = append(e.changes, Change{
			Section: strings.TrimFunc(header, isSpace),
			Old:     lines(string(before.data[ed.start:ed.end])),
			New:     lines(ed.text),
		})
	}
	e.config.data = after.data
}
