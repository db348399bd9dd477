package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
)

const device = "arn:aws:iam::111122223333:mfa/alice"

// A person is a client with a terminal and somebody who sits at it.
type person struct {
	caller broker.Caller
	req    broker.Request
	// answer is what is typed to a question; the code "" leaves it to why.
	answer func(broker.Question) (code string, why broker.Code)
	asked  []broker.Question
}

func (w *world) person(pid int, profile string, answer func(broker.Question) (string, broker.Code)) *person {
	p := &person{caller: cli, req: broker.Request{Profile: profile}, answer: answer}
	p.caller.PID = pid
	return p
}

// errLeft is what a client that is gone got.
var errLeft = errors.New("the client is gone")

// run asks the gate as the gatepass command does, until it has an answer.
func (w *world) run(ctx context.Context, p *person) (broker.Grant, error) {
	for {
		g, err := w.Credentials(ctx, p.caller, p.req)
		var ask *broker.AskError
		if !errors.As(err, &ask) {
			return g, err
		}
		if err := w.answers(ctx, p, ask.Question); err != nil {
			return g, err
		}
	}
}

// answers is what the gatepass command does about a question.
func (w *world) answers(ctx context.Context, p *person, q broker.Question) error {
	if q.ID == "" {
		p.req.Reachable.Known = true
		p.req.Reachable.Terminal = p.answer != nil
		return nil
	}
	p.asked = append(p.asked, q)
	answer, why := p.answer(q)
	if why == "gone" {
		return errLeft
	}
	return w.PromptAnswer(ctx, p.caller, q.ID, broker.NewSecret(answer), why)
}

func types(code string) func(broker.Question) (string, broker.Code) {
	return func(broker.Question) (string, broker.Code) { return code, "" }
}

func TestMFAOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.person(7, "mfa", types("123456"))
		if _, err := w.run(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if len(p.asked) != 1 || p.asked[0].Serial != device || p.asked[0].Profile != "mfa" || p.asked[0].Program != "aws" || p.asked[0].Attempt != 1 {
			t.Errorf("asked %+v", p.asked)
		}
		wantKinds(t, w, "session.requested", "mfa.verified", "session.requested", "session.issued", "credentials.served")
		in := w.sts.tokens[0]
		if in.SerialNumber != device || in.TokenCode.Reveal() != "123456" || in.Duration != 8*time.Hour {
			t.Errorf("GetSessionToken with %+v", in)
		}
		if !strings.HasSuffix(w.sts.calls[1], "with ASIA0000000000000001") {
			t.Errorf("the role was assumed with %q", w.sts.calls[1])
		}
		st, err := w.Status(t.Context())
		if err != nil || len(st.Proofs) != 1 || st.Proofs[0].Key != "alice" || st.Proofs[0].Serial != device || time.Until(st.Proofs[0].Expires) != 8*time.Hour {
			t.Errorf("status tells %+v, %v", st.Proofs, err)
		}
		// Another profile of that key, and a restart, ask nobody.
		for range 2 {
			if _, err := w.run(t.Context(), w.person(8, "plainmfa", nil)); err != nil {
				t.Fatal(err)
			}
			w.start()
		}
		if len(w.sts.tokens) != 1 {
			t.Errorf("GetSessionToken was called %d times", len(w.sts.tokens))
		}
		// A removed key's proof is no longer anywhere.
		if err := w.RemoveKey(t.Context(), cli, "alice", broker.Reachable{}); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.keys.keys["alice"] = key("alice", "AKIAALICE00000000001")
		w.run(t.Context(), w.person(9, "mfa", nil))
		if len(w.sts.tokens) != 1 || len(w.vault) != 0 {
			t.Errorf("the proof survived its key: %d", len(w.vault))
		}
	})
}

// However many wait, one is asked and all are served.
func TestMFACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var mu sync.Mutex
		asked := 0
		var crowd sync.WaitGroup
		for i := range 50 {
			crowd.Go(func() {
				_, err := w.run(t.Context(), w.person(100+i, "mfa", func(broker.Question) (string, broker.Code) {
					mu.Lock()
					asked++
					mu.Unlock()
					time.Sleep(3 * time.Second)
					return "123456", ""
				}))
				if err != nil {
					t.Error(err)
				}
			})
		}
		crowd.Wait()
		if asked != 1 {
			t.Errorf("%d were asked", asked)
		}
	})
}

// A cancel refuses all who wait, and programs stay unasked for a while; a
// person's own command asks again.
func TestMFACancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		asked := 0
		no := func(broker.Question) (string, broker.Code) {
			asked++
			time.Sleep(time.Second)
			return "", broker.CodeCancelled
		}
		var crowd sync.WaitGroup
		for i := range 10 {
			crowd.Go(func() {
				_, err := w.run(t.Context(), w.person(100+i, "mfa", no))
				wantCode(t, err, broker.CodeCancelled)
			})
		}
		crowd.Wait()
		for i := range 10 {
			_, err := w.run(t.Context(), w.person(200+i, "mfa", no))
			wantCode(t, err, broker.CodePromptUnavailable)
		}
		if asked != 1 {
			t.Errorf("%d were asked", asked)
		}
		own := w.person(7, "mfa", types("123456"))
		own.caller.Via = "export"
		if _, err := w.run(t.Context(), own); err != nil {
			t.Error(err)
		}
	})
}

func TestMFAQuietEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(t.Context(), w.person(7, "mfa", func(broker.Question) (string, broker.Code) { return "", broker.CodeCancelled }))
		synctest.Wait()
		w.skew = -24 * time.Hour // a clock that is set keeps nobody waiting
		time.Sleep(5*time.Minute + time.Second)
		if _, err := w.run(t.Context(), w.person(8, "mfa", types("123456"))); err != nil {
			t.Error(err)
		}
	})
}

// The client that asks dies, or is stopped: the next one asks.
func TestMFAPrompterDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		dies := w.person(7, "mfa", func(broker.Question) (string, broker.Code) { return "", "gone" })
		var both sync.WaitGroup
		both.Go(func() {
			if _, err := w.run(t.Context(), dies); !errors.Is(err, errLeft) {
				t.Error(err)
			}
		})
		synctest.Wait()
		next := w.person(8, "mfa", types("123456"))
		start := time.Now()
		if _, err := w.run(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		both.Wait()
		if len(dies.asked) != 1 || len(next.asked) != 1 || time.Since(start) > 15*time.Second {
			t.Errorf("asked %d and %d, after %s", len(dies.asked), len(next.asked), time.Since(start))
		}
	})
}

// A client that says that it still asks may take its time; once it is passed
// over, its answer is refused.
func TestMFAHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.person(7, "mfa", nil)
		p.answer = func(q broker.Question) (string, broker.Code) {
			for range 30 {
				time.Sleep(time.Second)
				if err := w.PromptBeat(t.Context(), p.caller, q.ID); err != nil {
					t.Error(err)
				}
				stranger := p.caller
				stranger.PID++
				if w.PromptBeat(t.Context(), stranger, q.ID) == nil {
					t.Error("another process may beat")
				}
				if w.PromptAnswer(t.Context(), stranger, q.ID, broker.NewSecret("000000"), "") == nil {
					t.Error("another process may answer")
				}
			}
			return "123456", ""
		}
		if _, err := w.run(t.Context(), p); err != nil || len(p.asked) != 1 {
			t.Fatal(len(p.asked), err)
		}
		slow := w.person(8, "mfa", func(broker.Question) (string, broker.Code) {
			time.Sleep(20 * time.Second)
			return "654321", ""
		})
		w.start()
		clear(w.vault)
		_, err := w.run(t.Context(), slow)
		wantCode(t, err, broker.CodePromptTimeout)
	})
}

func TestMFAWrongCodes(t *testing.T) {
	wrong := broker.Errorf(broker.CodeMFAFailed, "AWS refused the code")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sts.inCall(func(call string) error {
			if strings.HasPrefix(call, "GetSessionToken") {
				return wrong
			}
			return nil
		})
		n := 0
		p := w.person(7, "mfa", func(broker.Question) (string, broker.Code) { n++; return fmt.Sprintf("%06d", n), "" })
		_, err := w.run(t.Context(), p)
		wantCode(t, err, broker.CodeMFAFailed)
		if len(p.asked) != 3 || p.asked[0].Reason != "" || p.asked[1].Reason != wrong.Message+": check the code, or wait for the next" || p.asked[2].Attempt != 3 {
			t.Errorf("asked %+v", p.asked)
		}
	})
	// The second try is good; a code is never sent twice, nor a bad one once.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := true
		w.sts.inCall(func(call string) error {
			if strings.HasPrefix(call, "GetSessionToken") && first {
				first = false
				return wrong
			}
			return nil
		})
		codes := []string{"111111", "111111", "222222"}
		p := w.person(7, "mfa", func(q broker.Question) (string, broker.Code) { return codes[q.Attempt-1], "" })
		if _, err := w.run(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if len(w.sts.tokens) != 1 && w.sts.count() != 3 || !strings.Contains(p.asked[2].Reason, "wait for the next") {
			t.Errorf("calls %q, asked %+v", w.sts.calls, p.asked)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, err := w.run(t.Context(), w.person(7, "mfa", types("12345a")))
		wantCode(t, err, broker.CodeMFAFailed)
		if w.sts.count() != 0 {
			t.Errorf("calls %q", w.sts.calls)
		}
	})
}

// A credential-process waits less than SDKs do, while the question stands and
// its answer counts for the next.
func TestMFAPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mfa := broker.MFA{Prompter: dialog(func(context.Context) (string, error) {
			time.Sleep(100 * time.Second)
			return "123456", nil
		})}
		w := newWorldWith(t, mfa)
		start := time.Now()
		_, err := w.run(t.Context(), w.person(7, "mfa", nil))
		wantCode(t, err, broker.CodePromptTimeout)
		if d := time.Since(start); d != 45*time.Second {
			t.Errorf("waited %s", d)
		}
		time.Sleep(time.Minute)
		if _, err := w.run(t.Context(), w.person(8, "mfa", nil)); err != nil {
			t.Error(err)
		}
	})
	// What it has waited with another request counts.
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, broker.MFA{Prompter: dialog(func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})})
		for waited, want := range map[time.Duration]time.Duration{40 * time.Second: 5 * time.Second, time.Hour: 0} {
			p := w.person(7, "mfa", nil)
			p.req.Reachable.Waited = waited
			start := time.Now()
			_, err := w.run(t.Context(), p)
			wantCode(t, err, broker.CodePromptTimeout)
			if d := time.Since(start); d != want {
				t.Errorf("after %s it waited %s", waited, d)
			}
		}
	})
	// Nobody answers at all.
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, broker.MFA{Prompter: dialog(func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})})
		p := w.person(7, "mfa", nil)
		p.caller.Via = "export"
		start := time.Now()
		_, err := w.run(t.Context(), p)
		wantCode(t, err, broker.CodePromptTimeout)
		if d := time.Since(start); d != 3*time.Minute {
			t.Errorf("the question stood %s", d)
		}
	})
}

// Who comes while an asking is about to end, because it found nobody, is asked
// by the next one.
func TestPromptLateComer(t *testing.T) {
	for name, f := range map[string]operation{
		"passphrase": operations["credentials"],
		"code": func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
			_, err := w.Credentials(ctx, c, broker.Request{Profile: "mfa", Reachable: how})
			return err
		},
		"code for a long session": func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
			_, err := w.Credentials(ctx, c, broker.Request{Profile: "long", Duration: 4 * time.Hour, Reachable: how})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				answer, none := types("123456"), broker.CodePromptUnavailable
				if name == "passphrase" {
					w.lock(&fakeLock{})
					answer, none = givesPassphrase, broker.CodeKeychainLocked
				}
				ending, end := make(chan struct{}), make(chan struct{})
				var once sync.Once
				w.stopping = func(d time.Duration) {
					if d == broker.PromptLifeForTest {
						once.Do(func() { close(ending); <-end })
					}
				}
				var both sync.WaitGroup
				both.Go(func() { wantCode(t, w.do(t.Context(), w.person(7, "", nil), f), none) })
				<-ending
				late := w.person(8, "", answer)
				both.Go(func() {
					if err := w.do(t.Context(), late, f); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait() // it waits with the first
				close(end)
				if both.Wait(); len(late.asked) != 1 {
					t.Errorf("asked %+v", late.asked)
				}
			})
		})
	}
}

// Who joins a renewal ahead, which asks nobody, is asked when it fails.
func TestMFAJoinsRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, broker.MFA{Keep: time.Hour})
		var hold atomic.Bool
		renewing, goOn := make(chan struct{}), make(chan struct{})
		w.looking = func() {
			if hold.CompareAndSwap(true, false) {
				close(renewing)
				<-goOn
			}
		}
		use := func(calls int) {
			t.Helper()
			if _, err := w.run(t.Context(), w.person(7, "mfa", types("123456"))); err != nil || w.sts.count() != calls {
				t.Fatal(w.sts.calls, err)
			}
		}
		use(2)
		time.Sleep(34 * time.Minute)
		use(3) // it was renewed, and is to be again when the proof has expired
		hold.Store(true)
		<-renewing
		p := w.person(8, "mfa", types("654321"))
		p.caller.Via = "export"
		done := make(chan error)
		go func() {
			_, err := w.run(t.Context(), p)
			done <- err
		}()
		synctest.Wait() // it waits with the renewal
		close(goOn)
		if err := <-done; err != nil || len(p.asked) != 1 {
			t.Errorf("asked %d times: %v", len(p.asked), err)
		}
	})
}

// dialog is a Prompter whose desktop dialog f is; it has no pinentry.
type dialog func(context.Context) (string, error)

func (d dialog) Ask(ctx context.Context, _ broker.Question, mode string, _ broker.Reachable) (broker.Secret, error) {
	if mode != broker.PromptDesktop {
		return broker.Secret{}, broker.Errorf(broker.CodePromptUnavailable, "no %s", mode)
	}
	code, err := d(ctx)
	return broker.NewSecret(code), err
}

func (d dialog) Run(ctx context.Context, _ string, begin func(int) error) (broker.Secret, error) {
	if err := begin(mfaProcess); err != nil {
		return broker.Secret{}, err
	}
	code, err := d(ctx)
	return broker.NewSecret(code), err
}

// mfaProcess is the process that runs a profile's.
const mfaProcess = 900

// Which way is taken, by surface and setting.
func TestMFAWays(t *testing.T) {
	for _, tt := range []struct {
		name, via, config, flag string
		terminal, dialog        bool
		want                    string // "terminal", "dialog" or a code
	}{
		{"a program asks by dialog first", "credential-process", "", "", true, true, "dialog"},
		{"then on its terminal", "credential-process", "", "", true, false, "terminal"},
		{"a person on the terminal first", "export", "", "", true, true, "terminal"},
		{"then by dialog", "export", "", "", false, true, "dialog"},
		{"configured", "export", "desktop", "", true, true, "dialog"},
		{"the flag wins", "export", "desktop", "tty", true, true, "terminal"},
		{"never", "export", "none", "", true, true, "prompt_unavailable"},
		{"nothing there", "export", "", "", false, false, "prompt_unavailable"},
		{"no pinentry", "export", "pinentry", "", true, true, "prompt_unavailable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := ""
				mfa := broker.MFA{Prompt: tt.config}
				if tt.dialog {
					mfa.Prompter = dialog(func(context.Context) (string, error) { got = "dialog"; return "123456", nil })
				}
				w := newWorldWith(t, mfa)
				p := w.person(7, "mfa", func(broker.Question) (string, broker.Code) { got = "terminal"; return "123456", "" })
				if !tt.terminal {
					p.answer = nil
				}
				p.caller.Via = tt.via
				p.req.Reachable.Mode = tt.flag
				if _, err := w.run(t.Context(), p); err != nil {
					got = string(broker.CodeOf(err))
				}
				if got != tt.want {
					t.Errorf("took %s, want %s", got, tt.want)
				}
			})
		})
	}
}

func TestMFACodeGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.person(7, "mfa", nil)
		p.req.Code = broker.NewSecret("123456")
		if _, err := w.run(t.Context(), p); err != nil {
			t.Error(err)
		}
		// Given twice it is not sent twice.
		w.start()
		clear(w.vault)
		w.sts.inCall(func(call string) error {
			if strings.HasPrefix(call, "GetSessionToken") {
				return broker.Errorf(broker.CodeMFAFailed, "wrong")
			}
			return nil
		})
		before := w.sts.count()
		_, err := w.run(t.Context(), p)
		wantCode(t, err, broker.CodeMFAFailed)
		if w.sts.count() != before+1 {
			t.Errorf("calls %q", w.sts.calls[before:])
		}
	})
}

func TestMFAProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := "123456"
		w := newWorldWith(t, broker.MFA{Prompter: dialog(func(context.Context) (string, error) { return out, nil })})
		if _, err := w.run(t.Context(), w.person(7, "program", nil)); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"123456", "", "12345", "1234567", "no code"} {
			w.start()
			clear(w.vault)
			out = "123456"
			if bad == "123456" { // printed twice, so used before
				if _, err := w.run(t.Context(), w.person(8, "program", nil)); err != nil {
					t.Fatal(err)
				}
				if err := w.RemoveKey(t.Context(), cli, "alice", broker.Reachable{}); err != nil {
					t.Fatal(err)
				}
				w.keys.keys["alice"] = key("alice", "AKIAALICE00000000001")
			}
			out = bad
			_, err := w.run(t.Context(), w.person(8, "program", nil))
			wantCode(t, err, broker.CodeMFAFailed)
		}
	})
}

// A refusal under an old proof may be for its age: asked once more, and not
// again when that was not why.
func TestMFAAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		n := 123456
		p := w.person(7, "mfa", func(broker.Question) (string, broker.Code) { n++; return fmt.Sprint(n), "" })
		p.caller.Via = "export"
		if _, err := w.run(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		old := true
		w.sts.inCall(func(call string) error {
			if strings.HasPrefix(call, "AssumeRole") && old {
				old = false
				return broker.Errorf(broker.CodeAWSDenied, "not authorized")
			}
			return nil
		})
		if _, err := w.run(t.Context(), p); err != nil || len(p.asked) != 2 {
			t.Fatalf("asked %d times: %v", len(p.asked), err)
		}
		time.Sleep(2 * time.Hour)
		w.sts.inCall(func(call string) error {
			if strings.HasPrefix(call, "AssumeRole") {
				return broker.Errorf(broker.CodeAWSDenied, "not authorized")
			}
			return nil
		})
		for range 3 {
			_, err := w.run(t.Context(), p)
			wantCode(t, err, broker.CodeAWSDenied)
			time.Sleep(10 * time.Minute)
		}
		if len(p.asked) != 3 {
			t.Errorf("asked %d times", len(p.asked))
		}
	})
}

// More than an hour takes a code straight from the key, and only where
// somebody wants it by name.
func TestMFALongSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.run(t.Context(), w.person(7, "long", types("123456"))); err != nil {
			t.Fatal(err)
		}
		if d := w.sts.roles[0].Duration; d != time.Hour {
			t.Errorf("a program got %s", d)
		}
		p := w.person(8, "long", types("654321"))
		p.caller.Via = "export"
		if _, err := w.run(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if in := w.sts.roles[1]; in.Duration != 4*time.Hour || in.SerialNumber != device || in.TokenCode.Reveal() != "654321" {
			t.Errorf("AssumeRole with %+v", in)
		}
		if last := w.sts.calls[len(w.sts.calls)-1]; !strings.HasSuffix(last, "with AKIAALICE00000000001") {
			t.Errorf("called %q", last)
		}
		// A used session is renewed ahead while no question is needed.
		before := w.sts.count()
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		if w.sts.count() != before+1 {
			t.Errorf("renewed by %q", w.sts.calls[before:])
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if slices.Contains(w.log.kinds(), "request.failed:prompt_unavailable") {
			t.Error("a renewal asked")
		}
	})
}

// What lies in the keychain counts for the right key and device, while it
// lasts.
func TestMFAStoredBase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.run(t.Context(), w.person(7, "mfa", types("123456"))); err != nil {
			t.Fatal(err)
		}
		var name, good string
		for name, good = range w.vault {
		}
		for _, bad := range []string{
			"", "{", "{}", strings.ReplaceAll(good, "AKIAALICE00000000001", "AKIAALICE00000000002"),
			strings.ReplaceAll(good, "mfa/alice", "mfa/bob"), strings.ReplaceAll(good, `"expires":"2`, `"expires":"9`),
			strings.ReplaceAll(good, `"expires":"2`, `"expires":"1`), strings.ReplaceAll(good, `"verified":"2`, `"verified":"3`),
		} {
			w.start()
			w.vault[name] = bad
			_, err := w.run(t.Context(), w.person(8, "mfa", nil))
			wantCode(t, err, broker.CodePromptUnavailable)
		}
		w.start()
		w.vault[name] = good
		if _, err := w.run(t.Context(), w.person(9, "mfa", nil)); err != nil {
			t.Error(err)
		}
	})
}

func TestMFATwoDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := newWorld(t).ask(t, "two devices")
		wantCode(t, err, broker.CodeConfig)
	})
}

// A daemon that stops does not wait for answers, and who waits is told.
func TestMFAEndsWithTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, broker.MFA{Prompter: dialog(func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})})
		ended := make(chan error, 1)
		go func() {
			_, err := w.run(t.Context(), w.person(7, "mfa", nil))
			ended <- err
		}()
		synctest.Wait()
		start := time.Now()
		if err := w.Close(t.Context(), "test"); err != nil || time.Since(start) != 0 {
			t.Errorf("closed after %s: %v", time.Since(start), err)
		}
		wantCode(t, <-ended, broker.CodePromptTimeout)
	})
}

// A long session and the usual ones want a code each; the user is asked for
// one after the other.
func TestMFATwoQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var mu sync.Mutex
		n, at := 0, 0
		slowly := func(broker.Question) (string, broker.Code) {
			mu.Lock()
			n++
			code := fmt.Sprintf("%06d", n)
			if at++; at > 1 {
				t.Error("two were asked at once")
			}
			mu.Unlock()
			time.Sleep(2 * time.Second)
			mu.Lock()
			at--
			mu.Unlock()
			return code, ""
		}
		var both sync.WaitGroup
		for i, profile := range []string{"mfa", "long"} {
			both.Go(func() {
				p := w.person(7+i, profile, slowly)
				p.caller.Via = "export"
				if _, err := w.run(t.Context(), p); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

// A code that was not sent is good yet: the keychain was locked just then.
func TestMFAKeychainLockedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, profile := range []string{"mfa", "long"} {
			w := newWorld(t)
			p := w.person(7, profile, func(broker.Question) (string, broker.Code) {
				w.keys.err = broker.Errorf(broker.CodeKeychainLocked, "locked just now")
				return "123456", ""
			})
			p.caller.Via = "export"
			_, err := w.run(t.Context(), p)
			wantCode(t, err, broker.CodeKeychainLocked)
			if w.sts.count() != 0 {
				t.Errorf("calls %q", w.sts.calls)
			}
			synctest.Wait() // or the next would share this failure
			w.keys.err = nil
			p = w.person(8, profile, types("123456"))
			p.caller.Via = "export"
			if _, err := w.run(t.Context(), p); err != nil || len(p.asked) != 1 {
				t.Errorf("%s: asked %d times: %v", profile, len(p.asked), err)
			}
		}
	})
}

// A code for a long session is asked for again as any other.
func TestMFALongSessionWrongCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bad := 1
		w.sts.inCall(func(call string) error {
			if bad--; bad >= 0 {
				return broker.Errorf(broker.CodeMFAFailed, "AWS refused the code")
			}
			return nil
		})
		codes := []string{"111111", "111111", "222222"}
		p := w.person(7, "long", func(q broker.Question) (string, broker.Code) { return codes[q.Attempt-1], "" })
		p.caller.Via = "export"
		if _, err := w.run(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if len(p.asked) != 3 || !strings.HasPrefix(p.asked[1].Reason, "AWS refused") || !strings.Contains(p.asked[2].Reason, "has been used") || w.sts.count() != 2 {
			t.Errorf("asked %+v, calls %q", p.asked, w.sts.calls)
		}
		if last := w.sts.roles[len(w.sts.roles)-1]; last.TokenCode.Reveal() != "222222" {
			t.Errorf("sent %q", last.TokenCode.Reveal())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sts.inCall(func(string) error { return broker.Errorf(broker.CodeMFAFailed, "AWS refused the code") })
		p := w.person(7, "long", func(q broker.Question) (string, broker.Code) { return fmt.Sprintf("%06d", q.Attempt), "" })
		p.caller.Via = "export"
		_, err := w.run(t.Context(), p)
		wantCode(t, err, broker.CodeMFAFailed)
		if len(p.asked) != 3 || w.sts.count() != 3 {
			t.Errorf("asked %d times, calls %q", len(p.asked), w.sts.calls)
		}
	})
}

// A proof has expired when either clock says so, whatever the laptop did.
func TestMFAProofExpires(t *testing.T) {
	for name, change := range map[string]func(*world){
		"wall clock":                            func(w *world) { w.skew = 9 * time.Hour },
		"suspend, with the wall clock set back": func(w *world) { w.slept, w.skew = 9*time.Hour, -24*time.Hour },
		"a restart, with the wall clock set back before the proof": func(w *world) { w.skew = -time.Minute; w.start() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				if _, err := w.run(t.Context(), w.person(7, "mfa", types("123456"))); err != nil {
					t.Fatal(err)
				}
				change(w)
				p := w.person(8, "mfa", types("654321"))
				if _, err := w.run(t.Context(), p); err != nil || len(p.asked) != 1 {
					t.Errorf("asked %d times: %v", len(p.asked), err)
				}
			})
		})
	}
}

// pinentry on a caller's terminal is gone with the caller, and the next is
// asked.
func TestMFAPinentryOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		w := newWorldWith(t, broker.MFA{Prompt: broker.PromptPinentry, Prompter: pinentry(func(ctx context.Context, how broker.Reachable) (string, error) {
			asked = append(asked, how.TTY)
			if how.TTY == "/dev/pts/7" {
				<-ctx.Done()
				return "", broker.Errorf(broker.CodePromptTimeout, "nobody answered pinentry")
			}
			return "123456", nil
		})})
		ctx, leave := context.WithCancel(t.Context())
		var both sync.WaitGroup
		for pid := 7; pid <= 8; pid++ {
			p := w.person(pid, "mfa", func(broker.Question) (string, broker.Code) { return "", "" })
			p.req.Reachable.TTY = fmt.Sprintf("/dev/pts/%d", pid)
			both.Go(func() {
				if p.caller.PID == 7 {
					w.run(ctx, p)
				} else if _, err := w.run(t.Context(), p); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		if !slices.Equal(asked, []string{"/dev/pts/7"}) {
			t.Errorf("asked on %q", asked)
		}
		leave()
		if both.Wait(); !slices.Equal(asked, []string{"/dev/pts/7", "/dev/pts/8"}) {
			t.Errorf("asked on %q", asked)
		}
	})
}

// pinentry is a Prompter that has nothing else.
type pinentry func(context.Context, broker.Reachable) (string, error)

func (p pinentry) Ask(ctx context.Context, _ broker.Question, mode string, how broker.Reachable) (broker.Secret, error) {
	if mode != broker.PromptPinentry {
		return broker.Secret{}, broker.Errorf(broker.CodePromptUnavailable, "no %s", mode)
	}
	code, err := p(ctx, how)
	return broker.NewSecret(code), err
}

func (p pinentry) Run(context.Context, string, func(int) error) (broker.Secret, error) {
	panic("no program")
}

// vaultAt is a vault whose calls run something before they return.
type vaultAt struct {
	fakeVault
	read, put, removed func()
}

func (v vaultAt) Secret(ctx context.Context, name string) (broker.Secret, error) {
	s, err := v.fakeVault.Secret(ctx, name)
	v.read()
	return s, err
}

func (v vaultAt) PutSecret(ctx context.Context, name string, value broker.Secret) error {
	v.put()
	return v.fakeVault.PutSecret(ctx, name, value)
}

func (v vaultAt) RemoveSecret(ctx context.Context, name string) error {
	err := v.fakeVault.RemoveSecret(ctx, name)
	v.removed()
	return err
}

func newVaultAt(w *world) *vaultAt {
	nothing := func() {}
	v := &vaultAt{w.vault, nothing, nothing, nothing}
	w.mfa.Vault = v
	w.start()
	return v
}

// A proof ends with its key, whatever is done with it while that is removed.
func TestMFAProofOfAKeyBeingRemoved(t *testing.T) {
	remove := func(w *world) {
		if err := w.RemoveKey(context.Background(), cli, "alice", broker.Reachable{}); err != nil {
			panic(err)
		}
	}
	for name, during := range map[string]func(w *world, v *vaultAt){
		"read": func(w *world, v *vaultAt) {
			w.run(context.Background(), w.person(7, "plainmfa", types("123456")))
			w.start()
			v.read = func() {
				v.read = func() {}
				remove(w)
			}
		},
		"stored": func(w *world, v *vaultAt) {
			v.put = func() {
				v.put = func() {}
				remove(w)
			}
		},
		"given": func(w *world, v *vaultAt) {
			w.keys.remove = func() { // what the keychain still has is still used
				w.keys.remove = nil
				exchanged := make(chan struct{})
				w.sts.inCall(func(string) error {
					w.sts.inCall(nil)
					<-exchanged
					return nil
				})
				go w.run(context.Background(), w.person(7, "plainmfa", types("123456")))
				synctest.Wait()
				v.removed = func() { // of the rotation's key
					v.removed = func() { // of the proof
						v.removed = func() {}
						close(exchanged)
						synctest.Wait()
					}
				}
			}
			remove(w)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				v := newVaultAt(w)
				during(w, v)
				w.run(t.Context(), w.person(8, "plainmfa", types("654321")))
				synctest.Wait()
				st, _ := w.Status(t.Context())
				if len(w.keys.keys) != 0 || len(st.Proofs) != 0 || len(w.vault) != 0 {
					t.Errorf("keys %v, proofs %+v, vault %d", w.keys.keys, st.Proofs, len(w.vault))
				}
			})
		})
	}
}

// A proof that is good enough for one who waits may be too short for another.
func TestMFAProofTooShortForOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := newVaultAt(w)
		w.run(t.Context(), w.person(7, "mfa", types("123456")))
		if err := w.Close(t.Context(), "restart"); err != nil {
			t.Fatal(err)
		}
		w.start()
		time.Sleep(8*time.Hour - 10*time.Minute)
		slow := true
		v.read = func() {
			if slow {
				slow = false
				time.Sleep(time.Second)
			}
		}
		go w.run(context.Background(), w.person(8, "mfa", types("222222")))
		synctest.Wait()
		g, err := w.run(t.Context(), w.person(9, "plainmfa", types("333333")))
		if left := time.Until(g.Credentials.Expires); err != nil || left < 25*time.Minute {
			t.Errorf("%v, %s are left", err, left)
		}
	})
}
