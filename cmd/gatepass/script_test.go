//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"gatepass/broker/audit/reconcile/trailtest"
)

// TestScripts runs testdata/script/*.txtar against the real programs, each
// script in a home of its own with a daemon of its own.
//
// Commands beside testscript's:
//
//	sandbox [FLAG...]      start gatepass-sandbox; sets $SANDBOX and writes gatepass.toml
//	fault JSON             tell the sandbox to misbehave; "fault off" ends it
//	calls ACTION N         the sandbox was asked ACTION N times
//	calls                  print what it was asked since the last time, a call a line
//	trail DIR              write what it was asked since as CloudTrail's files
//	exits N CMD...         CMD ends with status N
//	key USER NAME          store the sandbox's key of USER as NAME
//	many N CMD...          run CMD N times at once; each must succeed
//	killdaemon [SIGNAL]    kill -9 (or SIGNAL) the daemon and wait until it is gone
//	syslogd FILE           take the log's entries into FILE, by syslog at $SYSLOG; "syslogd off" ends it
//	noleak TEXT FILE...    no file, nor the last output, holds TEXT
//	cluster CMD...         start a Kubernetes API server whose users CMD gives a token; sets $KUBECONFIG
func TestScripts(t *testing.T) {
	bin := buildPrograms(t)
	root, err := os.MkdirTemp("", "gp") // short: a socket's path must fit 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	testscript.Run(t, testscript.Params{
		Dir:         filepath.Join("testdata", "script"),
		WorkdirRoot: root,
		Setup:       func(env *testscript.Env) error { return setup(env, bin) },
		Condition:   condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"sandbox":    startSandbox,
			"fault":      fault,
			"calls":      calls,
			"trail":      writeTrail,
			"exits":      exits,
			"key":        storeKey,
			"many":       many,
			"killdaemon": killDaemon,
			"syslogd":    syslogd,
			"noleak":     noLeak,
			"cluster":    startCluster,
		},
	})
}

// built builds the programs and returns where they are.
var built = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "gatepass-bin"); err != nil {
		return "", err
	}
	builtPrograms = dir
	args := []string{"build", "-tags", "urfave_cli_no_docs", "-o", dir + string(filepath.Separator)}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "gatepass/cmd/gatepass", "gatepass/cmd/gatepassd", "gatepass/cmd/gatepass-sandbox",
		"gatepass/cmd/gatepass/testdata/gosdk")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return dir, nil
})

// buildPrograms builds the real programs, once, as install.sh does, and with
// -race if this test is. It returns their directory.
func buildPrograms(tb testing.TB) string {
	tb.Helper()
	dir, err := built()
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

// buildConfigReader builds, once and beside the programs, the one that reads an
// AWS config with the SDK for Go. What it is made of may not be here, and then
// it takes the network.
var buildConfigReader = sync.OnceValue(func() error {
	bin, err := built()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-o", bin+string(filepath.Separator), ".")
	cmd.Dir = filepath.Join("testdata", "gosdkconfig")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
})

// setup gives a script a home in which nothing of the user's is in reach.
func setup(env *testscript.Env, bin string) error {
	home, run := filepath.Join(env.WorkDir, "home"), filepath.Join(env.WorkDir, "run")
	config, aws := filepath.Join(home, ".config", "gatepass"), filepath.Join(home, ".aws")
	for _, dir := range []string{home, run, config, aws} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	env.Setenv("HOME", home)
	env.Setenv("XDG_RUNTIME_DIR", run)
	env.Setenv("STATE", filepath.Join(home, ".local", "state", "gatepass"))
	env.Setenv("TOML", filepath.Join(config, "gatepass.toml"))
	env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
	env.Setenv("BIN", bin)
	env.Setenv("GATEPASS_FILE_PASSPHRASE", "correct horse")
	env.Setenv("GORACE", raceOptions)
	// The AWS CLI may be a shim of a version manager that looks in HOME.
	for _, v := range []string{"PYENV_ROOT", "NVM_DIR"} {
		env.Setenv(v, os.Getenv(v))
	}
	if env.Getenv("PYENV_ROOT") == "" {
		if user, err := os.UserHomeDir(); err == nil {
			env.Setenv("PYENV_ROOT", filepath.Join(user, ".pyenv"))
		}
	}
	// install.sh builds, with the caches that are there.
	repo, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return err
	}
	env.Setenv("INSTALL", filepath.Join(repo, "install.sh"))
	caches, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS").Output()
	if err != nil {
		return err
	}
	for i, value := range strings.Split(strings.TrimRight(string(caches), "\n"), "\n") {
		env.Setenv([]string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS"}[i], value)
	}
	// What a system without Go has.
	tools := filepath.Join(env.WorkDir, "tools")
	if err := os.Mkdir(tools, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"sh", "sed", "awk", "dirname", "mkdir", "mktemp", "rm"} {
		if path, err := exec.LookPath(name); err == nil {
			if err := os.Symlink(path, filepath.Join(tools, name)); err != nil {
				return err
			}
		}
	}
	env.Setenv("GATEPASS_JS_SDK", os.Getenv("GATEPASS_JS_SDK"))
	env.Setenv("GATEPASS_AWS_VAULT", os.Getenv("GATEPASS_AWS_VAULT"))
	if err := os.WriteFile(env.Getenv("TOML"), []byte("keychain = \"file\"\n"), 0o600); err != nil {
		return err
	}
	env.Defer(func() {
		stop := exec.Command(filepath.Join(bin, "gatepass"), "daemon", "stop")
		stop.Env = env.Vars
		stop.Run()
	})
	return nil
}

// condition is [real:NAME], true if the program NAME is here. Under
// GATEPASS_REAL=1 it must be.
func condition(cond string) (bool, error) {
	name, ok := strings.CutPrefix(cond, "real:")
	if !ok {
		switch cond {
		case "root":
			return os.Getuid() == 0, nil
		case "race":
			return raceEnabled, nil
		}
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	var err error
	switch name {
	case "boto3":
		err = exec.Command("python3", "-c", "import boto3").Run()
	case "go-config":
		err = buildConfigReader()
	case "js-sdk":
		_, err = os.Stat(filepath.Join(os.Getenv("GATEPASS_JS_SDK"), "@aws-sdk", "client-sts"))
		if os.Getenv("GATEPASS_JS_SDK") == "" {
			err = fmt.Errorf("GATEPASS_JS_SDK names no node_modules")
		}
	case "aws-vault":
		_, err = exec.LookPath(os.Getenv("GATEPASS_AWS_VAULT"))
	default:
		_, err = exec.LookPath(name)
	}
	if err != nil && os.Getenv("GATEPASS_REAL") == "1" {
		return false, fmt.Errorf("%s is required under GATEPASS_REAL=1: %w", name, err)
	}
	return err == nil, nil
}

func startSandbox(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("sandbox cannot be negated")
	}
	addr := ts.MkAbs("sandbox.addr")
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(ts.Getenv("BIN"), "gatepass-sandbox"), append([]string{"--quiet", "--addr-file", addr}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Stderr = &log
	ts.Check(cmd.Start())
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	ts.Defer(func() { cmd.Process.Kill(); <-exited })
	url := strings.TrimSpace(waitForFile(ts, addr, exited, &log))
	ts.Setenv("SANDBOX", url)
	toml, err := os.OpenFile(ts.Getenv("TOML"), os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	_, err = fmt.Fprintf(toml, "[aws]\nendpoint_url = %q\n", url)
	ts.Check(err)
	ts.Check(toml.Close())
}

func waitForFile(ts *testscript.TestScript, path string, exited <-chan struct{}, log fmt.Stringer) string {
	for range time.Tick(10 * time.Millisecond) {
		if data, err := os.ReadFile(path); err == nil && len(data) > 0 {
			return string(data)
		}
		select {
		case <-exited:
			ts.Fatalf("it ended: %s", log)
		default:
		}
	}
	panic("unreachable")
}

func fault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fault JSON|off")
	}
	method, body := http.MethodPost, args[0]
	if body == "off" {
		method, body = http.MethodDelete, ""
	}
	req, err := http.NewRequest(method, ts.Getenv("SANDBOX")+"/sandbox/fault", strings.NewReader(body))
	ts.Check(err)
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(resp.Body)
		ts.Fatalf("%s: %s", resp.Status, text)
	}
}

func calls(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 && !neg {
		printCalls(ts)
		return
	}
	if len(args) != 2 {
		ts.Fatalf("usage: calls [ACTION N]")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	resp, err := http.Get(ts.Getenv("SANDBOX") + "/sandbox/calls")
	ts.Check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	var got struct {
		Counts map[string]int `json:"counts"`
	}
	ts.Check(json.Unmarshal(text, &got))
	if (got.Counts[args[0]] == want) == neg {
		ts.Fatalf("%s was asked %d times, not %d\n%s", args[0], got.Counts[args[0]], want, text)
	}
}

func printCalls(ts *testscript.TestScript) {
	var got struct {
		Calls []json.RawMessage `json:"calls"`
	}
	ts.Check(json.Unmarshal(takeCalls(ts), &got))
	for _, call := range got.Calls {
		var line bytes.Buffer
		ts.Check(json.Compact(&line, call))
		fmt.Fprintf(ts.Stdout(), "%s\n", line.Bytes())
	}
}

// takeCalls returns the sandbox's record, and has it begin anew.
func takeCalls(ts *testscript.TestScript) []byte {
	url := ts.Getenv("SANDBOX") + "/sandbox/calls"
	resp, err := http.Get(url)
	ts.Check(err)
	defer resp.Body.Close()
	record, err := io.ReadAll(resp.Body)
	ts.Check(err)
	forget, err := http.NewRequest(http.MethodDelete, url, nil)
	ts.Check(err)
	done, err := http.DefaultClient.Do(forget)
	ts.Check(err)
	done.Body.Close()
	return record
}

func writeTrail(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: trail DIR")
	}
	t := trailtest.New(uint64(len(args[0]))) // files of two directories differ in their names
	ts.Check(t.Calls(takeCalls(ts)))
	ts.Check(t.Write(ts.MkAbs(args[0])))
}

func storeKey(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: key USER NAME")
	}
	print := exec.Command(filepath.Join(ts.Getenv("BIN"), "gatepass-sandbox"), "--print-key", args[0])
	key, err := print.Output()
	ts.Check(err)
	add := command(ts, "gatepass", "keys", "add", args[1], "--stdin")
	add.Stdin = bytes.NewReader(key)
	out, err := add.CombinedOutput()
	fmt.Fprintf(ts.Stderr(), "%s", out)
	if (err == nil) == neg {
		ts.Fatalf("keys add: %v", err)
	}
}

// exits runs CMD by testscript's exec, whose outputs later lines look at.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N CMD...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	fmt.Fprint(ts.Stdout(), ts.ReadFile("stdout"))
	fmt.Fprint(ts.Stderr(), ts.ReadFile("stderr"))
	if got != want {
		ts.Fatalf("%v ends with %d, not %d", args[1:], got, want)
	}
}

// command is a program of ours in the script's environment.
func command(ts *testscript.TestScript, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(ts.Getenv("BIN"), name), args...)
	cmd.Dir = ts.MkAbs(".")
	for _, v := range []string{"HOME", "XDG_RUNTIME_DIR", "PATH", "GATEPASS_FILE_PASSPHRASE", "GATEPASS_SOCKET", "GATEPASS_AUTOSTART", "DBUS_SESSION_BUS_ADDRESS", "GORACE"} {
		if ts.Getenv(v) != "" {
			cmd.Env = append(cmd.Env, v+"="+ts.Getenv(v))
		}
	}
	return cmd
}

func many(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: many N CMD...")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	type result struct {
		out []byte
		err error
	}
	results := make(chan result, n)
	for range n {
		go func() {
			cmd := command(ts, args[1], args[2:]...)
			out, err := cmd.Output()
			if e, ok := err.(*exec.ExitError); ok {
				err = fmt.Errorf("%w: %s", err, e.Stderr)
			}
			results <- result{out, err}
		}()
	}
	outputs := map[string]int{}
	for range n {
		r := <-results
		if r.err != nil {
			ts.Fatalf("%v: %v", args[1:], r.err)
		}
		outputs[string(r.out)]++
	}
	fmt.Fprintf(ts.Stdout(), "%d different outputs\n", len(outputs))
}

func killDaemon(ts *testscript.TestScript, neg bool, args []string) {
	sig := syscall.SIGKILL
	if len(args) == 1 {
		sig = map[string]syscall.Signal{"TERM": syscall.SIGTERM, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT, "HUP": syscall.SIGHUP}[args[0]]
	}
	out, err := command(ts, "gatepass", "status", "--json").Output()
	ts.Check(err)
	var status struct {
		Daemon struct {
			PID int `json:"pid"`
		} `json:"daemon"`
	}
	ts.Check(json.Unmarshal(out, &status))
	ts.Check(syscall.Kill(status.Daemon.PID, sig))
	if sig == syscall.SIGSTOP || sig == syscall.SIGCONT {
		return
	}
	for range time.Tick(5 * time.Millisecond) {
		// A zombie that nobody reaps is gone as well, once it has no thread
		// besides: until then its socket answers.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", status.Daemon.PID))
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", status.Daemon.PID))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) && len(threads) < 2 {
			if runtime.GOOS == "linux" || syscall.Kill(status.Daemon.PID, 0) != nil {
				return
			}
		}
	}
}

func noLeak(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: noleak TEXT FILE...")
	}
	for _, name := range args[1:] {
		err := filepath.WalkDir(ts.MkAbs(name), func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if err == nil && bytes.Contains(data, []byte(args[0])) {
				err = fmt.Errorf("%s holds it", path)
			}
			return err
		})
		ts.Check(err)
	}
	if out := ts.ReadFile("stdout") + ts.ReadFile("stderr"); strings.Contains(out, args[0]) {
		ts.Fatalf("the output holds it")
	}
}

// syslogs are the receivers that run, by address.
var syslogs sync.Map

// syslogd takes messages of RFC 6587 and keeps what follows their header. Where
// it ran before, it listens at the same address again.
func syslogd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: syslogd FILE|off")
	}
	addr := ts.Getenv("SYSLOG")
	if args[0] == "off" {
		l, _ := syslogs.LoadAndDelete(addr)
		ts.Check(l.(net.Listener).Close())
		return
	}
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	ts.Check(err)
	ts.Setenv("SYSLOG", l.Addr().String())
	syslogs.Store(l.Addr().String(), l)
	ts.Defer(func() { l.Close() })
	out, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	ts.Check(err)
	go func() {
		defer out.Close()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			for in := bufio.NewReader(conn); ; {
				var n int
				if _, err := fmt.Fscanf(in, "%d ", &n); err != nil {
					break
				}
				msg := make([]byte, n)
				if _, err := io.ReadFull(in, msg); err != nil {
					break
				}
				out.Write(append(msg[bytes.IndexByte(msg, '{'):], '\n'))
			}
			conn.Close()
		}
	}()
}
