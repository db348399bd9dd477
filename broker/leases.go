package broker

import (
	"cmp"
	"context"
	"errors"
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
	needsMFA  bool   // its session could not be renewed ahead without a code
	why       string // who is ending it, for lease.ended
	stopWatch func()
	ending    bool          // signals are on their way
	gone      chan struct{} // closed when nothing is left of it

	served     atomic.Int64
	lastServed atomic.Int64 // Unix nanoseconds; 0 for never
}

// noteSession notes which session is the one of the lease's first profile.
func (b *Broker) noteSession(l *lease, q *query) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q.profile == l.Profiles[0] {
		l.key = q.cacheKey
	}
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
	if ask := (*AskError)(nil); errors.As(err, &ask) { // no answer yet
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
		if err != nil {
			b.closeLease(context.WithoutCancel(ctx), l, "the lease could not begin")
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
	if l.Scope, err = b.cfg.Leases.Processes.Enclose(ctx, l.ID, l.Root); err != nil {
		b.cfg.Logger.Warn("a lease has no scope of its own; what outlives its root is outside", "lease", l.ID, "err", err)
		l.Scope = ""
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
	if err := b.watch(l); err != nil {
		return LeaseGrant{}, err
	}
	b.mu.Lock()
	begun := l.Lease
	b.mu.Unlock()
	grant := LeaseGrant{Lease: begun, Region: region, Expires: first.creds.Expires, Renewable: l.Renew != "never"}
	if l.Serve == "env" {
		served := b.event(EventCredentialsServed, OutcomeOK, caller, q)
		served.Session, served.Reason = first.eventSession(), req.Reason
		if err := b.cfg.Log.Append(context.WithoutCancel(ctx), served, true); err != nil {
			return LeaseGrant{}, err
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
	return &lease{
		gone:      make(chan struct{}),
		stopWatch: func() {},
		caller:    caller,
		Lease: Lease{
			ID: newLeaseID(), Parent: parent.id(), Profiles: names, Files: b.files(req.Files), Region: req.Region,
			Reason: req.Reason, Duration: req.Duration, Renew: b.cfg.Leases.Renew, AtExpiry: b.cfg.Leases.AtExpiry,
			Root: caller.ID, Boot: b.cfg.Leases.Processes.Boot(), Program: caller.Program, TTY: caller.TTY, Command: req.Command,
			Started: b.cfg.Clock.Now().UTC(),
		},
	}, nil
}

// stand puts up the wall around a lease.
func (b *Broker) stand(l *lease) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leases[l.ID], b.roots[l.Root] = l, l
	if l.Scope != "" {
		b.scoped++
	}
}

// watch has the lease end with its root.
func (b *Broker) watch(l *lease) error {
	stop, err := b.cfg.Leases.Processes.Watch(l.Root, func(exit Exit) { b.rootEnded(l, exit) })
	if err != nil {
		return fmt.Errorf("watch process %d: %w", l.Root.PID, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l.stopWatch = stop
	return nil
}

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
	stop := l.stopWatch
	b.mu.Unlock()
	stop()
	if l.Port != 0 {
		b.cfg.Leases.Endpoints.End(l.ID, l.over().Message)
	}
	b.drop("lease ended", func(s *session) bool { return s.q.lease == l.ID })
	ended := b.leaseEvent(EventLeaseEnded, l)
	ended.Reason = fmt.Sprintf("%s, after %s, %d hand-outs", how, l.Ended.Sub(l.Started).Round(time.Second), l.served.Load())
	if err := b.cfg.Log.Append(ctx, ended, true); err != nil {
		b.cfg.Logger.Error("end of lease not recorded", "lease", l.ID, "err", err)
	}
	b.linger(l)
}

// linger closes an ended lease once nothing is left in its scope: it looks
// again whenever one of those that are left has ended.
func (b *Broker) linger(l *lease) {
	if l.Scope == "" {
		b.closeLease(context.Background(), l, "")
		return
	}
	left, err := b.cfg.Leases.Processes.Inside(l.Scope, l.Root)
	if err == nil && len(left) == 0 {
		b.closeLease(context.Background(), l, "")
		return
	}
	if err == nil {
		_, err = b.cfg.Leases.Processes.Watch(left[0].ID, func(Exit) { b.linger(l) })
	}
	if err != nil {
		b.cfg.Logger.Warn("who is left in a scope cannot be told", "lease", l.ID, "err", err)
		b.cfg.Clock.AfterFunc(time.Second, func() { b.linger(l) })
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
		// gatepass exec that becomes gatepass exec is the root of both.
		if up := b.leases[l.Parent]; up != nil && up.Root == l.Root && b.roots[l.Root] == nil {
			b.roots[l.Root] = up
		}
		if l.Scope != "" {
			b.scoped--
		}
	}
	begun, stop := l.begun && l.Ended.IsZero(), l.stopWatch
	b.mu.Unlock()
	stop()
	if l.Port != 0 {
		b.cfg.Leases.Endpoints.Close(l.ID)
	}
	b.drop(why, func(s *session) bool { return s.q.lease == l.ID })
	if begun { // nothing is started that has no end
		ended := b.leaseEvent(EventLeaseEnded, l)
		ended.Reason = why
		if err := b.cfg.Log.Append(ctx, ended, true); err != nil {
			b.cfg.Logger.Error("end of lease not recorded", "lease", l.ID, "err", err)
		}
	}
	if l.Room != "" {
		if err := b.cfg.Leases.Rooms.Close(l.Room); err != nil {
			b.cfg.Logger.Warn("the files of a lease are left behind", "lease", l.ID, "err", err)
		}
	}
	if l.Scope != "" {
		b.cfg.Leases.Processes.Forget(l.Scope)
	}
	if known {
		if err := b.saveLeases(ctx); err != nil {
			b.cfg.Logger.Warn("leases cannot be saved", "err", err)
		}
		close(l.gone)
	}
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
// to all who ask, so that a caller who is seen there must be inside.
func (b *Broker) LeaseCredentials(ctx context.Context, id string, caller Caller) (Grant, error) {
	l := b.lease(id)
	if l == nil {
		return Grant{}, Errorf(CodeDenied, "the lease %s is not known", id)
	}
	req := Request{Region: l.Region, Reachable: Reachable{Known: true, Mode: "none"}}
	if caller.Via == "imds" && caller.Resolved && !b.isWithin(caller, l) {
		return Grant{}, b.refuse(ctx, caller, &query{profile: l.Profiles[0], lease: l.ID}, "",
			Errorf(CodeDenied, "process %d (%s) is not inside lease %s, whose endpoint this is", caller.PID, caller.Program, l.ID))
	}
	return b.serve(ctx, caller, l, req)
}

// isWithin reports whether a caller is inside l, or inside a lease below it.
func (b *Broker) isWithin(caller Caller, l *lease) bool {
	in, err := b.within(caller)
	for err == nil && in != nil && in != l {
		in = b.lease(in.Parent)
	}
	return err == nil && in == l
}

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
func (b *Broker) leaseExpired(id string) {
	if l := b.lease(id); l != nil && l.AtExpiry == "end" {
		b.signalEnd(l, "its session expired")
	}
}

// warnAhead is how long before the end of a lease's session its user is told:
// longer where renewing it takes a code, and never more than a third of it.
func warnAhead(q *query) time.Duration {
	ahead := 5 * time.Minute
	if q.serial != "" {
		ahead = 15 * time.Minute
	}
	return min(ahead, q.duration/3)
}

// warn tells the user of a lease that its session is about to expire. One that
// is renewed ahead never comes so far.
func (b *Broker) warn(s *session) {
	l := b.lease(s.q.lease)
	if l == nil || b.cached(s.q.cacheKey) != s || s.q.profile != l.Profiles[0] || b.leaseEnded(l) {
		return
	}
	text := fmt.Sprintf("lease %s of profile %s expires in %.0f min", l.ID, l.Profiles[0], s.left(b.cfg.Clock).Minutes())
	switch {
	case l.Renew != "never":
		text += "; to go on: gatepass renew " + l.ID
	case l.AtExpiry == "end":
		text += " and is not renewed"
	}
	if l.AtExpiry == "end" {
		text += "; then its processes are ended"
	}
	b.cfg.Leases.Notifier.Notify(context.Background(), text, l.TTY)
}

// signalEnd ends a lease's processes: HUP, TERM, KILL, with the grace between.
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
		if err := b.cfg.Leases.Processes.Signal(l.Scope, l.Root, signals[0]); err != nil {
			b.cfg.Logger.Warn("the processes of a lease cannot be ended", "lease", l.ID, "signal", signals[0], "err", err)
		}
		if len(signals) > 1 {
			b.cfg.Clock.AfterFunc(b.cfg.Leases.Grace, func() { next(signals[1:]) })
		}
	}
	next([]string{"HUP", "TERM", "KILL"})
}

// Renew gives a lease new sessions, asking for an MFA code where one is
// needed. "" is the lease that the caller is inside; no other can be renewed
// from inside.
func (b *Broker) Renew(ctx context.Context, caller Caller, id string, req Request) (LeaseStatus, error) {
	q := &query{lease: id}
	l, err := b.named(caller, id)
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
		one.Profile, one.lease, one.Files, one.Duration = name, l, l.Files, l.Duration
		of := &query{}
		s, _, err := b.resolveSession(ctx, caller, of, one)
		if ask := (*AskError)(nil); errors.As(err, &ask) {
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

// named returns the lease that a caller means by id: the one that it is inside
// for "", from inside that one or one below it alone, from outside any.
func (b *Broker) named(caller Caller, id string) (*lease, error) {
	in, err := b.within(caller)
	if err != nil {
		return nil, err
	}
	if id == "" {
		if in == nil {
			return nil, Errorf(CodeUsage, "which lease is not said, and process %d is inside none", caller.PID).
				WithHint("gatepass status shows the leases")
		}
		return in, nil
	}
	l := b.lease(id)
	for up := l; in != nil && up != in; up = b.lease(up.Parent) {
		if up == nil {
			return nil, in.refuses(caller, fmt.Sprintf("touch lease %q", id))
		}
	}
	if l == nil {
		return nil, Errorf(CodeNotFound, "there is no lease %q", id).WithHint("gatepass status shows the leases")
	}
	return l, nil
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
			if l, err = b.named(caller, id); err != nil {
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
	for _, l := range all {
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
	for _, l := range all {
		select {
		case <-l.gone:
		case <-ctx.Done():
			return nil, AsError(fmt.Errorf("end lease %s: %w", l.ID, ctx.Err()))
		}
	}
	return ended, nil
}

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
	for _, stored := range all {
		l := &lease{
			Lease: stored, begun: true, stopWatch: func() {}, gone: make(chan struct{}),
			caller: Caller{UID: b.cfg.Daemon.UID, PID: stored.Root.PID, Program: stored.Program, TTY: stored.TTY, Via: "exec", ID: stored.Root},
		}
		b.stand(l)
		switch {
		case l.Boot != boot:
			b.closeLease(ctx, l, "the machine was restarted")
		case !l.Ended.IsZero():
			b.linger(l)
		default:
			b.restore(ctx, l)
		}
	}
	return nil
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
	ended := !l.Ended.IsZero()
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
		st.Processes, _ = b.cfg.Leases.Processes.Inside(l.Scope, l.Root)
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
