package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
)

func withFault(fault string) func(*Config) {
	return func(cfg *Config) {
		cfg.Env = append(Env(os.Environ()), faultVar+"="+fault)
		cfg.Deadline, cfg.PromptDeadline = time.Minute, time.Minute
	}
}

// A helper that says nothing of sense, or dies, is an error at once: the
// deadline is far.
func TestBrokenHelper(t *testing.T) {
	for _, c := range []struct{ fault, says string }{
		{"crash", "panic: out of order"},
		{"killed", "signal: killed"},
		{"exit early", "exit status 0"},
		{"exit with request", "exit status 3"},
		{"garbage", "message of"},
		{"10 MB", "message of"},
		{"long header", "message of"},
		{"long secret", "message of"},
		{"half an answer", "unexpected EOF"},
		{"not ready", "it began with"},
		{"two dialogs", "makes no sense"},
		{"unknown code", "makes no sense"},
		{"other key", "makes no sense"},
		{"other backend", "makes no sense"},
		{"unknown backend", "makes no sense"},
		{"no secret", "makes no sense"},
	} {
		t.Run(c.fault, func(t *testing.T) {
			s := newStore(t, func(cfg *Config) {
				withFault(c.fault)(cfg)
				if c.fault == "unknown backend" {
					cfg.Backend = "auto" // a named one must be that one
				}
			})
			_, err := s.Key(t.Context(), "ops")
			if e := wantCode(t, err, broker.CodeInternal); !strings.Contains(e.Message, c.says) {
				t.Errorf("error %q does not say %q", e.Message, c.says)
			}
		})
	}
}

func TestHungHelper(t *testing.T) {
	for _, c := range []struct {
		fault string
		code  broker.Code
		short func(*Config) // the deadline that is to count; the other is far
	}{
		{"hang", broker.CodeKeychainTimeout, func(c *Config) { c.Deadline = 50 * time.Millisecond }},
		{"hang with request", broker.CodeKeychainTimeout, func(c *Config) { c.Deadline = 50 * time.Millisecond }},
		{"hang with dialog", broker.CodeKeychainTimeout, func(c *Config) { c.Deadline, c.PromptDeadline = 3*time.Second, 3*time.Second }},
		{"hang with unlock dialog", broker.CodeKeychainLocked, func(c *Config) { c.Deadline, c.PromptDeadline = 3*time.Second, 3*time.Second }},
	} {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			s := newStore(t, func(cfg *Config) {
				withFault(c.fault)(cfg)
				c.short(cfg)
				cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			_, err := s.Key(t.Context(), "ops")
			e := wantCode(t, err, c.code)
			if e.Hint == "" {
				t.Error("no hint")
			}
			if strings.Contains(c.fault, "dialog") != strings.Contains(e.Message, "dialog") {
				t.Errorf("error says %q", e.Message)
			}
		})
	}
}

// A caller that leaves does so at once, however far the deadline is.
func TestCallerLeaves(t *testing.T) {
	s := newStore(t, withFault("hang with request"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Key(ctx, "ops")
	wantCode(t, err, broker.CodeCancelled)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is not context.Canceled", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = s.Key(ctx, "ops")
	wantCode(t, err, broker.CodeKeychainTimeout)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v is not context.DeadlineExceeded", err)
	}
}

// Hung calls hold a later one no longer than its own deadline, and nobody once
// they have been ended.
func TestHungCallsDoNotBlock(t *testing.T) {
	s := newStore(t, withFault("hang with request"))
	ctx, cancel := context.WithCancel(t.Context())
	var hung sync.WaitGroup
	for range maxCalls {
		hung.Go(func() {
			_, err := s.Key(ctx, "ops")
			if broker.CodeOf(err) != broker.CodeCancelled {
				t.Errorf("hung call ended with %v", err)
			}
		})
	}
	for len(s.calls) < maxCalls {
		runtime.Gosched()
	}
	late, done := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer done()
	_, err := s.Key(late, "ops")
	if e := wantCode(t, err, broker.CodeKeychainTimeout); !strings.Contains(e.Message, "earlier calls") {
		t.Errorf("error says %q", e.Message)
	}
	cancel()
	hung.Wait()
	for range maxCalls {
		s.calls <- struct{}{} // given back, or this hangs
	}
}

// Waiting for a turn is bounded by the deadline, for reads and writes.
func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Store{calls: make(chan struct{}, 2), writes: make(chan struct{}, 1)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		write, ok := s.admit(ctx, true)
		if !ok {
			t.Fatal("first write has to wait")
		}
		if _, ok := s.admit(ctx, true); ok {
			t.Fatal("two writes at once")
		}
		if len(s.calls) != 1 || len(s.writes) != 1 {
			t.Fatalf("who gave up waiting still holds %d calls, %d writes", len(s.calls)-1, len(s.writes)-1)
		}
		ctx = t.Context()
		read, ok := s.admit(ctx, false)
		if !ok {
			t.Fatal("a read waits for a write")
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, ok := s.admit(short, false); ok {
			t.Fatal("more calls than allowed")
		}
		write()
		if _, ok := s.admit(ctx, false); !ok {
			t.Fatal("an ended write holds its turn")
		}
		short, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, ok := s.admit(short, true); ok || len(s.writes) != 0 {
			t.Fatal("a write that gave up holds the writers' turn")
		}
		read()
	})
}

func TestConcurrentCalls(t *testing.T) {
	s := newStore(t, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			k := testKey("shared")
			k.SecretAccessKey = broker.NewSecret(fmt.Sprint("secret", i))
			if err := s.PutKey(t.Context(), k); err != nil {
				t.Errorf("put: %v", err)
			}
			got, err := s.Key(t.Context(), "shared")
			if err != nil || !strings.HasPrefix(got.SecretAccessKey.Reveal(), "secret") {
				t.Errorf("got %q, %v", got.SecretAccessKey.Reveal(), err)
			}
		})
	}
	wg.Wait()
}

func TestNoHelper(t *testing.T) {
	s := newStore(t, func(cfg *Config) { cfg.Helper = filepath.Join(t.TempDir(), "none") })
	wantCode(t, s.Probe(t.Context()), broker.CodeInternal)
}

func TestNew(t *testing.T) {
	for _, cfg := range []Config{
		{Backend: "file"},
		{Backend: "file", FileDir: "relative"},
		{Backend: "pass", PassDir: "relative"},
		{Backend: "vault"},
		{Backend: map[bool]string{true: "keychain", false: "wincred"}[runtime.GOOS == "windows"]},
	} {
		_, err := New(cfg)
		wantCode(t, err, broker.CodeConfig)
	}
	s, err := New(Config{})
	if err != nil || s.Backend() != "auto" {
		t.Fatalf("zero Config gives %v, %v", s, err)
	}
}

func TestNames(t *testing.T) {
	s := newStore(t, withFault("crash")) // none of these reaches a helper
	for _, name := range []string{
		"", ".", "..", ".hidden", "-f", "--", "dot.", "a/b", `a\b`, "../../etc/passwd", "a b", "a\x00", "a\nb", "a:b", "a~b", "a%2fb",
		"naïve", "a*", "a;$(x)", strings.Repeat("x", maxName+1),
	} {
		wantCode(t, CheckName(name), broker.CodeUsage)
		k := testKey(name)
		wantCode(t, s.PutKey(t.Context(), k), broker.CodeUsage)
		wantCode(t, s.PutSecret(t.Context(), name, broker.NewSecret("x")), broker.CodeUsage)
		_, err := s.Key(t.Context(), name)
		wantCode(t, err, broker.CodeNotFound)
		_, err = s.Secret(t.Context(), name)
		wantCode(t, err, broker.CodeNotFound)
		wantCode(t, s.RemoveKey(t.Context(), name), broker.CodeNotFound)
		wantCode(t, s.RemoveSecret(t.Context(), name), broker.CodeNotFound)
	}
	for _, name := range []string{"a", "ops", "Ops", "a.b", "alice@example.com", "x_+=,-1", strings.Repeat("x", maxName)} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
}

// The helper trusts its store no more than anyone.
func TestHelperChecksNames(t *testing.T) {
	for _, r := range []request{
		{Op: opGet, Kind: kindKey, Name: "../x"},
		{Op: opGet, Kind: "other", Name: "x"},
		{Op: opPut, Kind: kindKey, Name: "x", Key: broker.KeyInfo{Name: "y"}},
		{Op: "rename", Kind: kindKey, Name: "x"},
	} {
		h := &helper{req: &r}
		_, err := h.do(emptyVault{}, "file")
		wantCode(t, err, broker.CodeInternal)
	}
}

func TestUnstorable(t *testing.T) {
	s := newStore(t, withFault("crash")) // none of these reaches a helper
	for _, change := range []func(*broker.Key){
		func(k *broker.Key) { k.AccessKeyID = "" },
		func(k *broker.Key) { k.AccessKeyID = "AKIA\n" },
		func(k *broker.Key) { k.SecretAccessKey = broker.Secret{} },
		func(k *broker.Key) { k.SecretAccessKey = broker.NewSecret("a\xffb") },
		func(k *broker.Key) { k.SecretAccessKey = broker.NewSecret(strings.Repeat("x", maxKeyField+1)) },
		func(k *broker.Key) { k.UserARN = "arn with space" },
	} {
		k := testKey("ops")
		change(&k)
		wantCode(t, s.PutKey(t.Context(), k), broker.CodeData)
	}
	wantCode(t, s.PutSecret(t.Context(), "x", broker.Secret{}), broker.CodeData)
	wantCode(t, s.PutSecret(t.Context(), "x", broker.NewSecret(make([]byte, maxSecret+1))), broker.CodeData)
}

func TestLargestSecret(t *testing.T) {
	s := newStore(t, nil)
	want := broker.NewSecret(bytes.Repeat([]byte{0xff}, maxSecret))
	if err := s.PutSecret(t.Context(), "large", want); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Secret(t.Context(), "large"); err != nil || !got.Equal(want) {
		t.Fatalf("largest secret came back otherwise: %v", err)
	}
}

func TestEnv(t *testing.T) {
	got := Env([]string{
		"HOME=/home/alice", "LC_ALL=C", "DISPLAY=:0", "GPG_TTY=/dev/pts/1", "TERM=xterm", "LD_PRELOAD=/tmp/x.so",
		"GATEPASS_FILE_PASSPHRASE=secret", "AWS_SECRET_ACCESS_KEY=secret", "GOTRACEBACK=crash", "GODEBUG=x=1",
	})
	if want := []string{"HOME=/home/alice", "LC_ALL=C", "DISPLAY=:0"}; !slices.Equal(got, want) {
		t.Errorf("Env gives %q, want %q", got, want)
	}
	env, bus := withoutBus([]string{"A=1", "DBUS_SESSION_BUS_ADDRESS=unix:path=/x", "B=2"})
	if !slices.Equal(env, []string{"A=1", "B=2", "DBUS_SESSION_BUS_ADDRESS=disabled:"}) || bus != "unix:path=/x" {
		t.Errorf("withoutBus gives %q, %q", env, bus)
	}
}

// Nothing that is written down holds a secret: not the errors, not the log.
func TestNoSecretInErrors(t *testing.T) {
	const mark = "S3CRETMARK"
	var log bytes.Buffer
	s := newStore(t, func(cfg *Config) {
		cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		cfg.FilePassphrase = broker.NewSecret(mark + "1")
	})
	key := testKey("ops")
	key.SecretAccessKey = broker.NewSecret(mark + "2")
	if err := s.PutKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	wrong := newStore(t, func(cfg *Config) {
		cfg.FileDir, cfg.FilePassphrase, cfg.Logger = s.cfg.FileDir, broker.NewSecret(mark+"3"), s.cfg.Logger
	})
	_, err := wrong.Key(t.Context(), "ops")
	wantCode(t, err, broker.CodeKeychainDenied)
	for _, bad := range []string{`{"version":1,"name":"ops","secret":12345}`, `{"version":"` + mark + `"}`, mark, `{"version":1,"name":"` + mark + `"}`} {
		_, _, e := decodeKey("ops", []byte(bad))
		err = errors.Join(err, e)
		_, e = decodeSecret("ops", []byte(bad))
		err = errors.Join(err, e)
	}
	k := key
	k.SecretAccessKey = broker.NewSecret(mark + "\x00")
	err = errors.Join(err, s.PutKey(t.Context(), k))
	if text := err.Error() + log.String(); strings.Contains(text, mark) || strings.Contains(text, "12345") {
		t.Errorf("a secret is in %s", text)
	}
}
