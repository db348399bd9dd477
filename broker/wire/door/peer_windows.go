package door

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/windows"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// processes has nothing to keep here.
type processes struct{}

func newProcesses() *processes { return &processes{} }

func (*processes) close() {}

// A peer is the process that connected. Its handle keeps its number from
// being used again.
type peer struct {
	pid    uint32
	handle windows.Handle
}

// peer returns who connected: errForeign when that is another user.
func (*processes) peer(c net.Conn) (*peer, error) {
	f, ok := c.(interface{ Fd() uintptr })
	if !ok {
		return nil, errors.New("the pipe has no handle")
	}
	var pid uint32
	if err := windows.GetNamedPipeClientProcessId(windows.Handle(f.Fd()), &pid); err != nil {
		return nil, fmt.Errorf("learn who connected: %w", err)
	}
	handle, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, pid)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	theirs, err := wire.UserSID(pid)
	if err == nil {
		var ours string
		if ours, err = wire.UserSID(uint32(os.Getpid())); err == nil && theirs != ours {
			err = fmt.Errorf("%w (%s, process %d)", errForeign, theirs, pid)
		}
	}
	if err != nil {
		windows.CloseHandle(handle)
		return nil, err
	}
	return &peer{pid: pid, handle: handle}, nil
}

// named returns the process that has the number pid, one of our own user's, as
// if it had connected.
func (*processes) named(pid int) (*peer, error) {
	handle, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, uint32(pid))
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &peer{pid: uint32(pid), handle: handle}, nil
}

func (p *peer) close() { windows.CloseHandle(p.handle) }

// caller describes the peer, and fails with [broker.CodeDenied] when it has
// ended. UID is -1, which Windows has none of. Command, Cwd, TTY and the
// ancestors are not known, so Resolved is false.
func (p *peer) caller() (broker.Caller, error) {
	if event, err := windows.WaitForSingleObject(p.handle, 0); err != nil || event != uint32(windows.WAIT_TIMEOUT) {
		return broker.Caller{}, gone(int(p.pid))
	}
	c := broker.Caller{UID: -1, PID: int(p.pid)}
	name := make([]uint16, windows.MAX_LONG_PATH)
	n := uint32(len(name))
	if err := windows.QueryFullProcessImageName(p.handle, 0, &name[0], &n); err == nil {
		c.Exe = windows.UTF16ToString(name[:n])
	}
	var created, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(p.handle, &created, &exited, &kernel, &user); err == nil {
		c.ID = broker.ProcessID{PID: c.PID, Start: uint64(created.HighDateTime)<<32 | uint64(created.LowDateTime)}
	}
	c.Program = broker.ProgramOf(broker.Process{PID: c.PID, Exe: c.Exe}, nil)
	return c, nil
}
