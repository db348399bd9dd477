package forward

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"gatepass/broker/audit"
)

// readHeaders reads the headers that requests bear, a token above all, from a
// file that nobody else may read: "Name: value" a line; empty lines and lines
// that begin with # do not count. Errors never quote it.
func readHeaders(path string) (http.Header, error) {
	data, err := readFile(path, maxHeaders, audit.CheckPrivate)
	if err != nil {
		return nil, fmt.Errorf("read headers: %w", err)
	}
	headers := http.Header{}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = textproto.CanonicalMIMEHeaderKey(name), strings.TrimSpace(value)
		switch {
		case !ok || !token(name) || value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			return nil, fmt.Errorf("read headers: line %d of %s is not a header, as \"Authorization: …\"", n, path)
		case slices.Contains([]string{"Host", "Content-Type", "Content-Length", "Transfer-Encoding", "Connection", "Trailer"}, name):
			return nil, fmt.Errorf("read headers: line %d of %s sets a header that is not for it", n, path)
		}
		headers.Add(name, value)
	}
	return headers, nil
}

// token is RFC 9110's.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}
