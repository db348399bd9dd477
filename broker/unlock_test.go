package broker_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/profiles"
)

const passphrase = "correct horse"

// A fakeLock is what a passphrase opens.
type fakeLock struct {
	fresh bool
	fail  error // what New and Unlock fail with

	mu    sync.Mutex
	open  bool
	tried []string
	given []broker.Secret
}

func (f *fakeLock) Locked() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open {
		return nil
	}
	return broker.Errorf(broker.CodeKeychainLocked, "it has no passphrase yet").WithHint("give it")
}

func (f *fakeLock) New(context.Context) (bool, error) { return f.fresh, f.fail }

func (f *fakeLock) Unlock(_ context.Context, p broker.Secret) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tried = append(f.tried, p.Reveal())
	f.given = append(f.given, p)
	f.open = f.fail == nil && p.Reveal() == passphrase
	return f.open, f.fail
}

// newLockedWorld has a keychain that waits for its passphrase.
func newLockedWorld(t *testing.T, mfa broker.MFA) (*world, *fakeLock) {
	w := newWorldWith(t, mfa)
	w.awsVault = newFakeAWSVault()
	lock := &fakeLock{}
	w.lock(lock)
	return w, lock
}

// lock is a restart with a lock.
func (w *world) lock(l *fakeLock) {
	w.unlocker = l
	w.start()
}

// An operation is one that needs the keychain.
type operation func(ctx context.Context, w *world, caller broker.Caller, how broker.Reachable) error

var operations = map[string]operation{
	"credentials": func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
		_, err := w.Credentials(ctx, c, broker.Request{Profile: "ops", Reachable: how})
		return err
	},
	"whoami": func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
		_, err := w.WhoAmI(ctx, c, broker.Request{Profile: "ops", Reachable: how})
		return err
	},
	"whoami of a key": func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
		_, err := w.WhoAmI(ctx, c, broker.Request{Reachable: how})
		return err
	},
	"keys import": func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
		_, err := w.ImportKey(ctx, c, inFiles, "bob", "", how)
		return err
	},
	"keys import, removing": func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
		w.awsVault.(*fakeAWSVault).keys["alice"] = key("alice", "AKIAALICE00000000001")
		return w.RemoveImported(ctx, c, inFiles, "alice", how)
	},
	"keys add": func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
		_, err := w.AddKey(ctx, c, broker.NewKey{Name: "bob", AccessKeyID: "AKIABOB0000000000001", SecretAccessKey: broker.NewSecret(longTermSecret), Reachable: how})
		return err
	},
	"keys list": func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
		_, err := w.Keys(ctx, c, how)
		return err
	},
	"keys remove": func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
		return w.RemoveKey(ctx, c, "alice", how)
	},
	"keys rotate": func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
		_, err := w.RotateKey(ctx, c, broker.RotateRequest{Name: "alice", Finish: true, Reachable: how})
		if broker.CodeOf(err) == broker.CodeUsage { // there is nothing to finish
			err = nil
		}
		return err
	},
}

// givesPassphrase answers every question with it.
func givesPassphrase(broker.Question) (string, broker.Code) { return passphrase, "" }

// do runs an operation for a person as run runs requests.
func (w *world) do(ctx context.Context, p *person, f operation) error {
	was := p.req
	defer func() { p.req = was }()
	for range 20 {
		err := f(ctx, w, p.caller, p.req.Reachable)
		ask, ok := err.(*broker.AskError)
		if !ok {
			return err
		}
		if err := w.answers(ctx, p, ask.Question); err != nil {
			return err
		}
	}
	return broker.Errorf(broker.CodeInternal, "it asks again and again")
}

// Whatever needs the keychain asks for its passphrase, once; what may not ask
// does not.
func TestPassphraseOnce(t *testing.T) {
	for name, f := range operations {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, lock := newLockedWorld(t, broker.MFA{})
				p := w.person(7, "", givesPassphrase)
				p.caller.Via = "keys"
				if err := w.do(t.Context(), p, f); err != nil {
					t.Fatal(err)
				}
				if len(p.asked) != 1 || !slices.Equal(lock.tried, []string{passphrase}) {
					t.Fatalf("asked %+v, tried %q", p.asked, lock.tried)
				}
				q := p.asked[0]
				profile := map[bool]string{true: "ops"}[name == "credentials" || name == "whoami"]
				if q.Want != broker.WantPassphrase || q.Keychain != "fake" || q.Program != "aws" || q.Profile != profile || q.Attempt != 1 || q.Reason != "" {
					t.Errorf("asked %+v", q)
				}
				if strings.Trim(lock.given[0].Reveal(), "\x00") != "" {
					t.Error("the answer is still in memory")
				}
				// Asked no more in this life; in the next one, again.
				for _, f := range operations {
					w.keys.keys["alice"] = key("alice", "AKIAALICE00000000001")
					delete(w.keys.keys, "bob")
					if err := w.do(t.Context(), w.person(8, "", nil), f); err != nil {
						t.Error(err)
					}
				}
				w.keys.keys["alice"] = key("alice", "AKIAALICE00000000001")
				delete(w.keys.keys, "bob")
				w.lock(&fakeLock{})
				if err := w.do(t.Context(), p, f); err != nil || len(p.asked) != 2 {
					t.Errorf("asked %d times, %v", len(p.asked), err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w, lock := newLockedWorld(t, broker.MFA{Prompter: dialog(func(context.Context) (string, error) {
			t.Error("a dialog came")
			return passphrase, nil
		})})
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.keys.err = lock.Locked()
		if st, err := w.Status(t.Context()); err != nil || st.Keychain.State != "keychain_locked" || st.Keychain.Hint != "give it" {
			t.Errorf("%+v, %v", st.Keychain, err)
		}
		if list, err := w.ListProfiles(t.Context(), cli, profiles.Files{}); err != nil || list.Keychain.State != "keychain_locked" {
			t.Errorf("%+v, %v", list.Keychain, err)
		}
		if _, err := w.ShowProfile(t.Context(), cli, profiles.Files{}, "ops"); err != nil {
			t.Error(err)
		}
		for _, f := range operations {
			self := w.person(7, "", givesPassphrase)
			self.caller.Via = "daemon"
			wantCode(t, w.do(t.Context(), self, f), broker.CodeKeychainLocked)
		}
		_, err := w.ask(t, "nonsense")
		wantCode(t, err, broker.CodeNotFound)
		_, err = w.AddKey(t.Context(), cli, broker.NewKey{Name: "bob", AccessKeyID: "nonsense"})
		wantCode(t, err, broker.CodeUsage)
	})
}

// However many wait, one is asked and all go on.
func TestPassphraseCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, lock := newLockedWorld(t, broker.MFA{})
		var mu sync.Mutex
		asked := 0
		var crowd sync.WaitGroup
		for i := range 50 {
			f := operations[[]string{"credentials", "whoami", "keys list"}[i%3]]
			crowd.Go(func() {
				p := w.person(100+i, "", func(broker.Question) (string, broker.Code) {
					mu.Lock()
					asked++
					mu.Unlock()
					time.Sleep(3 * time.Second)
					return passphrase, ""
				})
				if err := w.do(t.Context(), p, f); err != nil {
					t.Error(err)
				}
			})
		}
		crowd.Wait()
		if asked != 1 || len(lock.tried) != 1 {
			t.Errorf("%d were asked, %d passphrases tried", asked, len(lock.tried))
		}
	})
}

// A wrong passphrase is asked for again with the reason, three times at most;
// an empty one is not tried.
func TestPassphraseWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, lock := newLockedWorld(t, broker.MFA{})
		typed := []string{"wrong", "", passphrase}
		p := w.person(7, "", func(q broker.Question) (string, broker.Code) { return typed[q.Attempt-1], "" })
		if err := w.do(t.Context(), p, operations["credentials"]); err != nil {
			t.Fatal(err)
		}
		if len(p.asked) != 3 || p.asked[1].Reason != "this passphrase does not open the keychain" || p.asked[2].Reason != "the passphrase is empty" ||
			!slices.Equal(lock.tried, []string{"wrong", passphrase}) {
			t.Errorf("asked %+v, tried %q", p.asked, lock.tried)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w, lock := newLockedWorld(t, broker.MFA{})
		for name, f := range operations {
			p := w.person(7, "", func(q broker.Question) (string, broker.Code) { return "wrong " + q.Reason, "" })
			err := w.do(t.Context(), p, f)
			wantCode(t, err, broker.CodeKeychainDenied)
			if len(p.asked) != 3 || err != nil && strings.Contains(err.Error(), "wrong") {
				t.Errorf("%s: asked %d times: %v", name, len(p.asked), err)
			}
			synctest.Wait()
		}
		if len(lock.tried) != 3*len(operations) {
			t.Errorf("tried %q", lock.tried)
		}
	})
}

func TestPassphraseOfNewKeychain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lock(&fakeLock{fresh: true})
		p := w.person(7, "", func(q broker.Question) (string, broker.Code) {
			return map[int]string{1: "", 2: passphrase}[q.Attempt], ""
		})
		if err := w.do(t.Context(), p, operations["keys add"]); err != nil {
			t.Fatal(err)
		}
		if len(p.asked) != 2 || p.asked[0].Want != broker.WantNewPassphrase || p.asked[1].Want != broker.WantNewPassphrase || p.asked[1].Reason != "the passphrase is empty" {
			t.Errorf("asked %+v", p.asked)
		}
	})
	// What cannot be told new from old is not asked about.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lock(&fakeLock{fail: broker.Errorf(broker.CodeConfig, "others may read it")})
		p := w.person(7, "", givesPassphrase)
		wantCode(t, w.do(t.Context(), p, operations["keys add"]), broker.CodeConfig)
		if len(p.asked) != 0 {
			t.Errorf("asked %+v", p.asked)
		}
	})
}

// A cancel refuses all who wait, and programs stay unasked for a while; a
// person's own command asks again. All of it is recorded.
func TestPassphraseCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, lock := newLockedWorld(t, broker.MFA{})
		asked := 0
		no := func(broker.Question) (string, broker.Code) {
			asked++
			time.Sleep(time.Second)
			return "", broker.CodeCancelled
		}
		var crowd sync.WaitGroup
		for i := range 10 {
			crowd.Go(func() {
				wantCode(t, w.do(t.Context(), w.person(100+i, "", no), operations["credentials"]), broker.CodeCancelled)
			})
		}
		crowd.Wait()
		for i := range 10 {
			err := w.do(t.Context(), w.person(200+i, "", no), operations["credentials"])
			wantCode(t, err, broker.CodeKeychainLocked)
			if e := broker.AsError(err); !strings.Contains(e.Message, "was cancelled") || e.Hint != "when you are ready: gatepass keys list" {
				t.Errorf("%s (%s)", e.Message, e.Hint)
			}
		}
		if asked != 1 || len(lock.tried) != 0 {
			t.Errorf("%d were asked, tried %q", asked, lock.tried)
		}
		kinds := w.log.kinds()
		if len(kinds) != 20 || kinds[0] != "request.denied:cancelled" || kinds[19] != "request.failed:keychain_locked" {
			t.Errorf("recorded %q", kinds)
		}
		own := w.person(7, "", givesPassphrase)
		own.caller.Via = "keys"
		if err := w.do(t.Context(), own, operations["keys list"]); err != nil {
			t.Error(err)
		}
	})
}

// Who cannot be asked is told the way out.
func TestPassphraseNobodyToAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newLockedWorld(t, broker.MFA{})
		for name, f := range operations {
			p := w.person(7, "", nil)
			err := w.do(t.Context(), p, f)
			wantCode(t, err, broker.CodeKeychainLocked)
			if e := broker.AsError(err); !strings.Contains(e.Message, "the keychain (fake) is locked, and there is nobody to ask") || !strings.HasPrefix(e.Hint, "give it") {
				t.Errorf("%s: %s (%s)", name, e.Message, e.Hint)
			}
			synctest.Wait()
		}
	})
}

// The ways are those of MFA codes, and no code is taken for a passphrase.
func TestPassphraseWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialogs := 0
		w, lock := newLockedWorld(t, broker.MFA{Prompter: dialog(func(context.Context) (string, error) { dialogs++; return passphrase, nil })})
		p := w.person(7, "mfa", func(broker.Question) (string, broker.Code) { t.Error("asked on the terminal"); return "", "" })
		p.req.Code = broker.NewSecret("123456")
		// One request waits for one answer.
		p.req.Reachable.Known = true
		_, err := w.Credentials(t.Context(), p.caller, p.req)
		if ask, ok := err.(*broker.AskError); !ok || ask.Question.ID != "" || ask.Question.Want != broker.WantPassphrase {
			t.Errorf("got %v", err)
		}
		if _, err := w.run(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if dialogs != 1 || len(lock.tried) != 1 || w.sts.tokens[0].TokenCode.Reveal() != "123456" {
			t.Errorf("%d dialogs, tried %q", dialogs, lock.tried)
		}
	})
	// A person is asked for both, one after the other, on the terminal.
	synctest.Test(t, func(t *testing.T) {
		w, _ := newLockedWorld(t, broker.MFA{})
		p := w.person(7, "mfa", func(q broker.Question) (string, broker.Code) {
			return map[string]string{broker.WantPassphrase: passphrase, broker.WantCode: "123456"}[q.Want], ""
		})
		p.caller.Via = "export"
		if _, err := w.run(t.Context(), p); err != nil || len(p.asked) != 2 {
			t.Errorf("asked %+v: %v", p.asked, err)
		}
	})
}

// accessKeys are those of one user at IAM, by id, and whether they are active.
type accessKeys map[string]bool

func (f accessKeys) AccessKeys(context.Context, broker.Credentials, string) (list []broker.AccessKey, err error) {
	for id, active := range f {
		list = append(list, broker.AccessKey{ID: id, Active: active})
	}
	return list, nil
}

func (f accessKeys) CreateAccessKey(context.Context, broker.Credentials, string) (broker.Credentials, error) {
	return broker.Credentials{}, broker.Errorf(broker.CodeAWSDenied, "no more keys")
}

func (f accessKeys) SetAccessKeyStatus(_ context.Context, _ broker.Credentials, _, id string, active bool) error {
	f[id] = active
	return nil
}

func (f accessKeys) DeleteAccessKey(_ context.Context, _ broker.Credentials, _, id string) error {
	delete(f, id)
	return nil
}

func (f accessKeys) AccessKeyUsed(context.Context, broker.Credentials, string, string) (time.Time, error) {
	return time.Time{}, nil
}

func (f accessKeys) Groups(context.Context, broker.Credentials, string, string) ([]string, error) {
	return nil, nil
}

func (f accessKeys) MFADevices(context.Context, broker.Credentials, string, string) ([]broker.MFADevice, error) {
	return nil, nil
}

// An old key whose time has come is ended once the keychain is open: nobody
// is asked for the daemon's own sake.
func TestPassphraseAndKeptKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sts.id.ARN = userARN
		iam := accessKeys{"AKIAALICE00000000001": true, "AKIAOLD0000000000001": true}
		w.iam.IAM = iam
		w.notes["alice"] = broker.KeyNote{Rotation: &broker.Rotation{
			Step: broker.StepKept, Old: "AKIAOLD0000000000001", New: "AKIAALICE00000000001", UserARN: userARN, Until: time.Now().Add(time.Hour),
		}}
		w.lock(&fakeLock{})
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		entries := len(w.log.kinds())
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if kinds := w.log.kinds()[entries:]; len(kinds) != 0 || len(iam) != 2 {
			t.Errorf("locked, it did %q", kinds)
		}
		if err := w.do(t.Context(), w.person(7, "", givesPassphrase), operations["keys list"]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(iam) != 1 || !iam["AKIAALICE00000000001"] {
			t.Errorf("at AWS there are %v", iam)
		}
	})
}

// A lease's wall comes before any question, its endpoint asks nobody, and
// people are asked.
func TestPassphraseAndLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		w.awsVault = newFakeAWSVault()
		var lease string
		begin := func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
			req := leaseRequest("ops")
			req.Reachable = how
			g, err := w.Begin(ctx, c, req)
			lease = g.ID
			return err
		}
		w.unlocker = &fakeLock{}
		w.restart()
		p := w.person(100, "", givesPassphrase)
		p.caller = process(100, 50)
		p.caller.Via = "exec"
		if err := w.do(t.Context(), p, begin); err != nil || len(p.asked) != 1 {
			t.Fatalf("asked %+v: %v", p.asked, err)
		}

		// The next daemon has no passphrase.
		w.unlocker = &fakeLock{}
		w.restart()
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for name, f := range operations {
			inside := w.person(101, "", func(q broker.Question) (string, broker.Code) {
				t.Errorf("%s: asked inside: %+v", name, q)
				return "", broker.CodeCancelled
			})
			inside.caller = process(101, 100, 50)
			if name == "credentials" || name == "whoami" || name == "whoami of a key" { // of its own profile
				f = func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
					_, err := w.Credentials(ctx, c, broker.Request{Profile: "ops2", Reachable: how})
					return err
				}
			}
			wantCode(t, w.do(t.Context(), inside, f), broker.CodeDenied)
		}
		endpoint := func() error {
			c := process(101, 100, 50)
			c.Via = "container"
			_, err := w.LeaseCredentials(t.Context(), lease, c)
			return err
		}
		wantCode(t, endpoint(), broker.CodeKeychainLocked)
		renew := w.person(102, "", func(broker.Question) (string, broker.Code) {
			wantCode(t, endpoint(), broker.CodeKeychainLocked) // and the question stands
			return passphrase, ""
		})
		renew.caller = process(102, 100, 50)
		err := w.do(t.Context(), renew, func(ctx context.Context, w *world, c broker.Caller, how broker.Reachable) error {
			_, err := w.Renew(ctx, c, "", broker.Request{Reachable: how})
			return err
		})
		if err != nil || len(renew.asked) != 1 {
			t.Fatalf("asked %+v: %v", renew.asked, err)
		}
		if err := endpoint(); err != nil {
			t.Error(err)
		}
	})
}
