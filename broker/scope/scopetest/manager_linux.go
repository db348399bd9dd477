package scopetest

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long anything here may take, on a slow machine too.
const patience = 30 * time.Second

// A Manager is a systemd user manager that is up.
type Manager struct {
	UID        int
	RuntimeDir string // its XDG_RUNTIME_DIR, with the socket "bus"

	// Group is the directory of a control group out of which it can move
	// processes by itself; "" for the user's own manager, which has the
	// system's to help it. As root it can move all.
	Group string

	pid int
}

// The units: what systemd asks for in any case, and a bus like a distribution's.
var units = map[string]string{
	"default.target":  "[Unit]\nRequires=basic.target\nAfter=basic.target\n",
	"basic.target":    "[Unit]\nWants=dbus.socket\nAfter=dbus.socket\n",
	"sockets.target":  "[Unit]\n",
	"shutdown.target": "[Unit]\nDefaultDependencies=no\n",
	"dbus.socket":     "[Socket]\nListenStream=%t/bus\n",
	"dbus.service": "[Unit]\nRequires=dbus.socket\n\n[Service]\nType=notify\nNotifyAccess=main\n" +
		"ExecStart=DBUS --session --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only\n",
}

// script becomes the manager: $1 is the user's id, $2 systemd, $3 the control
// group. /run is hidden, as are control groups of version 1. Should the tests
// end without ending it, descriptor 3 tells.
const script = `set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system
mount -t cgroup2 cgroup2 /sys/fs/cgroup
group=/sys/fs/cgroup/$3
(echo 0 >"$group/tests/cgroup.procs" && read -r _ || echo 1 >"$group/cgroup.kill") <&3 &
exec 3<&- setpriv --reuid="$1" --regid="$1" --clear-groups "$2" --user --log-target=console
`

// Start returns a manager of the user with that id, which ends with the test.
// It skips the test, and says why, where there can be none; under
// GATEPASS_REAL=1 it fails it instead if only a program is missing.
func Start(tb testing.TB, uid int) *Manager {
	tb.Helper()
	if os.Getuid() != 0 {
		if uid != os.Getuid() {
			tb.Skip("needs root, to run the service manager of another user")
		}
		return own(tb)
	}
	program := func(names ...string) string {
		for _, name := range names {
			if path, err := exec.LookPath(name); err == nil {
				return path
			}
		}
		if os.Getenv("GATEPASS_REAL") == "1" {
			tb.Fatalf("GATEPASS_REAL=1 and %s is not installed", names[0])
		}
		tb.Skipf("%s is not installed", names[0])
		return ""
	}
	systemd := program("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
	dbus := program("dbus-daemon")
	program("mount")
	program("setpriv")

	group := makeGroup(tb, uid)
	dir, err := os.MkdirTemp("", "gatepass-systemd")
	check(tb, err)
	tb.Cleanup(func() { os.RemoveAll(dir) })
	m := &Manager{UID: uid, RuntimeDir: filepath.Join(dir, "run"), Group: filepath.Join(group, "tests")}
	unitDir := filepath.Join(dir, "units")
	check(tb, errors.Join(os.Chmod(dir, 0o755), os.Mkdir(unitDir, 0o755), os.Mkdir(m.RuntimeDir, 0o700), os.Chown(m.RuntimeDir, uid, uid)))
	for name, text := range units {
		check(tb, os.WriteFile(filepath.Join(unitDir, name), []byte(strings.Replace(text, "DBUS", dbus, 1)), 0o644))
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify")})
	check(tb, err)
	defer notify.Close()
	check(tb, os.Chmod(filepath.Join(dir, "notify"), 0o666))
	groupFD, err := os.Open(group)
	check(tb, err)
	defer groupFD.Close()

	alive, owner, err := os.Pipe()
	check(tb, err)
	defer alive.Close()
	tb.Cleanup(func() { owner.Close() })

	var log output
	cmd := exec.Command("/bin/sh", "-c", script, "sh", strconv.Itoa(uid), systemd, filepath.Base(group))
	cmd.ExtraFiles = []*os.File{alive}
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + m.RuntimeDir, "SHELL=/bin/sh",
		"XDG_RUNTIME_DIR=" + m.RuntimeDir, "SYSTEMD_UNIT_PATH=" + unitDir, "NOTIFY_SOCKET=" + filepath.Join(dir, "notify"),
	}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Unshareflags: syscall.CLONE_NEWNS, UseCgroupFD: true, CgroupFD: int(groupFD.Fd()),
	}
	if err := cmd.Start(); errors.Is(err, fs.ErrPermission) {
		tb.Skipf("a mount namespace cannot be made here: %v", err)
	} else if err != nil {
		tb.Fatal(err)
	}
	m.pid = cmd.Process.Pid
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		notify.SetReadDeadline(time.Now())
		close(ended)
	}()
	tb.Cleanup(func() {
		endGroup(tb, group)
		<-ended
		removeGroup(tb, group)
		if tb.Failed() {
			tb.Logf("the service manager said:\n%s", &log)
		}
	})
	notify.SetReadDeadline(time.Now().Add(patience))
	for message := make([]byte, 4096); ; {
		n, err := notify.Read(message)
		if slices.Contains(strings.Split(string(message[:n]), "\n"), "READY=1") {
			return m
		}
		if err != nil {
			if strings.Contains(log.String(), "mount: ") {
				tb.Skipf("nothing can be mounted here: %s", &log)
			}
			select {
			case <-ended:
				tb.Fatalf("systemd does not come up: %v\n%s", cmd.ProcessState, &log)
			default:
				tb.Fatalf("systemd does not come up: %v\n%s", err, &log)
			}
		}
	}
}

// own returns the manager of the session in which the tests run.
func own(tb testing.TB) *Manager {
	m := &Manager{UID: os.Getuid(), RuntimeDir: os.Getenv("XDG_RUNTIME_DIR"), Group: os.Getenv("SCOPETEST_GROUP")}
	if m.RuntimeDir == "" {
		tb.Skip("needs root to start a service manager, or a session that has one (XDG_RUNTIME_DIR)")
	}
	c, err := net.Dial("unix", filepath.Join(m.RuntimeDir, "bus"))
	if err == nil {
		c.Close()
		_, err = os.Stat(filepath.Join(m.RuntimeDir, "systemd"))
	}
	if err != nil {
		tb.Skipf("needs root to start a service manager, and this session has none: %v", err)
	}
	return m
}

// Env is what a program needs to find the manager, and to be its user's.
func (m *Manager) Env() []string {
	return []string{"XDG_RUNTIME_DIR=" + m.RuntimeDir, "DBUS_SESSION_BUS_ADDRESS=unix:path=" + m.RuntimeDir + "/bus", "SCOPETEST_GROUP=" + m.Group}
}

// Enter has cmd start as the manager's user in its Group, with Env.
func (m *Manager) Enter(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, m.Env()...)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if m.UID != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(m.UID), Gid: uint32(m.UID)}
	}
	if m.Group != "" {
		f, err := os.Open(m.Group)
		check(tb, err)
		tb.Cleanup(func() { f.Close() })
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(f.Fd())
	}
}

// Signal sends a signal to a manager that Start has started.
func (m *Manager) Signal(tb testing.TB, s syscall.Signal) {
	tb.Helper()
	if m.pid == 0 {
		tb.Skip("the session's own service manager is not to be disturbed")
	}
	check(tb, syscall.Kill(m.pid, s))
}

// Systemctl runs systemctl --user and returns what it prints.
func (m *Manager) Systemctl(tb testing.TB, args ...string) string {
	tb.Helper()
	cmd := exec.Command("systemctl", append([]string{"--user"}, args...)...)
	m.Enter(tb, cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Logf("systemctl --user %v: %v", args, err)
	}
	return string(out)
}

// output is written by another goroutine than reads it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// makeGroup makes a control group that uid may divide, and one in it for tests.
func makeGroup(tb testing.TB, uid int) string {
	tb.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(tb, err)
	root := ""
	for line := range strings.Lines(string(mounts)) {
		mount, filesystem, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(mount); strings.HasPrefix(filesystem, "cgroup2 ") && len(fields) > 4 && fields[3] == "/" {
			root = fields[4]
		}
	}
	if root == "" {
		tb.Skip("no cgroup2 file system is mounted")
	}
	group, err := os.MkdirTemp(root, "gatepass-test-")
	if err != nil {
		tb.Skipf("no control group can be made here: %v", err)
	}
	made := []string{group, filepath.Join(group, "tests")}
	check(tb, os.Mkdir(made[1], 0o755))
	for _, dir := range made {
		check(tb, os.Chmod(dir, 0o755))
		for _, name := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
			check(tb, os.Chown(filepath.Join(dir, name), uid, uid))
		}
	}
	return group
}

// endGroup ends all processes in a group and waits until they have.
func endGroup(tb testing.TB, group string) {
	if err := os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0); err != nil {
		tb.Errorf("end the service manager: %v", err)
	}
	f, err := os.Open(filepath.Join(group, "cgroup.events"))
	if err != nil {
		tb.Errorf("end the service manager: %v", err)
		return
	}
	defer f.Close()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		var b [256]byte
		n, _ := f.ReadAt(b[:], 0)
		if strings.Contains(string(b[:n]), "populated 0") {
			return
		}
		waitFor(f, deadline)
	}
	tb.Errorf("%s is not empty after %s", group, patience)
}

// removeGroup removes a group that is empty, and those in it.
func removeGroup(tb testing.TB, group string) {
	var dirs []string
	filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil {
			tb.Errorf("remove a control group: %v", err)
		}
	}
}

// waitFor returns when the kernel says that a file of a control group has
// changed, or at the deadline.
func waitFor(f *os.File, deadline time.Time) {
	unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, int(time.Until(deadline).Milliseconds()))
}
