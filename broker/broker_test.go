package broker_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/profiles"
)

func wantKinds(t *testing.T, w *world, want ...string) {
	t.Helper()
	if got := w.log.kinds(); !slices.Equal(got, want) {
		t.Errorf("the log holds\n  %s\nwant\n  %s", strings.Join(got, " "), strings.Join(want, " "))
	}
}

func wantCode(t *testing.T, err error, code broker.Code) {
	t.Helper()
	if broker.CodeOf(err) != code {
		t.Errorf("got %v (%s), want %s", err, broker.CodeOf(err), code)
	}
}

// The order of the gate: intent on disk before STS, the session before the
// hand-out, the hand-out before it leaves; a second one needs no STS.
func TestHandOutIsRecordedBeforeItLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sts.inCall(func(string) error {
			wantKinds(t, w, "session.requested")
			return nil
		})
		g := w.mustAsk(t, "ops")
		w.mustAsk(t, "ops")
		wantKinds(t, w, "session.requested", "session.issued", "credentials.served", "credentials.served")
		if !slices.Equal(w.log.durable, []bool{true, true, true, false}) {
			t.Errorf("durable: %v", w.log.durable)
		}
		if n := w.sts.count(); n != 1 {
			t.Errorf("%d calls of STS, want 1", n)
		}
		last := w.log.entries[3]
		if last.Profile != "ops" || last.RoleARN != roleARN || last.Account != "111122223333" || last.Caller.Program != "aws" ||
			last.Session.AccessKeyID != g.Credentials.AccessKeyID || last.Session.STSRequestID != "req-1" || last.Key.UserARN != userARN {
			t.Errorf("entry lacks something: %+v", last)
		}
		if id := last.Session.ID; last.Session.Name != "alice-s"+strings.TrimPrefix(id, "s-") || id != g.SessionID {
			t.Errorf("session %q is named %q", id, last.Session.Name)
		}
		if g.Region != "eu-west-1" || g.Credentials.AccountID != "111122223333" {
			t.Errorf("got region %q, account %q", g.Region, g.Credentials.AccountID)
		}
	})
}

func TestNoEntryNoCredentials(t *testing.T) {
	for _, kind := range []broker.EventKind{broker.EventSessionRequested, broker.EventSessionIssued, broker.EventCredentialsServed} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				full := broker.Errorf(broker.CodeLogUnwritable, "disk full")
				w.log.fail = func(e broker.Event) error {
					if e.Kind == kind {
						return full
					}
					return nil
				}
				g, err := w.ask(t, "ops")
				wantCode(t, err, broker.CodeLogUnwritable)
				if !g.Credentials.SecretAccessKey.IsZero() || g.Credentials.AccessKeyID != "" {
					t.Error("credentials were released")
				}
				if kind == broker.EventSessionRequested && w.sts.count() > 0 {
					t.Error("STS was called before the intent was on disk")
				}
				w.log.fail = nil // space returns
				w.mustAsk(t, "ops")
			})
		})
	}
	t.Run("from the cache", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.mustAsk(t, "ops")
			w.log.fail = func(broker.Event) error { return broker.Errorf(broker.CodeLogUnwritable, "disk full") }
			g, err := w.ask(t, "ops")
			wantCode(t, err, broker.CodeLogUnwritable)
			if g.Credentials.AccessKeyID != "" {
				t.Error("credentials were released")
			}
		})
	})
}

// A chain without a stored key is drawn up to where the key is missing.
func TestMissingKeyIsDrawn(t *testing.T) {
	for _, tt := range []struct{ profile, message, hint string }{
		{"lost", `profile "lost" starts with the key "bob", which is not stored (lost → ✗ key bob)`, "store it with: gatepass keys add bob"},
		{"typo", `profile "typo" starts with the key "alcie", which is not stored (typo → hub → ✗ key alcie)`, `did you mean the key "alice"? else store it: gatepass keys add alcie`},
		{
			"keyless", `the role of profile "hub\x1b" has no key to start from: no source_profile, no gatepass_key, and no key named "hub\x1b" is stored (keyless → "hub\x1b" → ✗ key "hub\x1b")`,
			"gatepass_key = NAME",
		},
		{"odd", `key "x';reboot"`, `gatepass keys add 'x'\'';reboot'`},
		{"alice2", `and no key named "alice2" is stored (alice2 → ✗ key alice2)`, `to start from the stored key "alice", add to that profile: gatepass_key = alice`},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			_, err := w.ask(t, tt.profile)
			wantCode(t, err, broker.CodeNotFound)
			if e := broker.AsError(err); !strings.Contains(e.Message, tt.message) || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("%s: %s\n%s", tt.profile, e.Message, e.Hint)
			}
		})
	}
}

// The section that a hint shows has the name that was asked for.
func TestHintedSection(t *testing.T) {
	b := broker.New(broker.Config{
		Keys: &fakeKeys{}, Clock: stillClock,
		Profiles: resolverFunc(func(_ profiles.Files, name string) (*profiles.Chain, error) {
			return nil, &profiles.NotFoundError{Name: name}
		}),
	})
	for name, want := range map[string]string{
		"nowhere":  "add it to ~/.aws/config: [profile nowhere]",
		"no where": "add it to ~/.aws/config: [profile 'no where']",
		"default":  "add it to ~/.aws/config: [default]",
	} {
		_, err := b.ShowProfile(t.Context(), cli, profiles.Files{}, name)
		wantCode(t, err, broker.CodeNotFound)
		if hint := broker.AsError(err).Hint; hint != want {
			t.Errorf("%s: %s", name, hint)
		}
	}
}

func TestRefusalsAreRecorded(t *testing.T) {
	denied := broker.Errorf(broker.CodeAWSDenied, "not authorized")
	for _, tt := range []struct {
		name, profile string
		setup         func(*world)
		code          broker.Code
		kinds         []string
	}{
		{"unknown profile", "opps", nil, broker.CodeNotFound, []string{"request.failed:not_found"}},
		{"key not stored", "lost", nil, broker.CodeNotFound, []string{"request.failed:not_found"}},
		{"MFA", "mfa", nil, broker.CodePromptUnavailable, []string{"request.failed:prompt_unavailable"}},
		{"MFA of the key", "plainmfa", nil, broker.CodePromptUnavailable, []string{"request.failed:prompt_unavailable"}},
		{"endless chain", "endless", nil, broker.CodeConfig, []string{"request.failed:config"}},
		{
			"keychain locked", "ops", func(w *world) { w.keys.err = broker.Errorf(broker.CodeKeychainLocked, "locked") },
			broker.CodeKeychainLocked, []string{"request.failed:keychain_locked"},
		},
		{
			"keychain denies", "ops", func(w *world) { w.keys.err = broker.Errorf(broker.CodeKeychainDenied, "denied") },
			broker.CodeKeychainDenied, []string{"request.denied:keychain_denied"},
		},
		{
			"AWS denies", "ops", func(w *world) { w.sts.inCall(func(string) error { return denied }) },
			broker.CodeAWSDenied, []string{"session.requested", "request.denied:aws_denied"},
		},
		{
			"a bug in an adapter", "ops", func(w *world) { w.sts.inCall(func(string) error { panic("boom") }) },
			broker.CodeInternal, []string{"session.requested", "request.failed:internal"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				if tt.setup != nil {
					tt.setup(w)
				}
				g, err := w.ask(t, tt.profile)
				wantCode(t, err, tt.code)
				wantKinds(t, w, tt.kinds...)
				if g.Credentials.AccessKeyID != "" {
					t.Error("credentials were released")
				}
				st, _ := w.Status(t.Context())
				if st.LastRefusal == nil || st.LastRefusal.Code != tt.code || st.LastRefusal.Profile != tt.profile {
					t.Errorf("last refusal is %+v", st.LastRefusal)
				}
				last := w.log.entries[len(w.log.entries)-1]
				if last.Caller == nil || last.Caller.PID != cli.PID || !w.log.durable[len(w.log.durable)-1] {
					t.Errorf("refusal without its caller, or not on disk: %+v", last)
				}
				if len(w.log.entries) > 1 && tt.code == broker.CodeAWSDenied && last.Session.ID != w.log.entries[0].Session.ID {
					t.Error("refusal does not name the session that was requested")
				}
			})
		})
	}
}

func TestKeyIsDroppedAfterUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(t, "ops")
		w.sts.inCall(func(string) error { return errors.New("no") })
		w.ask(t, "plain")
		if len(w.keys.read) != 2 {
			t.Fatalf("the key was read %d times, want 2", len(w.keys.read))
		}
		for _, s := range w.keys.read {
			if s.Equal(broker.NewSecret(longTermSecret)) {
				t.Error("a secret was left in memory")
			}
		}
	})
}

func TestAProfileWithoutARoleServesASessionNeverTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		g := w.mustAsk(t, "plain")
		if want := []string{"GetSessionToken AKIAALICE00000000001"}; !slices.Equal(w.sts.calls, want) {
			t.Errorf("STS calls: %v", w.sts.calls)
		}
		if doc := string(g.Credentials.Document()); strings.Contains(doc, "AKIA") || strings.Contains(doc, longTermSecret) || g.Credentials.SessionToken.IsZero() {
			t.Error("the long-term key left")
		}
	})
}

func TestSessionsAreSharedByWhatReachesAWS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.mustAsk(t, "ops"), w.mustAsk(t, "ops2")
		if a.SessionID != b.SessionID {
			t.Error("the same role by two names made two sessions")
		}
		if c := w.mustAsk(t, "short"); c.SessionID == a.SessionID {
			t.Error("another duration shared a session")
		}
		d, err := w.Credentials(t.Context(), cli, broker.Request{Profile: "ops", Region: "us-west-2"})
		if err != nil || d.SessionID != a.SessionID || d.Region != "us-west-2" {
			t.Errorf("another region: %+v, %v", d.SessionID, err)
		}
	})
}

func TestChainWalksItsHopsAndIsCappedAtOneHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		g := w.mustAsk(t, "chain")
		want := []string{
			"AssumeRole " + roleARN + " with AKIAALICE00000000001",
			"AssumeRole arn:aws:iam::444455556666:role/Far with ASIA0000000000000001",
		}
		if !slices.Equal(w.sts.calls, want) {
			t.Errorf("calls: %v", w.sts.calls)
		}
		if d := w.sts.roles[1].Duration; d != time.Hour {
			t.Errorf("asked for %v, want the cap of 1h", d)
		}
		if g.Credentials.AccountID != "444455556666" {
			t.Errorf("account %s", g.Credentials.AccountID)
		}
	})
}

func TestOneMintForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.sts.inCall(func(string) error { <-release; return nil })
		results := make(chan error, 200)
		left, leave := context.WithCancel(t.Context())
		for i := range 200 {
			ctx := t.Context()
			if i == 0 { // the one who caused the call leaves
				ctx = left
			}
			go func() {
				_, err := w.Credentials(ctx, cli, broker.Request{Profile: "ops"})
				results <- err
			}()
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(release)
		var cancelled int
		for range 200 {
			if err := <-results; broker.CodeOf(err) == broker.CodeCancelled {
				cancelled++
			} else if err != nil {
				t.Error(err)
			}
		}
		if w.sts.count() != 1 || cancelled != 1 {
			t.Errorf("%d STS calls, %d cancelled; want 1 and 1", w.sts.count(), cancelled)
		}
		if w.keys.lists != 1 {
			t.Errorf("the keychain was listed %d times, want once", w.keys.lists)
		}
	})
}

func TestWaitersShareAFailureAndTheNextTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.sts.inCall(func(string) error { <-release; return broker.Errorf(broker.CodeAWSUnreachable, "no route") })
		results := make(chan error, 50)
		for range 50 {
			go func() { _, err := w.ask(t, "ops"); results <- err }()
		}
		synctest.Wait()
		close(release)
		for range 50 {
			wantCode(t, <-results, broker.CodeAWSUnreachable)
		}
		if w.sts.count() != 1 {
			t.Errorf("%d STS calls, want 1", w.sts.count())
		}
		w.sts.inCall(nil)
		w.mustAsk(t, "ops")
	})
}

// A failure that nobody waited for is recorded all the same.
func TestOutcomeOfAnAbandonedMintIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.sts.inCall(func(string) error { <-release; return broker.Errorf(broker.CodeAWSDenied, "no") })
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { w.Credentials(ctx, cli, broker.Request{Profile: "ops"}); close(done) }()
		synctest.Wait()
		leave()
		<-done
		close(release)
		synctest.Wait()
		wantKinds(t, w, "session.requested", "request.denied:cancelled", "request.denied:aws_denied")
	})
}

func TestMargin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.mustAsk(t, "ops") // lasts 1h, leaves with 25 min or more
		time.Sleep(32*time.Minute + 59*time.Second)
		if g := w.mustAsk(t, "ops"); g.SessionID != first.SessionID {
			t.Error("renewed too early")
		}
		time.Sleep(time.Minute) // past the renewal ahead
		synctest.Wait()
		if n := w.sts.count(); n != 2 {
			t.Fatalf("%d STS calls before anybody asked, want a renewal ahead", n)
		}
		g := w.mustAsk(t, "ops")
		if g.SessionID == first.SessionID || w.sts.count() != 2 {
			t.Error("the renewed session was not served")
		}
		want := []string{
			"session.requested", "session.issued", "credentials.served", "credentials.served",
			"session.requested", "session.renewed", "session.ended", "credentials.served",
		}
		wantKinds(t, w, want...)
		if r := w.log.entries[6].Reason; r != "replaced by "+g.SessionID {
			t.Errorf("the old session ended with %q", r)
		}
	})
}

// Where this machine's clock is fast a session has less left than was asked
// for, and is served and renewed by what it has.
func TestMarginOfAClockThatIsFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sts.now = func() time.Time { return time.Now().Add(-40 * time.Minute) } // 20 are left, and 9 the margin
		first := w.mustAsk(t, "ops")
		time.Sleep(9 * time.Minute)
		if g := w.mustAsk(t, "ops"); g.SessionID != first.SessionID || w.sts.count() != 1 {
			t.Errorf("after 9 minutes of 20 it was renewed; %d calls", w.sts.count())
		}
		time.Sleep(time.Minute + time.Second) // past the renewal ahead, and not the margin
		synctest.Wait()
		if n := w.sts.count(); n != 2 {
			t.Errorf("%d STS calls before anybody asked, want a renewal ahead", n)
		}
		if g := w.mustAsk(t, "ops"); g.SessionID == first.SessionID || w.sts.count() != 2 {
			t.Error("the renewed session was not served")
		}
	})
}

func TestAnUnusedSessionIsLeftToExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(t, "ops")
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		// One renewal for the use there was, none for the use there was not.
		wantKinds(t, w, "session.requested", "session.issued", "credentials.served",
			"session.requested", "session.renewed", "session.ended", "session.ended")
		if r := w.log.entries[6].Reason; r != "expired" {
			t.Errorf("ended with %q", r)
		}
		if st, _ := w.Status(t.Context()); len(st.Sessions) != 0 {
			t.Errorf("status lists %v", st.Sessions)
		}
	})
}

func TestRenewalAheadThatFailsLeavesTheSessionInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.mustAsk(t, "ops")
		w.sts.inCall(func(string) error { return broker.Errorf(broker.CodeAWSUnreachable, "no route") })
		time.Sleep(34 * time.Minute)
		synctest.Wait()
		if g := w.mustAsk(t, "ops"); g.SessionID != first.SessionID {
			t.Error("the session was dropped with 26 minutes left")
		}
		time.Sleep(2 * time.Minute)
		_, err := w.ask(t, "ops")
		wantCode(t, err, broker.CodeAWSUnreachable)
		w.sts.inCall(nil)
		w.mustAsk(t, "ops")
	})
}

// Who waits for the renewal of a session that is dropped meanwhile gets another.
func TestRenewalOfADroppedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.mustAsk(t, "ops")
		broker.RenewDropped(w.Broker)
		synctest.Wait()
		if g := w.mustAsk(t, "ops"); g.SessionID == first.SessionID {
			t.Error("the session that was dropped is served")
		}
	})
}

// Expired is what either clock says is expired.
func TestNothingExpiredIsServed(t *testing.T) {
	for _, tt := range []struct {
		name string
		jump func(*world)
	}{
		{"wall clock", func(w *world) { w.skew = 61 * time.Minute }},
		{"suspend, with the wall clock set back", func(w *world) { w.slept = 61 * time.Minute; w.skew = -time.Hour }},
		{"inside the margin by suspend", func(w *world) { w.slept = 36 * time.Minute }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				first := w.mustAsk(t, "ops")
				tt.jump(w)
				if g := w.mustAsk(t, "ops"); g.SessionID == first.SessionID {
					t.Error("an old session was served")
				}
			})
		})
	}
	t.Run("a new one that is already over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.sts.now = func() time.Time { return time.Now().Add(-2 * time.Hour) }
			_, err := w.ask(t, "ops")
			wantCode(t, err, broker.CodeAWSUnreachable)
		})
	})
}

func TestExportLeavesNearlyWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		export := cli
		export.Via = "export"
		first := w.mustAsk(t, "ops")
		time.Sleep(7 * time.Minute)
		g, err := w.Credentials(t.Context(), export, broker.Request{Profile: "ops"})
		if err != nil || g.SessionID == first.SessionID {
			t.Errorf("export got the old session, or %v", err)
		}
		_, err = w.Credentials(t.Context(), export, broker.Request{Profile: "ops", MinLeft: 2 * time.Hour})
		wantCode(t, err, broker.CodeUsage)
		if g2, err := w.Credentials(t.Context(), export, broker.Request{Profile: "ops", MinLeft: 30 * time.Minute}); err != nil || g2.SessionID != g.SessionID {
			t.Errorf("--min-left 30m: %v", err)
		}
	})
}

func TestDurationLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, d := range []time.Duration{time.Second, 15*time.Minute - 1, 12*time.Hour + 1, -time.Hour} {
			_, err := w.Credentials(t.Context(), cli, broker.Request{Profile: "ops", Duration: d})
			wantCode(t, err, broker.CodeUsage)
		}
		if w.sts.count() != 0 {
			t.Error("STS was asked for what it cannot give")
		}
	})
}

func TestUntrustedConfigCannotRedirect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		seen := map[string]bool{}
		w2 := broker.New(broker.Config{
			Keys: w.keys, STS: w.sts, Log: w.log, Clock: broker.Clock{Now: time.Now, Boot: func() time.Duration { return 0 }, AfterFunc: func(time.Duration, func()) func() { return func() {} }},
			Files: profiles.Files{Config: "/home/alice/.aws/config"}, Trusted: []string{"/home/alice/work/config"},
			Profiles: resolverFunc(func(f profiles.Files, name string) (*profiles.Chain, error) {
				seen[f.Config] = f.Trusted
				return nil, &profiles.NotFoundError{Name: name}
			}),
		})
		for _, config := range []string{"", "/home/alice/.aws/config", "/home/alice/work/config", "/tmp/evil"} {
			w2.Credentials(t.Context(), cli, broker.Request{Profile: "x", Files: profiles.Files{Config: config, Trusted: true}})
		}
		if !seen["/home/alice/.aws/config"] || !seen["/home/alice/work/config"] || seen["/tmp/evil"] {
			t.Errorf("trusted: %v", seen)
		}
	})
}

type resolverFunc func(profiles.Files, string) (*profiles.Chain, error)

func (f resolverFunc) Resolve(files profiles.Files, name string) (*profiles.Chain, error) {
	return f(files, name)
}

func (f resolverFunc) All(files profiles.Files) (iter.Seq[profiles.Resolution], error) {
	_, err := f(files, "")
	return nil, err
}

func TestCloseEndsEverySession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.mustAsk(t, "ops")
		w.mustAsk(t, "plain")
		if err := w.Close(t.Context(), "SIGTERM"); err != nil {
			t.Fatal(err)
		}
		kinds := w.log.kinds()
		if got := kinds[len(kinds)-3:]; !slices.Equal(got, []string{"session.ended", "session.ended", "daemon.stopped"}) {
			t.Errorf("ended with %v", got)
		}
	})
}
