//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// newLeaseHome is a home whose PATH has the system's commands, with the real
// program.
func newLeaseHome(t *testing.T) (h *home, gatepass string) {
	h = newHome(t)
	h.env["PATH"] = "/usr/local/bin:/usr/bin:/bin"
	return h, filepath.Join(programs(t), "gatepass")
}

// gatepass becomes the command: same process, its own arguments, streams and
// status, and the environment that was built.
func TestExecBecomesTheCommand(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	h.env["AWS_PROFILE"], h.env["AWS_SECRET_ACCESS_KEY"], h.env["AWS_REGION"] = "dns", "outside", "us-east-1"
	h.env["GATEPASS_REASON"] = "from the environment"
	lease := exampleLease()
	got := h.serveLease(lease)

	cmd := exec.Command(gatepass, "exec", "--reason", "ticket 4711", "ops", "--with", "dns,net", "--with", "mail", "--duration", "2h", "--", "sh", "-c", `echo $$ $0 "$@"; cat; exit 7`, "zero", "a b", "--with", "")
	cmd.Env = h.environ()
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("typed\n"), &stdout, &stderr
	cmd.Run()
	if want := fmt.Sprintf("%d zero a b --with \ntyped\n", cmd.Process.Pid); stdout.String() != want || stderr.Len() > 0 || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%v\n%q, want %q\n%s", cmd.ProcessState, stdout.String(), want, stderr.String())
	}
	if len(got()) != 1 {
		t.Fatalf("asked %d times", len(got()))
	}
	r := got()[0]
	if r.Profile != "ops" || r.Via != "exec" || r.Reason != "ticket 4711" || r.Region != "us-east-1" || r.DurationSeconds != 7200 || r.Serve != "" || r.Ask != nil ||
		!slices.Equal(r.With, []string{"dns,net", "mail"}) || r.Program != gatepass || filepath.Base(r.Command) != "sh" || !filepath.IsAbs(r.Command) {
		t.Errorf("asked %+v", r)
	}

	// What comes out of env -0 is what the function says goes in.
	for _, serve := range []struct{ flag, mode string }{{"--imds", "imds"}, {"--env", "env"}} {
		cmd := exec.Command(gatepass, "exec", serve.flag, "--", "env", "-0")
		cmd.Env = h.environ()
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		want, err := leaseEnvironment(cmd.Env, lease)
		if err != nil {
			t.Fatal(err)
		}
		if env := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); !slices.Equal(env, want) {
			t.Errorf("got\n%q\nwant\n%q", env, want)
		}
		if r := got()[len(got())-1]; r.Serve != serve.mode || r.Profile != "dns" {
			t.Errorf("asked %+v", r)
		}
	}
}

// A signal that ends the command ends the process that gatepass was.
func TestExecEndsBySignals(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	h.serveLease(exampleLease())
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE} {
		cmd := exec.Command(gatepass, "exec", "ops", "--", "sh", "-c", fmt.Sprintf("kill -%d $$; echo on", sig))
		cmd.Env = h.environ()
		out, _ := cmd.Output()
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != sig || len(out) > 0 {
			t.Errorf("%v: %v, %s", sig, cmd.ProcessState, out)
		}
	}
	// What was ignored stays so, and the limit of descriptors is the caller's,
	// not what Go made of it.
	cmd := exec.Command("sh", "-c", `ulimit -Sn 100; trap "" HUP INT; exec "$0" exec ops -- sh -c 'kill -HUP $$; kill -INT $$; ulimit -Sn'`, gatepass)
	cmd.Env = h.environ()
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "100\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// A command that is not there, or cannot be run, is found before a lease is
// asked for: 127 and 126, as shells have it.
func TestExecLooksFirst(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	got := h.serveLease(exampleLease())
	bin := filepath.Join(h.env["HOME"], "bin")
	if err := os.MkdirAll(filepath.Join(bin, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(bin, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := write("plain", "not for running", 0o600)
	write("ls", "#!/bin/sh\nexit 1\n", 0o600) // passed over: a later one can be run
	bare := write("bare", "echo bare $1\n", 0o700)
	gone := write("gone", "#!/nonexistent/interpreter\n", 0o700)
	h.env["PATH"] = bin + "::/usr/bin:/bin:/nonexistent"

	for _, c := range []struct {
		name   string
		code   int
		stderr string
	}{
		{"no-such-command", 127, "gatepass: no-such-command: there is no such command\n"},
		{"/no/such/command", 127, "gatepass: /no/such/command: there is no such command\n"},
		{plain + "/below", 127, "gatepass: " + plain + "/below: there is no such command\n"},
		{"", 127, "gatepass: : there is no such command\n"},
		{"plain", 126, "gatepass: " + plain + " cannot be run: permission denied\n"},
		{plain, 126, "gatepass: " + plain + " cannot be run: permission denied\n"},
		{bin, 126, "gatepass: " + bin + " cannot be run: is a directory\n"},
		{"folder", 127, "gatepass: folder: there is no such command\n"},
	} {
		if r := h.exec(gatepass, "exec", "ops", "--", c.name); r != (result{"", c.stderr, c.code}) {
			t.Errorf("%q: %+v, want %d %s", c.name, r, c.code, c.stderr)
		}
	}
	h.env["SHELL"] = "/no/such/shell"
	if r := h.exec(gatepass, "exec", "ops"); r.code != 127 || !strings.Contains(r.stderr, "/no/such/shell") {
		t.Errorf("%+v", r)
	}
	if len(got()) != 0 {
		t.Fatalf("a lease was started for nothing: %+v", got())
	}

	for _, c := range []struct {
		args []string
		want result
	}{
		{[]string{"ls", "/dev/null"}, result{stdout: "/dev/null\n"}},
		{[]string{"bare", "feet"}, result{stdout: "bare feet\n"}}, // as execvp(3) has it
		{[]string{bare, "bones"}, result{stdout: "bare bones\n"}},
	} {
		if r := h.exec(gatepass, append([]string{"exec", "ops", "--"}, c.args...)...); r != c.want {
			t.Errorf("%q: %+v", c.args, r)
		}
	}
	// The current directory, by an empty place in PATH.
	here := write("here-it-is", "#!/bin/sh\necho here\n", 0o700)
	h.env["PATH"] = "/nonexistent:"
	cmd := exec.Command(gatepass, "exec", "ops", "--", "here-it-is")
	cmd.Dir, cmd.Env = filepath.Dir(here), h.environ()
	if out, err := cmd.CombinedOutput(); string(out) != "here\n" {
		t.Errorf("%v: %s", err, out)
	}
	delete(h.env, "PATH")
	if r := h.exec(gatepass, "exec", "ops", "--", "ls", "/dev/null"); r.stdout != "/dev/null\n" {
		t.Errorf("without PATH: %+v", r)
	}
	// What only the kernel finds out ends the process, and so the lease.
	if r := h.exec(gatepass, "exec", "ops", "--", gone); r.code != 126 || !strings.Contains(r.stderr, "no such file or directory") {
		t.Errorf("%+v", r)
	}
}

// Without a command it is the user's shell, which reads what comes in.
func TestExecRunsTheShell(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	got := h.serveLease(exampleLease())
	h.env["SHELL"] = "/bin/sh"
	h.stdin = "echo $GATEPASS_PROFILE $GATEPASS_LEASE $0 $-\nexit 3\n"
	r := h.exec(gatepass, "exec", "ops")
	fields := strings.Fields(r.stdout)
	if r.code != 3 || r.stderr != "" || len(fields) < 3 || fields[0] != "ops" || fields[1] != "l-7f3k2m9qxd" || fields[2] != "/bin/sh" {
		t.Errorf("%+v", r)
	}
	delete(h.env, "SHELL")
	if r := h.exec(gatepass, "exec", "ops"); r.code != 3 {
		t.Errorf("without SHELL: %+v", r)
	}
	for _, r := range got() {
		if r.Command != "/bin/sh" {
			t.Errorf("asked %+v", r)
		}
	}
}

// What cannot be renewed says so, also where nobody looks.
func TestExecSaysWhenItEnds(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	lease := exampleLease()
	lease.Serve, lease.Endpoint, lease.Renewable, lease.Credentials = "env", "", false, json.RawMessage(document)
	h.serveLease(lease)
	r := h.exec(gatepass, "exec", "ops", "--env", "--", "sh", "-c", "echo $AWS_ACCESS_KEY_ID $GATEPASS_EXPIRES")
	if r.code != 0 || r.stdout != "ASIAEXAMPLE 2026-11-03T11:00:00Z\n" || !strings.Contains(r.stderr, "cannot be renewed in an environment") {
		t.Errorf("%+v", r)
	}
	lease.Expires = at.Add(30 * 60e9)
	want := "the session of ops ends at 10:30, in 30m, and cannot be renewed in an environment"
	if got := untilWhen(lease, 1800, at); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	lease.Serve = "container"
	want = "the session of ops ends at 10:30, in 30m, and cannot be renewed\na role that is assumed by a role lasts 1 h at most"
	if got := untilWhen(lease, 7200, at); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A code is asked for as for any other command, before anything runs.
func TestExecAsksForACode(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	h.env["DISPLAY"] = ":7"
	var asks []*wire.Ask
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathLeases: func(body []byte) (int, map[string]string, string) {
			var r wire.StartLeaseRequest
			json.Unmarshal(body, &r)
			if asks = append(asks, r.Ask); r.Ask == nil {
				return 202, nil, jsonOf(t, wire.Needed{})
			}
			if r.MFACode == "123456" {
				return 200, nil, jsonOf(t, exampleLease())
			}
			return 503, nil, jsonOf(t, broker.Errorf(broker.CodePromptUnavailable, "nobody can be asked"))
		},
	})
	if r := h.exec(gatepass, "exec", "ops", "--", "echo", "ran"); r.code != 75 || r.stdout != "" {
		t.Errorf("%+v", r)
	}
	if r := h.exec(gatepass, "exec", "ops", "--prompt", "none", "--mfa-code", "123456", "--", "echo", "ran"); r.code != 0 || r.stdout != "ran\n" {
		t.Errorf("%+v", r)
	}
	if len(asks) != 3 || asks[1].Terminal || !slices.Contains(asks[1].Env, "DISPLAY=:7") || asks[2].Mode != "none" {
		t.Errorf("asked with %+v", asks)
	}
}

// An answer that names no lease is not taken for one.
func TestExecWithoutALease(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	for _, l := range []wire.StartLeaseResponse{{}, {Lease: "l-1", Serve: "container"}} {
		h.serveLease(l)
		if r := h.exec(gatepass, "exec", "ops", "--", "echo", "ran"); r.code != 70 || r.stdout != "" {
			t.Errorf("%+v: %+v", l, r)
		}
		h.env["GATEPASS_SOCKET"] += "2"
	}
}

// No daemon is started below a lease, so that an exec inside one without a
// daemon runs nothing.
func TestExecStartsNoDaemonBelowALease(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	h.env["GATEPASS_LEASE"] = "l-1"
	if r := h.exec(gatepass, "exec", "ops", "--", "echo", "ran"); r.code != 69 || r.stdout != "" || !strings.Contains(r.stderr, "start it outside") {
		t.Errorf("%+v", r)
	}
}

// Who ends the lease around him is told to end as well, and hears first what
// came of it.
func TestEndFromInside(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	h.env["GATEPASS_LEASE"] = "l-1"
	began, goOn := make(chan string), make(chan bool)
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathLeaseEnd: func(body []byte) (int, map[string]string, string) {
			began <- string(body)
			<-goOn
			return 200, nil, `{"ended":["l-1"]}`
		},
	})
	cmd := exec.Command(gatepass, "end")
	cmd.Env = h.environ()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if body := <-began; body != "{}" {
		t.Errorf("asked %s", body)
	}
	cmd.Process.Signal(syscall.SIGHUP)
	cmd.Process.Signal(syscall.SIGTERM)
	goOn <- true
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
