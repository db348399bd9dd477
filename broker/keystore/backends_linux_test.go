package keystore

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/99designs/keyring"
	"github.com/godbus/dbus"
	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// A desktop is a session bus of its own with homes of its own.
type desktop struct {
	t       testing.TB
	dir     string
	address string
	extra   []string // environment of what the bus starts
	bus     *exec.Cmd
}

func newDesktop(t testing.TB, extra ...string) *desktop {
	t.Helper()
	need(t, "dbus-daemon", "gnome-keyring-daemon")
	dir, err := os.MkdirTemp("", "desk") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	d := &desktop{t: t, dir: dir, address: "unix:path=" + dir + "/bus", extra: extra}
	for _, sub := range []string{"run", "home", "data", "config"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		d.stopBus()
		os.RemoveAll(dir)
	})
	d.startBus()
	return d
}

func (d *desktop) env() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + d.dir + "/home", "XDG_DATA_HOME=" + d.dir + "/data", "XDG_CONFIG_HOME=" + d.dir + "/config",
		"XDG_RUNTIME_DIR=" + d.dir + "/run", "DBUS_SESSION_BUS_ADDRESS=" + d.address,
	}
}

// startBus returns once the bus answers.
func (d *desktop) startBus() {
	d.t.Helper()
	d.bus = exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--address="+d.address, "--print-address")
	d.bus.Env = append(d.env(), d.extra...)
	out, err := d.bus.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.bus.Start(); err != nil {
		d.t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 256)); err != nil {
		d.t.Fatalf("dbus-daemon: %v", err)
	}
}

// stopBus ends the bus and the services on it.
func (d *desktop) stopBus() {
	var pids []int
	if conn := d.dial(); conn != nil {
		pids = append(pids, owner(conn, secretsName), owner(conn, kwalletName))
		conn.Close()
	}
	d.bus.Process.Kill()
	d.bus.Wait()
	for _, pid := range pids {
		if pid != 0 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// unlock starts the keyring's daemon as a login does.
func (d *desktop) unlock() {
	d.t.Helper()
	cmd := exec.Command("gnome-keyring-daemon", "--unlock", "--components=secrets")
	cmd.Env = d.env()
	cmd.Stdin = strings.NewReader("login password")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && err != exec.ErrWaitDelay {
		d.t.Fatalf("gnome-keyring-daemon: %v\n%s", err, &out)
	}
	conn := d.dial()
	defer conn.Close()
	for end := time.Now().Add(10 * time.Second); owner(conn, secretsName) == 0; runtime.Gosched() {
		if time.Now().After(end) {
			d.t.Fatalf("gnome-keyring-daemon does not come up\n%s", &out)
		}
	}
}

func (d *desktop) dial() *dbus.Conn {
	conn, err := dbus.Dial(d.address)
	if err == nil {
		if err = conn.Auth(nil); err == nil {
			err = conn.Hello()
		}
	}
	if err != nil {
		d.t.Logf("session bus: %v", err)
		return nil
	}
	return conn
}

func owner(conn *dbus.Conn, name string) (pid int) {
	var n uint32
	if err := conn.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixProcessID", 0, name).Store(&n); err != nil {
		return 0
	}
	return int(n)
}

// lock locks the login collection.
func (d *desktop) lock() {
	d.t.Helper()
	conn := d.dial()
	defer conn.Close()
	err := conn.Object(secretsName, secretsPath).Call(secretsIface+"Service.Lock", 0, []dbus.ObjectPath{secretsCollection + "login"}).Err
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *desktop) store(change func(*Config)) *Store {
	return newStore(d.t, func(cfg *Config) {
		cfg.Backend, cfg.Env = "secret-service", d.env()
		if change != nil {
			change(cfg)
		}
	})
}

func TestSecretService(t *testing.T) {
	d := newDesktop(t)
	d.unlock()
	useStore(t, d.store(nil))

	auto := d.store(func(cfg *Config) { cfg.Backend = "auto" })
	useStore(t, auto)
	if auto.Backend() != "secret-service" {
		t.Errorf("auto is %q", auto.Backend())
	}
}

// Items of other programs in the same collection are none of ours, also where
// they have one of our labels.
func TestSecretServiceShared(t *testing.T) {
	d := newDesktop(t)
	d.unlock()
	need(t, "secret-tool")
	for _, attr := range []string{"profile=ops", "profile=gatepass.secret.x", "other=gatepass.key.ops"} {
		k, v, _ := strings.Cut(attr, "=")
		cmd := exec.Command("secret-tool", "store", "--label=gatepass.key.ops", k, v)
		cmd.Env, cmd.Stdin = d.env(), strings.NewReader("{}")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("secret-tool: %v %s", err, out)
		}
	}
	s := d.store(nil)
	if keys, err := s.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("listed %v, %v", keys, err)
	}
	_, err := s.Key(t.Context(), "ops")
	wantCode(t, err, broker.CodeNotFound)
	// A damaged one of ours is listed and said to be so.
	cmd := exec.Command("secret-tool", "store", "--label=x", "profile", "gatepass.key.bad")
	cmd.Env, cmd.Stdin = d.env(), strings.NewReader("not JSON")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("secret-tool: %v %s", err, out)
	}
	if keys, err := s.Keys(t.Context()); err != nil || len(keys) != 1 || keys[0] != (broker.KeyInfo{Name: "bad"}) {
		t.Errorf("listed %v, %v", keys, err)
	}
	_, err = s.Key(t.Context(), "bad")
	wantCode(t, err, broker.CodeData)
}

func TestSecretServiceLocked(t *testing.T) {
	d := newDesktop(t)
	d.unlock()
	s := d.store(nil)
	if err := s.PutKey(t.Context(), testKey("ops")); err != nil {
		t.Fatal(err)
	}
	d.lock()
	_, err := s.Key(t.Context(), "ops")
	if e := wantCode(t, err, broker.CodeKeychainLocked); e.Hint == "" {
		t.Error("no hint")
	}
	// A key that is not there cannot be known not to be.
	_, err = s.Key(t.Context(), "absent")
	wantCode(t, err, broker.CodeKeychainLocked)
	_, err = s.Keys(t.Context())
	wantCode(t, err, broker.CodeKeychainLocked)
	wantCode(t, s.PutKey(t.Context(), testKey("new")), broker.CodeKeychainLocked)
	wantCode(t, s.RemoveKey(t.Context(), "ops"), broker.CodeKeychainLocked)
	wantCode(t, s.Probe(t.Context()), broker.CodeKeychainLocked)
	// A probe asks nobody, also where there would be somebody.
	s = d.store(func(cfg *Config) { cfg.Env = append(cfg.Env, "DISPLAY=:4711") })
	wantCode(t, s.Probe(t.Context()), broker.CodeKeychainLocked)
}

// Without a bus, with one that nobody is on, and with a service that has no
// keyring loaded, the keychain is missing: no key is said not to be there.
func TestSecretServiceMissing(t *testing.T) {
	d := newDesktop(t)
	s := d.store(nil)
	_, err := s.Key(t.Context(), "ops") // the bus starts the service, which has nothing
	if e := wantCode(t, err, broker.CodeKeychainMissing); !strings.Contains(e.Message, "no keyring loaded") || !strings.Contains(e.Hint, `keychain = "file"`) {
		t.Errorf("%q, hint %q", e.Message, e.Hint)
	}
	_, err = s.Keys(t.Context())
	wantCode(t, err, broker.CodeKeychainMissing)
	wantCode(t, s.PutKey(t.Context(), testKey("ops")), broker.CodeKeychainMissing)
	d.stopBus()
	for _, backend := range []string{"secret-service", "kwallet", "auto"} {
		s := d.store(func(cfg *Config) { cfg.Backend = backend })
		wantCode(t, s.Probe(t.Context()), broker.CodeKeychainMissing)
		_, err := s.Key(t.Context(), "ops")
		wantCode(t, err, broker.CodeKeychainMissing)
	}
}

func TestSecretServiceStopped(t *testing.T) {
	d := newDesktop(t)
	d.unlock()
	s := d.store(func(cfg *Config) { cfg.Deadline = 500 * time.Millisecond })
	if err := d.store(nil).PutKey(t.Context(), testKey("ops")); err != nil {
		t.Fatal(err)
	}
	conn := d.dial()
	pid := owner(conn, secretsName)
	conn.Close()
	for _, stopped := range []int{pid, d.bus.Process.Pid} {
		syscall.Kill(stopped, syscall.SIGSTOP)
		_, err := s.Key(t.Context(), "ops")
		syscall.Kill(stopped, syscall.SIGCONT)
		if e := wantCode(t, err, broker.CodeKeychainTimeout); e.Hint == "" {
			t.Error("no hint")
		}
		if _, err := d.store(nil).Key(t.Context(), "ops"); err != nil {
			t.Errorf("once it goes on: %v", err)
		}
	}
}

// One store outlives the bus and the service.
func TestSecretServiceRestart(t *testing.T) {
	d := newDesktop(t)
	d.unlock()
	s := d.store(nil)
	if err := s.PutKey(t.Context(), testKey("ops")); err != nil {
		t.Fatal(err)
	}
	d.stopBus()
	_, err := s.Key(t.Context(), "ops")
	wantCode(t, err, broker.CodeKeychainMissing)
	d.startBus()
	d.unlock()
	if got, err := s.Key(t.Context(), "ops"); err != nil || got.KeyInfo != testKey("ops").KeyInfo {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
}

// With a desktop, a locked keyring asks. Nobody answers here.
func TestSecretServiceDialog(t *testing.T) {
	need(t, "Xvfb")
	if _, err := os.Stat("/usr/libexec/gcr-prompter"); err != nil {
		lacking(t, "gcr's prompter is not installed")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	x := exec.Command("Xvfb", "-displayfd", "3", "-nolisten", "tcp")
	x.ExtraFiles = []*os.File{w}
	if err := x.Start(); err != nil {
		t.Fatal(err)
	}
	defer x.Wait()
	defer x.Process.Kill()
	w.Close()
	b := make([]byte, 16)
	n, err := r.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	display := "DISPLAY=:" + strings.TrimSpace(string(b[:n]))
	d := newDesktop(t, display)
	d.unlock()
	if err := d.store(nil).PutKey(t.Context(), testKey("ops")); err != nil {
		t.Fatal(err)
	}
	d.lock()
	s := d.store(func(cfg *Config) {
		cfg.Env = append(cfg.Env, display)
		cfg.Deadline, cfg.PromptDeadline = 5*time.Second, 5*time.Second
	})
	_, err = s.Key(t.Context(), "ops")
	if e := wantCode(t, err, broker.CodeKeychainLocked); !strings.Contains(e.Message, "dialog was not answered") {
		t.Errorf("error says %q", e.Message)
	}
}

func TestKWallet(t *testing.T) {
	need(t, "kwalletd5")
	d := newDesktop(t, "QT_QPA_PLATFORM=offscreen")
	rc := "[Wallet]\nEnabled=true\nFirst Use=false\nPrompt on Open=false\n[Auto Allow]\nkdewallet=gatepass\n"
	if err := os.WriteFile(d.dir+"/config/kwalletrc", []byte(rc), 0o600); err != nil {
		t.Fatal(err)
	}
	s := d.store(func(cfg *Config) { cfg.Backend = "kwallet" })
	closed := func() {
		t.Helper()
		_, err := s.Key(t.Context(), "ops")
		wantCode(t, err, broker.CodeKeychainLocked)
		_, err = s.Keys(t.Context())
		wantCode(t, err, broker.CodeKeychainLocked)
		wantCode(t, s.Probe(t.Context()), broker.CodeKeychainLocked)
	}
	closed()

	// As pam_kwallet opens it at login: with a hash of 56 bytes.
	conn := d.dial()
	defer conn.Close()
	wallet := conn.Object(kwalletName, kwalletPath)
	if err := wallet.Call(kwalletIface+"pamOpen", 0, "kdewallet", make([]byte, 56), int32(0)).Err; err != nil {
		t.Fatal(err)
	}
	useStore(t, s)
	if err := s.PutKey(t.Context(), testKey("ops")); err != nil {
		t.Fatal(err)
	}
	if err := wallet.Call(kwalletIface+"close", 0, "kdewallet", true).Err; err != nil {
		t.Fatal(err)
	}
	closed()
}

func TestKeyctl(t *testing.T) {
	if _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true); err != nil {
		lacking(t, "the kernel keeps no keys here: %v", err)
	}
	s := newStore(t, func(cfg *Config) { cfg.Backend = "keyctl" })
	if keys, err := s.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Skipf("this user's kernel keyring is in use (%v, %v)", keys, err)
	}
	useStore(t, s)
}

// newPass makes a password store of its own.
func newPass(t *testing.T, passphrase string) (env []string, dir string) {
	t.Helper()
	need(t, "pass", "gpg", "gpgconf")
	home, err := os.MkdirTemp("", "gpg") // short: gpg-agent listens there
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(home, "store")
	env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GNUPGHOME=" + home, "PASSWORD_STORE_DIR=" + dir}
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	t.Cleanup(func() {
		run("gpgconf", "--kill", "all")
		os.RemoveAll(home)
	})
	run("gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", passphrase, "--quick-generate-key", "gatepass@example.com", "default", "default")
	run("pass", "init", "gatepass@example.com")
	if passphrase != "" {
		run("gpgconf", "--kill", "gpg-agent") // which knows it
	}
	return env, dir
}

func TestPass(t *testing.T) {
	env, dir := newPass(t, "")
	s := newStore(t, func(cfg *Config) { cfg.Backend, cfg.Env = "pass", env })
	useStore(t, s)
	if err := s.PutKey(t.Context(), testKey("ops")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "gatepass"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "gatepass.key.ops.gpg" {
		t.Errorf("the store holds %v, %v", entries, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "gatepass", "gatepass.key.ops.gpg"), []byte("noise"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = s.Key(t.Context(), "ops")
	wantCode(t, err, broker.CodeData)
	if err := s.RemoveKey(t.Context(), "ops"); err != nil {
		t.Errorf("a damaged item cannot be removed: %v", err)
	}
}

func TestPassLocked(t *testing.T) {
	env, dir := newPass(t, "passphrase")
	s := newStore(t, func(cfg *Config) { cfg.Backend, cfg.Env = "pass", env })
	// To encrypt needs no secret key, to read back does: nothing is stored.
	wantCode(t, s.PutKey(t.Context(), testKey("ops")), broker.CodeKeychainLocked)
	_, err := s.Key(t.Context(), "ops")
	wantCode(t, err, broker.CodeNotFound)
	if left, _ := filepath.Glob(filepath.Join(dir, "gatepass", "*")); len(left) != 0 {
		t.Errorf("a failed write left %q", left)
	}
	cmd := exec.Command("pass", "insert", "-m", "-f", "gatepass/gatepass.key.ops")
	cmd.Env, cmd.Stdin = env, strings.NewReader("{}")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pass: %v\n%s", err, out)
	}
	_, err = s.Key(t.Context(), "ops")
	if e := wantCode(t, err, broker.CodeKeychainLocked); e.Hint == "" {
		t.Error("no hint")
	}
	// With the key gone altogether there is nothing to unlock.
	other, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(other)
	s = newStore(t, func(cfg *Config) { cfg.Backend, cfg.Env = "pass", append(env, "GNUPGHOME="+other) })
	_, err = s.Key(t.Context(), "ops")
	wantCode(t, err, broker.CodeKeychainDenied)
}

func TestPassMissing(t *testing.T) {
	s := newStore(t, func(cfg *Config) { cfg.Backend, cfg.Env = "pass", []string{"HOME=" + t.TempDir(), "PATH=/nowhere"} })
	wantCode(t, s.Probe(t.Context()), broker.CodeKeychainMissing)
	need(t, "pass", "gpg")
	s = newStore(t, func(cfg *Config) {
		cfg.Backend, cfg.Env = "pass", []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	})
	_, err := s.Key(t.Context(), "ops")
	if e := wantCode(t, err, broker.CodeKeychainMissing); !strings.Contains(e.Hint, "pass init") {
		t.Errorf("hint is %q", e.Hint)
	}
}

// Texts of libraries and services that are not at hand, or not typed.
func TestMapError(t *testing.T) {
	for text, code := range map[string]broker.Code{
		"Cannot get secret of a locked object":                                      broker.CodeKeychainLocked,
		"Cannot create an item in a locked collection":                              broker.CodeKeychainLocked,
		"User interaction is not allowed. (-25308)":                                 broker.CodeKeychainLocked,
		"Keychain Error. (-128)":                                                    broker.CodeKeychainDenied,
		"The user name or passphrase you entered is not correct. (-25293)":          broker.CodeKeychainDenied,
		"No keychain is available. You may need to restart your computer. (-25291)": broker.CodeKeychainMissing,
		"dbus: connection closed by user":                                           broker.CodeKeychainMissing,
		"org.freedesktop.DBus.Error.NoReply":                                        broker.CodeKeychainTimeout,
		"unexpected end of JSON input":                                              broker.CodeData,
		"something new":                                                             broker.CodeKeychainDenied,
	} {
		err := mapError("keychain", dbus.Error{Name: text, Body: []any{text}})
		wantCode(t, err, code)
	}
	if mapError("file", nil) != nil {
		t.Error("no error becomes one")
	}
	long := mapError("file", dbus.Error{Body: []any{strings.Repeat("x\x1b[31m\n", 100)}}).Error()
	if len(long) > 300 || strings.ContainsAny(long, "\x1b\n") {
		t.Errorf("a text is passed on as it is: %q", long)
	}
}

// A fakeRing is macOS's keychain as keyring shows it: what may not be read is
// said not to be there.
type fakeRing struct {
	keyring.Keyring
	names []string
	err   error
}

func (r fakeRing) Get(string) (keyring.Item, error) { return keyring.Item{}, keyring.ErrKeyNotFound }
func (r fakeRing) Keys() ([]string, error)          { return r.names, r.err }

func TestKeychainLies(t *testing.T) {
	get := func(r fakeRing) error {
		_, err := keychainVault{ringVault{"keychain", r}}.get("gatepass.key.ops")
		return err
	}
	if err := get(fakeRing{}); err != errAbsent {
		t.Errorf("an absent item gives %v", err)
	}
	wantCode(t, get(fakeRing{names: []string{"gatepass.key.ops"}}), broker.CodeKeychainDenied)
	wantCode(t, get(fakeRing{err: dbus.Error{Body: []any{"User interaction is not allowed. (-25308)"}}}), broker.CodeKeychainLocked)
}

func BenchmarkKeySecretService(b *testing.B) {
	d := newDesktop(b)
	d.unlock()
	benchmarkKey(b, d.store(nil))
}
