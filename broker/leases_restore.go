package broker

import (
	"context"
	"fmt"
)

// restoreLeases finds the leases of an earlier run again: those whose root
// lives are served on, the others get their end.
func (b *Broker) restoreLeases(ctx context.Context) error {
	if b.cfg.Leases == nil {
		return nil
	}
	all, err := b.cfg.Leases.Book.Leases()
	if err != nil {
		return err
	}
	boot := b.cfg.Leases.Processes.Boot()
	leases := make([]*lease, len(all))
	for i, stored := range all { // before the end of one has those that stand written down
		leases[i] = &lease{
			Lease: stored, begun: true, checkout: stored.Recorded, stopWatch: func() {}, gone: make(chan struct{}),
			caller: Caller{UID: b.cfg.Daemon.UID, PID: stored.Root.PID, Program: stored.Program, TTY: stored.TTY, Via: "exec", ID: stored.Root},
		}
		b.stand(leases[i])
	}
	for i, stored := range all {
		l := leases[i]
		switch {
		case stored.Boot != boot: // not l's: an outer one may be ending it
			b.closeLease(ctx, l, "the machine was restarted")
		case !stored.Ended.IsZero():
			b.checkOut(ctx, l, "it ended, and the daemon before that was recorded")
			b.linger(l)
		case stored.Scope != "" && stored.Parent != "" && !b.lives(stored.Parent):
			b.endLease(ctx, l, outerEnded)
		default:
			b.restore(ctx, l)
		}
	}
	return nil
}

// lives reports whether a lease stands and has not ended.
func (b *Broker) lives(id string) bool {
	l := b.lease(id)
	return l != nil && !b.leaseEnded(l)
}

// restore goes on with one lease.
func (b *Broker) restore(ctx context.Context, l *lease) {
	if l.Port != 0 {
		if _, err := b.cfg.Leases.Endpoints.Open(&l.Lease); err != nil {
			b.endLease(ctx, l, fmt.Sprintf("it could not be served on after a restart of the daemon: %v", err))
			return
		}
	}
	if err := b.watch(l); err != nil {
		b.endLease(ctx, l, "it ended while no daemon ran")
	}
}
