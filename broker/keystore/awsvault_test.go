package keystore

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/99designs/keyring"

	"gatepass/broker"
)

const vaultSecret = "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY"

// What aws-vault 7.2 writes for a key, and what it wrote with the SDK before
// that one.
const (
	vaultItem    = `{"AccessKeyID":"AKIAI44QH8DHBEXAMPLE","SecretAccessKey":"` + vaultSecret + `","SessionToken":"","Source":"","CanExpire":false,"Expires":"0001-01-01T00:00:00Z"}`
	oldVaultItem = `{"AccessKeyID":"AKIAI44QH8DHBEXAMPLE","SecretAccessKey":"` + vaultSecret + `","SessionToken":"","ProviderName":""}`
)

// keyringItem is what keyring makes of it where a backend keeps whole items.
func keyringItem(name, data string) string {
	return `{"Key":"` + name + `","Data":"` + base64.StdEncoding.EncodeToString([]byte(data)) + `","Label":"aws-vault (` + name + `)","Description":"","KeychainNotTrustApplication":true,"KeychainNotSynchronizable":false}`
}

// notKeys are names that aws-vault gives, or gave, to what is no key.
var notKeys = []string{
	"sts.GetSessionToken,d29yaw,,1795647579", "sts.AssumeRole,d29yaw,YXJuOmF3czppYW06OjE6bWZhL2E,1795647579",
	"sso.GetRoleCredentials,d29yaw,aHR0cHM6Ly94,1795647579", "session,work,,1795647579", "session,d29yaw,bWZh,1795647579",
	"session:work:arn:aws:iam::1:mfa/a:1795647579", "work session (1795647579)", "oidc:https://example.com/start",
}

func TestIsAWSVaultKey(t *testing.T) {
	for _, name := range notKeys {
		if isAWSVaultKey(name) {
			t.Errorf("%q is taken for a key", name)
		}
	}
	for _, name := range []string{"work", "team/ops", "a,b", "a,b,c,d", "a,!,c,1", "session", "my session", "oidc"} {
		if !isAWSVaultKey(name) {
			t.Errorf("%q is not taken for a key", name)
		}
	}
	if isAWSVaultKey("") {
		t.Error("nothing is a key")
	}
}

func TestDecodeAWSVaultKey(t *testing.T) {
	for _, item := range []string{vaultItem, oldVaultItem, `{"AccessKeyId":"AKIAI44QH8DHBEXAMPLE","SecretAccessKey":"` + vaultSecret + `"}`} {
		info, secret, err := decodeAWSVaultKey("work", []byte(item))
		if err != nil || info != (broker.KeyInfo{Name: "work", AccessKeyID: "AKIAI44QH8DHBEXAMPLE"}) || string(secret) != vaultSecret {
			t.Errorf("%+v, %v", info, err)
		}
	}
	for says, item := range map[string]string{
		"JSON":       "hunter2" + vaultSecret,
		"temporary":  strings.Replace(vaultItem, `"SessionToken":""`, `"SessionToken":"`+vaultSecret+`"`, 1),
		"empty":      `{"AccessKeyID":"AKIAI44QH8DHBEXAMPLE"}`,
		"malformed":  strings.Replace(vaultItem, vaultSecret, vaultSecret+`\n`, 1),
		" temporary": strings.Replace(vaultItem, `"CanExpire":false`, `"CanExpire":true`, 1),
	} {
		_, secret, err := decodeAWSVaultKey("work", []byte(item))
		if e := wantCode(t, err, broker.CodeData); !strings.Contains(e.Message, says) || len(secret) > 0 || strings.Contains(e.Message, vaultSecret[:8]) {
			t.Errorf("%s: %v", says, e)
		}
	}
}

func FuzzDecodeAWSVaultKey(f *testing.F) {
	f.Add([]byte(vaultItem))
	f.Add([]byte(oldVaultItem))
	f.Add([]byte(`{"accesskeyid":"a","SECRETACCESSKEY":"b"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, secret, err := decodeAWSVaultKey("work", data)
		if err != nil {
			wantCode(t, err, broker.CodeData)
			return
		}
		// What is let through can be stored and comes back.
		item, err := encodeKey(info, secret)
		if err != nil {
			t.Fatal(err)
		}
		if _, back, err := decodeKey("work", item); err != nil || !bytes.Equal(back, secret) {
			t.Errorf("%q, %v", back, err)
		}
	})
}

// What is not a place where aws-vault can keep keys reaches no helper.
func TestAWSVaultPlaces(t *testing.T) {
	s := newStore(t, withFault("crash"))
	for name, at := range map[string]broker.AWSVault{
		"nothing":             {},
		"another program":     {Backend: "op"},
		"ours":                {Backend: "auto"},
		"keyctl":              {Backend: "keyctl"},
		"another system's":    {Backend: map[bool]string{true: "keychain", false: "wincred"}[runtime.GOOS == "windows"]},
		"a relative store":    {Backend: "file", Dir: "keys"},
		"no directory":        {Backend: "file"},
		"no password store":   {Backend: "pass"},
		"a prefix that leads": {Backend: "pass", Dir: "/a", Prefix: "../b"},
		"an absolute prefix":  {Backend: "pass", Dir: "/a", Prefix: "/b"},
		"no collection":       {Backend: "secret-service"},
	} {
		for what, err := range map[string]error{
			"list":   func() error { _, err := s.AWSVaultKeys(t.Context(), at); return err }(),
			"get":    func() error { _, err := s.AWSVaultKey(t.Context(), at, "work"); return err }(),
			"remove": s.RemoveAWSVaultKey(t.Context(), at, testKey("work")),
		} {
			if broker.CodeOf(err) != broker.CodeConfig {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
}

// vaultFiles makes a file store of aws-vault's, as keyring writes it.
func vaultFiles(t *testing.T, passphrase string, items map[string]string) broker.AWSVault {
	t.Helper()
	dir := t.TempDir()
	ring, err := keyring.Open(keyring.Config{
		AllowedBackends: []keyring.BackendType{keyring.FileBackend}, FileDir: dir,
		FilePasswordFunc: func(string) (string, error) { return passphrase, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range items {
		if err := ring.Set(keyring.Item{Key: name, Data: []byte(data), Label: "aws-vault (" + name + ")"}); err != nil {
			t.Fatal(err)
		}
	}
	return broker.AWSVault{Backend: "file", Dir: dir, Passphrase: broker.NewSecret(passphrase)}
}

// useAWSVault takes a store of aws-vault's that holds work and old, as above,
// and notKeys, through an import. The keychain at hand stays as it is.
func useAWSVault(t *testing.T, s *Store, at broker.AWSVault) {
	t.Helper()
	opened := s.Backend()
	names, err := s.AWSVaultKeys(t.Context(), at)
	if err != nil || !slices.Equal(names, []string{"old", "work"}) {
		t.Fatalf("listed %q, %v", names, err)
	}
	want := broker.KeyInfo{Name: "work", AccessKeyID: "AKIAI44QH8DHBEXAMPLE"}
	key, err := s.AWSVaultKey(t.Context(), at, "work")
	if err != nil || key.KeyInfo != want || key.SecretAccessKey.Reveal() != vaultSecret {
		t.Fatalf("got %+v, %v", key.KeyInfo, err)
	}
	// What is not listed as a key is not there, whatever lies under the name.
	for _, name := range append([]string{"absent", "", "../work", "./work"}, notKeys...) {
		_, err := s.AWSVaultKey(t.Context(), at, name)
		wantCode(t, err, broker.CodeNotFound)
		other := key
		other.Name = name
		wantCode(t, s.RemoveAWSVaultKey(t.Context(), at, other), broker.CodeNotFound)
	}
	// Nor is another key removed than the one that was imported.
	for _, change := range []func(*broker.Key){
		func(k *broker.Key) { k.AccessKeyID = "AKIAOTHER" },
		func(k *broker.Key) { k.SecretAccessKey = broker.NewSecret(vaultSecret + "x") },
		func(k *broker.Key) { k.SecretAccessKey = broker.Secret{} },
	} {
		other := key
		change(&other)
		wantCode(t, s.RemoveAWSVaultKey(t.Context(), at, other), broker.CodeDenied)
	}
	if err := s.RemoveAWSVaultKey(t.Context(), at, key); err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.RemoveAWSVaultKey(t.Context(), at, key), broker.CodeNotFound)
	_, err = s.AWSVaultKey(t.Context(), at, "work")
	wantCode(t, err, broker.CodeNotFound)
	if names, err := s.AWSVaultKeys(t.Context(), at); err != nil || !slices.Equal(names, []string{"old"}) {
		t.Errorf("left is %q, %v", names, err)
	}
	if _, err := s.AWSVaultKey(t.Context(), at, "old"); err != nil {
		t.Errorf("the other key went too: %v", err)
	}
	if s.Backend() != opened {
		t.Errorf("the keychain was %s, and is %s", opened, s.Backend())
	}
}

func withNotKeys(items map[string]string) map[string]string {
	for _, name := range notKeys {
		items[name] = vaultItem
	}
	return items
}

func TestAWSVaultFile(t *testing.T) {
	at := vaultFiles(t, "staple", withNotKeys(map[string]string{"work": vaultItem, "old": oldVaultItem}))
	for _, stray := range []string{".DS_Store", "a%2x", "%2f"} {
		if err := os.WriteFile(filepath.Join(at.Dir, stray), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(at.Dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, nil)
	useAWSVault(t, s, at)
	if keys, err := s.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("the keychain has %v, %v", keys, err)
	}
	at = vaultFiles(t, "staple", map[string]string{"team/ops%": vaultItem})
	if key, err := s.AWSVaultKey(t.Context(), at, "team/ops%"); err != nil || key.SecretAccessKey.Reveal() != vaultSecret {
		t.Errorf("a name with a slash: %v", err)
	}
}

func TestAWSVaultFileRefusals(t *testing.T) {
	var log bytes.Buffer
	s := newStore(t, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	at := vaultFiles(t, "staple", map[string]string{"work": vaultItem, "note": "hunter2"})
	var all error
	get := func(at broker.AWSVault, name string, code broker.Code, hint string) {
		t.Helper()
		_, err := s.AWSVaultKey(t.Context(), at, name)
		all = errors.Join(all, err)
		if e := wantCode(t, err, code); !strings.Contains(e.Hint, hint) || (hint == "") != (e.Hint == "") {
			t.Errorf("hint %q", e.Hint)
		}
	}
	get(at, "note", broker.CodeData, "")
	for _, wrong := range []string{"stapler", ""} {
		bad := at
		bad.Passphrase = broker.NewSecret(wrong)
		get(bad, "work", broker.CodeKeychainDenied, "AWS_VAULT_FILE_PASSPHRASE")
		if names, err := s.AWSVaultKeys(t.Context(), bad); err != nil || len(names) != 2 {
			t.Errorf("names need no passphrase: %q, %v", names, err)
		}
		wantCode(t, s.RemoveAWSVaultKey(t.Context(), bad, testKey("work")), broker.CodeKeychainDenied)
	}
	for name, text := range map[string]string{"empty": "", "cut": "eyJhbGciOiJQQkVTMi1IUzI1NitBMTI4S1ci", "noise": "\x00\xff"} {
		if err := os.WriteFile(filepath.Join(at.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		get(at, name, broker.CodeData, "")
	}
	// A store that is not there is not one that cannot be read.
	none := at
	none.Dir = filepath.Join(at.Dir, "none")
	_, err := s.AWSVaultKeys(t.Context(), none)
	wantCode(t, err, broker.CodeNotFound)
	none.Dir = filepath.Join(at.Dir, "work")
	_, err = s.AWSVaultKeys(t.Context(), none)
	wantCode(t, err, broker.CodeConfig)
	if _, err := os.Stat(filepath.Join(at.Dir, "none")); err == nil {
		t.Error("it was made")
	}
	if text := all.Error() + log.String(); strings.Contains(text, "hunter2") || strings.Contains(text, vaultSecret[:8]) || strings.Contains(text, "staple") {
		t.Errorf("a secret is in %s", text)
	}
}

// An empty passphrase is one.
func TestAWSVaultFileEmptyPassphrase(t *testing.T) {
	at := vaultFiles(t, "", map[string]string{"work": vaultItem})
	if _, err := newStore(t, nil).AWSVaultKey(t.Context(), at, "work"); err != nil {
		t.Error(err)
	}
}

// A store that says done and keeps the item is not believed.
func TestAWSVaultRemovalRefused(t *testing.T) {
	r := request{Op: opRemove, Kind: kindAWSVault, Backend: "file", Name: "work", Key: broker.KeyInfo{AccessKeyID: "AKIAI44QH8DHBEXAMPLE"}, value: []byte(vaultSecret)}
	h := &helper{req: &r}
	_, err := h.do(keeper{}, "file")
	if e := wantCode(t, err, broker.CodeKeychainDenied); !strings.Contains(e.Message, "did not remove") {
		t.Errorf("%v", e)
	}
	r.Op = "rename"
	_, err = h.do(keeper{}, "file")
	wantCode(t, err, broker.CodeInternal)
}

// keeper is a vault that removes nothing.
type keeper struct{ emptyVault }

func (keeper) list() ([]string, error)    { return []string{"work"}, nil }
func (keeper) get(string) ([]byte, error) { return []byte(vaultItem), nil }
func (keeper) remove(string) error        { return nil }

// A helper that answers with another key, or none, is not believed.
func TestAWSVaultHelperLies(t *testing.T) {
	at := vaultFiles(t, "staple", nil)
	for _, fault := range []string{"other key", "no secret", "other backend", "crash", "exit with request"} {
		s := newStore(t, withFault(fault))
		_, err := s.AWSVaultKey(t.Context(), at, "work")
		wantCode(t, err, broker.CodeInternal)
	}
}

func TestVaultItemsAreJSON(t *testing.T) {
	var it keyring.Item
	if err := json.Unmarshal([]byte(keyringItem("work", vaultItem)), &it); err != nil || it.Key != "work" || string(it.Data) != vaultItem {
		t.Errorf("%+v, %v", it, err)
	}
}
