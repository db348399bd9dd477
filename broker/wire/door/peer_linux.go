package door

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// Bounds of what is kept open and looked at. A process takes two descriptors.
const (
	maxIdle  = 64   // processes that no connection's chain holds
	maxKept  = 1024 // processes in all; beyond, chains are walked anew each time
	maxDepth = 128  // ancestors of a caller; more, and they count as unknown
)

// imageAge is how old may be what is said of processes (not which ones they
// are) on a connection that asked before. Looking costs more than one system
// call for each, as much as all the rest of a request.
const imageAge = 20 * time.Millisecond

// processes are the ancestors of those who ask. Each is looked at with two
// descriptors that stay its own when its pid is used again: a pidfd, which
// tells that it has ended, and /proc/PID/stat.
//
// They are shared by the connections below them, and some are kept for the
// next connection: a new gatepass has the same shell and desktop above it as
// the one before.
type processes struct {
	now     func() time.Time
	proc    string // "/proc"
	foreign bool   // it is another PID namespace's
	maxIdle int
	maxKept int

	mu    sync.Mutex // held to change what follows, and process.refs; never while looking at a process
	byPID map[int]*process
	idle  []*process // refs == 0, the longest unused first
	open  int        // processes with descriptors
}

func newProcesses() *processes {
	self, err := os.Readlink("/proc/self")
	return &processes{
		now:     time.Now,
		proc:    "/proc",
		maxIdle: maxIdle,
		maxKept: maxKept,
		foreign: err != nil || self != strconv.Itoa(os.Getpid()),
		byPID:   make(map[int]*process),
	}
}

// A process is one that has not been reaped since it was opened, as long as
// its descriptors say so.
type process struct {
	pid   int
	dir   string // "/proc/PID"
	start uint64
	stat  int // descriptor
	pidfd int // descriptor, -1 where the kernel has none (before 5.3)
	refs  int // guarded by processes.mu
	image atomic.Pointer[image]
}

// An image is the program that a process runs, until its next exec.
type image struct {
	layout layout
	exe    string   // "" where the process may not be read
	args   []string // cut at maxArgs
	cwd    string   // see [broker.Process]
	shown  string   // args as one line
}

// openProcess opens the process that has the number pid. With a pidfd, which
// it takes over, it is that pidfd's process, provided that the pidfd says
// later that the process has not ended.
func (ps *processes) openProcess(pid, pidfd int) (*process, stat, error) {
	p := &process{pid: pid, dir: ps.proc + "/" + strconv.Itoa(pid), pidfd: pidfd}
	var err error
	if p.stat, err = unix.Open(p.dir+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		if pidfd >= 0 {
			unix.Close(pidfd)
		}
		return nil, stat{}, fmt.Errorf("%w: %w", errGone, err)
	}
	if p.pidfd < 0 {
		if p.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			p.pidfd = -1
		}
	}
	// Read after pidfd_open: if this is still the process of the open stat
	// file, the number was its own all the time.
	s, err := p.read()
	if err == nil {
		p.start = s.start
		p.load(s.image)
		return p, s, nil
	}
	p.close()
	return nil, stat{}, err
}

func (p *process) close() {
	unix.Close(p.stat)
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
	}
}

// read reads the process's stat: errGone when it has been reaped.
func (p *process) read() (stat, error) {
	var b [1024]byte
	n, err := unix.Pread(p.stat, b[:], 0)
	for err == unix.EINTR {
		n, err = unix.Pread(p.stat, b[:], 0)
	}
	if err != nil {
		return stat{}, fmt.Errorf("%w: %w", errGone, err)
	}
	s, err := parseStat(b[:n])
	if err != nil {
		return stat{}, err
	}
	if s.pid != p.pid || p.start != 0 && s.start != p.start {
		return stat{}, fmt.Errorf("%w: %d is another by now", errGone, p.pid)
	}
	return s, nil
}

// refresh reads the process's stat, and its image if that is a new one.
func (p *process) refresh() (stat, error) {
	s, err := p.read()
	if err == nil && p.image.Load().layout != s.image {
		p.load(s.image)
	}
	return s, err
}

// load reads what the process runs. It reads by number, so what it found
// counts only if the process is seen alive afterwards. What a process writes
// over its own argv later is not looked for.
func (p *process) load(l layout) {
	img := &image{layout: l}
	img.exe, _ = os.Readlink(p.dir + "/exe") // denied for another user's process, and undumpable ones
	img.args = p.readArgs()
	img.shown = strings.Join(img.args, " ")
	// A relative script was relative to where the process started. If it is
	// not found below where the process is now, that was elsewhere.
	script := broker.Process{Exe: img.exe, Args: img.args}.Script()
	if script != "" && !filepath.IsAbs(script) {
		if cwd, err := os.Readlink(p.dir + "/cwd"); err == nil {
			if _, err := os.Lstat(filepath.Join(cwd, script)); err == nil {
				img.cwd = cwd
			}
		}
	}
	p.image.Store(img)
}

func (p *process) readArgs() []string {
	fd, err := unix.Open(p.dir+"/cmdline", unix.O_RDONLY|unix.O_CLOEXEC, 0)
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
		if err != nil || m == 0 {
			break
		}
		n += m
		if b[n-1] == 0 {
			break // the usual end; more follows only after a full page
		}
	}
	return splitArgs(b[:n], n == len(b) && b[n-1] != 0)
}

// get returns the process that has the number pid now, kept or opened afresh,
// for the caller to release.
func (ps *processes) get(pid int) (p *process, s stat, fresh bool, err error) {
	ps.mu.Lock()
	if p = ps.byPID[pid]; p != nil {
		ps.holdLocked(p)
	}
	ps.mu.Unlock()
	if p != nil {
		if s, err = p.refresh(); err == nil {
			return p, s, false, nil
		}
		ps.forget(p)
		ps.release(p)
	}
	if p, s, err = ps.openProcess(pid, -1); err != nil {
		return nil, stat{}, false, err
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	// If another has opened it meanwhile, the later one is kept: both serve.
	if old := ps.byPID[pid]; old != nil {
		ps.forgetLocked(old)
	}
	ps.byPID[pid] = p
	ps.open++
	p.refs = 1
	return p, s, true, nil
}

// holdLocked takes a reference.
func (ps *processes) holdLocked(p *process) {
	if p.refs == 0 {
		for i, q := range ps.idle {
			if q == p {
				ps.idle = append(ps.idle[:i], ps.idle[i+1:]...)
				break
			}
		}
	}
	p.refs++
}

// release gives a reference back. The last one closes the process, or leaves
// it for the next caller.
func (ps *processes) release(held ...*process) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range held {
		if p.refs--; p.refs > 0 {
			continue
		}
		if ps.byPID[p.pid] != p {
			ps.closeLocked(p)
			continue
		}
		ps.idle = append(ps.idle, p)
		if len(ps.idle) > ps.maxIdle || ps.open > ps.maxKept {
			oldest := ps.idle[0]
			ps.idle = ps.idle[1:]
			delete(ps.byPID, oldest.pid)
			ps.closeLocked(oldest)
		}
	}
}

// forget makes sure that nobody finds p again.
func (ps *processes) forget(p *process) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.forgetLocked(p)
}

func (ps *processes) forgetLocked(p *process) {
	if ps.byPID[p.pid] != p {
		return
	}
	delete(ps.byPID, p.pid)
	if p.refs == 0 {
		ps.holdLocked(p) // off the idle list
		p.refs = 0
		ps.closeLocked(p)
	}
}

func (ps *processes) closeLocked(p *process) {
	ps.open--
	p.close()
}

// close closes the processes that no connection holds.
func (ps *processes) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for len(ps.idle) > 0 {
		ps.forgetLocked(ps.idle[0])
	}
}

// A peer is the process at the other end of a connection: the one that
// connected, whoever has the connection now.
type peer struct {
	ps  *processes
	uid int
	pid int // 0: not visible in our PID namespace

	mu     sync.Mutex // held by caller and close
	closed bool
	self   *process // nil when pid is 0 or the process was gone at once
	pidfd  int      // of a process with pid 0, else -1

	// The chain as last walked, its processes held, and what it was.
	chain    []*process
	resolved bool
	looked   time.Time // when last was made; zero when the chain must be walked
	images   []*image  // of self, then chain
	polls    []unix.PollFd
	last     broker.Caller
	tty      uint32
}

// peer returns who connected: errForeign when that is another user.
//
// The kernel notes user and process at connect. Where it keeps a pidfd for
// the connection (SO_PEERPIDFD, Linux 6.5) the process is known for certain;
// before, a process that ended between connect and now may be mistaken for
// another of the same user that has got its number since.
func (ps *processes) peer(c net.Conn) (*peer, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("a %T tells no peer", c)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	pidfd := -1
	err = raw.Control(func(fd uintptr) {
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr == nil {
			if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD); err == nil {
				pidfd = n
			}
		}
	})
	if err = errors.Join(err, credErr); err != nil {
		return nil, fmt.Errorf("learn who connected: %w", err)
	}
	p := &peer{ps: ps, uid: int(cred.Uid), pid: int(cred.Pid), pidfd: -1}
	if p.uid != os.Geteuid() {
		if pidfd >= 0 {
			unix.Close(pidfd)
		}
		return nil, fmt.Errorf("%w (uid %d, process %d)", errForeign, p.uid, p.pid)
	}
	if p.pid == 0 || ps.foreign {
		p.pidfd = pidfd
		return p, nil
	}
	if self, _, err := ps.openProcess(p.pid, pidfd); err == nil {
		p.self = self
	}
	return p, nil
}

// named returns the process that has the number pid, one of our own user's, as
// if it had connected.
func (ps *processes) named(pid int) (*peer, error) {
	self, _, err := ps.openProcess(pid, -1)
	if err != nil {
		return nil, err
	}
	return &peer{ps: ps, uid: os.Geteuid(), pid: pid, pidfd: -1, self: self}, nil
}

func (p *peer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.ps.release(p.chain...)
	p.chain = nil
	if p.self != nil {
		p.self.close()
	}
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
	}
}

// caller describes the peer and its ancestors as they are now. It fails, with
// [broker.CodeDenied], when the peer has ended.
//
// A parent changes only when it ends. So a chain, once walked, holds for as
// long as all of it is alive, and one poll of the pidfds tells. The poll
// comes last, which makes what was read before by number true as well. When
// one has ended, the chain is walked anew. After three tries, and where the
// walk meets a process that it cannot see, the ancestors are unknown:
// Resolved is false and Ancestors what was seen.
func (p *peer) caller() (broker.Caller, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return broker.Caller{}, gone(p.pid)
	}
	if p.self == nil {
		if p.pid != 0 && !p.ps.foreign || ended(p.pidfd) {
			return broker.Caller{}, gone(p.pid)
		}
		return broker.Caller{UID: p.uid, PID: p.pid}, nil
	}
	now := p.ps.now()
	if now.Sub(p.looked) < imageAge {
		if dead, err := p.deadOf(); err != nil {
			return broker.Caller{}, err
		} else if len(dead) == 0 {
			return p.made(), nil
		}
	}
	p.looked = time.Time{}
	consistent := false
	for try := 0; try < 3 && !consistent; try++ {
		s, err := p.self.refresh()
		if err != nil || s.ended {
			return broker.Caller{}, gone(p.pid)
		}
		consistent = p.follow(s)
		p.describe(s)
		dead, err := p.deadOf()
		if err != nil {
			return broker.Caller{}, err
		}
		for _, q := range dead {
			p.ps.forget(q)
			consistent = false
		}
		if !consistent {
			p.dropChain()
		}
	}
	p.last.Resolved = p.resolved // false again if the chain was dropped
	switch {
	case !consistent:
	case p.ps.full():
		p.dropChain()
	case p.hasPidfds():
		p.looked = now
	}
	return p.made(), nil
}

// made returns a copy of what describe made, for its receiver to change.
func (p *peer) made() broker.Caller {
	c := p.last
	c.Ancestors = slices.Clone(c.Ancestors)
	return c
}

// full reports whether too many processes are kept.
func (ps *processes) full() bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.open > ps.maxKept
}

func (p *peer) dropChain() {
	p.ps.release(p.chain...)
	p.chain = p.chain[:0]
	p.resolved = false
}

// follow makes p.chain the ancestors of p, whose stat is s: with what is held
// already if that can still be true, else by a walk. It returns false when
// the processes changed under the walk.
func (p *peer) follow(s stat) bool {
	cs, known := s, 0
	for known < len(p.chain) && p.chain[known].pid == cs.ppid {
		var err error
		if cs, err = p.chain[known].refresh(); err != nil {
			return false
		}
		known++
	}
	if known > 0 && known == len(p.chain) && cs.ppid == 0 {
		return true
	}
	p.dropChain()
	child := p.self
	for cs = s; cs.ppid != 0; {
		if len(p.chain) == maxDepth {
			return true
		}
		parent, parentStat, fresh, err := p.ps.get(cs.ppid)
		if err != nil {
			return false
		}
		p.chain = append(p.chain, parent)
		if parentStat.start > cs.start {
			return false // not the parent: the number's next owner
		}
		// A process opened just now had the number then, and the child named
		// it before. If the child still does, nothing happened in between.
		if fresh {
			if again, err := child.read(); err != nil || again.ppid != cs.ppid {
				return false
			}
		}
		child, cs = parent, parentStat
	}
	// Only the first process has no parent. Another without one was put into
	// our PID namespace from outside.
	p.resolved = cs.pid == 1
	return true
}

// hasPidfds reports whether a poll tells of the end of each process.
func (p *peer) hasPidfds() bool {
	return p.self.pidfd >= 0 && !slices.ContainsFunc(p.chain, func(q *process) bool { return q.pidfd < 0 })
}

// deadOf returns the ancestors that have ended, and an error when p has.
func (p *peer) deadOf() (dead []*process, err error) {
	p.polls = append(p.polls[:0], p.self.poll())
	for _, q := range p.chain {
		p.polls = append(p.polls, q.poll())
	}
	for {
		if _, err = unix.Poll(p.polls, 0); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, broker.Errorf(broker.CodeInternal, "look whether the caller is alive: %w", err)
	}
	if p.polls[0].Revents != 0 || p.self.pidfd < 0 && p.self.hasEnded() {
		return nil, gone(p.pid)
	}
	for i, q := range p.chain {
		if p.polls[i+1].Revents != 0 || q.pidfd < 0 && q.hasEnded() {
			dead = append(dead, q)
		}
	}
	return dead, nil
}

// poll asks whether p has ended. A negative descriptor is never ready.
func (p *process) poll() unix.PollFd {
	return unix.PollFd{Fd: int32(p.pidfd), Events: unix.POLLIN}
}

// hasEnded asks without a pidfd.
func (p *process) hasEnded() bool {
	s, err := p.read()
	return err != nil || s.ended
}

// ended reports whether the process of a pidfd has ended; without a pidfd
// nobody can tell.
func ended(pidfd int) bool {
	if pidfd < 0 {
		return false
	}
	polls := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		if n, err := unix.Poll(polls, 0); err != unix.EINTR {
			return err != nil || n != 0
		}
	}
}

// describe makes p.last say what p.self and p.chain are. It is made anew only
// where something changed.
func (p *peer) describe(s stat) {
	self := p.self.image.Load()
	same := len(p.images) == 1+len(p.chain) && p.images[0] == self
	for i := 0; same && i < len(p.chain); i++ {
		same = p.images[1+i] == p.chain[i].image.Load()
	}
	c := &p.last
	if !same {
		p.images = append(p.images[:0], self)
		own := p.ps.process(p.self, self)
		*c = broker.Caller{
			UID: p.uid, PID: p.pid, Exe: own.Exe, Command: own.Command, TTY: ttyName(s.tty),
			Args: own.Args, ID: own.ID,
		}
		for _, q := range p.chain {
			img := q.image.Load()
			p.images = append(p.images, img)
			c.Ancestors = append(c.Ancestors, p.ps.process(q, img))
		}
		c.Program = broker.ProgramOf(own, c.Ancestors)
	}
	if p.tty != s.tty {
		p.tty, c.TTY = s.tty, ttyName(s.tty)
	}
	c.Cwd = p.self.cwd(c.Cwd)
}

func (ps *processes) process(p *process, img *image) broker.Process {
	return broker.Process{
		PID: p.pid, Exe: img.exe, Command: img.shown, Args: img.args, Cwd: img.cwd,
		ID: broker.ProcessID{PID: p.pid, Start: p.start},
	}
}

// cwd returns the working directory, which is often the last one.
func (p *process) cwd(last string) string {
	var b [unix.PathMax]byte
	n, err := unix.Readlink(p.dir+"/cwd", b[:])
	if err != nil {
		return ""
	}
	if string(b[:n]) == last {
		return last
	}
	return string(b[:n])
}
