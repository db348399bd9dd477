package ststest

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The requests and signatures of AWS's Signature Version 4 test suite, those
// for the path "/", and of the worked example in its documentation.
// https://docs.aws.amazon.com/general/latest/gr/signature-v4-test-suite.html
var vectors = []struct {
	name, request, service, signed, signature string
}{
	{"get-vanilla", "GET / HTTP/1.1\nHost:example.amazonaws.com\nX-Amz-Date:20150830T123600Z\n\n",
		"service", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	{"get-vanilla-query-order-key-case", "GET /?Param2=value2&Param1=value1 HTTP/1.1\nHost:example.amazonaws.com\nX-Amz-Date:20150830T123600Z\n\n",
		"service", "host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
	{"get-vanilla-query-unreserved", "GET /?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz HTTP/1.1\nHost:example.amazonaws.com\nX-Amz-Date:20150830T123600Z\n\n",
		"service", "host;x-amz-date", "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
	{"get-header-key-duplicate", "GET / HTTP/1.1\nHost:example.amazonaws.com\nMy-Header1:value2\nMy-Header1:value2\nMy-Header1:value1\nX-Amz-Date:20150830T123600Z\n\n",
		"service", "host;my-header1;x-amz-date", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
	{"get-header-value-order", "GET / HTTP/1.1\nHost:example.amazonaws.com\nMy-Header1:value4\nMy-Header1:value1\nMy-Header1:value3\nMy-Header1:value2\nX-Amz-Date:20150830T123600Z\n\n",
		"service", "host;my-header1;x-amz-date", "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
	{"get-header-value-trim", "GET / HTTP/1.1\nHost:example.amazonaws.com\nMy-Header1: value1\nMy-Header2: \"a   b   c\"\nX-Amz-Date:20150830T123600Z\n\n",
		"service", "host;my-header1;my-header2;x-amz-date", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
	{"post-vanilla", "POST / HTTP/1.1\nHost:example.amazonaws.com\nX-Amz-Date:20150830T123600Z\n\n",
		"service", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
	{"post-sts-header-before", "POST / HTTP/1.1\nHost:example.amazonaws.com\nX-Amz-Date:20150830T123600Z\nX-Amz-Security-Token:AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==\n\n",
		"service", "host;x-amz-date;x-amz-security-token", "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"},
	{"post-x-www-form-urlencoded", "POST / HTTP/1.1\nContent-Type:application/x-www-form-urlencoded\nContent-Length:13\nHost:example.amazonaws.com\nX-Amz-Date:20150830T123600Z\n\nParam1=value1",
		"service", "content-type;host;x-amz-date", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
	{"the guide's ListUsers", "GET /?Action=ListUsers&Version=2010-05-08 HTTP/1.1\nHost: iam.amazonaws.com\nContent-Type: application/x-www-form-urlencoded; charset=utf-8\nX-Amz-Date: 20150830T123600Z\n\n",
		"iam", "content-type;host;x-amz-date", "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"},
}

func TestSignatureVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(v.request, "\n", "\r\n"))))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			creq, ok := canonicalRequest(r, strings.Split(v.signed, ";"), body)
			if !ok {
				t.Fatal("no canonical request")
			}
			sts := stringToSign("20150830T123600Z", "20150830/us-east-1/"+v.service+"/aws4_request", creq)
			got := sign("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830", "us-east-1", v.service, sts)
			if got != v.signature {
				t.Errorf("signature is %s, want %s\n%s", got, v.signature, creq)
			}
		})
	}
}

// noon is when the tests happen.
var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// TestDoor holds every way in which a request is refused before its
// parameters count. Each one starts from a request that is accepted.
func TestDoor(t *testing.T) {
	c := newClient(t, Example())
	base := c.as("alice")
	if r := base.call(t, identity); r.Status != 200 {
		t.Fatalf("the request that the others vary is refused: %s", r)
	}
	key := func(k Key) signer { return c.signer(credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret}) }
	with := func(f func(*signer)) signer { s := c.as("alice"); f(&s); return s }
	edit := func(f func(*http.Request)) signer { return with(func(s *signer) { s.after = f }) }
	auth := func(old, new string) signer {
		return edit(func(r *http.Request) {
			h := r.Header.Get("Authorization")
			if !strings.Contains(h, old) {
				t.Errorf("no %q in %q", old, h)
			}
			r.Header.Set("Authorization", strings.Replace(h, old, new, 1))
		})
	}
	session := c.as("alice").session(t, params{"Action": "GetSessionToken"})
	other := c.as("alice").session(t, params{"Action": "GetSessionToken"})

	for _, tt := range []struct {
		name    string
		s       signer
		status  int
		code    string
		message string // a part of it
	}{
		{"no signature", edit(func(r *http.Request) { r.Header.Del("Authorization") }), 403, "MissingAuthenticationToken", "Request is missing Authentication Token"},
		{"two signatures", edit(func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }), 400, "IncompleteSignature", "Only one"},
		{"other algorithm", auth(algorithm, "AWS4-ECDSA-P256-SHA256"), 400, "IncompleteSignature", "Unsupported AWS 'algorithm': 'AWS4-ECDSA-P256-SHA256'"},
		{"basic auth", edit(func(r *http.Request) { r.SetBasicAuth("a", "b") }), 400, "IncompleteSignature", "Unsupported"},
		{"no credential", auth("Credential=", "X="), 400, "IncompleteSignature", "requires 'Credential' parameter"},
		{"no signature parameter", auth("Signature=", "X="), 400, "IncompleteSignature", "requires 'Signature' parameter"},
		{"no signed headers", auth("SignedHeaders=", "X="), 400, "IncompleteSignature", "requires 'SignedHeaders' parameter"},
		{"repeated parameter", auth("Credential=", "Signature=0, Credential="), 400, "IncompleteSignature", "more than one 'Signature'"},
		{"stray space", auth("Credential=", "Credential= x, "), 400, "IncompleteSignature", "missing equal-sign"},
		{"short credential", auth("/aws4_request", ""), 400, "IncompleteSignature", "exactly 5 slash-delimited elements"},
		{"long credential", auth("/aws4_request", "/aws4_request/x"), 400, "IncompleteSignature", "exactly 5 slash-delimited elements"},
		{"access key id with a quote", auth("AKIAEXAMPLEALICE0001", `AKIAEXAMPLE"ALICE001`), 403, "InvalidClientTokenId", "is invalid"},
		{"signed headers unsorted", auth("content-type;host", "host;content-type"), 400, "IncompleteSignature", "sorted"},
		{"signed headers repeated", auth("content-type;host", "content-type;host;host"), 400, "IncompleteSignature", "repetition"},
		{"signed headers in capitals", auth("content-type;host", "Content-Type;host"), 400, "IncompleteSignature", "lower case"},
		{"signed header absent", with(func(s *signer) { s.signed = "content-type;host;x-amz-date;x-nothing" }), 403, "SignatureDoesNotMatch", "does not match"},
		{"host not signed", with(func(s *signer) { s.signed = "content-type;x-amz-date" }), 403, "SignatureDoesNotMatch", "'Host' or ':authority' must be"},
		{"date not signed", with(func(s *signer) { s.signed = "content-type;host" }), 403, "SignatureDoesNotMatch", "'X-Amz-Date' must be"},
		{"token not signed", with(func(s *signer) {
			*s = c.signer(session)
			s.signed = "content-type;host;x-amz-date"
		}), 403, "SignatureDoesNotMatch", "'X-Amz-Security-Token' must be"},
		{"unsigned header added", edit(func(r *http.Request) { r.Header.Set("X-Amz-Extra", "1") }), 403, "SignatureDoesNotMatch", "'X-Amz-Extra' must be"},

		{"no date", edit(func(r *http.Request) { r.Header.Del("X-Amz-Date") }), 400, "IncompleteSignature", "either a 'X-Amz-Date' or a 'Date' header"},
		{"two dates", edit(func(r *http.Request) { r.Header.Add("X-Amz-Date", r.Header.Get("X-Amz-Date")) }), 400, "IncompleteSignature", "either a 'X-Amz-Date'"},
		{"bad date", edit(func(r *http.Request) { r.Header.Set("X-Amz-Date", "2026-03-04T12:00:00Z") }), 400, "IncompleteSignature", "ISO-8601 'basic format'. Got '2026-03-04T12:00:00Z'"},
		{"clock behind", with(func(s *signer) { s.at = noon.Add(-maxSkew - time.Second) }), 403, "SignatureDoesNotMatch",
			"Signature expired: 20260304T115459Z is now earlier than 20260304T115500Z (20260304T120000Z - 5 min.)"},
		{"clock ahead", with(func(s *signer) { s.at = noon.Add(maxSkew + time.Second) }), 403, "SignatureDoesNotMatch",
			"Signature not yet current: 20260304T120501Z is still later than 20260304T120500Z (20260304T120000Z + 5 min.)"},
		{"scope of another day", with(func(s *signer) { s.date = "20260303" }), 403, "SignatureDoesNotMatch", "'20260303' != '20260304', from '20260304T120000Z'"},
		{"scope of no region", with(func(s *signer) { s.region = "mars" }), 403, "SignatureDoesNotMatch", "valid region, not 'mars'"},
		{"scope of another service", with(func(s *signer) { s.service = "iam" }), 403, "SignatureDoesNotMatch", "correct service: 'sts'"},
		{"scope of another protocol", auth("/aws4_request", "/aws5_request"), 403, "SignatureDoesNotMatch", "valid terminator: 'aws4_request', not 'aws5_request'"},

		{"wrong secret", with(func(s *signer) { s.SecretAccessKey += "x" }), 403, "SignatureDoesNotMatch", msgSignature},
		{"empty signature hash", auth("Signature=", "Signature=0"), 403, "SignatureDoesNotMatch", "does not match"},
		{"another body", edit(func(r *http.Request) { setBody(r, "Action=GetCallerIdentity&Version=2011-06-15&X=1") }), 403, "SignatureDoesNotMatch", "does not match"},
		{"another body with the first one's hash", with(func(s *signer) {
			s.before = func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", hexHash([]byte(identity.encode()))) }
			s.after = func(r *http.Request) { setBody(r, "Action=GetCallerIdentity&Version=2011-06-15&X=1") }
			s.signed = "content-type;host;x-amz-content-sha256;x-amz-date"
		}), 403, "SignatureDoesNotMatch", "does not match"},
		{"another host", edit(func(r *http.Request) { r.Host = "evil.example" }), 403, "SignatureDoesNotMatch", "does not match"},
		{"another content type", edit(func(r *http.Request) {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		}), 403, "SignatureDoesNotMatch", "does not match"},
		{"another minute", edit(func(r *http.Request) { r.Header.Set("X-Amz-Date", "20260304T120100Z") }), 403, "SignatureDoesNotMatch", "does not match"},
		{"another query", edit(func(r *http.Request) { r.URL.RawQuery = "X=1" }), 403, "SignatureDoesNotMatch", "does not match"},
		{"another method", with(func(s *signer) {
			s.before = func(r *http.Request) { r.URL.RawQuery = identity.encode(); setBody(r, "") }
			s.after = func(r *http.Request) { r.Method = "GET" }
		}), 403, "SignatureDoesNotMatch", "does not match"},

		{"unknown key", key(Key{ID: "AKIAEXAMPLENOBODY001", Secret: "x"}), 403, "InvalidClientTokenId", "The security token included in the request is invalid."},
		{"inactive key", key(c.Key("bob")), 403, "InvalidClientTokenId", "is invalid."},
		{"deleted key", key(c.Key("carol")), 403, "InvalidClientTokenId", "is invalid."},
		{"token beside a long-term key", c.signer(credentials{AccessKeyID: c.Key("alice").ID, SecretAccessKey: c.Key("alice").Secret, SessionToken: session.SessionToken}), 403, "InvalidClientTokenId", "is invalid."},
		{"session without its token", c.signer(credentials{AccessKeyID: session.AccessKeyID, SecretAccessKey: session.SecretAccessKey}), 403, "InvalidClientTokenId", "is invalid."},
		{"session with another's token", c.signer(credentials{AccessKeyID: session.AccessKeyID, SecretAccessKey: session.SecretAccessKey, SessionToken: other.SessionToken}), 403, "InvalidClientTokenId", "is invalid."},
		{"session with another's secret", c.signer(credentials{AccessKeyID: session.AccessKeyID, SecretAccessKey: other.SecretAccessKey, SessionToken: session.SessionToken}), 403, "SignatureDoesNotMatch", "does not match"},
		{"token cut", c.signer(credentials{AccessKeyID: session.AccessKeyID, SecretAccessKey: session.SecretAccessKey, SessionToken: session.SessionToken[:8]}), 403, "InvalidClientTokenId", "is invalid."},
		{"two tokens", with(func(s *signer) {
			*s = c.signer(session)
			s.before = func(r *http.Request) { r.Header.Add("X-Amz-Security-Token", session.SessionToken) }
		}), 403, "InvalidClientTokenId", "is invalid."},
		{"two tokens beside a long-term key", with(func(s *signer) {
			s.before = func(r *http.Request) { r.Header["X-Amz-Security-Token"] = []string{"x", "y"} }
			s.signed = "content-type;host;x-amz-date;x-amz-security-token"
		}), 403, "InvalidClientTokenId", "is invalid."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.s.call(t, identity).refused(t, tt.status, tt.code, tt.message)
			calls := c.Calls()
			if id := calls[len(calls)-1].AccessKeyID; strings.Contains(id, `"`) {
				t.Errorf("recorded access key id %q", id)
			}
		})
	}

	for _, tt := range []struct {
		name string
		s    signer
	}{
		{"clock 5 minutes behind", with(func(s *signer) { s.at = noon.Add(-maxSkew) })},
		{"clock 5 minutes ahead", with(func(s *signer) { s.at = noon.Add(maxSkew) })},
		{"any region", with(func(s *signer) { s.region = "us-gov-west-1" })},
		{"Date instead of X-Amz-Date", with(func(s *signer) {
			s.before = func(r *http.Request) {
				r.Header.Del("X-Amz-Date")
				r.Header.Set("Date", noon.Format(http.TimeFormat))
			}
			s.signed = "date;host"
		})},
		{"content-length signed", with(func(s *signer) { s.signed = "content-length;content-type;host;x-amz-date" })},
		{"parameters in the query", with(func(s *signer) {
			s.before = func(r *http.Request) { r.Method, r.URL.RawQuery = "GET", identity.encode(); setBody(r, "") }
		})},
		{"session", c.signer(session)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r := tt.s.call(t, identity); r.Status != 200 {
				t.Errorf("refused: %s", r)
			}
		})
	}
}

func TestOnlyTheConfiguredRegion(t *testing.T) {
	config := Example()
	config.Region = "eu-west-1"
	c := newClient(t, config)
	s := c.as("alice")
	s.region = "us-east-1"
	s.call(t, identity).refused(t, 403, "SignatureDoesNotMatch", "valid region, not 'us-east-1'")
	s.region = "eu-west-1"
	if r := s.call(t, identity); r.Status != 200 {
		t.Errorf("refused: %s", r)
	}
}

func TestSessionExpires(t *testing.T) {
	c := newClient(t, Example())
	session := c.as("alice").session(t, params{"Action": "GetSessionToken", "DurationSeconds": "900"})
	if want := "2026-03-04T12:15:00Z"; session.Expiration != want {
		t.Fatalf("expires %s, want %s", session.Expiration, want)
	}
	c.now = noon.Add(900*time.Second - 1)
	if r := c.signer(session).call(t, identity); r.Status != 200 {
		t.Errorf("in its last moment: %s", r)
	}
	c.now = noon.Add(900 * time.Second)
	c.signer(session).call(t, identity).refused(t, 403, "ExpiredToken", "The security token included in the request is expired")
}

// TestSessionTokenCannotBeChanged flips every character of a token.
func TestSessionTokenCannotBeChanged(t *testing.T) {
	s := newSealer(Example())
	var creds credentials
	for _, name := range []string{"", "a", "ab"} { // so that base64 is padded in each way
		creds = s.seal(session{Principal: AliceARN, Name: name, Issued: 1, Expires: 2})
		token := creds.SessionToken
		if _, ok := s.open(creds.AccessKeyID, token); !ok {
			t.Fatal("the token itself does not open")
		}
		for i := range token {
			for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_ \n") {
				if token[i] == c {
					continue
				}
				if _, ok := s.open(creds.AccessKeyID, token[:i]+string(c)+token[i+1:]); ok {
					t.Errorf("opens with %q at %d", c, i)
				}
			}
			if _, ok := s.open(creds.AccessKeyID, token[:i]); ok {
				t.Errorf("opens when cut at %d", i)
			}
		}
		if _, ok := s.open(creds.AccessKeyID, token+"\n"); ok {
			t.Error("opens with a newline after it")
		}
	}
	changed := Example()
	changed.Accounts[0].Users[0].Keys[0].Secret += "x"
	if _, ok := newSealer(changed).open(creds.AccessKeyID, creds.SessionToken); ok {
		t.Error("opens where the configuration is another")
	}
}

func TestSessionsOutliveARestart(t *testing.T) {
	a, b := newClient(t, Example()), newClient(t, Example())
	session := a.as("alice").session(t, params{"Action": "GetSessionToken"})
	if r := b.signer(session).call(t, identity); r.Status != 200 {
		t.Errorf("refused after a restart: %s", r)
	}
}

func TestKeyStatusChanges(t *testing.T) {
	c := newClient(t, Example())
	id := c.Key("alice").ID
	for _, status := range []KeyStatus{Inactive, Active, Deleted} {
		if err := c.SetKeyStatus(id, status); err != nil {
			t.Fatal(err)
		}
		if r := c.as("alice").call(t, identity); (r.Status == 200) != (status == Active) {
			t.Errorf("%s: %s", status, r)
		}
	}
	if c.SetKeyStatus("AKIAEXAMPLENOBODY001", Active) == nil {
		t.Error("no error for a key that does not exist")
	}
	if c.SetKeyStatus(id, "gone") == nil {
		t.Error("no error for a status that does not exist")
	}
}
