package scope

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"

	"gatepass/broker"
)

// platform is what Trees are on Windows. A handle keeps a process's number
// from being used again.
type platform struct {
	calls sync.WaitGroup // the goroutines of Watch

	mu      sync.Mutex // held to change what follows
	closed  bool
	watches map[*watch]bool
}

// A watch has a thread of its own, which waits for process or stop.
type watch struct {
	process windows.Handle
	stop    windows.Handle // an event
	ended   func(broker.Exit)
	stopped bool
}

func (t *platform) open(Config) error {
	t.watches = make(map[*watch]bool)
	return nil
}

func (t *platform) close() {
	t.mu.Lock()
	t.closed = true
	for w := range t.watches {
		w.stopped = true
		windows.SetEvent(w.stop)
	}
	t.mu.Unlock()
	t.calls.Wait()
}

// Boot implements [broker.Processes]. The start times of processes are of the
// wall clock here, to 100 ns: they tell one boot from another by themselves.
func (*Trees) Boot() string { return "any" }

// Watch implements [broker.Processes].
func (t *Trees) Watch(id broker.ProcessID, ended func(broker.Exit)) (stop func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errors.New("watch a process: no more are watched")
	}
	w := &watch{ended: ended}
	w.process, err = openProcess(id, windows.SYNCHRONIZE|windows.PROCESS_QUERY_LIMITED_INFORMATION)
	if err != nil && !errors.Is(err, errEnded) {
		return nil, err
	}
	if err == nil {
		if w.stop, err = windows.CreateEvent(nil, 1, 0, nil); err != nil {
			windows.CloseHandle(w.process)
			return nil, fmt.Errorf("watch process %d: %w", id.PID, err)
		}
	}
	t.watches[w] = true
	t.calls.Go(func() { t.wait(w) })
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		w.stopped = true
		if t.watches[w] && w.stop != 0 {
			windows.SetEvent(w.stop)
		}
	}, nil
}

// wait ends a watch, with a call where the process has ended.
func (t *platform) wait(w *watch) {
	var exit broker.Exit
	if w.process != 0 {
		windows.WaitForMultipleObjects([]windows.Handle{w.process, w.stop}, false, windows.INFINITE)
		var code uint32
		// Codes above are mostly reasons of the system's to end it.
		if err := windows.GetExitCodeProcess(w.process, &code); err == nil && code <= 255 {
			exit = broker.Exit{Known: true, Status: int(code)}
		}
	}
	t.mu.Lock()
	delete(t.watches, w)
	if w.process != 0 {
		windows.CloseHandle(w.process)
		windows.CloseHandle(w.stop)
	}
	stopped := w.stopped
	t.mu.Unlock()
	if !stopped {
		w.ended(exit)
	}
}

// openProcess opens a process; errEnded when it has ended.
func openProcess(id broker.ProcessID, access uint32) (windows.Handle, error) {
	handle, err := windows.OpenProcess(access|windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, uint32(id.PID))
	if err == windows.ERROR_INVALID_PARAMETER { // no process has the number
		err = errEnded
	}
	if err != nil {
		return 0, fmt.Errorf("open process %d: %w", id.PID, err)
	}
	start, err := startOf(handle)
	if err == nil && (start != id.Start || hasEnded(handle)) {
		err = errEnded
	}
	if err != nil {
		windows.CloseHandle(handle)
		return 0, fmt.Errorf("process %d: %w", id.PID, err)
	}
	return handle, nil
}

// startOf is when a process started, as a [broker.ProcessID] has it.
func startOf(process windows.Handle) (uint64, error) {
	var created, exited, kernel, user windows.Filetime
	err := windows.GetProcessTimes(process, &created, &exited, &kernel, &user)
	return uint64(created.HighDateTime)<<32 | uint64(created.LowDateTime), err
}

// hasEnded is asked of processes that somebody has a handle of: they keep their
// number.
func hasEnded(process windows.Handle) bool {
	event, err := windows.WaitForSingleObject(process, 0)
	return err != nil || event != uint32(windows.WAIT_TIMEOUT)
}

// Enclose implements [broker.Processes]: there are no scopes here.
func (*Trees) Enclose(context.Context, string, broker.ProcessID) (string, error) { return "", nil }

// Join implements [broker.Processes]: there are no scopes here.
func (*Trees) Join(_ context.Context, _ string, pid int) (broker.ProcessID, error) {
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return broker.ProcessID{}, fmt.Errorf("process %d: %w", pid, err)
	}
	defer windows.CloseHandle(process)
	start, err := startOf(process)
	return broker.ProcessID{PID: pid, Start: start}, err
}

// ScopeFor implements [broker.Processes]: there are no scopes here.
func (*Trees) ScopeFor(string) string { return "" }

// ScopeOf implements [broker.Processes]: there are no scopes here.
func (*Trees) ScopeOf(id broker.ProcessID) (string, error) {
	process, err := openProcess(id, 0)
	if err == nil {
		windows.CloseHandle(process)
	}
	return "", err
}

// WatchEmpty implements [broker.Processes]: there are no scopes here.
func (*Trees) WatchEmpty(scope string, _ func()) (stop func(), err error) {
	return nil, fmt.Errorf("there is no scope %q here", scope)
}

// Forget implements [broker.Processes]: there are no scopes here.
func (*Trees) Forget(string) {}

func (*Trees) killScope(string) (bool, error) { return false, nil }

// list returns the processes of a lease, children before their parents. A
// process keeps the number of a parent that has ended, so parents are believed
// only if they are older. Those that may not be opened are left out, with what
// is below them.
func (t *Trees) list(scope string, root broker.ProcessID, _ int) ([]member, error) {
	if scope != "" {
		return nil, fmt.Errorf("there is no scope %q here", scope)
	}
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return nil, err
	}
	defer windows.CloseHandle(snapshot)
	nodes := make(map[int]*node)
	entry := windows.ProcessEntry32{Size: uint32(unsafe.Sizeof(windows.ProcessEntry32{}))}
	for err = windows.Process32First(snapshot, &entry); err == nil; err = windows.Process32Next(snapshot, &entry) {
		process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, entry.ProcessID)
		if err != nil {
			continue
		}
		if start, err := startOf(process); err == nil {
			nodes[int(entry.ProcessID)] = &node{
				ppid: int(entry.ParentProcessID), start: start, ended: hasEnded(process),
				stopped: true, // as far as it ever is: there is no STOP
			}
		}
		windows.CloseHandle(process)
	}
	if err != windows.ERROR_NO_MORE_FILES {
		return nil, err
	}
	return table{nodes: nodes}.below(t.reached.of(root)), nil
}

// describe returns a process as it is shown, without its arguments; ok is
// false when it has ended.
func (*Trees) describe(id broker.ProcessID) (p broker.Process, ok bool) {
	process, err := openProcess(id, 0)
	if err != nil {
		return broker.Process{}, false
	}
	defer windows.CloseHandle(process)
	p = broker.Process{PID: id.PID, ID: id}
	name := make([]uint16, windows.MAX_LONG_PATH)
	n := uint32(len(name))
	if err := windows.QueryFullProcessImageName(process, 0, &name[0], &n); err == nil {
		p.Exe = windows.UTF16ToString(name[:n])
	}
	return p, true
}

// send ends a process by "KILL"; there are no other signals here. The error is
// errNotOurs where the system does not let us.
func (*Trees) send(_ string, id broker.ProcessID, signals ...string) error {
	if signals[0] != "KILL" {
		return nil
	}
	process, err := openProcess(id, windows.PROCESS_TERMINATE)
	switch {
	case errors.Is(err, errEnded):
		return nil
	case errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return errNotOurs
	case err != nil:
		return err
	}
	defer windows.CloseHandle(process)
	if err := windows.TerminateProcess(process, 128+9); err != nil && !hasEnded(process) {
		return fmt.Errorf("end process %d: %w", id.PID, err)
	}
	return nil
}
