package broker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
)

func newKey(name string) broker.NewKey {
	return broker.NewKey{Name: name, AccessKeyID: "AKIABOB0000000000001", SecretAccessKey: broker.NewSecret(strings.Repeat("s", 40))}
}

func TestAddKeyProvesThenStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sts.id = broker.Identity{Account: "111122223333", ARN: "arn:aws:iam::111122223333:user/bob"}
		w.sts.inCall(func(string) error {
			if _, stored := w.keys.keys["bob"]; stored {
				t.Error("stored before it was proved")
			}
			return nil
		})
		info, err := w.AddKey(t.Context(), cli, newKey("bob"))
		if err != nil {
			t.Fatal(err)
		}
		if info.UserARN != w.sts.id.ARN || w.keys.keys["bob"].UserARN != w.sts.id.ARN {
			t.Errorf("the proved identity was not kept: %+v", info)
		}
		wantKinds(t, w, "key.added")
		if e := w.log.entries[0]; e.Key.AccessKeyID != "AKIABOB0000000000001" || e.Account != "111122223333" {
			t.Errorf("entry %+v", e)
		}
	})
}

func TestAddKeyRefusals(t *testing.T) {
	good := newKey("bob")
	change := func(f func(*broker.NewKey)) broker.NewKey { k := good; f(&k); return k }
	for _, tt := range []struct {
		name  string
		key   broker.NewKey
		setup func(*world)
		code  broker.Code
	}{
		{"refused by AWS", good, func(w *world) {
			w.sts.inCall(func(string) error { return broker.Errorf(broker.CodeAWSDenied, "InvalidClientTokenId") })
		}, broker.CodeAWSDenied},
		{"root", good, func(w *world) { w.sts.id.ARN = "arn:aws:iam::111122223333:root" }, broker.CodeDenied},
		{"keychain locked", good, func(w *world) { w.keys.err = broker.Errorf(broker.CodeKeychainLocked, "locked") }, broker.CodeKeychainLocked},
		{"log unwritable", good, func(w *world) {
			w.log.fail = func(e broker.Event) error {
				if e.Kind == broker.EventKeyAdded {
					return broker.Errorf(broker.CodeLogUnwritable, "full")
				}
				return nil
			}
		}, broker.CodeLogUnwritable},
		{"name taken", change(func(k *broker.NewKey) { k.Name = "alice" }), nil, broker.CodeUsage},
		{"empty name", change(func(k *broker.NewKey) { k.Name = "" }), nil, broker.CodeUsage},
		{"name is a path", change(func(k *broker.NewKey) { k.Name = "../x" }), nil, broker.CodeUsage},
		{"name is a flag", change(func(k *broker.NewKey) { k.Name = "-x" }), nil, broker.CodeUsage},
		{"name ends in a newline", change(func(k *broker.NewKey) { k.Name = "bob\n" }), nil, broker.CodeUsage},
		{"temporary", change(func(k *broker.NewKey) { k.AccessKeyID = "ASIABOB0000000000001" }), nil, broker.CodeUsage},
		{"id is the secret", change(func(k *broker.NewKey) { k.AccessKeyID = good.SecretAccessKey.Reveal() }), nil, broker.CodeUsage},
		{"short secret", change(func(k *broker.NewKey) { k.SecretAccessKey = broker.NewSecret("ssss") }), nil, broker.CodeUsage},
		{"secret with a newline", change(func(k *broker.NewKey) { k.SecretAccessKey = broker.NewSecret(strings.Repeat("s", 39) + "\n") }), nil, broker.CodeUsage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.sts.id.ARN = "arn:aws:iam::111122223333:user/bob"
				if tt.setup != nil {
					tt.setup(w)
				}
				_, err := w.AddKey(t.Context(), cli, tt.key)
				wantCode(t, err, tt.code)
				if _, stored := w.keys.keys["bob"]; stored {
					t.Error("the refused key is stored")
				}
				if w.keys.keys["alice"].AccessKeyID != "AKIAALICE00000000001" {
					t.Error("another key was changed")
				}
				if kinds := w.log.kinds(); len(kinds) != 1 || !strings.HasPrefix(kinds[0], "request.") {
					t.Errorf("recorded: %v", kinds)
				}
				text := fmt.Sprintf("%v %+v %+v", err, broker.AsError(err), *w.log.entries[0].Error)
				if strings.Contains(text, "ssss") || strings.Contains(fmt.Sprintf("%+v", *w.log.entries[0].Key), "ssss") {
					t.Errorf("the secret is in the error: %s", text)
				}
			})
		})
	}
}

// The log may tell of more than was done, never of less.
// Whoever stores a key deletes it elsewhere next: a keychain that lost it, or
// some of it, must not go unnoticed.
func TestAddKeyReadsBack(t *testing.T) {
	for name, lose := range map[string]func(broker.Key) broker.Key{
		"cut": func(k broker.Key) broker.Key {
			k.SecretAccessKey = broker.NewSecret(k.SecretAccessKey.Reveal()[:8])
			return k
		},
		"another": func(k broker.Key) broker.Key { k.AccessKeyID = "AKIAALICE00000000001"; return k },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.sts.id.ARN = "arn:aws:iam::111122223333:user/bob"
				w.keys.lose = lose
				_, err := w.AddKey(t.Context(), cli, newKey("bob"))
				wantCode(t, err, broker.CodeKeychainDenied)
				wantKinds(t, w, "key.added", "request.denied:keychain_denied")
			})
		})
	}
}

func TestAddKeyIsRecordedBeforeItIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sts.id.ARN = "arn:aws:iam::111122223333:user/bob"
		w.log.fail = func(e broker.Event) error {
			if _, stored := w.keys.keys["bob"]; stored {
				t.Errorf("stored before %s", e.Kind)
			}
			if e.Kind == broker.EventKeyAdded {
				w.keys.err = broker.Errorf(broker.CodeKeychainLocked, "locked just now")
			}
			return nil
		}
		_, err := w.AddKey(t.Context(), cli, newKey("bob"))
		wantCode(t, err, broker.CodeKeychainLocked)
		wantKinds(t, w, "key.added", "request.failed:keychain_locked")
	})
}

func TestRootKeyWithAllowRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sts.id.ARN = "arn:aws:iam::111122223333:root"
		k := newKey("bob")
		k.AllowRoot = true
		if _, err := w.AddKey(t.Context(), cli, k); err != nil {
			t.Fatal(err)
		}
	})
}

func TestNoVerifyAsksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		k := newKey("bob")
		k.NoVerify = true
		if _, err := w.AddKey(t.Context(), cli, k); err != nil || w.sts.count() != 0 {
			t.Errorf("%v, %d calls", err, w.sts.count())
		}
	})
}

func TestRemovedKeyIsServedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(t, "ops")
		if err := w.RemoveKey(t.Context(), cli, "alice", broker.Reachable{}); err != nil {
			t.Fatal(err)
		}
		_, err := w.ask(t, "ops")
		wantCode(t, err, broker.CodeNotFound)
		wantKinds(t, w, "session.requested", "session.issued", "credentials.served",
			"key.removed", "session.ended", "request.failed:not_found")
		wantCode(t, w.RemoveKey(t.Context(), cli, "alice", broker.Reachable{}), broker.CodeNotFound)
	})
}

// A session that STS was already giving when its key was removed is not kept.
func TestKeyRemovedWhileMinting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.sts.inCall(func(string) error { <-release; return nil })
		result := make(chan error)
		go func() { _, err := w.ask(t, "ops"); result <- err }()
		synctest.Wait()
		if err := w.RemoveKey(t.Context(), cli, "alice", broker.Reachable{}); err != nil {
			t.Fatal(err)
		}
		close(release)
		wantCode(t, <-result, broker.CodeDenied)
		if st, _ := w.Status(t.Context()); len(st.Sessions) != 0 {
			t.Error("a session of the removed key lives")
		}
	})
}

// Somebody changed the keychain behind our back: the next request uses what
// is there, and says so in its entries.
func TestKeyReplacedInTheKeychain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(t, "ops")
		w.keys.keys["alice"] = key("alice", "AKIAALICE00000000002")
		w.mustAsk(t, "plain")
		if e := w.log.entries[len(w.log.entries)-1]; e.Key.AccessKeyID != "AKIAALICE00000000002" {
			t.Errorf("recorded %s", e.Key.AccessKeyID)
		}
	})
}

// Cannot read is never not found.
func TestUnreadableKeychainIsNotAnEmptyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.keys.err = broker.Errorf(broker.CodeKeychainTimeout, "hung")
		_, err := w.ask(t, "ops")
		wantCode(t, err, broker.CodeKeychainTimeout)
		_, err = w.Keys(t.Context(), cli, broker.Reachable{})
		wantCode(t, err, broker.CodeKeychainTimeout)
		wantCode(t, w.RemoveKey(t.Context(), cli, "alice", broker.Reachable{}), broker.CodeKeychainTimeout)
		if st, err := w.Status(t.Context()); err != nil || st.Keychain.State != "keychain_timeout" {
			t.Errorf("status says %+v, %v", st.Keychain, err)
		}
	})
}

// Who looks again and again has the keychain asked now and then alone, and who
// looks once sees it as it is.
func TestGlance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		look := func(look func(context.Context) (broker.Status, error), probes int, state string) {
			t.Helper()
			st, err := look(t.Context())
			if err != nil || w.keys.probes != probes || st.Keychain.State != state || st.Daemon.PID != 42 {
				t.Errorf("after %d probes, not %d: %+v, %v", w.keys.probes, probes, st, err)
			}
		}
		for range 5 {
			look(w.Glance, 1, "ok")
		}
		w.keys.err = broker.Errorf(broker.CodeKeychainLocked, "locked")
		look(w.Glance, 1, "ok")
		look(w.Status, 2, "keychain_locked")
		look(w.Glance, 2, "keychain_locked")
		w.keys.err = nil
		w.slept = 29 * time.Second
		look(w.Glance, 2, "keychain_locked")
		w.slept = 30 * time.Second
		look(w.Glance, 3, "ok")
		look(w.Status, 4, "ok")
	})
}

// Keys are changed one at a time, and who waits for a slow change is told so
// before the client gives up.
func TestKeyChangesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sts.id.ARN = userARN
		w.sts.inCall(func(string) error { time.Sleep(90 * time.Second); return nil })
		added := make(chan error, 1)
		go func() {
			_, err := w.AddKey(t.Context(), cli, newKey("bob"))
			added <- err
		}()
		synctest.Wait()
		began := time.Now()
		err := w.RemoveKey(t.Context(), cli, "alice", broker.Reachable{})
		wantCode(t, err, broker.CodeLocked)
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it took %s", took)
		}
		if err := w.RemoveKey(t.Context(), cli, "alice", broker.Reachable{}); err != nil { // its turn comes after another 30 s
			t.Error(err)
		}
		if err := <-added; err != nil {
			t.Error(err)
		}
	})
}

// A slow listing tells of the time before a change: who comes after the change
// does not go by it.
func TestKeysListedBeforeAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sts.id = broker.Identity{Account: "111122223333", ARN: userARN}
		w.sts.inCall(func(string) error {
			w.sts.inCall(nil)
			slow := true
			w.keys.listed = func() {
				if slow {
					slow = false
					time.Sleep(10 * time.Second)
				}
			}
			go w.Keys(context.Background(), cli, broker.Reachable{})
			synctest.Wait()
			return nil
		})
		first := newKey("bob")
		if _, err := w.AddKey(t.Context(), cli, first); err != nil {
			t.Fatal(err)
		}
		second := newKey("bob")
		second.AccessKeyID = "AKIABOB0000000000002"
		_, err := w.AddKey(t.Context(), cli, second)
		wantCode(t, err, broker.CodeUsage)
		if got := w.keys.keys["bob"].AccessKeyID; got != first.AccessKeyID {
			t.Errorf("stored is %s", got)
		}
	})
}
