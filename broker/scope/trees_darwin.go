package scope

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// platform is what Trees are on macOS: a kqueue, in which one goroutine waits
// for the end of all watched processes.
type platform struct {
	queue int
	done  chan struct{}  // closed when run has returned
	calls sync.WaitGroup // of what was given to Watch

	mu      sync.Mutex // held to change what follows
	closed  bool
	watches map[int][]*watch // by process
}

// A watch is one of a process.
type watch struct {
	ended   func(broker.Exit)
	stopped bool
}

// wake is the event that ends run.
var wake = unix.Kevent_t{Ident: 1, Filter: unix.EVFILT_USER, Flags: unix.EV_ADD | unix.EV_CLEAR}

func (t *platform) open(Config) error {
	queue, err := unix.Kqueue()
	if err == nil {
		unix.CloseOnExec(queue)
		if _, err = unix.Kevent(queue, []unix.Kevent_t{wake}, nil, nil); err != nil {
			unix.Close(queue)
		}
	}
	if err != nil {
		return fmt.Errorf("watch processes: %w", err)
	}
	t.queue, t.done, t.watches = queue, make(chan struct{}), make(map[int][]*watch)
	go t.run()
	return nil
}

func (t *platform) close() {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	t.closed = true
	clear(t.watches)
	t.mu.Unlock()
	trigger := wake
	trigger.Flags, trigger.Fflags = 0, unix.NOTE_TRIGGER
	unix.Kevent(t.queue, []unix.Kevent_t{trigger}, nil, nil)
	<-t.done
	unix.Close(t.queue)
	t.calls.Wait()
}

// Boot implements [broker.Processes] by the kernel's own id; "" when that
// cannot be read.
func (*Trees) Boot() string {
	id, _ := unix.Sysctl("kern.bootsessionuuid")
	return id
}

// Watch implements [broker.Processes].
func (t *Trees) Watch(id broker.ProcessID, ended func(broker.Exit)) (stop func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errors.New("watch a process: no more are watched")
	}
	w := &watch{ended: ended}
	ask := unix.Kevent_t{Ident: uint64(id.PID), Filter: unix.EVFILT_PROC, Flags: unix.EV_ADD, Fflags: unix.NOTE_EXIT | unix.NOTE_EXITSTATUS}
	_, err = unix.Kevent(t.queue, []unix.Kevent_t{ask}, nil, nil)
	if err == unix.EACCES { // another user's: how it ends is not for us to know
		ask.Fflags = unix.NOTE_EXIT
		_, err = unix.Kevent(t.queue, []unix.Kevent_t{ask}, nil, nil)
	}
	if err == nil {
		// Looked at after it was asked for: if the process is there still, the
		// event will be its own. If not, and another has the number, an event
		// of that one finds no watch.
		err = alive(id)
	}
	switch {
	case err == nil:
		t.watches[id.PID] = append(t.watches[id.PID], w)
	case errors.Is(err, errEnded) || err == unix.ESRCH: // the kernel's word for zombies, too
		t.callLocked(w, broker.Exit{})
	default:
		return nil, fmt.Errorf("watch process %d: %w", id.PID, err)
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		w.stopped = true
		list := slices.DeleteFunc(t.watches[id.PID], func(other *watch) bool { return other == w })
		if len(list) == 0 {
			delete(t.watches, id.PID)
		} else {
			t.watches[id.PID] = list
		}
	}, nil
}

// run takes the kernel's events.
func (t *platform) run() {
	defer close(t.done)
	events := make([]unix.Kevent_t, 64)
	for {
		n, err := unix.Kevent(t.queue, nil, events, nil)
		if err != nil && err != unix.EINTR {
			return
		}
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			return
		}
		for _, e := range events[:max(n, 0)] {
			if e.Filter != unix.EVFILT_PROC {
				continue
			}
			exit := broker.Exit{}
			if e.Fflags&unix.NOTE_EXITSTATUS != 0 {
				exit = exitOf(int(e.Data))
			}
			for _, w := range t.watches[int(e.Ident)] {
				t.callLocked(w, exit)
			}
			delete(t.watches, int(e.Ident))
		}
		t.mu.Unlock()
	}
}

func (t *platform) callLocked(w *watch, exit broker.Exit) {
	t.calls.Go(func() {
		t.mu.Lock()
		stopped := w.stopped
		t.mu.Unlock()
		if !stopped {
			w.ended(exit)
		}
	})
}

// Enclose implements [broker.Processes]: there are no scopes here.
func (*Trees) Enclose(context.Context, string, broker.ProcessID) (string, error) { return "", nil }

// Join implements [broker.Processes]: there are no scopes here.
func (*Trees) Join(_ context.Context, _ string, pid int) (broker.ProcessID, error) {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return broker.ProcessID{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return broker.ProcessID{PID: pid, Start: startOf(k)}, nil
}

// ScopeFor implements [broker.Processes]: there are no scopes here.
func (*Trees) ScopeFor(string) string { return "" }

// ScopeOf implements [broker.Processes]: there are no scopes here.
func (*Trees) ScopeOf(id broker.ProcessID) (string, error) { return "", alive(id) }

// WatchEmpty implements [broker.Processes]: there are no scopes here.
func (*Trees) WatchEmpty(scope string, _ func()) (stop func(), err error) {
	return nil, fmt.Errorf("there is no scope %q here", scope)
}

// Forget implements [broker.Processes]: there are no scopes here.
func (*Trees) Forget(string) {}

func (*Trees) killScope(string) (bool, error) { return false, nil }

// startOf is when a process started, as a [broker.ProcessID] has it.
func startOf(k *unix.KinfoProc) uint64 {
	return uint64(k.Proc.P_starttime.Sec)*1e6 + uint64(k.Proc.P_starttime.Usec)
}

// States of a process, of sys/proc.h.
const (
	stateStopped = 4
	stateZombie  = 5
)

// alive fails, with errEnded, when the process has ended.
func alive(id broker.ProcessID) error {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", id.PID)
	if err != nil || k.Proc.P_stat == stateZombie || startOf(k) != id.Start {
		return fmt.Errorf("process %d: %w", id.PID, errEnded)
	}
	return nil
}

// list returns the processes of a lease, children before their parents. The
// kernel shows all processes as they are at one moment.
func (t *Trees) list(scope string, root broker.ProcessID, _ int) ([]member, error) {
	if scope != "" {
		return nil, fmt.Errorf("there is no scope %q here", scope)
	}
	all, err := unix.SysctlKinfoProcSlice("kern.proc.all")
	if err != nil {
		return nil, err
	}
	nodes := make(map[int]*node, len(all))
	for i := range all {
		k := &all[i]
		nodes[int(k.Proc.P_pid)] = &node{ppid: int(k.Eproc.Ppid), start: startOf(k), ended: k.Proc.P_stat == stateZombie, stopped: k.Proc.P_stat == stateStopped}
	}
	return table{nodes: nodes}.below(t.reached.of(root)), nil
}

// describe returns a process as it is shown; ok is false when it has ended.
func (*Trees) describe(id broker.ProcessID) (p broker.Process, ok bool) {
	p = broker.Process{PID: id.PID, ID: id}
	// An int32 argc, the path of the executable, NULs, then argv and the
	// environment, each string ended by NUL. Only of our own processes.
	b, err := unix.SysctlRaw("kern.procargs2", id.PID)
	if err != nil || len(b) < 4 {
		return p, alive(id) == nil
	}
	argc := int(binary.NativeEndian.Uint32(b))
	exe, rest, _ := strings.Cut(string(b[4:min(len(b), 4+maxArgs)]), "\x00")
	p.Exe = exe
	args := strings.Split(strings.TrimLeft(rest, "\x00"), "\x00")
	if len(b) > 4+maxArgs && len(args) > 1 {
		args = args[:len(args)-1] // half an argument says something else than the whole
	}
	p.Args = args[:min(max(argc, 0), len(args))]
	p.Command = strings.Join(p.Args, " ")
	return p, alive(id) == nil
}

var numbers = map[string]unix.Signal{
	"HUP": unix.SIGHUP, "TERM": unix.SIGTERM, "KILL": unix.SIGKILL, "STOP": unix.SIGSTOP, "CONT": unix.SIGCONT,
}

// send gives signals to a process, if it is still the one that was listed. The
// error is errNotOurs where the kernel does not let us.
func (*Trees) send(_ string, id broker.ProcessID, signals ...string) error {
	for _, name := range signals {
		if alive(id) != nil {
			return nil
		}
		switch err := unix.Kill(id.PID, numbers[name]); err {
		case nil, unix.ESRCH:
		case unix.EPERM:
			return errNotOurs
		default:
			return fmt.Errorf("process %d: %w", id.PID, err)
		}
	}
	return nil
}
