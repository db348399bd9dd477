package scope

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// proc is /proc.
type proc struct {
	dir     string // "/proc"
	foreign bool   // it is another PID namespace's, whose numbers mean other processes
}

var errForeign = errors.New("/proc shows the processes of another PID namespace")

func newProc() proc {
	self, err := os.Readlink("/proc/self")
	return proc{
		dir:     "/proc",
		foreign: err != nil || self != strconv.Itoa(os.Getpid()),
	}
}

// A stat is what is needed of /proc/PID/stat. See proc_pid_stat(5) for the
// fields, which it numbers from 1.
type stat struct {
	ended   bool   // 3, 20: a zombie or dead, and no thread of it runs on
	stopped bool   // 3: by a signal or a tracer
	ppid    int    // 4
	start   uint64 // 22
	exit    int    // 52: as of waitpid(2); 0 for those who may not read the process
}

var errStat = errors.New("malformed /proc/PID/stat")

// parseStat reads one line of /proc/PID/stat. The name of the program stands
// in parentheses and may hold anything, parentheses, spaces and newlines
// included; nothing after it does.
func parseStat(b []byte) (s stat, err error) {
	rest, ok := bytes.CutPrefix(b[bytes.LastIndexByte(b, ')')+1:], []byte(" "))
	if !ok {
		return stat{}, errStat
	}
	for field := 3; field <= 52; field++ {
		var word []byte
		word, rest, _ = bytes.Cut(rest, []byte(" "))
		switch field {
		case 3:
			s.ended = string(word) == "Z" || string(word) == "X"
			s.stopped = string(word) == "T" || string(word) == "t"
			ok = len(word) == 1
		case 4:
			s.ppid, ok = number[int](word)
		case 20:
			var threads int
			threads, ok = number[int](word)
			s.ended = s.ended && threads <= 1
		case 22:
			s.start, ok = number[uint64](word)
		case 52:
			s.exit, ok = number[int](bytes.TrimSuffix(word, []byte("\n")))
		}
		if !ok {
			return stat{}, fmt.Errorf("%w: field %d is %q", errStat, field, string(word))
		}
	}
	return s, nil
}

// number reads a decimal number without a sign.
func number[N int | uint64](b []byte) (n N, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + N(c-'0')
	}
	return n, true
}

func (p proc) path(pid int, name string) string {
	return p.dir + "/" + strconv.Itoa(pid) + "/" + name
}

// stat reads what /proc says of the process that has the number pid now.
func (p proc) stat(pid int) (stat, error) {
	if p.foreign {
		return stat{}, errForeign
	}
	var b [1024]byte
	line, err := readFile(p.path(pid, "stat"), b[:])
	if err != nil {
		return stat{}, fmt.Errorf("look at process %d: %w", pid, ended(err))
	}
	return parseStat(line)
}

// alive fails, with errEnded, when the process has ended.
func (p proc) alive(id broker.ProcessID) error {
	s, err := p.stat(id.PID)
	if err == nil && (s.ended || s.start != id.Start) {
		err = fmt.Errorf("process %d: %w", id.PID, errEnded)
	}
	return err
}

// ended makes errEnded of what the kernel says instead.
func ended(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return errEnded
	}
	return err
}

// readFile reads a file of /proc or of a control group, into b where it fits.
func readFile(path string, b []byte) ([]byte, error) {
	fd, err := open(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for n := 0; ; {
		m, err := unix.Read(fd, b[n:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case m == 0:
			return b[:n], nil
		}
		if n += m; n == len(b) {
			b = append(b, make([]byte, len(b))...)
		}
	}
}

func open(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR:
		default:
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// pids lists the numbers of all processes that are to be seen.
func (p proc) pids() ([]int, error) {
	if p.foreign {
		return nil, errForeign
	}
	d, err := os.Open(p.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, ok := number[int]([]byte(name)); ok {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// describe returns a process as it is shown. What was read by number is its own
// if it is alive afterwards, which ok says.
func (p proc) describe(id broker.ProcessID) (_ broker.Process, ok bool) {
	q := broker.Process{PID: id.PID, ID: id}
	q.Exe, _ = os.Readlink(p.path(id.PID, "exe")) // denied for another user's process, and undumpable ones
	q.Args = p.args(id.PID)
	q.Command = strings.Join(q.Args, " ")
	// A relative script was relative to where the process started. If it is
	// not found below where the process is now, that was elsewhere.
	if script := q.Script(); script != "" && !filepath.IsAbs(script) {
		if cwd, err := os.Readlink(p.path(id.PID, "cwd")); err == nil {
			if _, err := os.Lstat(filepath.Join(cwd, script)); err == nil {
				q.Cwd = cwd
			}
		}
	}
	return q, p.alive(id) == nil
}

// args returns the argv of a process, cut to whole arguments within maxArgs.
func (p proc) args(pid int) []string {
	fd, err := open(p.path(pid, "cmdline"))
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var b [maxArgs]byte
	n := 0
	for n < len(b) {
		m, err := unix.Read(fd, b[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || m <= 0 {
			break
		}
		n += m
	}
	argv := b[:n]
	if n == len(b) { // half an argument says something else than the whole
		if last := bytes.LastIndexByte(argv, 0); last >= 0 {
			argv = argv[:last+1]
		}
	}
	if len(argv) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(argv), "\x00"), "\x00")
}

// A pidfd is a descriptor of one process, which its number's next owner
// never gets.
type pidfd int

// openPidfd opens a process: errEnded when it has ended and been reaped. A
// zombie can be opened.
//
// The start time is read after pidfd_open: if the number is still that of the
// process, which had it from its start, then it was all the time.
func (p proc) openPidfd(id broker.ProcessID) (pidfd, error) {
	if id.PID <= 0 {
		return -1, fmt.Errorf("open process %d: %w", id.PID, unix.EINVAL)
	}
	fd, err := unix.PidfdOpen(id.PID, 0)
	if err == unix.EINVAL {
		err = unix.ESRCH // a thread has the number now
	}
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", id.PID, ended(err))
	}
	s, err := p.stat(id.PID)
	if err == nil && s.start != id.Start {
		err = fmt.Errorf("process %d: %w", id.PID, errEnded)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return pidfd(fd), nil
}

func (fd pidfd) close() { unix.Close(int(fd)) }

// running reports whether the process has not ended.
func (fd pidfd) running() bool {
	polls := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if n, err := unix.Poll(polls, 0); err != unix.EINTR {
			return err == nil && n == 0
		}
	}
}

func (fd pidfd) signal(s unix.Signal) error {
	return ended(unix.PidfdSendSignal(int(fd), s, nil, 0))
}

// group returns the number of the control group that the process is in; ok is
// false where the kernel does not tell (before 6.13), or the process has been
// reaped.
func (fd pidfd) group() (id uint64, ok bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_CGROUPID}
	if err := unix.IoctlPidfdInfo(int(fd), &info); err != nil || info.Mask&unix.PIDFD_INFO_CGROUPID == 0 {
		return 0, false
	}
	return info.Cgroupid, true
}

// exit returns how the process ended. The kernel tells when it has been
// reaped; asked says that it can tell at all (since 6.15).
func (fd pidfd) exit() (exit broker.Exit, asked bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	err := unix.IoctlPidfdInfo(int(fd), &info)
	if errors.Is(err, unix.ESRCH) {
		// It was reaped after the kernel had looked for a status, and before
		// it looked for a process: now there is one.
		info.Mask = unix.PIDFD_INFO_EXIT
		err = unix.IoctlPidfdInfo(int(fd), &info)
	}
	if err != nil {
		return broker.Exit{}, false
	}
	if info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return broker.Exit{}, true
	}
	return exitOf(int(info.Exit_code)), true
}

// exitOfZombie returns how a process ended that has not been reaped. Its stat
// says 0 to those who may not know. Who may gets, for the executable that a
// zombie has no more, a different error.
func (p proc) exitOfZombie(id broker.ProcessID) broker.Exit {
	if _, err := os.Readlink(p.path(id.PID, "exe")); !errors.Is(err, fs.ErrNotExist) {
		return broker.Exit{}
	}
	s, err := p.stat(id.PID)
	if err != nil || !s.ended || s.start != id.Start {
		return broker.Exit{}
	}
	return exitOf(s.exit)
}
