// Package broker is the domain of gatepass: who asks, for which profile, with
// which key, and what leaves. [Broker] holds the decision path; the packages
// below it do the work at the edges (the socket, the keychain, STS, the audit
// log) and never import each other.
package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gatepass/profiles"
)

// Config is what a [Broker] works with. Every field but IAM, AWSVault, Notes,
// Unlocker, Trusted, MFA and Leases is required.
type Config struct {
	Keys     KeyStore
	STS      STS
	IAM      IAM           // nil: keys cannot be rotated, and nothing is known of their users
	AWSVault AWSVaultStore // nil: aws-vault's keys cannot be moved
	Notes    Notebook      // nil: what is noted of keys lasts as long as the Broker
	Unlocker Unlocker      // of Keys; nil: they need no passphrase of the daemon's
	Log      Log
	Profiles Resolver
	Clock    Clock
	Logger   *slog.Logger

	// Files are the user's own AWS files, for callers that name none.
	Files profiles.Files
	// Trusted lists further config files whose endpoint_url counts.
	Trusted []string
	// MFA is how codes are asked for. The zero value asks on clients'
	// terminals and keeps a proof for 8 h, in memory.
	MFA MFA
	// Leases is how leases are kept; nil: there are none.
	Leases *Leases
	// Daemon is shown by Status and stands in the log.
	Daemon DaemonStatus
}

// A Broker is the guard at the gate. Its methods may be called concurrently.
//
// mu guards sessions, baseSessions, removals, leases, roots, beginnings, closed
// and shut, and is never held across the keychain, the network, a prompt or the
// log. Keychain listings, mints, MFA proofs and the opening of the keychain run
// in the flights, one call per key at a time; keyChanges is held, by one at a
// time and for as long as their context lasts, by those who add and remove
// keys.
type Broker struct {
	cfg Config

	index   *keyIndex
	mints   *flight[minted]
	bases   *flight[*base]
	proofs  *flight[*base] // of rotations, which wait for one of bases
	opens   *flight[struct{}]
	prompts *prompts

	mu           sync.Mutex
	sessions     map[string]*session   // current one by cache key
	baseSessions map[string]*base      // by promptKey
	removals     map[string]int        // by key name: how often sessions were dropped for a removal
	leases       map[string]*lease     // that stand, by id
	roots        map[ProcessID]*lease  // the same, also by what was started for those inside
	beginnings   map[string]*beginning // of leases that do not stand yet, by id
	closed       bool
	shut         []func() // what waits for the keychain to be opened

	leaseTurn  chan struct{} // held by the one who saves the leases
	keyChanges chan struct{}
	notes      *keyNotes

	refusal  atomic.Pointer[Refusal]
	keychain atomic.Pointer[keychainLook] // the last
}

// New returns a Broker that serves nothing from before: sessions live in
// memory.
func New(cfg Config) *Broker {
	return &Broker{
		cfg:      cfg,
		index:    newKeyIndex(cfg.Keys),
		mints:    newFlight[minted](),
		bases:    newFlight[*base](),
		proofs:   newFlight[*base](),
		opens:    newFlight[struct{}](),
		prompts:  newPrompts(cfg.Clock),
		sessions: make(map[string]*session),
		removals: make(map[string]int),

		baseSessions: make(map[string]*base),
		leases:       make(map[string]*lease),
		roots:        make(map[ProcessID]*lease),
		beginnings:   make(map[string]*beginning),

		leaseTurn:  make(chan struct{}, 1),
		keyChanges: make(chan struct{}, 1),
		notes:      newKeyNotes(cfg.Notes),
	}
}

// A query is a request on its way through the gate: what it resolved to so
// far. A refused request's entry says as much as its query knows.
type query struct {
	profile string
	chain   *profiles.Chain
	key     KeyInfo
	target  Target
	// duration is what STS is asked for, need how much of it must be left.
	duration, need time.Duration
	cacheKey       string

	serial     string // the chain's MFA device, "" for none
	mfaProcess string
	inside     *lease // that mfaProcess is run in; nil for outside of all
	direct     bool   // the code goes to the chain's own call, for a session longer than 1 h

	session string // id of the session that is being minted, once there is one
	lease   string // id of the lease that it is for, "" for none
	own     bool   // the session is that lease's alone
	begun   bool   // that lease stands, and can be renewed
}

// Credentials is the gate: every surface ends here, in one order. It resolves
// the profile, takes the session from the cache or mints one for all who
// wait, records the hand-out, and only then returns. A refusal is recorded on
// the same path; the error is an *[Error], or an *[AskError].
//
// A caller inside a lease gets that lease's profiles; it may leave the name
// out, which means the first.
func (b *Broker) Credentials(ctx context.Context, caller Caller, req Request) (Grant, error) {
	l, err := b.within(caller)
	if err != nil {
		return Grant{}, b.refuse(ctx, caller, &query{profile: req.Profile}, req.Reason, err)
	}
	return b.serve(ctx, caller, l, req)
}

// serve is the gate behind the wall: l is the lease that the caller is inside,
// nil for none.
func (b *Broker) serve(ctx context.Context, caller Caller, l *lease, req Request) (Grant, error) {
	q := &query{}
	s, err := b.pass(ctx, caller, l, q, req)
	if err != nil {
		return Grant{}, err
	}
	return Grant{Credentials: s.creds, Profile: q.profile, Region: cmp.Or(req.Region, q.chain.Region), SessionID: s.id}, nil
}

// pass takes a request through the gate: what it returns is recorded and may
// leave. Its error is recorded too, or an *[AskError].
func (b *Broker) pass(ctx context.Context, caller Caller, l *lease, q *query, req Request) (*session, error) {
	for range maxMeanings {
		s, err := b.recorded(ctx, caller, l, q, req)
		if err != nil {
			return nil, err
		}
		if b.stands(s, l) {
			b.served(s, l)
			return s, nil
		}
		// It ended while it was recorded: it must not leave after that.
	}
	return nil, b.refuse(ctx, caller, q, req.Reason, errEnded(q.profile))
}

// errEnded says that the session for a profile may not leave any more.
func errEnded(profile string) error {
	return Errorf(CodeDenied, "profile %q: its session ended before it was served", profile).WithHint("try again")
}

// stands reports whether neither s nor l, the lease that it is for, has ended.
func (b *Broker) stands(s *session, l *lease) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions[s.q.cacheKey] == s && (l == nil || l.Ended.IsZero())
}

// recorded takes a request through the gate once, and writes that what it
// returns leaves.
func (b *Broker) recorded(ctx context.Context, caller Caller, l *lease, q *query, req Request) (*session, error) {
	if l != nil {
		if err := b.admit(l, caller, &req); err != nil {
			return nil, b.refuse(ctx, caller, &query{profile: req.Profile, lease: l.ID}, req.Reason, err)
		}
	} else if req.Profile == "" {
		return nil, b.refuse(ctx, caller, q, req.Reason, Errorf(CodeUsage, "no profile is named"))
	}
	s, fresh, err := b.resolveSession(ctx, caller, q, req)
	if ask, ok := asAsk(err); ok { // no answer yet
		return nil, ask
	}
	if err != nil {
		return nil, b.refuse(ctx, caller, q, req.Reason, err)
	}
	served := b.event(EventCredentialsServed, OutcomeOK, caller, q)
	served.Session = s.eventSession()
	served.Reason = req.Reason
	// A cached hand-out is written now and synced within a second; a minted
	// one is on disk.
	if err := b.cfg.Log.Append(context.WithoutCancel(ctx), served, fresh); err != nil {
		return nil, b.remember(caller, q.profile, err)
	}
	return s, nil
}

const (
	// glance is how long a request takes that waits for nothing. One that took
	// longer is looked at again: its profile may mean something else by now.
	glance = time.Millisecond
	// maxMeanings bounds how often a request begins anew for that.
	maxMeanings = 4
	// meaningAge is how old what a lease's profile means may be at the
	// lease's own endpoint. SDKs ask there in crowds, and to look costs as
	// much as the rest of the gate.
	meaningAge = 20 * time.Millisecond
)

// resolveSession fills q from what req's profile means and returns a session
// for it: for what it means when the session is there, however long a question
// stood or AWS took.
func (b *Broker) resolveSession(ctx context.Context, caller Caller, q *query, req Request) (s *session, fresh bool, err error) {
	for try := range maxMeanings {
		*q = query{profile: req.Profile}
		began := b.cfg.Clock.Boot()
		if known := req.known(began); known != nil && try == 0 {
			*q = *known
		} else if err := b.resolve(ctx, caller, req, q); err != nil {
			return nil, false, err
		} else if req.endpoint {
			req.lease.meant.Store(&meaning{began, *q})
		}
		s, fresh, err = b.session(ctx, caller, q, req)
		switch {
		case errors.Is(err, errKeyChanged):
			continue
		case err != nil || b.cfg.Clock.Boot()-began < glance:
			return s, fresh, err
		}
		meant := *q
		*q = query{profile: req.Profile}
		if err := b.resolve(ctx, caller, req, q); err != nil {
			return nil, false, err
		}
		if q.cacheKey == meant.cacheKey {
			return s, fresh, nil
		}
	}
	if err == nil {
		err = Errorf(CodeConfig, "what profile %q means keeps changing", req.Profile).WithHint("try again")
	}
	return nil, false, err
}

// known returns what the profile of a request to a lease's endpoint meant a
// moment ago, nil where that is not known.
func (r *Request) known(now time.Duration) *query {
	if !r.endpoint {
		return nil
	}
	if m := r.lease.meant.Load(); m != nil && now-m.at < meaningAge {
		return &m.query
	}
	return nil
}

const (
	defaultDuration = time.Hour
	chainedMaximum  = time.Hour // AWS's cap on a role assumed by a role
	minDuration     = 15 * time.Minute
	maxRoleDuration = 12 * time.Hour
	maxUserDuration = 36 * time.Hour // GetSessionToken

	// maxHops bounds a chain; each hop is a call of STS with 15 s to answer.
	maxHops = 16
)

// resolve fills q from the profile's chain and the stored key that starts it.
func (b *Broker) resolve(ctx context.Context, caller Caller, req Request, q *query) error {
	chain, err := b.cfg.Profiles.Resolve(b.files(req.Files), req.Profile)
	if err != nil {
		return b.explainProfile(ctx, req.Profile, err)
	}
	q.chain, q.inside = chain, req.inside
	if err := b.plan(q, caller.Via, req.Duration); err != nil {
		return err
	}
	if err := b.open(ctx, caller, req.Profile, req.Reachable); err != nil {
		return err
	}
	key, err := b.index.lookup(ctx, chain.Key)
	if CodeOf(err) == CodeNotFound {
		return b.noKey(chain)
	}
	if err != nil {
		return fmt.Errorf("profile %q: %w", req.Profile, err)
	}
	q.key = key
	q.target = Target{Region: cmp.Or(req.Region, chain.Region, chain.STSRegion), Endpoint: chain.Endpoint}
	q.cacheKey = cacheKey(q)
	if l := req.lease; l != nil {
		q.lease = l.ID
		if q.own = l.own(b.cfg.Leases.Session); q.own {
			q.cacheKey = l.ID + " " + q.cacheKey
		}
		q.begun = b.noteSession(l, q)
	}
	return nil
}

// plan decides what q's chain asks of AWS: with which MFA device, and for how
// long.
func (b *Broker) plan(q *query, via string, asked time.Duration) (err error) {
	chain := q.chain
	if len(chain.Hops) > maxHops {
		return Errorf(CodeConfig, "profile %q leads through %d roles, and %d are the most that are followed", chain.Profile, len(chain.Hops), maxHops)
	}
	if q.serial, q.mfaProcess, err = mfaOf(chain); err != nil {
		return err
	}
	if q.duration, err = sessionDuration(chain, asked); err != nil {
		return err
	}
	if q.serial != "" {
		b.fitMFA(q, via, asked)
	}
	return nil
}

// files returns the AWS files for a request: the caller's where it names
// some, else the user's own. What redirects counts only in files that the
// user listed or owns by default.
func (b *Broker) files(f profiles.Files) profiles.Files {
	if f.Config == "" {
		f.Config = b.cfg.Files.Config
	}
	if f.Credentials == "" {
		f.Credentials = b.cfg.Files.Credentials
	}
	f.Trusted = f.Config == b.cfg.Files.Config
	for _, t := range b.cfg.Trusted {
		f.Trusted = f.Trusted || f.Config == filepath.Clean(t)
	}
	return f
}

// shellWord returns name as a shell reads it as one word, for a command that
// a hint shows.
func shellWord(name string) string {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_@%+=:,./-", r)
	}
	if name != "" && !strings.ContainsFunc(name, odd) {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}

// sessionDuration returns how long a session to ask STS for.
func sessionDuration(chain *profiles.Chain, asked time.Duration) (time.Duration, error) {
	d, longest := chain.Duration, maxUserDuration
	if n := len(chain.Hops); n > 0 {
		d, longest = chain.Hops[n-1].Duration, maxRoleDuration
	}
	if asked != 0 {
		d = asked
	}
	if d == 0 {
		d = defaultDuration
	}
	if d < minDuration || d > longest {
		return 0, Errorf(CodeUsage, "profile %q: a session of %s cannot be had: AWS gives from %s to %s",
			chain.Profile, d, minDuration, longest)
	}
	if len(chain.Hops) > 1 {
		d = min(d, chainedMaximum)
	}
	return d, nil
}

// event returns an entry with what q knows.
func (b *Broker) event(kind EventKind, outcome string, caller Caller, q *query) Event {
	e := Event{Kind: kind, Outcome: outcome, Profile: q.profile, Lease: q.lease, Caller: &caller}
	if q.chain != nil {
		e.RoleARN = roleARN(q.chain)
	}
	if q.key.Name != "" || q.key.AccessKeyID != "" {
		e.Key = q.key.event()
	} else if q.chain != nil {
		e.Key = &EventKey{Name: q.chain.Key}
	}
	e.Account = account(q)
	if q.session != "" {
		e.Session = &EventSession{ID: q.session}
	}
	return e
}

func (k KeyInfo) event() *EventKey {
	return &EventKey{Name: k.Name, AccessKeyID: k.AccessKeyID, UserARN: k.UserARN}
}

// roleARN returns the role that a chain ends in, "" for none.
func roleARN(chain *profiles.Chain) string {
	if n := len(chain.Hops); n > 0 {
		return chain.Hops[n-1].RoleARN
	}
	return ""
}

// account returns the account that a session will be in, "" if unknown.
func account(q *query) string {
	arn := q.key.UserARN
	if q.chain != nil {
		if role := roleARN(q.chain); role != "" {
			arn = role
		}
	}
	return accountOf(arn)
}

func accountOf(arn string) string {
	for range 4 {
		_, arn, _ = strings.Cut(arn, ":")
	}
	account, _, ok := strings.Cut(arn, ":")
	if !ok {
		return ""
	}
	return account
}

// refuse records why a request was not served and returns the reason.
func (b *Broker) refuse(ctx context.Context, caller Caller, q *query, reason string, err error) error {
	if cause := ctx.Err(); cause != nil && errors.Is(err, cause) {
		err = Errorf(CodeCancelled, "the caller left before profile %q was served: %w", q.profile, err)
	}
	e := b.remember(caller, q.profile, err)
	kind, outcome := EventRequestFailed, OutcomeFailed
	if e.Code.denial() {
		kind, outcome = EventRequestDenied, OutcomeDenied
	}
	entry := b.event(kind, outcome, caller, q)
	if failed := (*sessionError)(nil); errors.As(err, &failed) {
		entry.Session = &EventSession{ID: failed.id}
	}
	entry.Reason = reason
	entry.Error = &EventError{Code: e.Code, Message: e.Message}
	if err := b.cfg.Log.Append(context.WithoutCancel(ctx), entry, true); err != nil {
		b.cfg.Logger.Error("refusal not recorded", "code", e.Code, "err", err)
	}
	return e
}

// remember keeps err as the last refusal, for SDKs that hide what a
// credential_process says.
func (b *Broker) remember(caller Caller, profile string, err error) *Error {
	e := AsError(err)
	b.refusal.Store(&Refusal{
		Time: b.cfg.Clock.Now(), Profile: profile, Program: caller.Program,
		Code: e.Code, Message: e.Message, Hint: e.Hint,
	})
	return e
}
