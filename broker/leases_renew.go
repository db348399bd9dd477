package broker

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// held returns the session that a lease still has where no other is to be had.
func (b *Broker) held(q *query, l *lease) (*session, error) {
	if s := b.cached(q.cacheKey); s != nil && s.left(b.cfg.Clock) > 0 {
		return s, nil
	}
	e := Errorf(CodeDenied, "the sessions of lease %s (%s) have expired", l.ID, strings.Join(l.Profiles, ", "))
	if l.Renew == "ask" {
		return nil, e.WithHint("renew it: gatepass renew")
	}
	return nil, e.WithHint("leave it, and begin another: gatepass exec %s", shellWord(l.Profiles[0]))
}

// onlyHeld reports whether the lease is served from the sessions of its
// beginning, and of gatepass renew, alone.
func (b *Broker) onlyHeld(l *lease) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return l.begun && l.Renew != "auto"
}

// leaseExpired is called when a session of a lease has expired and no other
// has taken its place: then processes are ended where the rule says so.
func (b *Broker) leaseExpired(s *session) {
	if l := b.lease(s.q.lease); l != nil && l.AtExpiry == "end" && !b.outlived(s) {
		b.signalEnd(l, "its session expired")
	}
}

// outlived reports whether s's lease has a session of the same profile that
// lasts longer: what the profile means has changed, and the lease was renewed.
func (b *Broker) outlived(s *session) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := max(0, s.left(b.cfg.Clock))
	for _, other := range b.sessions {
		if other.q.lease == s.q.lease && other.q.profile == s.q.profile && other.left(b.cfg.Clock) > left {
			return true
		}
	}
	return false
}

// warnAhead is how long before the end of a lease's session its user is told:
// longer where renewing it takes a code, and never more than a third of it.
func warnAhead(s *session) time.Duration {
	ahead := 5 * time.Minute
	if s.q.serial != "" {
		ahead = 15 * time.Minute
	}
	return min(ahead, s.life/3)
}

// warn tells the user of a lease that its session is about to expire. One that
// is renewed ahead never comes so far.
func (b *Broker) warn(s *session) {
	l := b.lease(s.q.lease)
	if l == nil || b.cached(s.q.cacheKey) != s || s.q.profile != l.Profiles[0] || b.leaseEnded(l) || b.outlived(s) {
		return
	}
	left := s.left(b.cfg.Clock)
	in := fmt.Sprintf("%.0f min", left.Minutes())
	if left < time.Minute {
		in = fmt.Sprintf("%.0f s", left.Seconds())
	}
	text := fmt.Sprintf("lease %s of profile %s expires in %s", l.ID, l.Profiles[0], in)
	if l.AtExpiry == "end" {
		text += ", and its processes are ended"
	}
	if l.Renew != "never" {
		text += "; to go on: gatepass renew " + l.ID
	}
	b.cfg.Leases.Notifier.Notify(context.Background(), text, l.TTY)
}

// Renew gives a lease new sessions, asking for an MFA code where one is
// needed. "" is the lease that the caller is inside; no other can be renewed
// from inside.
func (b *Broker) Renew(ctx context.Context, caller Caller, id string, req Request) (LeaseStatus, error) {
	q := &query{lease: id}
	in, l, err := b.named(caller, id)
	if err == nil && b.leaseEnded(l) {
		err = l.over()
	}
	if err == nil && l.Renew == "never" {
		err = Errorf(CodeDenied, "lease %s is not to be renewed", l.ID).WithHint("begin another: gatepass exec %s", shellWord(l.Profiles[0]))
	}
	if err != nil {
		return LeaseStatus{}, b.refuse(ctx, caller, q, req.Reason, err)
	}
	caller.Via = "renew"
	for i, name := range l.Profiles {
		one := req
		one.Profile, one.lease, one.inside, one.Files, one.Duration, one.renew = name, l, in, l.Files, l.Duration, true
		of := &query{}
		s, _, err := b.resolveSession(ctx, caller, of, one)
		if ask, ok := asAsk(err); ok {
			return LeaseStatus{}, ask
		}
		if err != nil {
			return LeaseStatus{}, b.refuse(ctx, caller, of, req.Reason, err)
		}
		if i == 0 {
			renewed := b.event(EventLeaseRenewed, OutcomeOK, caller, of)
			renewed.Session, renewed.Reason = s.eventSession(), req.Reason
			if err := b.cfg.Log.Append(context.WithoutCancel(ctx), renewed, true); err != nil {
				return LeaseStatus{}, b.remember(caller, name, err)
			}
		}
	}
	b.mu.Lock()
	l.needsMFA = false
	b.mu.Unlock()
	return b.leaseStatus(l), nil
}
