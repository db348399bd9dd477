package profiles

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What STS accepts is in its API reference, with the patterns taken as ASCII:
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
const (
	minDuration        = 900 * time.Second
	maxRoleDuration    = 43200 * time.Second
	maxSessionDuration = 129600 * time.Second // GetSessionToken
	maxTags            = 50
)

// The checks say what is wrong with a value, or "".

func checkRoleARN(s string) string {
	if len(s) < 20 || len(s) > 2048 {
		return "it must have 20 to 2048 characters"
	}
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iam" || parts[3] != "" {
		return `it must look like "arn:aws:iam::123456789012:role/NAME"`
	}
	partition, account := parts[1], parts[4]
	if !strings.HasPrefix(partition+"-", "aws-") || !consistsOf(partition, func(c byte) bool { return c == '-' || isLower(c) || isDigit(c) }) {
		return "the partition is none of AWS's"
	}
	if len(account) != 12 || !consistsOf(account, isDigit) {
		return "the account must be 12 digits"
	}
	role, ok := strings.CutPrefix(parts[5], "role/")
	if !ok {
		return `what follows the account must begin with "role/"`
	}
	i := strings.LastIndexByte(role, '/') + 1
	path, name := role[:i], role[i:]
	if len(path) > 511 || !consistsOf(path, func(c byte) bool { return '!' <= c && c <= '~' }) {
		return "the role's path must be printable ASCII without blanks, up to 512 characters"
	}
	if len(name) < 1 || len(name) > 64 || !consistsOf(name, func(c byte) bool { return isWord(c) || strings.IndexByte("+=,.@-", c) >= 0 }) {
		return "the role's name must be 1 to 64 letters, digits and _+=,.@-"
	}
	return ""
}

func checkSessionName(s string) string {
	if len(s) < 2 || len(s) > 64 || !isIAMName(s) {
		return "a session name must be 2 to 64 letters, digits and _+=,.@-"
	}
	return ""
}

func checkSourceIdentity(s string) string {
	if len(s) >= 4 && strings.EqualFold(s[:4], "aws:") {
		return `a source identity must not begin with "aws:"`
	}
	if len(s) < 2 || len(s) > 64 || !isIAMName(s) {
		return "a source identity must be 2 to 64 letters, digits and _+=,.@-"
	}
	return ""
}

func checkExternalID(s string) string {
	if len(s) < 2 || len(s) > 1224 || !consistsOf(s, func(c byte) bool { return isWord(c) || strings.IndexByte("+=,.@:/-", c) >= 0 }) {
		return "an external id must be 2 to 1224 letters, digits and _+=,.@:/-"
	}
	return ""
}

func checkMFASerial(s string) string {
	if len(s) < 9 || len(s) > 256 || !consistsOf(s, func(c byte) bool { return isWord(c) || strings.IndexByte("+=/:,.@-", c) >= 0 }) {
		return "an MFA serial must be the device's ARN or serial number: 9 to 256 letters, digits and _+=/:,.@-"
	}
	return ""
}

// checkRegion asks for a host label, as botocore's validate_region_name does:
// the region becomes part of a host name.
func checkRegion(s string) string {
	if len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' || !consistsOf(s, func(c byte) bool { return c != '_' && isWord(c) || c == '-' }) {
		return "a region must be letters, digits and hyphens"
	}
	return ""
}

// checkEndpoint never repeats the URL, which may hold a password.
func checkEndpoint(s string) string {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !isOneLine(s):
		return `must be a URL such as "https://sts.example.com"`
	case u.User != nil:
		return "must not hold a user or a password"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s, "#"):
		return "must not hold a query or a fragment"
	}
	return ""
}

// parseDuration reads a number of seconds or, where units are allowed, a Go
// duration of whole seconds.
func parseDuration(s string, units bool) (time.Duration, bool) {
	if len(s) <= 9 && consistsOf(s, isDigit) {
		n, err := strconv.Atoi(s)
		return time.Duration(n) * time.Second, err == nil
	}
	if !units {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d%time.Second == 0
}

// parseTags reads "k=v,k2=v2".
func parseTags(s string) ([]Tag, error) {
	var tags []Tag
	for item := range strings.SplitSeq(s, ",") {
		k, v, ok := strings.Cut(item, "=")
		if !ok {
			return nil, fmt.Errorf(`tag %d has no "=": tags are written "key=value,key2=value2"`, len(tags)+1)
		}
		tag := Tag{strings.TrimSpace(k), strings.TrimSpace(v)}
		if err := checkTagKey(tag.Key); err != nil {
			return nil, err
		}
		if utf8.RuneCountInString(tag.Value) > 256 || !isTagText(tag.Value) {
			return nil, fmt.Errorf("the value of tag %s must be up to 256 letters, digits, blanks and _.:/=+-@", quote(tag.Key))
		}
		for _, t := range tags {
			if strings.EqualFold(t.Key, tag.Key) {
				return nil, fmt.Errorf("tag %s is there twice (AWS ignores case)", quote(tag.Key))
			}
		}
		if tags = append(tags, tag); len(tags) > maxTags {
			return nil, errTooManyTags
		}
	}
	return tags, nil
}

// parseTagKeys reads "k,k2".
func parseTagKeys(s string) ([]string, error) {
	var keys []string
	for k := range strings.SplitSeq(s, ",") {
		k = strings.TrimSpace(k)
		if err := checkTagKey(k); err != nil {
			return nil, err
		}
		for _, other := range keys {
			if strings.EqualFold(k, other) {
				return nil, fmt.Errorf("tag %s is there twice (AWS ignores case)", quote(k))
			}
		}
		if keys = append(keys, k); len(keys) > maxTags {
			return nil, errTooManyTags
		}
	}
	return keys, nil
}

var errTooManyTags = errors.New("there are more than 50 tags")

func checkTagKey(k string) error {
	if n := utf8.RuneCountInString(k); n < 1 || n > 128 || !isTagText(k) {
		return fmt.Errorf("%s cannot be a tag's key: it must be 1 to 128 letters, digits, blanks and _.:/=+-@", quote(k))
	}
	if len(k) >= 4 && strings.EqualFold(k[:4], "aws:") {
		return fmt.Errorf(`%s cannot be a tag's key: "aws:" is AWS's own`, quote(k))
	}
	return nil
}

// isTagText matches [\p{L}\p{Z}\p{N}_.:/=+\-@]*.
func isTagText(s string) bool {
	for _, r := range s {
		if !unicode.In(r, unicode.L, unicode.Z, unicode.N) && !strings.ContainsRune("_.:/=+-@", r) {
			return false
		}
	}
	return true
}

// commentHint explains a value that goes on with what other SDKs take for a
// comment.
func commentHint(value string) string {
	for _, c := range []string{" #", " ;", "\t#", "\t;"} {
		if strings.Contains(value, c) {
			return "; to the AWS CLI a comment is a line of its own"
		}
	}
	return ""
}

func isIAMName(s string) bool {
	return consistsOf(s, func(c byte) bool { return isWord(c) || strings.IndexByte("+=,.@-", c) >= 0 })
}

func isOneLine(s string) bool { return !strings.ContainsFunc(s, unicode.IsControl) }

// consistsOf reports whether is holds for each byte of s.
func consistsOf(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return true
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isWord(c byte) bool  { return isLower(c) || 'A' <= c && c <= 'Z' || isDigit(c) || c == '_' }
