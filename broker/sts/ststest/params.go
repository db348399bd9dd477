package ststest

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// params are the parameters of a call in the query protocol. Lists and
// structures are spelled out in the names: Tags.member.1.Key.
type params map[string]string

// maxParams bounds what one request may hold; the largest legal one, with 50
// tags, 50 transitive keys and 10 policies, has far fewer.
const maxParams = 1000

func (p params) parse(query string) *apiError {
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, err1 := url.QueryUnescape(name)
		value, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil || !utf8.ValidString(name) || !utf8.ValidString(value) {
			return refuse(http.StatusBadRequest, "MalformedQueryString", "The query string contains a syntax error.")
		}
		if _, twice := p[name]; twice || len(p) == maxParams {
			return refuse(http.StatusBadRequest, "MalformedQueryString", "The query string contains a repeated parameter, or too many.")
		}
		p[name] = value
	}
	return nil
}

// members returns the numbers of a list's members, in order.
func (p params) members(list string) []int {
	var ns []int
	for name := range p {
		rest, ok := strings.CutPrefix(name, list+".member.")
		if !ok {
			continue
		}
		digits, _, _ := strings.Cut(rest, ".")
		n, err := strconv.Atoi(digits)
		if err == nil && n > 0 && strconv.Itoa(n) == digits && !slices.Contains(ns, n) {
			ns = append(ns, n)
		}
	}
	slices.Sort(ns)
	return ns
}

// A pattern is one of AWS's API model (sts/2011-06-15): as its messages quote
// it, and as Go reads it. \w and \d are ASCII in both.
type pattern struct {
	text string
	re   *regexp.Regexp
}

func newPattern(text string) pattern { return pattern{text, regexp.MustCompile("^(" + text + ")$")} }

var (
	arnPattern = pattern{`[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD\u10000-\u10FFFF]+`,
		regexp.MustCompile(`^[\t\n\r\x{20}-\x{7E}\x{85}\x{A0}-\x{D7FF}\x{E000}-\x{FFFD}\x{10000}-\x{10FFFF}]+$`)}
	policyPattern = pattern{`[\u0009\u000A\u000D\u0020-\u00FF]+`,
		regexp.MustCompile(`^[\t\n\r\x{20}-\x{FF}]+$`)}
	namePattern       = newPattern(`[\w+=,.@-]*`)
	externalIDPattern = newPattern(`[\w+=,.@:\/-]*`)
	serialPattern     = newPattern(`[\w+=/:,.@-]*`)
	codePattern       = newPattern(`[\d]*`)
	tagKeyPattern     = newPattern(`[\p{L}\p{Z}\p{N}_.:/=+\-@]+`)
	tagValuePattern   = newPattern(`[\p{L}\p{Z}\p{N}_.:/=+\-@]*`)
	keyIDPattern      = newPattern(`[\w]*`)
	markerPattern     = pattern{`[\u0020-\u00FF]*`, regexp.MustCompile(`^[\x{20}-\x{FF}]*$`)}
)

// checkText returns "", or the constraint of AWS's that s breaks.
func checkText(s string, min, max int, like pattern) string {
	n := utf8.RuneCountInString(s)
	switch {
	case n < min:
		return fmt.Sprintf("Member must have length greater than or equal to %d", min)
	case n > max:
		return fmt.Sprintf("Member must have length less than or equal to %d", max)
	case !like.re.MatchString(s):
		return "Member must satisfy regular expression pattern: " + like.text
	}
	return ""
}

// violations collects what is wrong with a call's parameters, to be told at
// once, as AWS does.
type violations []string

func (v *violations) add(value, member, constraint string) {
	*v = append(*v, fmt.Sprintf("Value '%s' at '%s' failed to satisfy constraint: %s", value, member, constraint))
}

// text checks a parameter that may be absent.
func (v *violations) text(p params, name string, min, max int, like pattern) string {
	value, present := p[name]
	if present {
		v.value(value, lowerFirst(name), min, max, like)
	}
	return value
}

// required checks a parameter that must be there.
func (v *violations) required(p params, name string, min, max int, like pattern) string {
	if _, present := p[name]; !present {
		*v = append(*v, fmt.Sprintf("Value null at '%s' failed to satisfy constraint: Member must not be null", lowerFirst(name)))
		return ""
	}
	return v.text(p, name, min, max, like)
}

func (v *violations) value(value, member string, min, max int, like pattern) {
	if c := checkText(value, min, max, like); c != "" {
		v.add(value, member, c)
	}
}

// seconds checks DurationSeconds; it returns 0 where it is absent.
func (v *violations) seconds(p params, min, max int) int {
	return v.number(p, "DurationSeconds", min, max)
}

// number checks a parameter that may be absent, and is 0 then.
func (v *violations) number(p params, name string, min, max int) int {
	text, present := p[name]
	if !present {
		return 0
	}
	n, err := strconv.Atoi(text)
	switch {
	case err != nil:
		v.add(text, lowerFirst(name), "Member must be a number")
	case n < min:
		v.add(text, lowerFirst(name), fmt.Sprintf("Member must have value greater than or equal to %d", min))
	case n > max:
		v.add(text, lowerFirst(name), fmt.Sprintf("Member must have value less than or equal to %d", max))
	}
	return n
}

func (v *violations) count(n, max int, member string) {
	if n > max {
		v.add(fmt.Sprintf("%d members", n), member, fmt.Sprintf("Member must have length less than or equal to %d", max))
	}
}

func (v violations) err() *apiError {
	switch len(v) {
	case 0:
		return nil
	case 1:
		return invalid("1 validation error detected: " + v[0])
	}
	return invalid(fmt.Sprintf("%d validation errors detected: %s", len(v), strings.Join(v, "; ")))
}

func invalid(message string) *apiError {
	return refuse(http.StatusBadRequest, "ValidationError", message)
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
