package ststest

import (
	"bufio"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// FuzzRequest sends whatever HTTP/1.1 can carry. Nothing that was not signed
// with a secret of ours may be answered with a result, and every answer is
// well-formed.
func FuzzRequest(f *testing.F) {
	const form = "Content-Type: application/x-www-form-urlencoded\r\n"
	const auth = "X-Amz-Date: 20260304T120000Z\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AKIAEXAMPLEALICE0001/20260304/us-east-1/sts/aws4_request, SignedHeaders=host;x-amz-date, Signature=00\r\n"
	f.Add("POST / HTTP/1.1\r\nHost: a\r\n"+form+auth, "Action=AssumeRole&Version=2011-06-15&RoleArn=x&Tags.member.1.Key=a")
	f.Add("GET /?Action=GetCallerIdentity&Version=2011-06-15&%zz HTTP/1.1\r\nHost: a\r\n"+auth, "")
	f.Add("POST / HTTP/1.1\r\nHost: a\r\n"+form+"X-Amz-Security-Token: YWJj\r\n"+auth, "Action=%00&Version=\xff")
	f.Add("POST /sandbox/fault HTTP/1.1\r\nHost: a\r\n", "{}")
	for _, v := range vectors {
		f.Add(strings.ReplaceAll(v.request, "\n", "\r\n"), "")
	}
	config := Example()
	config.Now = func() time.Time { return noon }
	s, err := New(config)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, head, body string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.TrimSuffix(head, "\r\n") + "\r\n\r\n")))
		if err != nil || r.URL == nil {
			return
		}
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		r.RemoteAddr = "192.0.2.1:1"
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code < 400 || w.Code > 499 {
			t.Fatalf("answered %d", w.Code)
		}
		if strings.HasPrefix(r.URL.Path, "/sandbox/") {
			return
		}
		var e errorEnvelope
		if err := xml.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Error.Code == "" || e.RequestID == "" {
			t.Fatalf("the answer is no refusal (%v): %s", err, w.Body)
		}
		s.ForgetCalls()
	})
}

// FuzzAssumeRole gives the parameters that pass authentication.
func FuzzAssumeRole(f *testing.F) {
	f.Add("RoleArn=arn:aws:iam::111122223333:role/Deploy&RoleSessionName=ab")
	f.Add("RoleArn=arn:aws:iam::111122223333:role/Deploy&RoleSessionName=ab&Tags.member.1.Key=a&Tags.member.1.Value=&TransitiveTagKeys.member.1=A")
	f.Add("RoleArn=" + DeployARN + "&RoleSessionName=ab&Policy=%7B%22Statement%22%3A1%7D&PolicyArns.member.1.arn=arn:aws:iam::aws:policy/x&DurationSeconds=900")
	f.Fuzz(func(t *testing.T, query string) {
		p := params{}
		if err := p.parse(query); err != nil {
			return
		}
		in, err := parseAssumeRole(p)
		if err != nil {
			if err.status < 400 || err.code == "" || err.message == "" {
				t.Fatalf("an empty refusal: %+v", err)
			}
			return
		}
		if !roleARN.MatchString(in.roleARN) || len(in.sessionName) < 2 || len(in.sessionName) > 64 || len(in.tags) > 50 || in.packed > 100 {
			t.Fatalf("accepted %+v", in)
		}
	})
}
