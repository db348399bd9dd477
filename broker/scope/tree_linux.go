package scope

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// platform is what Trees are on Linux.
type platform struct {
	proc       proc
	hierarchy  hierarchy
	tellsGroup bool // by PIDFD_GET_INFO
	watcher    *watcher
	asked      *asked
	manager    *manager

	mu    sync.Mutex      // guards what follows
	late  map[string]bool // units that came after Enclose had given up
	slice string          // control group of the last scope's parent; "" before the first
}

func (t *platform) open(c Config) (err error) {
	t.proc = newProc()
	if mounts, err := os.ReadFile(t.proc.dir + "/self/mountinfo"); err == nil {
		t.hierarchy = findHierarchy(string(mounts))
	}
	if fd, err := unix.PidfdOpen(os.Getpid(), 0); err == nil {
		_, t.tellsGroup = pidfd(fd).group()
		unix.Close(fd)
	}
	t.asked = newAsked()
	t.manager = newManager(c)
	t.late = make(map[string]bool)
	t.watcher, err = newWatcher(t.proc)
	return err
}

func (t *platform) close() {
	t.watcher.close()
	t.manager.close()
	t.asked.close()
}

// Boot implements [broker.Processes] by the kernel's own id; "" when that
// cannot be read.
func (t *Trees) Boot() string {
	id, _ := os.ReadFile(t.proc.dir + "/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(id))
}

// Watch implements [broker.Processes].
func (t *Trees) Watch(id broker.ProcessID, ended func(broker.Exit)) (stop func(), err error) {
	return t.watcher.watch(id, ended)
}

// WatchEmpty implements [broker.Processes].
func (t *Trees) WatchEmpty(scope string, empty func()) (stop func(), err error) {
	dir, err := t.hierarchy.scopeDir(scope)
	if err != nil {
		return nil, err
	}
	return t.watcher.watchScope(dir, empty)
}

// list returns the processes of a lease that have not ended, children before
// their parents where it knows; of a scope at most max.
func (t *Trees) list(scope string, root broker.ProcessID, max int) ([]member, error) {
	if scope == "" {
		return t.proc.below(t.reached.of(root))
	}
	dir, err := t.hierarchy.scopeDir(scope)
	if err != nil {
		return nil, err
	}
	pids, err := members(dir, max)
	if err != nil {
		return nil, err
	}
	var list []member
	for _, pid := range pids {
		if pid == 0 {
			list = append(list, member{})
		} else if s, err := t.proc.stat(pid); err == nil && !s.ended {
			list = append(list, member{broker.ProcessID{PID: pid, Start: s.start}, s.stopped})
		}
	}
	return list, nil
}

// below finds the living among roots and all below them.
func (p proc) below(roots []broker.ProcessID) ([]member, error) {
	pids, err := p.pids()
	if err != nil {
		return nil, err
	}
	t := table{nodes: make(map[int]*node, len(pids)), look: func(pid int) (node, bool) {
		s, err := p.stat(pid) // it has ended, or is hidden from us (hidepid)
		return node{ppid: s.ppid, start: s.start, ended: s.ended, stopped: s.stopped}, err == nil
	}}
	for _, pid := range pids {
		if n, ok := t.look(pid); ok {
			t.nodes[pid] = &n
		}
	}
	return t.below(roots), nil
}

// describe returns a process as it is shown; ok is false when it has ended. A
// process in a PID namespace that we cannot see is shown as 0.
func (t *Trees) describe(id broker.ProcessID) (p broker.Process, ok bool) {
	if id.PID == 0 {
		return broker.Process{}, true
	}
	return t.proc.describe(id)
}

// killScope ends all processes of a scope at once, those too that are being
// forked. done is false where that cannot be done.
func (t *Trees) killScope(scope string) (done bool, err error) {
	if scope == "" {
		return false, nil
	}
	dir, err := t.hierarchy.scopeDir(scope)
	if err != nil {
		return false, err
	}
	own, err := t.proc.groupOf(os.Getpid())
	if err != nil || scopeIn(own) == scope {
		return false, err // one by one, without this process
	}
	f, err := os.OpenFile(dir+"/cgroup.kill", os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false, nil // before Linux 5.14; the scope is gone; it is not ours
	}
	if err == nil {
		_, err = f.WriteString("1")
		f.Close()
	}
	if removed(err) {
		err = nil
	}
	return err == nil, err
}

// numbers of the signals that send knows.
var numbers = map[string]unix.Signal{
	"HUP": unix.SIGHUP, "TERM": unix.SIGTERM, "KILL": unix.SIGKILL, "STOP": unix.SIGSTOP, "CONT": unix.SIGCONT,
}

// send gives signals to a process, if it is still the one that was listed and
// still in the scope. The error is errNotOurs where the kernel does not let us.
func (t *Trees) send(scope string, id broker.ProcessID, signals ...string) error {
	fd, err := t.proc.openPidfd(id)
	if errors.Is(err, errEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	defer fd.close()
	if scope != "" {
		group, err := t.proc.groupOf(id.PID)
		// What was read by number is its own if it runs on.
		if err != nil || scopeIn(group) != scope || !fd.running() {
			return nil
		}
	}
	for _, name := range signals {
		switch err := fd.signal(numbers[name]); err {
		case nil, errEnded:
		case unix.EPERM:
			return errNotOurs
		default:
			return fmt.Errorf("process %d: %w", id.PID, err)
		}
	}
	return nil
}
