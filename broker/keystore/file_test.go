//go:build unix

package keystore

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatepass/broker"
)

func TestFile(t *testing.T) {
	s := newStore(t, nil)
	if err := s.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.cfg.FileDir); err == nil {
		t.Error("a mere look made the directory")
	}
	useStore(t, s)
	entries, err := os.ReadDir(s.cfg.FileDir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestFileModes(t *testing.T) {
	s := newStore(t, nil)
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	if err := s.PutKey(t.Context(), testKey("ops")); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{"": 0o700, "gatepass.key.ops": 0o600} {
		st, err := os.Stat(filepath.Join(s.cfg.FileDir, path))
		if err != nil || st.Mode().Perm() != mode {
			t.Errorf("%q has %v, %v; want %v", path, st.Mode(), err, mode)
		}
	}
	os.Chmod(s.cfg.FileDir, 0o770)
	_, err := s.Key(t.Context(), "ops")
	if e := wantCode(t, err, broker.CodeConfig); !strings.Contains(e.Hint, "chmod 700") {
		t.Errorf("hint is %q", e.Hint)
	}
	if os.Getuid() == 0 {
		os.Chmod(s.cfg.FileDir, 0o700)
		os.Chown(s.cfg.FileDir, 65534, 65534)
		wantCode(t, s.Probe(t.Context()), broker.CodeConfig)
	}
}

func TestFilePassphrase(t *testing.T) {
	s := newStore(t, nil)
	if err := s.PutKey(t.Context(), testKey("ops")); err != nil {
		t.Fatal(err)
	}
	with := func(passphrase string) *Store {
		return newStore(t, func(cfg *Config) {
			cfg.FileDir, cfg.FilePassphrase = s.cfg.FileDir, broker.NewSecret(passphrase)
		})
	}
	for passphrase, code := range map[string]broker.Code{"": broker.CodeKeychainLocked, "wrong": broker.CodeKeychainDenied} {
		s := with(passphrase)
		_, err := s.Key(t.Context(), "ops")
		if e := wantCode(t, err, code); e.Hint == "" {
			t.Errorf("%q: no hint", passphrase)
		}
		_, err = s.Keys(t.Context())
		wantCode(t, err, code)
		wantCode(t, s.Probe(t.Context()), code)
		wantCode(t, s.RemoveKey(t.Context(), "ops"), code)
		// A second passphrase in one store would leave it to none.
		wantCode(t, s.PutKey(t.Context(), testKey("other")), code)
		wantCode(t, s.PutKey(t.Context(), testKey("ops")), code)
	}
	keys, err := s.Keys(t.Context())
	if err != nil || len(keys) != 1 {
		t.Errorf("the store holds %v, %v", keys, err)
	}
}

// A store without a passphrase is told one: the right one, or any for a new
// store. Till then nothing is started.
func TestFileUnlock(t *testing.T) {
	locked := func(dir string) *Store {
		return newStore(t, func(cfg *Config) {
			if cfg.FilePassphrase = (broker.Secret{}); dir != "" {
				cfg.FileDir = dir
			}
		})
	}
	s := locked("")
	wantCode(t, s.Locked(), broker.CodeKeychainLocked)
	program := s.cfg.Helper
	s.cfg.Helper = "/does/not/exist"
	for name, err := range map[string]error{
		"probe": s.Probe(t.Context()), "put": s.PutKey(t.Context(), testKey("ops")), "remove": s.RemoveKey(t.Context(), "ops"),
		"secret": s.PutSecret(t.Context(), "x", broker.NewSecret("x")),
	} {
		if e := wantCode(t, err, broker.CodeKeychainLocked); !strings.Contains(e.Hint, "gatepass keys list") {
			t.Errorf("%s: the hint is %q", name, e.Hint)
		}
	}
	s.cfg.Helper = program

	unlock := func(s *Store, passphrase string, want bool) {
		t.Helper()
		ok, err := s.Unlock(t.Context(), broker.NewSecret(passphrase))
		if ok != want || err != nil || (s.Locked() == nil) != want {
			t.Errorf("with %q: %v, %v, %v", passphrase, ok, err, s.Locked())
		}
	}
	if fresh, err := s.New(t.Context()); !fresh || err != nil {
		t.Errorf("a new store: %v, %v", fresh, err)
	}
	if _, err := os.Stat(s.cfg.FileDir); err == nil {
		t.Error("a mere look made the directory")
	}
	unlock(s, "", false)
	given := broker.NewSecret("first come")
	if ok, err := s.Unlock(t.Context(), given); !ok || err != nil {
		t.Fatal(ok, err)
	}
	given.Clear() // the store has its own
	select {
	case <-s.Unlocked():
	default:
		t.Error("it does not say that it is open")
	}
	if err := s.PutKey(t.Context(), testKey("ops")); err != nil {
		t.Fatal(err)
	}

	again := locked(s.cfg.FileDir)
	if fresh, err := again.New(t.Context()); fresh || err != nil {
		t.Errorf("an old store: %v, %v", fresh, err)
	}
	for _, wrong := range []string{"", "first comes", "first come ", strings.Repeat("x", 1<<20)} {
		unlock(again, wrong, false)
	}
	select {
	case <-again.Unlocked():
		t.Error("it says that it is open")
	default:
	}
	unlock(again, "first come", true)
	if _, err := again.Key(t.Context(), "ops"); err != nil {
		t.Error(err)
	}
	// Others' files do not make it a store, damaged ones of ours do.
	for name, fresh := range map[string]bool{"notes.txt": true, "gatepass.key.x": false} {
		dir := t.TempDir()
		os.Chmod(dir, 0o700)
		os.WriteFile(filepath.Join(dir, name), nil, 0o600)
		if got, err := locked(dir).New(t.Context()); got != fresh || err != nil {
			t.Errorf("with %s: %v, %v", name, got, err)
		}
	}
	// Why it cannot be told, is told.
	os.Chmod(s.cfg.FileDir, 0o770)
	_, err := locked(s.cfg.FileDir).New(t.Context())
	wantCode(t, err, broker.CodeConfig)
	_, err = locked(s.cfg.FileDir).Unlock(t.Context(), broker.NewSecret("first come"))
	wantCode(t, err, broker.CodeConfig)

	// Keychains that are not files have no passphrase of ours.
	other, err := New(Config{Backend: "pass"})
	if err != nil || other.Locked() != nil {
		t.Fatal(err, other.Locked())
	}
	<-other.Unlocked()
	h := &helper{req: &request{Op: opUnlock}}
	_, err = h.do(ringVault{}, "pass")
	wantCode(t, err, broker.CodeInternal)
}

// Of several passphrases that come at once, one is kept.
func TestFileUnlockedTwice(t *testing.T) {
	s := newStore(t, func(cfg *Config) { cfg.FilePassphrase = broker.Secret{} })
	var both sync.WaitGroup
	for _, p := range []string{"one", "two"} {
		both.Go(func() { s.Unlock(t.Context(), broker.NewSecret(p)) })
	}
	both.Wait()
	if err := s.PutKey(t.Context(), testKey("ops")); err != nil {
		t.Error(err)
	}
	if _, err := s.Key(t.Context(), "ops"); err != nil {
		t.Error(err)
	}
}

func TestFileDamage(t *testing.T) {
	s := newStore(t, nil)
	for _, name := range []string{"good", "bad"} {
		if err := s.PutKey(t.Context(), testKey(name)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(s.cfg.FileDir, "gatepass.key.bad")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := os.ReadFile(filepath.Join(s.cfg.FileDir, "gatepass.key.good"))
	tag := append([]byte{}, whole...)
	tag[len(tag)-5] ^= 1
	for what, content := range map[string][]byte{
		"empty": {}, "cut": whole[:len(whole)/2], "noise": []byte("\x00\xff"), "long": make([]byte, 1<<20), "another's": other, "forged": tag,
	} {
		t.Run(what, func(t *testing.T) {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := s.Key(t.Context(), "bad")
			wantCode(t, err, broker.CodeData)
			keys, err := s.Keys(t.Context())
			if err != nil || len(keys) != 2 || keys[0] != (broker.KeyInfo{Name: "bad"}) || keys[1] != testKey("good").KeyInfo {
				t.Fatalf("listed %+v, %v", keys, err)
			}
			if err := s.Probe(t.Context()); err != nil {
				t.Errorf("one damaged item closes the store: %v", err)
			}
			if err := s.RemoveKey(t.Context(), "bad"); err != nil {
				t.Errorf("a damaged item cannot be removed: %v", err)
			}
			if err := s.PutKey(t.Context(), testKey("bad")); err != nil {
				t.Errorf("nor stored again: %v", err)
			}
		})
	}
	// What would be read for ever.
	os.Remove(path)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = s.Key(t.Context(), "bad")
	wantCode(t, err, broker.CodeData)
	// A file where the directory should be.
	os.RemoveAll(s.cfg.FileDir)
	os.WriteFile(s.cfg.FileDir, nil, 0o600)
	_, err = s.Key(t.Context(), "good")
	wantCode(t, err, broker.CodeConfig)
}

// A kill at any step of a write leaves the old key or the new one, and the
// next write works.
func TestFileKilledWrite(t *testing.T) {
	s := newStore(t, nil)
	old, next := testKey("ops"), testKey("ops")
	next.AccessKeyID, next.SecretAccessKey = "AKIAI44QH8DHBEXAMPLE", broker.NewSecret("new")
	for step, want := range map[string]broker.Key{"written": old, "synced": old, "renamed": next} {
		if err := s.PutKey(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		killed := newStore(t, func(cfg *Config) {
			cfg.FileDir = s.cfg.FileDir
			cfg.Env = append(cfg.Env, stepVar+"="+step)
		})
		wantCode(t, killed.PutKey(t.Context(), next), broker.CodeInternal)
		got, err := s.Key(t.Context(), "ops")
		if err != nil || got.KeyInfo != want.KeyInfo || !got.SecretAccessKey.Equal(want.SecretAccessKey) {
			t.Errorf("killed when %s: %+v, %v", step, got.KeyInfo, err)
		}
	}
	// What they left is swept by a write once it is old.
	left, _ := filepath.Glob(filepath.Join(s.cfg.FileDir, staging+"*"))
	if len(left) != 3 {
		t.Fatalf("killed writes left %q", left)
	}
	for _, dir := range left[1:] {
		if err := os.Chtimes(dir, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutKey(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if now, _ := filepath.Glob(filepath.Join(s.cfg.FileDir, staging+"*")); len(now) != 1 || now[0] != left[0] {
		t.Errorf("after the sweep there are %q, want %q", now, left[:1])
	}
	if keys, err := s.Keys(t.Context()); err != nil || len(keys) != 1 {
		t.Errorf("listed %v, %v", keys, err)
	}
}

// A disk that is full or read-only keeps the old key and says so.
func TestFileUnwritable(t *testing.T) {
	s := newStore(t, nil)
	if err := s.PutKey(t.Context(), testKey("ops")); err != nil {
		t.Fatal(err)
	}
	// The item's name is taken by a directory: the rename fails, whoever we are.
	if err := os.MkdirAll(filepath.Join(s.cfg.FileDir, "gatepass.key.new", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := s.PutKey(t.Context(), testKey("new"))
	if e := wantCode(t, err, broker.CodeKeychainDenied); !strings.Contains(e.Message, "write the file keychain") {
		t.Errorf("error says %q", e.Message)
	}
	if left, _ := filepath.Glob(filepath.Join(s.cfg.FileDir, staging+"*")); len(left) != 0 {
		t.Errorf("a failed write left %q", left)
	}
	if _, err := s.Key(t.Context(), "ops"); err != nil {
		t.Error(err)
	}
}

func BenchmarkKeyFile(b *testing.B) { benchmarkKey(b, newStore(b, nil)) }

func benchmarkKey(b *testing.B, s *Store) {
	if err := s.PutKey(b.Context(), testKey("ops")); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Key(b.Context(), "ops"); err != nil {
			b.Fatal(err)
		}
	}
}
