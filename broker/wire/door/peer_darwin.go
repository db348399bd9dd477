package door

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

const maxDepth = 128 // ancestors of a caller

// processes has nothing to keep here.
type processes struct{}

func newProcesses() *processes { return &processes{} }

func (*processes) close() {}

// A peer is the process that connected, by number and start time. macOS does
// not hold its number for us: a process that ended between connect and now
// may be mistaken for another of the same user that has got its number since.
type peer struct {
	uid, pid int
	start    unix.Timeval // zero when it was gone at once
}

// peer returns who connected: errForeign when that is another user.
func (*processes) peer(c net.Conn) (*peer, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("a %T tells no peer", c)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Xucred
	var pid int
	var credErr, pidErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		pid, pidErr = unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	})
	if err = errors.Join(err, credErr, pidErr); err != nil {
		return nil, fmt.Errorf("learn who connected: %w", err)
	}
	p := &peer{uid: int(cred.Uid), pid: pid}
	if p.uid != os.Geteuid() {
		return nil, fmt.Errorf("%w (uid %d, process %d)", errForeign, p.uid, p.pid)
	}
	if k, err := unix.SysctlKinfoProc("kern.proc.pid", pid); err == nil {
		p.start = k.Proc.P_starttime
	}
	return p, nil
}

// named returns the process that has the number pid, one of our own user's, as
// if it had connected.
func (*processes) named(pid int) (*peer, error) {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return nil, err
	}
	return &peer{uid: os.Geteuid(), pid: pid, start: k.Proc.P_starttime}, nil
}

func (*peer) close() {}

// caller describes the peer and its ancestors, and fails with
// [broker.CodeDenied] when the peer has ended. Resolved is always false: the
// walk goes by numbers that nothing holds. Cwd and TTY are not known.
func (p *peer) caller() (broker.Caller, error) {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", p.pid)
	if err != nil || p.start == (unix.Timeval{}) || k.Proc.P_starttime != p.start {
		return broker.Caller{}, gone(p.pid)
	}
	own := describe(k)
	c := broker.Caller{UID: p.uid, PID: p.pid, Exe: own.Exe, Command: own.Command, Args: own.Args, ID: own.ID}
	for parent := int(k.Eproc.Ppid); parent > 0 && len(c.Ancestors) < maxDepth; parent = int(k.Eproc.Ppid) {
		if k, err = unix.SysctlKinfoProc("kern.proc.pid", parent); err != nil {
			break
		}
		c.Ancestors = append(c.Ancestors, describe(k))
	}
	c.Program = broker.ProgramOf(own, c.Ancestors)
	return c, nil
}

func describe(k *unix.KinfoProc) broker.Process {
	p := broker.Process{PID: int(k.Proc.P_pid)}
	p.ID = broker.ProcessID{PID: p.PID, Start: uint64(k.Proc.P_starttime.Nano() / 1000)}
	// An int32 argc, the path of the executable, NULs, then argv and the
	// environment, each string ended by NUL. Only of our own processes.
	b, err := unix.SysctlRaw("kern.procargs2", p.PID)
	if err != nil || len(b) < 4 {
		return p
	}
	argc := int(binary.NativeEndian.Uint32(b))
	exe, rest, _ := strings.Cut(string(b[4:min(len(b), 4+maxArgs)]), "\x00")
	p.Exe = exe
	args := splitArgs([]byte(strings.TrimLeft(rest, "\x00")), len(b) > 4+maxArgs)
	p.Args = args[:min(max(argc, 0), len(args))]
	p.Command = strings.Join(p.Args, " ")
	return p
}
