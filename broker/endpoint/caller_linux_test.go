package endpoint

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

func init() {
	helpers["ask"] = helperAsk
	helpers["parent"] = helperParent
	helpers["undumpable"] = helperUndumpable
	helpers["hold"] = helperHold
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// helperAsk sends its standard input to the port that is its argument and
// prints what comes back.
func helperAsk() {
	port, err := strconv.Atoi(os.Args[1])
	must(err)
	request, err := io.ReadAll(os.Stdin)
	must(err)
	answer, err := exchange(port, string(request))
	must(err)
	io.WriteString(os.Stdout, answer)
}

// helperParent starts the helper that its second argument names, with the
// port and the arguments that follow, and says its number and then what it said.
func helperParent() {
	cmd := exec.Command(os.Args[0], append([]string{os.Args[1]}, os.Args[3:]...)...)
	cmd.Env = append(os.Environ(), "ENDPOINT_TEST_HELPER="+os.Args[2])
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	out, err := cmd.Output()
	must(err)
	fmt.Printf("%d\n%s", cmd.Process.Pid, out)
}

func helperUndumpable() {
	must(unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
	helperAsk()
}

// helperHold keeps the connection that it has as descriptor 3 until its
// standard input ends.
func helperHold() {
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func helper(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), "ENDPOINT_TEST_HELPER="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// other returns a command as another user, who can run the test binary.
func other(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	cmd := helper(t, name, args...)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(cmd.Path)
	cmd.Path, cmd.Dir = filepath.Join(dir, "helper"), "/"
	if err == nil {
		err = os.WriteFile(cmd.Path, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return cmd
}

// Another user is refused, though he has the token: of IMDS he gets none.
func TestForeignUser(t *testing.T) {
	h := newHarness(t)
	container, imds := h.open(t, Container), h.open(t, IMDS)
	for _, tt := range []struct {
		s       *served
		request string
	}{
		{container, container.get(t)},
		{container, strings.Replace(container.get(t), "Authorization", "X", 1)},
		{imds, imds.imdsGet(imds.imdsToken(t), rolePath)},
		{imds, "PUT /latest/api/token HTTP/1.1\r\n" + imds.host() + "X-aws-ec2-metadata-token-ttl-seconds: 60\r\nConnection: close\r\n\r\n"},
	} {
		cmd := other(t, "ask", fmt.Sprint(tt.s.port))
		cmd.Stdin = strings.NewReader(tt.request)
		answer, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(answer), "HTTP/1.1 403 ") || !strings.Contains(string(answer), "user 0 alone, and the connection is user 65534's") {
			t.Errorf("the answer: %s", answer)
		}
		// The same by ourselves.
		if answer := tt.s.raw(t, tt.request); !strings.HasPrefix(answer, "HTTP/1.1 200 ") && !strings.Contains(answer, "Authorization header") {
			t.Errorf("our own user: %s", answer)
		}
	}
	if log := h.log.String(); !strings.Contains(log, "65534") {
		t.Errorf("the log does not say who: %s", log)
	}
	if n := len(h.calls()); n != 2 {
		t.Errorf("%d calls of the gate", n)
	}
}

// Another user's connections leave room for ours.
func TestForeignConnections(t *testing.T) {
	h := newHarness(t)
	h.kernel.uid++ // we are the others
	s := h.open(t, Container)
	var theirs []*client
	for range maxLeaseConns {
		theirs = append(theirs, dial(t, s.port))
	}
	for i, c := range theirs[maxForeign:] {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("connection %d: %v", maxForeign+i, err)
		}
	}
	for _, c := range theirs[:maxForeign] {
		if answer := c.ask(t, s.get(t)); !strings.HasPrefix(answer, "HTTP/1.1 403 ") {
			t.Error(answer)
		}
	}
	// The places are given back.
	for i := range 3 * maxLeaseConns {
		if answer := s.raw(t, s.get(t)); !strings.HasPrefix(answer, "HTTP/1.1 403 ") {
			t.Fatal(i, answer)
		}
	}
	if n := len(h.calls()); n > 0 {
		t.Errorf("%d calls of the gate", n)
	}
}

// Where the kernel does not tell whose a connection is, nobody is served.
func TestUnknownUser(t *testing.T) {
	h := newHarness(t)
	h.kernel.noDiag.Store(true)
	h.kernel.proc = t.TempDir()
	s := h.open(t, Container)
	if answer := s.raw(t, s.get(t)); !strings.HasPrefix(answer, "HTTP/1.1 403 ") || !strings.Contains(answer, "does not tell whose") {
		t.Error(answer)
	}
	if n := len(h.calls()); n > 0 {
		t.Errorf("%d calls of the gate", n)
	}
}

// The process that asks is found, wherever it is.
func TestCaller(t *testing.T) {
	h := newHarness(t)
	self := broker.ProcessID{PID: os.Getpid(), Start: startOf(t, os.Getpid())}
	leases := map[string]*served{
		// The test is the root: what it starts is inside.
		"inside": h.openAs(t, Endpoint{Lease: "l-inside", Kind: Container, Root: self}),
		// Another process is: it has no children.
		"outside": h.openAs(t, Endpoint{Lease: "l-outside", Kind: Container, Root: idle(t)}),
	}
	for name, s := range leases {
		for _, args := range [][]string{{"ask"}, {"parent", "ask"}, {"parent", "parent", "ask"}} {
			cmd := helper(t, args[0], append([]string{fmt.Sprint(s.port)}, args[1:]...)...)
			cmd.Env = append(cmd.Env, "XAWS_PROFILE=none", "AWS_PROFILE="+name)
			cmd.Stdin = strings.NewReader(s.get(t))
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			pid := cmd.Process.Pid
			for range args[1:] {
				first, rest, _ := strings.Cut(string(out), "\n")
				if pid, err = strconv.Atoi(first); err != nil {
					t.Fatalf("%s", out)
				}
				out = []byte(rest)
			}
			asked := h.calls()
			if len(asked) != 1 || asked[0].PID != pid || !asked[0].Resolved || asked[0].Via != "container" || len(asked[0].Ancestors) == 0 || asked[0].Profile != name {
				t.Errorf("%s %v: %+v, want process %d; %s", name, args, asked, pid, out)
			}
		}
	}
}

// idle starts a process that does nothing until the test ends.
func idle(t *testing.T) broker.ProcessID {
	cmd := helper(t, "hold")
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	return broker.ProcessID{PID: cmd.Process.Pid, Start: startOf(t, cmd.Process.Pid)}
}

// A process that cannot be seen into is served on behalf of the lease's root,
// and it is said that this is a guess.
func TestCallerUnresolved(t *testing.T) {
	h := newHarness(t)
	root := idle(t)
	s := h.openAs(t, Endpoint{Lease: "l-1", Kind: Container, Root: root})
	if os.Getuid() != 0 { // root sees into all
		cmd := helper(t, "undumpable", fmt.Sprint(s.port))
		cmd.Stdin = strings.NewReader(s.get(t))
		if out, err := cmd.Output(); err != nil || !strings.HasPrefix(string(out), "HTTP/1.1 200 ") {
			t.Fatalf("%s %v", out, err)
		}
		if asked := h.calls(); len(asked) != 1 || asked[0].PID != root.PID || asked[0].Resolved || asked[0].Exe == "" {
			t.Errorf("%+v", asked)
		}
	}
	// The same where nothing can be seen.
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, fmt.Sprint(root.PID)), 0o700); err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", root.PID))
	if err == nil {
		err = os.WriteFile(filepath.Join(proc, fmt.Sprint(root.PID), "stat"), stat, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	h = newHarness(t)
	h.kernel.proc = proc
	s = h.openAs(t, Endpoint{Lease: "l-1", Kind: Container, Root: root})
	s.raw(t, s.get(t))
	if asked := h.calls(); len(asked) != 1 || asked[0].PID != root.PID || asked[0].Resolved || asked[0].Exe == "" || asked[0].Via != "container" {
		t.Errorf("%+v", asked)
	}
	// Another process has the root's number by now: nothing of it is told.
	reused := h.openAs(t, Endpoint{Lease: "l-2", Kind: Container, Root: broker.ProcessID{PID: root.PID, Start: root.Start + 1}})
	reused.raw(t, reused.get(t))
	if asked := h.calls(); len(asked) != 1 || asked[0].PID != root.PID || asked[0].Resolved || asked[0].Exe != "" || asked[0].UID != os.Geteuid() {
		t.Errorf("%+v", asked)
	}
}

// The connection of a process that has ended is whose who has it now.
func TestCallerPassedOn(t *testing.T) {
	h := newHarness(t)
	s := h.open(t, Container)
	c := dial(t, s.port)
	request := strings.Replace(s.get(t), "Connection: close\r\n", "", 1)
	c.ask(t, request)
	if asked := h.calls(); len(asked) != 1 || asked[0].PID != os.Getpid() {
		t.Fatalf("%+v", asked)
	}

	// A child that inherits it is not who made it.
	file, err := c.Conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := helper(t, "hold")
	cmd.ExtraFiles = []*os.File{file}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	l := h.leases[s.lease]
	l.mu.Lock()
	var conn *conn
	for conn = range l.conns {
	}
	l.mu.Unlock()
	look := func() broker.Caller {
		if caller := l.caller(context.Background(), conn); fmt.Sprint(caller) != fmt.Sprint(conn.caller) {
			t.Errorf("at once it is looked again: %+v", caller)
		} else if caller.Ancestors[0].PID = 99; l.caller(context.Background(), conn).Ancestors[0].PID == 99 {
			t.Error("what the gate does with a caller reaches the next request")
		}
		conn.looked = time.Now().Add(-callerAge - 1)
		return l.caller(context.Background(), conn)
	}
	if caller := look(); caller.PID != os.Getpid() || !caller.Resolved {
		t.Errorf("%+v", caller)
	}
	// We leave it, and the child has it alone.
	c.Close()
	file.Close()
	if caller := look(); caller.PID != cmd.Process.Pid || !caller.Resolved {
		t.Errorf("%+v, want %d", caller, cmd.Process.Pid)
	}
	stdin.Close()
	cmd.Wait()
	if caller := look(); caller.PID != os.Getpid() || caller.Resolved {
		t.Errorf("%+v, want the root, unresolved", caller)
	}
}

// A search ends at its bounds, and a lease in which nobody is found does not
// have all processes searched for each request.
func TestSearchBounds(t *testing.T) {
	k := newKernel()
	proc := t.TempDir()
	k.proc = proc
	for pid, socket := range map[int]string{1: "socket:[4711]", 2: "socket:[4712]", 3: "/dev/null"} {
		fds := filepath.Join(proc, fmt.Sprint(pid), "fd")
		if err := os.MkdirAll(fds, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(socket, filepath.Join(fds, "7")); err != nil {
			t.Fatal(err)
		}
	}
	s := &search{kernel: k, link: []byte("socket:[4711]"), seen: map[int]bool{}, until: time.Now().Add(time.Minute)}
	for pid := range 4 {
		if h, ok := s.in(pid); ok != (pid == 1) || ok && h != (holder{1, 7}) {
			t.Errorf("in process %d: %+v, %v", pid, h, ok)
		}
	}
	if _, ok := s.in(1); ok {
		t.Error("a process was looked at twice")
	}
	delete(s.seen, 1)
	for pid := 10; len(s.seen) < maxProcesses; pid++ {
		s.seen[pid] = true
	}
	if _, ok := s.in(1); ok {
		t.Error("a search went on after its processes")
	}
	s = &search{kernel: k, link: []byte("socket:[4711]"), seen: map[int]bool{}, until: time.Now().Add(-1)}
	if _, ok := s.in(1); ok {
		t.Error("a search went on after its time")
	}
	s.until, s.descriptors = time.Now().Add(time.Minute), maxDescriptors
	if _, ok := s.in(1); ok {
		t.Error("a search went on after its descriptors")
	}

	h := newHarness(t)
	lease := h.openAs(t, Endpoint{Lease: "l-1", Kind: Container, Root: broker.ProcessID{PID: 1 << 22, Start: 1}})
	l := h.leases["l-1"]
	c := dial(t, lease.port)
	c.ask(t, strings.Replace(lease.get(t), "Connection: close\r\n", "", 1))
	if asked := h.calls(); len(asked) != 1 || asked[0].PID != os.Getpid() {
		t.Fatalf("%+v", asked)
	}
	l.clients.likely = nil
	l.clients.wideAfter = time.Now().Add(time.Hour)
	l.mu.Lock()
	var conn *conn
	for conn = range l.conns {
	}
	l.mu.Unlock()
	if _, ok := l.search(context.Background(), conn); ok {
		t.Error("all processes were searched again at once")
	}
	l.clients.wideAfter = time.Time{}
	if got, ok := l.search(context.Background(), conn); !ok || got.pid != os.Getpid() {
		t.Errorf("%+v, %v", got, ok)
	}
	if len(l.clients.likely) != 1 || l.clients.likely[0] != os.Getpid() {
		t.Errorf("likely: %v", l.clients.likely)
	}
	conn.socket = 1<<32 - 1 // nobody's
	if _, ok := l.search(context.Background(), conn); ok || !l.clients.wideAfter.After(time.Now()) {
		t.Errorf("after a search in vain, the next may be at %v", l.clients.wideAfter)
	}
	later := l.clients.wideAfter
	if l.search(context.Background(), conn); l.clients.wideAfter != later {
		t.Error("a narrow search put off the wide one")
	}
	// One that searches long keeps the others waiting for a while, no longer.
	l.clients.turn <- struct{}{}
	started := time.Now()
	if _, ok := l.search(context.Background(), conn); ok || time.Since(started) > 10*searchWait {
		t.Errorf("%v after %v", ok, time.Since(started))
	}
}
