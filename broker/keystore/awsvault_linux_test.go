package keystore

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus"

	"gatepass/broker"
)

var vaultCollection = broker.AWSVault{Backend: "secret-service", Collection: "awsvault"}

// vaultItems are what useAWSVault wants to find.
func vaultItems() map[string]string {
	return withNotKeys(map[string]string{"work": vaultItem, "old": oldVaultItem})
}

// collection makes a keyring as aws-vault does, but that it asks nobody for the
// password, and puts items into it.
func (d *desktop) collection(label string, items map[string]string) dbus.ObjectPath {
	d.t.Helper()
	conn := d.dial()
	defer conn.Close()
	service := conn.Object(secretsName, secretsPath)
	type secret struct {
		Session           dbus.ObjectPath
		Parameters, Value []byte
		ContentType       string
	}
	var none dbus.Variant
	var session, path, prompt dbus.ObjectPath
	if err := service.Call(secretsIface+"Service.OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&none, &session); err != nil {
		d.t.Fatal(err)
	}
	props := map[string]dbus.Variant{secretsIface + "Collection.Label": dbus.MakeVariant(label)}
	err := service.Call("org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface.CreateWithMasterPassword", 0,
		props, secret{session, []byte{}, []byte("keyring password"), "text/plain"}).Store(&path)
	if err != nil {
		d.t.Fatal(err)
	}
	for name, data := range items {
		props := map[string]dbus.Variant{
			secretsIface + "Item.Label":      dbus.MakeVariant(name),
			secretsIface + "Item.Attributes": dbus.MakeVariant(map[string]string{"profile": name}),
		}
		var item dbus.ObjectPath
		err := conn.Object(secretsName, path).Call(secretsIface+"Collection.CreateItem", 0, props,
			secret{session, []byte{}, []byte(keyringItem(name, data)), "application/json"}, true).Store(&item, &prompt)
		if err != nil {
			d.t.Fatal(err)
		}
	}
	return path
}

func (d *desktop) lockCollection(path dbus.ObjectPath) {
	d.t.Helper()
	conn := d.dial()
	defer conn.Close()
	if err := conn.Object(secretsName, secretsPath).Call(secretsIface+"Service.Lock", 0, []dbus.ObjectPath{path}).Err; err != nil {
		d.t.Fatal(err)
	}
}

func TestAWSVaultSecretService(t *testing.T) {
	d := newDesktop(t)
	d.unlock()
	path := d.collection("awsvault", vaultItems())
	s := d.store(nil)
	// Our own items, and those of the same name in other collections, stay.
	if err := s.PutKey(t.Context(), testKey("work")); err != nil {
		t.Fatal(err)
	}
	useAWSVault(t, s, vaultCollection)
	if keys, err := s.Keys(t.Context()); err != nil || len(keys) != 1 {
		t.Errorf("the keychain has %v, %v", keys, err)
	}

	// A damaged item is that one's failure.
	odd := d.collection("odd-name", map[string]string{"bad": "hunter2", "good": vaultItem})
	at := broker.AWSVault{Backend: "secret-service", Collection: "odd-name"}
	if odd == path {
		t.Fatal("one collection for two names")
	}
	if names, err := s.AWSVaultKeys(t.Context(), at); err != nil || !slices.Equal(names, []string{"bad", "good"}) {
		t.Errorf("listed %q, %v", names, err)
	}
	_, err := s.AWSVaultKey(t.Context(), at, "bad")
	wantCode(t, err, broker.CodeData)
	if _, err := s.AWSVaultKey(t.Context(), at, "good"); err != nil {
		t.Error(err)
	}
}

// A collection of aws-vault's that is locked is not one without keys, and one
// that is not there is not one that cannot be read. Neither is made, and
// nobody is asked who has none.
func TestAWSVaultSecretServiceLocked(t *testing.T) {
	d := newDesktop(t)
	d.unlock()
	s := d.store(func(cfg *Config) { cfg.Env = append(cfg.Env, "DISPLAY=:4711") }) // a dialog would be an error
	_, err := s.AWSVaultKeys(t.Context(), vaultCollection)
	wantCode(t, err, broker.CodeNotFound)
	_, err = s.AWSVaultKey(t.Context(), vaultCollection, "work")
	wantCode(t, err, broker.CodeNotFound)
	wantCode(t, s.RemoveAWSVaultKey(t.Context(), vaultCollection, testKey("work")), broker.CodeNotFound)
	conn := d.dial()
	defer conn.Close()
	var all []dbus.ObjectPath
	if err := property(conn.Object(secretsName, secretsPath), secretsIface+"Service.Collections", &all); err != nil ||
		slices.ContainsFunc(all, func(p dbus.ObjectPath) bool { return strings.Contains(string(p), "awsvault") }) {
		t.Errorf("there is %v, %v", all, err)
	}

	path := d.collection("awsvault", vaultItems())
	s = d.store(nil)
	key, err := s.AWSVaultKey(t.Context(), vaultCollection, "work")
	if err != nil {
		t.Fatal(err)
	}
	d.lockCollection(path)
	_, err = s.AWSVaultKeys(t.Context(), vaultCollection)
	if e := wantCode(t, err, broker.CodeKeychainLocked); e.Hint == "" {
		t.Error("no hint")
	}
	_, err = s.AWSVaultKey(t.Context(), vaultCollection, "work")
	wantCode(t, err, broker.CodeKeychainLocked)
	wantCode(t, s.RemoveAWSVaultKey(t.Context(), vaultCollection, key), broker.CodeKeychainLocked)
	// Ours is open all the while.
	if err := s.Probe(t.Context()); err != nil {
		t.Error(err)
	}

	hung := d.store(func(cfg *Config) { cfg.Deadline = 500 * time.Millisecond })
	pid := owner(conn, secretsName)
	syscall.Kill(pid, syscall.SIGSTOP)
	_, err = hung.AWSVaultKeys(t.Context(), vaultCollection)
	syscall.Kill(pid, syscall.SIGCONT)
	wantCode(t, err, broker.CodeKeychainTimeout)

	d.stopBus()
	for _, backend := range []string{"secret-service", "kwallet"} {
		_, err := s.AWSVaultKeys(t.Context(), broker.AWSVault{Backend: backend, Collection: "awsvault"})
		if e := wantCode(t, err, broker.CodeKeychainMissing); !strings.Contains(e.Hint, "AWS_VAULT_BACKEND") || strings.Contains(e.Hint, "keychain =") {
			t.Errorf("hint %q", e.Hint)
		}
	}
}

// A keyring without a password is locked until somebody asks, and asks nobody.
func TestAWSVaultSecretServiceWithoutPassword(t *testing.T) {
	d := newDesktop(t)
	if err := os.Mkdir(d.dir+"/data/keyrings", 0o700); err != nil {
		t.Fatal(err)
	}
	text := "[keyring]\ndisplay-name=awsvault\nctime=0\nmtime=0\nlock-on-idle=false\nlock-after=false\n\n" +
		"[1]\nitem-type=0\ndisplay-name=work\nsecret=" + keyringItem("work", vaultItem) + "\nmtime=0\nctime=0\n\n[1:attribute0]\nname=profile\ntype=string\nvalue=work\n"
	if err := os.WriteFile(d.dir+"/data/keyrings/awsvault.keyring", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d.unlock()
	key, err := d.store(nil).AWSVaultKey(t.Context(), vaultCollection, "work")
	if err != nil || key.SecretAccessKey.Reveal() != vaultSecret {
		t.Errorf("%v", err)
	}
}

func TestAWSVaultKWallet(t *testing.T) {
	need(t, "kwalletd5")
	d := newDesktop(t, "QT_QPA_PLATFORM=offscreen")
	rc := "[Wallet]\nEnabled=true\nFirst Use=false\nPrompt on Open=false\n[Auto Allow]\nkdewallet=gatepass\naws-vault=gatepass,aws-vault\n"
	if err := os.WriteFile(d.dir+"/config/kwalletrc", []byte(rc), 0o600); err != nil {
		t.Fatal(err)
	}
	s := d.store(nil)
	at := broker.AWSVault{Backend: "kwallet"}
	// To open a wallet that is not there would ask whether to make it.
	_, err := s.AWSVaultKeys(t.Context(), at)
	wantCode(t, err, broker.CodeNotFound)

	conn := d.dial()
	defer conn.Close()
	wallet := conn.Object(kwalletName, kwalletPath)
	if err := wallet.Call(kwalletIface+"pamOpen", 0, "aws-vault", make([]byte, 56), int32(0)).Err; err != nil {
		t.Fatal(err)
	}
	var handle int32
	if err := wallet.Call(kwalletIface+"open", 0, "aws-vault", int64(0), "aws-vault").Store(&handle); err != nil || handle < 0 {
		t.Fatal(handle, err)
	}
	for name, data := range vaultItems() {
		var status int32
		if err := wallet.Call(kwalletIface+"writeEntry", 0, handle, "aws-vault", name, []byte(keyringItem(name, data)), "aws-vault").Store(&status); err != nil || status != 0 {
			t.Fatal(status, err)
		}
	}
	useAWSVault(t, s, at)

	if err := wallet.Call(kwalletIface+"close", 0, "aws-vault", true).Err; err != nil {
		t.Fatal(err)
	}
	_, err = s.AWSVaultKeys(t.Context(), at)
	wantCode(t, err, broker.CodeKeychainLocked)
	_, err = s.AWSVaultKey(t.Context(), at, "old")
	wantCode(t, err, broker.CodeKeychainLocked)
}

func passInsert(t *testing.T, env []string, name, text string) {
	t.Helper()
	cmd := exec.Command("pass", "insert", "-m", "-f", name)
	cmd.Env, cmd.Stdin = env, strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pass: %v\n%s", err, out)
	}
}

func TestAWSVaultPass(t *testing.T) {
	env, dir := newPass(t, "")
	s := newStore(t, func(cfg *Config) { cfg.Env = env })
	for _, prefix := range []string{"aws/vault", ""} {
		at := broker.AWSVault{Backend: "pass", Dir: dir, Prefix: prefix}
		for name, data := range map[string]string{"work": vaultItem, "old": oldVaultItem, notKeys[0]: vaultItem} {
			passInsert(t, env, filepath.Join(prefix, name), keyringItem(name, data))
		}
		useAWSVault(t, s, at)
		if prefix != "" {
			passInsert(t, env, prefix+"/team/ops", keyringItem("team/ops", vaultItem))
			passInsert(t, env, prefix+"/mail", "hunter2")
			if names, err := s.AWSVaultKeys(t.Context(), at); err != nil || !slices.Equal(names, []string{"mail", "old", "team/ops"}) {
				t.Errorf("listed %q, %v", names, err)
			}
			if key, err := s.AWSVaultKey(t.Context(), at, "team/ops"); err != nil || key.SecretAccessKey.Reveal() != vaultSecret {
				t.Errorf("in a folder: %v", err)
			}
			_, err := s.AWSVaultKey(t.Context(), at, "mail")
			if e := wantCode(t, err, broker.CodeData); strings.Contains(e.Message, "hunter2") {
				t.Errorf("a password is in %v", e)
			}
			if err := os.RemoveAll(filepath.Join(dir, "aws")); err != nil {
				t.Fatal(err)
			}
			_, err = s.AWSVaultKeys(t.Context(), at)
			wantCode(t, err, broker.CodeNotFound)
		}
	}
}

func TestAWSVaultPassLocked(t *testing.T) {
	env, dir := newPass(t, "passphrase")
	s := newStore(t, func(cfg *Config) { cfg.Env = env })
	passInsert(t, env, "aws/work", keyringItem("work", vaultItem))
	at := broker.AWSVault{Backend: "pass", Dir: dir, Prefix: "aws"}
	if names, err := s.AWSVaultKeys(t.Context(), at); err != nil || len(names) != 1 {
		t.Errorf("names need no key: %q, %v", names, err)
	}
	_, err := s.AWSVaultKey(t.Context(), at, "work")
	if e := wantCode(t, err, broker.CodeKeychainLocked); e.Hint == "" {
		t.Error("no hint")
	}
	key := testKey("work")
	wantCode(t, s.RemoveAWSVaultKey(t.Context(), at, key), broker.CodeKeychainLocked)
	if _, err := os.Stat(filepath.Join(dir, "aws", "work.gpg")); err != nil {
		t.Error(err)
	}
	at.Dir = filepath.Join(dir, "none")
	_, err = s.AWSVaultKeys(t.Context(), at)
	wantCode(t, err, broker.CodeNotFound)
	none := newStore(t, func(cfg *Config) { cfg.Env = []string{"HOME=" + t.TempDir(), "PATH=/nowhere"} })
	_, err = none.AWSVaultKeys(t.Context(), broker.AWSVault{Backend: "pass", Dir: dir})
	if e := wantCode(t, err, broker.CodeKeychainMissing); strings.Contains(e.Hint, "keychain =") {
		t.Errorf("hint %q", e.Hint)
	}
}

// The real aws-vault writes what is read here, and no longer finds what was
// removed.
func TestAWSVaultItself(t *testing.T) {
	program := os.Getenv("GATEPASS_AWS_VAULT")
	if program == "" {
		lacking(t, "GATEPASS_AWS_VAULT names no aws-vault")
	}
	need(t, "kwalletd5")
	d := newDesktop(t, "QT_QPA_PLATFORM=offscreen")
	rc := "[Wallet]\nEnabled=true\nFirst Use=false\nPrompt on Open=false\n[Auto Allow]\naws-vault=gatepass,aws-vault\n"
	if err := os.WriteFile(d.dir+"/config/kwalletrc", []byte(rc), 0o600); err != nil {
		t.Fatal(err)
	}
	d.unlock()
	d.collection("awsvault", nil)
	conn := d.dial()
	defer conn.Close()
	if err := conn.Object(kwalletName, kwalletPath).Call(kwalletIface+"pamOpen", 0, "aws-vault", make([]byte, 56), int32(0)).Err; err != nil {
		t.Fatal(err)
	}
	passEnv, passDir := newPass(t, "")
	home := d.dir + "/home"
	for backend, c := range map[string]struct {
		env []string
		at  broker.AWSVault
	}{
		"secret-service": {d.env(), vaultCollection},
		"kwallet":        {d.env(), broker.AWSVault{}},
		"file":           {append(d.env(), "AWS_VAULT_FILE_PASSPHRASE=staple"), broker.AWSVault{Dir: home + "/.awsvault/keys", Passphrase: broker.NewSecret("staple")}},
		"pass":           {append(passEnv, "AWS_VAULT_PASS_PREFIX=aws", "DBUS_SESSION_BUS_ADDRESS=disabled:"), broker.AWSVault{Dir: passDir, Prefix: "aws"}},
	} {
		t.Run(backend, func(t *testing.T) {
			vault := func(args ...string) string {
				t.Helper()
				cmd := exec.Command(program, args...)
				cmd.Env = append(slices.Clone(c.env), "AWS_CONFIG_FILE="+t.TempDir()+"/config", "AWS_VAULT_BACKEND="+backend,
					"AWS_ACCESS_KEY_ID=AKIAI44QH8DHBEXAMPLE", "AWS_SECRET_ACCESS_KEY="+vaultSecret)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("aws-vault %q: %v\n%s", args, err, out)
				}
				return string(out)
			}
			for _, name := range []string{"work", "team/ops", "a b"} {
				vault("add", "--env", "--no-add-config", name)
			}
			c.at.Backend = backend
			s := newStore(t, func(cfg *Config) { cfg.Env = c.env })
			names, err := s.AWSVaultKeys(t.Context(), c.at)
			if err != nil || !slices.Equal(names, []string{"a b", "team/ops", "work"}) {
				t.Fatalf("listed %q, %v", names, err)
			}
			for _, name := range names {
				key, err := s.AWSVaultKey(t.Context(), c.at, name)
				if err != nil || key.AccessKeyID != "AKIAI44QH8DHBEXAMPLE" || key.SecretAccessKey.Reveal() != vaultSecret {
					t.Fatalf("%s: %+v, %v", name, key.KeyInfo, err)
				}
				if name == "work" {
					err = s.RemoveAWSVaultKey(t.Context(), c.at, key)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if got := strings.Fields(vault("list", "--credentials")); slices.Contains(got, "work") || !slices.Contains(got, "team/ops") {
				t.Errorf("aws-vault has %q", got)
			}
		})
	}
	// It can be told to use the kernel's keyring, and keeps nothing there.
	cmd := exec.Command(program, "--backend=keyctl", "add", "--env", "--no-add-config", "work")
	cmd.Env = append(d.env(), "AWS_ACCESS_KEY_ID=AKIAI44QH8DHBEXAMPLE", "AWS_SECRET_ACCESS_KEY="+vaultSecret)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "not available") {
		t.Errorf("aws-vault keeps keys in the kernel's keyring now: %v\n%s", err, out)
	}
}
