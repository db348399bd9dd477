//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// A birth is what a fake daemon saw of itself when it was started.
type birth struct {
	PID, SID    int
	Args        []string
	Env         []string
	Dir         string
	Umask       int
	Descriptors map[string]string // number → what it is
}

// fakeDaemonMain is gatepassd for these tests. It writes down how it was born
// and does what the file "mode" beside it says: serve (the default), fail,
// die, or race (another daemon won).
func fakeDaemonMain() {
	if len(os.Args) == 2 && os.Args[1] == "--check" {
		fd, _ := strconv.Atoi(os.Getenv("GATEPASS_READY_FD"))
		os.NewFile(uintptr(fd), "ready").WriteString("ok\n")
		os.Exit(0)
	}
	exe, _ := os.Executable()
	dir := filepath.Dir(exe)
	b := birth{PID: os.Getpid(), Args: os.Args[1:], Env: os.Environ(), Descriptors: map[string]string{}}
	b.SID, _ = unix.Getsid(0)
	b.Dir, _ = os.Getwd()
	b.Umask = syscall.Umask(0o077)
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(target, "/proc/") {
			b.Descriptors[e.Name()] = target
		}
	}
	line, _ := json.Marshal(b)
	births, err := os.OpenFile(filepath.Join(dir, "births"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		os.Exit(2)
	}
	births.Write(append(line, '\n'))
	births.Close()

	fd, _ := strconv.Atoi(os.Getenv("GATEPASS_READY_FD"))
	ready := os.NewFile(uintptr(fd), "ready")
	mode, _ := os.ReadFile(filepath.Join(dir, "mode"))
	switch string(mode) {
	case "fail":
		json.NewEncoder(ready).Encode(broker.Errorf(broker.CodeConfig, "gatepass.toml:3: unknown key \"colour\"").WithHint("remove it"))
		os.Exit(78)
	case "die":
		os.Exit(3)
	case "race":
		fmt.Fprintln(ready, "ok")
		os.Exit(0)
	}
	l, err := net.Listen("unix", os.Getenv("GATEPASS_SOCKET"))
	if err != nil {
		json.NewEncoder(ready).Encode(broker.Errorf(broker.CodeInternal, "listen: %w", err))
		os.Exit(70)
	}
	fmt.Fprintln(ready, "ok")
	ready.Close()
	answer := func(w http.ResponseWriter, v string) {
		w.Header().Set(wire.VersionHeader, strconv.Itoa(wire.Version))
		w.Header().Set("Content-Length", strconv.Itoa(len(v)))
		w.Write([]byte(v))
	}
	mux := http.NewServeMux()
	mux.HandleFunc(wire.PathCredentials, func(w http.ResponseWriter, _ *http.Request) { answer(w, document) })
	mux.HandleFunc(wire.PathStatus, func(w http.ResponseWriter, _ *http.Request) {
		v, _ := json.Marshal(broker.Status{Daemon: broker.DaemonStatus{PID: os.Getpid(), Version: broker.Version(), Started: time.Now(), Socket: l.Addr().String()}})
		answer(w, string(v))
	})
	mux.HandleFunc(wire.PathStop, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, fmt.Sprintf(`{"pid":%d}`, os.Getpid()))
		time.AfterFunc(100*time.Millisecond, func() { // as if requests were under way
			l.Close()
			os.Exit(0)
		})
	})
	http.Serve(l, mux)
	select {} // until the exit above
}

// births returns how the daemons of a programs directory were started, and
// has those that live ended when the test is.
func births(t testing.TB, dir string) []birth {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "births"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var all []birth
	for line := range strings.Lines(string(data)) {
		var b birth
		if err := json.Unmarshal([]byte(line), &b); err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// installed is a home with both programs, in the mode of fakeDaemonMain.
func installed(t testing.TB, mode string) (h *home, dir string) {
	t.Helper()
	h, dir = newHome(t), programs(t)
	h.programs = []string{filepath.Join(dir, "gatepass")}
	if mode != "" {
		if err := os.WriteFile(filepath.Join(dir, "mode"), []byte(mode), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, b := range births(t, dir) {
			syscall.Kill(b.PID, syscall.SIGKILL)
		}
	})
	return h, dir
}

// The first request starts the daemon, which inherits nothing.
func TestFirstRequestStartsTheDaemon(t *testing.T) {
	h, dir := installed(t, "")
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "x", "AWS_PROFILE": "x", "AWS_ENDPOINT_URL": "x", "HTTPS_PROXY": "x", "LD_PRELOAD_X": "x",
		"GODEBUG": "", "GATEPASS_REASON": "x", "LC_ALL": "C.UTF-8", "XDG_SESSION_ID": "3", "DISPLAY": ":0", "SSL_CERT_FILE": "/x",
		"DBUS_SESSION_BUS_ADDRESS": "disabled:", "GATEPASS_FILE_PASSPHRASE": "pass",
	} {
		h.env[k] = v
	}
	leak, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	cmd := exec.Command(filepath.Join(dir, "gatepass"), "credential-process", "ops")
	cmd.Env = h.environ()
	cmd.ExtraFiles = []*os.File{leak, leak, leak} // descriptors that a careless parent left open
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != document {
		t.Fatalf("%v\n%s", err, out)
	}
	all := births(t, dir)
	if len(all) != 1 {
		t.Fatalf("%d daemons were started", len(all))
	}
	b := all[0]
	if b.SID != b.PID || b.Dir != "/" || b.Umask != 0o077 || len(b.Args) != 0 {
		t.Errorf("born with session %d of process %d, in %s, umask %o, arguments %q", b.SID, b.PID, b.Dir, b.Umask, b.Args)
	}
	names := make([]string, 0, len(b.Env))
	for _, v := range b.Env {
		name, _, _ := strings.Cut(v, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	want := []string{"DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "GATEPASS_FILE_PASSPHRASE", "GATEPASS_READY_FD", "GATEPASS_SOCKET", "HOME",
		"LC_ALL", "PATH", "XDG_CONFIG_HOME", "XDG_SESSION_ID", "XDG_STATE_HOME"}
	if !slices.Equal(names, want) {
		t.Errorf("environment %q, want %q", names, want)
	}
	for fd, target := range b.Descriptors {
		switch {
		case fd <= "2" && len(fd) == 1 && target == os.DevNull:
		case fd == "3" && strings.HasPrefix(target, "pipe:"):
		case strings.HasPrefix(target, "anon_inode:"), strings.HasPrefix(target, "/sys/fs/cgroup/"): // the Go runtime's own
		default:
			t.Errorf("the daemon inherited descriptor %s: %s", fd, target)
		}
	}
	if r := h.run("credential-process", "ops"); r.stdout != document {
		t.Errorf("the second request: %+v", r)
	}
	if len(births(t, dir)) != 1 {
		t.Error("the second request started another daemon")
	}
}

// However many clients race, one daemon is started and all are served.
func TestRacingClientsStartOneDaemon(t *testing.T) {
	h, dir := installed(t, "")
	const goroutines, processes = 1000, 40
	results := make(chan result, goroutines+processes)
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() { results <- h.run("credential-process", "ops") })
	}
	for range processes {
		wg.Go(func() { results <- h.exec(filepath.Join(dir, "gatepass"), "credential-process", "ops") })
	}
	wg.Wait()
	close(results)
	for r := range results {
		if r != (result{stdout: document}) {
			t.Fatalf("%+v", r)
		}
	}
	if n := len(births(t, dir)); n != 1 {
		t.Errorf("%d daemons were started", n)
	}
}

func TestStartFailures(t *testing.T) {
	t.Run("it says why", func(t *testing.T) {
		h, _ := installed(t, "fail")
		r := h.run("credential-process", "ops")
		want := result{"", "gatepass: gatepassd did not start: gatepass.toml:3: unknown key \"colour\"\ngatepass: remove it\n", 78}
		if r != want {
			t.Errorf("got %+v, want %+v", r, want)
		}
	})
	t.Run("it dies", func(t *testing.T) {
		h, _ := installed(t, "die")
		r := h.run("credential-process", "ops")
		want := result{"", "gatepass: gatepassd ended before it was ready (exit status 3)\ngatepass: its diagnostics: " +
			h.env["XDG_STATE_HOME"] + "/gatepass/gatepassd.log\n", 69}
		if r != want {
			t.Errorf("got %+v, want %+v", r, want)
		}
	})
	t.Run("it is nowhere", func(t *testing.T) {
		h := newHome(t)
		if r := h.run("credential-process", "ops"); r.code != 69 || !strings.Contains(r.stderr, "neither beside gatepass nor on PATH") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("it is no program", func(t *testing.T) {
		h, dir := installed(t, "")
		os.Remove(filepath.Join(dir, "gatepassd"))
		os.WriteFile(filepath.Join(dir, "gatepassd"), []byte("not a program"), 0o700)
		if r := h.run("credential-process", "ops"); r.code != 69 || !strings.Contains(r.stderr, "exec format error") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("it lost the race and the winner is gone", func(t *testing.T) {
		h, _ := installed(t, "race")
		if r := h.run("credential-process", "ops"); r.code != 69 || !strings.Contains(r.stderr, "does not answer at") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("forbidden", func(t *testing.T) {
		h, dir := installed(t, "")
		h.env["GATEPASS_AUTOSTART"] = "0"
		r := h.run("credential-process", "ops")
		want := result{"", "gatepass: no daemon is running, and GATEPASS_AUTOSTART=0 forbids starting one\ngatepass: start it: gatepass daemon start\n", 69}
		if r != want || len(births(t, dir)) != 0 {
			t.Errorf("got %+v, want %+v", r, want)
		}
	})
	t.Run("below a lease", func(t *testing.T) {
		h, dir := installed(t, "")
		h.lease = 4711
		for _, args := range [][]string{{"credential-process", "ops"}, {"daemon", "start"}, {"daemon", "restart"}, {"daemon", "start", "--foreground"}} {
			r := h.run(args...)
			want := result{"", "gatepass: no daemon is started below a lease, and process 4711 holds one\ngatepass: start it outside: gatepass daemon start\n", 69}
			if r != want || len(births(t, dir)) != 0 {
				t.Errorf("%q: got %+v, want %+v", args, r, want)
			}
		}
	})
	t.Run("others may write beside the socket", func(t *testing.T) {
		h, dir := installed(t, "")
		run := filepath.Dir(h.socket())
		os.Mkdir(run, 0o700)
		os.Chmod(run, 0o777)
		if r := h.run("credential-process", "ops"); r.code != 78 || len(births(t, dir)) != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("a link in the lock's place", func(t *testing.T) {
		h, dir := installed(t, "")
		os.Mkdir(filepath.Dir(h.socket()), 0o700)
		os.Symlink(filepath.Join(h.env["HOME"], "victim"), h.socket()+".starting")
		if r := h.run("credential-process", "ops"); r.code != 69 || len(births(t, dir)) != 0 {
			t.Errorf("%+v", r)
		}
		if _, err := os.Stat(filepath.Join(h.env["HOME"], "victim")); err == nil {
			t.Error("the link was followed")
		}
	})
}

// A real ancestor whose program was started with GATEPASS_LEASE keeps the
// daemon from being started, whatever the environment says by then.
func TestNoDaemonBelowALease(t *testing.T) {
	h, dir := installed(t, "")
	gatepass := filepath.Join(dir, "gatepass")
	for _, script := range []string{
		`GATEPASS_LEASE=l-1 ` + gatepass + ` credential-process ops`,
		`GATEPASS_LEASE=l-1 /bin/sh -c 'unset GATEPASS_LEASE; ` + gatepass + ` credential-process ops; exit $?'`,
	} {
		r := h.exec("/bin/sh", "-c", script+"; exit $?")
		if r.code != 69 || r.stdout != "" || !strings.Contains(r.stderr, "below a lease") || len(births(t, dir)) != 0 {
			t.Errorf("%s: %+v", script, r)
		}
	}
}

func TestDaemonCommands(t *testing.T) {
	h, dir := installed(t, "")
	if r := h.run("daemon", "status"); r.code != 69 || r.stdout != "" || !strings.HasPrefix(r.stderr, "gatepass: the daemon is not running\n") {
		t.Errorf("status of none: %+v", r)
	}
	if r := h.run("status"); r.code != 69 || r.stdout != "" || len(births(t, dir)) != 0 {
		t.Errorf("status starts none: %+v", r)
	}
	if r := h.run("daemon", "stop"); r != (result{stderr: "gatepass: the daemon is not running\n"}) {
		t.Errorf("stop of none: %+v", r)
	}
	h.env["GATEPASS_AUTOSTART"] = "0" // which is not about an explicit start
	for range 2 {
		if r := h.run("daemon", "start"); r != (result{}) {
			t.Errorf("start: %+v", r)
		}
	}
	all := births(t, dir)
	if len(all) != 1 {
		t.Fatalf("%d daemons were started", len(all))
	}
	if r := h.run("daemon", "status"); r.code != 0 || !strings.Contains(r.stdout, fmt.Sprintf("pid      %d\n", all[0].PID)) || r.stderr != "" {
		t.Errorf("status: %+v", r)
	}
	if r := h.run("daemon", "restart"); r != (result{}) {
		t.Errorf("restart: %+v", r)
	}
	if r := h.exec(filepath.Join(dir, "gatepass"), "daemon", "stop"); r != (result{}) {
		t.Errorf("stop: %+v", r)
	}
	all = births(t, dir)
	if len(all) != 2 {
		t.Fatalf("%d daemons were started", len(all))
	}
	for _, b := range all {
		// Started by this process, it waits as a zombie for its parent; else it
		// is about to end.
		var status syscall.WaitStatus
		if pid, err := syscall.Wait4(b.PID, &status, 0, nil); pid == b.PID && status.Exited() || err != syscall.ECHILD {
			continue
		}
		for deadline := time.Now().Add(30 * time.Second); syscall.Kill(b.PID, 0) == nil; {
			if time.Now().After(deadline) {
				t.Fatalf("daemon %d lives on after stop", b.PID)
			}
		}
	}
}

func TestDaemonForeground(t *testing.T) {
	h, dir := installed(t, "die")
	r := h.exec(filepath.Join(dir, "gatepass"), "daemon", "start", "--foreground")
	all := births(t, dir)
	if r.code != 3 || len(all) != 1 || !slices.Equal(all[0].Args, []string{"--foreground"}) {
		t.Errorf("%+v, %+v", r, all)
	}
}

// gatepassd is found beside the program that a link leads to, beside the
// link, and on PATH.
func TestDaemonProgram(t *testing.T) {
	real, links, path := t.TempDir(), t.TempDir(), t.TempDir()
	for _, dir := range []string{real, links, path} {
		if err := os.WriteFile(filepath.Join(dir, "gatepassd"), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", path)
	h := newHome(t)
	h.programs = []string{filepath.Join(real, "gatepass"), filepath.Join(links, "gatepass")}
	for _, want := range []string{real, links, path} {
		got, err := h.command(nil, nil).daemonProgram()
		if err != nil || filepath.Dir(got) != want {
			t.Errorf("%s, %v; want it in %s", got, err, want)
		}
		os.Chmod(filepath.Join(want, "gatepassd"), 0o600) // no program any more
	}
	if got, err := h.command(nil, nil).daemonProgram(); broker.CodeOf(err) != broker.CodeDaemonUnreachable {
		t.Errorf("%s, %v", got, err)
	}
}
