package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/scope/scopetest"
)

// Where a systemd user manager runs, what outlives the command stays inside:
// it gets nothing any more, is listed, and is let go from outside alone, or
// ended.
func TestExecInAScope(t *testing.T) {
	m := scopetest.Start(t, os.Getuid())
	r := newRealm(t)
	r.setenv("XDG_RUNTIME_DIR=" + m.RuntimeDir)
	r.restart(t)
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(r.home, ".local", "state", "gatepass", "gatepassd.log")); err == nil && t.Failed() {
			t.Logf("the daemon said:\n%s", log)
		}
	})
	leases := func() []broker.LeaseStatus {
		t.Helper()
		out, err := r.command("gatepass", "status", "--json").Output()
		var st broker.Status
		if err == nil {
			err = json.Unmarshal(out, &st)
		}
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return st.Leases
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(); {
			if time.Now().After(deadline) {
				t.Fatalf("waiting until %s: %+v", what, leases())
			}
		}
	}
	read := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(r.home, name))
		return string(data)
	}
	gatepass := filepath.Join(r.bin, "gatepass")
	// The survivor waits for its turn, in no session, without an environment
	// of the lease's, asks and goes on.
	survivor := "until test -e ask; do sleep 0.05; done; " + gatepass + " credential-process deploy 2>said; echo $? >got; exec sleep 1000"
	for _, way := range []string{"release", "end"} {
		for _, name := range []string{"ask", "said", "got"} {
			os.Remove(filepath.Join(r.home, name))
		}
		run := r.command("gatepass", "exec", "deploy", "--", "sh", "-c",
			"env -i HOME=$HOME PATH=$PATH XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR setsid sh -c '"+survivor+"' </dev/null >/dev/null 2>&1 & exit 5")
		out, err := run.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 5 {
			t.Fatalf("%v: %s", err, out)
		}
		until("the lease lingers", func() bool { l := leases(); return len(l) == 1 && l[0].State == "lingering" })
		l := leases()[0]
		if len(l.Processes) == 0 {
			t.Errorf("nobody lingers: %+v", l)
		}
		r.write(t, "ask", "")
		until("the survivor has asked", func() bool { return strings.HasSuffix(read("got"), "\n") })
		if read("got") != "77\n" || !strings.Contains(read("said"), "is left over of lease "+l.ID) {
			t.Errorf("the survivor got %s%s", read("got"), read("said"))
		}
		if out, err := r.command("gatepass", "credential-process", "deploy").CombinedOutput(); err != nil {
			t.Errorf("outside: %v: %s", err, out)
		}
		pid := l.Processes[0].PID
		args := []string{"end", l.ID}
		if way == "release" {
			args = []string{"end", "--release", l.ID}
		}
		if out, err := r.command("gatepass", args...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
		if l := leases(); len(l) != 0 {
			t.Errorf("after %q: %+v", args, l)
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		alive := err == nil && !strings.Contains(string(stat), ") Z ") // nobody may reap it yet
		if alive != (way == "release") {
			t.Errorf("after %q process %d lives: %v", args, pid, alive)
		}
		syscall.Kill(pid, syscall.SIGKILL)
	}
	if n := r.entries(t, "lease.released"); n != 1 {
		t.Errorf("%d leases were released", n)
	}
}
