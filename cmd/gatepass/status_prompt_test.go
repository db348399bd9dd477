package main

import (
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

func TestStatusPrompt(t *testing.T) {
	h := newHome(t)
	answer := "4102444800 live ops\n"
	asked := 0
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"GET " + wire.PathLeaseOwn: func([]byte) (int, map[string]string, string) {
			asked++
			if answer == "refused" {
				return 403, nil, jsonOf(t, broker.Error{Code: broker.CodeDenied, Message: "no"})
			}
			return 200, nil, answer
		},
	})
	for _, args := range [][]string{{"status", "--prompt"}, {"status", "--prompt=true"}} {
		delete(h.env, "GATEPASS_LEASE")
		answer, asked = "1000000000 expired ops\n", 0
		if r := h.run(args...); r != (result{}) || asked != 0 {
			t.Errorf("%q outside: %+v, asked %d times", args, r, asked)
		}
		h.env["GATEPASS_LEASE"] = "l-1"
		if r := h.run(args...); r != (result{stdout: "ops expired\n"}) || asked != 1 {
			t.Errorf("%q inside: %+v, asked %d times", args, r, asked)
		}
		// A prompt is no place for errors.
		for _, answer = range []string{"", "refused", "nonsense\n", "1 2\n", "1 live ops"} {
			if r := h.run(args...); r != (result{}) {
				t.Errorf("%q for %q: %+v", args, answer, r)
			}
		}
	}
	h = newHome(t) // without a daemon, and none is started
	h.env["GATEPASS_LEASE"] = "l-1"
	if r := h.run("status", "--prompt"); r != (result{}) {
		t.Errorf("%+v", r)
	}
}

func TestPromptText(t *testing.T) {
	for _, c := range []struct {
		l    wire.OwnLease
		want string
	}{
		{wire.OwnLease{Profile: "ops", State: "live", Expires: at.Add(42*time.Minute + 59*time.Second)}, "ops 42m"},
		{wire.OwnLease{Profile: "a b\x1b[2J", State: "live", Expires: at.Add(59 * time.Second)}, `a b\x1b[2J 59s`},
		{wire.OwnLease{Profile: "ops", State: "live"}, "ops"}, // a new session comes with the next use
		{wire.OwnLease{Profile: "ops", State: "live", Expires: at}, "ops"},
		{wire.OwnLease{Profile: "ops", State: "expired", Expires: at.Add(time.Hour)}, "ops expired"},
		{wire.OwnLease{Profile: "ops", State: "lingering", Expires: at.Add(time.Hour)}, "ops ended"},
		{wire.OwnLease{Profile: "ops", State: "needs-mfa", Expires: at.Add(time.Hour)}, "ops 1h0m needs MFA"},
		{wire.OwnLease{Profile: "ops", State: "needs-mfa"}, "ops needs MFA"},
	} {
		if got := promptText(c.l, at); got != c.want {
			t.Errorf("%+v: %q, want %q", c.l, got, c.want)
		}
	}
}
