package endpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
)

// A refused request: what it is, and how it is answered.
type refused struct {
	name, request, status string
	code                  broker.Code // "" when net/http refuses by itself
	says                  string
}

// check sends each, and wants the gate not to be reached.
func (s *served) check(t *testing.T, rows []refused, secrets ...string) {
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			answer := s.raw(t, tt.request)
			if calls := s.h.calls(); len(calls) > 0 {
				t.Fatalf("the gate was asked %d times; the answer: %s", len(calls), answer)
			}
			head, body, _ := strings.Cut(answer, "\r\n\r\n")
			if !strings.HasPrefix(strings.Replace(head, "HTTP/1.0", "HTTP/1.1", 1), "HTTP/1.1 "+tt.status+" ") {
				t.Fatalf("status %q, want %s: %s", strings.SplitN(head, "\r\n", 2)[0], tt.status, body)
			}
			if strings.Contains(head, "Location:") || strings.Contains(head, "Access-Control") {
				t.Errorf("a header that must not be: %s", head)
			}
			for _, secret := range secrets {
				if strings.Contains(answer, secret) {
					t.Errorf("the token is in the answer: %s", answer)
				}
			}
			if tt.code == "" {
				return
			}
			var e struct{ Code, Message string }
			if err := json.Unmarshal([]byte(body), &e); err != nil || e.Code != string(tt.code) || !strings.Contains(e.Message, tt.says) {
				t.Errorf("answer %s, want code %s with %q", body, tt.code, tt.says)
			}
			for _, want := range []string{"Connection: close", "Cache-Control: no-store", "Content-Type: application/json\r\n", "Content-Length: "} {
				if !strings.Contains(head+"\r\n", want) {
					t.Errorf("no %s in %s", want, head)
				}
			}
		})
	}
	if log := s.h.log.String(); len(secrets) > 0 {
		for _, secret := range secrets {
			if strings.Contains(log, secret) {
				t.Errorf("a token is in the log: %s", log)
			}
		}
	}
}

// fromBrowsers are headers that no SDK sends, and what must refuse them.
var fromBrowsers = []string{
	"Origin: https://evil.example", "Origin:", "oRIGIN: null", "Referer: http://127.0.0.1/", "Cookie: a=b",
	"Sec-Fetch-Site: none", "sec-fetch-mode: cors", "Sec-CH-UA: x", "Sec-WebSocket-Key: x", "X-Forwarded-For: 127.0.0.1",
	"X-Forwarded-Host: localhost", "X-Forwarded-Proto: http", "X-Forwarded: x", "x-real-ip: 127.0.0.1", "Forwarded: for=127.0.0.1",
	"Via: 1.1 proxy", "Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eA==",
}

// wrongHosts are hosts that the endpoint is not.
func wrongHosts(port int) []string {
	return []string{
		"evil.example", fmt.Sprintf("evil.example:%d", port), "127.0.0.1", "localhost", "127.0.0.1:1", fmt.Sprintf("127.0.0.1:0%d", port),
		fmt.Sprintf("[::1]:%d", port), fmt.Sprintf("127.0.0.2:%d", port), fmt.Sprintf("LOCALHOST:%d", port), fmt.Sprintf("localhost.:%d", port),
		fmt.Sprintf("127.1:%d", port), "169.254.170.2", "169.254.169.254", "",
	}
}

func TestContainerRefusals(t *testing.T) {
	h := newHarness(t)
	s, other := h.open(t, Container), h.openAs(t, Endpoint{Lease: "l-other", Kind: Container})
	token, foreign := s.token(t), other.token(t)
	auth := "Authorization: " + token + "\r\n"
	get := func(target, headers string) string {
		return "GET " + target + " HTTP/1.1\r\n" + headers + "Connection: close\r\n\r\n"
	}
	request := func(method, headers, body string) string {
		return fmt.Sprintf("%s / HTTP/1.1\r\n%s%sContent-Length: %d\r\nConnection: close\r\n\r\n%s", method, s.host(), headers, len(body), body)
	}
	const noToken = "Authorization header"
	rows := []refused{
		// Without the token nothing can be learnt, whatever else is wrong.
		{"no token", get("/", s.host()), "401", "denied", noToken},
		{"empty token", get("/", s.host()+"Authorization:\r\n"), "401", "denied", noToken},
		{"token of another lease", get("/", s.host()+"Authorization: "+foreign+"\r\n"), "401", "denied", noToken},
		{"token cut", get("/", s.host()+auth[:len(auth)-3]+"\r\n"), "401", "denied", noToken},
		{"token and more", get("/", s.host()+strings.TrimSuffix(auth, "\r\n")+"x\r\n"), "401", "denied", noToken},
		{"token in another case", get("/", s.host()+"Authorization: "+swapCase(token)+"\r\n"), "401", "denied", noToken},
		{"token after Bearer", get("/", s.host()+"Authorization: Bearer "+token+"\r\n"), "401", "denied", noToken},
		{"token twice", get("/", s.host()+auth+auth), "401", "denied", noToken},
		{"token and another", get("/", s.host()+auth+"Authorization: x\r\n"), "401", "denied", noToken},
		{"token in the query", get("/?Authorization="+token, s.host()), "401", "denied", noToken},
		{"token in the path", get("/"+token, s.host()), "401", "denied", noToken},
		{"token in another header", get("/", s.host()+"X-Authorization: "+token+"\r\nX-aws-ec2-metadata-token: "+token+"\r\n"), "401", "denied", noToken},
		{"token in a cookie", get("/", s.host()+"Cookie: Authorization="+token+"\r\n"), "401", "denied", noToken},
		{"token for a proxy", get("/", s.host()+"Proxy-Authorization: "+token+"\r\n"), "401", "denied", noToken},
		{"token in the body", request("POST", "", token), "401", "denied", noToken},
		{"token in a trailer", "GET / HTTP/1.1\r\n" + s.host() + "Transfer-Encoding: chunked\r\nTrailer: Authorization\r\nConnection: close\r\n\r\n0\r\n" + auth + "\r\n", "401", "denied", noToken},
		{"token as a user", get("http://"+token+"@127.0.0.1/", s.host()), "401", "denied", noToken},
		{"no token, another path", get("/latest", s.host()), "401", "denied", noToken},
		{"no token, another host", get("/", "Host: evil.example\r\n"), "401", "denied", noToken},
		{"no token, another method", request("DELETE", "", ""), "401", "denied", noToken},
		{"no token, from a page", get("/", s.host()+"Origin: https://evil.example\r\n"), "401", "denied", noToken},
		{"a page asks first", request("OPTIONS", "Origin: https://evil.example\r\nAccess-Control-Request-Headers: authorization\r\n", ""), "401", "denied", noToken},
		{"no token, asterisk", "OPTIONS * HTTP/1.1\r\n" + s.host() + "Connection: close\r\n\r\n", "401", "denied", noToken},

		{"no host", get("/", auth), "400", "", ""},
		{"two hosts", get("/", s.host()+s.host()+auth), "400", "", ""},
		{"no host, as HTTP/1.0 may", "GET / HTTP/1.0\r\n" + auth + "\r\n", "403", "denied", "host"},
		{"host in the target", get("http://evil.example/", s.host()+auth), "403", "denied", "host"},
		{"our host in the target", get(s.url(), s.host()+auth), "404", "usage", "path"},
		{"a proxy's connection", "CONNECT 127.0.0.1:80 HTTP/1.1\r\n" + s.host() + auth + "Connection: close\r\n\r\n", "403", "denied", "host"},
		{"a proxy's connection to us", "CONNECT " + strings.TrimSuffix(s.host()[6:], "\r\n") + " HTTP/1.1\r\n" + s.host() + auth + "Connection: close\r\n\r\n", "404", "usage", "path"},
		{"asterisk", "OPTIONS * HTTP/1.1\r\n" + s.host() + auth + "Connection: close\r\n\r\n", "404", "usage", "path"},

		{"post", request("POST", auth, ""), "405", "usage", "GET"},
		{"put", request("PUT", auth, ""), "405", "usage", "GET"},
		{"options", request("OPTIONS", auth, ""), "405", "usage", "GET"},
		{"head", request("HEAD", auth, ""), "405", "", ""},
		{"get in lower case", request("get", auth, ""), "405", "usage", "GET"},
		{"trace", request("TRACE", auth, ""), "405", "usage", "GET"},
		{"body", request("GET", auth, "{}"), "400", "usage", "body"},
		{"chunks", "GET / HTTP/1.1\r\n" + s.host() + auth + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "400", "usage", "body"},
		{"no chunks", "GET / HTTP/1.1\r\n" + s.host() + auth + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n", "400", "usage", "body"},
		{"a body to come", "GET / HTTP/1.1\r\n" + s.host() + auth + "Expect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", "400", "usage", "body"},
		{"two lengths", "GET / HTTP/1.1\r\n" + s.host() + auth + "Content-Length: 0\r\nContent-Length: 2\r\n\r\n{}", "400", "", ""},

		{"header too long", get("/", s.host()+auth+"X-Long: "+strings.Repeat("x", maxHeader+8<<10)+"\r\n"), "431", "", ""},
		{"no HTTP", "hello\r\n\r\n", "400", "", ""},
		{"HTTP/0.9", "GET /\r\n\r\n", "400", "", ""},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "401", "denied", noToken},
		{"HTTP/3", "GET / HTTP/3.0\r\n" + s.host() + auth + "\r\n", "505", "", ""},
		{"TLS", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", "400", "", ""},
		{"space before the colon", get("/", s.host()+"Authorization : "+token+"\r\n"), "400", "", ""},
	}
	for _, header := range fromBrowsers {
		rows = append(rows, refused{header, get("/", s.host()+auth+header+"\r\n"), "403", "denied", "browsers"})
	}
	for _, host := range wrongHosts(s.port) {
		rows = append(rows, refused{"host " + host, get("/", "Host: "+host+"\r\n"+auth), "403", "denied", "host"})
	}
	for _, target := range []string{
		"/x", "//", "/.", "/./", "/../", "/x/..", "/%2f", "/%2e", "/?", "/?x=1", "/#x", "/;x", "/index.html", "/latest/api/token", "/\\",
		rolePath, "/latest/meta-data/iam/security-credentials/",
	} {
		rows = append(rows, refused{"target " + target, get(target, s.host()+auth), "404", "usage", "path"})
	}
	s.check(t, rows, token, foreign)
	if answer := s.raw(t, s.get(t)); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("what all these are one step from is not served: %s", answer)
	}
}

func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r ^ 0x20
		}
		return r
	}, s)
}

func TestIMDSRefusals(t *testing.T) {
	h := newHarness(t)
	s, other := h.open(t, IMDS), h.openAs(t, Endpoint{Lease: "l-other", Kind: IMDS, Role: "Deploy"})
	container := h.open(t, Container)
	token, foreign := s.imdsToken(t), other.imdsToken(t)
	put := func(headers, body string) string {
		return fmt.Sprintf("PUT /latest/api/token HTTP/1.1\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s", headers, len(body), body)
	}
	get := func(target, headers string) string {
		return "GET " + target + " HTTP/1.1\r\n" + headers + "Connection: close\r\n\r\n"
	}
	request := func(method, target, headers, body string) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\n%s%sContent-Length: %d\r\nConnection: close\r\n\r\n%s", method, target, s.host(), headers, len(body), body)
	}
	const ttl = "X-aws-ec2-metadata-token-ttl-seconds: 21600\r\n"
	auth := "X-aws-ec2-metadata-token: " + token + "\r\n"
	const noToken = "a token of this endpoint is needed"
	rows := []refused{
		{"no lifetime", put(s.host(), ""), "400", "usage", "lifetime"},
		{"two lifetimes", put(s.host()+ttl+ttl, ""), "400", "usage", "lifetime"},
		{"token with a body", put(s.host()+ttl, "x"), "400", "usage", "body"},
		{"token, chunked", "PUT /latest/api/token HTTP/1.1\r\n" + s.host() + ttl + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n", "400", "usage", "body"},
		{"token by get", get("/latest/api/token", s.host()+ttl), "401", "denied", noToken},
		{"token by get, with a token", get("/latest/api/token", s.host()+ttl+auth), "405", "usage", "PUT"},
		{"token by post", request("POST", "/latest/api/token", ttl, ""), "401", "denied", noToken},
		{"token at a path like it", request("PUT", "/latest/api/token/", ttl, ""), "401", "denied", noToken},
		{"token with a query", request("PUT", "/latest/api/token?x", ttl, ""), "401", "denied", noToken},
		{"token, host in the target", request("PUT", s.url()+"latest/api/token", ttl, ""), "401", "denied", noToken},

		{"version 1", get(rolePath, s.host()), "401", "denied", noToken},
		{"version 1, the list", get("/latest/meta-data/iam/security-credentials/", s.host()), "401", "denied", noToken},
		{"version 1, the region", get("/latest/dynamic/instance-identity/document", s.host()), "401", "denied", noToken},
		{"version 1, nothing there", get("/latest/user-data", s.host()), "401", "denied", noToken},
		{"no version 1 by post", request("POST", rolePath, "", ""), "401", "denied", noToken},
		{"empty token", get(rolePath, s.host()+"X-aws-ec2-metadata-token:\r\n"), "401", "denied", noToken},
		{"token of another port", get(rolePath, s.host()+"X-aws-ec2-metadata-token: "+foreign+"\r\n"), "401", "denied", noToken},
		{"a container's token", get(rolePath, s.host()+"X-aws-ec2-metadata-token: "+container.token(t)+"\r\nAuthorization: "+container.token(t)+"\r\n"), "401", "denied", noToken},
		{"token twice", get(rolePath, s.host()+auth+auth), "401", "denied", noToken},
		{"token cut", get(rolePath, s.host()+auth[:len(auth)-3]+"\r\n"), "401", "denied", noToken},
		{"token and more", get(rolePath, s.host()+strings.TrimSuffix(auth, "\r\n")+"A\r\n"), "401", "denied", noToken},
		{"token in Authorization", get(rolePath, s.host()+"Authorization: "+token+"\r\n"), "401", "denied", noToken},
		{"token in the query", get(rolePath+"?X-aws-ec2-metadata-token="+token, s.host()), "401", "denied", noToken},

		{"another role", get("/latest/meta-data/iam/security-credentials/Admin", s.host()+auth), "404", "usage", "path"},
		{"another API version", get("/2021-07-15/meta-data/iam/security-credentials/Deploy", s.host()+auth), "404", "usage", "path"},
		{"user data", get("/latest/user-data", s.host()+auth), "404", "usage", "path"},
		{"root", get("/", s.host()+auth), "404", "usage", "path"},
		{"query", get(rolePath+"?x", s.host()+auth), "404", "usage", "path"},
		{"dots", get("/latest/../latest/meta-data/iam/security-credentials/Deploy", s.host()+auth), "404", "usage", "path"},
		{"escaped", get("/latest/meta-data/iam/security-credentials/%44eploy", s.host()+auth), "404", "usage", "path"},
		{"slash at the end", get(rolePath+"/", s.host()+auth), "404", "usage", "path"},
		{"two slashes", get("/"+rolePath, s.host()+auth), "404", "usage", "path"},
		{"role in another case", get(strings.ToLower(rolePath), s.host()+auth), "404", "usage", "path"},
		{"our host in the target", get(s.url()+rolePath[1:], s.host()+auth), "404", "usage", "path"},
		{"put", request("PUT", rolePath, auth, ""), "405", "usage", "GET"},
		{"post", request("POST", rolePath, auth, ""), "405", "usage", "GET"},
		{"head", request("HEAD", rolePath, auth, ""), "405", "", ""},
		{"body", request("GET", rolePath, auth, "{}"), "400", "usage", "body"},
	}
	for _, seconds := range []string{"", "0", "-1", "+1", "21601", "1.5", "60s", "0x10", "1_0", "99999999999999999999", "60, 60"} {
		rows = append(rows, refused{"lifetime " + seconds, put(s.host()+"X-aws-ec2-metadata-token-ttl-seconds: "+seconds+"\r\n", ""), "400", "usage", "lifetime"})
	}
	for _, header := range fromBrowsers {
		rows = append(rows,
			refused{"token, " + header, put(s.host()+ttl+header+"\r\n", ""), "400", "denied", "browsers"},
			refused{header, get(rolePath, s.host()+auth+header+"\r\n"), "403", "denied", "browsers"})
	}
	for _, host := range wrongHosts(s.port) {
		rows = append(rows,
			refused{"token, host " + host, put("Host: "+host+"\r\n"+ttl, ""), "400", "denied", "host"},
			refused{"host " + host, get(rolePath, "Host: "+host+"\r\n"+auth), "403", "denied", "host"})
	}
	s.check(t, rows, token, foreign)
	if answer := s.raw(t, s.imdsGet(token, rolePath)); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("what all these are one step from is not served: %s", answer)
	}
}

// Each byte of a token counts.
func TestTokenBytes(t *testing.T) {
	h := newHarness(t)
	container, imds := h.open(t, Container), h.open(t, IMDS)
	for _, tt := range []struct {
		token string
		get   func(token string) string
		port  int
	}{
		{container.token(t), func(token string) string {
			return strings.Replace(container.get(t), container.token(t), token, 1)
		}, container.port},
		{imds.imdsToken(t), func(token string) string { return imds.imdsGet(token, rolePath) }, imds.port},
	} {
		for i := range tt.token {
			b := []byte(tt.token)
			if b[i]++; b[i] == 0x7f {
				b[i] = '!'
			}
			answer, err := exchange(tt.port, tt.get(string(b)))
			if err != nil || !strings.HasPrefix(answer, "HTTP/1.1 401 ") {
				t.Fatalf("with byte %d changed: %s %v", i, answer, err)
			}
		}
		if answer, err := exchange(tt.port, tt.get(tt.token)); err != nil || !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
			t.Fatalf("unchanged: %s %v", answer, err)
		}
	}
	if n := len(h.calls()); n != 2 {
		t.Errorf("%d calls of the gate", n)
	}
}

// A token of IMDS lasts as long as it was asked for, suspend counted.
func TestTokenExpires(t *testing.T) {
	h := newHarness(t)
	s := h.open(t, IMDS)
	h.set(func() { h.boot = 5 * time.Hour })
	token := s.imdsToken(t) // for 60 s
	for _, tt := range []struct {
		after  time.Duration
		status string
	}{{0, "200"}, {60*time.Second - 1, "200"}, {60 * time.Second, "401"}, {time.Hour, "401"}} {
		h.set(func() { h.boot = 5*time.Hour + tt.after })
		if answer := s.raw(t, s.imdsGet(token, rolePath)); !strings.HasPrefix(answer, "HTTP/1.1 "+tt.status+" ") {
			t.Errorf("after %v: %s", tt.after, answer)
		}
	}
}

// From the end on the sentence is all there is, also on connections that were
// open before, and also for what is on its way already. It says nothing to
// those who have no token.
func TestEnd(t *testing.T) {
	h := newHarness(t)
	container, imds, other := h.open(t, Container), h.open(t, IMDS), h.openAs(t, Endpoint{Lease: "l-other", Kind: Container})
	token := imds.imdsToken(t)
	kept := dial(t, container.port)
	keepAlive := strings.Replace(container.get(t), "Connection: close\r\n", "", 1)
	if answer := kept.ask(t, keepAlive); !strings.Contains(answer, secretKey) {
		t.Fatal(answer)
	}

	const why = "lease l-7f3k2 ended at 14:02 <ops & co>: start another with gatepass exec ops"
	reached := make(chan struct{})
	h.set(func() {
		h.gate = func(context.Context) {
			for _, s := range []*served{container, imds} {
				h.End(s.lease, why)
			}
			close(reached)
		}
	})
	want := `{"Code":"denied","Message":"` + why + `"}`
	if answer := container.raw(t, container.get(t)); !strings.HasPrefix(answer, "HTTP/1.1 403 ") || !strings.Contains(answer, want) || strings.Contains(answer, secretKey) {
		t.Errorf("under way: %s", answer)
	}
	<-reached
	h.set(func() { h.gate = nil })
	h.calls()
	for name, answer := range map[string]string{
		"kept":        kept.ask(t, keepAlive),
		"container":   container.raw(t, container.get(t)),
		"another way": container.raw(t, strings.Replace(container.get(t), "GET /", "GET /x", 1)),
		"role":        imds.raw(t, imds.imdsGet(token, rolePath)),
		"list":        imds.raw(t, imds.imdsGet(imds.imdsToken(t), "/latest/meta-data/iam/security-credentials/")),
	} {
		if !strings.HasPrefix(answer, "HTTP/1.1 403 ") || !strings.Contains(answer, want) || !strings.Contains(answer, "Content-Type: application/json\r\n") {
			t.Errorf("%s: %s", name, answer)
		}
	}
	for name, answer := range map[string]string{
		"no token": container.raw(t, strings.Replace(container.get(t), "Authorization", "X", 1)),
		"none":     imds.raw(t, strings.Replace(imds.imdsGet(token, rolePath), "X-aws", "X", 1)),
	} {
		if !strings.HasPrefix(answer, "HTTP/1.1 401 ") || strings.Contains(answer, "l-7f3k2") {
			t.Errorf("%s: %s", name, answer)
		}
	}
	if n := len(h.calls()); n > 0 {
		t.Errorf("%d calls of the gate after the end", n)
	}
	if answer := other.raw(t, other.get(t)); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("another lease: %s", answer)
	}
	h.End("l-none", why) // nothing happens
}

// A refusal before the gate is recorded, of each kind the first in a minute
// with how many there were meanwhile: nobody can fill the log.
func TestRefusalsAreRecorded(t *testing.T) {
	for _, kind := range []string{Container, IMDS} {
		h := newHarness(t)
		s, other := h.open(t, kind), h.openAs(t, Endpoint{Lease: "l-other", Kind: kind})
		stranger := "GET / HTTP/1.1\r\n" + s.host() + "Authorization: x\r\nConnection: close\r\n\r\n"
		ask := func() string { return s.get(t) }
		if kind == IMDS {
			ask = func() string { return s.imdsGet(s.imdsToken(t), rolePath) }
		}
		good, mistake := ask(), strings.Replace(ask(), "GET ", "POST ", 1)
		// many sends a request several times, and returns what was recorded.
		many := func(request string) []denied {
			for range 5 {
				if answer := s.raw(t, request); !strings.HasPrefix(answer, "HTTP/1.1 4") {
					t.Errorf("%s: not refused: %s", kind, answer)
				}
			}
			var got []denied
			h.set(func() { got, h.denied = h.denied, nil })
			return got
		}
		want := func(what string, got []denied, uid int, says string) {
			t.Helper()
			if len(got) != 1 || got[0].lease != s.lease || got[0].caller.UID != uid || got[0].caller.Via != kind ||
				broker.CodeOf(got[0].why) != broker.CodeDenied || !strings.Contains(got[0].why.Error(), says) {
				t.Errorf("%s, %s: recorded %+v", kind, what, got)
			}
		}
		later := func() { h.set(func() { h.now = h.now.Add(recordEvery) }) }

		if got := many(mistake); len(got) > 0 {
			t.Errorf("%s: a mistake is recorded: %+v", kind, got)
		}
		got := many(stranger)
		want("no token", got, h.kernel.uid, "token")
		if strings.Contains(fmt.Sprint(got), "more") {
			t.Errorf("%s: the first is not alone: %+v", kind, got)
		}
		if got := many(stranger); len(got) > 0 {
			t.Errorf("%s: recorded within the minute: %+v", kind, got)
		}
		later()
		want("no token, later", many(stranger), h.kernel.uid, "; 9 more like it since the entry before")
		// One kind does not hide another, nor one lease another.
		theirs := newHarness(t)
		theirs.kernel.uid++ // we are the others
		ours, mine := s, h
		h, s = theirs, theirs.open(t, kind)
		want("another user", many("GET / HTTP/1.1\r\n"+s.host()+"\r\n"), h.kernel.uid-1, "connection is user")
		h, s = mine, ours
		h.End(s.lease, "over")
		want("after the end", many(good), h.kernel.uid, "over")
		s = other
		stranger = strings.Replace(stranger, "Authorization: x", "Authorization: y", 1)
		stranger = strings.Replace(stranger, "Host: 127.0.0.1", "Host: evil.example", 1)
		want("another lease", many(stranger), h.kernel.uid, "")
		if calls := h.calls(); len(calls) > 0 {
			t.Errorf("%s: the gate was asked: %+v", kind, calls)
		}
	}
}

// What the gate says reaches the SDK, under a status that tells whether to ask
// again.
func TestGateErrors(t *testing.T) {
	h := newHarness(t)
	container, imds := h.open(t, Container), h.open(t, IMDS)
	for _, tt := range []struct {
		err           error
		status, wants string
	}{
		{broker.Errorf(broker.CodeDenied, "no"), "403", `{"Code":"denied","Message":"no"}`},
		{broker.Errorf(broker.CodePromptUnavailable, "a code is needed").WithHint("gatepass renew l-1"), "403", `{"Code":"prompt_unavailable","Message":"a code is needed (gatepass renew l-1)"}`},
		{broker.Errorf(broker.CodeLocked, "locked"), "403", `"locked"`},
		{broker.Errorf(broker.CodeConfig, "broken"), "403", `"config"`},
		{broker.Errorf(broker.CodeThrottled, "slow"), "429", `"throttled"`},
		{broker.Errorf(broker.CodeAWSUnreachable, "down"), "503", `"aws_unreachable"`},
		{broker.Errorf(broker.CodeLogUnwritable, "full"), "503", `"log_unwritable"`},
		{fmt.Errorf("a bug"), "500", `{"Code":"internal","Message":"a bug"}`},
	} {
		h.set(func() { h.err = tt.err })
		for _, answer := range []string{container.raw(t, container.get(t)), imds.raw(t, imds.imdsGet(imds.imdsToken(t), rolePath))} {
			if !strings.HasPrefix(answer, "HTTP/1.1 "+tt.status+" ") || !strings.Contains(answer, tt.wants) || strings.Contains(answer, secretKey) {
				t.Errorf("%v: %s", tt.err, answer)
			}
		}
	}
	// A key that never expires is not for SDKs, whatever the gate thinks.
	for name, change := range map[string]func(*broker.Credentials){
		"no token":   func(c *broker.Credentials) { c.SessionToken = broker.Secret{} },
		"no expires": func(c *broker.Credentials) { c.Expires = time.Time{} },
	} {
		grant := session(time.Now().Add(time.Hour))
		change(&grant.Credentials)
		h.set(func() { h.err, h.grant = nil, grant })
		for _, answer := range []string{container.raw(t, container.get(t)), imds.raw(t, imds.imdsGet(imds.imdsToken(t), rolePath))} {
			if !strings.HasPrefix(answer, "HTTP/1.1 500 ") || strings.Contains(answer, secretKey) {
				t.Errorf("%s: %s", name, answer)
			}
		}
	}
	h.set(func() { h.gate = func(context.Context) { panic("a bug") } })
	if answer := container.raw(t, container.get(t)); !strings.HasPrefix(answer, "HTTP/1.1 500 ") || strings.Contains(answer, "a bug") {
		t.Errorf("panic: %s", answer)
	}
}
