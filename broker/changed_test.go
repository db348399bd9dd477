package broker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/profiles"
)

// changingProfiles may be changed at any time.
type changingProfiles struct {
	mu sync.Mutex
	fakeProfiles
}

func (p *changingProfiles) Resolve(files profiles.Files, name string) (*profiles.Chain, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fakeProfiles.Resolve(files, name)
}

// change gives a profile another meaning; nil takes it away.
func (p *changingProfiles) change(name string, to func(*profiles.Chain)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if to == nil {
		delete(p.fakeProfiles, name)
		return
	}
	c := p.fakeProfiles[name]
	c.Hops = slices.Clone(c.Hops)
	to(&c)
	p.fakeProfiles[name] = c
}

// newChangingWorld has profiles that change, with mfa.
func newChangingWorld(t *testing.T, mfa broker.MFA) (*world, *changingProfiles) {
	w := newWorldWith(t, mfa)
	p := &changingProfiles{fakeProfiles: w.profiles.(fakeProfiles)}
	w.profiles = p
	w.start()
	return w, p
}

// A profile that came to mean something else while a request for it waited is
// served as it is then, and what it meant before is not.
func TestConfigChangedWhileWaiting(t *testing.T) {
	const otherRole = "arn:aws:iam::444455556666:role/Other"
	role := func(arn string) func(*profiles.Chain) { return func(c *profiles.Chain) { c.Hops[0].RoleARN = arn } }
	// first runs change within the first call of STS; each takes a while.
	first := func(w *world, change func()) {
		calls := 0
		w.sts.inCall(func(string) error {
			time.Sleep(time.Second)
			if calls++; calls == 1 {
				change()
			}
			return nil
		})
	}
	for _, tt := range []struct {
		name   string
		change func(*profiles.Chain)
		check  func(t *testing.T, w *world, g broker.Grant, err error)
	}{
		{"another role", role(otherRole), func(t *testing.T, w *world, g broker.Grant, err error) {
			if err != nil || g.Credentials.AccountID != "444455556666" {
				t.Errorf("account %s, %v", g.Credentials.AccountID, err)
			}
			wantKinds(t, w, "session.requested", "session.issued", "session.requested", "session.issued", "credentials.served")
			if e := w.log.entries[4]; e.RoleARN != otherRole || e.Session.ID != g.SessionID {
				t.Errorf("recorded %+v", e)
			}
		}},
		{"another key", func(c *profiles.Chain) { c.Key = "bob" }, func(t *testing.T, w *world, g broker.Grant, err error) {
			if last := w.sts.calls[w.sts.count()-1]; err != nil || !strings.HasSuffix(last, "with AKIABOB0000000000001") {
				t.Errorf("%v, %v", w.sts.calls, err)
			}
		}},
		{"another region alone", func(c *profiles.Chain) { c.Region = "us-west-2" }, func(t *testing.T, w *world, g broker.Grant, err error) {
			if err != nil || g.Region != "us-west-2" || w.sts.count() != 1 {
				t.Errorf("region %s, %v, %v", g.Region, w.sts.calls, err)
			}
		}},
		{"gone", nil, func(t *testing.T, w *world, g broker.Grant, err error) {
			wantCode(t, err, broker.CodeNotFound)
			if g.Credentials.AccessKeyID != "" {
				t.Error("credentials were released")
			}
			wantKinds(t, w, "session.requested", "session.issued", "request.failed:not_found")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, p := newChangingWorld(t, broker.MFA{})
				w.keys.keys["bob"] = key("bob", "AKIABOB0000000000001")
				first(w, func() { p.change("ops", tt.change) })
				g, err := w.ask(t, "ops")
				tt.check(t, w, g, err)
			})
		})
	}
	t.Run("for all who wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, p := newChangingWorld(t, broker.MFA{})
			first(w, func() { p.change("ops", role(otherRole)) })
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					if g, err := w.Credentials(t.Context(), cli, broker.Request{Profile: "ops"}); err != nil || g.Credentials.AccountID != "444455556666" {
						t.Errorf("account %s, %v", g.Credentials.AccountID, err)
					}
				})
			}
			all.Wait()
			if w.sts.count() != 2 {
				t.Errorf("calls: %v", w.sts.calls)
			}
		})
	})
	t.Run("without end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, p := newChangingWorld(t, broker.MFA{})
			n := 0
			w.sts.inCall(func(string) error {
				time.Sleep(time.Second)
				n++
				p.change("ops", role(fmt.Sprintf("arn:aws:iam::111122223333:role/R%d", n)))
				return nil
			})
			_, err := w.ask(t, "ops")
			wantCode(t, err, broker.CodeConfig)
			if !strings.Contains(err.Error(), "keeps changing") || n > 10 {
				t.Errorf("%v after %d calls", err, n)
			}
		})
	})
	t.Run("while a dialog stands", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var p *changingProfiles
			w, p := newChangingWorld(t, broker.MFA{Prompter: dialog(func(context.Context) (string, error) {
				time.Sleep(20 * time.Second)
				p.change("mfa", role(otherRole))
				return "123456", nil
			})})
			g, err := w.run(t.Context(), w.person(7, "mfa", nil))
			if err != nil || g.Credentials.AccountID != "444455556666" || len(w.sts.tokens) != 1 {
				t.Errorf("account %s, %v, %v", g.Credentials.AccountID, w.sts.calls, err)
			}
		})
	})
}

// A lease's endpoint looks at the config again after 20 ms, and at nobody's
// word but the config's: a key that is removed serves nothing from then on.
func TestEndpointsLookAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := leased{fakeTree: newTree()}
		var p *changingProfiles
		w.world, p = newChangingWorld(t, broker.MFA{})
		w.restart()
		root := process(100, 50)
		lease := w.begin(t, root, "ops").ID
		account := func() string {
			t.Helper()
			g, err := w.LeaseCredentials(t.Context(), lease, root)
			if err != nil {
				t.Fatal(err)
			}
			return g.Credentials.AccountID
		}
		account()
		p.change("ops", func(c *profiles.Chain) { c.Hops[0].RoleARN = "arn:aws:iam::444455556666:role/Other" })
		time.Sleep(19 * time.Millisecond)
		if got := account(); got != "111122223333" {
			t.Errorf("after 19 ms account %s: it was looked at each time", got)
		}
		time.Sleep(time.Millisecond)
		if got := account(); got != "444455556666" {
			t.Errorf("after 20 ms account %s", got)
		}
		// Whoever asks elsewhere gets what the config means now.
		p.change("ops", func(c *profiles.Chain) { c.Hops[0].RoleARN = roleARN })
		if g, err := w.Credentials(t.Context(), process(101, 100, 50), broker.Request{}); err != nil || g.Credentials.AccountID != "111122223333" {
			t.Errorf("over the socket: account %s, %v", g.Credentials.AccountID, err)
		}
		account()
		if err := w.RemoveKey(t.Context(), process(7), "alice", broker.Reachable{Known: true}); err != nil {
			t.Fatal(err)
		}
		_, err := w.LeaseCredentials(t.Context(), lease, root)
		wantCode(t, err, broker.CodeNotFound)
		stored := broker.NewKey{Name: "alice", AccessKeyID: "AKIAALICE00000000002", SecretAccessKey: broker.NewSecret(strings.Repeat("s", 40)), NoVerify: true}
		if _, err := w.AddKey(t.Context(), process(7), stored); err != nil {
			t.Fatal(err)
		}
		account() // with the key that is there now
	})
}
