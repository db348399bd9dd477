package scope

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

func init() {
	helpers["root"] = helperRoot
	helpers["fork"] = helperFork
	helpers["leaf"] = helperLeaf
	helpers["signal"] = helperSignal
	helpers["foreign"] = helperForeign
}

// helperRoot starts a family once a line tells it to, says who it has, and
// waits for the end of its input. With the argument "reaper", orphans are its
// own.
func helperRoot(args []string) {
	if slices.Contains(args, "reaper") {
		must(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	}
	var b [1]byte
	for b[0] != '\n' {
		if _, err := os.Stdin.Read(b[:]); err != nil {
			return
		}
	}
	startHelper(nil, "leaf", "child")
	startHelper(&syscall.SysProcAttr{Setsid: true}, "leaf", "session")
	startHelper(nil, "leaf", "deaf")
	must(startHelper(nil, "fork", "orphan").Wait())
	fmt.Println("all")
	io.Copy(io.Discard, os.Stdin)
}

// helperFork leaves a leaf behind.
func helperFork(args []string) {
	startHelper(&syscall.SysProcAttr{Setsid: true}, "leaf", args...)
}

// helperLeaf says who it is, and waits for the end of its input.
func helperLeaf(args []string) {
	if args[0] == "deaf" {
		signal.Ignore(syscall.SIGHUP, syscall.SIGTERM)
	}
	fmt.Println(args[0], os.Getpid())
	io.Copy(io.Discard, os.Stdin)
}

func startHelper(attr *syscall.SysProcAttr, name string, args ...string) *exec.Cmd {
	exe, err := os.Executable()
	must(err)
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), "SCOPE_TEST_HELPER="+name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	must(cmd.Start())
	return cmd
}

// A family is a lease's root and what it has started: by name "root", "child",
// "session" (a session of its own), "deaf" (to HUP and TERM) and "orphan".
type family struct {
	ids map[string]broker.ProcessID
	cmd *exec.Cmd
	in  *os.File
	out <-chan string
}

// startFamily starts a root, which waits for grow.
func startFamily(t testing.TB, prepare func(*exec.Cmd), args ...string) *family {
	t.Helper()
	cmd := helper(t, "root", args...)
	if prepare != nil {
		prepare(cmd)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = r
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	f := &family{ids: map[string]broker.ProcessID{"root": idOf(t, cmd.Process.Pid)}, cmd: cmd, in: w, out: lines(out)}
	t.Cleanup(func() {
		f.in.Close()
		for range f.out { // until the last has ended
		}
		cmd.Wait()
	})
	return f
}

// grow has the root start the others, and returns when they are what they are.
func (f *family) grow(t testing.TB) {
	t.Helper()
	if _, err := f.in.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	for len(f.ids) < 6 {
		line := receive(t, f.out, "one of the family")
		name, number, _ := strings.Cut(line, " ")
		if name == "all" { // the orphan has lost its parent
			f.ids[name] = broker.ProcessID{}
			continue
		}
		pid, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(line)
		}
		f.ids[name] = idOf(t, pid)
	}
	delete(f.ids, "all")
}

// pids returns those of the named, sorted.
func (f *family) pids(names ...string) []int {
	var pids []int
	for _, name := range names {
		pids = append(pids, f.ids[name].PID)
	}
	slices.Sort(pids)
	return pids
}

// until waits for a condition.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 1000})
	}
}

// inside returns who is inside, sorted.
func inside(t testing.TB, trees *Trees, scope string, root broker.ProcessID) []int {
	t.Helper()
	list, err := trees.Inside(scope, root)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, p := range list {
		pids = append(pids, p.PID)
	}
	slices.Sort(pids)
	return pids
}

// Without a scope, a lease is what is below its root, as long as that lives.
func TestInsideByAncestry(t *testing.T) {
	trees := newTrees(t, Config{})
	start(t, 0) // a neighbour
	for _, reaper := range []bool{true, false} {
		args := []string{"reaper"}
		all := []string{"root", "child", "session", "deaf", "orphan"}
		if !reaper {
			args, all = nil, all[:4]
		}
		f := startFamily(t, nil, args...)
		f.grow(t)
		if got, want := inside(t, trees, "", f.ids["root"]), f.pids(all...); !slices.Equal(got, want) {
			t.Errorf("reaper %v: %v, not %v", reaper, got, want)
		}
		// A zombie has no children: who was below is outside now.
		ended, _ := watchEnd(t, trees, f.ids["root"])
		syscall.Kill(f.ids["root"].PID, syscall.SIGKILL)
		receive(t, ended, "the root's end")
		if got := inside(t, trees, "", f.ids["root"]); len(got) > 0 {
			t.Errorf("reaper %v: %v after the root's end", reaper, got)
		}
	}
}

// What is shown of a process, in the order of their starts.
func TestInsideDescribes(t *testing.T) {
	trees := newTrees(t, Config{})
	f := startFamily(t, nil)
	f.grow(t)
	list, err := trees.Inside("", f.ids["root"])
	if err != nil || len(list) != 4 {
		t.Fatalf("%+v, %v", list, err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	exe, err = filepath.EvalSymlinks(exe)
	if err != nil {
		t.Fatal(err)
	}
	root := list[0]
	if root.PID != f.ids["root"].PID || root.Exe != exe || !slices.Equal(root.Args, f.cmd.Args) || root.Command != strings.Join(root.Args, " ") {
		t.Errorf("%+v", root)
	}
	for _, p := range list {
		if p.ID.PID != p.PID || p.ID.Start < f.ids["root"].Start {
			t.Errorf("%d is %+v", p.PID, p.ID)
		}
	}
	args := []string{list[1].Args[1], list[2].Args[1], list[3].Args[1]}
	if slices.Sort(args); !slices.Equal(args, []string{"child", "deaf", "session"}) {
		t.Errorf("%v", args)
	}
	if _, ok := trees.describe(broker.ProcessID{PID: root.PID, Start: 1}); ok {
		t.Error("a process that has ended is described")
	}
}

// The relative name of a script is of use with the directory alone.
func TestDescribeScript(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "deploy.sh"), []byte("read line\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "deploy.sh")
	cmd.Dir = dir
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	until(t, "it has its arguments", func() bool { return len(newProc().args(cmd.Process.Pid)) > 0 })
	p, ok := newProc().describe(idOf(t, cmd.Process.Pid))
	if !ok || p.Cwd != dir || broker.ProgramOf(p, nil) != filepath.Join(dir, "deploy.sh") {
		t.Errorf("%+v, %v", p, ok)
	}
}

// A long command line is cut to whole arguments.
func TestArgs(t *testing.T) {
	long := strings.Repeat("x", maxArgs-18)
	cmd := helper(t, "wait", "0", long, "half", "more", strings.Repeat("y", 100))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[0] = "helper"
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	var args []string
	until(t, "it has its arguments", func() bool { // a moment after Start
		args = newProc().args(cmd.Process.Pid)
		return len(args) > 0
	})
	if !slices.Equal(args, []string{"helper", "0", long, "half"}) {
		t.Errorf("%d arguments, the last %.20q", len(args), args[len(args)-1])
	}
	if args := newProc().args(1 << 30); args != nil {
		t.Errorf("of no process: %q", args)
	}
}

// HUP, TERM and KILL reach all, also when the first of them ends the root and
// leaves the others to another parent.
func TestSignalByAncestry(t *testing.T) {
	for _, reaper := range []bool{true, false} {
		t.Run(fmt.Sprintf("reaper %v", reaper), func(t *testing.T) {
			var args []string
			if reaper {
				args = []string{"reaper"}
			}
			testSignal(t, newTrees(t, Config{}), "", startFamily(t, nil, args...), reaper)
		})
	}
}

// testSignal signals a family, whose orphan may be outside.
func testSignal(t *testing.T, trees *Trees, scope string, f *family, orphan bool) {
	t.Helper()
	if len(f.ids) == 1 {
		f.grow(t)
	}
	neighbour := start(t, 0)
	spared, _ := watchEnd(t, trees, neighbour.id)
	ended := make(map[string]chan broker.Exit)
	for name, id := range f.ids {
		ended[name], _ = watchEnd(t, trees, id)
	}
	if !orphan {
		delete(ended, "orphan")
	}
	// A stopped process has to be woken to end.
	if err := syscall.Kill(f.ids["session"].PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	root := f.ids["root"]
	if err := trees.Signal(scope, root, "HUP"); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(ended)) {
		if name == "deaf" {
			continue
		}
		if e := receive(t, ended[name], name+"'s end"); e.Known && e.Status != 129 {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if got, want := inside(t, trees, scope, root), f.pids("deaf"); !slices.Equal(got, want) {
		t.Fatalf("inside after HUP: %v, not %v", got, want)
	}
	if err := trees.Signal(scope, root, "TERM"); err != nil {
		t.Fatal(err)
	}
	if got, want := inside(t, trees, scope, root), f.pids("deaf"); !slices.Equal(got, want) {
		t.Fatalf("inside after TERM: %v, not %v", got, want)
	}
	if err := trees.Signal(scope, root, "KILL"); err != nil {
		t.Fatal(err)
	}
	if e := receive(t, ended["deaf"], "the deaf one's end"); e.Known && e.Status != 137 {
		t.Errorf("deaf: %+v", e)
	}
	if got := inside(t, trees, scope, root); len(got) > 0 {
		t.Errorf("inside after KILL: %v", got)
	}
	for _, signal := range []string{"HUP", "KILL"} {
		if err := trees.Signal(scope, root, signal); err != nil {
			t.Errorf("%s to nobody: %v", signal, err)
		}
	}
	if len(trees.reached.byRoot) > 0 {
		t.Errorf("kept in mind: %v", trees.reached.byRoot)
	}
	select {
	case e := <-spared:
		t.Errorf("the neighbour ended: %+v", e)
	default:
	}
	if orphan {
		return
	}
	if newProc().alive(f.ids["orphan"]) != nil {
		t.Error("the orphan, who is outside, has ended")
	}
}

// KILL at once ends all, the root included.
func TestKillByAncestry(t *testing.T) {
	trees := newTrees(t, Config{})
	f := startFamily(t, nil, "reaper")
	f.grow(t)
	if err := trees.Signal("", f.ids["root"], "KILL"); err != nil {
		t.Fatal(err)
	}
	for range f.out { // closed when nobody has it any more
	}
}

func TestSignalRefuses(t *testing.T) {
	trees := newTrees(t, Config{})
	c := start(t, 0)
	for _, signal := range []string{"", "STOP", "INT", "SIGTERM", "9", "hup"} {
		if err := trees.Signal("", c.id, signal); err == nil {
			t.Errorf("%q is sent", signal)
		}
	}
	for _, scope := range []string{
		"/", "x", "/app.slice", "gatepass-l-one.scope", "/../gatepass-l-one.scope", "/a/../gatepass-l-one.scope",
		"/gatepass-l-one.scope/below", "/gatepass-l-one.scope/gatepass-l-two.scope", "/gatepass-l-one.scope/",
	} {
		for _, signal := range []string{"HUP", "KILL"} {
			if err := trees.Signal(scope, c.id, signal); err == nil {
				t.Errorf("%s is sent to %q", signal, scope)
			}
		}
		if list, err := trees.Inside(scope, c.id); err == nil {
			t.Errorf("inside %q: %v", scope, list)
		}
	}
	other := c.id // another that has the number
	other.Start++
	if err := trees.Signal("", other, "KILL"); err != nil {
		t.Error(err)
	}
	if err := trees.send("", other, "KILL"); err != nil {
		t.Error(err)
	}
	if err := newProc().alive(c.id); err != nil {
		t.Error(err)
	}
	// All below this process, and not itself.
	ended, _ := watchEnd(t, trees, c.id)
	if err := trees.Signal("", idOf(t, os.Getpid()), "KILL"); err != nil {
		t.Error(err)
	}
	receive(t, ended, "the child's end")
}

// helperSignal sends a signal below a root.
func helperSignal(args []string) {
	trees, err := New(Config{RuntimeDir: "/nonexistent"})
	must(err)
	must(trees.Signal("", parseID(args[1:]), args[0]))
}

// Another user's process below the root is not signalled, and hinders nothing.
func TestSignalOfAnother(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	trees := newTrees(t, Config{})
	// The root and what it starts are root's, but for one.
	cmd := exec.Command("sh", "-c", `setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'echo $$; exec sleep 1000' & echo $!; cat`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	ch := lines(out)
	pid, err := strconv.Atoi(receive(t, ch, "its number"))
	if err != nil {
		t.Fatal(err)
	}
	receive(t, ch, "its number, as nobody")
	root, nobodys := idOf(t, cmd.Process.Pid), idOf(t, pid)
	ended, _ := watchEnd(t, trees, nobodys)
	for _, signal := range []string{"TERM", "KILL"} {
		out, err := asUser(t, helper(t, "signal", signal, fmt.Sprint(root.PID), fmt.Sprint(root.Start))).Output()
		if err != nil {
			t.Errorf("%s: %s, %v", signal, out, err)
		}
	}
	receive(t, ended, "the end of nobody's process")
	if err := newProc().alive(root); err != nil {
		t.Errorf("root's process: %v", err)
	}
}

// Where /proc shows another PID namespace, its numbers are other processes'.
func TestForeignProc(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to make a PID namespace")
	}
	cmd := helper(t, "foreign")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if out, err := cmd.Output(); string(out) != "done\n" || err != nil {
		t.Errorf("%s, %v", out, err)
	}
}

func helperForeign([]string) {
	trees, err := New(Config{RuntimeDir: "/nonexistent"})
	must(err)
	// The first process in there is this one, and out there another.
	b, err := os.ReadFile("/proc/1/stat")
	must(err)
	s, err := parseStat(b)
	must(err)
	id := broker.ProcessID{PID: 1, Start: s.start}
	_, watchErr := trees.Watch(id, func(broker.Exit) {})
	_, scopeErr := trees.ScopeOf(id)
	_, insideErr := trees.Inside("", id)
	for what, err := range map[string]error{
		"Watch": watchErr, "ScopeOf": scopeErr, "Inside": insideErr, "Signal": trees.Signal("", id, "TERM"), "send": trees.send("", id, "TERM"),
	} {
		if !errors.Is(err, errForeign) {
			fmt.Printf("%s: %v\n", what, err)
		}
	}
	fmt.Println("done")
}

// bomb is a program that starts itself whenever it can read a line, and never
// waits for what it started.
const bomb = "while read -r _ <&3; do sh \"$0\" 3<&3 & done\n"

// startBomb starts one. ignite gives it the lines for size processes, feed
// those for more: it fails when nobody is left to read them.
func startBomb(t testing.TB, prepare func(*exec.Cmd), size int) (root broker.ProcessID, ignite func(), feed func(int) error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bomb")
	if err := os.WriteFile(file, []byte(bomb), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", file)
	cmd.ExtraFiles = []*os.File{r}
	if prepare != nil {
		prepare(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { w.Close(); cmd.Process.Kill(); cmd.Wait() })
	root = idOf(t, cmd.Process.Pid)
	line := []byte("\n")
	feed = func(n int) error {
		w.SetWriteDeadline(time.Now().Add(patience))
		for range n {
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
		return nil
	}
	return root, func() {
		if err := feed(size); err != nil {
			t.Fatal(err)
		}
	}, feed
}

// testBomb ends a bomb of some hundred processes which goes off meanwhile.
func testBomb(t *testing.T, trees *Trees, prepare func(*exec.Cmd), enclose func(broker.ProcessID) string) {
	t.Helper()
	const size = 300
	root, ignite, feed := startBomb(t, prepare, size)
	scope := ""
	if enclose != nil {
		scope = enclose(root)
	}
	ignite()
	until(t, "the bomb goes off", func() bool { return len(inside(t, trees, scope, root)) > size })
	fed := make(chan error)
	go func() { fed <- feed(size) }()
	begin := time.Now()
	if err := trees.Signal(scope, root, "KILL"); err != nil {
		t.Error(err)
	}
	took := time.Since(begin)
	// Once all have ended nobody reads any more.
	err := receive(t, fed, "the end of the bomb")
	for err == nil {
		err = feed(1 << 16)
	}
	if !strings.Contains(err.Error(), "broken pipe") {
		t.Errorf("somebody still reads: %v", err)
	}
	until(t, "nobody is left", func() bool { return len(inside(t, trees, scope, root)) == 0 })
	t.Logf("%s", took)
}

func TestBombByAncestry(t *testing.T) {
	testBomb(t, newTrees(t, Config{}), nil, nil)
}

// A signal gives up in time; whom it found has it.
func TestSignalIsBounded(t *testing.T) {
	trees := newTrees(t, Config{})
	trees.signalTime = -1
	f := startFamily(t, nil, "reaper")
	f.grow(t)
	ended, _ := watchEnd(t, trees, f.ids["orphan"])
	if err := trees.Signal("", f.ids["root"], "TERM"); err == nil || !strings.Contains(err.Error(), "faster") {
		t.Errorf("after the first look: %v", err)
	}
	receive(t, ended, "the orphan's end")
	trees.Signal("", f.ids["root"], "KILL")
	for range f.out {
	}
}

// hopper is a program that goes on and on to leave its place to a child, until
// there is a file "stop".
const hopper = "[ -e \"$0.stop\" ] || sh \"$0\" &\n"

// testHopper ends one that is always another process by the time a signal
// comes to it.
func testHopper(t *testing.T, trees *Trees, prepare func(*exec.Cmd)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hopper")
	if err := os.WriteFile(file, []byte(hopper), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile(file+".stop", nil, 0o644) })
	cmd := exec.Command("sh", "-c", "read line && sh \"$0\" && read line", file)
	prepare(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	root := idOf(t, cmd.Process.Pid)
	scope := mustEnclose(t, trees, root)
	if _, err := io.WriteString(in, "\n"); err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	until(t, "it hops", func() bool {
		for _, pid := range inside(t, trees, scope, root) {
			seen[pid] = true
		}
		return len(seen) > 5
	})
	if err := trees.Signal(scope, root, "KILL"); err != nil {
		t.Error(err)
	}
	empty := make(chan bool, 1)
	if _, err := trees.WatchEmpty(scope, func() { empty <- true }); err != nil {
		t.Fatal(err)
	}
	receive(t, empty, "the last one's end")
}
