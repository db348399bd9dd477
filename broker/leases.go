package broker

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Leases is how leases are kept and served. All ports are required.
type Leases struct {
	Processes Processes
	Rooms     Rooms
	Endpoints Endpoints
	Book      LeaseBook
	Notifier  Notifier

	Session  string        // "own" or "shared": whether each lease has sessions of its own
	Serve    string        // one of [ServeModes], for those that name none
	Renew    string        // "auto": while the process lives; "ask": by gatepass renew; "never"
	AtExpiry string        // "warn", or "end": processes are ended with the last session
	Grace    time.Duration // between the signals that end them
}

// A lease is a [Lease] that stands. Its fields are guarded by Broker.mu but
// for those that say otherwise.
type lease struct {
	Lease
	caller    Caller // who asked for it, and is its root; never changed
	key       string // of the first profile's session in the cache, "" until it was asked for
	begun     bool   // lease.started is recorded
	checkout  bool   // so is lease.ended, or about to be
	needsMFA  bool   // its session could not be renewed ahead without a code
	why       string // who is ending it, for lease.ended
	how       string // it has ended, for the same; "" until then
	stopWatch func()
	enclosed  func() string // waits for the scope that its root gets, and tells it; set before the lease stands
	ending    bool          // signals are on their way
	gone      chan struct{} // closed when nothing is left of it

	served     atomic.Int64
	lastServed atomic.Int64 // Unix nanoseconds; 0 for never
	meant      atomic.Pointer[meaning]
}

// A meaning is what a lease's first profile meant when its endpoint was asked.
type meaning struct {
	at    time.Duration // before it was looked at, by the clock's Boot
	query query
}

// noteSession notes which session is the one of the lease's first profile, and
// reports whether the lease has begun.
func (b *Broker) noteSession(l *lease, q *query) (begun bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q.profile == l.Profiles[0] {
		l.key = q.cacheKey
	}
	return l.begun
}

// own reports whether the lease's sessions are its own: a lease whose sessions
// are not renewed must not get a new one because others ask.
func (l *lease) own(session string) bool { return session != "shared" || l.Renew != "auto" }

func newLeaseID() string { return "l-" + strings.TrimPrefix(newSessionID(), "s-") }

// A LeaseRequest asks for a lease whose root is the process that asks.
type LeaseRequest struct {
	Request
	With    []string // further profiles
	Serve   string   // one of [ServeModes], or "" for the profile's or the configuration's
	Program string   // absolute path of the gatepass that the lease's config runs
	Command string   // the program that the process is about to become, to be shown
}

// A LeaseGrant is a lease that has begun.
type LeaseGrant struct {
	Lease
	Region      string // what region variables should say; "" for none
	Expires     time.Time
	Renewable   bool        // served beyond Expires
	Credentials Credentials // where the lease serves "env"
}

// Begin opens a lease. Its profiles' sessions are there, and lease.started is
// on disk, when it returns; it ends with the process that asked for it.
// Inside another lease only that one's profiles can be had.
func (b *Broker) Begin(ctx context.Context, caller Caller, req LeaseRequest) (LeaseGrant, error) {
	q := &query{profile: req.Profile}
	parent, err := b.within(caller)
	if err == nil && parent != nil {
		q.lease = parent.ID
		err = b.admit(parent, caller, &req.Request)
		for _, name := range req.With {
			with := Request{Profile: name}
			err = cmp.Or(err, b.admit(parent, caller, &with))
		}
	}
	var grant LeaseGrant
	if err == nil {
		grant, err = b.begin(ctx, caller, parent, q, req)
	}
	if ask, ok := asAsk(err); ok { // no answer yet
		return LeaseGrant{}, ask
	}
	if err != nil {
		return LeaseGrant{}, b.refuse(ctx, caller, q, req.Reason, err)
	}
	return grant, nil
}

func (b *Broker) begin(ctx context.Context, caller Caller, parent *lease, q *query, req LeaseRequest) (_ LeaseGrant, err error) {
	l, err := b.newLease(caller, parent, req)
	if err != nil {
		return LeaseGrant{}, err
	}
	// What was made so far is unmade if the rest fails.
	defer func() {
		if _, ok := asAsk(err); ok {
			b.awaitLease(l)
			return
		}
		b.begunLease(l.ID)
		if err != nil {
			b.unmake(context.WithoutCancel(ctx), l)
		}
	}()
	var first *session
	var region string
	for i, name := range l.Profiles {
		one := req.Request
		one.Profile, one.lease = name, l
		of := &query{}
		s, _, err := b.resolveSession(ctx, caller, of, one)
		if i == 0 || err != nil {
			*q = *of
		}
		if err != nil {
			return LeaseGrant{}, err
		}
		if i == 0 {
			first, region = s, cmp.Or(req.Region, of.chain.Region)
			l.Serve = cmp.Or(req.Serve, of.chain.Serve, b.cfg.Leases.Serve)
			if l.Serve == "env" {
				l.Renew = "never" // nothing in an environment can be
			}
		}
	}
	l.enclosed = b.enclose(ctx, l)
	if l.Scope = b.cfg.Leases.Processes.ScopeFor(l.ID); l.Scope == "" {
		l.Scope = l.enclosed()
	}
	if l.Room, err = b.cfg.Leases.Rooms.Open(&l.Lease, req.Program); err != nil {
		return LeaseGrant{}, err
	}
	if l.Serve != "env" {
		if l.Port, err = b.cfg.Leases.Endpoints.Open(&l.Lease); err != nil {
			return LeaseGrant{}, err
		}
	}
	b.stand(l) // before the command runs
	if parent != nil && b.isEnding(parent) {
		return LeaseGrant{}, parent.over() // from here on it ends l
	}
	if err := b.saveLeases(ctx); err != nil {
		return LeaseGrant{}, err
	}
	started := b.event(EventLeaseStarted, OutcomeOK, caller, q)
	started.Session, started.Reason = first.eventSession(), req.Reason
	if err := b.cfg.Log.Append(context.WithoutCancel(ctx), started, true); err != nil {
		return LeaseGrant{}, err
	}
	b.mu.Lock()
	l.begun = true
	b.mu.Unlock()
	if b.moveScope(l) {
		if err := b.saveLeases(ctx); err != nil {
			return LeaseGrant{}, err
		}
	}
	if err := b.watch(l); err != nil {
		return LeaseGrant{}, err
	}
	b.mu.Lock()
	begun, ending := l.Lease, l.ending || !l.Ended.IsZero()
	b.mu.Unlock()
	if ending { // a signal may have come before the root was in its scope, or the lease around it has ended
		return LeaseGrant{}, l.over()
	}
	grant := LeaseGrant{Lease: begun, Region: region, Expires: first.creds.Expires, Renewable: l.Renew != "never"}
	if l.Serve == "env" {
		served := b.event(EventCredentialsServed, OutcomeOK, caller, q)
		served.Session, served.Reason = first.eventSession(), req.Reason
		if err := b.cfg.Log.Append(context.WithoutCancel(ctx), served, true); err != nil {
			return LeaseGrant{}, err
		}
		if !b.stands(first, l) {
			return LeaseGrant{}, errEnded(q.profile)
		}
		b.served(first, l)
		grant.Credentials = first.creds
	}
	return grant, nil
}

// newLease returns the lease that req asks for, of which nothing is made yet.
func (b *Broker) newLease(caller Caller, parent *lease, req LeaseRequest) (*lease, error) {
	if b.cfg.Leases == nil {
		return nil, Errorf(CodeInternal, "this daemon keeps no leases")
	}
	if parent != nil && parent.Renew != "auto" { // it would outlast its parent
		return nil, Errorf(CodeDenied, "lease %s is not renewed by itself, so no lease begins inside it", parent.ID).
			WithHint("leave it first")
	}
	if parent != nil && b.isEnding(parent) {
		return nil, parent.over()
	}
	if caller.PID == 0 || caller.ID.PID != caller.PID || !caller.Resolved {
		return nil, Errorf(CodeDenied, "a lease needs a process that can be watched, and the one that asks cannot be seen").
			WithHint("run gatepass exec outside the container or sandbox")
	}
	if req.Serve != "" && !slices.Contains(ServeModes, req.Serve) {
		return nil, Errorf(CodeUsage, "a lease serves by %s, not by %q", strings.Join(ServeModes, ", "), req.Serve)
	}
	if !filepath.IsAbs(req.Program) {
		return nil, Errorf(CodeUsage, "the path of gatepass, %q, is not absolute", req.Program)
	}
	names := append([]string{req.Profile}, req.With...)
	for i, name := range names {
		if name == "" {
			return nil, Errorf(CodeUsage, "no profile is named")
		}
		if slices.Contains(names[:i], name) {
			return nil, Errorf(CodeUsage, "profile %q is named twice", name)
		}
	}
	l := &lease{
		gone:      make(chan struct{}),
		stopWatch: func() {},
		caller:    caller,
		Lease: Lease{
			Parent: parent.id(), Profiles: names, Files: b.files(req.Files), Region: req.Region,
			Reason: req.Reason, Duration: req.Duration, Renew: b.cfg.Leases.Renew, AtExpiry: b.cfg.Leases.AtExpiry,
			Root: caller.ID, Boot: b.cfg.Leases.Processes.Boot(), Program: caller.Program, TTY: caller.TTY, Command: req.Command,
			Started: b.cfg.Clock.Now().UTC(),
		},
	}
	b.beginLease(l)
	return l, nil
}

// stand puts up the wall around a lease.
func (b *Broker) stand(l *lease) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.standLocked(l)
}

func (b *Broker) standLocked(l *lease) { b.leases[l.ID], b.roots[l.Root] = l, l }

// watch has the lease end with its root. One that has ended already is watched
// in another way by now.
func (b *Broker) watch(l *lease) error {
	stop, err := b.cfg.Leases.Processes.Watch(l.Root, func(exit Exit) { b.rootEnded(l, exit) })
	if err != nil {
		return fmt.Errorf("watch process %d: %w", l.Root.PID, err)
	}
	b.mu.Lock()
	over := !l.Ended.IsZero()
	if !over {
		l.stopWatch = stop
	}
	b.mu.Unlock()
	if over {
		stop()
	}
	return nil
}

// leaseEvent returns an entry about a lease, whose caller is its root.
func (b *Broker) leaseEvent(kind EventKind, l *lease) Event {
	caller := l.caller
	return Event{Kind: kind, Outcome: OutcomeOK, Profile: l.Profiles[0], Lease: l.ID, Caller: &caller}
}

// saveLeases writes down the leases that stand.
func (b *Broker) saveLeases(ctx context.Context) error {
	select {
	case b.leaseTurn <- struct{}{}:
		defer func() { <-b.leaseTurn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	all := make([]Lease, 0, len(b.leases))
	for _, l := range b.leases {
		all = append(all, l.Lease)
	}
	b.mu.Unlock()
	slices.SortFunc(all, func(x, y Lease) int { return cmp.Or(x.Started.Compare(y.Started), strings.Compare(x.ID, y.ID)) })
	return b.cfg.Leases.Book.SaveLeases(all)
}

// served counts a hand-out.
func (b *Broker) served(s *session, l *lease) {
	now := b.cfg.Clock.Now()
	s.served(now)
	for ; l != nil; l = b.lease(l.Parent) {
		l.served.Add(1)
		l.lastServed.Store(now.UnixNano())
	}
}

// lease returns the lease that has an id, nil for none.
func (b *Broker) lease(id string) *lease {
	if id == "" {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leases[id]
}

// LeaseCredentials is the gate for those who come to a lease's own endpoint: it
// serves the first profile's session, and never asks anybody. Whoever shows the
// container endpoint's token may be served; an IMDS endpoint gives its tokens
// to all who ask, so that a caller who is seen there must be inside. Whoever has
// AWS_PROFILE set to another profile is refused: there are SDKs that come here
// when that one is refused, and would act as the first without a word.
func (b *Broker) LeaseCredentials(ctx context.Context, id string, caller Caller) (Grant, error) {
	l := b.lease(id)
	if l == nil {
		return Grant{}, Errorf(CodeDenied, "the lease %s is not known", id)
	}
	req := Request{Region: l.Region, Reachable: Reachable{Known: true, Mode: "none"}, endpoint: true}
	if caller.Via == "imds" && caller.Resolved && !b.isWithin(caller, l) {
		return Grant{}, b.refuse(ctx, caller, &query{profile: l.Profiles[0], lease: l.ID}, "",
			Errorf(CodeDenied, "process %d (%s) is not inside lease %s, whose endpoint this is", caller.PID, caller.Program, l.ID))
	}
	if p := caller.Profile; p != "" && p != "default" && p != l.Profiles[0] {
		return Grant{}, b.refuse(ctx, caller, &query{profile: p, lease: l.ID}, "",
			Errorf(CodeDenied, "process %d (%s) has AWS_PROFILE=%s, and the endpoint of lease %s is for %s", caller.PID, caller.Program, shellWord(p), l.ID, l.Profiles[0]).
				WithHint("unset AWS_PROFILE, or from outside: gatepass exec %s", shellWord(p)))
	}
	return b.serve(ctx, caller, l, req)
}

// LeaseRefused records that somebody was refused at a lease's endpoint before
// he came to the gate.
func (b *Broker) LeaseRefused(ctx context.Context, id string, caller Caller, why error) {
	q := &query{lease: id}
	if l := b.lease(id); l != nil {
		q.profile = l.Profiles[0]
	}
	b.refuse(ctx, caller, q, "", why)
}

// isWithin reports whether a caller is inside l, or inside a lease below it.
func (b *Broker) isWithin(caller Caller, l *lease) bool {
	in, err := b.within(caller)
	for err == nil && in != nil && in != l {
		in = b.lease(in.Parent)
	}
	return err == nil && in == l
}

// named returns the lease that a caller means by id: the one that it is inside
// for "", from inside that one or one below it alone, from outside any. in is
// the one that the caller is inside.
func (b *Broker) named(caller Caller, id string) (in, l *lease, err error) {
	in, err = b.within(caller)
	if err != nil {
		return nil, nil, err
	}
	if id == "" {
		if in == nil {
			return nil, nil, Errorf(CodeUsage, "which lease is not said, and process %d is inside none", caller.PID).
				WithHint("gatepass status shows the leases")
		}
		return in, in, nil
	}
	l = b.lease(id)
	for up := l; in != nil && up != in; up = b.lease(up.Parent) {
		if up == nil {
			return nil, nil, in.refuses(caller, fmt.Sprintf("touch lease %q", id))
		}
	}
	if l == nil {
		return nil, nil, Errorf(CodeNotFound, "there is no lease %q", id).WithHint("gatepass status shows the leases")
	}
	return in, l, nil
}

// leaseStatus describes a lease.
func (b *Broker) leaseStatus(l *lease) LeaseStatus {
	st := LeaseStatus{
		ID: l.ID, Parent: l.Parent, Profiles: l.Profiles, Serve: l.Serve, State: "live",
		PID: l.Root.PID, Command: l.Command, TTY: l.TTY, Reason: l.Reason, Started: l.Started,
		Renewable: l.Renew != "never", Served: l.served.Load(),
	}
	if at := l.lastServed.Load(); at != 0 {
		st.LastServed = time.Unix(0, at)
	}
	b.mu.Lock()
	ended, scope := !l.Ended.IsZero(), l.Scope
	if s := b.sessions[l.key]; s != nil && s.left(b.cfg.Clock) > 0 {
		st.Expires = s.creds.Expires
	}
	switch {
	case ended:
		st.State = "lingering"
	case l.needsMFA:
		st.State = "needs-mfa"
	case st.Expires.IsZero() && l.Renew != "auto":
		st.State = "expired"
	}
	b.mu.Unlock()
	if ended {
		st.Processes, _ = b.cfg.Leases.Processes.Inside(scope, l.Root)
	}
	return st
}

// OwnLease describes the lease that a caller is inside, and reports false for
// one that is outside of all or cannot be seen. A shell asks it before each of
// its prompts, so it asks nobody in turn and leaves no entry.
func (b *Broker) OwnLease(caller Caller) (LeaseStatus, bool) {
	l, err := b.within(caller)
	if err != nil || l == nil {
		return LeaseStatus{}, false
	}
	return b.leaseStatus(l), true
}

// leaseStatuses describes the leases that stand, the oldest first.
func (b *Broker) leaseStatuses() []LeaseStatus {
	b.mu.Lock()
	all := slices.Collect(maps.Values(b.leases))
	b.mu.Unlock()
	slices.SortFunc(all, func(x, y *lease) int { return cmp.Or(x.Started.Compare(y.Started), strings.Compare(x.ID, y.ID)) })
	list := make([]LeaseStatus, len(all))
	for i, l := range all {
		list[i] = b.leaseStatus(l)
	}
	return list
}
