package scope

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"gatepass/broker"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// helpers are what a copy of the test binary does as another process, by the
// value of SCOPE_TEST_HELPER.
var helpers = map[string]func(args []string){}

func TestMain(m *testing.M) {
	if name := os.Getenv("SCOPE_TEST_HELPER"); name != "" {
		helper, ok := helpers[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "no helper %q\n", name)
			os.Exit(2)
		}
		helper(os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helper prepares a copy of the test binary.
func helper(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	// The race detector has each program sleep for a second at its end.
	cmd.Env = append(os.Environ(), "SCOPE_TEST_HELPER="+name, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// must ends a helper that cannot go on.
func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func newTrees(t testing.TB, c Config) *Trees {
	t.Helper()
	if c.RuntimeDir == "" {
		c.RuntimeDir = t.TempDir() // not the manager of whoever runs the tests
	}
	trees, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(trees.Close)
	return trees
}

// watchEnd returns where the end of a process is told.
func watchEnd(t testing.TB, trees *Trees, id broker.ProcessID) (ended chan broker.Exit, stop func()) {
	t.Helper()
	ended = make(chan broker.Exit, 2)
	stop, err := trees.Watch(id, func(e broker.Exit) { ended <- e })
	if err != nil {
		t.Fatal(err)
	}
	return ended, stop
}

// receive returns what comes in time.
func receive[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s does not come", what)
		panic("not reached")
	}
}
