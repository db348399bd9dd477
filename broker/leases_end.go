package broker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// rootEnded ends a lease whose root has ended. Its processes that live on in
// its scope get nothing any more, and the wall stands until they are gone.
func (b *Broker) rootEnded(l *lease, exit Exit) {
	how := "how it ended is not known"
	if exit.Known {
		how = fmt.Sprintf("exit status %d", exit.Status)
	}
	b.endLease(context.Background(), l, how)
}

// endLease writes the check-out and lets go of the lease, as far as no process
// is left in its scope.
func (b *Broker) endLease(ctx context.Context, l *lease, how string) {
	b.mu.Lock()
	if b.leases[l.ID] != l || !l.Ended.IsZero() || b.closed {
		b.mu.Unlock()
		return
	}
	l.Ended = b.cfg.Clock.Now().UTC()
	if l.why != "" {
		how += ", " + l.why
	}
	served := l.served.Load()
	l.how = fmt.Sprintf("%s, after %s, %d hand-outs", how, l.Ended.Sub(l.Started).Round(time.Second), served)
	if served == 1 {
		l.how = strings.TrimSuffix(l.how, "s")
	}
	stop := l.stopWatch
	b.mu.Unlock()
	stop()
	if l.Port != 0 {
		b.cfg.Leases.Endpoints.End(l.ID, l.over().Message)
	}
	b.drop("lease ended", func(s *session) bool { return s.q.lease == l.ID })
	b.checkOut(ctx, l, "")
	all := b.inside(l) // as long as l is known
	b.linger(l)
	// Those inside it are in scopes of their own, and would be a way to stay on.
	// Without scopes what outlives a root is outside in any case, and better
	// behind its own wall. One that has the same root ends by itself.
	for _, inner := range all {
		if b.scopeOf(inner) != "" && inner.Root != l.Root {
			b.endLease(ctx, inner, outerEnded)
		}
	}
}

// checkOut writes the end of a lease into the log, once: nothing is started
// that has no end, and nothing ends that was not started. One that ends before
// it has begun is checked out by begin, which fails. why is for one that
// endLease has not ended: what it said counts, whoever comes first.
func (b *Broker) checkOut(ctx context.Context, l *lease, why string) {
	b.mu.Lock()
	how := cmp.Or(l.how, why)
	due := l.begun && !l.checkout
	l.checkout = l.checkout || due
	b.mu.Unlock()
	if !due {
		return
	}
	ended := b.leaseEvent(EventLeaseEnded, l)
	ended.Reason = how
	if err := b.cfg.Log.Append(ctx, ended, true); err != nil {
		b.cfg.Logger.Error("end of lease not recorded", "lease", l.ID, "err", err)
		return // the next run tries again, if it lingers for so long
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l.Recorded = true
}

// unmake lets go of a lease that could not begin. A root that came from inside
// another lease has left that one's scope for its own by now: then the wall
// stands there until the scope is empty.
func (b *Broker) unmake(ctx context.Context, l *lease) {
	const why = "the lease could not begin"
	b.moveScope(l)
	b.mu.Lock()
	lingers := l.Parent != "" && l.Scope != ""
	if lingers && l.Ended.IsZero() {
		b.standLocked(l)
	}
	b.mu.Unlock()
	if !lingers {
		b.closeLease(ctx, l, why)
		return
	}
	b.endLease(ctx, l, why)
	b.checkOut(ctx, l, why) // where it had ended before its start was recorded
}

// outerEnded is how a lease ends whose parent has.
const outerEnded = "the lease around it has ended"

// inside returns the leases that began inside l, and inside those.
func (b *Broker) inside(l *lease) (all []*lease) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, other := range b.leases {
		for up := b.leases[other.Parent]; up != nil; up = b.leases[up.Parent] {
			if up == l {
				all = append(all, other)
				break
			}
		}
	}
	return all
}

// linger closes an ended lease once nothing is left in its scope.
func (b *Broker) linger(l *lease) {
	b.moveScope(l) // one that is not there yet would seem empty
	scope := b.scopeOf(l)
	if scope == "" {
		b.closeLease(context.Background(), l, "")
		return
	}
	stop, err := b.cfg.Leases.Processes.WatchEmpty(scope, func() { b.closeLease(context.Background(), l, "") })
	if err != nil {
		b.cfg.Logger.Warn("who is left in a scope cannot be told", "lease", l.ID, "err", err)
		stop = b.cfg.Clock.AfterFunc(time.Second, func() { b.linger(l) })
	}
	b.mu.Lock()
	l.stopWatch = stop
	released := b.leases[l.ID] != l
	b.mu.Unlock()
	if released { // meanwhile, and so stopped the watch before this one
		stop()
	}
	if err := b.saveLeases(context.Background()); err != nil {
		b.cfg.Logger.Warn("leases cannot be saved", "err", err)
	}
}

// over is what is said to those who ask after the end.
func (l *lease) over() *Error {
	return Errorf(CodeDenied, "lease %s of profile %s has ended", l.ID, l.Profiles[0]).WithHint("begin another: gatepass exec %s", shellWord(l.Profiles[0]))
}

// closeLease lets go of all that a lease has. why is for sessions that it
// still has.
func (b *Broker) closeLease(ctx context.Context, l *lease, why string) {
	b.mu.Lock()
	known := b.leases[l.ID] == l
	if known {
		delete(b.leases, l.ID)
		if b.roots[l.Root] == l {
			delete(b.roots, l.Root)
		}
		// gatepass exec that becomes gatepass exec is the root of both. The one
		// that began last is the innermost.
		if b.roots[l.Root] == nil {
			for _, up := range b.leases {
				if in := b.roots[l.Root]; up.Root == l.Root && (in == nil || up.Started.After(in.Started)) {
					b.roots[l.Root] = up
				}
			}
		}
	}
	stop, scope := l.stopWatch, l.Scope
	b.mu.Unlock()
	stop()
	if l.Port != 0 {
		b.cfg.Leases.Endpoints.Close(l.ID)
	}
	b.drop(why, func(s *session) bool { return s.q.lease == l.ID })
	b.checkOut(ctx, l, why)
	if l.Room != "" {
		if err := b.cfg.Leases.Rooms.Close(l.Room); err != nil {
			b.cfg.Logger.Warn("the files of a lease are left behind", "lease", l.ID, "err", err)
		}
	}
	if scope != "" {
		b.cfg.Leases.Processes.Forget(scope)
	}
	if known {
		if err := b.saveLeases(ctx); err != nil {
			b.cfg.Logger.Warn("leases cannot be saved", "err", err)
		}
		close(l.gone)
	}
}

// signalEnd ends a lease's processes, and those of the leases inside it: HUP,
// TERM, KILL, with the grace between.
func (b *Broker) signalEnd(l *lease, why string) {
	b.mu.Lock()
	if l.ending {
		b.mu.Unlock()
		return
	}
	l.ending, l.why = true, why
	b.mu.Unlock()
	if l.Port != 0 {
		b.cfg.Leases.Endpoints.End(l.ID, l.over().Message)
	}
	var next func(signals []string)
	next = func(signals []string) {
		if b.lease(l.ID) != l {
			return
		}
		if err := b.cfg.Leases.Processes.Signal(b.scopeOf(l), l.Root, signals[0]); err != nil {
			b.cfg.Logger.Warn("the processes of a lease cannot be ended", "lease", l.ID, "signal", signals[0], "err", err)
		}
		for _, inner := range b.inside(l) { // also what has begun meanwhile
			b.signalEnd(inner, why)
		}
		if len(signals) > 1 {
			b.cfg.Clock.AfterFunc(b.cfg.Leases.Grace, func() { next(signals[1:]) })
		}
	}
	next([]string{"HUP", "TERM", "KILL"})
}

// An EndRequest says which leases are to end: those named, all, or the one
// that the caller is inside.
type EndRequest struct {
	Leases  []string
	All     bool
	Release bool // lift the walls of leases that have ended already, and leave their processes alone
}

// End ends leases and their processes, and returns the ids of those it ended:
// to a caller outside once nothing is left of them, to one inside at once,
// since it is among what ends.
func (b *Broker) End(ctx context.Context, caller Caller, req EndRequest) ([]string, error) {
	in, err := b.within(caller)
	var all []*lease
	if err == nil && (req.All || req.Release) && in != nil {
		err = in.refuses(caller, "end what is outside of it")
	}
	switch {
	case err != nil:
	case req.All:
		b.mu.Lock()
		for _, l := range b.leases {
			if !req.Release || !l.Ended.IsZero() {
				all = append(all, l)
			}
		}
		b.mu.Unlock()
	default:
		names := req.Leases
		if len(names) == 0 {
			names = []string{""}
		}
		for _, id := range names {
			var l *lease
			if _, l, err = b.named(caller, id); err != nil {
				break
			}
			if req.Release && !b.leaseEnded(l) {
				err = Errorf(CodeUsage, "lease %s has not ended: its wall stands", l.ID).WithHint("end it: gatepass end %s", l.ID)
				break
			}
			all = append(all, l)
		}
	}
	if err != nil {
		return nil, b.refuse(ctx, caller, &query{lease: in.id()}, "", err)
	}
	ended := []string{}
	waited := slices.Clone(all)
	for _, l := range all {
		waited = append(waited, b.inside(l)...)
		ended = append(ended, l.ID)
		if req.Release {
			entry := b.leaseEvent(EventLeaseReleased, l)
			entry.Caller = &caller
			if err := b.cfg.Log.Append(context.WithoutCancel(ctx), entry, true); err != nil {
				return nil, b.remember(caller, l.Profiles[0], err)
			}
			b.closeLease(context.WithoutCancel(ctx), l, "")
			continue
		}
		why := fmt.Sprintf("ended by process %d (%s)", caller.PID, caller.Program)
		if in != nil {
			b.cfg.Clock.AfterFunc(100*time.Millisecond, func() { b.signalEnd(l, why) })
			continue
		}
		b.signalEnd(l, why)
	}
	if in != nil || req.Release {
		return ended, nil
	}
	for _, l := range waited {
		select {
		case <-l.gone:
		case <-ctx.Done():
			return nil, AsError(fmt.Errorf("end lease %s: %w", l.ID, ctx.Err()))
		}
	}
	return ended, nil
}
