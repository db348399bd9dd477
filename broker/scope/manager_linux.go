package scope

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// Names of D-Bus and of systemd's interface, org.freedesktop.systemd1(5).
const (
	busName       = "org.freedesktop.DBus"
	systemdName   = "org.freedesktop.systemd1"
	systemdPath   = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerPrefix = systemdName + ".Manager."
)

// A manager is the way to the user's service manager: a connection to the
// user's bus, made when it is first wanted and kept for the next lease. Bus
// and manager may end or hang at any time: whoever waits has a deadline, and
// nobody new gets a connection that had trouble. Nothing here starts a bus.
type manager struct {
	runtime string    // XDG_RUNTIME_DIR
	sockets []string  // of buses, the likeliest first
	turn    chan *bus // the connection or nil; empty while one is being made
}

func newManager(c Config) *manager {
	m := &manager{runtime: c.RuntimeDir, turn: make(chan *bus, 1)}
	if m.runtime == "" {
		m.runtime = "/run/user/" + strconv.Itoa(os.Geteuid())
	}
	if filepath.IsAbs(m.runtime) {
		m.sockets = append(m.sockets, m.ownBus())
	}
	for address := range strings.SplitSeq(c.BusAddress, ";") {
		if socket := socketOf(address); socket != "" && socket != m.ownBus() {
			m.sockets = append(m.sockets, socket)
		}
	}
	m.turn <- nil
	return m
}

// ownBus is the bus that the manager itself keeps.
func (m *manager) ownBus() string { return filepath.Join(m.runtime, "bus") }

// socketOf returns the socket that a D-Bus address names, in the words of
// package net; "" for another kind of address, which may start programs.
func socketOf(address string) string {
	keys, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return ""
	}
	for key := range strings.SplitSeq(keys, ",") {
		name, value, _ := strings.Cut(key, "=")
		value, err := dbus.UnescapeBusAddressValue(value)
		switch {
		case err != nil || value == "":
		case name == "path" && filepath.IsAbs(value):
			return value
		case name == "abstract":
			return "@" + value
		}
	}
	return ""
}

// get returns a connection for the caller to release, nil where there is no
// manager.
func (m *manager) get(ctx context.Context) (b *bus, err error) {
	select {
	case b = <-m.turn:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the user's bus: %w", ctx.Err())
	}
	defer func() { m.turn <- b }()
	if b != nil && b.use() {
		return b, nil
	}
	b = nil
	for _, socket := range m.sockets {
		if b, err = m.dial(ctx, socket); b != nil || err != nil {
			break
		}
	}
	return b, err
}

func (m *manager) close() {
	if b := <-m.turn; b != nil && b.use() {
		b.release(true)
	}
	m.turn <- nil
}

// dial returns a connection to the bus at socket; nil when there is none, or
// no manager of this user on it.
func (m *manager) dial(ctx context.Context, socket string) (_ *bus, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("reach the user's bus at %s: %w", socket, err)
		}
	}()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	for _, none := range []error{unix.ENOENT, unix.ENOTDIR, unix.ECONNREFUSED, unix.EACCES} {
		if errors.Is(err, none) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	b := &bus{socket: c.(*net.UnixConn), users: 1, waiting: make(map[string]chan string), arrived: make(chan struct{})}
	ours, err := b.isOurs()
	if !ours {
		c.Close()
		return nil, err
	}
	if b.conn, err = dbus.NewConn(c, dbus.WithSignalHandler(b)); err != nil {
		c.Close()
		return nil, err
	}
	// Of a bus that says nothing, godbus hears nothing for ever.
	stop := context.AfterFunc(ctx, func() { c.Close() })
	there, err := b.hello(ctx, socket == m.ownBus() && m.isThere())
	if !stop() {
		err = ctx.Err()
	}
	if !there || err != nil {
		b.release(true)
		return nil, err
	}
	return b, nil
}

// isThere reports whether a manager has been at work in the runtime directory.
func (m *manager) isThere() bool {
	st, err := os.Stat(filepath.Join(m.runtime, "systemd"))
	return err == nil && st.IsDir()
}

// A bus is a connection to a bus on which the manager is.
type bus struct {
	socket  *net.UnixConn // below conn
	conn    *dbus.Conn
	version int           // of systemd; 0 if it does not say
	arrived chan struct{} // closed when systemd has come to the bus

	mu      sync.Mutex // held to change what follows
	users   int        // of the connection; the last one closes a bad one
	bad     bool
	waiting map[string]chan string // by unit: for its job's result
}

// use reports whether the connection can be used, and takes it if so.
func (b *bus) use() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bad || !b.conn.Connected() {
		return false
	}
	b.users++
	return true
}

// release gives the connection back. bad says that it had trouble.
func (b *bus) release(bad bool) {
	b.mu.Lock()
	b.users--
	b.bad = b.bad || bad
	last := b.bad && b.users == 0
	b.mu.Unlock()
	if last {
		b.socket.Close() // first: godbus would wait for a write that hangs
		b.conn.Close()
	}
}

// isOurs reports whether this user's processes serve the bus, and their
// numbers are what they are to us: for a bus outside of our PID namespace they
// are not, and the manager would take another process for ours.
func (b *bus) isOurs() (ours bool, err error) {
	raw, err := b.socket.SyscallConn()
	if err != nil {
		return false, err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			ours = int(cred.Uid) == os.Geteuid() && cred.Pid != 0
		}
	})
	return ours, errors.Join(err, ctlErr)
}

// hello logs in, and reports whether systemd is on the bus. wait says that it
// must come: the first to connect has the bus started, and only then systemd
// joins it.
func (b *bus) hello(ctx context.Context, wait bool) (there bool, err error) {
	if err := b.conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err != nil {
		return false, err
	}
	if err := b.conn.Hello(); err != nil {
		return false, err
	}
	b.match("AddMatch", "sender='"+busName+"',member='NameOwnerChanged',arg0='"+systemdName+"'")
	if err := b.conn.BusObject().CallWithContext(ctx, busName+".NameHasOwner", 0, systemdName).Store(&there); err != nil {
		return false, err
	}
	if !there {
		if !wait {
			return false, nil
		}
		select {
		case <-b.arrived:
		case <-b.conn.Context().Done():
			return false, dbus.ErrClosed
		case <-ctx.Done():
			return false, fmt.Errorf("systemd does not come to it: %w", ctx.Err())
		}
	}
	b.match("RemoveMatch", "sender='"+busName+"',member='NameOwnerChanged',arg0='"+systemdName+"'")
	var version string
	if err := b.systemd().CallWithContext(ctx, busName+".Properties.Get", 0, systemdName+".Manager", "Version").Store(&version); err != nil {
		return false, err
	}
	b.version = versionOf(version)
	b.systemd().Go(managerPrefix+"Subscribe", dbus.FlagNoReplyExpected, nil) // else it emits no signals
	return true, nil
}

// versionOf returns the 252 of "252.38-1~deb12u1".
func versionOf(s string) int {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	n, _ := strconv.Atoi(s[:digits])
	return n
}

func (b *bus) systemd() dbus.BusObject { return b.conn.Object(systemdName, systemdPath) }

// match changes which signals the bus passes on. It has done so by the next
// call's answer.
func (b *bus) match(method, rule string) {
	b.conn.BusObject().Go(busName+"."+method, dbus.FlagNoReplyExpected, nil, "type='signal',"+rule)
}

// DeliverSignal is called by godbus for each signal, one after the other.
func (b *bus) DeliverSignal(_, name string, s *dbus.Signal) {
	switch {
	case name == "JobRemoved" && len(s.Body) == 4: // number, job, unit, result
		unit, _ := s.Body[2].(string)
		result, _ := s.Body[3].(string)
		b.mu.Lock()
		if ch := b.waiting[unit]; ch != nil {
			delete(b.waiting, unit)
			ch <- result
		}
		b.mu.Unlock()
	case name == "NameOwnerChanged" && len(s.Body) == 3: // name, old owner, new owner
		if owner, _ := s.Body[2].(string); s.Body[0] == any(systemdName) && owner != "" {
			b.mu.Lock()
			select {
			case <-b.arrived:
			default:
				close(b.arrived)
			}
			b.mu.Unlock()
		}
	}
}

// A property of a unit that is to be made.
type property struct {
	Name  string
	Value dbus.Variant
}

// properties are those of a lease's scope; see systemd.scope(5),
// systemd.kill(5).
func properties(version int, lease string, pid int) []property {
	list := []property{
		{"Description", dbus.MakeVariant("gatepass lease " + lease)},
		{"Slice", dbus.MakeVariant("app.slice")},
		{"PIDs", dbus.MakeVariant([]uint32{uint32(pid)})},
		{"DelegateControllers", dbus.MakeVariant([]string{"pids"})}, // else it takes in no further process
		{"CollectMode", dbus.MakeVariant("inactive-or-failed")},     // nothing is left of it when it is over
		{"SendSIGHUP", dbus.MakeVariant(true)},                      // shells do not end on SIGTERM
	}
	if version >= 253 { // before, scopes have none
		// That the kernel ended one process for lack of memory is no reason
		// to end the shell that started it.
		list = append(list, property{"OOMPolicy", dbus.MakeVariant("continue")})
	}
	return list
}

// start makes a scope around a process. refused says that err is the manager's
// own answer: no scope was made.
func (b *bus) start(ctx context.Context, unit, lease string, pid int) (refused bool, err error) {
	done := make(chan string, 1)
	b.mu.Lock()
	b.waiting[unit] = done
	b.mu.Unlock()
	rule := "sender='" + systemdName + "',member='JobRemoved',arg2='" + unit + "'"
	defer func() {
		b.match("RemoveMatch", rule)
		b.mu.Lock()
		delete(b.waiting, unit)
		b.mu.Unlock()
	}()
	b.socket.SetWriteDeadline(time.Now().Add(managerMax))
	b.match("AddMatch", rule)
	call := b.systemd().CallWithContext(ctx, managerPrefix+"StartTransientUnit", 0,
		unit, "fail", properties(b.version, lease, pid), []struct {
			Unit       string
			Properties []property
		}{})
	if call.Err != nil {
		return refusal(call.Err), call.Err
	}
	// The answer says that there is a job; the process is moved when it is done.
	select {
	case result := <-done:
		if result != "done" {
			return true, fmt.Errorf("its job ended as %q", result)
		}
		return false, nil
	case <-b.conn.Context().Done():
		return false, dbus.ErrClosed
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// refusal reports whether an error is the answer of a program, and not the
// bus's that there is none.
func refusal(err error) bool {
	e, ok := errors.AsType[dbus.Error](err)
	if !ok {
		return false
	}
	switch strings.TrimPrefix(e.Name, busName+".Error.") {
	case "NoReply", "Timeout", "TimedOut", "Disconnected", "ServiceUnknown", "NameHasNoOwner":
		return false
	}
	return true
}

// Enclose implements [broker.Processes]. The process may be moved though
// Enclose failed, if the manager was slow: ScopeOf goes on as if it were not.
//
// The manager knows the process by its number alone, as does the kernel when
// the manager moves it. If it ended just now and another has its number, that
// one is moved: of which Enclose says only that the process has ended.
func (t *Trees) Enclose(ctx context.Context, lease string, id broker.ProcessID) (string, error) {
	unit, ok := unitOf(lease)
	if !ok {
		return "", fmt.Errorf("make a scope: %q is no id of a lease", lease)
	}
	if t.hierarchy.dir == "" {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, managerMax)
	defer cancel()
	b, err := t.manager.get(ctx)
	if b == nil || err != nil {
		return "", err
	}
	bad := false
	defer func() { b.release(bad) }()
	fd, err := t.proc.openPidfd(id)
	if err != nil {
		return "", err
	}
	defer fd.close()
	refused, err := b.start(ctx, unit, lease, id.PID)
	bad = err != nil && !refused && !errors.Is(err, context.Canceled)
	// What counts is what the kernel says.
	group, groupErr := t.proc.groupOf(id.PID)
	if !fd.running() {
		return "", fmt.Errorf("process %d: %w", id.PID, errEnded)
	}
	scope := scopeIn(group)
	if groupErr == nil && path.Base(scope) == unit {
		if _, groupErr = t.hierarchy.path(scope); groupErr == nil {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.slice = path.Dir(scope)
			return scope, nil
		}
	}
	if !refused {
		t.mu.Lock()
		if len(t.late) == maxGroups {
			clear(t.late)
		}
		t.late[unit] = true
		t.mu.Unlock()
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("have the user's service manager make %s: %w", unit, err)
	case groupErr != nil:
		return "", fmt.Errorf("the user's service manager made %s, but: %w", unit, groupErr)
	}
	return "", fmt.Errorf("the user's service manager says that it made %s, but process %d is in %s", unit, id.PID, group)
}

// Join implements [broker.Processes]: the manager moves the process.
func (t *Trees) Join(ctx context.Context, scope string, pid int) (broker.ProcessID, error) {
	s, err := t.proc.stat(pid)
	id := broker.ProcessID{PID: pid, Start: s.start}
	if err != nil || scope == "" {
		return id, err
	}
	if _, err := t.hierarchy.scopeDir(scope); err != nil {
		return id, err
	}
	ctx, cancel := context.WithTimeout(ctx, managerMax)
	defer cancel()
	b, err := t.manager.get(ctx)
	if err == nil && b == nil {
		err = errors.New("the user's service manager is gone")
	}
	if err != nil {
		return id, err
	}
	unit := path.Base(scope)
	b.socket.SetWriteDeadline(time.Now().Add(managerMax))
	err = b.systemd().CallWithContext(ctx, managerPrefix+"AttachProcessesToUnit", 0, unit, "", []uint32{uint32(pid)}).Err
	b.release(err != nil && !refusal(err) && !errors.Is(err, context.Canceled))
	if err != nil {
		return id, fmt.Errorf("have the user's service manager take process %d into %s: %w", pid, unit, err)
	}
	// What counts is what the kernel says.
	group, err := t.proc.groupOf(pid)
	if err == nil && scopeIn(group) != scope {
		err = fmt.Errorf("the user's service manager says that it took process %d into %s, but it is in %s", pid, unit, group)
	}
	return id, err
}

// ScopeFor implements [broker.Processes]: the manager makes all scopes in one
// place.
func (t *Trees) ScopeFor(lease string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	unit, ok := unitOf(lease)
	if t.slice == "" || !ok {
		return ""
	}
	return path.Join(t.slice, unit)
}

// isLate reports whether a unit was made though Enclose said that it was not.
func (t *Trees) isLate(unit string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.late[unit]
}

// Forget implements [broker.Processes]. The manager removes an empty scope by
// itself, and because of its CollectMode a failed one too.
func (t *Trees) Forget(scope string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.late, path.Base(scope))
}
