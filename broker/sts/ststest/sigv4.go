package ststest

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Signature Version 4, the verifying side.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

const (
	algorithm   = "AWS4-HMAC-SHA256"
	terminator  = "aws4_request"
	basicFormat = "20060102T150405Z" // ISO 8601 "basic format"
	maxSkew     = 5 * time.Minute
)

const msgSignature = "The request signature we calculated does not match the signature you provided. " +
	"Check your AWS Secret Access Key and signing method. Consult the service documentation for details."

func badSignature(message string) *apiError {
	return refuse(http.StatusForbidden, "SignatureDoesNotMatch", message)
}

func incomplete(format string, args ...any) *apiError {
	return refuse(http.StatusBadRequest, "IncompleteSignature", fmt.Sprintf(format, args...))
}

// authenticate returns who signed the request. It notes the access key id in c
// as soon as it is known to have the form of one.
func (s *Sandbox) authenticate(r *http.Request, body []byte, svc *service, c *Call) (*principal, *apiError) {
	auth, err := parseAuthorization(r.Header)
	if err != nil {
		return nil, err
	}
	c.AccessKeyID = auth.keyID
	at, stamp, err := signingTime(r.Header)
	if err != nil {
		return nil, err
	}
	if err := s.checkScope(auth, svc, stamp); err != nil {
		return nil, err
	}
	if err := checkSkew(at, stamp, c.Time); err != nil {
		return nil, err
	}
	if err := auth.checkSigned(r.Header); err != nil {
		return nil, err
	}
	caller, secret, err := s.credentials(auth, r.Header.Values("X-Amz-Security-Token"), c.Time)
	if err != nil {
		return nil, err
	}
	creq, ok := canonicalRequest(r, auth.signedHeaders, body)
	if !ok {
		return nil, badSignature(msgSignature).because("a signed header is absent, or the query is malformed")
	}
	want := sign(secret, auth.date, auth.region, auth.service, stringToSign(stamp, auth.scope(), creq))
	if subtle.ConstantTimeCompare([]byte(want), []byte(auth.signature)) != 1 {
		return nil, badSignature(msgSignature).because("the secret access key is wrong, or the request was changed after it was signed")
	}
	return caller, nil
}

// An authorization is the Authorization header, taken apart.
type authorization struct {
	keyID, date, region, service, term string
	signedHeaders                      []string
	signature                          string
}

func (a authorization) scope() string {
	return strings.Join([]string{a.date, a.region, a.service, a.term}, "/")
}

func parseAuthorization(h http.Header) (a authorization, _ *apiError) {
	values := h.Values("Authorization")
	if len(values) == 0 {
		return a, refuse(http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token")
	}
	if len(values) > 1 {
		return a, incomplete("Only one Authorization header is allowed.")
	}
	header := values[0]
	alg, rest, _ := strings.Cut(header, " ")
	if alg != algorithm {
		return a, incomplete("Unsupported AWS 'algorithm': '%s' (only %s).", printable(alg), algorithm)
	}
	fields := map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		field = strings.TrimSpace(field)
		name, value, ok := strings.Cut(field, "=")
		if field == "" {
			continue
		}
		if !ok {
			return a, incomplete("'%s' not a valid key=value pair (missing equal-sign) in Authorization header (hashed with SHA-256 and encoded with Base64): '%s'.",
				printable(field), hashed(header))
		}
		if _, twice := fields[name]; twice {
			return a, incomplete("Authorization header has more than one '%s' parameter.", printable(name))
		}
		fields[name] = value
	}
	var missing strings.Builder
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if fields[name] == "" {
			fmt.Fprintf(&missing, "Authorization header requires '%s' parameter. ", name)
		}
	}
	if missing.Len() > 0 {
		return a, incomplete("%s(Hashed with SHA-256 and encoded with Base64) Authorization=%s", missing.String(), hashed(header))
	}
	parts := strings.Split(fields["Credential"], "/")
	if len(parts) != 5 {
		return a, incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '%s'",
			printable(fields["Credential"]))
	}
	if checkText(parts[0], 16, 128, keyIDPattern) != "" {
		return a, invalidToken("the access key id does not have the form of one")
	}
	a = authorization{
		keyID: parts[0], date: parts[1], region: parts[2], service: parts[3], term: parts[4],
		signedHeaders: strings.Split(fields["SignedHeaders"], ";"),
		signature:     fields["Signature"],
	}
	for i, name := range a.signedHeaders {
		if name == "" || name != strings.ToLower(name) || i > 0 && name <= a.signedHeaders[i-1] {
			return a, incomplete("'SignedHeaders' must be lower case, sorted and without repetition, got '%s'", printable(fields["SignedHeaders"]))
		}
	}
	return a, nil
}

// signingTime returns when the request says it was signed, also in the form
// that is signed. A Date header serves where X-Amz-Date is absent.
func signingTime(h http.Header) (at time.Time, stamp string, _ *apiError) {
	values, layout := h.Values("X-Amz-Date"), basicFormat
	if len(values) == 0 {
		values, layout = h.Values("Date"), http.TimeFormat
	}
	if len(values) != 1 {
		return at, "", incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "+
			"(Hashed with SHA-256 and encoded with Base64) Authorization=%s", hashed(h.Get("Authorization")))
	}
	at, err := time.Parse(layout, values[0])
	if err != nil {
		return at, "", incomplete("Date must be in ISO-8601 'basic format'. Got '%s'. See http://en.wikipedia.org/wiki/ISO_8601", printable(values[0]))
	}
	return at, at.UTC().Format(basicFormat), nil
}

func (s *Sandbox) checkScope(a authorization, svc *service, stamp string) *apiError {
	var wrong string
	if a.term != terminator {
		wrong += fmt.Sprintf("Credential should be scoped with a valid terminator: '%s', not '%s'. ", terminator, printable(a.term))
	}
	only := s.config.Region
	if svc.region != "" {
		only = svc.region
	}
	if !regionName.MatchString(a.region) || only != "" && a.region != only {
		wrong += fmt.Sprintf("Credential should be scoped to a valid region, not '%s'. ", printable(a.region))
	}
	if a.service != svc.name {
		wrong += fmt.Sprintf("Credential should be scoped to correct service: '%s'. ", svc.name)
	}
	if day := stamp[:8]; a.date != day {
		wrong += fmt.Sprintf("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'. ",
			printable(a.date), day, stamp)
	}
	if wrong != "" {
		return badSignature(wrong)
	}
	return nil
}

func checkSkew(at time.Time, stamp string, now time.Time) *apiError {
	now = now.UTC().Truncate(time.Second)
	if oldest := now.Add(-maxSkew); at.Before(oldest) {
		return badSignature(fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - 5 min.)",
			stamp, oldest.Format(basicFormat), now.Format(basicFormat)))
	}
	if newest := now.Add(maxSkew); at.After(newest) {
		return badSignature(fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 5 min.)",
			stamp, newest.Format(basicFormat), now.Format(basicFormat)))
	}
	return nil
}

// checkSigned refuses a request whose host or X-Amz-… headers are not covered
// by the signature.
func (a authorization) checkSigned(h http.Header) *apiError {
	if !slices.Contains(a.signedHeaders, "host") {
		return badSignature("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for name := range h {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") && !slices.Contains(a.signedHeaders, lower) {
			return badSignature(fmt.Sprintf("'%s' must be a 'SignedHeader' in the AWS Authorization.", printable(name)))
		}
	}
	return nil
}

// credentials finds the key that a request names: a long-term one, or a
// session's where the request carries a token.
func (s *Sandbox) credentials(a authorization, tokens []string, now time.Time) (*principal, string, *apiError) {
	keyID := a.keyID
	if len(tokens) > 1 {
		return nil, "", invalidToken("more than one session token")
	}
	if len(tokens) == 1 {
		return s.sessionCredentials(keyID, tokens[0], now)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[keyID]
	switch {
	case k == nil && strings.HasPrefix(keyID, "ASIA"):
		return nil, "", invalidToken("a session's key without its token")
	case k == nil:
		return nil, "", invalidToken("there is no such key")
	case k.status != Active:
		return nil, "", invalidToken("the key is " + string(k.status))
	case !k.known(now):
		return nil, "", invalidToken("the key is too new to be known here")
	}
	k.used, k.usedFor, k.usedIn = now, a.service, a.region
	switch {
	case k.user == nil:
		return rootPrincipal(k.account), k.secret, nil
	}
	return userPrincipal(k.user), k.secret, nil
}

func invalidToken(why string) *apiError {
	return refuse(http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid.").because(why)
}

// canonicalRequest returns the canonical form of a request to the path "/",
// the only one there is. It is not ok where a signed header is absent or the
// query cannot be parsed. The body's hash is always of the body that came.
func canonicalRequest(r *http.Request, signedHeaders []string, body []byte) (_ string, ok bool) {
	query, ok := canonicalQuery(r.URL.RawQuery)
	if !ok {
		return "", false
	}
	var b strings.Builder
	b.WriteString(r.Method + "\n/\n" + query + "\n")
	for _, name := range signedHeaders {
		values := headerValues(r, name)
		if len(values) == 0 {
			return "", false
		}
		b.WriteString(name + ":")
		for i, v := range values {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strings.Join(strings.FieldsFunc(v, func(c rune) bool { return c == ' ' || c == '\t' }), " "))
		}
		b.WriteByte('\n')
	}
	b.WriteString("\n" + strings.Join(signedHeaders, ";") + "\n" + hexHash(body))
	return b.String(), true
}

// headerValues returns a header with what net/http keeps elsewhere.
func headerValues(r *http.Request, name string) []string {
	switch name {
	case "host":
		return []string{r.Host}
	case "content-length":
		if r.ContentLength >= 0 {
			return []string{strconv.FormatInt(r.ContentLength, 10)}
		}
	}
	return r.Header.Values(name)
}

// canonicalQuery sorts the parameters by encoded name, then by encoded value.
func canonicalQuery(raw string) (string, bool) {
	if raw == "" {
		return "", true
	}
	type pair struct{ name, value string }
	var pairs []pair
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		n, err1 := url.QueryUnescape(name)
		v, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil {
			return "", false
		}
		pairs = append(pairs, pair{uriEncode(n), uriEncode(v)})
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	encoded := make([]string, len(pairs))
	for i, p := range pairs {
		encoded[i] = p.name + "=" + p.value
	}
	return strings.Join(encoded, "&"), true
}

// uriEncode encodes every byte but RFC 3986's unreserved characters.
func uriEncode(s string) string {
	const upper = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(upper[c>>4])
			b.WriteByte(upper[c&15])
		}
	}
	return b.String()
}

func stringToSign(stamp, scope, canonicalRequest string) string {
	return strings.Join([]string{algorithm, stamp, scope, hexHash([]byte(canonicalRequest))}, "\n")
}

// sign derives the signing key from the secret and the scope, and returns the
// signature in lower-case hex.
func sign(secret, date, region, service, stringToSign string) string {
	key := []byte("AWS4" + secret)
	for _, part := range []string{date, region, service, terminator} {
		key = hmacSHA256(key, part)
	}
	return hex.EncodeToString(hmacSHA256(key, stringToSign))
}

func hmacSHA256(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}

func hexHash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// hashed is how AWS quotes an Authorization header without showing it.
func hashed(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// printable makes hostile text fit to quote: short, and no control characters.
func printable(s string) string {
	if len(s) > 256 {
		s = s[:256] + "…"
	}
	return strings.Map(func(c rune) rune {
		if c < 0x20 || c == 0x7f || c == 0xfffd {
			return '?'
		}
		return c
	}, s)
}
