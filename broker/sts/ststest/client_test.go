package ststest

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A client calls a Server. Its signatures are made by the functions that
// TestSignatureVectors proves; real_test.go has clients that are not ours.
type client struct {
	*Server
	t   testing.TB
	now time.Time
	mu  sync.Mutex
}

func newClient(t testing.TB, config Config) *client {
	c := &client{t: t, now: noon}
	config.Now = func() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
	c.Server = NewServer(t, config)
	return c
}

func (c *client) signer(creds credentials) signer {
	return signer{credentials: creds, client: c, at: c.now, region: "us-east-1", service: "sts"}
}

// as signs with a user's long-term key.
func (c *client) as(user string) signer {
	k := c.Key(user)
	return c.signer(credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret})
}

type signer struct {
	credentials
	client                        *client
	at                            time.Time
	date, region, service, signed string // "" for the usual
	before, after                 func(*http.Request)
}

var identity = params{"Action": "GetCallerIdentity"}

func (p params) encode() string {
	v := url.Values{"Version": {"2011-06-15"}}
	for name, value := range p {
		v.Set(name, value)
	}
	return v.Encode()
}

func setBody(r *http.Request, body string) {
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	r.GetBody = nil
}

// request returns a signed request.
func (s signer) request(t testing.TB, p params) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.client.URL+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = r.URL.Host
	setBody(r, p.encode())
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	stamp := s.at.UTC().Format(basicFormat)
	r.Header.Set("X-Amz-Date", stamp)
	signed := "content-type;host;x-amz-date"
	if s.SessionToken != "" {
		r.Header.Set("X-Amz-Security-Token", s.SessionToken)
		signed += ";x-amz-security-token"
	}
	if s.before != nil {
		s.before(r)
	}
	if s.signed != "" {
		signed = s.signed
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	setBody(r, string(body))
	// A header that is absent leaves an empty canonical request: no signature
	// is right for it.
	creq, _ := canonicalRequest(r, strings.Split(signed, ";"), body)
	if s.date == "" {
		s.date = stamp[:8]
	}
	scope := strings.Join([]string{s.date, s.region, s.service, terminator}, "/")
	r.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=%s, Signature=%s", algorithm, s.AccessKeyID, scope, signed,
		sign(s.SecretAccessKey, s.date, s.region, s.service, stringToSign(stamp, scope, creq))))
	if s.after != nil {
		s.after(r)
	}
	return r
}

func (s signer) call(t testing.TB, p params) reply {
	t.Helper()
	r, err := s.do(t, p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s signer) do(t testing.TB, p params) (reply, error) {
	t.Helper()
	res, err := s.client.Client().Do(s.request(t, p))
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return reply{}, err
	}
	out := reply{Status: res.StatusCode, Header: res.Header, Body: string(body)}
	xml.Unmarshal(body, &out) // where it is XML
	return out, nil
}

// session makes a call and returns the credentials in its answer.
func (s signer) session(t testing.TB, p params) credentials {
	t.Helper()
	r := s.call(t, p)
	creds := r.credentials()
	if r.Status != 200 || creds.SessionToken == "" {
		t.Fatalf("%s: %s", p["Action"], r)
	}
	return creds
}

// assume is AssumeRole; more holds further parameters, name and value.
func assume(roleARN string, more ...string) params {
	p := params{"Action": "AssumeRole", "RoleArn": roleARN, "RoleSessionName": "test-session"}
	for i := 0; i < len(more); i += 2 {
		p[more[i]] = more[i+1]
	}
	return p
}

// A reply is an answer of any kind, as a client reads it.
type reply struct {
	Status int
	Header http.Header
	Body   string

	XMLName xml.Name
	Error   struct{ Type, Code, Message string }

	RequestID   string `xml:"RequestId"`
	OKRequestID string `xml:"ResponseMetadata>RequestId"`

	Identity struct{ Arn, UserId, Account string } `xml:"GetCallerIdentityResult"`
	Session  struct{ Credentials credentials }     `xml:"GetSessionTokenResult"`
	Role     struct {
		Credentials      credentials
		AssumedRoleUser  struct{ AssumedRoleId, Arn string }
		PackedPolicySize string
		SourceIdentity   string
	} `xml:"AssumeRoleResult"`
}

func (r reply) credentials() credentials {
	if r.Role.Credentials.AccessKeyID != "" {
		return r.Role.Credentials
	}
	return r.Session.Credentials
}

func (r reply) String() string {
	return strconv.Itoa(r.Status) + " " + r.Error.Code + ": " + r.Error.Message
}

// refused checks a refusal in full: status, code, text and shape.
func (r reply) refused(t testing.TB, status int, code, message string) {
	t.Helper()
	if r.Status != status || r.Error.Code != code || !strings.Contains(r.Error.Message, message) {
		t.Errorf("got %s\nwant %d %s: …%s…", r, status, code, message)
		return
	}
	wantType := "Sender"
	if status >= 500 {
		wantType = "Receiver"
	}
	if want := (xml.Name{Space: "https://sts.amazonaws.com/doc/2011-06-15/", Local: "ErrorResponse"}); r.XMLName != want {
		t.Errorf("the document is a %v, want %v", r.XMLName, want)
	}
	if r.Error.Type != wantType {
		t.Errorf("type %q, want %q", r.Error.Type, wantType)
	}
	if r.RequestID == "" || r.RequestID != r.Header.Get("X-Amzn-Requestid") {
		t.Errorf("RequestId %q, header %q", r.RequestID, r.Header.Get("X-Amzn-Requestid"))
	}
}
