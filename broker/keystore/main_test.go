package keystore

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
)

// The test binary is also its own helper, as gatepassd is, and some other
// programs that the tests need to be processes of their own.
const (
	roleVar  = "KEYSTORE_TEST_ROLE"  // of a process that is not a helper
	faultVar = "KEYSTORE_TEST_FAULT" // what goes wrong in a helper
	stepVar  = "KEYSTORE_TEST_STEP"  // at which a helper is killed
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == HelperArg {
		if fault := os.Getenv(faultVar); fault != "" {
			faultyHelper(fault)
		}
		os.Exit(helperMain(func(step string) {
			if step == os.Getenv(stepVar) {
				die()
			}
		}))
	}
	if role := os.Getenv(roleVar); role != "" {
		os.Exit(roles[role]())
	}
	os.Exit(m.Run())
}

// roles are filled in beside the tests that need them.
var roles = map[string]func() int{"sleeper": func() int { hang(); return 0 }}

func hang() {
	for {
		time.Sleep(time.Hour)
	}
}

// die is kill -9.
func die() {
	p, _ := os.FindProcess(os.Getpid())
	p.Kill()
	hang()
}

// faultyHelper is a helper that goes wrong.
func faultyHelper(fault string) {
	say := func(a answer, value []byte) { writeMessage(os.Stdout, a, value) }
	listen := func() (r request) {
		say(answer{State: stateReady}, nil)
		readMessage(os.Stdin, &r, &r.passphrase, &r.value)
		return r
	}
	switch fault {
	case "hang":
		hang()
	case "hang with request":
		listen()
		hang()
	case "hang with child":
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{roleVar + "=sleeper"}
		cmd.Start()
		os.WriteFile(os.Getenv("PIDFILE"), fmt.Append(nil, cmd.Process.Pid), 0o600)
		listen()
		hang()
	case "hang with dialog":
		listen()
		say(answer{State: statePrompt}, nil)
		hang()
	case "hang with unlock dialog":
		listen()
		say(answer{State: statePrompt, Locked: true}, nil)
		hang()
	case "crash":
		listen()
		panic("out of order")
	case "killed":
		listen()
		die()
	case "exit early":
		os.Exit(0)
	case "exit with request":
		listen()
		os.Exit(3)
	case "garbage":
		io.WriteString(os.Stdout, "Sorry, no helper today.\n")
	case "10 MB":
		os.Stdout.Write(make([]byte, 1))
		io.WriteString(os.Stdout, strings.Repeat("A", 10<<20))
	case "long header":
		listen()
		os.Stdout.Write([]byte{0x7f, 0xff, 0xff, 0xff})
		io.WriteString(os.Stdout, strings.Repeat(" ", 10<<20))
	case "long secret":
		listen()
		os.Stdout.Write([]byte("\x00\x00\x00\x02{}\x00\xff\xff\xff"))
		io.WriteString(os.Stdout, strings.Repeat(" ", 10<<20))
	case "half an answer":
		listen()
		os.Stdout.Write([]byte("\x00\x00\x00\x20{\"state\":\"do"))
	case "not ready":
		say(answer{State: stateDone, Backend: "file"}, nil)
	case "two dialogs":
		listen()
		for {
			say(answer{State: statePrompt}, nil)
		}
	case "unknown code":
		listen()
		say(answer{State: stateDone, Error: &broker.Error{Code: "hm", Message: "hm"}}, nil)
	case "other key":
		r := listen()
		say(answer{State: stateDone, Backend: r.Backend, Key: broker.KeyInfo{Name: "other", AccessKeyID: "AKIAOTHER"}}, []byte("s"))
	case "other backend":
		r := listen()
		say(answer{State: stateDone, Backend: "pass", Key: broker.KeyInfo{Name: r.Name}}, []byte("s"))
	case "unknown backend":
		r := listen()
		say(answer{State: stateDone, Backend: "vault", Key: broker.KeyInfo{Name: r.Name}}, []byte("s"))
	case "no secret":
		r := listen()
		say(answer{State: stateDone, Backend: r.Backend, Key: broker.KeyInfo{Name: r.Name}}, nil)
	case "tell descriptors":
		listen()
		say(answer{State: stateDone, Error: broker.Errorf(broker.CodeData, "%s", descriptors())}, nil)
	case "tell environment":
		listen()
		say(answer{State: stateDone, Error: broker.Errorf(broker.CodeData, "%q", os.Environ())}, nil)
	default:
		panic("no such fault")
	}
	os.Exit(0)
}

// descriptors lists what this process has open.
func descriptors() string {
	var b strings.Builder
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, l := range links {
		to, _ := os.Readlink(l)
		fmt.Fprintf(&b, "%s ", to)
	}
	return b.String()
}

// need skips the test where it lacks one of the programs.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			lacking(t, "%s is not installed", p)
		}
	}
}

// lacking skips a test for the lack of something, or fails it where all is
// meant to be there.
func lacking(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("GATEPASS_REAL") == "1" {
		t.Fatalf("GATEPASS_REAL=1 and "+format, args...)
	}
	t.Skipf(format, args...)
}

// newStore returns a store on the file backend, for cfg to change.
func newStore(t testing.TB, change func(*Config)) *Store {
	t.Helper()
	cfg := Config{
		Backend:        "file",
		Env:            Env(os.Environ()),
		FileDir:        t.TempDir() + "/keys",
		FilePassphrase: broker.NewSecret("correct horse"),
		Deadline:       time.Minute, // no test but those of the deadline is to hang on a slow machine
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testKey(name string) broker.Key {
	return broker.Key{
		KeyInfo: broker.KeyInfo{
			Name:        name,
			AccessKeyID: "AKIAIOSFODNN7EXAMPLE",
			UserARN:     "arn:aws:iam::111122223333:user/alice",
			Added:       time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC),
		},
		SecretAccessKey: broker.NewSecret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
	}
}

func wantCode(t testing.TB, err error, code broker.Code) *broker.Error {
	t.Helper()
	if broker.CodeOf(err) != code {
		t.Fatalf("error %v with code %q, want code %q", err, broker.CodeOf(err), code)
	}
	if err == nil {
		return nil
	}
	return broker.AsError(err)
}

// useStore takes a store through all that a broker does with one. It must be
// empty and is left so.
func useStore(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v (%s)", err, broker.AsError(err).Hint)
		}
	}
	keys, err := s.Keys(ctx)
	check(err)
	if len(keys) != 0 {
		t.Fatalf("new store has keys %v", keys)
	}
	_, err = s.Key(ctx, "ops")
	wantCode(t, err, broker.CodeNotFound)
	wantCode(t, s.RemoveKey(ctx, "ops"), broker.CodeNotFound)

	// Two names that some systems take for one, and one that looks like an
	// item of another kind.
	for _, name := range []string{"ops", "Ops", "secret.ops"} {
		k := testKey(name)
		k.SecretAccessKey = broker.NewSecret("secret/of+" + name)
		check(s.PutKey(ctx, k))
	}
	signing := broker.NewSecret("\x00\xff not text \n")
	check(s.PutSecret(ctx, "ops", signing))
	check(s.Probe(ctx))

	keys, err = s.Keys(ctx)
	check(err)
	if len(keys) != 3 || keys[0] != testKey("Ops").KeyInfo || keys[1] != testKey("ops").KeyInfo || keys[2] != testKey("secret.ops").KeyInfo {
		t.Fatalf("listed %v", keys)
	}
	for _, k := range keys {
		got, err := s.Key(ctx, k.Name)
		check(err)
		if got.KeyInfo != testKey(k.Name).KeyInfo || got.SecretAccessKey.Reveal() != "secret/of+"+k.Name {
			t.Fatalf("key %s came back as %+v", k.Name, got)
		}
	}
	got, err := s.Secret(ctx, "ops")
	check(err)
	if !got.Equal(signing) {
		t.Fatal("secret came back as something else")
	}

	// Replace, then remove.
	k := testKey("ops")
	k.AccessKeyID, k.SecretAccessKey = "AKIAI44QH8DHBEXAMPLE", broker.NewSecret("je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY")
	check(s.PutKey(ctx, k))
	gotKey, err := s.Key(ctx, "ops")
	check(err)
	if gotKey.KeyInfo != k.KeyInfo || !gotKey.SecretAccessKey.Equal(k.SecretAccessKey) {
		t.Fatalf("replaced key came back as %+v", gotKey)
	}
	for _, k := range keys {
		check(s.RemoveKey(ctx, k.Name))
		_, err := s.Key(ctx, k.Name)
		wantCode(t, err, broker.CodeNotFound)
	}
	if _, err := s.Secret(ctx, "ops"); err != nil {
		t.Fatalf("the secret went with the keys: %v", err)
	}
	check(s.RemoveSecret(ctx, "ops"))
	_, err = s.Secret(ctx, "ops")
	wantCode(t, err, broker.CodeNotFound)
	wantCode(t, s.RemoveSecret(ctx, "ops"), broker.CodeNotFound)
}
