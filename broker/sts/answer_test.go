package sts_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"gatepass/broker"
	"gatepass/broker/sts"
)

// Whatever a server answers, there is a session that passed every check or an
// error fit to be shown.
func FuzzAnswer(f *testing.F) {
	const from = "2026-02-03T04:05:06Z"
	now, _ := time.Parse(time.RFC3339, from)
	good := assumedXML(sessionARN, now.Add(time.Hour))
	f.Add(200, good)
	f.Add(200, good[:len(good)/2])
	f.Add(200, "<html></html>")
	f.Add(403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>\u202e"+secretKey+"</Message></Error></ErrorResponse>")
	f.Add(400, "<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>")
	f.Add(503, "")
	var status int
	var body string
	srv := newFake(f, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		answer(w, status, body)
	})
	c := newClient(f, sts.Config{EndpointURL: srv.URL, Now: func() time.Time { return now }})
	f.Fuzz(func(t *testing.T, s int, b string) {
		if s < 200 || s > 599 || s == 204 || s == 304 { // those have no body
			return
		}
		status, body = s, b
		got, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
		if err == nil {
			cr := got.Credentials
			if got.ARN == "" || cr.AccessKeyID == "" || cr.SecretAccessKey.IsZero() || cr.SessionToken.IsZero() ||
				!cr.Expires.After(now) || cr.Expires.After(now.Add(37*time.Hour)) {
				t.Fatalf("accepted %q", b)
			}
			return
		}
		e := wantError(t, err, broker.CodeOf(err))
		if !e.Code.Known() || !utf8.ValidString(e.Message) || len(e.Message) > 4*sts.MaxText ||
			strings.ContainsFunc(e.Message, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%s: %q", e.Code, e.Message)
		}
	})
}

func FuzzScrub(f *testing.F) {
	f.Add("key "+secretKey+" and\x1b[31m\u202etoken", secretKey)
	f.Add("\xff\xfe", "12345678")
	f.Fuzz(func(t *testing.T, text, secret string) {
		got := sts.Scrub(text, []string{secret})
		if !utf8.ValidString(got) && utf8.ValidString(secret) {
			t.Fatalf("%q is not UTF-8", got)
		}
		masked := strings.ReplaceAll(got, "[secret]", "\x00")
		if len(secret) >= 8 && strings.Contains(strings.ToLower(masked), strings.ToLower(secret[:8])) && isASCII(secret) {
			t.Fatalf("%q holds the start of %q", got, secret)
		}
		if strings.ContainsFunc(got, func(r rune) bool { return r != utf8.RuneError && !unicode.IsPrint(r) }) {
			t.Fatalf("%q has unprintable characters", got)
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
