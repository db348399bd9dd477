//go:build unix

package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/sts/ststest"
)

// A realm is a home with the real programs, the sandbox's engine in this
// process, and alice's key stored.
type realm struct {
	bin, home string
	env       []string
	aws       *ststest.Server
}

func newRealm(tb testing.TB) *realm {
	tb.Helper()
	return newRealmOf(tb, ststest.Example())
}

func newRealmOf(tb testing.TB, config ststest.Config) *realm {
	tb.Helper()
	r := newEmptyRealm(tb, config)
	r.setenv("GATEPASS_FILE_PASSPHRASE=correct horse")
	key := r.aws.Key("alice")
	add := r.command("gatepass", "keys", "add", "alice", "--stdin")
	add.Stdin = strings.NewReader(key.ID + "\n" + key.Secret + "\n")
	if out, err := add.CombinedOutput(); err != nil {
		tb.Fatalf("keys add: %v\n%s", err, out)
	}
	return r
}

// newEmptyRealm has no key, and nothing that opens its file keychain.
func newEmptyRealm(tb testing.TB, config ststest.Config) *realm {
	tb.Helper()
	home, err := os.MkdirTemp("", "gp")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(home) })
	r := &realm{bin: buildPrograms(tb), home: home, aws: ststest.NewServer(tb, config)}
	r.env = []string{
		"HOME=" + home, "XDG_RUNTIME_DIR=" + filepath.Join(home, "run"), "PATH=" + os.Getenv("PATH"),
		"GORACE=" + raceOptions,
	}
	for _, dir := range []string{"run", ".aws", ".config/gatepass"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	r.write(tb, ".config/gatepass/gatepass.toml", "keychain = \"file\"\n[aws]\nendpoint_url = \""+r.aws.URL+"\"\n")
	r.write(tb, ".aws/config", "[profile deploy]\ngatepass_key = alice\nrole_arn = "+ststest.DeployARN+"\n")
	tb.Cleanup(func() { r.command("gatepass", "daemon", "stop").Run() })
	return r
}

func (r *realm) write(tb testing.TB, name, text string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(r.home, name), []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// setenv sets a variable for what is started from now on.
func (r *realm) setenv(v string) {
	name, _, _ := strings.Cut(v, "=")
	r.env = append(slices.DeleteFunc(slices.Clone(r.env), func(old string) bool { return strings.HasPrefix(old, name+"=") }), v)
}

// variable returns NAME=value as it is in the realm's environment.
func (r *realm) variable(name string) string {
	return r.env[slices.IndexFunc(r.env, func(v string) bool { return strings.HasPrefix(v, name+"=") })]
}

func (r *realm) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(r.bin, name), args...)
	cmd.Env, cmd.Dir = r.env, r.home
	return cmd
}

func (r *realm) auditDir() string {
	return filepath.Join(r.home, ".local", "state", "gatepass", "audit")
}

// entries counts the audit log's entries of an event.
func (r *realm) entries(tb testing.TB, event string) int {
	tb.Helper()
	out, err := r.command("gatepass", "audit", "list", "--json", "--event", event).Output()
	if err != nil {
		tb.Fatalf("audit list: %v", err)
	}
	return strings.Count(string(out), "\n")
}

// daemonPID returns the running daemon's, 0 for none.
func (r *realm) daemonPID() int {
	out, err := r.command("gatepass", "status", "--json").Output()
	var st broker.Status
	if err != nil || json.Unmarshal(out, &st) != nil {
		return 0
	}
	return st.Daemon.PID
}

// No entry, no credentials, at whatever moment the daemon is killed: every
// session that reached a client has its entries, and the log verifies.
func TestKilledDaemonLosesNoEntry(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it starts some hundred processes")
	}
	rounds := 8
	if s := os.Getenv("GATEPASS_KILLS"); s != "" { // more than a little
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	r := newRealm(t)
	var mu sync.Mutex
	got := map[string]int{} // hand-outs that clients saw, by access key id
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				out, err := r.command("gatepass", "credential-process", "deploy").Output()
				if err != nil {
					continue // the daemon was killed under it
				}
				var doc struct{ AccessKeyId string }
				if err := json.Unmarshal(out, &doc); err != nil {
					t.Errorf("half a document was printed with success: %v", err)
				}
				mu.Lock()
				got[doc.AccessKeyId]++
				mu.Unlock()
			}
		})
	}
	for range rounds {
		// Wait for progress, then strike at a random moment.
		mu.Lock()
		before := len(got)
		mu.Unlock()
		for progress := false; !progress && ctx.Err() == nil; {
			if pid := r.daemonPID(); pid != 0 {
				wait := time.NewTimer(time.Duration(rand.IntN(30)) * time.Millisecond)
				<-wait.C
				syscall.Kill(pid, syscall.SIGKILL)
			}
			mu.Lock()
			progress = len(got) > before
			mu.Unlock()
		}
	}
	stop()
	clients.Wait()
	if out, err := r.command("gatepass", "audit", "verify").CombinedOutput(); err != nil {
		t.Errorf("audit verify: %v\n%s", err, out)
	}

	entries := map[string]int{}
	issued := map[string]bool{}
	for line, err := range audit.Entries(t.Context(), r.auditDir(), audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		ev, err := line.Entry()
		if err != nil {
			t.Fatal(err)
		}
		switch ev.Kind {
		case broker.EventSessionIssued, broker.EventSessionRenewed:
			issued[ev.Session.AccessKeyID] = true
		case broker.EventCredentialsServed:
			entries[ev.Session.AccessKeyID]++
		}
	}
	for id, n := range got {
		if entries[id] < n || !issued[id] {
			t.Errorf("%s reached clients %d times; the log has %d hand-outs, issued: %v", id, n, entries[id], issued[id])
		}
	}
	t.Logf("%d sessions in %d hand-outs survived the kills", len(got), sum(got))
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// A client that is killed while it waits takes nothing with it: the session
// it caused is there for the next.
func TestKilledClientHarmsNobody(t *testing.T) {
	r := newRealm(t)
	r.aws.Faults().Add(ststest.Fault{Action: "AssumeRole", Count: 1, Delay: 300 * time.Millisecond})
	first := r.command("gatepass", "credential-process", "deploy")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	for len(r.aws.Calls()) < 2 { // GetCallerIdentity of keys add, and this one
		runtime.Gosched()
	}
	first.Process.Kill()
	first.Wait()
	if out, err := r.command("gatepass", "credential-process", "deploy").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := r.aws.Count("AssumeRole"); n != 1 {
		t.Errorf("%d calls of AssumeRole, want 1", n)
	}
}
