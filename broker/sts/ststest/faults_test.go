package ststest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  Fault
		check  func(t *testing.T, r reply, err error)
		issued bool // a session was made all the same
	}{
		{"throttle", Fault{Kind: Throttle}, func(t *testing.T, r reply, err error) {
			r.refused(t, 400, "Throttling", "Rate exceeded")
		}, false},
		{"fail", Fault{Kind: Fail}, func(t *testing.T, r reply, err error) {
			r.refused(t, 500, "InternalFailure", "The request processing has failed")
		}, false},
		{"unavailable", Fault{Kind: Fail, Status: 503}, func(t *testing.T, r reply, err error) {
			r.refused(t, 503, "ServiceUnavailable", "")
		}, false},
		{"fail in other words", Fault{Kind: Fail, Status: 403, Code: "RegionDisabledException", Message: "STS is not activated <here>"}, func(t *testing.T, r reply, err error) {
			r.refused(t, 403, "RegionDisabledException", "STS is not activated <here>")
		}, false},
		{"drop", Fault{Kind: Drop}, func(t *testing.T, r reply, err error) {
			if err == nil {
				t.Errorf("answered: %s", r)
			}
		}, false},
		{"truncate", Fault{Kind: Truncate}, func(t *testing.T, r reply, err error) {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the body ends with %v", err)
			}
		}, true},
		{"garbage", Fault{Kind: Garbage}, func(t *testing.T, r reply, err error) {
			if err != nil || r.Status != 200 || r.OKRequestID != "" || r.Body == "" {
				t.Errorf("%v %s %q", err, r, r.Body)
			}
		}, false},
		{"html", Fault{Kind: HTML}, func(t *testing.T, r reply, err error) {
			if err != nil || r.Status != 200 || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") {
				t.Errorf("%v %s %q", err, r, r.Body)
			}
		}, false},
		{"empty", Fault{Kind: Empty}, func(t *testing.T, r reply, err error) {
			if err != nil || r.Status != 200 || r.Body != "" {
				t.Errorf("%v %s %q", err, r, r.Body)
			}
		}, false},
		{"incomplete", Fault{Kind: Incomplete}, func(t *testing.T, r reply, err error) {
			if err != nil || r.Status != 200 || r.OKRequestID == "" || r.credentials().AccessKeyID != "" {
				t.Errorf("%v %s %q", err, r, r.Body)
			}
		}, true},
		{"skew ahead", Fault{Skew: 6 * time.Minute}, func(t *testing.T, r reply, err error) {
			r.refused(t, 403, "SignatureDoesNotMatch", "Signature expired: 20260304T120000Z is now earlier than 20260304T120100Z (20260304T120600Z - 5 min.)")
			if got := r.Header.Get("Date"); got != "Wed, 04 Mar 2026 12:06:00 GMT" {
				t.Errorf("Date %q", got)
			}
		}, false},
		{"skew behind", Fault{Skew: -6 * time.Minute}, func(t *testing.T, r reply, err error) {
			r.refused(t, 403, "SignatureDoesNotMatch", "Signature not yet current")
		}, false},
		{"slow", Fault{Delay: time.Nanosecond}, func(t *testing.T, r reply, err error) {
			if err != nil || r.Status != 200 {
				t.Errorf("%v %s", err, r)
			}
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, Example())
			tt.fault.Action, tt.fault.Count = "AssumeRole", 1
			c.Faults().Add(tt.fault)
			if r := c.as("alice").call(t, identity); r.Status != 200 {
				t.Fatalf("another action meets the fault: %s", r)
			}
			r, err := c.as("alice").do(t, assume(DeployARN))
			tt.check(t, r, err)
			call := c.Calls()[1]
			if (call.IssuedKeyID != "") != tt.issued || call.Fault != tt.fault.Kind || call.Action != "AssumeRole" {
				t.Errorf("recorded %+v", call)
			}
			if r := c.as("alice").call(t, assume(DeployARN)); r.Status != 200 {
				t.Errorf("the fault is not over: %s", r)
			}
			if n := c.Count("AssumeRole"); n != 2 {
				t.Errorf("%d calls counted, want 2", n)
			}
		})
	}
}

func TestFaultsAreMetInOrder(t *testing.T) {
	var fs Faults
	fs.Add(Fault{Kind: Throttle, Action: "A", Count: 2})
	fs.Add(Fault{Kind: Drop})
	want := []FaultKind{Throttle, Drop, Throttle, Drop, Drop}
	for i, action := range []string{"A", "B", "A", "A", ""} {
		if got := fs.take(action).Kind; got != want[i] {
			t.Errorf("call %d meets %q, want %q", i, got, want[i])
		}
	}
	if l := fs.List(); len(l) != 1 || l[0].Kind != Drop {
		t.Errorf("left: %+v", l)
	}
	fs.Clear()
	if f := fs.take("A"); f != (Fault{}) {
		t.Errorf("after Clear: %+v", f)
	}
}

// TestSlowEndsWithItsClient: an hour's delay holds up neither the server, once
// the client has gone, nor the end of a test.
func TestSlowEndsWithItsClient(t *testing.T) {
	s, err := New(Example())
	if err != nil {
		t.Fatal(err)
	}
	s.Faults().Add(Fault{Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, "POST", "/", strings.NewReader("Action=GetCallerIdentity&Version=2011-06-15"))
	s.ServeHTTP(httptest.NewRecorder(), r) // would not return
	if s.Count("GetCallerIdentity") != 0 {
		t.Error("a call that nobody waits for is counted")
	}
}

func TestAdmin(t *testing.T) {
	c := newClient(t, Example())
	do := func(method, path, body string, edit ...func(*http.Request)) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, c.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range edit {
			f(r)
		}
		res, err := c.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}

	if status, body := do("POST", "/sandbox/fault", `{"action":"AssumeRole","kind":"fail","count":3,"delay":"1ms","skew":"-1s","status":503,"code":"C","message":"M"}`); status != 204 {
		t.Fatalf("%d %s", status, body)
	}
	want := Fault{Action: "AssumeRole", Kind: Fail, Count: 3, Delay: time.Millisecond, Skew: -time.Second, Status: 503, Code: "C", Message: "M"}
	if got := c.Faults().List(); !reflect.DeepEqual(got, []Fault{want}) {
		t.Errorf("in force: %+v", got)
	}
	var listed struct{ Faults []faultJSON }
	_, body := do("GET", "/sandbox/fault", "")
	if err := json.Unmarshal([]byte(body), &listed); err != nil || len(listed.Faults) != 1 {
		t.Fatalf("%v: %s", err, body)
	}
	if f, err := listed.Faults[0].fault(); err != nil || f != want {
		t.Errorf("listed as %+v, %v", f, err)
	}
	c.as("alice").call(t, assume(DeployARN)).refused(t, 503, "C", "M")
	if status, _ := do("DELETE", "/sandbox/fault", ""); status != 204 || len(c.Faults().List()) != 0 {
		t.Errorf("DELETE: %d, left %+v", status, c.Faults().List())
	}

	for body, part := range map[string]string{
		``: "EOF", `{}`: "does nothing", `{"kind":"explode"}`: "none of", `{"kind":"drop"}{"kind":"drop"}`: "more than one",
		`{"kind":"drop","colour":1}`: "colour", `{"delay":"soon"}`: "delay", `{"skew":5}`: "skew", `{"kind":"drop","delay":"-1s"}`: "negative",
		`{"kind":"drop","count":-1}`: "negative", `{"kind":"fail","status":200}`: "400 to 599", `{"kind":"drop","status":500}`: "go with kind",
	} {
		if status, answer := do("POST", "/sandbox/fault", body); status != 400 || !strings.Contains(answer, part) {
			t.Errorf("%s: %d %s, want …%s…", body, status, answer, part)
		}
	}
	if len(c.Faults().List()) != 0 {
		t.Errorf("a bad fault is in force: %+v", c.Faults().List())
	}

	const code = "246813"
	c.as("alice").call(t, assume(ReadOnlyARN, "ExternalId", ReadOnlyExternalID, "SerialNumber", AliceDevice, "TokenCode", code))
	session := c.as("alice").session(t, assume(ReadOnlyARN, "ExternalId", ReadOnlyExternalID))
	_, body = do("GET", "/sandbox/calls", "")
	var calls struct {
		Counts map[string]int
		Calls  []Call
	}
	if err := json.Unmarshal([]byte(body), &calls); err != nil {
		t.Fatal(err)
	}
	if calls.Counts["AssumeRole"] != 3 || !reflect.DeepEqual(calls.Calls, c.Calls()) || len(calls.Calls) != 3 {
		t.Errorf("%+v\nwant %+v", calls, c.Calls())
	}
	for _, secret := range []string{code, session.SecretAccessKey, session.SessionToken, c.Key("alice").Secret, ReadOnlyExternalID, "Signature="} {
		if strings.Contains(body, secret) {
			t.Errorf("the calls show %q", secret)
		}
	}
	if status, _ := do("DELETE", "/sandbox/calls", ""); status != 204 || len(c.Calls()) != 0 || c.Count("AssumeRole") != 0 {
		t.Errorf("DELETE: %d, %d left", status, len(c.Calls()))
	}

	for name, edit := range map[string]func(*http.Request){
		"a web page":                func(r *http.Request) { r.Header.Set("Origin", "null") },
		"a link":                    func(r *http.Request) { r.Header.Set("Referer", "http://evil.example/") },
		"a browser's address bar":   func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "none") },
		"a rebound name":            func(r *http.Request) { r.Host = "evil.example" },
		"a rebound name and a port": func(r *http.Request) { r.Host = "evil.example:80" },
		"another address":           func(r *http.Request) { r.Host = "10.0.0.1" },
	} {
		if status, _ := do("GET", "/sandbox/calls", "", edit); status != 403 {
			t.Errorf("%s: %d", name, status)
		}
	}
	for _, host := range []string{"localhost", "LOCALHOST:1", "[::1]:1", "127.0.0.2"} {
		if status, _ := do("GET", "/sandbox/calls", "", func(r *http.Request) { r.Host = host }); status != 200 {
			t.Errorf("%s: %d", host, status)
		}
	}
	far := httptest.NewRequest("GET", "http://127.0.0.1/sandbox/calls", nil)
	far.RemoteAddr = "192.0.2.1:1234"
	w := httptest.NewRecorder()
	if c.Sandbox.ServeHTTP(w, far); w.Code != 403 {
		t.Errorf("from another machine: %d", w.Code)
	}
	if status, _ := do("GET", "/sandbox/nothing", ""); status != 404 {
		t.Errorf("no such path: %d", status)
	}
}

func TestAddPanicsOnNonsense(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Add took a fault that does nothing")
		}
	}()
	new(Faults).Add(Fault{Action: "AssumeRole"})
}

// TestManyAtOnce is for the race detector.
func TestManyAtOnce(t *testing.T) {
	config := Example()
	var logged sync.Map
	config.Log = func(c Call) { logged.Store(c.RequestID, true) }
	c := newClient(t, config)
	c.Faults().Add(Fault{Kind: Throttle, Count: 40})
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 10 {
				if _, err := c.as("alice").do(t, assume(DeployARN)); err != nil {
					t.Error(err)
				}
				c.Calls()
				c.SetKeyStatus(c.Key("bob").ID, Active)
				c.Faults().List()
			}
		})
	}
	all.Wait()
	throttled, n := 0, 0
	for _, call := range c.Calls() {
		if call.Code == "Throttling" {
			throttled++
		}
	}
	logged.Range(func(any, any) bool { n++; return true })
	if throttled != 40 || c.Count("AssumeRole") != 160 || n != 160 {
		t.Errorf("%d throttled, %d counted, %d logged; want 40, 160, 160", throttled, c.Count("AssumeRole"), n)
	}
}

func TestOldCallsAreForgotten(t *testing.T) {
	var b callBook
	for i := range 2*keptCalls + 1 {
		b.add(Call{Action: "A", Status: i})
	}
	counts, calls := b.snapshot()
	if counts["A"] != 2*keptCalls+1 || len(calls) != keptCalls+1 || calls[0].Status != keptCalls || calls[keptCalls].Status != 2*keptCalls {
		t.Errorf("%d counted, %d kept", counts["A"], len(calls))
	}
}

func TestTLS(t *testing.T) {
	srv := NewTLSServer(t, Example())
	res, err := srv.Client().PostForm(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 400 || srv.Certificate() == nil {
		t.Errorf("status %d", res.StatusCode)
	}
	if _, err := http.Get(srv.URL); err == nil {
		t.Error("a client that does not trust the certificate is answered")
	}
}

func BenchmarkAssumeRole(b *testing.B) {
	c := newClient(b, Example())
	alice := c.as("alice")
	for b.Loop() {
		if r := alice.call(b, assume(DeployARN)); r.Status != 200 {
			b.Fatal(r)
		}
	}
}
