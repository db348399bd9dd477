package profiles

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A syntax is the shape of one file: where its sections and keys stand. The
// offsets are into the bytes that were parsed, which it does not keep: a
// credentials file holds secrets, and only what is asked for is copied out.
//
// The grammar is that of Python's configparser.RawConfigParser with its
// defaults, which is what botocore reads with:
// https://docs.python.org/3/library/configparser.html#supported-ini-file-structure
type syntax struct {
	sections []section // in the order of the file
	entries  []entry   // of all sections
}

// A section runs from its header to the next one.
type section struct {
	name        string // between the brackets, verbatim
	line        int    // of the header, from 1
	start, end  int    // offsets of the header's line, and after the section's last
	first, last int    // its entries are syntax.entries[first:last]
}

// An entry is a key with its value, which may go on over more lines.
type entry struct {
	key   string // in lower case
	line  int
	start int // offset of the key's line
	value int // offset after the delimiter
	end   int // offset after the last line of the value, line break included
}

// inherited is the section that gives its keys to all others of its file. It
// may be repeated.
const inherited = "DEFAULT"

// parse returns the syntax of data. Its errors name the line and no file.
func parse(data []byte) (*syntax, *ConfigError) {
	if err := checkText(data); err != nil {
		return nil, err
	}
	var (
		s         syntax
		names     = map[string]int{} // section name → line
		defaults  keySet             // of all [DEFAULT] sections
		own       keySet             // of the section being read
		keys      = &own
		inValue   bool // a deeper line continues the last entry
		level     int  // indentation of the last header or key
		line      int
		cr        = bytes.IndexByte(data, '\r') >= 0
		off, next int
	)
	closeSection := func() {
		if n := len(s.sections); n > 0 {
			s.sections[n-1].end = off
			s.sections[n-1].last = len(s.entries)
		}
	}
	for ; off < len(data); off = next {
		var end int
		end, next = lineEnd(data, off, cr)
		line++
		raw := data[off:end]
		text := trim(raw)
		if len(text) == 0 || isComment(text) {
			continue // neither ends a value
		}
		indent := indentation(raw)
		if inValue && indent > level {
			s.entries[len(s.entries)-1].end = next
			continue
		}
		level = indent

		if header, ok := sectionHeader(text); ok {
			closeSection()
			inValue = false
			name := string(header)
			if name == inherited {
				keys = &defaults
			} else if first, dup := names[name]; dup {
				return nil, &ConfigError{Line: line, Msg: "section " + quote("["+name+"]") + " is already on line " + itoa(first)}
			} else {
				names[name] = line
				own.reset()
				keys = &own
			}
			s.sections = append(s.sections, section{name: name, line: line, start: off, first: len(s.entries)})
			continue
		}
		if len(s.sections) == 0 {
			return nil, &ConfigError{Line: line, Msg: `a section such as "[default]" must come before the first key`}
		}
		i := bytes.IndexAny(text, "=:")
		if i < 0 {
			// The line is not quoted: it may be the rest of a secret.
			return nil, &ConfigError{Line: line, Msg: `this line is neither "key = value", a section nor a comment; lines that continue a value are indented`}
		}
		key := foldKey(bytes.TrimRightFunc(text[:i], isSpace))
		if key == "" {
			return nil, &ConfigError{Line: line, Msg: "there is no key before the " + quote(string(text[i:i+1]))}
		}
		if first := keys.add(key, line); first > 0 {
			return nil, &ConfigError{Line: line, Key: key, Msg: "is already on line " + itoa(first)}
		}
		inValue = true
		// text begins where raw does, but for the indentation's bytes.
		lead := len(raw) - len(trimLeft(raw))
		s.entries = append(s.entries, entry{key: key, line: line, start: off, value: off + lead + i + 1, end: next})
	}
	closeSection()
	return &s, nil
}

// checkText refuses what is not text that the AWS CLI reads.
func checkText(data []byte) *ConfigError {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return &ConfigError{Line: 1, Msg: "the file starts with a byte order mark, which the AWS CLI does not read: save it as UTF-8 without BOM"}
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		return &ConfigError{Line: 1, Msg: "the file is UTF-16: save it as UTF-8 without BOM"}
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return &ConfigError{Line: lineAt(data, i), Msg: "the file holds a NUL byte: it is damaged or not text in UTF-8"}
	}
	if utf8.Valid(data) {
		return nil
	}
	for i := 0; ; {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n <= 1 {
			return &ConfigError{Line: lineAt(data, i), Msg: "the line is not valid UTF-8"}
		}
		i += n
	}
}

// lineAt returns the number of the line that holds offset i.
func lineAt(data []byte, i int) int {
	line := 1
	for off := 0; ; line++ {
		_, next := lineEnd(data, off, true)
		if next > i || next >= len(data) {
			return line
		}
		off = next
	}
}

// lineEnd returns where the line at off ends, and where the next one starts.
// LF, CR LF and a lone CR end lines (Python's universal newlines); cr says
// whether data has any CR.
func lineEnd(data []byte, off int, cr bool) (end, next int) {
	i := -1
	if cr {
		i = bytes.IndexAny(data[off:], "\r\n")
	} else {
		i = bytes.IndexByte(data[off:], '\n')
	}
	if i < 0 {
		return len(data), len(data)
	}
	end = off + i
	next = end + 1
	if data[end] == '\r' && next < len(data) && data[next] == '\n' {
		next++
	}
	return end, next
}

// sectionHeader returns what stands between the first "[" of text and the
// last "]" in it: at least one byte. What follows is ignored.
func sectionHeader(text []byte) ([]byte, bool) {
	if text[0] != '[' {
		return nil, false
	}
	i := bytes.LastIndexByte(text, ']')
	if i < 2 {
		return nil, false
	}
	return text[1:i], true
}

// valueOf returns the value of e: its lines without the blanks around them,
// comment lines left out, blank lines kept but for those at the end.
func valueOf(data []byte, e *entry) string {
	end, next := lineEnd(data[:e.end], e.value, true)
	first := trim(data[e.value:end])
	if next == e.end {
		return string(first)
	}
	var b strings.Builder
	b.Write(first)
	for off := next; off < e.end; off = next {
		end, next = lineEnd(data[:e.end], off, true)
		text := trim(data[off:end])
		if len(text) > 0 && isComment(text) {
			continue
		}
		b.WriteByte('\n')
		b.Write(text)
	}
	return strings.TrimRightFunc(b.String(), isSpace)
}

// nested splits a value that starts with a line break into its own keys, one
// level deep, as botocore does. Their case is kept and the last one of a name
// counts. It reports false where a line has no "=".
func nested(value string) (map[string]string, bool) {
	m := map[string]string{}
	for line := range strings.FieldsFuncSeq(value, isLineBreak) {
		line = strings.TrimFunc(line, isSpace)
		if line == "" {
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if !ok {
			return nil, false
		}
		m[strings.TrimFunc(k, isSpace)] = strings.TrimFunc(v, isSpace)
	}
	return m, true
}

// isLineBreak is what Python's str.splitlines splits at.
func isLineBreak(r rune) bool {
	switch r {
	case '\n', '\r', '\v', '\f', 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029:
		return true
	}
	return false
}

// isSpace is Python's str.isspace: Unicode's white space and four separators.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }

func isComment(text []byte) bool { return text[0] == '#' || text[0] == ';' }

func trim(b []byte) []byte {
	b = trimLeft(b)
	for n := len(b); n > 0; n = len(b) {
		if c := b[n-1]; c >= utf8.RuneSelf {
			return bytes.TrimRightFunc(b, isSpace)
		} else if !isSpace(rune(c)) {
			break
		}
		b = b[:n-1]
	}
	return b
}

func trimLeft(b []byte) []byte {
	for len(b) > 0 {
		if c := b[0]; c >= utf8.RuneSelf {
			return bytes.TrimLeftFunc(b, isSpace)
		} else if !isSpace(rune(c)) {
			break
		}
		b = b[1:]
	}
	return b
}

// indentation counts the white space before text, in characters.
func indentation(raw []byte) int {
	return utf8.RuneCount(raw[:len(raw)-len(trimLeft(raw))])
}

// foldKey returns a key in lower case, as Python's str.lower makes it but for
// the final sigma.
func foldKey(b []byte) string {
	var buf [48]byte
	if len(b) <= len(buf) {
		n := 0
		for ; n < len(b) && b[n] < utf8.RuneSelf; n++ {
			c := b[n]
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			buf[n] = c
		}
		if n == len(b) {
			if k, _ := known(buf[:n]); k != "" {
				return k // without a copy
			}
			return string(buf[:n])
		}
	}
	// Go maps İ to i alone; Python keeps the dot.
	return strings.ToLower(strings.ReplaceAll(string(b), "İ", "i̇"))
}

// A keySet finds the keys that occur twice. Sections are short, except where
// somebody wants to keep us busy.
type keySet struct {
	few  []keyLine
	many map[string]int
}

type keyLine struct {
	key  string
	line int
}

func (s *keySet) reset() { s.few, s.many = s.few[:0], nil }

// add notes that key stands on line and returns the line it was on before, or 0.
func (s *keySet) add(key string, line int) int {
	if s.many != nil {
		first := s.many[key]
		if first == 0 {
			s.many[key] = line
		}
		return first
	}
	for _, k := range s.few {
		if k.key == key {
			return k.line
		}
	}
	s.few = append(s.few, keyLine{key, line})
	if len(s.few) > 32 {
		s.many = make(map[string]int, 2*len(s.few))
		for _, k := range s.few {
			s.many[k.key] = k.line
		}
	}
	return 0
}
