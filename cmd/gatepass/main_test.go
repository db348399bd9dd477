package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// standIns are the programs that the test binary stands in for, by the name
// that it is called by: gatepass is the real command, gatepassd a daemon that
// does as the file "mode" beside it says.
var standIns = map[string]func(){"gatepass": main, "gatepassd": fakeDaemonMain}

func TestMain(m *testing.M) {
	if standIn := standIns[filepath.Base(os.Args[0])]; standIn != nil {
		standIn()
		return
	}
	time.Local = time.UTC // what is shown as local time is compared
	// Most of the time they wait for programs. A -parallel of one's own counts.
	if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	status := m.Run()
	if builtPrograms != "" {
		os.RemoveAll(builtPrograms)
	}
	os.Exit(status)
}

// builtPrograms is where the real programs were built, if they were.
var builtPrograms string

// programs returns a directory that holds both programs.
func programs(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"gatepass", "gatepassd"} {
		if os.Link(self, filepath.Join(dir, name)) == nil {
			continue
		}
		data, err := os.ReadFile(self)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A result is what a run of gatepass left behind.
type result struct {
	stdout, stderr string
	code           int
}

// A home is a user's surroundings: its variables, and a socket at which a
// daemon may listen.
type home struct {
	t        testing.TB
	env      map[string]string
	stdin    string
	answers  []string // what is typed at prompts; none means that there is no terminal
	asked    []string // the prompts
	lease    int
	programs []string
	patience time.Duration

	mu sync.Mutex // held while a served route answers
}

func newHome(t testing.TB) *home {
	dir, err := os.MkdirTemp("", "gp") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &home{t: t, patience: 10 * time.Second, env: map[string]string{
		"HOME": dir, "XDG_STATE_HOME": filepath.Join(dir, "state"), "XDG_CONFIG_HOME": filepath.Join(dir, "config"),
		"GATEPASS_SOCKET": filepath.Join(dir, "run", "gatepass.sock"), "PATH": "/nonexistent",
		"GORACE": raceOptions,
	}}
}

func (h *home) socket() string { return h.env["GATEPASS_SOCKET"] }

func (h *home) command(stdout, stderr *bytes.Buffer) *client {
	return &client{
		getenv:  func(name string) string { return h.env[name] },
		environ: h.environ,
		stdin:   strings.NewReader(h.stdin),
		stdout:  stdout,
		stderr:  stderr,
		canAsk:  func(bool) bool { return len(h.answers) > 0 },
		terminal: func(_ context.Context, question string, e echo) (string, error) {
			if len(h.answers) == 0 {
				return "", errNoTerminal
			}
			h.asked = append(h.asked, question+strconv.FormatBool(bool(e)))
			a := h.answers[0]
			h.answers = h.answers[1:]
			return a, nil
		},
		leaseAbove: func() int { return h.lease },
		self:       func() []string { return h.programs },
		patience:   h.patience,
	}
}

func (h *home) environ() []string {
	var env []string
	for k, v := range h.env {
		env = append(env, k+"="+v)
	}
	return env
}

// run runs gatepass in this process.
func (h *home) run(args ...string) result {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	err := h.command(&stdout, &stderr).run(context.Background(), args)
	code := 0
	if err != nil {
		report(&stderr, err)
		code = statusOf(err)
	}
	return result{stdout.String(), stderr.String(), code}
}

// exec runs gatepass as a process.
func (h *home) exec(program string, args ...string) result {
	h.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = h.environ()
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(h.stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		h.t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// serve makes a daemon listen on the home's socket. Each route is answered by
// what answer returns for the request's body.
func (h *home) serve(answers map[string]func(body []byte) (status int, header map[string]string, answer string)) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.socket()), 0o700); err != nil {
		h.t.Fatal(err)
	}
	l, err := net.Listen("unix", h.socket())
	if err != nil {
		h.t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		body.ReadFrom(r.Body)
		w.Header().Set(wire.VersionHeader, strconv.Itoa(wire.Version))
		answer := answers[r.Method+" "+r.URL.Path]
		if answer == nil {
			w.WriteHeader(404)
			w.Write([]byte(`{"code":"internal","message":"no such route in this test: ` + r.Method + " " + r.URL.Path + `"}`))
			return
		}
		status, header, text := func() (int, map[string]string, string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return answer(body.Bytes())
		}()
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		w.WriteHeader(status)
		w.Write([]byte(text))
	})}
	go srv.Serve(l)
	h.t.Cleanup(func() { srv.Close() })
}

const document = `{"Version":1,"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"wJalr/XUtn+FEMI","SessionToken":"FwoG/tok+en==","Expiration":"2026-11-03T10:00:00Z","AccountId":"111122223333"}` + "\n"

// serveDocument serves a session for any profile and returns the requests.
func (h *home) serveDocument(region string) func() []wire.CredentialsRequest {
	var got []wire.CredentialsRequest
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathCredentials: func(body []byte) (int, map[string]string, string) {
			var r wire.CredentialsRequest
			if err := json.Unmarshal(body, &r); err != nil {
				h.t.Errorf("request %q: %v", body, err)
			}
			got = append(got, r)
			header := map[string]string{}
			if region != "" {
				header[wire.RegionHeader] = region
			}
			return 200, header, document
		},
	})
	return func() []wire.CredentialsRequest {
		h.mu.Lock()
		defer h.mu.Unlock()
		return got
	}
}

func jsonOf(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// everyCommand calls f with each command that can be typed.
func everyCommand(commands []*cli.Command, path []string, f func(path []string, cmd *cli.Command)) {
	for _, cmd := range commands {
		p := append(append([]string{}, path...), cmd.Name)
		f(p, cmd)
		everyCommand(cmd.Subcommands, p, f)
	}
}

func TestHelp(t *testing.T) {
	h := newHome(t)
	commands := h.command(nil, nil).commands()
	everyCommand(commands, nil, func(path []string, cmd *cli.Command) {
		name := strings.Join(path, " ")
		byFlag := h.run(append(path, "--help")...)
		byHelp := h.run(append([]string{"help"}, path...)...)
		if byFlag != byHelp || byFlag.code != 0 || byFlag.stderr != "" {
			t.Errorf("%s: --help and help differ: %+v, %+v", name, byFlag, byHelp)
		}
		text := byFlag.stdout
		if !strings.HasPrefix(text, "gatepass "+name+" ") || !strings.Contains(text, "\nusage: gatepass "+name) {
			t.Errorf("%s: the help does not begin with the command and its usage:\n%s", name, text)
		}
		for _, f := range cmd.Flags {
			if !strings.Contains(text, "--"+f.Names()[0]) {
				t.Errorf("%s: the help does not explain --%s", name, f.Names()[0])
			}
		}
	})
	pages := map[string]string{"": rootHelp, "first screen": firstScreen, "exit-codes": exitCodesHelp, "environment": environmentHelp}
	everyCommand(commands, nil, func(path []string, cmd *cli.Command) { pages[strings.Join(path, " ")] = cmd.UsageText })
	for name, text := range pages {
		for line := range strings.Lines(text) {
			if len(strings.TrimSuffix(line, "\n")) > 80 {
				t.Errorf("%s: wider than 80 columns: %s", name, line)
			}
		}
		if name == "first screen" {
			continue
		}
		_, examples, ok := strings.Cut(text, "\nexample")
		if !ok {
			t.Errorf("%s: the help has no example", name)
			continue
		}
		// Every example is understood as far as its arguments go.
		for line := range strings.Lines(examples) {
			_, typed, ok := strings.Cut(line, "gatepass ")
			if !ok {
				continue
			}
			typed, _, _ = strings.Cut(typed, ")")
			typed, _, _ = strings.Cut(typed, "|")
			typed, _, _ = strings.Cut(typed, ">")
			if _, err := arrange(commands, strings.Fields(typed)); err != nil {
				t.Errorf("%s: the example %q: %v", name, line, err)
			}
		}
	}
	for _, args := range [][]string{{}, {"help"}, {"--help"}, {"help", "--", "--help"}, {"help", "exit-codes"}, {"help", "environment"}, {"version"}} {
		if r := h.run(args...); r.code != 0 || r.stdout == "" || r.stderr != "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

// Every command refuses what makes no sense with 64, and says where to read on.
func TestUsageErrors(t *testing.T) {
	h := newHome(t)
	h.env["GATEPASS_AUTOSTART"] = "0"
	for _, line := range []string{
		"nonsense", "keys", "keys nonsense", "keys add", "keys add a b", "keys add work --stdin --env",
		"keys list extra", "keys remove", "keys remove a b", "keys rotate", "keys rotate a b", "credential-process", "credential-process a b",
		"credential-process --nonsense a", "credential-process a --region", "export", "export a b",
		"export a --format nonsense", "export a --duration soon", "export a --min-left -5", "export --unset a",
		"export --unset --format ini", "whoami a b", "whoami --nonsense", "status extra", "status --json=maybe", "status --json --watch", "status --watch --prompt", "status --watch",
		"exec", "exec a b", "exec a --", "exec a b -- c", "exec --env --imds a -- b", "exec a --nonsense -- b",
		"renew", "renew a b", "renew a --prompt shout", "end", "end a --all", "end --release",
		"profiles", "profiles nonsense", "profiles list extra", "profiles list --nonsense", "profiles show", "profiles show a b",
		"audit", "audit nonsense", "audit list extra", "audit verify extra", "audit list --since whenever",
		"audit list --until whenever", "audit list --limit some", "audit list --since=", "audit stats --until=", "audit list --follow --until today",
		"audit export extra", "audit export --format xml", "audit export --after -2", "audit export --after x", "audit export --since whenever",
		"audit report", "audit report x.html", "audit report -o x.html --since whenever", "audit report -o x.html --against=",
		"audit reconcile", "audit reconcile x --since whenever", "audit reconcile x --known-address y", "audit reconcile x --no-verify --key k",
		"daemon", "daemon start extra",
		"daemon stop extra", "daemon restart extra", "daemon status extra", "version extra",
		"help nonsense", "help -- -- keys", "help keys nonsense", "--nonsense", "--json status",
	} {
		r := h.run(strings.Fields(line)...)
		if r.code != 64 || r.stdout != "" || !strings.HasPrefix(r.stderr, "gatepass: ") {
			t.Errorf("%s: %+v", line, r)
		}
	}
	for _, line := range []string{"audit list --limit some", "audit export --after x", "status --json=maybe"} {
		command, _, _ := strings.Cut(line, " --")
		if r := h.run(strings.Fields(line)...); !strings.HasSuffix(r.stderr, "\ngatepass: see: gatepass "+command+" --help\n") {
			t.Errorf("%s: %+v", line, r)
		}
	}
	if r := h.run("credential-process", ""); r.code != 64 {
		t.Errorf("an empty name: %+v", r)
	}
}

// What others wrote never reaches a terminal as it is.
func TestErrorsAreSafeToShow(t *testing.T) {
	h := newHome(t)
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathCredentials: func([]byte) (int, map[string]string, string) {
			return 403, nil, jsonOf(t, broker.Error{Code: broker.CodeAWSDenied, Message: "AWS says \x1b[2J\u202eno\r\nto you", Hint: "ask\x07"})
		},
	})
	r := h.run("credential-process", "ops")
	want := result{"", "gatepass: AWS says \\x1b[2J\\u202eno\\x0d\ngatepass: to you\ngatepass: ask\\x07\n", 77}
	if r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
}
