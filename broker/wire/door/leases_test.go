package door

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// What a lease's begin, renewal and end are asked with, and answered.
func TestLeases(t *testing.T) {
	h := serve(t, nil)
	c := &wire.Client{Socket: h.socket}
	in := wire.StartLeaseRequest{
		CredentialsRequest: wire.CredentialsRequest{Profile: "ops", Region: "eu-west-1", Reason: "why", DurationSeconds: 900, MFACode: "123456"},
		With:               []string{"other"}, Program: "/usr/bin/gatepass", Command: "/usr/bin/make",
	}
	for serve, want := range map[string]wire.StartLeaseResponse{
		"":     {Serve: "container", Endpoint: "http://127.0.0.1:4711/", TokenFile: "/run/l-7f3k2m9qxd/token", Renewable: true},
		"imds": {Serve: "imds", Endpoint: "http://127.0.0.1:4711/", Renewable: true},
		"env":  {Serve: "env", Credentials: []byte(strings.TrimSuffix(string(grant().Credentials.Document()), "\n"))},
	} {
		in.Serve = serve
		var got wire.StartLeaseResponse
		if err := c.Call(t.Context(), "POST", wire.PathLeases, in, &got); err != nil {
			t.Fatal(err)
		}
		want.Lease, want.Profile, want.Region, want.Expires = "l-7f3k2m9qxd", "ops", "eu-central-1", time.Unix(2e9, 0)
		want.ConfigFile, want.CredentialsFile = "/run/l-7f3k2m9qxd/config", "/run/l-7f3k2m9qxd/credentials"
		if !got.Expires.Equal(want.Expires) {
			t.Errorf("%q expires %s", serve, got.Expires)
		}
		got.Expires = want.Expires
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v\nwant %+v", serve, got, want)
		}
	}
	asked, ok := h.broker.asked[0].(broker.LeaseRequest)
	if !ok || asked.Profile != "ops" || asked.Region != "eu-west-1" || asked.Reason != "why" || asked.Duration != 15*time.Minute ||
		!asked.Code.Equal(broker.NewSecret("123456")) || !reflect.DeepEqual(asked.With, in.With) || asked.Program != in.Program || asked.Command != in.Command {
		t.Errorf("asked %+v", h.broker.asked[0])
	}
	if via := h.broker.callers[0].Via; via != "exec" {
		t.Errorf("via %q", via)
	}

	var st broker.LeaseStatus
	if err := c.Call(t.Context(), "POST", wire.PathLeaseRenew, wire.RenewLeaseRequest{Lease: "l-1", Reason: "more"}, &st); err != nil || st.ID != "l-1" {
		t.Errorf("renew: %+v, %v", st, err)
	}
	var ended wire.EndLeasesResponse
	if err := c.Call(t.Context(), "POST", wire.PathLeaseEnd, wire.EndLeasesRequest{Leases: []string{"l-1", "l-2"}, Release: true}, &ended); err != nil || len(ended.Ended) != 2 {
		t.Errorf("end: %+v, %v", ended, err)
	}
	if got := h.broker.asked[4]; !reflect.DeepEqual(got, broker.EndRequest{Leases: []string{"l-1", "l-2"}, Release: true}) {
		t.Errorf("asked %+v", got)
	}
	for _, request := range []string{
		post(wire.PathLeases, host, `{"profile":"ops","region":"evil.example/"}`),
		post(wire.PathLeases, host, `{"profile":"ops","config_file":"relative"}`),
		post(wire.PathLeases, host, `{"profile":"ops","with":"admin"}`),
		post(wire.PathLeaseRenew, host, `{"ask":{"mode":"pigeon"}}`),
		post(wire.PathLeaseEnd, host, `{"leases":"l-1"}`),
	} {
		before := h.broker.calls()
		if answer := h.raw(t, request); !strings.HasPrefix(answer, "HTTP/1.1 400 ") || h.broker.calls() != before {
			t.Errorf("%s", answer)
		}
	}
}

// A shell's prompt hears of the lease around it, and nothing outside of one.
func TestOwnLease(t *testing.T) {
	h := serve(t, nil)
	c := &wire.Client{Socket: h.socket}
	if l, err := c.OwnLease(t.Context()); err != nil || l != (wire.OwnLease{}) {
		t.Errorf("outside: %+v, %v", l, err)
	}
	h.broker.own = broker.LeaseStatus{ID: "l-1", Profiles: []string{"a b", "c"}, State: "needs-mfa", Expires: time.Unix(2e9, 5)}
	want := wire.OwnLease{Profile: "a b", State: "needs-mfa", Expires: time.Unix(2e9, 0)}
	if l, err := c.OwnLease(t.Context()); err != nil || l != want {
		t.Errorf("got %+v, %v, want %+v", l, err, want)
	}
	if asked := h.broker.callers[1]; asked.PID != os.Getpid() {
		t.Errorf("asked for %+v", asked)
	}
}

// Who is inside a lease stops no daemon.
func TestStopFromInside(t *testing.T) {
	h := serve(t, nil)
	h.broker.wall = broker.Errorf(broker.CodeDenied, "process 7 is inside lease l-1")
	err := (&wire.Client{Socket: h.socket}).Call(t.Context(), "POST", wire.PathStop, struct{}{}, nil)
	if broker.CodeOf(err) != broker.CodeDenied || len(h.stops) != 0 {
		t.Errorf("%v", err)
	}
}
