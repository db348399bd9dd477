package broker_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
)

// beginAs begins a lease as gatepass exec does, which asks until its user has
// answered.
func (w leased) beginAs(t *testing.T, p *person, d time.Duration, with ...string) (broker.LeaseGrant, error) {
	t.Helper()
	for {
		req := leaseRequest(p.req.Profile, with...)
		req.Request.Reachable, req.Request.Duration = p.req.Reachable, d
		g, err := w.Begin(t.Context(), p.caller, req)
		var ask *broker.AskError
		if !errors.As(err, &ask) {
			return g, err
		}
		if err := w.answers(t.Context(), p, ask.Question); err != nil {
			return g, err
		}
	}
}

// A lease that begins after a question has the sessions that were got while
// it was asked, and nobody is asked, nor STS called, for another one.
func TestALeaseThatWaitsForAnAnswer(t *testing.T) {
	for _, c := range []struct {
		name    string
		profile string
		d       time.Duration
		with    []string
		calls   int
	}{
		{"a proof", "mfa", 0, nil, 2},
		{"two profiles", "mfa", 0, []string{"plainmfa"}, 2},
		{"a code of its own", "long", 4 * time.Hour, nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newLeased(t)
				p := w.person(100, c.profile, types("123456"))
				p.caller = process(100, 50)
				p.caller.Via = "exec"
				g, err := w.beginAs(t, p, c.d, c.with...)
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				st, _ := w.Status(t.Context())
				if len(p.asked) != 1 || w.sts.count() != c.calls || len(st.Sessions) != 1+len(c.with) {
					t.Errorf("asked %d times, calls %q, sessions %+v", len(p.asked), w.sts.calls, st.Sessions)
				}
				inside := process(101, 100, 50)
				if _, err := w.LeaseCredentials(t.Context(), g.ID, inside); err != nil {
					t.Error(err)
				}
				time.Sleep(9 * time.Hour)
				_, err = w.LeaseCredentials(t.Context(), g.ID, inside)
				if e := broker.AsError(err); e == nil || e.Code != broker.CodePromptUnavailable || e.Hint != "gatepass renew "+g.ID {
					t.Errorf("past the proof: %v", err)
				}
				w.end(id(100), 0)
				if st, _ := w.Status(t.Context()); len(st.Sessions) != 0 {
					t.Errorf("after its end: %+v", st.Sessions)
				}
			})
		})
	}
}

// One whose process ends meanwhile leaves nothing behind, even if an answer
// comes later.
func TestALeaseThatWaitedInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		gone := w.person(100, "mfa", func(broker.Question) (string, broker.Code) {
			w.end(id(100), 130)
			return "", "gone"
		})
		gone.caller = process(100, 50)
		gone.caller.Via = "exec"
		if _, err := w.beginAs(t, gone, 0); err != errLeft {
			t.Fatal(err)
		}
		next := w.person(8, "mfa", types("123456"))
		if _, err := w.run(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		st, _ := w.Status(t.Context())
		if len(st.Sessions) != 1 || len(st.Leases) != 0 {
			t.Errorf("%+v, %+v", st.Sessions, st.Leases)
		}
	})
}
