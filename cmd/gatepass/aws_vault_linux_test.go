package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus"

	"gatepass/broker/sts/ststest"
)

const vaultConfig = "[profile work]\ncredential_process = aws-vault exec --json work\n\n" +
	"[profile ops]\nrole_arn = " + ststest.DeployARN + "\nsource_profile = work\ncredential_process = aws-vault exec --json ops\n"

// newVaultRealm is a realm in which aws-vault keeps alice's key as work, in
// files that "staple" opens.
func newVaultRealm(t *testing.T, config ststest.Config) *realm {
	r := newRealmOf(t, config)
	r.write(t, ".aws/config", vaultConfig)
	(&home{t: t, env: map[string]string{"HOME": r.home}}).vaultFile("work")
	return r
}

func (r *realm) importOnTerminal(t *testing.T, env ...string) *pty {
	t.Helper()
	cmd := r.command("gatepass", "keys", "import")
	cmd.Args = append([]string{"sh", "-c", `exec "$0" "$@" 2>/dev/tty`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	return startOnTerminal(t, cmd, env...)
}

func (r *realm) vaultHas(name string) bool {
	_, err := os.Stat(filepath.Join(r.home, ".awsvault", "keys", name))
	return err == nil
}

// The passphrase is typed unseen, and the key goes when the user says so.
func TestImportFromAWSVaultOnATerminal(t *testing.T) {
	r := newVaultRealm(t, ststest.Example())
	p := r.importOnTerminal(t)
	p.expect("passphrase of aws-vault's store " + r.home + "/.awsvault/keys (not shown): ")
	if p.echoes() {
		t.Error("the terminal shows the passphrase")
	}
	p.enter("staple\n")
	p.expect("remove the keys of work from aws-vault's store? [y/N] ")
	p.enter("n\n")
	p.expect("the keys stay in aws-vault's store")
	p.exits(0)
	if !r.vaultHas("work") {
		t.Error("the key is gone")
	}
	p = r.importOnTerminal(t)
	p.expect("(not shown): ")
	p.enter("staple\n")
	p.expect("[y/N] ")
	p.enter("y\n")
	p.expect("work: removed the key from aws-vault's store (file)")
	p.exits(0)
	if r.vaultHas("work") || strings.Contains(p.seen.String(), "staple") {
		t.Errorf("seen %q", p.seen.String())
	}
}

// What lies there when it comes to removing is not what was imported: it
// stays.
func TestImportedKeyChangesMeanwhile(t *testing.T) {
	r := newVaultRealm(t, ststest.Example())
	p := r.importOnTerminal(t, "AWS_VAULT_FILE_PASSPHRASE=staple")
	p.expect("[y/N] ")
	other, err := os.ReadFile(filepath.Join("testdata", "aws-vault", "mallory"))
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, ".awsvault/keys/work", string(other))
	p.enter("y\n")
	p.expect(`work: stays in aws-vault's store (file): aws-vault's store (file) has another key "work" than the one that is stored here`)
	p.exits(77)
	if !r.vaultHas("work") {
		t.Error("the other key is gone")
	}
	out, err := r.command("gatepass", "audit", "list", "--json", "--event", "request.denied").Output()
	if err != nil || !strings.Contains(string(out), `"name":"work"`) {
		t.Errorf("the refusal is not in the book: %v\n%s", err, out)
	}
}

// Whenever the daemon is killed, the key is where it was or is stored, and the
// next run ends what this one began.
func TestKilledImportFromAWSVaultGoesOn(t *testing.T) {
	var all sync.WaitGroup
	defer all.Wait()
	for name, s := range map[string]*strike{
		"proving the key":       {action: "GetCallerIdentity", lost: true},
		"the key is proved":     {action: "GetCallerIdentity"},
		"proving its profile":   {action: "GetSessionToken", lost: true},
		"its profile is proved": {action: "GetSessionToken"},
		"proving another":       {action: "AssumeRole", lost: true},
		"another one is proved": {action: "AssumeRole"},
	} {
		all.Go(func() { t.Run(name, s.strikeImport) })
	}
}

func (s *strike) strikeImport(t *testing.T) {
	config := ststest.Example()
	config.Log = s.see
	r := newVaultRealm(t, config)
	r.env = append(r.env, "AWS_VAULT_FILE_PASSPHRASE=staple")
	if s.lost {
		r.aws.Faults().Add(ststest.Fault{Action: s.action, Kind: ststest.Drop, Count: 1})
	}
	s.mu.Lock()
	s.pid = r.daemonPID()
	s.mu.Unlock()
	out, err := r.command("gatepass", "keys", "import", "--yes").CombinedOutput()
	s.mu.Lock()
	killed := s.pid == 0
	s.mu.Unlock()
	if !killed {
		t.Fatalf("the daemon was not killed: %v: %s", err, out)
	}
	r.endsImport(t, out)
}

// endsImport runs an import again that ended early, and looks at what is left.
func (r *realm) endsImport(t *testing.T, before []byte) {
	t.Helper()
	stored, err := r.command("gatepass", "keys", "list").Output()
	for end := time.Now().Add(20 * time.Second); exitStatus(err) == 69 && time.Now().Before(end); { // the killed daemon is not quite gone
		stored, err = r.command("gatepass", "keys", "list").Output()
	}
	if err != nil || !r.vaultHas("work") && !bytes.Contains(stored, []byte("\nwork ")) {
		t.Fatalf("the key is nowhere: %v\n%s\n%s", err, before, stored)
	}
	if out, err := r.command("gatepass", "keys", "import", "--yes").CombinedOutput(); err != nil {
		t.Fatalf("it does not go on: %v\n%s\nafter\n%s", err, out, before)
	}
	if r.vaultHas("work") {
		t.Errorf("the key stayed: %s", before)
	}
	for _, profile := range []string{"work", "ops"} {
		if out, err := r.command("gatepass", "credential-process", profile).CombinedOutput(); err != nil {
			t.Errorf("%s does not work: %v: %s", profile, err, out)
		}
	}
	config, err := os.ReadFile(filepath.Join(r.home, ".aws", "config"))
	if err != nil || strings.Count(string(config), "\ncredential_process = "+r.bin+"/gatepass credential-process ") != 2 {
		t.Errorf("the config is\n%s%v", config, err)
	}
	if out, err := r.command("gatepass", "keys", "import").CombinedOutput(); err != nil || strings.Count(string(out), "\n") != 1 {
		t.Errorf("and once more: %v: %s", err, out)
	}
	if out, err := r.command("gatepass", "audit", "verify").CombinedOutput(); err != nil {
		t.Errorf("audit verify: %v\n%s", err, out)
	}
}

// So it is with a client that is killed, at each of its calls of AWS and while
// it asks.
func TestKilledImportingClient(t *testing.T) {
	for _, action := range []string{"GetCallerIdentity", "GetSessionToken", "AssumeRole"} {
		t.Run(action, func(t *testing.T) {
			config := ststest.Example()
			var mu sync.Mutex
			var victim *os.Process
			config.Log = func(c ststest.Call) {
				mu.Lock()
				defer mu.Unlock()
				if victim != nil && c.Action == action {
					victim.Kill()
					victim = nil
				}
			}
			r := newVaultRealm(t, config)
			r.env = append(r.env, "AWS_VAULT_FILE_PASSPHRASE=staple")
			cmd := r.command("gatepass", "keys", "import", "--yes")
			var out bytes.Buffer
			cmd.Stderr = &out
			mu.Lock()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			victim = cmd.Process
			mu.Unlock()
			cmd.Wait()
			if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() {
				t.Fatalf("the client was not killed: %s", &out)
			}
			r.endsImport(t, out.Bytes())
		})
	}
	t.Run("asking", func(t *testing.T) {
		r := newVaultRealm(t, ststest.Example())
		r.env = append(r.env, "AWS_VAULT_FILE_PASSPHRASE=staple")
		p := r.importOnTerminal(t)
		p.expect("[y/N] ")
		p.cmd.Process.Kill()
		p.waitFor(0)
		r.endsImport(t, p.seen.Bytes())
	})
}

// A sessionBus is a session bus with GNOME Keyring on it, in which aws-vault's
// collection is.
type sessionBus struct {
	t       *testing.T
	conn    *dbus.Conn
	session dbus.ObjectPath
}

const vaultCollection = "/org/freedesktop/secrets/collection/awsvault"

type busSecret struct {
	Session           dbus.ObjectPath
	Parameters, Value []byte
	ContentType       string
}

// startBus makes the realm's daemons start with a session bus.
func (r *realm) startBus(t *testing.T) *sessionBus {
	t.Helper()
	for _, program := range []string{"dbus-daemon", "gnome-keyring-daemon"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("GATEPASS_REAL") == "1" {
				t.Fatalf("GATEPASS_REAL=1 and %s is not installed", program)
			}
			t.Skipf("%s is not installed", program)
		}
	}
	if out, err := r.command("gatepass", "daemon", "stop").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	address := "unix:path=" + filepath.Join(r.home, "run", "bus")
	r.env = append(r.env, "DBUS_SESSION_BUS_ADDRESS="+address, "XDG_DATA_HOME="+filepath.Join(r.home, "data"))
	bus := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--address="+address, "--print-address")
	bus.Env = r.env
	up, err := bus.StdoutPipe()
	if err == nil {
		err = bus.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bus.Process.Kill(); bus.Wait() })
	if _, err := up.Read(make([]byte, 256)); err != nil {
		t.Fatalf("dbus-daemon: %v", err)
	}
	keyring := exec.Command("gnome-keyring-daemon", "--unlock", "--components=secrets", "--foreground")
	keyring.Env, keyring.Stdin = r.env, strings.NewReader("login password")
	if err := keyring.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyring.Process.Kill(); keyring.Wait() })
	b := &sessionBus{t: t}
	if b.conn, err = dbus.Dial(address); err == nil {
		if err = b.conn.Auth(nil); err == nil {
			err = b.conn.Hello()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.conn.Close() })
	for end, owned := time.Now().Add(20*time.Second), false; !owned; runtime.Gosched() {
		if err := b.conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, "org.freedesktop.secrets").Store(&owned); err != nil || time.Now().After(end) {
			t.Fatalf("gnome-keyring-daemon does not come up: %v", err)
		}
	}
	var none dbus.Variant
	if err := b.service("org.freedesktop.Secret.Service.OpenSession", "plain", dbus.MakeVariant("")).Store(&none, &b.session); err != nil {
		t.Fatal(err)
	}
	var path dbus.ObjectPath
	label := map[string]dbus.Variant{"org.freedesktop.Secret.Collection.Label": dbus.MakeVariant("awsvault")}
	if err := b.service(unsupported+"CreateWithMasterPassword", label, b.password()).Store(&path); err != nil || path != vaultCollection {
		t.Fatal(path, err)
	}
	return b
}

// unsupported is how GNOME Keyring opens a keyring that has a password without
// a dialog.
const unsupported = "org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface."

func (b *sessionBus) password() busSecret {
	return busSecret{b.session, []byte{}, []byte("keyring password"), "text/plain"}
}

func (b *sessionBus) service(method string, args ...any) *dbus.Call {
	return b.conn.Object("org.freedesktop.secrets", "/org/freedesktop/secrets").Call(method, 0, args...)
}

// add puts alice's key into the collection, as aws-vault 7.2 does.
func (b *sessionBus) add(name string) {
	b.t.Helper()
	const data = "eyJBY2Nlc3NLZXlJRCI6IkFLSUFFWEFNUExFQUxJQ0UwMDAxIiwiU2VjcmV0QWNjZXNzS2V5IjoidGhpcy9rZXkrb2YvYWxpY2UraXMvcHVibGljK0VYQU1QTEUvMDAwMSIsIlNlc3Npb25Ub2tlbiI6IiIsIlNvdXJjZSI6IiIsIkNhbkV4cGlyZSI6ZmFsc2UsIkV4cGlyZXMiOiIwMDAxLTAxLTAxVDAwOjAwOjAwWiJ9"
	item := `{"Key":"` + name + `","Data":"` + data + `","Label":"aws-vault (` + name + `)","Description":"","KeychainNotTrustApplication":true,"KeychainNotSynchronizable":false}`
	props := map[string]dbus.Variant{
		"org.freedesktop.Secret.Item.Label":      dbus.MakeVariant(name),
		"org.freedesktop.Secret.Item.Attributes": dbus.MakeVariant(map[string]string{"profile": name}),
	}
	err := b.conn.Object("org.freedesktop.secrets", vaultCollection).Call("org.freedesktop.Secret.Collection.CreateItem", 0,
		props, busSecret{b.session, []byte{}, []byte(item), "application/json"}, true).Err
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *sessionBus) lock() {
	b.t.Helper()
	if err := b.service("org.freedesktop.Secret.Service.Lock", []dbus.ObjectPath{vaultCollection}).Err; err != nil {
		b.t.Fatal(err)
	}
}

func (b *sessionBus) unlock() {
	b.t.Helper()
	if err := b.service(unsupported+"UnlockWithMasterPassword", dbus.ObjectPath(vaultCollection), b.password()).Err; err != nil {
		b.t.Fatal(err)
	}
}

// A keyring that is locked between the question and the answer keeps the key,
// and gives it up once it is open again.
func TestImportLockedInTheMiddle(t *testing.T) {
	r := newRealm(t)
	r.write(t, ".aws/config", vaultConfig)
	b := r.startBus(t)
	b.add("work")
	b.add("sts.GetSessionToken,d29yaw,,4102444800")
	p := r.importOnTerminal(t)
	p.expect("[y/N] ")
	for _, said := range []string{"work: found in aws-vault's store (secret-service)", "ops: is served by gatepass now"} {
		if !strings.Contains(p.seen.String(), said) {
			t.Errorf("no %q in %q", said, p.seen.String())
		}
	}
	b.lock()
	p.enter("y\n")
	p.expect("work: stays in aws-vault's store (secret-service): the keychain (secret-service) is locked")
	p.exits(75)
	if out, err := r.command("gatepass", "keys", "import", "--yes").CombinedOutput(); exitStatus(err) != 75 || !strings.Contains(string(out), "aws-vault's store (secret-service) cannot be read") {
		t.Errorf("locked: %v: %s", err, out)
	}
	b.unlock()
	if out, err := r.command("gatepass", "keys", "import", "--yes").CombinedOutput(); err != nil || !strings.Contains(string(out), "work: removed the key") || strings.Contains(string(out), "GetSessionToken") {
		t.Errorf("unlocked: %v: %s", err, out)
	}
	if out, err := r.command("gatepass", "keys", "import").CombinedOutput(); err != nil || strings.Count(string(out), "\n") != 1 {
		t.Errorf("once more: %v: %s", err, out)
	}
	if out, err := r.command("gatepass", "credential-process", "ops").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	var left []dbus.ObjectPath
	if err := b.conn.Object("org.freedesktop.secrets", vaultCollection).Call("org.freedesktop.Secret.Collection.SearchItems", 0, map[string]string{}).Store(&left); err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}
