package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts text in path's place at once, as careful editors do.
func replace(t testing.TB, path, text string) {
	t.Helper()
	put(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// What exists and cannot be read is never an empty file.
func TestUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	put(t, large, "")
	if err := os.Truncate(large, maxFile+1); err != nil {
		t.Fatal(err)
	}
	testUnreadable(t, "a directory", dir, "is a directory")
	testUnreadable(t, "a relative path", "config", "is not absolute")
	testUnreadable(t, "a file over 16 MiB", large, "is larger than 16 MiB")
}

func testUnreadable(t *testing.T, name, path, want string) {
	t.Helper()
	good := filepath.Join(t.TempDir(), "good")
	put(t, good, "[profile p]\n[p]\n")
	for i, files := range []Files{{Config: path, Credentials: good}, {Config: good, Credentials: path}} {
		r := NewReader()
		for range 2 { // the second time from the cache, if it were kept
			_, err := r.Resolve(files, "p")
			var ce *ConfigError
			if !errors.As(err, &ce) || ce.File != path || !strings.Contains(ce.Msg, want) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s, as file %d: %v; want %q", name, i, err, want)
			}
			if err != nil && strings.ContainsRune(err.Error(), 0) {
				t.Errorf("%s: error %q is not fit to be shown", name, err)
			}
		}
	}
}

func TestMissingFiles(t *testing.T) {
	dir := t.TempDir()
	null := filepath.Join(dir, "null")
	if runtime.GOOS != "windows" {
		if err := os.Symlink(os.DevNull, null); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"", os.DevNull, null, filepath.Join(dir, "none"), filepath.Join(dir, "none", "config")} {
		var nf *NotFoundError
		if _, err := NewReader().Resolve(Files{Config: path, Credentials: path}, "p"); !errors.As(err, &nf) {
			t.Errorf("%q: %v; want a *NotFoundError", path, err)
		}
		if names, err := NewReader().Names(Files{Config: path}); err != nil || len(names) != 0 {
			t.Errorf("%q: names %q, %v", path, names, err)
		}
	}
}

// A link is followed, and a change behind it is seen.
func TestLinkedFile(t *testing.T) {
	dir := t.TempDir()
	files := Files{Config: filepath.Join(dir, "config")}
	real := filepath.Join(dir, "real")
	put(t, real, "[profile p]\ngatepass_key=1\n")
	if err := os.Symlink(real, files.Config); err != nil {
		t.Skipf("no links here: %v", err)
	}
	r := NewReader()
	for _, key := range []string{"1", "2"} {
		put(t, real, "[profile p]\ngatepass_key="+key+"\n")
		if c, err := r.Resolve(files, "p"); err != nil || c.Key != key {
			t.Errorf("%+v, %v; want key %s", c, err, key)
		}
	}
}

// Each way in which a file changes is seen by the next call, with the clock
// far ahead so that nothing is read again for being fresh.
func TestChangesAreSeen(t *testing.T) {
	dir := t.TempDir()
	files := Files{Config: filepath.Join(dir, "config"), Credentials: filepath.Join(dir, "credentials")}
	r := NewReader()
	r.now = func() time.Time { return time.Now().Add(time.Hour) }
	key := func() string {
		c, err := r.Resolve(files, "p")
		if err != nil {
			return err.Error()
		}
		return c.Key
	}
	text := func(k string) string { return "[profile p]\ngatepass_key = " + k + "\n" }
	steps := []struct {
		name string
		do   func()
		want string
	}{
		{"no file", func() {}, `no profile "p"`},
		{"created", func() { put(t, files.Config, text("k1")) }, "k1"},
		{"nothing", func() {}, "k1"},
		{"another size", func() { put(t, files.Config, text("k22")) }, "k22"},
		{"replaced, same size and time", func() {
			fi, _ := os.Stat(files.Config)
			put(t, files.Config+".new", text("k33"))
			os.Chtimes(files.Config+".new", fi.ModTime(), fi.ModTime())
			os.Rename(files.Config+".new", files.Config)
		}, "k33"},
		{"credentials appear", func() { put(t, files.Credentials, "[p]\ngatepass_key = k4\n") }, "k4"},
		{"credentials break", func() { put(t, files.Credentials, "[p]\n[p]\n") }, `section "[p]" is already on line 1`},
		{"still broken", func() {}, `section "[p]" is already on line 1`},
		{"credentials go", func() { os.Remove(files.Credentials) }, "k33"},
		{"config goes", func() { os.Remove(files.Config) }, `no profile "p"`},
		{"config becomes a directory", func() { os.Mkdir(files.Config, 0o700) }, "is a directory"},
		{"and a file again", func() { os.Remove(files.Config); put(t, files.Config, text("k5")) }, "k5"},
	}
	if runtime.GOOS == "linux" || runtime.GOOS == "darwin" {
		steps = append(steps, struct {
			name string
			do   func()
			want string
		}{"in place, same size, the time put back", func() {
			fi, _ := os.Stat(files.Config)
			put(t, files.Config, text("k6"))
			os.Chtimes(files.Config, fi.ModTime(), fi.ModTime())
		}, "k6"})
	}
	for _, s := range steps {
		s.do()
		if got := key(); !strings.Contains(got, s.want) {
			t.Errorf("%s: %s; want %s", s.name, got, s.want)
		}
	}
}

// A change that leaves no trace in the stamp is seen while the file is fresh,
// and the file is not read again once it is old.
func TestFreshFilesAreReadAgain(t *testing.T) {
	files := Files{Config: filepath.Join(t.TempDir(), "config")}
	changed := time.Now()
	now := changed
	r := NewReader()
	r.now = func() time.Time { return now }
	r.stampOf = func(fi fs.FileInfo) stamp { return stamp{exists: true, size: fi.Size(), changed: changed.UnixNano()} }
	key := func() string {
		t.Helper()
		c, err := r.Resolve(files, "p")
		if err != nil {
			t.Fatal(err)
		}
		return c.Key
	}
	write := func(k string) { put(t, files.Config, "[profile p]\ngatepass_key="+k+"\n") }

	for i, after := range []time.Duration{0, time.Millisecond, granularity - 1} {
		now = changed.Add(after)
		want := fmt.Sprint(i)
		write(want)
		if got := key(); got != want {
			t.Errorf("after %v: key %s; want %s", after, got, want)
		}
	}
	now = changed.Add(granularity)
	write("3")
	if got := key(); got != "3" {
		t.Errorf("what was read while fresh: key %s; want 3", got)
	}
	write("4")
	if got := key(); got != "3" {
		t.Errorf("key %s: an old file with the same stamp was read again", got)
	}
}

// A file that did not change is opened once, however often and by whatever call
// it is asked for; one that changed, once more.
func TestUnchangedFilesAreNotReadAgain(t *testing.T) {
	dir := t.TempDir()
	files := Files{Config: filepath.Join(dir, "config"), Credentials: filepath.Join(dir, "credentials")}
	put(t, files.Config, manyProfiles(100))
	put(t, files.Credentials, "[p1]\naws_access_key_id = x\n")
	r := NewReader()
	r.now = func() time.Time { return time.Now().Add(time.Hour) } // nothing is fresh
	opened := map[string]int{}
	r.open = func(path string) (*os.File, error) {
		opened[path]++
		return openFile(path)
	}
	ask := func() {
		t.Helper()
		for range 100 {
			if _, err := r.Resolve(files, "p50"); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Resolve(files, "p1"); err != nil {
				t.Fatal(err)
			}
		}
		all, err := r.All(files)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for res := range all {
			if n++; res.Err != nil {
				t.Error(res.Err)
			}
		}
		if n != 101 {
			t.Errorf("%d profiles", n)
		}
	}
	ask()
	if opened[files.Config] != 1 || opened[files.Credentials] != 1 {
		t.Errorf("opened %v", opened)
	}
	put(t, files.Config, strings.Replace(manyProfiles(100), "generated", "generated anew", 1))
	ask()
	if opened[files.Config] != 2 {
		t.Errorf("after a change opened %v", opened)
	}
}

// However the file is replaced, a call sees one version of it, whole, and none
// older than what was there when it began.
func TestConcurrentReplacement(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Hour} {
		files := Files{Config: filepath.Join(t.TempDir(), "config")}
		const versions, readers = 200, 8
		version := func(n int) string {
			return fmt.Sprintf("[profile p]\nrole_arn = arn:aws:iam::111122223333:role/r%d\nsource_profile = q\n[profile q]\ngatepass_key = k%d\n", n, n)
		}
		replace(t, files.Config, version(0))
		r := NewReader()
		r.now = func() time.Time { return time.Now().Add(ahead) }
		var done atomic.Int64
		var wg sync.WaitGroup
		for range readers {
			wg.Go(func() {
				for done.Load() < versions {
					least := done.Load()
					c, err := r.Resolve(files, "p")
					if err != nil {
						t.Error(err)
						return
					}
					var role, key int64
					fmt.Sscanf(c.Hops[0].RoleARN, "arn:aws:iam::111122223333:role/r%d", &role)
					fmt.Sscanf(c.Key, "k%d", &key)
					if role != key || role < least {
						t.Errorf("role %d over key %d; at least %d was there", role, key, least)
						return
					}
				}
			})
		}
		for n := 1; n <= versions; n++ {
			replace(t, files.Config, version(n))
			done.Store(int64(n))
		}
		wg.Wait()
	}
}

// A file that is written in place while it is read is read again, and not for
// ever.
func TestChangesWhileRead(t *testing.T) {
	files := Files{Config: filepath.Join(t.TempDir(), "config")}
	put(t, files.Config, "[profile p]\n")
	r := NewReader()
	var looks, moving int64
	r.stampOf = func(fs.FileInfo) stamp {
		looks++
		return stamp{exists: true, changed: min(looks, moving)}
	}
	moving = 6
	if _, err := r.Resolve(files, "p"); err != nil {
		t.Errorf("a file that comes to rest: %v", err)
	}
	looks, moving = 0, 1<<40
	_, err := r.Resolve(files, "p")
	var ce *ConfigError
	if !errors.As(err, &ce) || !strings.Contains(ce.Msg, "keeps changing") {
		t.Errorf("a file that never rests: %v", err)
	}
}

// What callers do to their chain does not reach the others.
func TestChainsAreCopies(t *testing.T) {
	files := Files{Config: filepath.Join(t.TempDir(), "config")}
	put(t, files.Config, "[profile p]\nrole_arn=arn:aws:iam::111122223333:role/A\naws_access_key_id=x\n")
	r := NewReader()
	for range 2 {
		c, err := r.Resolve(files, "p")
		if err != nil || c.Key != "p" || c.Hops[0].Profile != "p" || !strings.Contains(c.Notes[0], "plaintext") {
			t.Fatalf("%+v, %v", c, err)
		}
		c.Key, c.Hops[0].Profile, c.Notes[0] = "x", "x", "x"
	}
	names, _ := r.Names(files)
	names[0] = "x"
	if names, _ := r.Names(files); !slices.Equal(names, []string{"p"}) {
		t.Errorf("names %q", names)
	}
}

// A client can name files without end.
func TestCacheIsBounded(t *testing.T) {
	dir := t.TempDir()
	r := NewReader()
	for i := range 3 * maxCached {
		files := Files{Config: filepath.Join(dir, fmt.Sprint(i))}
		put(t, files.Config, "[profile p]\n")
		if _, err := r.Resolve(files, "p"); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.cached) > maxCached || len(r.reading) != 0 {
		t.Errorf("%d pairs cached, %d being read", len(r.cached), len(r.reading))
	}
	for range 100 {
		r.Resolve(Files{Config: filepath.Join(dir, "0")}, fmt.Sprint("x", time.Now()))
	}
	if n := len(r.cached[Files{Config: filepath.Join(dir, "0")}].names()); n > 1 {
		t.Errorf("%d resolutions of profiles that do not exist are kept", n)
	}
}

func (s *snapshot) names() (names []any) {
	s.set.resolved.Range(func(k, _ any) bool { names = append(names, k); return true })
	return names
}

// Nothing that may be secret stays with the Reader.
func TestNoSecretIsKept(t *testing.T) {
	dir := t.TempDir()
	files := Files{Config: filepath.Join(dir, "config"), Credentials: filepath.Join(dir, "credentials")}
	secrets := "aws_access_key_id = hunter2a\naws_secret_access_key = hunter2b\naws_session_token = hunter2c\naws_security_token: hunter2d\nanything = hunter2e\nweb_identity_token_file = hunter2f\ngatepass_typo = hunter2g\n"
	put(t, files.Config, "[profile p]\n"+secrets)
	put(t, files.Credentials, "[DEFAULT]\nx = hunter2h\n[p]\n"+secrets+"[q]\nrole_arn = arn:aws:iam::111122223333:role/A\n")
	r := NewReader()
	if _, err := r.Resolve(files, "q"); err != nil {
		t.Fatal(err)
	}
	for _, p := range r.cached[files].set.profiles {
		for _, s := range p.settings {
			if strings.Contains(s.value, "hunter2") {
				t.Errorf("%s of %s is kept", s.key, p.name)
			}
		}
	}
}

func BenchmarkResolveCached(b *testing.B) {
	dir := b.TempDir()
	files := Files{Config: filepath.Join(dir, "config"), Credentials: filepath.Join(dir, "credentials")}
	put(b, files.Config, manyProfiles(100))
	put(b, files.Credentials, "[p1]\naws_access_key_id = x\n")
	r := NewReader()
	r.now = func() time.Time { return time.Now().Add(time.Hour) }
	if _, err := r.Resolve(files, "p50"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r.Resolve(files, "p50"); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkRead10000Profiles(b *testing.B) {
	text := []byte(manyProfiles(10000))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := newProfileSet(Files{}, text, nil, keep); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnknownAmong10000(b *testing.B) {
	set, err := newProfileSet(Files{}, []byte(manyProfiles(10000)), nil, keep)
	if err != nil {
		b.Fatal(err)
	}
	r := newResolver(Files{}, set)
	for b.Loop() {
		if _, err := r.resolve("production"); err == nil {
			b.Fatal("found")
		}
	}
}

func manyProfiles(n int) string {
	var b strings.Builder
	b.WriteString("# generated\n[default]\nregion = eu-west-1\noutput = json\n\n")
	for i := range n {
		fmt.Fprintf(&b, "[profile p%d]\nrole_arn = arn:aws:iam::111122223333:role/team/Developer%d\nsource_profile = default\nregion = eu-west-1\noutput = json\nmfa_serial = arn:aws:iam::111122223333:mfa/alice\n\n", i, i)
	}
	return b.String()
}
