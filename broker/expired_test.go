package broker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
)

// A proof that either clock says is over proves nothing: the user is asked
// again, also by a daemon that finds it in the keychain.
func TestNoExpiredProofCounts(t *testing.T) {
	for _, tt := range []struct {
		name     string
		jump     func(*world)
		restart  bool
		outlives bool // the proof
	}{
		{"nothing happens", func(*world) {}, false, true},
		{"a restart", func(*world) {}, true, true},
		{"two hours of sleep", func(w *world) { w.slept, w.skew = 2*time.Hour, 2*time.Hour }, false, true},
		{"a night's sleep", func(w *world) { w.slept, w.skew = 9*time.Hour, 9*time.Hour }, false, false},
		{"the wall clock alone", func(w *world) { w.skew = 9 * time.Hour }, false, false},
		{"suspend, with the wall clock set back", func(w *world) { w.slept, w.skew = 9*time.Hour, -time.Hour }, false, false},
		{"a restart after a night's sleep", func(w *world) { w.skew = 9 * time.Hour }, true, false},
		{"a restart with the wall clock set back", func(w *world) { w.skew = -time.Hour }, true, false},
	} {
		for _, profile := range []string{"mfa", "plainmfa"} { // a role of it, and the session itself
			t.Run(tt.name+", "+profile, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					first, err := w.run(t.Context(), w.person(7, profile, types("123456")))
					if err != nil {
						t.Fatal(err)
					}
					tt.jump(w)
					if tt.restart {
						w.start()
					}
					p := w.person(8, profile, types("654321"))
					g, err := w.run(t.Context(), p)
					if err != nil || (len(p.asked) == 0) != tt.outlives {
						t.Fatalf("asked %d times, %v", len(p.asked), err)
					}
					if !tt.outlives && (g.SessionID == first.SessionID || g.Credentials.AccessKeyID == first.Credentials.AccessKeyID) {
						t.Error("what had expired was served")
					}
					if left := g.Credentials.Expires.Sub(time.Now().Add(w.skew)); left <= 0 {
						t.Errorf("served with %s left", left)
					}
				})
			})
		}
	}
}

// On wake from a sleep past the expiry, a lease is served a session that lasts,
// or is refused: never the one that has expired, to nobody who comes, also
// when AWS cannot be reached yet.
func TestNoExpiredSessionOfALease(t *testing.T) {
	for _, jump := range []struct {
		name        string
		slept, skew time.Duration
	}{
		{"both clocks", 3 * time.Hour, 3 * time.Hour},
		{"the wall clock set back", 3 * time.Hour, -time.Hour},
		{"the wall clock alone", 0, 3 * time.Hour},
	} {
		for _, renew := range []string{"auto", "ask", "never"} {
			t.Run(jump.name+", "+renew, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newLeased(t)
					w.world.leases.Renew = renew
					w.world.start()
					g := w.begin(t, process(100, 50), "ops")
					first, err := w.LeaseCredentials(t.Context(), g.ID, process(101, 100, 50))
					if err != nil {
						t.Fatal(err)
					}
					w.slept, w.skew = jump.slept, jump.skew
					ways := map[string]func() (broker.Grant, error){
						"the endpoint": func() (broker.Grant, error) {
							return w.LeaseCredentials(t.Context(), g.ID, process(101, 100, 50))
						},
						"a program inside": func() (broker.Grant, error) {
							return w.Credentials(t.Context(), process(101, 100, 50), broker.Request{})
						},
					}
					w.sts.inCall(func(string) error { return broker.Errorf(broker.CodeAWSUnreachable, "asleep") })
					for way, ask := range ways {
						if got, err := ask(); err == nil {
							t.Errorf("%s, without AWS: served %s", way, got.Credentials.AccessKeyID)
						}
					}
					w.sts.inCall(nil)
					for way, ask := range ways {
						got, err := ask()
						if renew != "auto" {
							wantCode(t, err, broker.CodeDenied)
							continue
						}
						if err != nil {
							t.Errorf("%s: %v", way, err)
							continue
						}
						if left := got.Credentials.Expires.Sub(time.Now().Add(w.skew)); left <= 0 || got.Credentials.AccessKeyID == first.Credentials.AccessKeyID {
							t.Errorf("%s: served %s with %s left", way, got.Credentials.AccessKeyID, left)
						}
					}
				})
			})
		}
	}
}

// A proof that ends soon starts no chain that it would not see through.
func TestProofNearItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.run(t.Context(), w.person(7, "mfa", types("123456"))); err != nil {
			t.Fatal(err)
		}
		w.slept, w.skew = 8*time.Hour-time.Minute, 8*time.Hour-time.Minute
		_, err := w.run(t.Context(), w.person(8, "mfa", nil))
		wantCode(t, err, broker.CodePromptUnavailable)
	})
}
