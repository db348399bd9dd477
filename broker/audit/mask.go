package audit

import (
	"strings"
	"sync"
)

// mask stands for what was hidden.
const mask = "***"

// maskWindow is how much of a command line is looked at, in bytes. What is
// kept is far shorter, so that a secret that begins in it is seen whole.
const maskWindow = 4 << 10

// maxMasked is how many command lines are kept with their masks.
const maxMasked = 256

// commands turns command lines into what is recorded of them. The same few
// processes ask again and again, and masking costs more than all else of an
// entry, so its results are kept; mu guards them.
type commands struct {
	mode CommandMode

	mu     sync.Mutex
	masked map[string]string

	callers callers // that were shown so
}

func (c *commands) shown(command string) string {
	switch c.mode {
	case CommandNone:
		return ""
	case CommandName:
		name, _, _ := strings.Cut(command, " ")
		name = name[strings.LastIndexByte(name, '/')+1:]
		// "PASSWORD=x program" is no name.
		if i := strings.IndexByte(name, '='); i >= 0 {
			name = name[:i]
		}
		return name
	}
	if len(command) > maskWindow {
		command = command[:maskWindow]
	}
	c.mu.Lock()
	shown, ok := c.masked[command]
	c.mu.Unlock()
	if ok {
		return shown
	}
	shown = maskCommand(command)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.masked == nil || len(c.masked) >= maxMasked {
		c.masked = make(map[string]string)
	}
	c.masked[strings.Clone(command)] = shown // not what it may be a part of
	return shown
}

// maskCommand hides what looks like a secret in a command line: values of
// options and variables that are called one, URLs' user information, tokens
// with a known beginning, and what is shaped like an AWS secret access key or
// session token. It is a best effort: what does not look like a secret stays.
func maskCommand(s string) string {
	if len(s) > maskWindow {
		s = s[:maskWindow]
	}
	var b []byte // s[:done] with masks; nil until there is one
	done := 0
	hide := func(from, to int) {
		if from < done || from >= to {
			return
		}
		b = append(b, s[done:from]...)
		b = append(b, mask...)
		done = to
	}
	wordStart := 0 // of the blank-separated word that i is in
	for i := 0; i < len(s); {
		if !isWordByte(s[i]) {
			if isBlank(s[i]) {
				wordStart = i + 1
			}
			if s[i] == ':' && strings.HasPrefix(s[i:], "://") {
				if at := userinfoEnd(s, i+3); at > 0 {
					hide(i+3, at)
				}
			}
			i++
			continue
		}
		// A run of word bytes: the name of a value, a token, or neither.
		end := i + 1
		for end < len(s) && isWordByte(s[end]) {
			end++
		}
		word := s[i:end]
		switch {
		case end <= done:
		case hasTokenPrefix(word):
			hide(i, tokenEnd(s, i))
		case (len(word) == 6 && strings.EqualFold(word, "bearer") || len(word) == 5 && strings.EqualFold(word, "basic")) && end < len(s) && s[end] == ' ':
			hide(nextWord(s, end))
		case (s[wordStart] == '-' || end < len(s) && strings.IndexByte(`=:"'\\`, s[end]) >= 0) && isSecretName(word):
			if from, to, ok := valueAfter(s, wordStart, i, end); ok {
				hide(from, to)
			}
		case isUserOption(s[wordStart:end]):
			from, to := nextWord(s, end)
			if colon := strings.IndexByte(s[from:to], ':'); colon >= 0 && end < len(s) && (isBlank(s[end]) || s[end] == '=') {
				hide(from+colon+1, to)
			}
		default:
			if from, to, ok := keyShaped(s, i); ok {
				hide(from, to)
				end = max(end, to)
			}
		}
		i = end
	}
	if b == nil {
		return s
	}
	return string(append(b, s[done:]...))
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == 0 }

func isWordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

func isBase64Byte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '/'
}

// secretNames are looked for in the names of values, in lower case and
// without - and _.
var secretNames = [...]string{
	"secret", "passw", "passphrase", "passcode", "token", "apikey", "accesskey", "privatekey",
	"credential", "authorization", "signature", "mfacode", "otp",
}

// plainEnds are the ends of names whose value only tells where a secret is or
// what it is called.
var plainEnds = [...]string{"id", "ids", "name", "arn", "file", "path", "url", "uri", "stdin", "source", "process", "type", "provider"}

func isSecretName(word string) bool {
	if len(word) < 3 || len(word) > 64 {
		return false
	}
	var buf [64]byte
	n := 0
	for i := range len(word) {
		switch c := word[i]; {
		case c == '-' || c == '_':
		case 'A' <= c && c <= 'Z':
			buf[n] = c + 'a' - 'A'
			n++
		default:
			buf[n] = c
			n++
		}
	}
	name := buf[:n]
	found := string(name) == "pwd" && strings.HasPrefix(word, "-") || string(name) == "pass"
	for _, s := range secretNames {
		found = found || indexOf(name, s) >= 0
	}
	if !found {
		return false
	}
	for _, e := range plainEnds {
		if len(name) > len(e) && string(name[len(name)-len(e):]) == e {
			return false
		}
	}
	return true
}

// indexOf is strings.Index without the conversion.
func indexOf(b []byte, s string) int {
	for i := 0; i+len(s) <= len(b); i++ {
		if b[i] == s[0] && string(b[i:i+len(s)]) == s {
			return i
		}
	}
	return -1
}

// valueAfter finds the value of the name s[start:end]: after = or :, with or
// without quotes and blanks, or as the next word when the name is an option.
func valueAfter(s string, wordStart, start, end int) (from, to int, ok bool) {
	i := end
	for i < len(s) && (s[i] == '"' || s[i] == '\'' || s[i] == '\\') {
		i++
	}
	assigned := i < len(s) && (s[i] == '=' || s[i] == ':')
	switch {
	case assigned:
		i++
		if i < len(s) && s[i] == '=' {
			i++
		}
		for i < len(s) && s[i] == ' ' && s[i-1] != '=' {
			i++
		}
	case i == end && end < len(s) && isBlank(s[end]) && s[wordStart] == '-':
		from, to = nextWord(s, end)
		if strings.HasPrefix(s[from:to], "--") {
			return 0, 0, false
		}
		return from, to, from < to
	default:
		return 0, 0, false
	}
	for i < len(s) && s[i] == '\\' {
		i++
	}
	if i < len(s) && (s[i] == '"' || s[i] == '\'') {
		quote := s[i]
		to = i + 1
		for to < len(s) && s[to] != quote {
			if s[to] == '\\' && to+1 < len(s) && s[to+1] != quote {
				to++
			}
			to++
		}
		return i + 1, min(to, len(s)), true
	}
	inURL := start > 0 && (s[start-1] == '?' || s[start-1] == '&')
	for to = i; to < len(s) && !isBlank(s[to]) && s[to] != '"' && s[to] != '\'' && !(inURL && s[to] == '&'); to++ {
	}
	// "authorization: Bearer x" hides x as well.
	if kind := s[i:to]; strings.EqualFold(kind, "bearer") || strings.EqualFold(kind, "basic") {
		_, to = nextWord(s, to)
	}
	return i, to, i < to
}

// nextWord returns the word after the blanks or = at i; an empty one at the
// end of s.
func nextWord(s string, i int) (from, to int) {
	for i < len(s) && (isBlank(s[i]) || s[i] == '=') {
		i++
	}
	from = i
	if i < len(s) && (s[i] == '"' || s[i] == '\'') {
		if end := strings.IndexByte(s[i+1:], s[i]); end >= 0 {
			return i + 1, i + 1 + end
		}
	}
	for i < len(s) && !isBlank(s[i]) {
		i++
	}
	return from, i
}

func isUserOption(word string) bool {
	return word == "-u" || word == "--user" || word == "--proxy-user"
}

// userinfoEnd returns where the @ of a URL's authority is, 0 without one.
func userinfoEnd(s string, i int) int {
	at := 0
	for ; i < len(s) && !isBlank(s[i]) && s[i] != '/' && s[i] != '?' && s[i] != '#'; i++ {
		if s[i] == '@' {
			at = i
		}
	}
	return at
}

var tokenPrefixes = [...]string{
	"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "xoxa-", "xoxe-",
	"sk_live_", "rk_live_", "sk-ant-", "sk-proj-", "npm_", "AIza", "dckr_pat_", "pypi-", "eyJ", "ya29", "hvs",
	"FwoGZXIvYXdz", "IQoJb3JpZ2lu", "FQoGZXIvYXdz", // session tokens of AWS
}

func hasTokenPrefix(word string) bool {
	if len(word) < 15 {
		return false
	}
	for _, p := range tokenPrefixes {
		if strings.HasPrefix(word, p) && len(word) >= len(p)+12 {
			return true
		}
	}
	return false
}

func tokenEnd(s string, i int) int {
	for i < len(s) && (isBase64Byte(s[i]) || strings.IndexByte("-_.=~%", s[i]) >= 0) {
		i++
	}
	return i
}

// keyShaped looks at the run of base64 bytes at i: 40 bytes with capitals,
// small letters and digits are shaped like a secret access key, more than 100
// like a session token. After an access key id, 30 bytes are enough.
func keyShaped(s string, i int) (from, to int, ok bool) {
	from = i
	for from > 0 && isBase64Byte(s[from-1]) {
		from--
	}
	to = i
	var upper, lower, digit bool
	for to = from; to < len(s) && isBase64Byte(s[to]); to++ {
		c := s[to]
		upper = upper || 'A' <= c && c <= 'Z'
		lower = lower || 'a' <= c && c <= 'z'
		digit = digit || '0' <= c && c <= '9'
	}
	n := to - from
	if n < 30 || !upper || !lower || !digit {
		return 0, 0, false
	}
	return from, to, n == 40 || n > 100 || afterKeyID(s, from)
}

// afterKeyID reports whether an access key id ends before s[i], with one or
// two other bytes between.
func afterKeyID(s string, i int) bool {
	for skip := 1; skip <= 2; skip++ {
		end := i - skip
		if end < 20 {
			continue
		}
		if id := s[end-20 : end]; strings.HasPrefix(id, "AKIA") || strings.HasPrefix(id, "ASIA") {
			return true
		}
	}
	return false
}
