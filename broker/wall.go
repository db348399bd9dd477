package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// This file is the wall around a lease: who is inside, and what is refused to
// him. It is asked first in every method of [Broker] that a caller reaches.

// within returns the lease that a caller is inside, the innermost one, or nil
// for a caller outside of all. What tells are the process tree and, where
// there are scopes, the control group; whatever the caller says of itself does
// not. While a lease stands, a caller whose ancestors cannot be seen is
// refused: it may be inside.
func (b *Broker) within(caller Caller) (*lease, error) {
	if caller.PID == b.cfg.Daemon.PID && caller.ID == (ProcessID{}) {
		return nil, nil // we ourselves; see self
	}
	b.mu.Lock()
	stand, scoped := len(b.leases) > 0, false
	l := b.roots[caller.ID]
	for i := 0; l == nil && i < len(caller.Ancestors); i++ {
		l = b.roots[caller.Ancestors[i].ID]
	}
	if l == nil {
		for _, other := range b.leases {
			scoped = scoped || other.Scope != ""
		}
	}
	b.mu.Unlock()
	switch {
	case !stand || l != nil:
		return l, nil
	case !scoped || caller.PID == 0:
		return nil, unseeable(caller)
	}
	scope, err := b.cfg.Leases.Processes.ScopeOf(caller.ID)
	if err != nil {
		return nil, Errorf(CodeDenied, "while a lease stands, gatepass serves only who it can see, and where process %d belongs cannot be told: %w", caller.PID, err)
	}
	if scope != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, l := range b.leases {
			if l.Scope == scope {
				return l, nil
			}
		}
	}
	return nil, unseeable(caller)
}

// unseeable refuses a caller whose ancestors are not known.
func unseeable(caller Caller) error {
	if caller.Resolved {
		return nil
	}
	return Errorf(CodeDenied, "while a lease stands, gatepass serves only who it can see, and the ancestors of process %d cannot be", caller.PID).
		WithHint("ask from outside the container or sandbox; gatepass status shows the leases")
}

// Outside refuses a caller that is inside a lease, or may be, what is done
// outside alone: what says what that is, after "may not". The refusal is
// recorded.
func (b *Broker) Outside(ctx context.Context, caller Caller, what string) error {
	l, err := b.within(caller)
	if err == nil && l != nil {
		err = l.refuses(caller, what)
	}
	if err == nil {
		return nil
	}
	return b.refuse(ctx, caller, &query{lease: l.id()}, "", err)
}

// admit fits a request of a caller inside l to the lease: its own profiles
// and no others, from the files of its start.
func (b *Broker) admit(l *lease, caller Caller, req *Request) error {
	if req.Profile == "" {
		req.Profile = l.Profiles[0]
	}
	switch {
	case b.leaseEnded(l):
		return Errorf(CodeDenied, "process %d (%s) is left over of lease %s (%s), which has ended", caller.PID, caller.Program, l.ID, l.Profiles[0]).
			WithHint("end it, or from outside: gatepass end --release %s", l.ID)
	case !slices.Contains(l.Profiles, req.Profile):
		return l.refuses(caller, fmt.Sprintf("get profile %q", req.Profile))
	}
	req.Files, req.lease, req.inside = l.Files, l, l
	if req.Reason == "" {
		req.Reason = l.Reason
	}
	if req.Duration == 0 {
		req.Duration = l.Duration
	}
	return nil
}

// takeIn puts a process that we have started on behalf of somebody inside l
// inside as well, before it does anything: it may be as hostile as who asked.
// The caller owes a letGo.
func (b *Broker) takeIn(ctx context.Context, l *lease, pid int) (ProcessID, error) {
	id, err := b.cfg.Leases.Processes.Join(ctx, b.scopeOf(l), pid)
	if err != nil {
		return ProcessID{}, Errorf(CodeDenied, "what is run for a process inside lease %s must be inside too, and cannot be put there: %w", l.ID, err).
			WithHint("from a terminal outside: gatepass renew %s", l.ID)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.leases[l.ID] != l || !l.Ended.IsZero() {
		return ProcessID{}, l.over()
	}
	b.roots[id] = l
	return id, nil
}

// letGo forgets a process that takeIn has put inside, and that has ended.
func (b *Broker) letGo(id ProcessID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.roots, id)
}

// isEnding reports whether l has ended, or signals that end it are on their way.
func (b *Broker) isEnding(l *lease) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return l.ending || !l.Ended.IsZero()
}

func (b *Broker) leaseEnded(l *lease) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !l.Ended.IsZero()
}

// refuses says that l's wall keeps a caller from doing something, and how to
// leave.
func (l *lease) refuses(caller Caller, what string) *Error {
	return Errorf(CodeDenied, "process %d (%s) is inside lease %s, which is for %s alone, and may not %s",
		caller.PID, caller.Program, l.ID, strings.Join(l.Profiles, ", "), what).
		WithHint("leave it first (exit its shell, or gatepass end), or ask from a terminal outside")
}

// id is a lease's id, "" for none.
func (l *lease) id() string {
	if l == nil {
		return ""
	}
	return l.ID
}
