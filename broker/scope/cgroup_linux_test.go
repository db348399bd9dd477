package scope

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

func init() {
	helpers["scope of"] = func(args []string) { // in a cgroup namespace of its own
		runtime.LockOSThread() // which is a thread's
		must(unix.Unshare(unix.CLONE_NEWCGROUP))
		trees, err := New(Config{RuntimeDir: "/nonexistent"})
		must(err)
		scope, err := trees.ScopeOf(parseID(args))
		fmt.Printf("%q %v\n", scope, err)
	}
}

func TestParseGroup(t *testing.T) {
	const v1 = "12:pids:/user.slice\n1:name=systemd:/user.slice/gatepass-l-one.scope\n"
	for list, want := range map[string]struct {
		group string
		err   error
	}{
		"":                                     {"", nil},
		v1:                                     {"", nil}, // version 1 does not count
		"0::/\n":                               {"/", nil},
		v1 + "0::/a b/c\n":                     {"/a b/c", nil},
		"0::/app.slice/gatepass-l-one.scope\n": {"/app.slice/gatepass-l-one.scope", nil},
		"0::/..a/b\n":                          {"/..a/b", nil},
		"0::/..\n":                             {"", errOutside},
		"0::/../x/gatepass-l-one.scope\n":      {"", errOutside},
		"0::/../../x\n":                        {"", errOutside},
		"0::\n":                                {"", errOutside},
		"0::x\n":                               {"", errOutside},
		"0::/gatepass-l-one.scope (deleted)\n": {"", errEnded},
	} {
		if group, err := parseGroup([]byte(list)); group != want.group || !errors.Is(err, want.err) {
			t.Errorf("%q: %q, %v", list, group, err)
		}
	}
}

func FuzzParseGroup(f *testing.F) {
	f.Add([]byte("1:name=systemd:/x\n0::/app.slice/gatepass-l-one.scope\n"))
	f.Add([]byte("0::/../x"))
	f.Fuzz(func(t *testing.T, list []byte) {
		before := slices.Clone(list)
		group, err := parseGroup(list)
		if !slices.Equal(before, list) {
			t.Error("the list was changed")
		}
		if err == nil && group != "" && group[0] != '/' || err != nil && group != "" {
			t.Errorf("%q, %v", group, err)
		}
	})
}

func TestParseStat(t *testing.T) {
	line := func(name, state string, threads int) []byte {
		return fmt.Appendf(nil, "42 (%s) %s 7 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 %d 0 1234 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 256\n", name, state, threads)
	}
	for _, name := range []string{"sh", "a b", ")", ") Z 1", "(x", "\n"} {
		for state, want := range map[string]stat{
			"S": {ppid: 7, start: 1234, exit: 256},
			"T": {ppid: 7, start: 1234, exit: 256, stopped: true},
			"t": {ppid: 7, start: 1234, exit: 256, stopped: true},
			"Z": {ppid: 7, start: 1234, exit: 256, ended: true},
			"X": {ppid: 7, start: 1234, exit: 256, ended: true},
		} {
			if s, err := parseStat(line(name, state, 1)); err != nil || s != want {
				t.Errorf("%q, %s: %+v, %v", name, state, s, err)
			}
		}
	}
	// The leader has ended, and another thread goes on.
	if s, err := parseStat(line("sh", "Z", 2)); err != nil || s.ended {
		t.Errorf("%+v, %v", s, err)
	}
	whole := line("sh", "S", 1)
	for i := range len(whole) - 1 {
		if s, err := parseStat(whole[:i]); err == nil && s.exit == 256 {
			t.Errorf("%q: %+v", whole[:i], s)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Skip(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err != nil && s != (stat{}) {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

func TestFindHierarchy(t *testing.T) {
	const (
		proc    = "20 1 0:5 / /proc rw - proc proc rw\n"
		v1      = "30 1 0:26 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,name=systemd\n"
		unified = "31 1 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n"
		part    = "32 1 0:27 /user.slice /mnt/my\\040groups rw - cgroup2 none rw\n"
		outside = "33 1 0:27 /../.. /mnt/outside rw - cgroup2 none rw\n"
	)
	for mounts, want := range map[string]hierarchy{
		"":                    {},
		proc + v1:             {},
		proc + v1 + unified:   {"/sys/fs/cgroup/unified", "/"},
		part + outside:        {"/mnt/my groups", "/user.slice"},
		outside:               {},
		part + unified:        {"/sys/fs/cgroup/unified", "/"},
		unified + part + "\n": {"/sys/fs/cgroup/unified", "/"},
	} {
		if h := findHierarchy(mounts); h != want {
			t.Errorf("%q: %+v, not %+v", mounts, h, want)
		}
	}
	whole, half := hierarchy{"/cg", "/"}, hierarchy{"/cg", "/user.slice"}
	for _, test := range []struct {
		h          hierarchy
		group, dir string
	}{
		{whole, "/", "/cg/"},
		{whole, "/a/b", "/cg/a/b"},
		{half, "/user.slice", "/cg"},
		{half, "/user.slice/a", "/cg/a"},
		{half, "/user.slicer/a", ""},
		{half, "/system.slice", ""},
		{hierarchy{}, "/a", ""},
	} {
		if dir, err := test.h.path(test.group); dir != test.dir || (err == nil) != (dir != "") {
			t.Errorf("%s in %+v: %q, %v", test.group, test.h, dir, err)
		}
	}
}

// What was kept of a process is used for that one alone, and only as long as
// its control group is one that is known.
func TestAsked(t *testing.T) {
	trees := newTrees(t, Config{})
	if !trees.tellsGroup {
		t.Skip("the kernel does not tell control groups by pidfd (PIDFD_GET_INFO, Linux 6.13)")
	}
	c := start(t, 0)
	ask := func() (ok bool) {
		t.Helper()
		if scope, err := trees.ScopeOf(c.id); scope != "" || err != nil {
			t.Fatalf("%q, %v", scope, err)
		}
		_, ok = trees.asked.scope(c.id)
		return ok
	}
	ask() // its group is known then
	if !ask() {
		t.Error("not kept after two questions")
	}
	other := c.id
	other.Start++
	for range 3 {
		if scope, err := trees.ScopeOf(other); !errors.Is(err, errEnded) {
			t.Errorf("of another process: %q, %v", scope, err)
		}
	}
	trees.asked.mu.Lock()
	clear(trees.asked.groups)
	trees.asked.mu.Unlock()
	if _, ok := trees.asked.scope(c.id); ok {
		t.Error("its group is not known, and answered for")
	}
	ask()
	c.kill()
	ended, _ := watchEnd(t, trees, c.id)
	receive(t, ended, "the end")
	if scope, err := trees.ScopeOf(c.id); !errors.Is(err, errEnded) { // a zombie
		t.Errorf("of a zombie: %q, %v", scope, err)
	}
	if len(trees.asked.kept) > 0 || len(trees.asked.oldest) > 0 {
		t.Errorf("a process that has ended is kept: %v, %v", trees.asked.kept, trees.asked.oldest)
	}
}

// The descriptors that are kept are bounded, and closed in the end.
func TestAskedDescriptors(t *testing.T) {
	trees := newTrees(t, Config{})
	if !trees.tellsGroup {
		t.Skip("the kernel does not tell control groups by pidfd (PIDFD_GET_INFO, Linux 6.13)")
	}
	var children []broker.ProcessID
	for range maxKept + 6 {
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		children = append(children, idOf(t, cmd.Process.Pid))
	}
	descriptors := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	before := descriptors()
	for range 3 {
		for _, id := range children {
			if _, err := trees.ScopeOf(id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if held := descriptors(); held-before != maxKept || len(trees.asked.kept) != maxKept || len(trees.asked.oldest) != maxKept {
		t.Errorf("%d descriptors held; %d kept, %d in line", held-before, len(trees.asked.kept), len(trees.asked.oldest))
	}
	trees.asked.close()
	if after := descriptors(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// A number is bound to the group that has it, and no other.
func TestGroupNumbers(t *testing.T) {
	trees := newTrees(t, Config{})
	if !trees.tellsGroup || trees.hierarchy.dir == "" {
		t.Skip("no control groups of version 2, or the kernel does not tell them by pidfd")
	}
	fd, err := newProc().openPidfd(idOf(t, os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer fd.close()
	number, ok := fd.group()
	group, err := newProc().groupOf(os.Getpid())
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if !trees.hierarchy.has(group, number) {
		t.Errorf("%s is not %d", group, number)
	}
	if trees.hierarchy.has(group, number+1) || trees.hierarchy.has(filepath.Join(group, "none"), number) {
		t.Error("another is taken for it")
	}
}

// A scope that is empty when it is watched, and one that is there no more.
func TestWatchEmpty(t *testing.T) {
	trees := newTrees(t, Config{})
	empty := make(chan bool, 1)
	tell := func(scope string) {
		t.Helper()
		if _, err := trees.WatchEmpty(scope, func() { empty <- true }); err != nil {
			t.Fatal(err)
		}
		receive(t, empty, "that it is empty")
	}
	if trees.hierarchy.dir == "" {
		t.Skip("no cgroup2 file system is mounted")
	}
	scope := strings.TrimSuffix(trees.hierarchy.root, "/") + "/gatepass-" + lease() + ".scope"
	tell(scope)
	dir, err := trees.hierarchy.scopeDir(scope)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no control group can be made here: %v", err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	tell(scope)
}

// From a cgroup namespace, what is outside cannot be told, and is not taken to
// be in no scope.
func TestScopeOfOutside(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to make a cgroup namespace")
	}
	trees := newTrees(t, Config{})
	dir, err := os.MkdirTemp(trees.hierarchy.dir, "gatepass-test-")
	if err != nil {
		t.Skipf("no control group can be made here: %v", err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := helper(t, "scope of", fmt.Sprint(os.Getpid()), fmt.Sprint(idOf(t, os.Getpid()).Start))
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	out, err := cmd.Output()
	if want := fmt.Sprintf("%q process %d: %v\n", "", os.Getpid(), errOutside); string(out) != want || err != nil {
		t.Errorf("%s, not %s, %v", out, want, err)
	}
}
