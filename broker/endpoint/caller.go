package endpoint

import (
	"context"
	"slices"
	"time"

	"gatepass/broker"
)

// Bounds of the search for who asks. A search reads /proc, and what it reads
// is as large as those who ask make it.
const (
	callerAge  = time.Second            // how old what is said of a connection's caller may be
	searchWait = 200 * time.Millisecond // for a search's turn
	wideAgain  = time.Second            // after a search of all processes found none
	maxLikely  = 8                      // processes that are remembered, to be looked at first
)

// clients are the processes that asked for a lease's credentials. One search
// at a time is made for a lease, so that one which makes searches long does
// not keep the others from theirs.
type clients struct {
	turn chan struct{} // has an element while a search runs, whose what follows is

	likely    []int     // processes that asked before, the last one first
	wideAfter time.Time // when all processes may be searched again
}

func newClients() clients { return clients{turn: make(chan struct{}, 1)} }

// caller describes who asks on c: the process that holds its other end, else
// the lease's root with Resolved false. It is looked at again when it has been
// for longer than callerAge, since a process may end and leave the connection
// to another, or become another program.
func (l *lease) caller(ctx context.Context, c *conn) broker.Caller {
	if now := time.Now(); c.looked.IsZero() || now.Sub(c.looked) > callerAge {
		c.caller = l.findCaller(ctx, c)
		c.caller.Via = l.Kind
		c.looked = now
	}
	caller := c.caller
	caller.Ancestors = slices.Clone(caller.Ancestors) // the receiver's to change
	return caller
}

func (l *lease) findCaller(ctx context.Context, c *conn) broker.Caller {
	k := l.server.kernel
	if caller, ok := l.describe(c); ok {
		return caller
	}
	if h, ok := l.search(ctx, c); ok {
		c.holder = h
		if caller, ok := l.describe(c); ok {
			return caller
		}
	}
	c.holder = holder{}
	root := broker.Caller{UID: k.uid, PID: l.Root.PID}
	if described, err := l.server.cfg.Describe(l.Root.PID); err == nil && k.runs(l.Root) {
		root = described
	}
	root.Resolved = false
	return root
}

// describe describes c's holder, if that has the other end of c still. It is
// looked at afterwards, for then the number was the process's own meanwhile.
func (l *lease) describe(c *conn) (broker.Caller, bool) {
	if c.holder.pid == 0 {
		return broker.Caller{}, false
	}
	caller, err := l.server.cfg.Describe(c.holder.pid)
	caller.Profile = l.server.kernel.variable(c.holder.pid, "AWS_PROFILE")
	return caller, err == nil && l.server.kernel.holds(c.holder, c.socket)
}

// search looks for a process that has the other end of c: first those that
// asked before, then the lease's, then all of our user's.
func (l *lease) search(ctx context.Context, c *conn) (holder, bool) {
	wait, cancel := context.WithTimeout(ctx, searchWait)
	defer cancel()
	for _, turn := range [...]chan struct{}{l.clients.turn, l.server.searches} {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-wait.Done():
			return holder{}, false
		}
	}
	wide := !time.Now().Before(l.clients.wideAfter)
	h, ok := l.server.kernel.search(c.socket, l.Root.PID, l.clients.likely, wide)
	if !ok {
		if wide {
			l.clients.wideAfter = time.Now().Add(wideAgain)
		}
		return holder{}, false
	}
	likely := append([]int{h.pid}, slices.DeleteFunc(l.clients.likely, func(pid int) bool { return pid == h.pid })...)
	l.clients.likely = likely[:min(len(likely), maxLikely)]
	return h, true
}
