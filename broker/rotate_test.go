package broker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/profiles"
)

// A workshop is where keys are rotated: a Broker between an IAM, a keychain, a
// notebook and a log, of which each step may fail.
type workshop struct {
	*broker.Broker
	keys  *fakeKeys
	vault fakeVault
	notes map[string]broker.KeyNote
	log   *fakeLog
	aws   *userKeys

	mu    sync.Mutex
	steps []string // what was asked of the edges
	trip  trip
	dead  bool

	codes int // how many MFA codes were asked for

	skew atomic.Int64 // of the wall clock, in nanoseconds
}

// A trip makes one step fail.
type trip struct {
	at    int  // the step, from 1; 0 for none
	after bool // it is done all the same
	death bool // nothing works after it, as in a process that was killed
}

const oldID, newSecret = "AKIAALICE00000000001", "secret-of-a-new-key-0123456789abcdefghij"

func newWorkshop(t trip) *workshop {
	w := &workshop{
		keys: &fakeKeys{keys: map[string]broker.Key{"alice": key("alice", oldID)}}, vault: fakeVault{}, log: &fakeLog{},
		aws:  &userKeys{keys: map[string]*iamKey{oldID: {active: true, secret: longTermSecret, created: time.Now().Add(-1000 * time.Hour)}}},
		trip: t,
	}
	w.start()
	return w
}

// start makes the Broker anew, as a restart of the daemon does. Everything
// works from now on.
func (w *workshop) start() {
	start := time.Now()
	w.Broker = broker.New(broker.Config{
		Keys: tripKeys{w}, STS: tripAWS{w: w}, IAM: tripAWS{w: w}, Notes: tripNotes{w}, Log: tripLog{w},
		Profiles: fakeProfiles{"ops": {Profile: "ops", Key: "alice", Hops: []profiles.Hop{{Profile: "ops", RoleARN: roleARN}}}},
		MFA: broker.MFA{Vault: tripVault{w}, Prompter: dialog(func(context.Context) (string, error) {
			w.codes++
			return fmt.Sprintf("%06d", w.codes), nil
		})},
		Logger: slog.New(slog.DiscardHandler),
		Clock: broker.Clock{
			Now: func() time.Time { return time.Now().Add(time.Duration(w.skew.Load())).Round(0) }, Boot: func() time.Duration { return time.Since(start) },
			AfterFunc: func(d time.Duration, f func()) func() {
				timer := time.AfterFunc(d, f)
				return func() { timer.Stop() }
			},
		},
	})
}

var errTripped = broker.Errorf(broker.CodeAWSUnreachable, "this step fails")

// step does f, unless it is to fail.
func (w *workshop) step(name string, f func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, name)
	hit := len(w.steps) == w.trip.at
	if w.dead || hit && !w.trip.after {
		w.dead = w.dead || w.trip.death
		return errTripped
	}
	if err := f(); err != nil {
		return err
	}
	if hit {
		w.dead = w.trip.death
		return errTripped
	}
	return nil
}

// healed lets everything work again.
func (w *workshop) healed() { w.trip, w.dead = trip{}, false }

type tripKeys struct{ w *workshop }

func (k tripKeys) Keys(ctx context.Context) (list []broker.KeyInfo, err error) {
	err = k.w.step("list the keychain", func() (err error) { list, err = k.w.keys.Keys(ctx); return err })
	return list, err
}

func (k tripKeys) Key(ctx context.Context, name string) (key broker.Key, err error) {
	err = k.w.step("read the keychain", func() (err error) { key, err = k.w.keys.Key(ctx, name); return err })
	return key, err
}

func (k tripKeys) PutKey(ctx context.Context, key broker.Key) error {
	key.SecretAccessKey = broker.NewSecret(key.SecretAccessKey.Reveal())
	return k.w.step("write the keychain", func() error { return k.w.keys.PutKey(ctx, key) })
}

func (k tripKeys) RemoveKey(ctx context.Context, name string) error {
	return k.w.step("remove from the keychain", func() error { return k.w.keys.RemoveKey(ctx, name) })
}

func (k tripKeys) Backend() string             { return "fake" }
func (k tripKeys) Probe(context.Context) error { return nil }

type tripVault struct{ w *workshop }

func (v tripVault) Secret(ctx context.Context, name string) (s broker.Secret, err error) {
	err = v.w.step("read the vault", func() (err error) { s, err = v.w.vault.Secret(ctx, name); return err })
	return s, err
}

func (v tripVault) PutSecret(ctx context.Context, name string, s broker.Secret) error {
	return v.w.step("write the vault", func() error { return v.w.vault.PutSecret(ctx, name, s) })
}

func (v tripVault) RemoveSecret(ctx context.Context, name string) error {
	return v.w.step("remove from the vault", func() error { return v.w.vault.RemoveSecret(ctx, name) })
}

type tripNotes struct{ w *workshop }

func (n tripNotes) Notes() (notes map[string]broker.KeyNote, err error) {
	err = n.w.step("read the notes", func() error { notes = n.w.notes; return nil })
	return notes, err
}

func (n tripNotes) SaveNotes(notes map[string]broker.KeyNote) error {
	return n.w.step("write the notes", func() error { n.w.notes = maps.Clone(notes); return nil })
}

type tripLog struct{ w *workshop }

func (l tripLog) Append(ctx context.Context, e broker.Event, durable bool) error {
	return l.w.step("record "+string(e.Kind), func() error { return l.w.log.Append(ctx, e, durable) })
}

func (l tripLog) Status() broker.LogStatus { return broker.LogStatus{} }

// userKeys are the keys of one user, at AWS.
type userKeys struct {
	keys map[string]*iamKey
	made int
	// refuse is asked before each call, with its name; nil refuses nothing.
	refuse func(call string) error
	calls  []string
	// mfa lets nobody change keys without it.
	mfa bool
	// bound ends sessions with the key that they came from.
	bound    bool
	sessions map[string]string // the keys that they came from
}

type iamKey struct {
	active        bool
	secret        string
	created, used time.Time
}

// as does f for whoever has creds.
func (a *userKeys) as(call string, creds broker.Credentials, f func() error) error {
	a.calls = append(a.calls, call)
	if a.refuse != nil {
		if err := a.refuse(call); err != nil {
			return err
		}
	}
	if from, ok := a.sessions[creds.AccessKeyID]; ok {
		if k := a.keys[from]; a.bound && (k == nil || !k.active) {
			return refusal(broker.CodeAWSDenied, "InvalidClientTokenId")
		}
		return f()
	}
	k := a.keys[creds.AccessKeyID]
	if k == nil || !k.active || !creds.SecretAccessKey.Equal(broker.NewSecret(k.secret)) {
		return refusal(broker.CodeAWSDenied, "InvalidClientTokenId")
	}
	if a.mfa && strings.Contains(call, "Key") {
		return refusal(broker.CodeAWSDenied, "AccessDenied")
	}
	k.used = time.Now()
	return f()
}

func refusal(code broker.Code, aws string) error {
	return broker.Errorf(code, "%w", &broker.AWSRefusal{Code: aws, Text: "AWS says " + aws})
}

func (a *userKeys) named(id string, f func(*iamKey)) error {
	k := a.keys[id]
	if k == nil {
		return refusal(broker.CodeAWSDenied, "NoSuchEntity")
	}
	f(k)
	return nil
}

// tripAWS is the STS and the IAM of a workshop.
type tripAWS struct {
	broker.IAM // nil: about its keys alone
	w          *workshop
}

func (a tripAWS) do(call string, creds broker.Credentials, f func() error) error {
	return a.w.step(call, func() error { return a.w.aws.as(call, creds, f) })
}

func (a tripAWS) CallerIdentity(_ context.Context, creds broker.Credentials, _ broker.Target) (id broker.Identity, err error) {
	err = a.do("GetCallerIdentity", creds, func() error { id.ARN = userARN; return nil })
	return id, err
}

func (a tripAWS) SessionToken(_ context.Context, creds broker.Credentials, in broker.SessionTokenInput, _ broker.Target) (s broker.STSSession, err error) {
	err = a.do("GetSessionToken", creds, func() error {
		if in.SerialNumber == "" || in.TokenCode.IsZero() {
			return errors.New("without a code")
		}
		if a.w.aws.sessions == nil {
			a.w.aws.sessions = map[string]string{}
		}
		id := fmt.Sprintf("ASIA%016d", len(a.w.aws.sessions))
		a.w.aws.sessions[id] = creds.AccessKeyID
		s.Credentials = broker.Credentials{AccessKeyID: id, SecretAccessKey: broker.NewSecret("s"), SessionToken: broker.NewSecret("t"), Expires: time.Now().Add(in.Duration)}
		return nil
	})
	return s, err
}

func (a tripAWS) AssumeRole(_ context.Context, creds broker.Credentials, in broker.AssumeRoleInput, _ broker.Target) (s broker.STSSession, err error) {
	err = a.do("AssumeRole", creds, func() error {
		s.Credentials = broker.Credentials{AccessKeyID: "ASIA1", SecretAccessKey: broker.NewSecret("s"), SessionToken: broker.NewSecret("t"), Expires: time.Now().Add(in.Duration)}
		return nil
	})
	return s, err
}

func (a tripAWS) AccessKeys(_ context.Context, creds broker.Credentials, _ string) (list []broker.AccessKey, err error) {
	err = a.do("ListAccessKeys", creds, func() error {
		for id, k := range a.w.aws.keys {
			list = append(list, broker.AccessKey{ID: id, Active: k.active, Created: k.created})
		}
		return nil
	})
	return list, err
}

func (a tripAWS) CreateAccessKey(_ context.Context, creds broker.Credentials, _ string) (made broker.Credentials, err error) {
	err = a.do("CreateAccessKey", creds, func() error {
		if len(a.w.aws.keys) > 1 {
			return refusal(broker.CodeAWSDenied, "LimitExceeded")
		}
		a.w.aws.made++
		id, secret := fmt.Sprintf("AKIANEW%013d", a.w.aws.made), fmt.Sprint(newSecret, a.w.aws.made)
		a.w.aws.keys[id] = &iamKey{active: true, secret: secret, created: time.Now()}
		made = broker.Credentials{AccessKeyID: id, SecretAccessKey: broker.NewSecret(secret)}
		return nil
	})
	return made, err
}

func (a tripAWS) SetAccessKeyStatus(_ context.Context, creds broker.Credentials, _, id string, active bool) error {
	return a.do("UpdateAccessKey", creds, func() error { return a.w.aws.named(id, func(k *iamKey) { k.active = active }) })
}

func (a tripAWS) DeleteAccessKey(_ context.Context, creds broker.Credentials, _, id string) error {
	return a.do("DeleteAccessKey", creds, func() error {
		return a.w.aws.named(id, func(*iamKey) { delete(a.w.aws.keys, id) })
	})
}

func (a tripAWS) AccessKeyUsed(_ context.Context, creds broker.Credentials, _, id string) (used time.Time, err error) {
	err = a.do("GetAccessKeyLastUsed", creds, func() error { return a.w.aws.named(id, func(k *iamKey) { used = k.used }) })
	return used, err
}

func (w *workshop) rotate(t *testing.T, change ...func(*broker.RotateRequest)) (broker.Rotated, error) {
	req := broker.RotateRequest{Name: "alice"}
	for _, c := range change {
		c(&req)
	}
	return w.RotateKey(t.Context(), broker.Caller{UID: 1000, PID: 7, Program: "gatepass", Via: "keys"}, req)
}

// works reports an error unless the stored key is one that AWS accepts.
func (w *workshop) works(t *testing.T, when string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	stored := w.keys.keys["alice"]
	at := w.aws.keys[stored.AccessKeyID]
	if at == nil || !at.active || at.secret != stored.SecretAccessKey.Reveal() {
		t.Errorf("%s: the stored key %s does not work: %+v", when, stored.AccessKeyID, at)
	}
}

// done reports an error unless the rotation is over, and one key is left.
func (w *workshop) done(t *testing.T, when string) {
	t.Helper()
	w.works(t, when)
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := w.vault["mfa-"+w.keys.keys["alice"].AccessKeyID] // may stay
	if len(w.aws.keys) != 1 || len(w.vault) > 0 && kept == "" || len(w.vault) > 1 || w.notes["alice"].Rotation != nil {
		t.Errorf("%s: left are %d keys, %v, %+v", when, len(w.aws.keys), slices.Collect(maps.Keys(w.vault)), w.notes["alice"].Rotation)
	}
	if w.keys.keys["alice"].AccessKeyID == oldID {
		t.Errorf("%s: the key is the old one", when)
	}
}

// Each step of a rotation fails once, before or after it is done, alone or with
// all that follows: a key that works is stored at every moment, and the next
// call, or the one after it, brings the rotation to its end.
func TestRotationOfWhichAStepFails(t *testing.T) {
	keep := func(req *broker.RotateRequest) { req.Keep = time.Hour }
	finish := func(req *broker.RotateRequest) { req.Finish = true }
	for name, change := range map[string][]func(*broker.RotateRequest){"at once": nil, "kept": {keep}} {
		t.Run(name, func(t *testing.T) {
			var steps []string
			synctest.Test(t, func(t *testing.T) {
				w := newWorkshop(trip{})
				if _, err := w.rotate(t, change...); err != nil {
					t.Fatal(err)
				}
				if change != nil {
					if _, err := w.rotate(t, finish); err != nil {
						t.Fatal(err)
					}
				}
				w.done(t, "nothing fails")
				steps = w.steps
				t.Logf("%d steps: %s", len(steps), strings.Join(steps, ", "))
			})
			for at := range steps {
				for _, after := range []bool{false, true} {
					for _, death := range []bool{false, true} {
						when := fmt.Sprintf("step %d (%s), done %v, death %v", at+1, steps[at], after, death)
						synctest.Test(t, func(t *testing.T) {
							w := newWorkshop(trip{at: at + 1, after: after, death: death})
							_, err := w.rotate(t, change...)
							w.works(t, when)
							if err == nil && change != nil {
								_, err = w.rotate(t, finish)
								w.works(t, when)
							}
							if err == nil && w.notes["alice"].Rotation == nil { // that step may fail
								w.healed()
								w.done(t, when)
								return
							}
							w.healed()
							w.start()
							for n := 1; ; n++ {
								_, err := w.rotate(t)
								w.works(t, when+", again")
								if rot := w.notes["alice"].Rotation; rot != nil && rot.Step == broker.StepKept {
									_, err = w.rotate(t, finish)
									w.works(t, when+", finished")
								}
								if err == nil {
									break
								}
								if n == 2 {
									t.Errorf("%s: it does not go on: %v", when, err)
									return
								}
							}
							w.done(t, when)
						})
					}
				}
			}
		})
	}
}

// However often, and wherever, a rotation is interrupted and goes on.
func TestRotationOfWhichManyStepsFail(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			w := newWorkshop(trip{})
			for range 10 {
				w.steps, w.dead = nil, false
				w.trip = trip{at: 1 + rnd.IntN(40), after: rnd.IntN(2) == 0, death: rnd.IntN(2) == 0}
				w.start()
				w.rotate(t)
				w.works(t, fmt.Sprintf("seed %d, %+v", seed, w.trip))
			}
			w.healed()
			w.start()
			for range 3 { // the last may have been the first that did all, or the first to begin anew
				if _, err := w.rotate(t); err == nil {
					break
				}
			}
			w.done(t, fmt.Sprint("seed ", seed))
		})
	}
}

// broken is a rotation that stopped while the new key was being proved.
func broken(t *testing.T) *workshop {
	t.Helper()
	w := newWorkshop(trip{})
	w.aws.refuse = func(call string) error {
		if call == "GetCallerIdentity" {
			return refusal(broker.CodeAWSDenied, "AccessDenied")
		}
		return nil
	}
	_, err := w.rotate(t)
	wantCode(t, err, broker.CodeAWSDenied)
	if rot := w.notes["alice"].Rotation; rot == nil || rot.Step != broker.StepProve || len(w.aws.keys) != 2 || len(w.vault) != 1 {
		t.Fatalf("it stopped elsewhere: %+v", rot)
	}
	w.aws.refuse = nil
	w.start()
	return w
}

// What is lost between two halves of a rotation is made up for.
func TestRotationThatLostSomething(t *testing.T) {
	for name, lose := range map[string]func(*workshop){
		"the new key's secret":                 func(w *workshop) { clear(w.vault) },
		"that, and the key is gone at AWS too": func(w *workshop) { clear(w.vault); delete(w.aws.keys, w.notes["alice"].Rotation.New) },
		"the stored key, as it was replaced":   func(w *workshop) { clear(w.keys.keys) },
		"the journal":                          func(w *workshop) { w.notes = nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := broken(t)
				lose(w)
				if _, err := w.rotate(t); err != nil {
					t.Fatal(err)
				}
				w.done(t, "after that")
			})
		})
	}
	t.Run("the new key, at AWS", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := broken(t)
			delete(w.aws.keys, w.notes["alice"].Rotation.New)
			_, err := w.rotate(t)
			wantCode(t, err, broker.CodeAWSDenied)
			if !strings.Contains(err.Error(), "was deleted at AWS meanwhile") {
				t.Error(err)
			}
			w.works(t, "after that")
			if _, err := w.rotate(t); err != nil {
				t.Fatal(err)
			}
			w.done(t, "begun again")
		})
	})
	t.Run("the key, removed by its user", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, notes := range []bool{true, false} {
				w := broken(t)
				if !notes {
					w.notes = nil
				}
				if err := w.RemoveKey(t.Context(), cli, "alice", broker.Reachable{}); err != nil {
					t.Fatal(err)
				}
				if len(w.vault) > 0 || len(w.notes) > 0 {
					t.Errorf("left behind: %v, %v", w.vault, w.notes)
				}
			}
		})
	})
}

// After an answer that does not tell whether a key was made, the next call
// looks for it; after a refusal there is nothing to look for.
func TestRotationAfterAnUnclearAnswer(t *testing.T) {
	for _, tt := range []struct {
		code broker.Code
		aws  string
		step string // of the journal that is left
	}{
		{broker.CodeAWSUnreachable, "ServiceFailure", broker.StepCreate},
		{broker.CodeThrottled, "Throttling", ""},
		{broker.CodeAWSDenied, "LimitExceeded", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorkshop(trip{})
			w.aws.refuse = func(call string) error {
				if call == "CreateAccessKey" {
					return refusal(tt.code, tt.aws)
				}
				return nil
			}
			_, err := w.rotate(t)
			wantCode(t, err, tt.code)
			step := ""
			if rot := w.notes["alice"].Rotation; rot != nil {
				step = rot.Step
			}
			if step != tt.step {
				t.Errorf("%s leaves a journal at %q, not %q", tt.aws, step, tt.step)
			}
			w.aws.refuse = nil
			if _, err := w.rotate(t); err != nil {
				t.Fatal(err)
			}
			w.done(t, tt.aws)
		})
	}
}

// AWS learns of a new key bit by bit, and may ask to slow down: that is waited
// for, two minutes at most.
func TestRotationWaitsForAWS(t *testing.T) {
	// slow refuses the first n calls of one kind that come after a key was made.
	slow := func(w *workshop, call string, n int, err error) {
		w.aws.refuse = func(c string) error {
			if c != call || w.aws.made == 0 || n == 0 {
				return nil
			}
			n--
			return err
		}
	}
	unknown, throttled := refusal(broker.CodeAWSDenied, "InvalidClientTokenId"), refusal(broker.CodeThrottled, "Throttling")
	for _, call := range []string{"GetCallerIdentity", "UpdateAccessKey", "DeleteAccessKey"} {
		for _, refusal := range []error{unknown, throttled} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorkshop(trip{})
				slow(w, call, 10, refusal)
				if _, err := w.rotate(t); err != nil {
					t.Fatalf("%s, %v: %v", call, refusal, err)
				}
				w.done(t, call)

				w = newWorkshop(trip{})
				slow(w, call, 1000, refusal)
				start := time.Now()
				_, err := w.rotate(t)
				if d := time.Since(start); err == nil || d < time.Minute || d > 3*time.Minute {
					t.Errorf("%s: %v after %s", call, err, d)
				}
				w.works(t, call)
				w.aws.refuse = nil
				if _, err := w.rotate(t); err != nil {
					t.Errorf("%s: %v", call, err)
				}
				w.done(t, call)
			})
		}
	}
}

// One accepted use does not prove a new key: each refusal starts the count
// anew. And an old key whose absence breaks the new one comes back.
func TestRotationProves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkshop(trip{})
		uses := 0
		w.aws.refuse = func(call string) error {
			if call != "GetCallerIdentity" || w.aws.made == 0 {
				return nil
			}
			if uses++; uses%4 == 0 && uses < 12 {
				return refusal(broker.CodeAWSDenied, "InvalidClientTokenId")
			}
			return nil
		}
		if _, err := w.rotate(t); err != nil {
			t.Fatal(err)
		}
		if before := slices.Index(w.aws.calls, "UpdateAccessKey"); before < 13 {
			t.Errorf("the old key was deactivated after %v", w.aws.calls[:before])
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorkshop(trip{})
		w.aws.refuse = func(call string) error {
			if call == "GetCallerIdentity" && !w.aws.keys[oldID].active {
				return refusal(broker.CodeAWSDenied, "AccessDenied")
			}
			return nil
		}
		_, err := w.rotate(t)
		wantCode(t, err, broker.CodeAWSDenied)
		if old := w.aws.keys[oldID]; old == nil || !old.active {
			t.Errorf("the old key is %+v", old)
		}
		w.aws.refuse = nil
		if _, err := w.rotate(t); err != nil {
			t.Fatal(err)
		}
		w.done(t, "at last")
	})
}

// A kept key ends when its time has come, also after a sleep through it and a
// restart; a clock that is set back does not end it early.
func TestKeptKeyEnds(t *testing.T) {
	keep := func(req *broker.RotateRequest) { req.Keep = 24 * time.Hour }
	ended := func(w *workshop) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.aws.keys[oldID] == nil }
	synctest.Test(t, func(t *testing.T) {
		w := newWorkshop(trip{})
		out, err := w.rotate(t, keep)
		if err != nil || time.Until(out.OldUntil) != 24*time.Hour || !w.aws.keys[oldID].active {
			t.Fatalf("%+v, %v", out, err)
		}
		_, err = w.rotate(t)
		wantCode(t, err, broker.CodeUsage)
		time.Sleep(24*time.Hour - time.Minute)
		if ended(w) {
			t.Error("it ended early")
		}
		time.Sleep(2 * time.Minute)
		if !ended(w) {
			t.Error("it did not end")
		}
		w.done(t, "a day later")
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorkshop(trip{})
		if _, err := w.rotate(t, keep); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * time.Hour)
		if ended(w) {
			t.Error("it was ended by nobody")
		}
		w.start()
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.done(t, "after a restart")
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorkshop(trip{})
		if _, err := w.rotate(t, keep); err != nil {
			t.Fatal(err)
		}
		w.skew.Store(int64(-12 * time.Hour))
		time.Sleep(24*time.Hour + time.Minute)
		if ended(w) {
			t.Error("the clock was set back, and it ended early")
		}
		time.Sleep(12 * time.Hour)
		w.done(t, "when its time has come by the clock")
	})
	// What could not be done is tried again.
	synctest.Test(t, func(t *testing.T) {
		w := newWorkshop(trip{})
		if _, err := w.rotate(t, keep); err != nil {
			t.Fatal(err)
		}
		refuse := func(f func(call string) error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.aws.refuse = f
		}
		refuse(func(call string) error {
			if call == "UpdateAccessKey" {
				return refusal(broker.CodeAWSDenied, "AccessDenied")
			}
			return nil
		})
		time.Sleep(24*time.Hour + 10*time.Minute)
		refuse(nil)
		if ended(w) {
			t.Error("it ended though AWS refused")
		}
		time.Sleep(time.Hour)
		w.done(t, "an hour later")
	})
}

// A key that is stored is as old as AWS says, where its user may see that.
func TestAddedKeyKnowsItsAge(t *testing.T) {
	for name, refuse := range map[string]error{"seen": nil, "not to be seen": refusal(broker.CodeAWSDenied, "AccessDenied")} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorkshop(trip{})
			clear(w.keys.keys)
			w.aws.refuse = func(call string) error {
				if call == "ListAccessKeys" {
					return refuse
				}
				return nil
			}
			if _, err := w.AddKey(t.Context(), cli, broker.NewKey{Name: "alice", AccessKeyID: oldID, SecretAccessKey: broker.NewSecret(longTermSecret)}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			made := w.aws.keys[oldID].created
			if refuse != nil {
				made = time.Time{}
			}
			if note := w.notes["alice"]; !note.Created.Equal(made) {
				t.Errorf("%s: noted %+v, made %s", name, note, made)
			}
			w.aws.refuse = nil
			if _, err := w.rotate(t); err != nil {
				t.Fatal(err)
			}
			if note := w.notes["alice"]; !note.Created.IsZero() || note.Rotated.IsZero() {
				t.Errorf("%s: after a rotation %+v", name, note)
			}
		})
	}
}

// A policy may want MFA for changes of keys: a code is asked for once, or twice
// where AWS ends a session with the key that it came from.
func TestRotationWithMFA(t *testing.T) {
	for _, bound := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorkshop(trip{})
			w.aws.mfa, w.aws.bound = true, bound
			if _, err := w.rotate(t); !strings.Contains(broker.AsError(err).Hint, "gatepass keys rotate alice --mfa-serial ARN") {
				t.Errorf("without a device: %v", err)
			}
			person := func(req *broker.RotateRequest) {
				req.Serial, req.Reachable = device, broker.Reachable{Known: true}
			}
			if _, err := w.rotate(t, person); err != nil {
				t.Fatal(err)
			}
			w.done(t, "with MFA")
			if want := map[bool]int{false: 1, true: 2}[bound]; w.codes != want {
				t.Errorf("%d codes were asked for, want %d", w.codes, want)
			}
		})
	}
}
