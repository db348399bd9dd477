package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gatepass/broker"
)

func TestContainer(t *testing.T) {
	h := newHarness(t)
	s := h.open(t, Container)
	token := s.token(t)
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`).MatchString(token) {
		t.Errorf("the token is %q", token)
	}
	if info, err := os.Stat(s.file); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("the token's file: %v, %v", info.Mode(), err)
	}
	for _, host := range []string{"127.0.0.1", "localhost"} {
		answer := s.raw(t, strings.Replace(s.get(t), "127.0.0.1", host, 1))
		head, body, _ := strings.Cut(answer, "\r\n\r\n")
		var got map[string]string
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err, answer)
		}
		want := map[string]string{
			"AccessKeyId": "ASIAIOSFODNN7EXAMPLE", "SecretAccessKey": secretKey, "Token": sessionToken,
			"Expiration": h.grant.Credentials.Expires.UTC().Format("2006-01-02T15:04:05Z"), "AccountId": "111122223333",
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
		for _, want := range []string{"HTTP/1.1 200 OK\r\n", "Cache-Control: no-store\r\n", "Content-Type: application/json\r\n", "X-Content-Type-Options: nosniff\r\n"} {
			if !strings.Contains(head+"\r\n", want) {
				t.Errorf("no %q in %s", want, head)
			}
		}
	}
	h.mu.Lock()
	leases := fmt.Sprint(h.lease)
	h.mu.Unlock()
	if asked := h.calls(); len(asked) != 2 || leases != "[l-container l-container]" || asked[0].Via != "container" {
		t.Errorf("the gate was asked %+v for %s", asked, leases)
	}
}

func TestIMDS(t *testing.T) {
	h := newHarness(t)
	s := h.open(t, IMDS)
	token := s.imdsToken(t)
	if _, err := os.Stat(s.file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a token's file: %v", err)
	}
	now := h.now.UTC().Format("2006-01-02T15:04:05Z")
	expires := h.grant.Credentials.Expires.UTC().Format("2006-01-02T15:04:05Z")
	for path, want := range map[string]string{
		"/latest/meta-data/iam/security-credentials/": "Deploy",
		"/latest/meta-data/iam/security-credentials":  "Deploy",
		rolePath: `{"Code":"Success","LastUpdated":"` + now + `","Type":"AWS-HMAC","AccessKeyId":"ASIAIOSFODNN7EXAMPLE","SecretAccessKey":"` + secretKey +
			`","Token":"` + sessionToken + `","Expiration":"` + expires + `","AccountId":"111122223333"}` + "\n",
		"/latest/meta-data/iam/info": `{"Code":"Success","LastUpdated":"` + now +
			`","InstanceProfileArn":"arn:aws:iam::111122223333:instance-profile/Deploy","InstanceProfileId":"l-imds"}` + "\n",
		"/latest/meta-data/placement/region":         "eu-west-1",
		"/latest/dynamic/instance-identity/document": `{"accountId":"111122223333","region":"eu-west-1","version":"2017-09-30"}` + "\n",
	} {
		head, body, _ := strings.Cut(s.raw(t, s.imdsGet(token, path)), "\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 200 ") || body != want || !strings.Contains(head, "Cache-Control: no-store") {
			t.Errorf("%s: %s\n%s\nwant %s", path, head, body, want)
		}
	}
	if asked := h.calls(); len(asked) != 1 || asked[0].Via != "imds" {
		t.Errorf("the gate was asked %+v", asked)
	}
	for _, seconds := range []string{"1", "21600"} {
		answer := s.raw(t, "PUT /latest/api/token HTTP/1.1\r\n"+strings.Replace(s.host(), "127.0.0.1", "localhost", 1)+
			"X-aws-ec2-metadata-token-ttl-seconds: "+seconds+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 200 ") || !strings.Contains(answer, "Seconds: "+seconds+"\r\n") {
			t.Errorf("lifetime %s: %s", seconds, answer)
		}
	}

	bare := h.openAs(t, Endpoint{Lease: "l-bare", Kind: IMDS, Role: "tools/été x"})
	token = bare.imdsToken(t)
	for path, want := range map[string]string{
		"/latest/meta-data/iam/security-credentials/":            "200 tools--t--x",
		"/latest/meta-data/iam/security-credentials/tools--t--x": "200 {",
		"/latest/meta-data/placement/region":                     "404 {",
		"/latest/dynamic/instance-identity/document":             `200 {"version":"2017-09-30"}`,
	} {
		head, body, _ := strings.Cut(bare.raw(t, bare.imdsGet(token, path)), "\r\n\r\n")
		if got := strings.Fields(head)[1] + " " + body; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestRoleName(t *testing.T) {
	for name, want := range map[string]string{
		"Deploy": "Deploy", "a_b+c=d,e.f@g-h": "a_b+c=d,e.f@g-h", "": "gatepass", ".": "gatepass", "..": "gatepass",
		"a/b": "a-b", "a b\r\n": "a-b--", "../x": "..-x", "%41": "-41", "a?b#c": "a-b-c", "ü": "-",
	} {
		if got := roleName(name); got != want {
			t.Errorf("roleName(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestPartition(t *testing.T) {
	for region, want := range map[string]string{"": "aws", "eu-west-1": "aws", "cn-north-1": "aws-cn", "us-gov-west-1": "aws-us-gov"} {
		if got := partition(region); got != want {
			t.Errorf("partition(%q) = %q", region, got)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	h := newHarness(t)
	s := h.open(t, Container)
	token := s.token(t)
	file := filepath.Join(h.dir, "x")
	for name, e := range map[string]Endpoint{
		"no lease":      {Kind: Container, TokenFile: file},
		"no kind":       {Lease: "l-x", TokenFile: file},
		"env":           {Lease: "l-x", Kind: "env", TokenFile: file},
		"port":          {Lease: "l-x", Kind: Container, TokenFile: file, Port: 65536},
		"negative port": {Lease: "l-x", Kind: Container, TokenFile: file, Port: -1},
		"no file":       {Lease: "l-x", Kind: Container},
		"relative file": {Lease: "l-x", Kind: Container, TokenFile: "token"},
		"served":        {Lease: s.lease, Kind: Container, TokenFile: s.file},
	} {
		if port, err := h.Open(e); broker.CodeOf(err) != broker.CodeUsage || port != 0 {
			t.Errorf("%s: %d, %v", name, port, err)
		}
	}
	if port, err := h.Open(Endpoint{Lease: "l-x", Kind: Container, TokenFile: filepath.Join(file, "none")}); broker.CodeOf(err) != broker.CodeInternal || port != 0 ||
		!strings.Contains(err.Error(), "write the token") {
		t.Errorf("no directory: %d, %v", port, err)
	}
	if s.token(t) != token {
		t.Error("the token of a lease that was served already was overwritten")
	}
	if answer := s.raw(t, s.get(t)); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Error(answer)
	}
	// Nothing is left of what failed.
	if port, err := h.Open(Endpoint{Lease: "l-x", Kind: Container, TokenFile: file}); err != nil || port == 0 {
		t.Error(err)
	}
}

// A lease that is closed while it is being opened leaves nothing behind.
func TestCloseDuringOpen(t *testing.T) {
	h := newHarness(t)
	e := Endpoint{Lease: "l-x", Kind: Container, TokenFile: filepath.Join(h.dir, "x")}
	l, err := h.reserve(e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.reserve(e); broker.CodeOf(err) != broker.CodeUsage {
		t.Error(err)
	}
	h.Close(e.Lease)
	next, err := h.reserve(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.install(l, l.open()); broker.CodeOf(err) != broker.CodeDaemonUnreachable {
		t.Error(err)
	}
	if _, err := os.Stat(e.TokenFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the token's file: %v", err)
	}
	if _, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", l.Port)); err == nil {
		t.Error("the port is open")
	}
	// One that ended meanwhile has ended.
	h.End(e.Lease, "it is over")
	if err := h.install(next, next.open()); err != nil {
		t.Fatal(err)
	}
	s := &served{h: h, lease: e.Lease, port: next.Port, file: e.TokenFile}
	if answer := s.raw(t, s.get(t)); !strings.HasPrefix(answer, "HTTP/1.1 403 ") || !strings.Contains(answer, "it is over") {
		t.Error(answer)
	}
}

// A lease gets back the port it had, or is told who has it.
func TestPort(t *testing.T) {
	h := newHarness(t)
	s := h.open(t, Container)
	before := s.token(t)
	kept := dial(t, s.port)
	keepAlive := strings.Replace(s.get(t), "Connection: close\r\n", "", 1)
	kept.ask(t, keepAlive)

	again := newHarness(t) // the next daemon
	e := Endpoint{Lease: s.lease, Kind: Container, Port: s.port, TokenFile: s.file}
	port, err := again.Open(e)
	if !errors.Is(err, ErrPortTaken) || broker.CodeOf(err) != broker.CodeDaemonUnreachable || port != 0 ||
		!strings.Contains(err.Error(), s.lease) || !strings.Contains(err.Error(), fmt.Sprint(s.port)) {
		t.Fatalf("%d, %v", port, err)
	}
	if s.token(t) != before {
		t.Fatal("the token of a lease that is served was overwritten")
	}

	if err := h.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.token(t) != before {
		t.Error("Shutdown took the token's file away")
	}
	if _, err := kept.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection lived on: %v", err)
	}
	if port, err = again.Open(e); err != nil || port != s.port {
		t.Fatalf("%d, %v", port, err)
	}
	after := s.token(t)
	if after == before {
		t.Error("the token is the old one")
	}
	if answer := s.raw(t, strings.Replace(s.get(t), after, before, 1)); !strings.HasPrefix(answer, "HTTP/1.1 401 ") {
		t.Errorf("the old token: %s", answer)
	}
	if answer := s.raw(t, s.get(t)); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("the new token: %s", answer)
	}

	// A token of IMDS ends with the daemon too.
	imds := again.open(t, IMDS)
	old := imds.imdsToken(t)
	again.Close(imds.lease)
	again.openAs(t, Endpoint{Lease: imds.lease, Kind: IMDS, Port: imds.port, Role: "Deploy"})
	if answer := imds.raw(t, imds.imdsGet(old, rolePath)); !strings.HasPrefix(answer, "HTTP/1.1 401 ") {
		t.Errorf("the old token of IMDS: %s", answer)
	}
}

// The file is replaced in one step, whatever lies at its place.
func TestTokenFile(t *testing.T) {
	h := newHarness(t)
	path := filepath.Join(h.dir, "token")
	victim := filepath.Join(h.dir, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + ".new"} {
		if err := os.Symlink(victim, p); err != nil {
			t.Skip(err)
		}
	}
	token, err := writeToken(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if info, lerr := os.Lstat(path); err != nil || lerr != nil || string(got) != string(token) || info.Mode() != 0o600 {
		t.Errorf("%q, %v, %v %v", got, info.Mode(), err, lerr)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "mine" {
		t.Errorf("what a link led to became %q, %v", b, err)
	}
	if _, err := os.Lstat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Error("the new file is left:", err)
	}
	if second, err := writeToken(path); err != nil || string(second) == string(token) {
		t.Errorf("%q again, %v", second, err)
	}
	if err := os.Mkdir(filepath.Join(h.dir, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := writeToken(filepath.Join(h.dir, "dir")); err == nil {
		t.Error("a directory was replaced")
	}
	if entries, _ := filepath.Glob(filepath.Join(h.dir, "*.new")); len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
}

func TestClose(t *testing.T) {
	h := newHarness(t)
	s, other := h.open(t, Container), h.openAs(t, Endpoint{Lease: "l-other", Kind: Container})
	request := strings.Replace(s.get(t), "Connection: close\r\n", "", 1)
	kept, silent := dial(t, s.port), dial(t, s.port)
	kept.ask(t, request)
	// One under way is cut off: a lease that is closed serves nothing more.
	reached := make(chan struct{})
	h.set(func() {
		h.gate = func(ctx context.Context) { close(reached); <-ctx.Done() }
	})
	cut := make(chan string)
	go func() {
		answer, _ := exchange(s.port, request)
		cut <- answer
	}()
	<-reached
	h.Close(s.lease)
	if answer := <-cut; answer != "" {
		t.Errorf("answered after Close: %s", answer)
	}
	h.set(func() { h.gate = nil })
	for _, c := range []*client{kept, silent} {
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Error("a connection is open after Close")
		}
	}
	if _, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", s.port)); err == nil {
		t.Error("the port is open after Close")
	}
	if _, err := os.Stat(s.file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the token's file after Close: %v", err)
	}
	h.Close(s.lease)
	h.End(s.lease, "x")
	if answer := other.raw(t, other.get(t)); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("another lease: %s", answer)
	}
	if port, err := h.Open(Endpoint{Lease: s.lease, Kind: Container, TokenFile: s.file}); err != nil {
		t.Errorf("open again: %d, %v", port, err)
	}
}

// Shutdown waits for what is under way, and not for those who say nothing.
func TestShutdown(t *testing.T) {
	h := newHarness(t)
	s := h.open(t, Container)
	dial(t, s.port)
	request := s.get(t)
	reached, leave := make(chan struct{}), make(chan struct{})
	h.set(func() { h.gate = func(context.Context) { close(reached); <-leave } })
	answered := make(chan string)
	go func() {
		answer, err := exchange(s.port, request)
		answered <- fmt.Sprint(answer, err)
	}()
	<-reached
	done := make(chan error)
	started := time.Now()
	go func() { done <- h.Shutdown(t.Context()) }()
	for { // until the port is closed
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err != nil {
			break
		}
		c.Close()
		runtime.Gosched()
	}
	close(leave)
	if answer := <-answered; !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Error(answer)
	}
	if err := <-done; err != nil || time.Since(started) > 4*time.Second {
		t.Errorf("%v after %v", err, time.Since(started))
	}
	if _, err := h.Open(Endpoint{Lease: "l-x", Kind: IMDS}); broker.CodeOf(err) != broker.CodeDaemonUnreachable {
		t.Errorf("Open after Shutdown: %v", err)
	}

	// What does not end in time is cut off.
	h = newHarness(t)
	s = h.open(t, Container)
	reached = make(chan struct{})
	h.set(func() { h.gate = func(ctx context.Context) { close(reached); <-ctx.Done() } })
	request = s.get(t)
	go func() {
		answer, err := exchange(s.port, request)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			answer = "none, and the connection was not closed"
		}
		answered <- answer
	}()
	<-reached
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if answer := <-answered; answer != "" {
		t.Error(answer)
	}
}

// A connection that says nothing, or its request slowly, is closed, and those
// beyond the bound wait until then for a place.
func TestConnections(t *testing.T) {
	h := newHarness(t)
	h.patience = time.Second
	s := h.open(t, Container)
	var silent []*client
	for range maxLeaseConns {
		silent = append(silent, dial(t, s.port))
	}
	fmt.Fprint(silent[0], "GET / HTTP/1.1\r\nAuthor")
	started := time.Now()
	if answer := s.raw(t, s.get(t)); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Error(answer)
	}
	if waited := time.Since(started); waited < h.patience/2 {
		t.Errorf("the one too many waited for %v", waited)
	}
	for i, c := range silent {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Fatalf("silent connection %d: %v", i, err)
		}
	}
}

// A hundred leases at once, each with its own token, each serving what is its
// own.
func TestManyLeases(t *testing.T) {
	h := newHarness(t)
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			kind := []string{Container, IMDS}[i%2]
			e := Endpoint{Lease: fmt.Sprintf("l-%d", i), Kind: kind, Role: fmt.Sprintf("Role%d", i), TokenFile: filepath.Join(h.dir, fmt.Sprint(i))}
			port, err := h.Open(e)
			if err != nil {
				t.Error(err)
				return
			}
			s := &served{h: h, lease: e.Lease, port: port, file: e.TokenFile}
			for range 5 {
				request := ""
				if kind == Container {
					request = s.get(t)
				} else {
					request = s.imdsGet(s.imdsToken(t), "/latest/meta-data/iam/security-credentials/"+e.Role)
				}
				if answer, err := exchange(port, request); err != nil || !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
					t.Errorf("%s: %s %v", e.Lease, answer, err)
				}
			}
			if i%3 == 0 {
				h.End(e.Lease, "over")
			}
			if i%2 == 0 {
				h.Close(e.Lease)
			}
		})
	}
	all.Wait()
	served := make(map[string]int)
	h.set(func() {
		for _, id := range h.lease {
			served[id]++
		}
	})
	for i := range 100 {
		if n := served[fmt.Sprintf("l-%d", i)]; n != 5 {
			t.Errorf("lease %d was served %d times", i, n)
		}
	}
}

// Go's own client, which keeps its connections, sees nothing odd.
func TestKeepAlive(t *testing.T) {
	h := newHarness(t)
	s := h.open(t, Container)
	token := s.token(t)
	transport := &http.Transport{MaxIdleConnsPerHost: 4}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 50 {
				req, _ := http.NewRequest("GET", s.url(), nil)
				want := http.StatusOK
				if req.Header.Set("Authorization", token); i%7 == 3 {
					req.Header.Set("Authorization", "wrong")
					want = http.StatusUnauthorized
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("status %d, want %d", resp.StatusCode, want)
				}
			}
		})
	}
	all.Wait()
}
