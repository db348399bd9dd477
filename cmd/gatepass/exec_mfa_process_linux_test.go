package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatepass/broker/scope/scopetest"
	"gatepass/broker/sts/ststest"
)

// A profile's mfa_process that is run for somebody inside a lease is inside as
// well, and in a scope so is what it leaves behind: a lease that changes which
// program is run gets nothing by it.
func TestMFAProcessOfALease(t *testing.T) {
	t.Run("by ancestry", func(t *testing.T) { mfaProcessOfALease(t, newTimedRealm(t), false) })
	t.Run("in a scope", func(t *testing.T) {
		m := scopetest.Start(t, os.Getuid())
		r := newTimedRealm(t)
		r.setenv("XDG_RUNTIME_DIR=" + m.RuntimeDir)
		r.restart(t)
		mfaProcessOfALease(t, r, true)
	})
}

// A timedRealm has an AWS whose clock can be moved on: a code is good once.
type timedRealm struct {
	*realm
	ahead *atomic.Int64
}

func newTimedRealm(t *testing.T) timedRealm {
	ahead := new(atomic.Int64)
	config := ststest.Example()
	config.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	return timedRealm{newRealmOf(t, config), ahead}
}

func mfaProcessOfALease(t *testing.T, r timedRealm, scoped bool) {
	r.write(t, ".aws/config", "[profile deploy]\ngatepass_key = alice\nrole_arn = "+ststest.OperatorARN+"\nmfa_serial = "+ststest.AliceDevice+
		"\nmfa_process = "+filepath.Join(r.home, "code.sh")+"\n[profile other]\ngatepass_key = alice\nrole_arn = "+ststest.DeployARN+"\n")
	// It has the daemon's environment, in which no socket is named, and may come
	// when the daemon is gone.
	ask := "GATEPASS_AUTOSTART=0 " + r.variable("XDG_RUNTIME_DIR") + " " + filepath.Join(r.bin, "gatepass") + " credential-process other"
	r.write(t, "code.sh", `cd "$HOME" || exit
`+ask+` >got 2>said; echo $? >status
setsid sh -c 'until test -e go; do sleep 0.02; done; `+ask+` >got2 2>said2; echo $? >status2' <&- >&- 2>&- &
cat code
`)
	if err := os.Chmod(filepath.Join(r.home, "code.sh"), 0o700); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(r.home, name))
		return string(data)
	}
	orphanAsks := func() string {
		t.Helper()
		r.write(t, "go", "")
		for deadline := time.Now().Add(30 * time.Second); !strings.HasSuffix(read("status2"), "\n"); {
			if time.Now().After(deadline) {
				t.Fatal("what mfa_process left behind does not ask")
			}
		}
		status := read("status2")
		for _, name := range []string{"go", "status", "status2"} {
			os.Remove(filepath.Join(r.home, name))
		}
		return status
	}
	r.write(t, "code", r.aws.Code("alice"))
	if out, err := r.command("gatepass", "credential-process", "deploy").CombinedOutput(); err != nil || read("status") != "0\n" {
		t.Fatalf("outside: %v: %s; other: %s%s", err, out, read("status"), read("said"))
	}
	if got := orphanAsks(); got != "0\n" {
		t.Errorf("outside, afterwards: %s%s", got, read("said2"))
	}

	// A long session takes a code of its own.
	r.ahead.Store(int64(time.Minute))
	r.write(t, "code", r.aws.Code("alice"))
	orphan := "true"
	if scoped {
		orphan = "touch go; until test -s status2; do sleep 0.02; done"
	}
	out, err := r.command("gatepass", "exec", "deploy", "--", "sh", "-c",
		filepath.Join(r.bin, "gatepass")+" export deploy --duration 2h >session && "+orphan).CombinedOutput()
	if err != nil || !strings.Contains(read("session"), "AWS_SESSION_TOKEN") {
		t.Fatalf("inside: %v: %s", err, out)
	}
	const wall = "which is for deploy alone, and may not get profile \"other\""
	if read("status") != "77\n" || read("got") != "" || !strings.Contains(read("said"), wall) {
		t.Errorf("inside, other: %s%s", read("status"), read("said"))
	}
	if scoped && (read("status2") != "77\n" || !strings.Contains(read("said2"), wall)) {
		t.Errorf("inside, afterwards: %s%s", read("status2"), read("said2"))
	}
	want := 1
	if scoped {
		want = 2
	}
	if n := r.entries(t, "request.denied"); n != want {
		t.Errorf("%d refusals are recorded, not %d", n, want)
	}
	r.write(t, "go", "") // for who waits yet
}
