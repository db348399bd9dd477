package sts_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/sts"
)

// A clocked AWS has its own time, and refuses what is signed more than five
// minutes off.
type clocked struct {
	*fake
	ahead  atomic.Int64 // of the test's clock, in ns
	signed atomic.Int64 // how many requests had a signature for the right time
}

func (a *clocked) now() time.Time { return time.Now().Add(time.Duration(a.ahead.Load())) }

func newClocked(t *testing.T, ahead time.Duration, date func(time.Time) string) *clocked {
	a := &clocked{}
	a.ahead.Store(int64(ahead))
	a.fake = newFake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		if d := date(a.now()); d != "" {
			w.Header().Set("Date", d)
		}
		at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if err != nil || a.now().Sub(at).Abs() > 5*time.Minute {
			refuse(w, 403, "SignatureDoesNotMatch", "Signature expired: it is now earlier than some time")
			return
		}
		a.signed.Add(1)
		answer(w, 200, assumedXML(sessionARN, a.now().Add(time.Hour)))
	})
	return a
}

func httpDate(t time.Time) string { return t.UTC().Format(http.TimeFormat) }

func TestWrongClockIsMadeUpFor(t *testing.T) {
	for _, ahead := range []time.Duration{12 * time.Minute, -12 * time.Minute, 2 * time.Hour, -23 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			a := newClocked(t, ahead, httpDate)
			var logged bytes.Buffer
			c := newClient(t, sts.Config{EndpointURL: a.URL, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
			for range 2 {
				s, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
				if err != nil {
					t.Fatal(err)
				}
				// The session lasts an hour from now, by the clock of whoever reads this.
				if left := time.Until(s.Credentials.Expires); (left - time.Hour).Abs() > 5*time.Second {
					t.Errorf("%v left", left)
				}
			}
			if n := a.asked.Load(); n != 3 {
				t.Errorf("%d requests: the clock should be learnt once", n)
			}
			if n := strings.Count(logged.String(), "clock is wrong"); n != 1 {
				t.Errorf("told %d times: %s", n, &logged)
			}

			// The clock is set: the first call heals.
			a.ahead.Store(0)
			if _, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{}); err != nil {
				t.Fatalf("after the clock was set: %v", err)
			}
			if c.Skew() != 0 {
				t.Errorf("still signing for %v later", c.Skew())
			}
		})
	}
}

func TestWrongClockIsReported(t *testing.T) {
	in := assume()
	in.SerialNumber, in.TokenCode = "arn:aws:iam::111122223333:mfa/alice", broker.NewSecret("123456")
	for _, tc := range []struct {
		ahead time.Duration
		part  string
	}{
		{12 * time.Minute, "this machine's clock is 12m0s behind AWS's"},
		{-2 * time.Hour, "this machine's clock is 2h0m0s ahead of AWS's"},
		{100 * time.Hour, "this machine's clock is 100h0m0s behind AWS's"},
	} {
		a := newClocked(t, tc.ahead, httpDate)
		c := newClient(t, sts.Config{EndpointURL: a.URL})
		_, err := c.AssumeRole(t.Context(), key(), in, broker.Target{})
		wantError(t, err, broker.CodeAWSDenied, "SignatureDoesNotMatch", tc.part, "set this machine's clock")
		if n := a.asked.Load(); n != 1 {
			t.Errorf("the token code was sent %d times", n)
		}
	}
}

// A Date that is absent, cached, nonsense or days away is not believed.
func TestDatesThatAreNotBelieved(t *testing.T) {
	for name, date := range map[string]func(time.Time) string{
		"none":     func(time.Time) string { return "" },
		"nonsense": func(time.Time) string { return "yesterday" },
		"years":    func(t time.Time) string { return httpDate(t.AddDate(3, 0, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			a := newClocked(t, 12*time.Minute, date)
			c := newClient(t, sts.Config{EndpointURL: a.URL})
			_, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
			wantError(t, err, broker.CodeAWSDenied, "SignatureDoesNotMatch")
			if n := a.asked.Load(); n != 1 || c.Skew() != 0 {
				t.Errorf("%d requests, signing for %v later", n, c.Skew())
			}
		})
	}
	t.Run("cached", func(t *testing.T) {
		f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Age", "3600")
			w.Header().Set("Date", httpDate(time.Now().Add(-time.Hour)))
			refuse(w, 403, "SignatureDoesNotMatch", "no")
		})
		c := newClient(t, sts.Config{EndpointURL: f.URL})
		_, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
		e := wantError(t, err, broker.CodeAWSDenied)
		if strings.Contains(e.Message, "clock") || c.Skew() != 0 {
			t.Errorf("%s", e.Message)
		}
	})
}

// Only an answer that depended on the clock tells it: what a sign-in page or
// an unrelated refusal says in its Date is not learnt.
func TestUnrelatedDatesAreNotLearnt(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", httpDate(time.Now().Add(time.Hour)))
		refuse(w, 403, "AccessDenied", "no")
	})
	c := newClient(t, sts.Config{EndpointURL: f.URL})
	c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
	if c.Skew() != 0 {
		t.Errorf("signing for %v later", c.Skew())
	}
}

// An expired session is not accepted because of a clock: AWS's own Date says
// how long it lasts.
func TestExpiryByTheServersDate(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().Add(2 * time.Hour) // AWS's
		w.Header().Set("Date", httpDate(now))
		answer(w, 200, assumedXML(sessionARN, now.Add(-time.Minute)))
	})
	c := newClient(t, sts.Config{EndpointURL: f.URL})
	_, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
	wantError(t, err, broker.CodeAWSUnreachable, "expired already")
}

// The injected clock is the one that signs.
func TestInjectedClock(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	var got string
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("X-Amz-Date")
		w.Header().Set("Date", httpDate(at))
		fmt.Fprint(w, assumedXML(sessionARN, at.Add(time.Hour)))
	})
	c := newClient(t, sts.Config{EndpointURL: f.URL, Now: func() time.Time { return at }})
	s, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
	if err != nil || got != "20260203T040506Z" || !s.Credentials.Expires.Equal(at.Add(time.Hour)) {
		t.Errorf("signed for %s, expires %v, %v", got, s.Credentials.Expires, err)
	}
}
