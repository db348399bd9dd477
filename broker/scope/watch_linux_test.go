package scope

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

func idOf(t testing.TB, pid int) broker.ProcessID {
	t.Helper()
	s, err := newProc().stat(pid)
	if err != nil {
		t.Fatal(err)
	}
	return broker.ProcessID{PID: pid, Start: s.start}
}

// A zombie that nobody reaps has ended, and its status is to be read.
func TestWatchZombie(t *testing.T) {
	trees := newTrees(t, Config{})
	for name, end := range map[string]struct {
		kill syscall.Signal
		want int
	}{"status": {0, 9}, "KILL": {syscall.SIGKILL, 137}, "TERM": {syscall.SIGTERM, 143}} {
		t.Run(name, func(t *testing.T) {
			c := start(t, 9)
			ended, _ := watchEnd(t, trees, c.id)
			if end.kill != 0 {
				syscall.Kill(c.id.PID, end.kill)
			} else {
				c.stdin.Close()
			}
			if e := receive(t, ended, "the end"); e != (broker.Exit{Known: true, Status: end.want}) {
				t.Errorf("%+v, not %d", e, end.want)
			}
			// And of one that has been a zombie before.
			ended, _ = watchEnd(t, trees, c.id)
			if e := receive(t, ended, "the end"); e != (broker.Exit{Known: true, Status: end.want}) {
				t.Errorf("of a zombie: %+v, not %d", e, end.want)
			}
		})
	}
}

// Of a zombie that we may not read, the status is known once it is reaped, to
// newer kernels; and unknown if it is not reaped.
func TestWatchUnreadable(t *testing.T) {
	watchUnreadable := func(t *testing.T, c *child) chan broker.Exit {
		trees := newTrees(t, Config{})
		ended, _ := watchEnd(t, trees, c.id)
		trees.watcher.mu.Lock()
		trees.watcher.proc.dir = t.TempDir()
		trees.watcher.mu.Unlock()
		return ended
	}
	t.Run("reaped", func(t *testing.T) {
		c := start(t, 5)
		ended := watchUnreadable(t, c)
		fd, err := newProc().openPidfd(c.id)
		if err != nil {
			t.Fatal(err)
		}
		defer fd.close()
		c.stdin.Close()
		c.reap()
		want, _ := fd.exit() // nothing before Linux 6.15
		if e := receive(t, ended, "the end"); e != want {
			t.Errorf("%+v, not %+v", e, want)
		}
		if !want.Known {
			t.Skip("the kernel tells no status of the reaped (PIDFD_INFO_EXIT, Linux 6.15)")
		}
	})
	t.Run("not reaped", func(t *testing.T) {
		c := start(t, 5)
		ended := watchUnreadable(t, c)
		c.stdin.Close()
		if e := receive(t, ended, "the end"); e.Known {
			t.Errorf("%+v", e)
		}
	})
}

// Another user's zombie says 0 to us, which is not to be believed.
func TestZombieOfAnother(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	c := start(t, 6)
	ended, _ := watchEnd(t, newTrees(t, Config{}), c.id)
	c.stdin.Close()
	receive(t, ended, "the end")
	out, err := asUser(t, helper(t, "exit of zombie", fmt.Sprint(c.id.PID), fmt.Sprint(c.id.Start))).Output()
	if string(out) != "{Known:false Status:0}\n" {
		t.Errorf("%s, %v", out, err)
	}
	if e := newProc().exitOfZombie(c.id); e != (broker.Exit{Known: true, Status: 6}) {
		t.Errorf("to its own user: %+v", e)
	}
}

// asUser has cmd, a helper, run as nobody.
func asUser(t testing.TB, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp("", "scope") // the test binary may lie where nobody can go
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := os.ReadFile(cmd.Path)
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		cmd.Path, cmd.Dir = dir+"/helper", "/"
		err = os.WriteFile(cmd.Path, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

const nobody = 65534

func init() {
	helpers["exit of zombie"] = func(args []string) {
		fmt.Printf("%+v\n", newProc().exitOfZombie(parseID(args)))
	}
	helpers["reuse"] = helperReuse
}

// parseID reads what fmt.Sprint made of a ProcessID's fields.
func parseID(args []string) (id broker.ProcessID) {
	_, err := fmt.Sscan(strings.Join(args, " "), &id.PID, &id.Start)
	must(err)
	return id
}

// In a PID namespace of its own, a helper gives the number of a process to the
// next one.
func TestNumberUsedAgain(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to choose process numbers")
	}
	cmd := helper(t, "reuse")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if strings.HasPrefix(string(out), "skip: ") {
		t.Skip(string(out))
	}
	if err != nil || string(out) != "done\n" {
		t.Errorf("%s, %v", out, err)
	}
}

func helperReuse([]string) {
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		fmt.Println("skip: mount /proc:", err)
		os.Exit(0)
	}
	last := "/proc/sys/kernel/ns_last_pid"
	if _, err := os.Stat(last); err != nil {
		fmt.Println("skip: the kernel lets nobody choose process numbers:", err)
		os.Exit(0)
	}
	fail := func(format string, args ...any) {
		fmt.Printf(format+"\n", args...)
		os.Exit(1)
	}
	spawn := func() (*exec.Cmd, broker.ProcessID) {
		cmd := exec.Command("sleep", "1000")
		must(cmd.Start())
		s, err := newProc().stat(cmd.Process.Pid)
		must(err)
		return cmd, broker.ProcessID{PID: cmd.Process.Pid, Start: s.start}
	}
	end := func(cmd *exec.Cmd) {
		cmd.Process.Kill()
		cmd.Wait()
	}
	trees, err := New(Config{RuntimeDir: "/nonexistent"})
	must(err)
	var told chan broker.Exit
	var id, other broker.ProcessID
	var second *exec.Cmd
	for deadline := time.Now().Add(patience); second == nil; {
		if time.Now().After(deadline) {
			fail("no number can be had again in %s", patience)
		}
		var first *exec.Cmd
		first, id = spawn()
		ended := make(chan broker.Exit, 1)
		stop, err := trees.Watch(id, func(e broker.Exit) { ended <- e })
		must(err)
		told = ended
		for range 3 { // the third is answered by what was kept of the first two
			if _, err := trees.ScopeOf(id); err != nil {
				fail("ScopeOf: %v", err)
			}
		}
		end(first)
		// A thread of this process may get the number, and keep it.
		for try := 0; try < 20 && second == nil; try++ {
			must(os.WriteFile(last, fmt.Append(nil, id.PID-1), 0))
			second, other = spawn()
			if other.PID != id.PID || other.Start == id.Start { // within the same tick
				end(second)
				second = nil
			}
		}
		if second == nil {
			stop()
		}
	}

	if e := <-told; e.Known && e.Status != 137 {
		fail("the first watch: %+v", e)
	}
	_, err = trees.Watch(id, func(e broker.Exit) { told <- e })
	must(err)
	if e := <-told; e.Known {
		fail("the second watch: %+v", e)
	}
	if scope, err := trees.ScopeOf(id); err == nil {
		fail("ScopeOf: %q", scope)
	}
	if inside, err := trees.Inside("", id); err != nil || len(inside) > 0 {
		fail("Inside: %+v, %v", inside, err)
	}
	if err := trees.Signal("", id, "KILL"); err != nil {
		fail("Signal: %v", err)
	}
	if err := trees.send("", id, "KILL"); err != nil {
		fail("send: %v", err)
	}
	if err := newProc().alive(other); err != nil {
		fail("the second process: %v", err)
	}
	if err := trees.Signal("", other, "KILL"); err != nil {
		fail("Signal: %v", err)
	}
	if err := second.Wait(); err == nil {
		fail("the second process lives")
	}
	trees.Close()
	fmt.Println("done")
}

// No goroutine, thread or timer for each watch, and nothing left of it.
func TestWatchIsCheap(t *testing.T) {
	trees := newTrees(t, Config{})
	c := start(t, 0)
	descriptors := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	goroutines, before := runtime.NumGoroutine(), descriptors()
	var stops []func()
	for range 1000 {
		_, stop := watchEnd(t, trees, c.id)
		stops = append(stops, stop)
	}
	if n := runtime.NumGoroutine(); n > goroutines+10 {
		t.Errorf("%d goroutines, and %d before", n, goroutines)
	}
	for _, stop := range stops {
		stop()
	}
	if after := descriptors(); after > before {
		t.Errorf("%d descriptors, and %d before", after, before)
	}
}

// The process that a child starts by fork alone has the parent's descriptors
// for a while. A watch whose pidfd is closed is over all the same.
func TestWatchStopsInEpoll(t *testing.T) {
	trees := newTrees(t, Config{})
	c := start(t, 0)
	ended, stop := watchEnd(t, trees, c.id)
	var fd pidfd
	for _, x := range trees.watcher.watches {
		fd = x.fd
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	stop()
	c.kill()
	c.reap()
	var events [1]unix.EpollEvent
	if n, err := unix.EpollWait(trees.watcher.epoll, events[:], 0); n != 0 || err != nil {
		t.Errorf("%d events, %v", n, err)
	}
	if len(ended) > 0 {
		t.Errorf("%+v", <-ended)
	}
}

// A thousand watches, begun and stopped; and what they hold meanwhile.
func BenchmarkWatch1000(b *testing.B) {
	trees := newTrees(b, Config{})
	c := start(b, 0)
	var stops [1000]func()
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc+m.StackInuse) / 1024
	}
	before, held := heap(), 0.0
	b.ReportAllocs()
	begin := cpuTime(b)
	for b.Loop() {
		for i := range stops {
			var err error
			if stops[i], err = trees.Watch(c.id, func(broker.Exit) { b.Error("ended") }); err != nil {
				b.Fatal(err)
			}
		}
		if held == 0 {
			b.StopTimer()
			held = heap() - before
			b.StartTimer()
		}
		for _, stop := range stops {
			stop()
		}
	}
	reportCPU(b, begin)
	b.ReportMetric(held, "KiB")
}

// cpuTime is what this process used of all processors.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportCPU says what an operation costs whatever else the machine does.
func reportCPU(b *testing.B, start time.Duration) {
	b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
}

// lines reads a process's output line by line.
func lines(r io.Reader) <-chan string {
	ch := make(chan string, 1000)
	go func() {
		defer close(ch)
		for s := bufio.NewScanner(r); s.Scan(); {
			ch <- s.Text()
		}
	}()
	return ch
}
