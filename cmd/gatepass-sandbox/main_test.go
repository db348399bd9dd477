package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatepass/broker/sts/ststest"
)

// TestMain lets the test binary stand in for the program.
func TestMain(m *testing.M) {
	if os.Getenv("GATEPASS_SANDBOX_TEST_MAIN") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

func output(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var stdout bytes.Buffer
	err := run(t.Context(), args, &stdout, io.Discard)
	return stdout.String(), err
}

func TestPrint(t *testing.T) {
	if out, err := output(t, "--print-config"); err != nil || out != ststest.ExampleTOML {
		t.Errorf("--print-config: %v\n%s", err, out)
	}
	if out, err := output(t, "--print-key", "alice"); err != nil || out != "AKIAEXAMPLEALICE0001\nthis/key+of/alice+is/public+EXAMPLE/0001\n" {
		t.Errorf("--print-key: %v %q", err, out)
	}
	if out, err := output(t, "--print-key", "root"); err != nil || !strings.HasPrefix(out, "AKIAEXAMPLEROOT00001\n") {
		t.Errorf("--print-key root: %v %q", err, out)
	}
	seed := ststest.Example().Device("alice").Seed
	before := ststest.TOTP(seed, time.Now())
	out, err := output(t, "--print-code", "alice")
	if after := ststest.TOTP(seed, time.Now()); err != nil || out != before+"\n" && out != after+"\n" {
		t.Errorf("--print-code: %v %q", err, out)
	}
	if out, err := output(t, "--help"); err != nil || out != usage {
		t.Errorf("--help: %v %q", err, out)
	}
	out, err = output(t, "--print-setup", "http://127.0.0.1:4599")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"[aws]\nendpoint_url = \"http://127.0.0.1:4599\"\n",
		"[profile sandbox]\ngatepass_key       = alice\ngatepass_role_arn  = " + ststest.DeployARN + "\n",
		"\nendpoint_url       = http://127.0.0.1:4599\ncredential_process = ",
		"\ngatepass-sandbox --print-key alice | gatepass keys add alice --stdin\n",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("--print-setup lacks %q:\n%s", line, out)
		}
	}
	if strings.Contains(out, ststest.Example().Key("alice").Secret) {
		t.Error("--print-setup shows a secret")
	}
}

func TestOwnConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "it's mine.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("[[account]]\nid = \"999999999999\"\n[[account.user]]\nname = \"dora\"\n[[account.user.key]]\nid = \"AKIAEXAMPLEDORA00001\"\nsecret = \"s\"\n")
	if out, err := output(t, "--config", file, "--print-key", "dora"); err != nil || out != "AKIAEXAMPLEDORA00001\ns\n" {
		t.Errorf("%v %q", err, out)
	}
	if out, err := output(t, "--config", file, "--print-setup", "x"); err != nil || !strings.Contains(out, `it'\''s mine.toml' --print-key dora |`) || strings.Contains(out, "role_arn") {
		t.Errorf("%v %s", err, out)
	}
	for text, want := range map[string]string{
		"colour = 1\n":                 file + ":1: unknown key colour",
		"[[account]]\nid = \"1\"\n":    file + ": account \"1\": an account's id is 12 digits",
		"[[account]]\nid = 12\n":       file + ":2: ",
		"[[account]]\nid = \"\n\x00\"": file + ":2: ",
	} {
		write(text)
		if _, err := output(t, "--config", file, "--print-key", "dora"); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		args  []string
		usage bool
		want  string
	}{
		{[]string{"--listen", "0.0.0.0:0"}, true, "not a loopback address"},
		{[]string{"--listen", ":0"}, true, "not a loopback address"},
		{[]string{"--listen", "192.0.2.1:0"}, true, "not a loopback address"},
		{[]string{"--listen", "[::]:0"}, true, "not a loopback address"},
		{[]string{"--listen", "localhost.example:0"}, true, "not a loopback address"},
		{[]string{"--listen", "4599"}, true, "missing port"},
		{[]string{"--listen", "127.0.0.1:x"}, false, "x"},
		{[]string{"start"}, true, `unexpected argument "start"`},
		{[]string{"--colour"}, true, "colour"},
		{[]string{"--tls-cert", "x"}, true, "go together"},
		{[]string{"--print-key", "eve"}, false, `no user "eve" with a key; there are alice, bob, carol, mallory`},
		{[]string{"--print-code", "bob"}, false, `no user "bob" with an MFA device`},
		{[]string{"--config", "no such file"}, false, "read the configuration: open no such file"},
		{[]string{"--addr-file", "no/such/dir/addr"}, false, "write the address"},
		{[]string{"--tls-cert", "none", "--tls-key", "none"}, false, "load the certificate: open none"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			_, err := output(t, append(tt.args, "--quiet")...)
			var bad usageError
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.As(err, &bad) != tt.usage {
				t.Errorf("error %v, want …%s…, usage %v", err, tt.want, tt.usage)
			}
		})
	}
}

// A started is a sandbox program that runs in this process.
type started struct {
	url    string
	stderr *lockedBuffer
	stop   func() error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t *testing.T, args ...string) started {
	t.Helper()
	addr := filepath.Join(t.TempDir(), "addr")
	ctx, cancel := context.WithCancel(t.Context())
	s := started{stderr: &lockedBuffer{}}
	done := make(chan error, 1)
	go func() { done <- run(ctx, append(args, "--addr-file", addr), io.Discard, s.stderr) }()
	s.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { s.stop() })
	s.url = waitForFile(t, addr, done)
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(addr); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the address file is left behind: %v", err)
		}
	})
	return s
}

// waitForFile waits for the address file, which is how scripts learn that the
// sandbox is up.
func waitForFile(t *testing.T, path string, done <-chan error) string {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if b, err := os.ReadFile(path); err == nil {
			url, ok := strings.CutSuffix(string(b), "\n")
			if !ok {
				t.Fatalf("the address file holds %q", b)
			}
			return url
		}
		select {
		case err := <-done:
			t.Fatalf("the sandbox ended: %v", err)
		case <-deadline:
			t.Fatal("the sandbox does not come up")
		case <-time.After(time.Millisecond):
		}
	}
}

func post(t *testing.T, client *http.Client, url, contentType, body string) (int, string) {
	t.Helper()
	res, err := client.Post(url, contentType, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

const form = "application/x-www-form-urlencoded"

func TestServe(t *testing.T) {
	s := start(t)
	if status, body := post(t, http.DefaultClient, s.url, form, "Action=GetCallerIdentity&Version=2011-06-15"); status != 403 || !strings.Contains(body, "<Code>MissingAuthenticationToken</Code>") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := post(t, http.DefaultClient, s.url+"/sandbox/fault", "application/json", `{"kind":"fail","status":503,"count":1}`); status != 204 {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := post(t, http.DefaultClient, s.url, form, "Action=AssumeRole&Version=2011-06-15"); status != 503 {
		t.Errorf("%d", status)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	talk := s.stderr.String()
	for _, want := range []string{"The sandbox answers at " + s.url, `endpoint_url = "` + s.url + `"`, " GetCallerIdentity 403 MissingAuthenticationToken\n", " AssumeRole fault:fail 503 ServiceUnavailable\n"} {
		if !strings.Contains(talk, want) {
			t.Errorf("no %q in\n%s", want, talk)
		}
	}
	if _, err := http.Get(s.url); err == nil {
		t.Error("it answers after its end")
	}

	quiet := start(t, "--quiet")
	post(t, http.DefaultClient, quiet.url, form, "Action=GetCallerIdentity&Version=2011-06-15")
	if got := quiet.stderr.String(); got != "" {
		t.Errorf("--quiet says %q", got)
	}
}

// TestSlowCallsDoNotHoldUpTheEnd: a call that would take an hour is broken off.
func TestSlowCallsDoNotHoldUpTheEnd(t *testing.T) {
	s := start(t, "--quiet")
	post(t, http.DefaultClient, s.url+"/sandbox/fault", "application/json", `{"delay":"1h"}`)
	failed := make(chan error, 1)
	go func() {
		res, err := http.Post(s.url, form, strings.NewReader("Action=GetCallerIdentity&Version=2011-06-15"))
		if err == nil {
			res.Body.Close()
		}
		failed <- err
	}()
	// The fault has met the call once there is a connection that is not idle;
	// either way the end must not wait for it.
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("the call was answered")
	}
}

func TestServeTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, b := range map[string][]byte{"cert.pem": cert, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, "--tls-cert", filepath.Join(dir, "cert.pem"), "--tls-key", filepath.Join(dir, "key.pem"))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	if status, _ := post(t, client, s.url, form, ""); status != 400 || !strings.HasPrefix(s.url, "https://127.0.0.1:") {
		t.Errorf("%s: %d", s.url, status)
	}
	if !strings.Contains(s.stderr.String(), `ca_bundle    = "`+filepath.Join(dir, "cert.pem")) {
		t.Errorf("how to trust it is not said:\n%s", s.stderr)
	}
}

// TestSignals runs the program itself.
func TestSignals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no signals to send on windows")
	}
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		addr := filepath.Join(t.TempDir(), "addr")
		cmd := exec.Command(os.Args[0], "--quiet", "--addr-file", addr)
		cmd.Env = append(slices.Clone(os.Environ()), "GATEPASS_SANDBOX_TEST_MAIN=1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		t.Cleanup(func() { cmd.Process.Kill() })
		waitForFile(t, addr, done)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("%v: %v", sig, err)
		}
		if _, err := os.Stat(addr); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: the address file is left behind: %v", sig, err)
		}
	}
	cmd := exec.Command(os.Args[0], "--listen", "0.0.0.0:0")
	cmd.Env = append(slices.Clone(os.Environ()), "GATEPASS_SANDBOX_TEST_MAIN=1")
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 64 {
		t.Errorf("a usage error ends with %v, want 64", err)
	}
}

func TestLogLine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, c := range map[string]ststest.Call{
		"03:04:05 AssumeRole AKIAX arn:r me 403 AccessDenied (MFA is required)\n": {Time: at, Action: "AssumeRole", AccessKeyID: "AKIAX", RoleARN: "arn:r", SessionName: "me", Status: 403, Code: "AccessDenied", Why: "MFA is required"},
		"03:04:05 - 400 InvalidAction\n":                                          {Time: at, Status: 400, Code: "InvalidAction"},
		"03:04:05 GetCallerIdentity fault:drop\n":                                 {Time: at, Action: "GetCallerIdentity", Fault: ststest.Drop},
	} {
		if got := logLine(c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
