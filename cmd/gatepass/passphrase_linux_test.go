package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/prompt/prompttest"
	"gatepass/broker/sts/ststest"
)

const (
	asksNew   = "new passphrase (not shown): "
	asksAgain = "the same once more (not shown): "
	asksOld   = "passphrase of the file keychain (not shown): "
)

// passphraseOf is a test's own: another's may be in an environment.
func passphraseOf(t *testing.T) string { return "correct horse of " + t.Name() }

// newLockedRealm has alice's key in a file keychain, and a daemon that has no
// passphrase.
func newLockedRealm(t *testing.T) *realm {
	t.Helper()
	r := newEmptyRealm(t, ststest.Example())
	r.setenv("GATEPASS_FILE_PASSPHRASE=" + passphraseOf(t))
	key := r.aws.Key("alice")
	add := r.command("gatepass", "keys", "add", "alice", "--stdin")
	add.Stdin = strings.NewReader(key.ID + "\n" + key.Secret + "\n")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r.setenv("GATEPASS_FILE_PASSPHRASE=")
	r.restart(t)
	return r
}

func (r *realm) status(t *testing.T) broker.Status {
	t.Helper()
	out, err := r.command("gatepass", "status", "--json").Output()
	var st broker.Status
	if err == nil {
		err = json.Unmarshal(out, &st)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return st
}

// unseen answers a question whose answer the terminal does not show.
func (p *pty) unseen(question, answer string) {
	p.t.Helper()
	p.expect(question)
	if p.echoes() {
		p.t.Errorf("%q is asked for with the echo on", question)
	}
	p.enter(answer + "\n")
}

// A key goes into a new file keychain, whose passphrase is chosen on the
// terminal, and asked for once by the next daemon. It is nowhere but in
// memory.
func TestPassphraseOnATerminal(t *testing.T) {
	t.Parallel()
	passphrase := passphraseOf(t)
	r := newEmptyRealm(t, ststest.Example())
	key := r.aws.Key("alice")
	p := r.onTerminal(t, "keys", "add", "alice")
	p.expect("Access key ID: ")
	p.enter(key.ID + "\n")
	p.unseen("Secret access key (not shown): ", key.Secret)
	p.unseen(asksNew, "")
	p.unseen(asksNew, passphrase)
	p.unseen(asksAgain, passphrase+"!")
	p.unseen(asksNew, passphrase)
	p.unseen(asksAgain, passphrase)
	p.exits(0)
	seen := p.rest()
	for _, part := range []string{
		"gatepass: the file keychain is new: choose the passphrase that opens it;\r\n",
		"gatepass: the passphrase is empty\r\n", "gatepass: the two passphrases differ\r\n",
	} {
		if !strings.Contains(seen, part) {
			t.Errorf("no %q in %q", part, seen)
		}
	}
	r.nowhere(t, seen)
	if e := r.crowd(1, "credential-process", "deploy")()[0]; e.status != 0 {
		t.Errorf("%d: %s", e.status, e.output)
	}

	// The next daemon is asked nothing for its own sake, and asks for nothing
	// that can do without.
	r.restart(t)
	if st := r.status(t); st.Keychain.State != "keychain_locked" || !strings.Contains(st.Keychain.Hint, "gatepass keys list") {
		t.Errorf("%+v", st.Keychain)
	}
	e := r.crowd(1, "credential-process", "deploy")()[0]
	if e.status != unavailable || !strings.Contains(e.output, "there is nobody to ask") || !strings.Contains(e.output, "GATEPASS_FILE_PASSPHRASE") {
		t.Errorf("%d: %s", e.status, e.output)
	}
	r.nowhere(t, e.output)
	if e := r.crowd(1, "credential-process", "nonsense")()[0]; e.status != 78 {
		t.Errorf("%d: %s", e.status, e.output)
	}

	p = r.onTerminal(t, "whoami", "deploy")
	p.unseen("gatepass: profile deploy, for "+os.Args[0]+": "+asksOld, "wrong")
	p.unseen(asksOld, passphrase)
	p.exits(0)
	seen = p.rest()
	if !strings.Contains(seen, "gatepass: this passphrase does not open the keychain\r\n") {
		t.Errorf("seen %q", seen)
	}
	r.nowhere(t, seen)
	p = r.onTerminal(t, "keys", "list", "--json")
	p.exits(0)
	if seen := p.rest(); strings.Contains(seen, "passphrase") {
		t.Errorf("asked again: %q", seen)
	}
	r.signed(t)
}

// signed waits until every entry of the log is signed: the keychain has the
// key.
func (r *realm) signed(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
		st := r.status(t)
		if st.Log.Signed > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not signed: %+v", st.Log)
		}
	}
	if out, err := r.command("gatepass", "daemon", "stop").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := r.command("gatepass", "audit", "verify").CombinedOutput(); err != nil || strings.Contains(string(out), "not signed") {
		t.Errorf("%v: %s", err, out)
	}
}

// nowhere looks for the passphrase where it must not be: in what was shown, in
// the files, and in what other programs see of a process.
func (r *realm) nowhere(t *testing.T, shown string) {
	t.Helper()
	passphrase := passphraseOf(t)
	if strings.Contains(shown, passphrase) {
		t.Errorf("it is shown: %q", shown)
	}
	looked := 0
	err := filepath.WalkDir(r.home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		looked++
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(passphrase)) {
			t.Errorf("it is in %s", path)
		}
		return err
	})
	if err != nil || looked < 3 {
		t.Errorf("looked into %d files: %v", looked, err)
	}
	pid := r.daemonPID()
	for _, name := range []string{"environ", "cmdline"} {
		files, _ := filepath.Glob("/proc/[0-9]*/" + name)
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil && f == fmt.Sprintf("/proc/%d/%s", pid, name) && os.Getuid() == 0 {
				t.Error(err)
			}
			// A daemon that has stopped may be about to end.
			for deadline := time.Now().Add(10 * time.Second); bytes.Contains(data, []byte(passphrase)); {
				if time.Now().After(deadline) {
					t.Errorf("it is in %s", f)
					break
				}
				data, _ = os.ReadFile(f)
			}
		}
	}
}

// Whatever needs the keychain asks; ^C cancels for all, and programs are not
// asked for again.
func TestPassphraseCancelled(t *testing.T) {
	t.Parallel()
	r := newLockedRealm(t)
	for _, command := range []string{
		"keys list", "keys add bob --stdin", "keys remove alice --yes", "keys rotate alice", "keys import --yes",
		"export deploy", "whoami deploy", "profiles adopt deploy",
	} {
		t.Run(command, func(t *testing.T) {
			cmd := r.command("gatepass", strings.Fields(command)...)
			key := r.aws.Key("bob")
			cmd.Stdin = strings.NewReader(key.ID + "\n" + key.Secret + "\n")
			cmd.Env = append(cmd.Env, "AWS_ACCESS_KEY_ID="+key.ID, "AWS_SECRET_ACCESS_KEY="+key.Secret)
			p := startOnTerminal(t, cmd)
			p.expect(asksOld)
			wait := r.crowd(3, "credential-process", "deploy")
			p.enter("\x03")
			if s := p.waitFor(0); !s.Signaled() || s.Signal() != syscall.SIGINT {
				t.Errorf("ended with %v; seen %q", s, p.rest())
			}
			for _, e := range wait() {
				if e.status != cancelled && (e.status != unavailable || !strings.Contains(e.output, "was cancelled")) {
					t.Errorf("%d: %s", e.status, e.output)
				}
			}
		})
	}
	p := r.onTerminal(t, "whoami", "deploy")
	p.expect(asksOld)
	p.enter("\x04")
	p.exits(cancelled)
	out, err := r.command("gatepass", "audit", "list", "--json", "--event", "request.denied").Output()
	if err != nil || !strings.Contains(string(out), `"code":"cancelled","message":"profile \"deploy\": the user cancelled the question for the passphrase`) {
		t.Errorf("%v: recorded is %.2000s", err, out)
	}
}

// The third wrong passphrase is the last.
func TestPassphraseThreeTimesWrong(t *testing.T) {
	t.Parallel()
	passphrase := passphraseOf(t)
	r := newLockedRealm(t)
	p := r.onTerminal(t, "keys", "list")
	for range 3 {
		p.unseen(asksOld, "wrong "+passphrase)
	}
	p.exits(cancelled)
	r.nowhere(t, "")
	if st := r.status(t); st.Keychain.State != "keychain_locked" {
		t.Errorf("%+v", st.Keychain)
	}
}

// Twenty clients and a terminal: one question, and all are served.
func TestPassphraseCrowd(t *testing.T) {
	t.Parallel()
	passphrase := passphraseOf(t)
	r := newLockedRealm(t)
	p := r.onTerminal(t, "credential-process", "deploy")
	p.expect(asksOld)
	wait := r.crowd(20, "credential-process", "deploy")
	lists := r.crowd(5, "keys", "list", "--json")
	p.enter(passphrase + "\n")
	p.exits(0)
	for _, e := range append(wait(), lists()...) {
		if e.status != 0 {
			t.Errorf("%d: %s", e.status, e.output)
		}
	}
	if seen := p.rest(); strings.Count(seen, asksOld) != 1 || r.aws.Count("AssumeRole") != 1 {
		t.Errorf("seen %q", seen)
	}
}

// A program's user is asked by a dialog: one, however many wait; the daemon's
// start brings none. A person without a terminal is asked so, too.
func TestPassphraseDialogs(t *testing.T) {
	t.Parallel()
	passphrase := passphraseOf(t)
	d := prompttest.New(t)
	r := newLockedRealm(t)
	r.setenv("DISPLAY=" + d.Name)
	r.withPrograms(t, map[string]string{"pinentry": "pinentry-gtk-2"})
	if st := r.status(t); st.Log.Signed == st.Log.Entries {
		t.Errorf("signed without a key: %+v", st.Log)
	}
	if n := len(d.Windows()); n != 0 {
		t.Errorf("the daemon's start brought %d dialogs", n)
	}
	wait := r.crowd(20, "credential-process", "deploy")
	first := d.First()
	d.Type(first, "wrong", "Return")
	d.Type(d.Dialog(first), passphrase, "Return")
	for _, e := range wait() {
		if e.status != 0 {
			t.Errorf("%d: %s", e.status, e.output)
		}
	}
	d.Gone()
	r.nowhere(t, "")
	r.signed(t)

	r.restart(t)
	wait = r.crowd(2, "keys", "list")
	d.Type(d.First(), "", "Escape")
	for _, e := range wait() {
		if e.status != cancelled {
			t.Errorf("%d: %s", e.status, e.output)
		}
	}
	d.Gone()
}

// The passphrase of a new keychain is chosen in a dialog by typing it twice.
func TestNewPassphraseDialog(t *testing.T) {
	t.Parallel()
	passphrase := passphraseOf(t)
	d := prompttest.New(t)
	r := newEmptyRealm(t, ststest.Example())
	r.setenv("DISPLAY=" + d.Name)
	r.withPrograms(t, map[string]string{"pinentry": "pinentry-gtk-2"})
	key := r.aws.Key("alice")
	cmd := r.command("gatepass", "keys", "add", "alice", "--stdin")
	cmd.Stdin = strings.NewReader(key.ID + "\n" + key.Secret + "\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var w prompttest.Window
	for range 2 {
		w = d.Dialog(w)
		d.Type(w, passphrase, "Return")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	r.setenv("GATEPASS_FILE_PASSPHRASE=" + passphraseOf(t))
	r.restart(t)
	if e := r.crowd(1, "credential-process", "deploy")()[0]; e.status != 0 {
		t.Errorf("%d: %s", e.status, e.output)
	}
}

// A lease begins once the passphrase is there. Where the daemon is replaced
// meanwhile, what the lease refuses is refused unasked, and renewing asks on the
// terminal inside.
func TestPassphraseOfALease(t *testing.T) {
	t.Parallel()
	r := newLockedRealm(t)
	script := `exec >/dev/tty 2>&1; PATH=` + r.bin + `:$PATH; echo "inside $GATEPASS_PROFILE"; read -r _ </dev/tty
gatepass keys list; echo "keys $?"; read -r _ </dev/tty; gatepass renew; echo "renewed $?"; gatepass credential-process deploy >/dev/null; echo "served $?"; exit 7`
	p := r.onTerminal(t, "exec", "deploy", "--", "sh", "-c", script)
	p.unseen("gatepass: profile deploy, for "+os.Args[0]+": "+asksOld, passphraseOf(t))
	p.expect("inside deploy")
	r.restart(t)
	p.enter("\n")
	p.expect("keys 77")
	if seen := p.seen.String(); strings.Count(seen, asksOld) != 1 {
		t.Errorf("asked for what is refused: %q", seen)
	}
	p.enter("\n")
	p.unseen(asksOld, passphraseOf(t))
	p.exits(7)
	if seen := p.rest(); !strings.Contains(seen, "renewed 0") || !strings.Contains(seen, "served 0") || strings.Count(seen, asksOld) != 2 {
		t.Errorf("seen %q", seen)
	}
}
