// Package scope watches over the process trees of leases, for the broker: it
// tells when a lease's first process (its root) has ended, whether a process
// that asks is inside a lease, which processes a lease has, and it ends them.
//
// # What is inside
//
// On Linux, where a systemd user manager runs, each lease is a scope: a
// control group that the manager makes around the root, and in which all that
// the root starts stays, whatever it does with sessions, process groups and
// parents: setsid, nohup, a double fork, a tmux server, the death of the root.
// Everywhere else a lease is what is below its root by parentage, and what
// survives the root, or is started by a process that was there before, is
// outside.
//
//	                   Linux, systemd --user   Linux         macOS         Windows
//	inside             the control group       ancestry      ancestry      ancestry
//	after the root     the wall stands         nothing       nothing       nothing
//	Watch              pidfd                   pidfd         kqueue        process handle
//	exit status        see below               see below     yes           up to 255
//	a pid used again   never taken for the process; on macOS a signal can still hit it, in the
//	                   microseconds between the look and the signal
//	KILL               cgroup.kill: all        stop all,     stop all,     TerminateProcess
//	                   of it at once           end each      end each      of each
//	HUP, TERM          each process            each          each          nothing happens
//
// What is said of macOS and Windows has been compiled, not run.
//
// The user manager is looked for at the bus in XDG_RUNTIME_DIR (or
// /run/user/UID, where cron and su find it), then at DBUS_SESSION_BUS_ADDRESS.
// A bus is never started, nor is another user's or another PID namespace's
// used. Control groups are those of version 2: with systemd's legacy mode, of
// version 1 alone, there are no scopes.
//
// # What this cannot catch
//
// A scope is a fence among the processes of one user, not a prison. By the
// kernel's rules a user may move his processes between the control groups
// that his manager owns, and by "systemd-run --user" or "at" have others start
// one outside. A process that leaves its scope on purpose is still below the
// root, until it gives up its parents too. A program that sudo started is
// another user's: it is inside, and KILL ends it in a scope, but HUP, TERM,
// and KILL elsewhere do not reach it. One by one, nor does any signal reach a
// process that goes on and on to leave its place to a child.
//
// A scope ends with the user manager that made it. Where nobody is logged in
// any more and lingering is not enabled (loginctl enable-linger), systemd ends
// the manager and so what runs in its scopes, a tmux server too.
//
// # Exit status
//
// Linux tells the status of a process that is not our child in two places: in
// its /proc/PID/stat until it is reaped, if we may read it (not that of
// another user's process), and from Linux 6.15 by its pidfd once it is. Before
// 6.15 the status of a root that its parent reaps quickly is often unknown.
//
// # How a scope looks
//
// The unit of lease l-7f3k2m9qxd is gatepass-l-7f3k2m9qxd.scope, in app.slice:
//
//	$ systemctl --user status gatepass-l-7f3k2m9qxd.scope
//	● gatepass-l-7f3k2m9qxd.scope - gatepass lease l-7f3k2m9qxd
//	     Loaded: loaded (/run/user/1000/systemd/transient/gatepass-l-7f3k2m9qxd.scope; transient)
//	  Transient: yes
//	     Active: active (running) since Tue 2025-06-03 09:12:44 CEST; 12min ago
//	      Tasks: 3 (limit: 9452)
//	     CGroup: /user.slice/user-1000.slice/user@1000.service/app.slice/gatepass-l-7f3k2m9qxd.scope
//	             ├─4711 /bin/zsh
//	             ├─4890 terraform apply
//	             └─4902 .terraform/providers/…/terraform-provider-aws_v5.99.1_x5
//
// "systemctl --user stop" of it sends SIGTERM, SIGHUP and after a while
// SIGKILL. When its last process has ended, systemd removes it and forgets it,
// failed or not.
package scope

import (
	"errors"
	"strings"
	"time"

	"gatepass/broker"
)

// Config is what New needs to know. Elsewhere than on Linux it is not used.
type Config struct {
	// RuntimeDir is the user's XDG_RUNTIME_DIR, where the bus of the user
	// manager is; "" is /run/user/UID.
	RuntimeDir string

	// BusAddress is DBUS_SESSION_BUS_ADDRESS: where else the user manager may
	// be found. Only addresses of sockets (unix:path=, unix:abstract=) are
	// used.
	BusAddress string
}

// Trees are the process trees of leases. It implements [broker.Processes].
// Make one with [New].
type Trees struct {
	platform
	signalTime time.Duration // signalMax
	reached    reached
}

var _ broker.Processes = (*Trees)(nil)

// New returns Trees, for the caller to close.
func New(c Config) (*Trees, error) {
	t := &Trees{signalTime: signalMax}
	if err := t.open(c); err != nil {
		return nil, err
	}
	return t, nil
}

// Close ends all watches, without calls for those that have not ended, and
// returns when the calls under way have.
func (t *Trees) Close() { t.close() }

// errEnded is in the chain of an error about a process that has ended,
// whatever has its number now.
var errEnded = errors.New("the process has ended")

// errNotOurs is why a process was not signalled: it is another user's.
var errNotOurs = errors.New("the process is another user's")

// Bounds of a look at a lease, so that a fork bomb costs the daemon little.
const (
	maxInside  = 1000                   // processes that Inside lists
	maxArgs    = 8 << 10                // bytes that are read of a process's command line
	signalMax  = 5 * time.Second        // for a signal to reach all
	maxKept    = 64                     // processes that are held open for their next question
	maxBelow   = 1000                   // control groups in a scope; more, and its processes are not listed
	maxGroups  = 256                    // control groups that are known by number
	reapWait   = 100 * time.Millisecond // for a status that the kernel tells only of a reaped process
	scopeLook  = 5 * time.Second        // at a scope whose end nobody has told
	managerMax = 2 * time.Second        // for the user manager to make a scope
)

// What surrounds a lease's id in the name of its unit.
const (
	unitPrefix = "gatepass-"
	unitSuffix = ".scope"
)

// unitOf returns the name of the unit of a lease.
func unitOf(lease string) (string, bool) {
	unit := unitPrefix + lease + unitSuffix
	return unit, isUnit(unit)
}

// isUnit reports whether name is the unit of a lease: one with an id such as
// l-7f3k2m9qxd.
func isUnit(name string) bool {
	id, ok := strings.CutPrefix(name, unitPrefix+"l-")
	if !ok {
		return false
	}
	if id, ok = strings.CutSuffix(id, unitSuffix); !ok || id == "" {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// scopeIn returns the scope that a control group is or is in, "" for none.
// Groups that a lease makes inside its scope may have any name: the outermost
// counts.
func scopeIn(path string) string {
	for end := 1; end < len(path); end++ {
		begin := end
		for end < len(path) && path[end] != '/' {
			end++
		}
		if isUnit(path[begin:end]) {
			return path[:end]
		}
	}
	return ""
}
