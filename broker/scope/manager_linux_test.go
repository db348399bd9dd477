package scope

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"gatepass/broker"
	"gatepass/broker/scope/scopetest"
)

func init() {
	helpers["enclose"] = func(args []string) { // itself
		trees, err := New(Config{RuntimeDir: args[0]})
		must(err)
		s, err := newProc().stat(os.Getpid())
		must(err)
		scope, err := trees.Enclose(context.Background(), "l-namespace", broker.ProcessID{PID: os.Getpid(), Start: s.start})
		fmt.Printf("%q %v\n", scope, err)
	}
}

// lease returns an id that no other test has.
func lease() string {
	leases.Lock()
	defer leases.Unlock()
	leases.n++
	return "l-" + strconv.Itoa(os.Getpid()) + "t" + strconv.Itoa(leases.n)
}

var leases struct {
	sync.Mutex
	n int
}

func mustEnclose(t testing.TB, trees *Trees, id broker.ProcessID) (scope string) {
	t.Helper()
	lease := lease()
	expected := trees.ScopeFor(lease)
	scope, err := trees.Enclose(t.Context(), lease, id)
	if err != nil {
		t.Fatal(err)
	}
	if path.Base(scope) != "gatepass-"+lease+".scope" || scope[0] != '/' {
		t.Fatalf("%s is in %q", lease, scope)
	}
	if expected != "" && expected != scope {
		t.Errorf("%s was expected in %s and is in %s", lease, expected, scope)
	}
	return scope
}

// Where one scope was made, the next will be.
func TestScopeFor(t *testing.T) {
	m := scopetest.Start(t, os.Getuid())
	trees := newTrees(t, Config{RuntimeDir: m.RuntimeDir})
	if got := trees.ScopeFor("l-two"); got != "" {
		t.Errorf("before the first: %q", got)
	}
	scope := mustEnclose(t, trees, start(t, 0).id)
	if got, want := trees.ScopeFor("l-two"), path.Dir(scope)+"/gatepass-l-two.scope"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := trees.ScopeFor("../l-two"); got != "" {
		t.Errorf("for what is no lease: %q", got)
	}
	mustEnclose(t, trees, start(t, 0).id)
}

func mustScopeOf(t testing.TB, trees *Trees, id broker.ProcessID) (scope string) {
	t.Helper()
	scope, err := trees.ScopeOf(id)
	if err != nil {
		t.Fatal(err)
	}
	return scope
}

// With a real user manager, and as another user than root too.
func TestScopes(t *testing.T) {
	uids := []int{os.Getuid()}
	if uids[0] == 0 {
		uids = append(uids, nobody)
	}
	for _, uid := range uids {
		t.Run(fmt.Sprint("uid ", uid), func(t *testing.T) {
			m := scopetest.Start(t, uid)
			if uid == os.Getuid() {
				testScopes(t, m)
				return
			}
			// The same test, in a process of that user.
			cmd := asUser(t, helper(t, ""))
			cmd.Args = append(cmd.Args, "-test.run=^TestScopes$", "-test.v")
			m.Enter(t, cmd)
			cmd.Env = append(cmd.Env, "TMPDIR=/tmp")
			cmd.Stderr = nil
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestScopes (") {
				t.Errorf("%s%v", out, err)
			} else {
				t.Logf("%s", out)
			}
		})
	}
}

func testScopes(t *testing.T, m *scopetest.Manager) {
	config := Config{RuntimeDir: m.RuntimeDir}
	trees := newTrees(t, config)
	enter := func(cmd *exec.Cmd) { m.Enter(t, cmd) }
	enclosed := func(t *testing.T, args ...string) (f *family, scope string) {
		f = startFamily(t, enter, args...)
		return f, mustEnclose(t, trees, f.ids["root"])
	}

	t.Run("first of all, concurrently", func(t *testing.T) { // the bus is started by it
		var group sync.WaitGroup
		for range 10 {
			f := startFamily(t, enter)
			group.Go(func() { mustEnclose(t, trees, f.ids["root"]) })
		}
		group.Wait()
	})

	t.Run("all that it starts is inside", func(t *testing.T) {
		f := startFamily(t, enter)
		for range 3 {
			if scope := mustScopeOf(t, trees, f.ids["root"]); scope != "" {
				t.Fatalf("in %q before", scope)
			}
		}
		scope := mustEnclose(t, trees, f.ids["root"])
		f.grow(t)
		for range 3 { // the first answers come from elsewhere than the last
			for name, id := range f.ids {
				if got := mustScopeOf(t, trees, id); got != scope {
					t.Errorf("%s is in %q", name, got)
				}
			}
			if got := mustScopeOf(t, trees, idOf(t, os.Getpid())); got != "" {
				t.Errorf("this process is in %q", got)
			}
		}
		all := f.pids(slices.Collect(maps.Keys(f.ids))...)
		if got := inside(t, trees, scope, f.ids["root"]); !slices.Equal(got, all) {
			t.Errorf("%v inside, not %v", got, all)
		}
		unit := m.Systemctl(t, "status", path.Base(scope))
		if !strings.Contains(unit, "gatepass lease l-") || !strings.Contains(unit, "active (running)") || !strings.Contains(unit, "/app.slice/") {
			t.Errorf("%s", unit)
		}

		// The wall stands after the root's end.
		ended, _ := watchEnd(t, trees, f.ids["root"])
		syscall.Kill(f.ids["root"].PID, syscall.SIGKILL)
		receive(t, ended, "the root's end")
		rest := f.pids("child", "session", "deaf", "orphan")
		if got := inside(t, trees, scope, f.ids["root"]); !slices.Equal(got, rest) {
			t.Errorf("%v inside after the root, not %v", got, rest)
		}
		if got := mustScopeOf(t, trees, f.ids["orphan"]); got != scope {
			t.Errorf("after the root's end the orphan is in %q", got)
		}
		// Another instance, as after the daemon's restart, sees the same.
		if got := mustScopeOf(t, newTrees(t, config), f.ids["child"]); got != scope {
			t.Errorf("another sees it in %q", got)
		}
		if got := inside(t, newTrees(t, config), scope, f.ids["root"]); !slices.Equal(got, rest) {
			t.Errorf("another sees %v", got)
		}
		if err := trees.Signal(scope, f.ids["root"], "KILL"); err != nil {
			t.Error(err)
		}
		until(t, "nobody is inside", func() bool { return len(inside(t, trees, scope, f.ids["root"])) == 0 })
		trees.Forget(scope)
		until(t, "systemd has forgotten the unit", func() bool {
			return !strings.Contains(m.Systemctl(t, "list-units", "--all", "gatepass-*"), path.Base(scope))
		})
		if _, err := os.Stat(trees.hierarchy.dir + scope); err == nil {
			t.Errorf("%s is there still", scope)
		}
	})

	t.Run("one more", func(t *testing.T) {
		f, scope := enclosed(t)
		var others []*family
		for range 2 {
			other := startFamily(t, enter)
			others = append(others, other)
			pid := other.ids["root"].PID
			if id, err := trees.Join(t.Context(), "", pid); err != nil || id != other.ids["root"] {
				t.Errorf("%v, not %v: %v", id, other.ids["root"], err)
			}
			if got := mustScopeOf(t, trees, other.ids["root"]); got != "" {
				t.Errorf("in %q before", got)
			}
			if id, err := trees.Join(t.Context(), scope, pid); err != nil || id != other.ids["root"] {
				t.Errorf("%v, not %v: %v", id, other.ids["root"], err)
			}
			other.grow(t)
			for name, id := range other.ids {
				if got := mustScopeOf(t, trees, id); got != scope {
					t.Errorf("%s is in %q", name, got)
				}
			}
		}
		if _, err := trees.Join(t.Context(), "/app.slice", f.ids["root"].PID); err == nil {
			t.Error("it joined what is no scope")
		}
		if err := trees.Signal(scope, f.ids["root"], "KILL"); err != nil {
			t.Error(err)
		}
		for _, f := range append(others, f) {
			for range f.out {
			}
		}
		until(t, "the scope is gone", func() bool { _, err := os.Stat(trees.hierarchy.dir + scope); return err != nil })
		last := startFamily(t, enter)
		if _, err := trees.Join(t.Context(), scope, last.ids["root"].PID); err == nil {
			t.Error("it joined a scope that is gone")
		}
	})

	t.Run("when it is empty", func(t *testing.T) {
		f, scope := enclosed(t)
		f.grow(t)
		empty := make(chan bool, 3)
		tell := func(scope string) (stop func()) {
			stop, err := trees.WatchEmpty(scope, func() { empty <- true })
			if err != nil {
				t.Fatal(err)
			}
			return stop
		}
		tell(scope)
		tell(scope)()
		// As long as one is there, in a group below at that, it is not empty.
		dir := trees.hierarchy.dir + scope + "/below"
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, f.ids["orphan"].PID), 0); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"root", "child", "session", "deaf"} {
			ended, _ := watchEnd(t, trees, f.ids[name])
			syscall.Kill(f.ids[name].PID, syscall.SIGKILL)
			receive(t, ended, name+"'s end")
		}
		if len(empty) > 0 {
			t.Error("told that it is empty, and the orphan is there")
		}
		syscall.Kill(f.ids["orphan"].PID, syscall.SIGKILL)
		receive(t, empty, "that it is empty")
		tell(scope)
		receive(t, empty, "that it has been empty")
		if len(empty) > 0 {
			t.Error("told more than once, or after stop")
		}
		if _, err := trees.WatchEmpty("/app.slice", func() {}); err == nil {
			t.Error("what is no scope is watched")
		}
		until(t, "nothing is left of the watches", func() bool {
			trees.watcher.mu.Lock()
			defer trees.watcher.mu.Unlock()
			return !slices.ContainsFunc(slices.Collect(maps.Values(trees.watcher.watches)), func(w *watch) bool { return w.scope })
		})
	})

	t.Run("when it is empty, and the kernel does not tell", func(t *testing.T) {
		trees := newTrees(t, config)
		trees.watcher.scopeLook = time.Millisecond
		f, scope := enclosed(t)
		empty := make(chan bool, 1)
		if _, err := trees.WatchEmpty(scope, func() { empty <- true }); err != nil {
			t.Fatal(err)
		}
		trees.watcher.mu.Lock()
		for _, w := range trees.watcher.watches {
			if err := unix.EpollCtl(trees.watcher.epoll, unix.EPOLL_CTL_DEL, int(w.fd), nil); err != nil {
				t.Error(err)
			}
		}
		trees.watcher.mu.Unlock()
		if err := trees.Signal(scope, f.ids["root"], "KILL"); err != nil {
			t.Error(err)
		}
		receive(t, empty, "that it is empty")
	})

	t.Run("signals", func(t *testing.T) {
		f, scope := enclosed(t)
		testSignal(t, trees, scope, f, true)
	})

	t.Run("signals without cgroup.kill", func(t *testing.T) { // before Linux 5.14
		f, scope := enclosed(t)
		f.grow(t)
		if err := trees.killEach(scope, f.ids["root"]); err != nil {
			t.Error(err)
		}
		for range f.out {
		}
	})

	t.Run("stopped by systemctl", func(t *testing.T) {
		f, scope := enclosed(t)
		m.Systemctl(t, "stop", path.Base(scope))
		for range f.out {
		}
		if list := m.Systemctl(t, "list-units", "--all", "gatepass-*"); strings.Contains(list, path.Base(scope)) {
			t.Errorf("%s", list)
		}
	})

	t.Run("a fork bomb", func(t *testing.T) {
		testBomb(t, trees, enter, func(id broker.ProcessID) string { return mustEnclose(t, trees, id) })
	})

	t.Run("one that is never where it was", func(t *testing.T) { testHopper(t, trees, enter) })

	t.Run("groups inside", func(t *testing.T) {
		f, scope := enclosed(t)
		f.grow(t)
		dir := trees.hierarchy.dir + scope
		put := func(group string, name string) {
			t.Helper()
			err := os.MkdirAll(filepath.Join(dir, group), 0o755)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, group, "cgroup.procs"), fmt.Append(nil, f.ids[name].PID), 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		all := f.pids(slices.Collect(maps.Keys(f.ids))...)
		for range 2 {
			mustScopeOf(t, trees, f.ids["child"]) // it is known before it goes
		}
		put("a/b", "child")
		put("gatepass-l-other.scope", "session")
		for name, id := range f.ids {
			for range 3 {
				if got := mustScopeOf(t, trees, id); got != scope {
					t.Errorf("%s is in %q", name, got)
				}
			}
		}
		if got := inside(t, trees, scope, f.ids["root"]); !slices.Equal(got, all) {
			t.Errorf("%v inside, not %v", got, all)
		}
		// As long as one group below has a process, the scope is not empty.
		for _, name := range []string{"root", "deaf", "orphan", "session"} {
			ended, _ := watchEnd(t, trees, f.ids[name])
			syscall.Kill(f.ids[name].PID, syscall.SIGKILL)
			receive(t, ended, name+"'s end")
		}
		if got, want := inside(t, trees, scope, f.ids["root"]), f.pids("child"); !slices.Equal(got, want) {
			t.Errorf("%v inside, not %v", got, want)
		}
		if err := trees.Signal(scope, f.ids["root"], "KILL"); err != nil {
			t.Error(err)
		}
		for range f.out {
		}
	})

	t.Run("too many groups inside", func(t *testing.T) {
		f, scope := enclosed(t)
		for i := range maxBelow {
			if err := os.Mkdir(fmt.Sprint(trees.hierarchy.dir, scope, "/", i), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, err := range []error{
			trees.Signal(scope, f.ids["root"], "TERM"),
			func() error { _, err := members(trees.hierarchy.dir+scope, 2); return err }(),
		} {
			if err == nil || !strings.Contains(err.Error(), "control groups") {
				t.Errorf("%v", err)
			}
		}
		if err := trees.Signal(scope, f.ids["root"], "KILL"); err != nil {
			t.Error(err)
		}
		for range f.out {
		}
	})

	t.Run("a group of threads inside", func(t *testing.T) {
		f, scope := enclosed(t)
		dir := trees.hierarchy.dir + scope + "/threads"
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/cgroup.type", []byte("threaded"), 0); err != nil {
			t.Fatal(err)
		}
		// All threads of a process, its first too.
		tasks, err := os.ReadDir(fmt.Sprint("/proc/", f.ids["root"].PID, "/task"))
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			if err := os.WriteFile(dir+"/cgroup.threads", []byte(task.Name()), 0); err != nil {
				t.Fatal(err)
			}
		}
		if got := mustScopeOf(t, trees, f.ids["root"]); got != scope {
			t.Errorf("in %q", got)
		}
		if got, want := inside(t, trees, scope, f.ids["root"]), f.pids("root"); !slices.Equal(got, want) {
			t.Errorf("%v inside, not %v", got, want)
		}
		if err := trees.Signal(scope, f.ids["root"], "TERM"); err != nil {
			t.Error(err)
		}
		for range f.out {
		}
	})

	t.Run("who leaves", func(t *testing.T) {
		if m.Group == "" {
			t.Skip("no control group to go to")
		}
		f, scope := enclosed(t)
		f.grow(t)
		for range 3 {
			mustScopeOf(t, trees, f.ids["child"])
		}
		if err := os.WriteFile(m.Group+"/cgroup.procs", fmt.Append(nil, f.ids["child"].PID), 0); err != nil {
			t.Fatal(err)
		}
		if got := mustScopeOf(t, trees, f.ids["child"]); got != "" {
			t.Errorf("in %q still", got)
		}
		ended, _ := watchEnd(t, trees, f.ids["child"])
		if err := trees.send(scope, f.ids["child"], "KILL"); err != nil {
			t.Error(err)
		}
		if err := trees.Signal(scope, f.ids["root"], "KILL"); err != nil {
			t.Error(err)
		}
		f.in.Close()
		if e := receive(t, ended, "the end"); e.Known && e.Status != 0 {
			t.Errorf("who is not inside was signalled: %+v", e)
		}
	})

	t.Run("refused", func(t *testing.T) {
		f, scope := enclosed(t)
		other := startFamily(t, enter)
		name := strings.TrimSuffix(strings.TrimPrefix(path.Base(scope), "gatepass-"), ".scope")
		if got, err := trees.Enclose(t.Context(), name, other.ids["root"]); got != "" || err == nil {
			t.Errorf("the same again: %q, %v", got, err)
		} else if !strings.Contains(err.Error(), path.Base(scope)) {
			t.Errorf("the error does not say which: %v", err)
		}
		if got := mustScopeOf(t, trees, other.ids["root"]); got != "" {
			t.Errorf("in %q", got)
		}
		for _, bad := range []string{"", "x", "l-../a", "l-A", "l-a.scope"} {
			if got, err := trees.Enclose(t.Context(), bad, other.ids["root"]); got != "" || err == nil {
				t.Errorf("lease %q: %q, %v", bad, got, err)
			}
		}
		ended := other.ids["root"]
		ended.Start--
		if got, err := trees.Enclose(t.Context(), lease(), ended); got != "" || err == nil {
			t.Errorf("a process that has ended: %q, %v", got, err)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if got, err := trees.Enclose(cancelled, lease(), other.ids["root"]); got != "" || err == nil {
			t.Errorf("cancelled: %q, %v", got, err)
		}
		mustEnclose(t, trees, other.ids["root"]) // and all the same it works on
		f.in.Close()
	})

	t.Run("the daemon itself inside", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("needs root, to leave again")
		}
		self := idOf(t, os.Getpid())
		before, err := newProc().groupOf(self.PID)
		if err != nil {
			t.Fatal(err)
		}
		scope := mustEnclose(t, trees, self)
		f := startFamily(t, nil)
		if got := mustScopeOf(t, trees, f.ids["root"]); got != scope {
			t.Errorf("in %q", got)
		}
		if err := trees.Signal(scope, f.ids["root"], "KILL"); err != nil {
			t.Error(err)
		}
		for range f.out {
		}
		if err := os.WriteFile(trees.hierarchy.dir+before+"/cgroup.procs", fmt.Append(nil, self.PID), 0); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("another PID namespace", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("needs root, to make a PID namespace")
		}
		inner := helper(t, "enclose")
		cmd := exec.Command("sh", "-c", `mount -t proc proc /proc && exec "$0" "$@"`, inner.Path, m.RuntimeDir)
		cmd.Env, cmd.Stderr = inner.Env, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.Output(); string(out) != "\"\" <nil>\n" || err != nil {
			t.Errorf("%s, %v", out, err)
		}
	})

	t.Run("a slow manager", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("needs root, whose manager the test may stop")
		}
		f := startFamily(t, enter)
		root := f.ids["root"]
		m.Signal(t, syscall.SIGSTOP)
		late := lease()
		begin := time.Now()
		scope, err := trees.Enclose(t.Context(), late, root)
		if took := time.Since(begin); scope != "" || err == nil || took < managerMax/2 || took > managerMax*5 {
			t.Errorf("stopped: %q, %v after %s", scope, err, took)
		}
		short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if scope, err := trees.Enclose(short, lease(), root); scope != "" || err == nil {
			t.Errorf("stopped, a short time: %q, %v", scope, err)
		}
		cancel()
		m.Signal(t, syscall.SIGCONT)

		// Who does not wait does not spoil it for those who do.
		mustEnclose(t, trees, startFamily(t, enter).ids["root"])
		m.Signal(t, syscall.SIGSTOP)
		patient, impatient := startFamily(t, enter).ids["root"], startFamily(t, enter).ids["root"]
		leaving, leave := context.WithCancel(t.Context())
		results := make(chan error, 2)
		go func() {
			_, err := trees.Enclose(t.Context(), lease(), patient)
			results <- err
		}()
		go func() {
			_, err := trees.Enclose(leaving, lease(), impatient)
			if err == nil {
				err = errors.New("it is said to have succeeded")
			} else if errors.Is(err, context.Canceled) {
				err = nil
			}
			results <- err
		}()
		until(t, "both wait", func() bool {
			b := <-trees.manager.turn
			defer func() { trees.manager.turn <- b }()
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.waiting) == 2
		})
		leave()
		if err := receive(t, results, "the one who leaves"); err != nil {
			t.Error(err)
		}
		m.Signal(t, syscall.SIGCONT)
		if err := receive(t, results, "the one who waits"); err != nil {
			t.Error(err)
		}

		// Whatever the manager does now, Enclose has said that there is none.
		other := startFamily(t, enter).ids["root"]
		if got, err := newTrees(t, config).Enclose(t.Context(), late, other); path.Base(got) != "gatepass-"+late+".scope" {
			t.Fatal(got, err)
		}
		for range 3 {
			if scope := mustScopeOf(t, trees, other); scope != "" {
				t.Errorf("Enclose failed, and it is in %q", scope)
			}
		}
		trees.Forget("/app.slice/gatepass-" + late + ".scope")
		if scope := mustScopeOf(t, trees, other); scope == "" {
			t.Error("it is not forgotten")
		}
	})

	t.Run("the bus is started anew", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("needs root, whose bus the test may stop")
		}
		mustEnclose(t, trees, startFamily(t, enter).ids["root"])
		m.Systemctl(t, "stop", "dbus.service")
		until(t, "the end of the connection", func() bool {
			b := <-trees.manager.turn
			defer func() { trees.manager.turn <- b }()
			return !b.conn.Connected()
		})
		mustEnclose(t, trees, startFamily(t, enter).ids["root"])
	})
}

// Where there is no manager, there is no scope, and no error.
func TestNoManager(t *testing.T) {
	c := start(t, 0)
	none := func(t *testing.T, config Config) {
		t.Helper()
		begin := time.Now()
		scope, err := newTrees(t, config).Enclose(t.Context(), lease(), c.id)
		if scope != "" || err != nil {
			t.Errorf("%q, %v", scope, err)
		}
		if took := time.Since(begin); took > managerMax/2 {
			t.Errorf("found out after %s", took)
		}
	}
	dir := t.TempDir()
	t.Run("no bus", func(t *testing.T) { none(t, Config{RuntimeDir: dir}) })
	t.Run("a relative directory", func(t *testing.T) { none(t, Config{RuntimeDir: "run"}) })
	t.Run("a file for a directory", func(t *testing.T) { none(t, Config{RuntimeDir: "/proc/self/stat"}) })
	t.Run("addresses that would start programs", func(t *testing.T) {
		file := filepath.Join(dir, "started")
		t.Chdir(t.TempDir())
		ln, err := net.Listen("unix", "relative") // dialled, it would not answer
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		for _, address := range []string{
			"autolaunch:", "unixexec:path=/usr/bin/touch,argv1=" + file, "tcp:host=127.0.0.1,port=1", "disabled:", ":", ";;",
			"unix:path=relative", "unix:tmpdir=/tmp", "unix:", "unix:path=%zz", "launchd:env=X",
		} {
			none(t, Config{RuntimeDir: dir, BusAddress: address})
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("a program was started")
		}
	})
	t.Run("no control groups of version 2", func(t *testing.T) {
		dir := t.TempDir()
		ln, err := net.Listen("unix", filepath.Join(dir, "bus"))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		trees := newTrees(t, Config{RuntimeDir: dir})
		trees.hierarchy = hierarchy{}
		if scope, err := trees.Enclose(t.Context(), lease(), c.id); scope != "" || err != nil {
			t.Errorf("%q, %v", scope, err)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "bus"), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false)
		ln.Close()
		none(t, Config{RuntimeDir: dir})
	})
	t.Run("a bus without systemd", func(t *testing.T) {
		program, err := exec.LookPath("dbus-daemon")
		if err != nil {
			if os.Getenv("GATEPASS_REAL") == "1" {
				t.Fatal("GATEPASS_REAL=1 and dbus-daemon is not installed")
			}
			t.Skip("dbus-daemon is not installed")
		}
		for _, address := range []string{"unix:path=" + dir + "/a%20bus", "unix:abstract=" + dir + "/bus"} {
			cmd := exec.Command(program, "--session", "--nofork", "--nopidfile", "--print-address", "--address="+address)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			none(t, Config{RuntimeDir: t.TempDir(), BusAddress: "tcp:host=x;" + receive(t, lines(out), "its address")})
		}
	})
	t.Run("another user's bus", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("needs root, to have another user's")
		}
		m := scopetest.Start(t, nobody)
		none(t, Config{RuntimeDir: m.RuntimeDir})
	})
}

// No bus is dialled before the first lease, and then none but those of Config.
func TestDialsNothing(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "bus"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+dir+"/bus")
	t.Setenv("DBUS_STARTER_ADDRESS", "unix:path="+dir+"/bus")
	t.Setenv("XDG_RUNTIME_DIR", dir)
	trees, c := newTrees(t, Config{RuntimeDir: dir}), start(t, 0)
	watchEnd(t, trees, c.id)
	mustScopeOf(t, trees, c.id)
	if _, err := newTrees(t, Config{}).Enclose(t.Context(), lease(), c.id); err != nil {
		t.Error(err)
	}
	ln.SetDeadline(time.Now())
	if conn, err := ln.Accept(); err == nil {
		conn.Close()
		t.Error("the bus was dialled")
	}
}

// A bus that says nothing, or ends, is an error in time.
func TestBadBus(t *testing.T) {
	c := start(t, 0)
	for name, serve := range map[string]func(net.Conn){
		"says nothing":       func(c net.Conn) { c.Read(make([]byte, 1<<20)); <-t.Context().Done() },
		"closes":             func(c net.Conn) { c.Close() },
		"talks rubbish":      func(c net.Conn) { c.Write([]byte("rubbish\r\n")) },
		"rejects":            func(c net.Conn) { c.Write([]byte("REJECTED\r\nREJECTED\r\n")) },
		"hangs after log-in": func(c net.Conn) { c.Write([]byte("REJECTED EXTERNAL\r\nOK 1234\r\n")); <-t.Context().Done() },
		"a message of rubbish": func(c net.Conn) {
			c.Write([]byte("REJECTED EXTERNAL\r\nOK 1234\r\n" + strings.Repeat("\x00l\x02", 100)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ln, err := net.Listen("unix", filepath.Join(dir, "bus"))
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					go func() { serve(c) }()
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			begin := time.Now()
			scope, err := newTrees(t, Config{RuntimeDir: dir}).Enclose(ctx, lease(), c.id)
			if scope != "" || err == nil || !strings.Contains(err.Error(), dir) {
				t.Errorf("%q, %v", scope, err)
			}
			if took := time.Since(begin); took > patience/2 {
				t.Errorf("after %s", took)
			}
		})
	}
}

func TestRefusal(t *testing.T) {
	for name, want := range map[string]bool{
		"org.freedesktop.systemd1.UnitExists": true, "org.freedesktop.DBus.Error.InvalidArgs": true, "org.freedesktop.DBus.Error.AccessDenied": true,
		"org.freedesktop.DBus.Error.NoReply": false, "org.freedesktop.DBus.Error.ServiceUnknown": false,
	} {
		if refusal(fmt.Errorf("x: %w", dbus.Error{Name: name})) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	if refusal(dbus.ErrClosed) || refusal(context.Canceled) {
		t.Error("a failure is taken for an answer")
	}
}

func TestProperties(t *testing.T) {
	for text, want := range map[string]int{"252.38-1~deb12u1": 252, "257": 257, "v255": 0, "": 0, "249 (249.11-0ubuntu3)": 249} {
		if got := versionOf(text); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
	for version, oom := range map[int]bool{0: false, 252: false, 253: true, 257: true} {
		has := slices.ContainsFunc(properties(version, "l-one", 1), func(p property) bool { return p.Name == "OOMPolicy" })
		if has != oom {
			t.Errorf("systemd %d: %v", version, has)
		}
	}
}

// How long it takes to have a scope made.
func BenchmarkEnclose(b *testing.B) {
	m := scopetest.Start(b, os.Getuid())
	trees := newTrees(b, Config{RuntimeDir: m.RuntimeDir})
	for b.Loop() {
		b.StopTimer()
		c := start(b, 0)
		b.StartTimer()
		mustEnclose(b, trees, c.id)
		b.StopTimer()
		c.kill()
		c.reap()
		b.StartTimer()
	}
}

// Whether a process is in a scope: the question of each request. The process
// is in one, ten levels below the service manager's group.
func BenchmarkScopeOf(b *testing.B) {
	m := scopetest.Start(b, os.Getuid())
	trees := newTrees(b, Config{RuntimeDir: m.RuntimeDir})
	c := start(b, 0)
	scope := mustEnclose(b, trees, c.id)
	dir := trees.hierarchy.dir + scope + "/1/2/3/4/5/6/7/8"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, c.id.PID), 0); err != nil {
		b.Fatal(err)
	}
	ask := func(b *testing.B, again bool) {
		b.ReportAllocs()
		begin := cpuTime(b)
		for b.Loop() {
			if !again {
				trees.asked.close()
			}
			if got, err := trees.ScopeOf(c.id); err != nil || got != scope {
				b.Fatal(got, err)
			}
		}
		reportCPU(b, begin)
	}
	b.Run("again", func(b *testing.B) { // by PIDFD_GET_INFO, where there is
		if !trees.tellsGroup {
			b.Skip("the kernel does not tell control groups by pidfd (Linux 6.13)")
		}
		ask(b, true)
	})
	b.Run("first", func(b *testing.B) { ask(b, false) })
	b.Run("older kernels", func(b *testing.B) {
		trees.tellsGroup = false
		trees.asked.close()
		ask(b, true)
	})
}
