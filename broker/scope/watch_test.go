package scope

import (
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"testing"

	"gatepass/broker"
)

func init() {
	helpers["wait"] = func(args []string) { // for the end of its input, and ends as it was told
		io.Copy(io.Discard, os.Stdin)
		if len(args) > 0 {
			status, err := strconv.Atoi(args[0])
			must(err)
			os.Exit(status)
		}
	}
}

// A child is a process of the test's own, which is not reaped before the test
// says so, or ends.
type child struct {
	id     broker.ProcessID
	stdin  io.Closer
	kill   func()
	reap   func()
	reaped chan struct{}
}

// start starts a helper, which ends with status when its input does.
func start(t testing.TB, status int) *child {
	t.Helper()
	cmd := helper(t, "wait", strconv.Itoa(status))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{stdin: stdin, kill: func() { cmd.Process.Kill() }, reaped: make(chan struct{})}
	c.reap = func() { // again is harmless
		select {
		case <-c.reaped:
		default:
			cmd.Wait()
			close(c.reaped)
		}
	}
	t.Cleanup(func() { c.kill(); c.reap() })
	c.id = idOf(t, cmd.Process.Pid)
	return c
}

func TestWatch(t *testing.T) {
	trees := newTrees(t, Config{})
	for _, status := range []int{0, 3, 255} {
		c := start(t, status)
		ended, _ := watchEnd(t, trees, c.id)
		select {
		case e := <-ended:
			t.Fatalf("%+v while it runs", e)
		default:
		}
		c.stdin.Close()
		if e := receive(t, ended, "the end"); e.Status != status && e.Known {
			t.Errorf("status %d is told as %+v", status, e)
		}
		c.reap()
	}
}

// Watch of a process that has ended and been reaped calls at once, and so of
// one that has never been: its number is another's.
func TestWatchTheDead(t *testing.T) {
	trees := newTrees(t, Config{})
	c := start(t, 0)
	c.kill()
	c.reap()
	ended, _ := watchEnd(t, trees, c.id)
	receive(t, ended, "the end")

	self := idOf(t, os.Getpid())
	self.Start--
	ended, _ = watchEnd(t, trees, self)
	if e := receive(t, ended, "the end"); e.Known {
		t.Errorf("%+v", e)
	}
}

// A stopped watch does not call.
func TestWatchStop(t *testing.T) {
	trees := newTrees(t, Config{})
	c := start(t, 0)
	stopped, stop := watchEnd(t, trees, c.id)
	ended, _ := watchEnd(t, trees, c.id) // made later, and so told later
	stop()
	c.kill()
	receive(t, ended, "the end")
	stop()
	trees.Close()
	if len(stopped) > 0 {
		t.Errorf("called: %+v", <-stopped)
	}
}

// Close waits for the calls under way, and ends all watches.
func TestWatchClose(t *testing.T) {
	trees := newTrees(t, Config{})
	c, other := start(t, 0), start(t, 0)
	begun, goOn := make(chan bool), make(chan bool)
	var returned atomic.Bool
	if _, err := trees.Watch(c.id, func(broker.Exit) { begun <- true; <-goOn; returned.Store(true) }); err != nil {
		t.Fatal(err)
	}
	ended, _ := watchEnd(t, trees, other.id)
	c.kill()
	receive(t, begun, "the call")
	closed := make(chan bool)
	go func() { trees.Close(); closed <- returned.Load() }()
	close(goOn)
	if !receive(t, closed, "Close's return") {
		t.Error("Close does not wait for a call")
	}
	other.kill()
	other.reap()
	if _, err := trees.Watch(other.id, func(broker.Exit) { t.Error("called") }); err == nil {
		t.Error("Watch after Close")
	}
	trees.Close()
	if len(ended) > 0 {
		t.Errorf("called after Close: %+v", <-ended)
	}
}

// A thousand watches are as many calls, one each.
func TestWatchMany(t *testing.T) {
	trees := newTrees(t, Config{})
	c := start(t, 7)
	const many = 1000
	calls := make(chan int, 2*many)
	for i := range many {
		if _, err := trees.Watch(c.id, func(broker.Exit) { calls <- i }); err != nil {
			t.Fatal(err)
		}
	}
	c.stdin.Close()
	seen := make(map[int]bool)
	for range many {
		seen[receive(t, calls, "one of the ends")] = true
	}
	trees.Close()
	if len(seen) != many || len(calls) > 0 {
		t.Errorf("%d called, %d again", len(seen), len(calls))
	}
}

// On every platform a process without a scope is inside itself, and KILL ends
// it.
func TestTree(t *testing.T) {
	trees := newTrees(t, Config{})
	c, neighbour := start(t, 0), start(t, 0)
	if scope, err := trees.ScopeOf(c.id); scope != "" || err != nil {
		t.Errorf("%q, %v", scope, err)
	}
	list, err := trees.Inside("", c.id)
	if err != nil || len(list) != 1 || list[0].PID != c.id.PID {
		t.Errorf("%+v, %v", list, err)
	}
	ended, _ := watchEnd(t, trees, c.id)
	if err := trees.Signal("", c.id, "KILL"); err != nil {
		t.Error(err)
	}
	receive(t, ended, "the end")
	if list, err := trees.Inside("", c.id); err != nil || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
	c.reap()
	if scope, err := trees.ScopeOf(c.id); err == nil {
		t.Errorf("%q of a process that has ended", scope)
	}
	if list, err := trees.Inside("", neighbour.id); err != nil || len(list) != 1 {
		t.Errorf("the neighbour: %+v, %v", list, err)
	}
	if boot, other := trees.Boot(), newTrees(t, Config{}).Boot(); boot == "" || boot != other {
		t.Errorf("boot %q, %q", boot, other)
	}
}
