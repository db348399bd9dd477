package broker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"gatepass/broker"
)

// fakeAWSVault is a store of aws-vault's.
type fakeAWSVault struct {
	keys   map[string]broker.Key
	err    error
	read   []broker.Secret // every secret that was handed to the broker
	remove func(broker.Key) error
}

func (f *fakeAWSVault) AWSVaultKeys(context.Context, broker.AWSVault) ([]string, error) {
	return slices.Sorted(maps.Keys(f.keys)), f.err
}

func (f *fakeAWSVault) AWSVaultKey(_ context.Context, _ broker.AWSVault, name string) (broker.Key, error) {
	if f.err != nil {
		return broker.Key{}, f.err
	}
	k, ok := f.keys[name]
	if !ok {
		return broker.Key{}, broker.Errorf(broker.CodeNotFound, "no key %q", name)
	}
	k.SecretAccessKey = broker.NewSecret(k.SecretAccessKey.Reveal())
	f.read = append(f.read, k.SecretAccessKey)
	return k, nil
}

func (f *fakeAWSVault) RemoveAWSVaultKey(_ context.Context, _ broker.AWSVault, k broker.Key) error {
	if f.remove != nil {
		return f.remove(k)
	}
	if have := f.keys[k.Name]; have.AccessKeyID != k.AccessKeyID || !have.SecretAccessKey.Equal(k.SecretAccessKey) {
		return broker.Errorf(broker.CodeDenied, "another key")
	}
	delete(f.keys, k.Name)
	return nil
}

var inFiles = broker.AWSVault{Backend: "file", Dir: "/home/alice/.awsvault/keys", Passphrase: broker.NewSecret("staple")}

// newVaultWorld is a world in which aws-vault keeps bob's key, and alice's,
// which is stored.
func newVaultWorld(t *testing.T) (*world, *fakeAWSVault) {
	w, v := newWorld(t), newFakeAWSVault()
	w.awsVault = v
	w.start()
	w.sts.id = broker.Identity{Account: "111122223333", ARN: "arn:aws:iam::111122223333:user/bob"}
	return w, v
}

func newFakeAWSVault() *fakeAWSVault {
	bob := broker.Key{KeyInfo: broker.KeyInfo{Name: "bob", AccessKeyID: "AKIABOB0000000000001"}, SecretAccessKey: broker.NewSecret(strings.Repeat("s", 40))}
	alice := key("alice", "AKIAALICE00000000001")
	alice.UserARN = ""
	return &fakeAWSVault{keys: map[string]broker.Key{"bob": bob, "alice": alice}}
}

func TestImportKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, v := newVaultWorld(t)
		if names, err := w.AWSVaultKeys(t.Context(), cli, inFiles); err != nil || !slices.Equal(names, []string{"alice", "bob"}) {
			t.Fatalf("%q, %v", names, err)
		}
		w.sts.inCall(func(string) error {
			if _, stored := w.keys.keys["bob"]; stored {
				t.Error("stored before it was proved")
			}
			return nil
		})
		got, err := w.ImportKey(t.Context(), cli, inFiles, "bob", "eu-west-1", broker.Reachable{})
		if err != nil || got.Already || got.UserARN != w.sts.id.ARN || got.AccessKeyID != "AKIABOB0000000000001" {
			t.Fatalf("%+v, %v", got, err)
		}
		if k := w.keys.keys["bob"]; k.SecretAccessKey.Reveal() != strings.Repeat("s", 40) || k.UserARN != w.sts.id.ARN {
			t.Errorf("stored %+v", k.KeyInfo)
		}
		if _, there := v.keys["bob"]; !there {
			t.Error("it is gone from aws-vault before anybody agreed")
		}
		wantKinds(t, w, "key.added")
		if e := w.log.entries[0]; e.Reason != "from aws-vault's store (file)" || e.Key.AccessKeyID != "AKIABOB0000000000001" {
			t.Errorf("entry %+v", e)
		}
		// What leaves has nothing to hide, and nothing that was read is kept.
		if text, err := json.Marshal(got); err != nil || strings.Contains(string(text), "ssss") {
			t.Errorf("answered %s, %v", text, err)
		}
		for i, s := range v.read {
			if strings.Contains(s.Reveal(), "s") {
				t.Errorf("secret %d was not cleared", i)
			}
		}

		// Again, there is nothing to do, and AWS is not asked.
		calls := w.sts.count()
		got, err = w.ImportKey(t.Context(), cli, inFiles, "bob", "", broker.Reachable{})
		if err != nil || !got.Already || w.sts.count() != calls {
			t.Errorf("again: %+v, %v", got, err)
		}
		wantKinds(t, w, "key.added")
		if got, err := w.ImportKey(t.Context(), cli, inFiles, "alice", "", broker.Reachable{}); err != nil || !got.Already || got.UserARN != userARN {
			t.Errorf("stored otherwise: %+v, %v", got, err)
		}
	})
}

func TestImportKeyRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, key string
		setup     func(*world, *fakeAWSVault)
		code      broker.Code
		reads     bool // the secret is read at all
	}{
		{"refused by AWS", "bob", func(w *world, _ *fakeAWSVault) {
			w.sts.inCall(func(string) error { return broker.Errorf(broker.CodeAWSDenied, "InvalidClientTokenId") })
		}, broker.CodeAWSDenied, true},
		{"root", "bob", func(w *world, _ *fakeAWSVault) { w.sts.id.ARN = "arn:aws:iam::111122223333:root" }, broker.CodeDenied, true},
		{"our keychain locked", "bob", func(w *world, _ *fakeAWSVault) { w.keys.err = broker.Errorf(broker.CodeKeychainLocked, "locked") }, broker.CodeKeychainLocked, false},
		{"aws-vault's locked", "bob", func(_ *world, v *fakeAWSVault) { v.err = broker.Errorf(broker.CodeKeychainLocked, "locked") }, broker.CodeKeychainLocked, false},
		{"aws-vault's hung", "bob", func(_ *world, v *fakeAWSVault) { v.err = broker.Errorf(broker.CodeKeychainTimeout, "hung") }, broker.CodeKeychainTimeout, false},
		{"damaged", "bob", func(_ *world, v *fakeAWSVault) { v.err = broker.Errorf(broker.CodeData, "damaged") }, broker.CodeData, false},
		{"log unwritable", "bob", func(w *world, _ *fakeAWSVault) {
			w.log.fail = func(e broker.Event) error {
				if e.Kind == broker.EventKeyAdded {
					return broker.Errorf(broker.CodeLogUnwritable, "full")
				}
				return nil
			}
		}, broker.CodeLogUnwritable, true},
		{"another key of that name", "alice", func(_ *world, v *fakeAWSVault) {
			k := v.keys["alice"]
			k.AccessKeyID = "AKIAALICE00000000002"
			v.keys["alice"] = k
		}, broker.CodeUsage, true},
		{"another secret of that key", "alice", func(_ *world, v *fakeAWSVault) {
			k := v.keys["alice"]
			k.SecretAccessKey = broker.NewSecret(strings.Repeat("s", 40))
			v.keys["alice"] = k
		}, broker.CodeUsage, true},
		{"a temporary key", "bob", func(_ *world, v *fakeAWSVault) {
			k := v.keys["bob"]
			k.AccessKeyID = "ASIABOB0000000000001"
			v.keys["bob"] = k
		}, broker.CodeUsage, true},
		{"the secret in the id's place", "bob", func(_ *world, v *fakeAWSVault) {
			k := v.keys["bob"]
			k.AccessKeyID = k.SecretAccessKey.Reveal()
			v.keys["bob"] = k
		}, broker.CodeUsage, true},
		{"not there", "carol", nil, broker.CodeNotFound, false},
		{"a path for a name", "../bob", nil, broker.CodeUsage, false},
		{"no name", "", nil, broker.CodeUsage, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, v := newVaultWorld(t)
				if tt.setup != nil {
					tt.setup(w, v)
				}
				_, err := w.ImportKey(t.Context(), cli, inFiles, tt.key, "", broker.Reachable{})
				wantCode(t, err, tt.code)
				if _, stored := w.keys.keys["bob"]; stored {
					t.Error("the refused key is stored")
				}
				if k := w.keys.keys["alice"]; k.AccessKeyID != "AKIAALICE00000000001" || k.SecretAccessKey.Reveal() != longTermSecret {
					t.Error("another key was changed")
				}
				if len(v.keys) != 2 {
					t.Error("aws-vault's store was changed")
				}
				if (len(v.read) > 0) != tt.reads {
					t.Errorf("read %d secrets", len(v.read))
				}
				for _, s := range v.read {
					if strings.Trim(s.Reveal(), "\x00") != "" {
						t.Error("a secret was not cleared")
					}
				}
				kinds := w.log.kinds()
				if len(kinds) != 1 || !strings.HasPrefix(kinds[0], "request.") {
					t.Fatalf("recorded: %v", kinds)
				}
				text := fmt.Sprintf("%v %+v %+v %+v", err, broker.AsError(err), *w.log.entries[0].Error, w.log.entries[0].Key)
				for _, hidden := range []string{"ssss", longTermSecret, "staple"} {
					if strings.Contains(text, hidden) {
						t.Errorf("a secret is in %s", text)
					}
				}
			})
		})
	}
}

func TestRemoveImported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, v := newVaultWorld(t)
		v.remove = func(k broker.Key) error {
			if kinds := w.log.kinds(); len(kinds) != 1 || kinds[0] != "key.moved" || !w.log.durable[0] {
				t.Errorf("removed before it is in the book: %v", kinds)
			}
			if k.AccessKeyID != "AKIAALICE00000000001" || k.SecretAccessKey.Reveal() != longTermSecret {
				t.Errorf("to be removed is %+v", k.KeyInfo)
			}
			return nil
		}
		if err := w.RemoveImported(t.Context(), cli, inFiles, "alice", broker.Reachable{}); err != nil {
			t.Fatal(err)
		}
		if e := w.log.entries[0]; e.Reason != "from aws-vault's store (file)" || e.Key.Name != "alice" || e.Key.UserARN != userARN || e.Account != "111122223333" {
			t.Errorf("entry %+v", e)
		}
		for i, s := range w.keys.read {
			if strings.Trim(s.Reveal(), "\x00") != "" {
				t.Errorf("secret %d was not cleared", i)
			}
		}
		if _, stored := w.keys.keys["alice"]; !stored {
			t.Error("it was removed here")
		}
		w.mustAsk(t, "ops")
	})
}

func TestRemoveImportedRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, key string
		setup     func(*world, *fakeAWSVault)
		code      broker.Code
		kinds     []string
	}{
		{"not stored here", "bob", nil, broker.CodeNotFound, []string{"request.failed:not_found"}},
		{"our keychain locked", "alice", func(w *world, _ *fakeAWSVault) { w.keys.err = broker.Errorf(broker.CodeKeychainLocked, "locked") },
			broker.CodeKeychainLocked, []string{"request.failed:keychain_locked"}},
		{"the log is full", "alice", func(w *world, _ *fakeAWSVault) {
			w.log.fail = func(e broker.Event) error {
				if e.Kind == broker.EventKeyMoved {
					return broker.Errorf(broker.CodeLogUnwritable, "full")
				}
				return nil
			}
		}, broker.CodeLogUnwritable, []string{"request.failed:log_unwritable"}},
		{"another key there", "alice", func(_ *world, v *fakeAWSVault) {
			k := v.keys["alice"]
			k.SecretAccessKey = broker.NewSecret(strings.Repeat("s", 40))
			v.keys["alice"] = k
		}, broker.CodeDenied, []string{"key.moved", "request.denied:denied"}},
		{"refused there", "alice", func(_ *world, v *fakeAWSVault) {
			v.remove = func(broker.Key) error { return broker.Errorf(broker.CodeKeychainDenied, "no") }
		}, broker.CodeKeychainDenied, []string{"key.moved", "request.denied:keychain_denied"}},
		{"a path for a name", "../alice", nil, broker.CodeUsage, []string{"request.failed:usage"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, v := newVaultWorld(t)
				if tt.setup != nil {
					tt.setup(w, v)
				}
				wantCode(t, w.RemoveImported(t.Context(), cli, inFiles, tt.key, broker.Reachable{}), tt.code)
				wantKinds(t, w, tt.kinds...)
				if len(v.keys) != 2 || len(w.keys.keys) != 1 {
					t.Error("a key is gone")
				}
			})
		})
	}
}

// A daemon that was given no way to aws-vault's store says so.
func TestNoAWSVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, err := w.AWSVaultKeys(t.Context(), cli, inFiles)
		wantCode(t, err, broker.CodeConfig)
		_, err = w.ImportKey(t.Context(), cli, inFiles, "bob", "", broker.Reachable{})
		wantCode(t, err, broker.CodeConfig)
		wantCode(t, w.RemoveImported(t.Context(), cli, inFiles, "alice", broker.Reachable{}), broker.CodeConfig)
	})
}
