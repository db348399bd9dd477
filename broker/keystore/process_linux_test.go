package keystore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

func init() {
	roles["starter"] = starter
	roles["inspector"] = inspector
	roles["parent"] = parent
	roles["daemon"] = daemon
}

// runRole runs this test binary, or a copy of it, in a role.
func runRole(t *testing.T, program, role string, env ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(env, roleVar+"="+role)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", role, err, out)
	}
	return string(out)
}

// copySelf returns the path of a copy of this test binary that any user may
// run.
func copySelf(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keystore")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "copy")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, b, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// starter starts TARGET as a helper with some kind of stdin, and tells what
// it said.
func starter() int {
	ours, theirs, err := socketpair()
	if err != nil {
		panic(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(os.Getenv("TARGET"), HelperArg)
	cmd.Env = []string{}
	cmd.Stderr = &stderr
	switch os.Getenv("KIND") {
	case "socket":
		cmd.Stdin, cmd.Stdout = theirs, theirs
	case "socket and pipe":
		cmd.Stdin = theirs
		r, w, _ := os.Pipe()
		defer r.Close()
		cmd.Stdout = w
	case "null":
	case "pipe":
		r, w, _ := os.Pipe()
		defer w.Close()
		cmd.Stdin, cmd.Stdout = r, theirs
	case "terminal":
		tty, err := openTerminal()
		if err != nil {
			panic(err)
		}
		cmd.Stdin, cmd.Stdout = tty, tty
	case "inherited":
		cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdin
	}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	theirs.Close()
	// Where the other end is not ours, all there is to see is that it ends.
	defer time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() }).Stop()
	var a answer
	if k := os.Getenv("KIND"); k != "terminal" && k != "inherited" && readMessage(ours, &a, &a.value) == nil {
		fmt.Print(a.State)
		return 0
	}
	fmt.Print(cmd.Wait(), " ", stderr.String())
	return 0
}

func openTerminal() (*os.File, error) {
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
}

// A helper serves the program that it is part of, over that one's socket, and
// nobody else.
func TestHelperRefusesStrangers(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stranger := copySelf(t)
	for _, c := range []struct{ program, kind, says string }{
		{self, "socket", "ready"},
		{self, "socket and pipe", "descriptor 1 is not a socket"},
		{self, "null", "descriptor 0 is not a socket"},
		{self, "pipe", "descriptor 0 is not a socket"},
		{self, "terminal", "descriptor 0 is not a socket"},
		{stranger, "socket", "the parent is another program"},
	} {
		t.Run(c.kind+" of "+filepath.Base(c.program), func(t *testing.T) {
			if c.kind == "terminal" {
				if _, err := openTerminal(); err != nil {
					lacking(t, "no terminal can be made: %v", err)
				}
			}
			out := runRole(t, c.program, "starter", "TARGET="+self, "KIND="+c.kind)
			if !strings.Contains(out, c.says) || (c.says != "ready" && !strings.Contains(out, "exit status 64")) {
				t.Errorf("says %q, want %q", out, c.says)
			}
		})
	}
	t.Run("socket of another process", func(t *testing.T) {
		ours, theirs, err := socketpair()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		defer theirs.Close()
		cmd := exec.Command(self)
		cmd.Env = []string{roleVar + "=starter", "TARGET=" + self, "KIND=inherited"}
		cmd.Stdin = theirs
		out, err := cmd.Output()
		if err != nil || !strings.Contains(string(out), "belongs to process "+strconv.Itoa(os.Getpid())) {
			t.Errorf("says %q, %v", out, err)
		}
	})
}

// inspector starts a helper and tries to read it as any program of the user
// could.
func inspector() int {
	runtime.LockOSThread()
	control := exec.Command("/proc/self/exe")
	control.Env = []string{roleVar + "=sleeper"}
	if err := control.Start(); err != nil {
		panic(err)
	}
	defer control.Wait()
	defer control.Process.Kill()
	p, err := start("/proc/self/exe", nil)
	if err != nil {
		panic(err)
	}
	defer p.wait()
	defer p.kill()
	var a answer
	if err := readMessage(p.pipe, &a, &a.value); err != nil {
		panic(err)
	}
	for who, pid := range map[string]int{"control": control.Process.Pid, "helper": p.cmd.Process.Pid} {
		for _, file := range []string{"mem", "environ", "maps", "fd"} {
			f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file))
			fmt.Printf("%s %s denied=%t\n", who, file, errors.Is(err, fs.ErrPermission))
			f.Close()
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(limits)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") {
			fmt.Println("core", f[4], f[5])
		}
	}
	return 0
}

func TestHelperIsUndumpable(t *testing.T) {
	// Root may read everything, so this is about another user.
	cmd := exec.Command(copySelf(t))
	cmd.Env = []string{roleVar + "=inspector"}
	cmd.Dir = "/"
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	out := string(b)
	for _, want := range []string{
		"control environ denied=false", // else the rest says nothing
		"helper mem denied=true", "helper environ denied=true", "helper maps denied=true", "helper fd denied=true",
		"core 0 0",
	} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// parent starts a helper, tells its number, and waits to be killed.
func parent() int {
	runtime.LockOSThread()
	var env []string
	if bus := os.Getenv("BUS"); bus != "" {
		env = []string{"DBUS_SESSION_BUS_ADDRESS=" + bus}
	}
	p, err := start("/proc/self/exe", env)
	if err != nil {
		panic(err)
	}
	if env == nil {
		var a answer
		if err := readMessage(p.pipe, &a, &a.value); err != nil {
			panic(err)
		}
	}
	fmt.Println(p.cmd.Process.Pid)
	hang()
	return 0
}

// A helper ends with its parent: while it waits for the request, and while
// keyring's init hangs on the bus, before main.
func TestHelperDiesWithParent(t *testing.T) {
	for _, when := range []string{"serving", "in init"} {
		t.Run(when, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{roleVar + "=parent"}
			bus, address := silentBus(t)
			if when == "in init" {
				cmd.Env = append(cmd.Env, "BUS="+address)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			if when == "in init" {
				conn, err := bus.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
			}
			pidfd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(pidfd)
			cmd.Process.Kill()
			cmd.Wait()
			waitForEnd(t, pidfd)
		})
	}
}

// waitForEnd waits until the process is gone.
func waitForEnd(t *testing.T, pidfd int) {
	t.Helper()
	n, err := 0, error(syscall.EINTR)
	for err == syscall.EINTR {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 10_000)
	}
	if n != 1 {
		unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		t.Fatalf("the process lives on (%v)", err)
	}
}

// What a hung helper has started ends with it.
func TestKillReachesChildren(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	s := newStore(t, func(cfg *Config) {
		withFault("hang with child")(cfg)
		cfg.Env = append(cfg.Env, "PIDFILE="+pidfile)
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Key(ctx, "ops")
		done <- err
	}()
	var pid int
	for pid == 0 {
		b, _ := os.ReadFile(pidfile)
		pid, _ = strconv.Atoi(string(b))
		runtime.Gosched()
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	cancel()
	wantCode(t, <-done, broker.CodeCancelled)
	waitForEnd(t, pidfd)
}

// A helper gets the listed environment and no descriptor, whatever this
// process has inherited.
func TestHelperInheritsNothing(t *testing.T) {
	var fds [2]int
	if err := syscall.Pipe(fds[:]); err != nil { // as inherited: not close-on-exec
		t.Fatal(err)
	}
	defer syscall.Close(fds[0])
	defer syscall.Close(fds[1])
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fds[0]))
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, withFault("tell descriptors"))
	if e := wantCode(t, s.Probe(t.Context()), broker.CodeData); !strings.Contains(e.Message, "socket:") || strings.Contains(e.Message, name) {
		t.Errorf("a helper has %s, and %s is ours", e.Message, name)
	}
	t.Setenv("LEAK", "1")
	s = newStore(t, func(cfg *Config) {
		cfg.Env = []string{faultVar + "=tell environment", "HOME=/home/alice"}
	})
	want := fmt.Sprintf("%q", []string{faultVar + "=tell environment", "HOME=/home/alice", "DBUS_SESSION_BUS_ADDRESS=disabled:"})
	if e := wantCode(t, s.Probe(t.Context()), broker.CodeData); e.Message != want {
		t.Errorf("a helper's environment is %s, want %s", e.Message, want)
	}
}

// silentBus is a session bus that takes connections and never answers.
func silentBus(t *testing.T) (*net.UnixListener, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "bus")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); os.RemoveAll(dir) })
	return l, "unix:path=" + path
}

// touched reports whether anyone has dialled the bus.
func touched(bus *net.UnixListener) bool {
	bus.SetDeadline(time.Now().Add(20 * time.Millisecond))
	conn, err := bus.Accept()
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// daemon does what gatepassd does with this package.
func daemon() int {
	fmt.Printf("%q\n", os.Getenv("DBUS_SESSION_BUS_ADDRESS"))
	if path := os.Getenv("REPLACE"); path != "" {
		os.Remove(path)
		os.WriteFile(path, []byte("#!/bin/false\n"), 0o755)
	}
	s, err := New(Config{Backend: "file", FileDir: os.Getenv("DIR"), FilePassphrase: broker.NewSecret("x"), Env: Env(os.Environ())})
	if err == nil {
		err = s.PutKey(context.Background(), testKey("ops"))
	}
	if err == nil {
		_, err = s.Keys(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// fakeLaunch returns a PATH with a dbus-launch that leaves a mark.
func fakeLaunch(t *testing.T) (path, mark string) {
	dir := t.TempDir()
	mark = filepath.Join(dir, "launched")
	if err := os.WriteFile(filepath.Join(dir, "dbus-launch"), []byte("#!/bin/sh\n: >"+mark+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, mark
}

// Importing this package dials no bus and launches none. keyring's init does
// both; the second half shows that the trap would close.
func TestDaemonStaysOffTheBus(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bus, address := silentBus(t)
	path, mark := fakeLaunch(t)
	runtimeDir := filepath.Dir(strings.TrimPrefix(address, "unix:path="))
	for _, set := range []string{"", "DBUS_SESSION_BUS_ADDRESS=" + address, "DBUS_SESSION_BUS_ADDRESS=autolaunch:", "DBUS_SESSION_BUS_ADDRESS="} {
		out := runRole(t, self, "daemon", "PATH="+path, "XDG_RUNTIME_DIR="+runtimeDir, "DIR="+t.TempDir()+"/keys", set)
		if touched(bus) {
			t.Errorf("with %q the daemon dialled the bus", set)
		}
		if _, err := os.Stat(mark); err == nil {
			t.Errorf("with %q the daemon ran dbus-launch", set)
		}
		_, value, _ := strings.Cut(set, "=")
		if want := fmt.Sprintf("%q\n", value); out != want {
			t.Errorf("with %q the daemon sees the address %s", set, out)
		}
	}

	for _, set := range []string{"DBUS_SESSION_BUS_ADDRESS=" + address, "DBUS_SESSION_BUS_ADDRESS=autolaunch:", "XDG_RUNTIME_DIR=" + runtimeDir} {
		s := newStore(t, func(cfg *Config) {
			cfg.Backend, cfg.Deadline = "secret-service", 30*time.Second
			cfg.Env = []string{"XDG_RUNTIME_DIR=" + runtimeDir, set, "PATH=" + path}
		})
		ctx, cancel := context.WithCancel(t.Context())
		bus.SetDeadline(time.Time{})
		go func() {
			if conn, err := bus.Accept(); err == nil {
				defer conn.Close()
				cancel()
				<-t.Context().Done() // the bus stays silent
			}
		}()
		if code := broker.CodeOf(s.Probe(ctx)); code != broker.CodeCancelled {
			t.Errorf("with %q a helper does not dial the bus (%s): this test proves nothing", set, code)
		}
		cancel()
	}
	// A bus that is silent costs the deadline.
	s := newStore(t, func(cfg *Config) {
		cfg.Backend, cfg.Deadline = "secret-service", 200*time.Millisecond
		cfg.Env = []string{"DBUS_SESSION_BUS_ADDRESS=" + address}
	})
	wantCode(t, s.Probe(t.Context()), broker.CodeKeychainTimeout)

	// A helper launches none either.
	for _, backend := range []string{"auto", "secret-service", "kwallet"} {
		s := newStore(t, func(cfg *Config) {
			cfg.Backend, cfg.Env = backend, []string{"PATH=" + path, "HOME=" + t.TempDir()}
		})
		if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); err == nil {
			t.Skip("this user has a session bus at its usual place, which a helper finds")
		}
		_, err := s.Key(t.Context(), "ops")
		if e := wantCode(t, err, broker.CodeKeychainMissing); !strings.Contains(e.Hint, `keychain = "file"`) {
			t.Errorf("hint is %q", e.Hint)
		}
		if _, err := os.Stat(mark); err == nil {
			t.Errorf("a helper for %s ran dbus-launch", backend)
		}
	}
}

// The helper runs from the daemon's own file, also when that was replaced.
func TestReplacedProgram(t *testing.T) {
	program := copySelf(t)
	out := runRole(t, program, "daemon", "DIR="+t.TempDir()+"/keys", "REPLACE="+program)
	if out != "\"\"\n" {
		t.Errorf("says %q", out)
	}
}
