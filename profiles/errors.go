package profiles

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A ConfigError is something in the files that cannot be used. Zero fields are
// not known or do not apply.
type ConfigError struct {
	File    string
	Line    int // from 1
	Profile string
	Key     string
	Msg     string // lower case, no stop, no value that may be secret

	err error // of the system, where reading failed
}

// Error returns `file:line: profile "x": key: msg`. A file whose name is not
// plain text is quoted.
func (e *ConfigError) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(plain(e.File))
		if e.Line > 0 {
			b.WriteString(":" + itoa(e.Line))
		}
		b.WriteString(": ")
	} else if e.Line > 0 {
		b.WriteString("line " + itoa(e.Line) + ": ")
	}
	if e.Profile != "" {
		b.WriteString("profile " + quote(e.Profile) + ": ")
	}
	if e.Key != "" {
		b.WriteString(plainKey(e.Key) + ": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// Unwrap returns the error of the system, if reading the file failed.
func (e *ConfigError) Unwrap() error { return e.err }

// A NotFoundError says that no profile has the name.
type NotFoundError struct {
	Name    string
	Nearest []string // at most three names that may have been meant, best first
	Files   Files    // where it was looked for
	// Bare is the line of a section "[Name]" in the config file, which is no
	// profile there: the AWS CLI wants "[profile Name]". 0 if there is none.
	Bare int
}

// Error names the profile, the files and what may have been meant.
func (e *NotFoundError) Error() string {
	msg := "no profile " + quote(e.Name)
	var files []string
	for _, f := range []string{e.Files.Config, e.Files.Credentials} {
		if f != "" {
			files = append(files, plain(f))
		}
	}
	if len(files) > 0 {
		msg += " in " + strings.Join(files, " or ")
	}
	switch {
	case e.Bare > 0:
		msg += fmt.Sprintf(": line %d must read %s", e.Bare, quote("[profile "+e.Name+"]"))
	case len(e.Nearest) > 0:
		quoted := make([]string, len(e.Nearest))
		for i, n := range e.Nearest {
			quoted[i] = quote(n)
		}
		msg += "; did you mean " + strings.Join(quoted, " or ") + "?"
	}
	return msg
}

// quote quotes what comes from outside, cut to a readable length.
func quote(s string) string {
	const most = 120
	if len(s) > most {
		n := most
		for n > most-utf8.UTFMax && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "…"
	}
	return strconv.Quote(s)
}

// plain returns a path as it is, or quoted if any of it does not print.
func plain(path string) string {
	if !utf8.ValidString(path) || strings.ContainsFunc(path, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(path)
	}
	return path
}

// plainKey returns the name of a key that we know. Others are not shown: a
// secret that was broken over lines looks like a key.
func plainKey(key string) string {
	if k, _ := known([]byte(key)); k != "" {
		return k
	}
	if strings.HasPrefix(key, ownPrefix) {
		return quote(key)
	}
	return "a key"
}

func itoa(n int) string { return strconv.Itoa(n) }

// Nearest returns up to three of names that may have been meant by name, best
// first.
func Nearest(name string, names []string) []string { return nearest(name, names) }

// nearest returns up to three of names that may have been meant by name: the
// same in another case, the beginning of one another, or few typing errors
// away.
func nearest(name string, names []string) []string {
	type candidate struct {
		name string
		far  int
	}
	const (
		longest = 128   // of names worth comparing, in bytes
		most    = 20000 // names looked at
	)
	if len(name) > longest {
		return nil
	}
	var (
		found  []candidate
		folded = strings.ToLower(name)
		limit  = max(1, utf8.RuneCountInString(folded)/3)
	)
	for _, n := range names[:min(len(names), most)] {
		if len(n) > longest {
			continue
		}
		f := strings.ToLower(n)
		far := distance(folded, f, limit)
		switch {
		case f == folded:
			far = 0
		case far <= limit:
		case len(folded) > 1 && strings.HasPrefix(f, folded), len(f) > 1 && strings.HasPrefix(folded, f):
			far = limit + 1 // after the typing errors
		default:
			continue
		}
		found = append(found, candidate{n, far})
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.far, b.far), cmp.Compare(len(a.name), len(b.name)), strings.Compare(a.name, b.name))
	})
	var out []string
	for _, c := range found[:min(len(found), 3)] {
		out = append(out, c.name)
	}
	return out
}

// distance counts the insertions, deletions, substitutions and swaps of
// neighbours between a and b (optimal string alignment); limit+1 stands for
// more than limit.
func distance(a, b string, limit int) int {
	s, t := []rune(a), []rune(b)
	if d := len(s) - len(t); d > limit || -d > limit {
		return limit + 1
	}
	before, prev, cur := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(s); i++ {
		cur[0] = i
		for j := 1; j <= len(t); j++ {
			cost := 1
			if s[i-1] == t[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return min(prev[len(t)], limit+1)
}
