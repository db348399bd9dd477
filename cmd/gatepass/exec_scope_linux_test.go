package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
	leases := func() []broker.LeaseStatus { return r.status(t).Leases }
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
			"echo $AWS_CONTAINER_CREDENTIALS_FULL_URI $(cat $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE) >endpoint; "+
				"env -i HOME=$HOME PATH=$PATH XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR setsid sh -c '"+survivor+"' </dev/null >/dev/null 2>&1 & exit 5")
		out, err := run.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 5 {
			t.Fatalf("%v: %s", err, out)
		}
		until(t, "the lease lingers", func() bool { l := leases(); return len(l) == 1 && l[0].State == "lingering" })
		l := leases()[0]
		if len(l.Processes) == 0 {
			t.Errorf("nobody lingers: %+v", l)
		}
		r.write(t, "ask", "")
		until(t, "the survivor has asked", func() bool { return strings.HasSuffix(read("got"), "\n") })
		if read("got") != "77\n" || !strings.Contains(read("said"), "is left over of lease "+l.ID) {
			t.Errorf("the survivor got %s%s", read("got"), read("said"))
		}
		if out, err := r.command("gatepass", "credential-process", "deploy").CombinedOutput(); err != nil {
			t.Errorf("outside: %v: %s", err, out)
		}
		// The endpoint says so too, with the right token, and it is recorded.
		denied := r.entries(t, "request.denied")
		endpoint := strings.Fields(read("endpoint"))
		req, err := http.NewRequest("GET", endpoint[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", endpoint[1])
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 403 || !strings.Contains(string(body), "lease "+l.ID+" of profile deploy has ended") {
			t.Errorf("%s: %s, %v", resp.Status, body, err)
		}
		if n := r.entries(t, "request.denied") - denied; n != 1 {
			t.Errorf("%d refusals at the endpoint are recorded", n)
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

// A lease that is ended takes those inside it along, which have scopes of
// their own.
func TestEndTakesInnerLeases(t *testing.T) {
	m := scopetest.Start(t, os.Getuid())
	r := newRealm(t)
	r.setenv("XDG_RUNTIME_DIR=" + m.RuntimeDir)
	r.restart(t)
	l := r.begin(t)
	gatepass := filepath.Join(r.bin, "gatepass")
	outer := l.does("echo $GATEPASS_LEASE")
	// One inner lease whose root outlives its parent, and one inside that.
	inner := l.does("setsid " + gatepass + " exec -- sh -c 'echo $$; exec " + gatepass + " exec -- sleep 1000' 2>&1 </dev/null &")
	until(t, "all three are there", func() bool { return len(r.status(t).Leases) == 3 })
	if out, err := r.command("gatepass", "end", outer).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := r.status(t).Leases; len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
	stat, err := os.ReadFile("/proc/" + inner + "/stat")
	if err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("process %s of an inner lease lives on: %s", inner, stat)
	}
}
