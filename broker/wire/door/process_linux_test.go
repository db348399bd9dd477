package door

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

func init() {
	helpers["dial"] = helperDial
	helpers["parent"] = helperParent
	helpers["pass on"] = helperPassOn
	helpers["speak"] = helperSpeak
	helpers["serve one"] = helperServeOne
	helpers["ask"] = helperAsk
	helpers["activated"] = helperActivated
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// helper prepares a copy of the test binary.
func helper(t testing.TB, name, socket string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), "DOOR_TEST_HELPER="+name, "DOOR_TEST_SOCKET="+socket)
	cmd.Stderr = os.Stderr
	return cmd
}

// start starts cmd, which ends when its standard input does: at the latest
// with the test.
func start(t testing.TB, cmd *exec.Cmd) io.Closer {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return stdin
}

// helperDial connects and obeys what it reads from the connection, a line at
// a time, answering each with one.
func helperDial() {
	var c net.Conn
	var err error
	if os.Getenv("DOOR_TEST_FD") != "" {
		c, err = net.FileConn(os.NewFile(3, "connection"))
	} else {
		c, err = net.Dial("unix", os.Getenv("DOOR_TEST_SOCKET"))
	}
	check(err)
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch command, arg, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); command {
		case "chdir":
			check(os.Chdir(arg))
		case "exec": // the same program under another name, the connection kept as descriptor 3
			f, err := c.(*net.UnixConn).File()
			check(err)
			check(syscall.Dup3(int(f.Fd()), 3, 0))
			exe, err := os.Executable()
			check(err)
			fmt.Fprintln(c, "ok")
			check(syscall.Exec(exe, []string{arg}, append(os.Environ(), "DOOR_TEST_FD=3")))
		}
		fmt.Fprintln(c, "ok")
	}
}

// helperParent starts a dial and waits for the end of its standard input.
func helperParent() {
	exe, err := os.Executable()
	check(err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "DOOR_TEST_HELPER=dial")
	check(cmd.Start())
	io.Copy(io.Discard, os.Stdin)
}

// helperPassOn connects, leaves the connection to a child, and ends.
func helperPassOn() {
	c, err := net.Dial("unix", os.Getenv("DOOR_TEST_SOCKET"))
	check(err)
	f, err := c.(*net.UnixConn).File()
	check(err)
	exe, err := os.Executable()
	check(err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "DOOR_TEST_HELPER=speak")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.NewFile(3, "go"), os.Stdout, os.Stderr
	check(cmd.Start())
}

// helperSpeak waits for the end of its standard input, asks over the
// connection that it was left, and prints the answer.
func helperSpeak() {
	io.Copy(io.Discard, os.Stdin)
	c := os.NewFile(3, "connection")
	_, err := io.WriteString(c, post(wire.PathCredentials, host, good))
	check(err)
	io.Copy(os.Stdout, c)
}

// helperServeOne prints what it learns of one that connects.
func helperServeOne() {
	ln, err := net.Listen("unix", os.Getenv("DOOR_TEST_SOCKET"))
	check(err)
	fmt.Println("listening")
	c, err := ln.Accept()
	check(err)
	p, err := newProcesses().peer(c)
	check(err)
	caller, err := p.caller()
	check(err)
	check(json.NewEncoder(os.Stdout).Encode(caller))
	_, err = io.Copy(io.Discard, c) // until the peer has ended
	check(err)
	// A process closes its descriptors a little before it has ended.
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && p.pidfd >= 0; {
		if _, err := p.caller(); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("served after its end")
}

// helperAsk makes one request and prints the answer.
func helperAsk() {
	c, err := net.Dial("unix", os.Getenv("DOOR_TEST_SOCKET"))
	check(err)
	io.WriteString(c, post(wire.PathCredentials, host, good))
	io.Copy(os.Stdout, c)
}

// An accepted connection and the peer at its other end.
type accepted struct {
	*peer
	conn net.Conn
	r    *bufio.Reader
}

// listen accepts one connection a call.
func listen(t testing.TB, ps *processes) (socket string, accept func() accepted) {
	t.Helper()
	socket = socketPath(t)
	ln, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return socket, func() accepted {
		t.Helper()
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p, err := ps.peer(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.close(); c.Close() })
		return accepted{p, c, bufio.NewReader(c)}
	}
}

func (a accepted) tell(t testing.TB, line string) {
	t.Helper()
	fmt.Fprintln(a.conn, line)
	if answer, err := a.r.ReadString('\n'); answer != "ok\n" {
		t.Fatalf("%s: %q, %v", line, answer, err)
	}
}

func (a accepted) mustCaller(t testing.TB) broker.Caller {
	t.Helper()
	c, err := a.caller()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCallerOfAnotherProcess(t *testing.T) {
	ps := newProcesses()
	socket, accept := listen(t, ps)
	cmd := helper(t, "dial", socket, "one", "two words", "")
	cmd.Dir = "/"
	stdin := start(t, cmd)
	a := accept()
	c := a.mustCaller(t)
	if c.PID != cmd.Process.Pid || !slices.Equal(c.Args, cmd.Args) || c.Command != strings.Join(cmd.Args, " ") || c.Cwd != "/" || c.Exe != cmd.Path || c.Program != cmd.Path {
		t.Errorf("caller %+v", c)
	}
	if !c.Resolved || c.Ancestors[0].PID != os.Getpid() || c.Ancestors[len(c.Ancestors)-1].PID != 1 {
		t.Errorf("resolved %v, ancestors %+v", c.Resolved, c.Ancestors)
	}
	if c.ID.PID != c.PID || c.ID.Start == 0 {
		t.Errorf("id %+v", c.ID)
	}
	for i, p := range c.Ancestors {
		if p.ID.PID != p.PID || i > 0 && p.ID.Start > c.Ancestors[i-1].ID.Start {
			t.Errorf("%+v is younger than its child", p)
		}
	}
	c.Ancestors[0].Command = "changed"
	if again := a.mustCaller(t); again.Ancestors[0].Command == "changed" {
		t.Error("what a receiver changes, the next one sees")
	}

	// Nothing is served to the dead.
	stdin.Close()
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := a.caller(); broker.CodeOf(err) != broker.CodeDenied {
		t.Errorf("after its end: %v", err)
	}
}

// A process that has ended, and that nobody has waited for, is dead as well.
func TestCallerIsAZombie(t *testing.T) {
	ps := newProcesses()
	socket, accept := listen(t, ps)
	cmd := helper(t, "dial", socket)
	start(t, cmd)
	a := accept()
	a.mustCaller(t)
	cmd.Process.Kill()
	a.r.ReadByte() // EOF comes when it has ended
	for _, withPidfd := range []bool{true, false} {
		if !withPidfd {
			syscall.Close(a.self.pidfd)
			a.self.pidfd = -1
			a.looked = time.Time{}
		}
		deadline := time.Now().Add(10 * time.Second)
		for { // its descriptors are closed a little before it is a zombie
			_, err := a.caller()
			if broker.CodeOf(err) == broker.CodeDenied {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("with a pidfd %v: served (%v)", withPidfd, err)
			}
		}
		// Nor if it ends while it is looked at.
		if _, err := a.deadOf(); broker.CodeOf(err) != broker.CodeDenied {
			t.Errorf("with a pidfd %v: the last look says %v", withPidfd, err)
		}
	}
}

// However long and malformed a command line is, what is read is its
// beginning, whole arguments of it, byte for byte.
func TestCallerWithHugeArgv(t *testing.T) {
	ps := newProcesses()
	socket, accept := listen(t, ps)
	args := []string{"--deploy", "\xff\xfe\x1b[31m\n\u202e", strings.Repeat("a", 4000), strings.Repeat("b", 4000)}
	for range 18 {
		args = append(args, strings.Repeat("x", 100<<10))
	}
	cmd := helper(t, "dial", socket, args...)
	start(t, cmd)
	c := accept().mustCaller(t)
	if !slices.Equal(c.Args, cmd.Args[:len(c.Args)]) || len(c.Args) < 4 || len(c.Args) > 5 || len(c.Command) > maxArgs {
		t.Errorf("%d arguments, %d bytes: %.200q", len(c.Args), len(c.Command), c.Command)
	}
}

// What a peer is changes with exec and chdir; which process it is does not.
func TestCallerExec(t *testing.T) {
	ps := newProcesses()
	now := time.Now()
	ps.now = func() time.Time { return now }
	socket, accept := listen(t, ps)
	cmd := helper(t, "dial", socket)
	start(t, cmd)
	a := accept()
	before := a.mustCaller(t)
	dir := t.TempDir()
	a.tell(t, "chdir "+dir)
	a.tell(t, "exec /another/name")
	a.tell(t, "hello") // the new image runs
	now = now.Add(imageAge)
	after := a.mustCaller(t)
	if after.PID != before.PID || after.ID != before.ID || after.Command != "/another/name" || after.Cwd != dir || !after.Resolved {
		t.Errorf("%+v\nbecame %+v", before, after)
	}
}

// A process is described by its number as it is when it connects.
func TestDescribe(t *testing.T) {
	socket, accept := listen(t, newProcesses())
	start(t, helper(t, "dial", socket))
	a := accept()
	want := a.mustCaller(t)
	s := New(Config{Logger: slog.New(slog.DiscardHandler)})
	defer s.processes.close()
	want.User = s.user
	got, err := s.Describe(want.PID)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
	if _, err := s.Describe(1 << 30); broker.CodeOf(err) != broker.CodeDenied {
		t.Errorf("of nobody: %v", err)
	}
}

// When a parent ends, its child has another: at once, however lately the
// chain was walked.
func TestCallerBecomesAnOrphan(t *testing.T) {
	for _, withPidfd := range []bool{true, false} {
		ps := newProcesses()
		now := time.Now()
		ps.now = func() time.Time { return now } // imageAge never passes
		socket, accept := listen(t, ps)
		cmd := helper(t, "parent", socket)
		stdin := start(t, cmd)
		a := accept()
		before := a.mustCaller(t)
		if !before.Resolved || before.Ancestors[0].PID != cmd.Process.Pid || before.Ancestors[1].PID != os.Getpid() {
			t.Fatalf("%+v", before)
		}
		if !withPidfd { // as before Linux 5.3
			for _, p := range append(slices.Clone(a.chain), a.self) {
				syscall.Close(p.pidfd)
				p.pidfd = -1
			}
			a.looked = time.Time{}
		}
		stdin.Close()
		cmd.Wait()
		if dead, err := a.deadOf(); err != nil || len(dead) != 1 || dead[0].pid != cmd.Process.Pid {
			t.Errorf("with pidfds %v: the last look says %v, %v", withPidfd, dead, err)
		}
		after := a.mustCaller(t)
		if !after.Resolved || after.PID != before.PID || after.Ancestors[0].PID == cmd.Process.Pid || after.Ancestors[len(after.Ancestors)-1].PID != 1 {
			t.Errorf("with pidfds %v: %+v\nbecame %+v", withPidfd, before, after)
		}
		for _, p := range after.Ancestors {
			if p.PID == os.Getpid() {
				t.Errorf("with pidfds %v: this process is no ancestor any more: %+v", withPidfd, after.Ancestors)
			}
		}
		a.conn.Close()
	}
}

// A connection is its opener's. Whoever inherits it gets nothing once the
// opener has ended.
func TestInheritedConnection(t *testing.T) {
	h := serve(t, nil)
	cmd := helper(t, "pass on", h.socket)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{r}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	// Wait would close out, which the grandchild has too.
	if state, err := cmd.Process.Wait(); err != nil || !state.Success() {
		t.Fatal(state, err)
	}
	w.Close()
	answer, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(answer), " 403 ") || !strings.Contains(string(answer), `"denied"`) || h.broker.calls() > 0 {
		t.Errorf("%d calls of the gate; the answer: %s", h.broker.calls(), answer)
	}
}

// Another user gets nothing but the reason, even where the socket's mode did
// not keep him out.
func TestForeignUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	h := serve(t, nil)
	for _, dir := range []string{filepath.Dir(filepath.Dir(h.socket)), filepath.Dir(h.socket)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(h.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The test binary may lie where another user cannot go.
	copied := filepath.Join(filepath.Dir(h.socket), "helper")
	b, err := os.ReadFile(exe)
	if err == nil {
		err = os.WriteFile(copied, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := helper(t, "ask", h.socket)
	cmd.Path, cmd.Dir = copied, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	answer, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 403 ") || !strings.Contains(string(answer), "its own user alone") || h.broker.calls() > 0 {
		t.Errorf("%d calls of the gate; the answer: %s", h.broker.calls(), answer)
	}
	if log := h.log.String(); !strings.Contains(log, "uid 65534") {
		t.Errorf("the log does not say who: %s", log)
	}
}

func newPIDNamespace(t *testing.T, cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	}
	if err := exec.Command("true").Run(); err != nil {
		t.Fatal(err)
	}
	probe := exec.Command("true")
	probe.SysProcAttr = cmd.SysProcAttr
	if err := probe.Run(); err != nil {
		t.Skipf("a PID namespace cannot be made here: %v", err)
	}
}

// A peer in a PID namespace below ours is seen as what it is to us.
func TestPeerInChildNamespace(t *testing.T) {
	ps := newProcesses()
	socket, accept := listen(t, ps)
	cmd := helper(t, "dial", socket)
	newPIDNamespace(t, cmd)
	start(t, cmd)
	c := accept().mustCaller(t)
	if c.PID != cmd.Process.Pid || !c.Resolved || c.Ancestors[0].PID != os.Getpid() {
		t.Errorf("%+v", c)
	}
}

// A peer outside our PID namespace has no number: it is served, but its
// ancestors are unknown, which is not the same as none.
func TestPeerOutsideNamespace(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	cmd := helper(t, "serve one", socket)
	newPIDNamespace(t, cmd)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "listening\n" {
		t.Fatal(line, err)
	}
	dial := helper(t, "dial", socket)
	stdin := start(t, dial)
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var c broker.Caller
	if err := json.Unmarshal([]byte(line), &c); err != nil || c.UID != os.Getuid() || c.PID != 0 || c.Resolved || len(c.Ancestors) != 0 || c.Exe != "" {
		t.Errorf("%s, %v", line, err)
	}
	stdin.Close()
	dial.Process.Kill()
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "has ended") && !strings.Contains(line, "served after") {
		t.Error(line, err)
	} else if strings.Contains(line, "served after") && hasPeerPidfd(t) {
		t.Error(line)
	}
}

func hasPeerPidfd(t *testing.T) bool {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var release []byte
	for _, c := range u.Release {
		release = append(release, byte(c))
	}
	var major, minor int
	fmt.Sscanf(string(release), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 5
}

// A walk that meets something impossible is not believed.
func TestWalkInconsistent(t *testing.T) {
	ps := newProcesses()
	socket, accept := listen(t, ps)
	cmd := helper(t, "dial", socket)
	start(t, cmd)
	a := accept()
	s, err := a.self.refresh()
	if err != nil || !a.follow(s) {
		t.Fatal(err)
	}
	a.dropChain()
	young := s
	young.start = 0 // older than its parent
	if a.follow(young) {
		t.Error("a parent younger than its child is believed")
	}
	a.dropChain()
	ps.close()
	other := s
	other.ppid = 1 // named a moment ago, and not its parent any more
	if s.ppid != 1 && a.follow(other) {
		t.Error("a parent that the child does not name is believed")
	}
	a.dropChain()
	none := s
	none.ppid = 1<<22 + 1 // above every pid
	if a.follow(none) {
		t.Error("a parent that is not there is believed")
	}
	a.dropChain()
	none.ppid = 0 // put here from outside
	if !a.follow(none) || a.resolved {
		t.Error("a process without a parent counts as resolved")
	}
}

// Where the walk does not come to its end, as with the mount option hidepid,
// which hides other users' processes, the caller is not resolved.
func TestCallerUnresolved(t *testing.T) {
	ps := newProcesses()
	socket, accept := listen(t, ps)
	cmd := helper(t, "dial", socket)
	start(t, cmd)
	ps.proc = t.TempDir()
	for _, pid := range []int{cmd.Process.Pid, os.Getpid()} {
		if err := os.Symlink(fmt.Sprint("/proc/", pid), fmt.Sprint(ps.proc, "/", pid)); err != nil {
			t.Fatal(err)
		}
	}
	a := accept()
	c := a.mustCaller(t)
	if c.Resolved || c.PID != cmd.Process.Pid || len(c.Ancestors) == 0 || c.Ancestors[0].PID != os.Getpid() {
		t.Errorf("%+v", c)
	}
	if len(a.chain) > 0 || !a.looked.IsZero() {
		t.Error("a chain that was not resolved is kept")
	}
}

// Descriptors are bounded, and go with their connections.
func TestDescriptors(t *testing.T) {
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	ps := newProcesses()
	ps.maxIdle = 2
	socket, accept := listen(t, ps)
	pair(t) // the poller's own
	before := count()
	var peers []accepted
	var stdins []io.Closer
	var cmds []*exec.Cmd
	for range 5 { // five parents, each with a child that connects
		cmd := helper(t, "parent", socket)
		stdins, cmds = append(stdins, start(t, cmd)), append(cmds, cmd)
		a := accept()
		a.mustCaller(t)
		peers = append(peers, a)
	}
	held := ps.open
	if held < 6 {
		t.Errorf("%d processes held", held)
	}
	for _, a := range peers {
		a.close()
		a.conn.Close()
	}
	if len(ps.idle) != 2 || ps.open != 2 || len(ps.byPID) != 2 {
		t.Errorf("%d idle, %d open, %d by pid", len(ps.idle), ps.open, len(ps.byPID))
	}
	ps.close()
	if ps.open != 0 {
		t.Errorf("%d processes open after close", ps.open)
	}
	for i := range cmds {
		stdins[i].Close()
		cmds[i].Wait()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}

	// Beyond the bound, nothing is kept.
	ps.maxKept = 1
	server, _ := pair(t)
	p, err := ps.peer(server)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for range 2 {
		if c, err := p.caller(); err != nil || !c.Resolved || len(c.Ancestors) == 0 {
			t.Errorf("%+v, %v", c, err)
		}
		if len(p.chain) != 0 || ps.open > 2 {
			t.Errorf("%d held, %d open", len(p.chain), ps.open)
		}
	}
	if c, err := p.caller(); err != nil || strconv.Itoa(c.PID) == "" {
		t.Error(err)
	}
	p.close()
	if _, err := p.caller(); broker.CodeOf(err) != broker.CodeDenied {
		t.Errorf("after close: %v", err)
	}
}

// Many ask at once over the same ancestors while these come and go.
func TestCallersConcurrently(t *testing.T) {
	ps := newProcesses()
	ps.maxIdle = 1
	socket, accept := listen(t, ps)
	cmd := helper(t, "parent", socket)
	stdin := start(t, cmd)
	orphan := accept()
	done := make(chan error)
	asking := func(a *peer, n int) {
		for range n {
			if c, err := a.caller(); err != nil || !c.Resolved {
				done <- fmt.Errorf("%+v, %v", c, err)
				return
			}
		}
		done <- nil
	}
	const others = 8
	for range others {
		server, _ := pair(t)
		go func() {
			for range 20 {
				p, err := ps.peer(server)
				if err == nil {
					var c broker.Caller
					if c, err = p.caller(); err == nil && !c.Resolved {
						err = fmt.Errorf("%+v", c)
					}
					p.close()
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	go asking(orphan.peer, 100)
	stdin.Close()
	for range others + 1 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	orphan.conn.Close()
}

// helperActivated prints what Activation makes of what it was started with.
func helperActivated() {
	if pid := os.Getenv("LISTEN_PID"); pid == "self" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	ln, ok, err := Activation()
	left := os.Getenv("LISTEN_PID") + os.Getenv("LISTEN_FDS") + os.Getenv("LISTEN_FDNAMES")
	fmt.Printf("%v %v %q\n", ok, broker.CodeOf(err), left)
	if !ok {
		return
	}
	flags, err := fcntlGetFD(3)
	if err == nil && flags&syscall.FD_CLOEXEC == 0 {
		fmt.Println("a child would have it")
	}
	c, err := ln.Accept()
	check(err)
	fmt.Fprintln(c, "hello from", ln.Addr())
	check(c.Close())
	check(ln.Close())
}

func fcntlGetFD(fd uintptr) (int, error) {
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFD, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(flags), nil
}

func TestActivation(t *testing.T) {
	unixListener := func(t *testing.T) (*os.File, string) {
		path := filepath.Join(t.TempDir(), "s")
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		f, err := ln.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f, path
	}
	file := func(f interface{ File() (*os.File, error) }, err error) func(*testing.T) *os.File {
		return func(t *testing.T) *os.File {
			if err != nil {
				t.Fatal(err)
			}
			dup, err := f.File()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { dup.Close() })
			return dup
		}
	}
	run := func(t *testing.T, pid, fds string, files ...*os.File) (*exec.Cmd, *bufio.Reader) {
		cmd := helper(t, "activated", "")
		cmd.Env = append(cmd.Env, "LISTEN_PID="+pid, "LISTEN_FDS="+fds, "LISTEN_FDNAMES=gatepass")
		cmd.ExtraFiles = files
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		start(t, cmd)
		return cmd, bufio.NewReader(out)
	}
	t.Run("passed", func(t *testing.T) {
		f, path := unixListener(t)
		cmd, out := run(t, "self", "1", f)
		if line, _ := out.ReadString('\n'); line != "true  \"\"\n" {
			t.Fatalf("%q", line)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if b, _ := io.ReadAll(c); string(b) != "hello from "+path+"\n" {
			t.Errorf("%q", b)
		}
		if rest, _ := io.ReadAll(out); len(rest) > 0 {
			t.Errorf("%s", rest)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("systemd's socket is gone: %v", err)
		}
	})
	t.Run("meant for another", func(t *testing.T) {
		f, _ := unixListener(t)
		_, out := run(t, "1", "1", f)
		if line, _ := out.ReadString('\n'); line != "false  \"11gatepass\"\n" {
			t.Errorf("%q", line)
		}
	})
	t.Run("none", func(t *testing.T) {
		_, out := run(t, "self", "0")
		if line, _ := out.ReadString('\n'); line != "false  \"\"\n" {
			t.Errorf("%q", line)
		}
	})
	tcp, tcpErr := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	datagram, datagramErr := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "d"), Net: "unixgram"})
	for name, passed := range map[string]struct {
		fds  string
		file func(*testing.T) *os.File
	}{
		"a TCP socket":        {"1", file(tcp, tcpErr)},
		"a datagram socket":   {"1", file(datagram, datagramErr)},
		"no number":           {"x", file(tcp, tcpErr)},
		"a negative number":   {"-1", file(tcp, tcpErr)},
		"two":                 {"2", file(tcp, tcpErr)},
		"a socket of one end": {"1", func(t *testing.T) *os.File { s, _ := pair(t); return file(s.(*net.UnixConn), nil)(t) }},
		"no socket":           {"1", func(t *testing.T) *os.File { f, _, err := os.Pipe(); check(err); return f }},
	} {
		t.Run(name, func(t *testing.T) {
			_, out := run(t, "self", passed.fds, passed.file(t))
			if line, _ := out.ReadString('\n'); line != "false config \"\"\n" {
				t.Errorf("%q", line)
			}
		})
	}
}
