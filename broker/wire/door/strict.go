package door

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// maxNesting is how deep objects and arrays of a request may be nested.
const maxNesting = 8

// checkJSON returns nil when b is one JSON object (RFC 8259) that every
// parser reads the same way. encoding/json takes the last of repeated fields
// and matches names whatever their case, others take the first and do not; so
// names must be lower-case letters, digits and underscores, and may not
// repeat within their object. Strings must be Unicode: UTF-8 without lone
// surrogates in escapes. Nothing but white space may follow.
//
// Its errors never quote a value: it may be a key.
func checkJSON(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("it is not UTF-8")
	}
	s := scanner{b: b}
	s.space()
	if s.peek() != '{' {
		return errors.New("it is not a JSON object")
	}
	if err := s.value(0); err != nil {
		return err
	}
	s.space()
	if s.i < len(b) {
		return fmt.Errorf("something follows the JSON object, at byte %d", s.i)
	}
	return nil
}

// A scanner reads JSON from b[i:].
type scanner struct {
	b []byte
	i int
}

// peek returns the next byte, 0 at the end: no JSON holds a NUL.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\t' || s.b[s.i] == '\r') {
		s.i++
	}
}

func (s *scanner) malformed() error { return fmt.Errorf("it is not JSON, at byte %d", s.i) }

func (s *scanner) value(depth int) error {
	switch c := s.peek(); {
	case (c == '{' || c == '[') && depth == maxNesting:
		return fmt.Errorf("it is nested more than %d deep", maxNesting)
	case c == '{':
		return s.object(depth + 1)
	case c == '[':
		return s.array(depth + 1)
	case c == '"':
		return s.text()
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if len(s.b)-s.i >= len(word) && string(s.b[s.i:s.i+len(word)]) == word {
			s.i += len(word)
			return nil
		}
	}
	return s.malformed()
}

func (s *scanner) object(depth int) error {
	var names [][]byte
	s.i++
	for s.space(); s.peek() != '}'; s.space() {
		if len(names) > 0 {
			if s.peek() != ',' {
				return s.malformed()
			}
			s.i++
			s.space()
		}
		name, err := s.name()
		if err != nil {
			return err
		}
		for _, n := range names {
			if string(n) == string(name) {
				return fmt.Errorf("it has the field %q twice", name)
			}
		}
		if names = append(names, name); len(names) > 100 {
			return errors.New("it has more than 100 fields")
		}
		s.space()
		if s.peek() != ':' {
			return s.malformed()
		}
		s.i++
		s.space()
		if err := s.value(depth); err != nil {
			return err
		}
	}
	s.i++
	return nil
}

// name reads a field's name, which needs no escapes.
func (s *scanner) name() ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.malformed()
	}
	start := s.i + 1
	for i := start; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.i = i + 1
			return s.b[start:i], nil
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_':
		default:
			return nil, fmt.Errorf("the name of a field may have a-z, 0-9 and _ only, not what is at byte %d", i)
		}
	}
	return nil, s.malformed()
}

func (s *scanner) array(depth int) error {
	s.i++
	first := true
	for s.space(); s.peek() != ']'; s.space() {
		if !first {
			if s.peek() != ',' {
				return s.malformed()
			}
			s.i++
			s.space()
		}
		first = false
		if err := s.value(depth); err != nil {
			return err
		}
	}
	s.i++
	return nil
}

func (s *scanner) text() error {
	for s.i++; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return nil
		case c < 0x20:
			return s.malformed()
		case c != '\\':
			continue
		}
		s.i++
		switch s.peek() {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		case 'u':
			r, ok := s.hex4()
			if !ok {
				return s.malformed()
			}
			if r >= 0xd800 && r < 0xe000 {
				// The first half of a pair, and the second at once.
				if r >= 0xdc00 || s.i+2 >= len(s.b) || s.b[s.i+1] != '\\' || s.b[s.i+2] != 'u' {
					return fmt.Errorf("it has half a character at byte %d", s.i)
				}
				s.i += 2
				if low, ok := s.hex4(); !ok || low < 0xdc00 || low >= 0xe000 {
					return fmt.Errorf("it has half a character at byte %d", s.i)
				}
			}
		default:
			return s.malformed()
		}
	}
	return s.malformed()
}

// hex4 reads the four digits after a u, and stays on the last.
func (s *scanner) hex4() (r rune, ok bool) {
	if s.i+4 >= len(s.b) {
		return 0, false
	}
	for range 4 {
		s.i++
		switch c := s.b[s.i]; {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

func (s *scanner) number() error {
	digits := func() bool {
		start := s.i
		for '0' <= s.peek() && s.peek() <= '9' {
			s.i++
		}
		return s.i > start
	}
	if s.peek() == '-' {
		s.i++
	}
	if s.peek() == '0' {
		s.i++
	} else if !digits() {
		return s.malformed()
	}
	if s.peek() == '.' {
		s.i++
		if !digits() {
			return s.malformed()
		}
	}
	if s.peek()|0x20 == 'e' {
		s.i++
		if s.peek() == '+' || s.peek() == '-' {
			s.i++
		}
		if !digits() {
			return s.malformed()
		}
	}
	return nil
}
