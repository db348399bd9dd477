package broker

import (
	"context"
	"time"

	"gatepass/profiles"
)

// A ProcessID names one process among all that ever had its number: the
// number, and when the process started in the kernel's own unit (Linux: clock
// ticks since boot, field 22 of proc_pid_stat(5); macOS: microseconds, Windows:
// 100 ns, of the wall clock).
type ProcessID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// A Lease is a process tree that holds sessions of its profiles and gets no
// others: the process that gatepass exec became, and all below it. It is kept
// on disk, and holds no secret.
type Lease struct {
	ID       string         `json:"id"` // "l-7f3k2m9qxd"
	Parent   string         `json:"parent,omitempty"`
	Profiles []string       `json:"profiles"` // the first is served to who names none
	Files    profiles.Files `json:"files"`    // of the caller, as they were at the start
	Region   string         `json:"region,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Serve    string         `json:"serve"`              // one of [ServeModes]
	Duration time.Duration  `json:"duration,omitempty"` // --duration
	Renew    string         `json:"renew"`              // "auto", "ask" or "never"
	AtExpiry string         `json:"at_expiry"`          // "warn" or "end"
	Port     int            `json:"port,omitempty"`
	Room     string         `json:"room"` // directory of its files
	Root     ProcessID      `json:"root"`
	Boot     string         `json:"boot"`              // id of the boot that Root started in
	Scope    string         `json:"scope,omitempty"`   // control group that Root is in; "" where there are no scopes
	Program  string         `json:"program,omitempty"` // that asked for it, as [ProgramOf] tells
	TTY      string         `json:"tty,omitempty"`
	Command  string         `json:"command,omitempty"` // what Root became, without its arguments
	Started  time.Time      `json:"started"`
	Ended    time.Time      `json:"ended,omitzero"`     // Root has; the lease lingers in its scope
	Recorded bool           `json:"recorded,omitempty"` // that it ended is in the log
}

// ServeModes are the ways a lease's SDKs get their sessions: [leases] serve.
var ServeModes = []string{"container", "env", "imds"}

// Processes watch over the process trees of leases.
type Processes interface {
	// Boot is an id of this boot of the machine: a [ProcessID] means nothing
	// in another. "" is an id that is not known.
	Boot() string

	// Watch calls ended once, from a goroutine of its own, when the process
	// has ended, be it a zombie that nobody reaps; at once if it has already.
	// stop prevents a call that has not begun. An error means that it cannot
	// be watched.
	Watch(id ProcessID, ended func(Exit)) (stop func(), err error)

	// Enclose moves a process into a new scope (a control group of its own,
	// made by the user's service manager) in which all that it starts stays;
	// what it has started before does not come along. It returns "" where
	// there is no such manager: then only ancestry tells. With an error, of a
	// manager that refused or did not answer within two seconds, there is no
	// scope either.
	Enclose(ctx context.Context, lease string, id ProcessID) (scope string, err error)

	// Join puts a child of ours, which has not been waited for, into a scope
	// made by Enclose and returns its id; where scope is "" it does no more
	// than that.
	Join(ctx context.Context, scope string, pid int) (ProcessID, error)

	// ScopeFor returns which scope Enclose will make for a lease, as far as that
	// can be told before; "" where it cannot.
	ScopeFor(lease string) string

	// ScopeOf returns which of the scopes made by Enclose the process is in,
	// "" for none. It may be that of a lease which nobody knows any more. The
	// process may have ended: that is an error. No error is to be taken for "".
	ScopeOf(id ProcessID) (scope string, err error)

	// WatchEmpty calls empty once, from a goroutine of its own, when no process
	// is left in a scope; at once if none is. stop prevents a call that has not
	// begun.
	WatchEmpty(scope string, empty func()) (stop func(), err error)

	// Inside lists the processes of a lease: those in its scope, or where that
	// is "" those below root, root included. Nothing is left of an empty one.
	// It lists at most 1,000, the oldest first. One in a PID namespace that
	// cannot be seen has the PID 0.
	//
	// Without a scope, those that Signal has reached stay in the list until
	// they have ended, though root has.
	Inside(scope string, root ProcessID) ([]Process, error)

	// Signal sends a signal of the operating system ("HUP", "TERM", "KILL") to
	// all of them, as far as they are ours. It may take some seconds where
	// there are many, and returns before they have ended.
	Signal(scope string, root ProcessID, signal string) error

	// Forget lets go of a scope that has become empty.
	Forget(scope string)
}

// An Exit is how a process ended, as far as the kernel tells.
type Exit struct {
	Known  bool
	Status int // 0 to 255, 128 and the signal's number where a signal ended it
}

// Rooms hold the files that a lease's processes read: the sealed config, an
// empty credentials file, and the endpoint's token.
type Rooms interface {
	// Open makes the room of a lease. program is the gatepass that its config
	// runs.
	Open(l *Lease, program string) (dir string, err error)
	// Close removes it.
	Close(dir string) error
}

// Endpoints serve the sessions of leases to SDKs over loopback HTTP, by
// [Broker.LeaseCredentials].
type Endpoints interface {
	// Open serves l at its port, or where that is 0 at a free one, which it
	// returns, and writes a new token into the lease's room.
	Open(l *Lease) (port int, err error)
	// End answers whoever asks with a refusal, until Close.
	End(lease, why string)
	Close(lease string)
}

// A Notifier tells the user something that needs no answer: by the desktop's
// notification, else by a line on the terminal tty ("" for none).
type Notifier interface {
	Notify(ctx context.Context, text, tty string)
}

// A LeaseBook keeps the leases across restarts of the daemon. What it has
// saved is on disk when it returns, and after a crash the old or the new
// leases are.
type LeaseBook interface {
	Leases() ([]Lease, error)
	SaveLeases([]Lease) error
}

// LeaseStatus is what is shown of a lease.
type LeaseStatus struct {
	ID         string    `json:"id"`
	Parent     string    `json:"parent,omitempty"`
	Profiles   []string  `json:"profiles"`
	Serve      string    `json:"serve"`
	State      string    `json:"state"` // "live", "needs-mfa", "expired", "lingering"
	PID        int       `json:"pid"`
	Command    string    `json:"command,omitempty"`
	TTY        string    `json:"tty,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Started    time.Time `json:"started"`
	Expires    time.Time `json:"expires,omitzero"` // of its session; renewed ahead where Renewable
	Renewable  bool      `json:"renewable"`
	Served     int64     `json:"served"` // hand-outs
	LastServed time.Time `json:"last_served,omitzero"`
	Processes  []Process `json:"processes,omitempty"`
}
