package main

import (
	"encoding/json"
	"strings"
	"sync"
	"syscall"
	"testing"

	"gatepass/broker"
	"gatepass/broker/sts"
	"gatepass/broker/sts/ststest"
	"gatepass/broker/wire"
)

// A strike kills the daemon at one of the calls that it makes.
type strike struct {
	after  string // counted from this action on; "" from the beginning
	action string
	lost   bool // the call does not reach AWS; else its answer does not come back

	mu     sync.Mutex
	pid    int
	passed bool // after was seen
}

func (s *strike) see(c ststest.Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid != 0 && c.Action == s.action && (s.passed || s.after == "") {
		syscall.Kill(s.pid, syscall.SIGKILL)
		s.pid = 0
	}
	s.passed = s.passed || c.Action == s.after
}

// Whenever the daemon is killed, a key that works is stored, the next call
// goes on, and one key is left at AWS: the stored one.
func TestKilledRotationGoesOn(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup // all at once: they wait for new keys, and not for the machine
	defer all.Wait()
	for name, s := range map[string]*strike{
		"looking":              {action: "ListAccessKeys"},
		"asking for a key":     {action: "CreateAccessKey", lost: true},
		"a key is made":        {action: "CreateAccessKey"},
		"proving":              {after: "CreateAccessKey", action: "GetCallerIdentity"},
		"asking to deactivate": {action: "UpdateAccessKey", lost: true},
		"deactivated":          {action: "UpdateAccessKey"},
		"proving again":        {after: "UpdateAccessKey", action: "GetCallerIdentity"},
		"asking to delete":     {action: "DeleteAccessKey", lost: true},
		"deleted":              {action: "DeleteAccessKey"},
	} {
		all.Go(func() { t.Run(name, s.run) })
	}
}

// run is one such death, and what comes after.
func (s *strike) run(t *testing.T) {
	config := ststest.Example()
	config.NewKey, config.Log = "-", s.see
	r := newRealmOf(t, config)
	old := r.aws.Key("alice")
	if s.lost {
		r.aws.Faults().Add(ststest.Fault{Action: s.action, Kind: ststest.Drop, Count: 1})
	}
	s.mu.Lock()
	s.pid = r.daemonPID()
	s.mu.Unlock()
	if out, err := r.command("gatepass", "keys", "rotate", "alice").CombinedOutput(); exitStatus(err) != 69 || !strings.Contains(string(out), "nothing is lost") {
		t.Fatalf("the daemon was killed, and %v: %s", err, out)
	}
	s.mu.Lock()
	survived := s.pid != 0
	s.mu.Unlock()
	if survived {
		t.Fatal("the daemon was not killed")
	}
	if out, err := r.command("gatepass", "credential-process", "deploy").CombinedOutput(); err != nil {
		t.Fatalf("the stored key does not work: %v: %s", err, out)
	}
	if out, err := r.command("gatepass", "keys", "rotate", "alice").CombinedOutput(); err != nil {
		t.Fatalf("it does not go on: %v: %s", err, out)
	}
	if out, err := r.command("gatepass", "export", "deploy", "--min-left", "1h").CombinedOutput(); err != nil {
		t.Fatalf("the new key does not work: %v: %s", err, out)
	}

	var list wire.KeysResponse
	out, err := r.command("gatepass", "keys", "list", "--json").Output()
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	if err != nil || len(list.Keys) != 1 || list.Keys[0].Rotation != nil || list.Keys[0].AccessKeyID == old.ID {
		t.Fatalf("keys list: %v: %s", err, out)
	}
	looker := r.aws.Key("mallory")
	iam, err := sts.New(sts.Config{EndpointURL: r.aws.URL})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := iam.AccessKeys(t.Context(), broker.Credentials{AccessKeyID: looker.ID, SecretAccessKey: broker.NewSecret(looker.Secret)}, ststest.AliceARN)
	if err != nil || len(keys) != 1 || keys[0].ID != list.Keys[0].AccessKeyID || !keys[0].Active {
		t.Errorf("at AWS: %+v, %v; stored is %s", keys, err, list.Keys[0].AccessKeyID)
	}
	if out, err := r.command("gatepass", "audit", "verify").CombinedOutput(); err != nil {
		t.Errorf("audit verify: %v\n%s", err, out)
	}
}

func (r *realm) rotateOnTerminal(t *testing.T, flags ...string) *pty {
	t.Helper()
	cmd := r.command("gatepass", append([]string{"keys", "rotate", "alice"}, flags...)...)
	cmd.Args = append([]string{"sh", "-c", `exec "$0" "$@" 2>/dev/tty`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	return startOnTerminal(t, cmd)
}

// A person sees what goes on and what came of it, and gives the code that the
// user's policy wants.
func TestRotateOnATerminal(t *testing.T) {
	t.Parallel()
	config := ststest.Example()
	config.Accounts[0].Users[0].RequiresMFA = []string{"iam:*"} // alice
	r := newRealmOf(t, config)
	old := r.aws.Key("alice").ID
	p := r.rotateOnTerminal(t, "--mfa-serial", ststest.AliceDevice)
	p.expect("MFA code of " + ststest.AliceDevice + ": ")
	p.enter(r.aws.Code("alice") + "\n")
	p.expect("gatepass: the old one, " + old + ", is deleted")
	p.exits(0)
	if !strings.Contains(p.seen.String(), "gatepass: some seconds, at most 2 min") {
		t.Errorf("seen %q", p.seen.String())
	}
}

// ^C in the middle leaves a rotation that goes on with the same new key.
func TestRotateEndedByHand(t *testing.T) {
	t.Parallel()
	config := ststest.Example()
	made := make(chan struct{}, 1)
	config.Log = func(c ststest.Call) {
		if c.Action == "CreateAccessKey" {
			made <- struct{}{}
		}
	}
	r := newRealmOf(t, config)
	p := r.rotateOnTerminal(t)
	p.expect("seconds, at most 2 min")
	<-made
	p.enter("\x03")
	if s := p.waitFor(0); !s.Signaled() || s.Signal() != syscall.SIGINT {
		t.Fatalf("^C: %v", s)
	}
	p = r.rotateOnTerminal(t)
	p.expect("is deleted")
	p.exits(0)
	if n := r.aws.Count("CreateAccessKey"); n != 1 {
		t.Errorf("%d keys were made", n)
	}
}
