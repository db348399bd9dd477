package broker

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A session is a set of temporary credentials in the cache.
type session struct {
	id       string
	name     string // RoleSessionName
	q        query  // what it was minted for
	creds    Credentials
	request  string // STS request id
	issued   time.Time
	bootEnds time.Duration // when it expires on the clock that counts suspend
	life     time.Duration // how long it lasts by this machine's clocks: less than was asked for where they are fast

	handouts   atomic.Int64
	lastServed atomic.Int64 // Unix nanoseconds; 0 for never

	stopTimers func() // guarded by Broker.mu
}

// left returns for how long s can still be used: what either clock says is
// expired, is expired.
func (s *session) left(c Clock) time.Duration {
	return min(s.creds.Expires.Sub(c.Now()), s.bootEnds-c.Boot())
}

func (s *session) served(now time.Time) {
	s.handouts.Add(1)
	s.lastServed.Store(now.UnixNano())
}

func (s *session) eventSession() *EventSession {
	return &EventSession{
		ID: s.id, AccessKeyID: s.creds.AccessKeyID, Name: s.name, SourceIdentity: s.q.chain.SourceIdentity(),
		Expires: s.creds.Expires, STSRequestID: s.request,
	}
}

// minted is the result of a flight: a session, and whether it is new. A renewal
// may have none.
type minted struct {
	session *session
	fresh   bool
}

// margin returns how much of a session's life must be left for it to leave:
// SDKs refresh up to 15 minutes early and extend what they got by up to 10
// more, so less than 25 minutes would make some of them ask again at once.
func margin(d time.Duration) time.Duration {
	return min(25*time.Minute, d*45/100)
}

// renewLead is how long before the margin a session in use is renewed.
func renewLead(d time.Duration) time.Duration {
	return min(2*time.Minute, d*5/100)
}

// minLeft returns how long a session must last to be served for req. What
// leaves into a file or an environment cannot be renewed there, so it leaves
// nearly whole.
func minLeft(via string, asked, d time.Duration) time.Duration {
	switch {
	case asked > 0:
		return asked
	case unrenewable(via):
		return d * 90 / 100
	}
	return margin(d)
}

// unrenewable reports whether what a surface hands out stays as it is where it
// goes.
func unrenewable(via string) bool { return via == "export" || via == "exec-env" || via == "renew" }

// session returns a session for q that lasts as long as req needs, from the
// cache or newly minted; fresh says which.
func (b *Broker) session(ctx context.Context, caller Caller, q *query, req Request) (s *session, fresh bool, err error) {
	if l := req.lease; l != nil && b.onlyHeld(l) && !req.renew {
		s, err := b.held(q, l)
		return s, false, err
	}
	need := minLeft(caller.Via, req.MinLeft, q.duration)
	if need > q.duration {
		return nil, false, Errorf(CodeUsage, "profile %q: %s must be left, but its sessions last %s", q.profile, need, q.duration).
			WithHint("ask for less with --min-left, or for longer sessions with --duration")
	}
	enough := func(s *session) bool {
		return s.left(b.cfg.Clock) >= minLeft(caller.Via, req.MinLeft, s.life)
	}
	if s := b.cached(q.cacheKey); s != nil && enough(s) {
		return s, false, nil
	}
	q.need = need
	get := func(ctx context.Context) (minted, error) { return b.join(ctx, caller, q, req, enough) }
	if q.serial != "" {
		w, refused := b.waitAnswered(ctx, caller, q.matter(), q.profile, req.Reachable, req.Code)
		switch known := b.knownBase(q); {
		case refused == nil:
			defer w.leave()
			m, err := answered(b.prompts, w, get)
			return m.session, m.fresh, err
		case q.direct || known == nil || known.left(b.cfg.Clock) < baseMargin:
			return nil, false, refused
		}
	}
	m, err := get(ctx)
	return m.session, m.fresh, err
}

// join returns the session of a mint for q, one that is under way or a new
// one. enough reports whether a session lasts as long as req needs.
func (b *Broker) join(ctx context.Context, caller Caller, q *query, req Request, enough func(*session) bool) (minted, error) {
	// A call that was under way may give a session that another found good
	// enough, or that was kept before the machine slept, or none; then the next
	// call mints.
	for try := 0; try < 2; try++ {
		m, err := b.mints.do(ctx, q.cacheKey, func() (minted, error) {
			if s := b.cached(q.cacheKey); s != nil && enough(s) {
				return minted{s, false}, nil
			}
			s, err := b.mint(caller, *q, req.Reason, EventSessionIssued)
			return minted{s, true}, err
		}, func(err error) { b.refuse(context.Background(), caller, q, req.Reason, err) })
		if err != nil {
			return minted{}, err
		}
		if m.session == nil {
			try = -1
			continue
		}
		left := m.session.left(b.cfg.Clock)
		if left <= 0 && try == 0 {
			continue
		}
		if left <= 0 {
			return minted{}, Errorf(CodeAWSUnreachable, "profile %q: the new session had already expired by this machine's clock (%s)",
				q.profile, b.cfg.Clock.Now().Format(time.RFC3339)).WithHint("set the clock right")
		}
		if m.fresh || enough(m.session) {
			return m, nil
		}
	}
	return minted{}, Errorf(CodeInternal, "profile %q: no session lasts long enough", q.profile)
}

func (b *Broker) cached(key string) *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions[key]
}

// mint gets a new session from STS: the intent is on disk before STS is
// called, and the session before anybody gets it. kind is what the entry of
// success is called; a renewal asks nobody.
func (b *Broker) mint(caller Caller, q query, reason string, kind EventKind) (_ *session, err error) {
	// Its own context: a caller that leaves does not stop what others wait
	// for. Each call below has a deadline of its own.
	ctx := context.Background()
	s := &session{id: newSessionID()}
	q.session = s.id

	b.mu.Lock()
	removals := b.removals[q.key.Name]
	b.mu.Unlock()
	if q.direct && kind != EventSessionRenewed {
		defer func() { b.prompts.conclude(q.promptKey(), err) }()
	}
	var a asking
	start, err := b.start(ctx, caller, &q, &a, kind != EventSessionRenewed)
	if err != nil {
		return nil, err
	}
	defer func() { start.clear() }()
	s.name = sessionName(&q, s.id)

	requested := b.event(EventSessionRequested, OutcomeOK, caller, &q)
	requested.Session.Name, requested.Session.SourceIdentity = s.name, q.chain.SourceIdentity()
	requested.Reason = reason
	if err := b.cfg.Log.Append(ctx, requested, true); err != nil {
		return nil, err
	}
	bootStart := b.cfg.Clock.Boot()
	got, err := b.callSTS(ctx, start, &q, s.name)
	for q.direct && q.mfaProcess == "" && CodeOf(err) == CodeMFAFailed {
		a.refused(err)
		start.clear()
		if start, err = b.start(ctx, caller, &q, &a, true); err != nil {
			return nil, &sessionError{id: s.id, err: err}
		}
		bootStart = b.cfg.Clock.Boot()
		got, err = b.callSTS(ctx, start, &q, s.name)
	}
	if proof := start.proof; proof != nil && CodeOf(err) == CodeAWSDenied && kind != EventSessionRenewed && b.old(proof, q.cacheKey) {
		// The role may want a younger proof (aws:MultiFactorAuthAge).
		if proof, err = b.base(caller, &q, baseMargin, b.cfg.Clock.Now(), true); err != nil {
			return nil, &sessionError{id: s.id, err: err}
		}
		start = source{creds: proof.creds, proof: proof}
		bootStart = b.cfg.Clock.Boot()
		if got, err = b.callSTS(ctx, start, &q, s.name); CodeOf(err) == CodeAWSDenied {
			b.refusedFresh(proof, q.cacheKey)
		}
	}
	if err != nil {
		return nil, &sessionError{id: s.id, err: err}
	}
	got.Credentials.AccountID = account(&q)
	s.q, s.creds, s.request = q, got.Credentials, got.RequestID
	if !q.own {
		s.q.lease = "" // it outlasts the lease that happened to ask first
	}
	s.issued = b.cfg.Clock.Now()
	s.bootEnds, s.life = bootStart+q.duration, q.duration
	if start.proof != nil && len(q.chain.Hops) == 0 {
		s.bootEnds = start.proof.bootEnds
	} else {
		s.life = min(s.life, s.left(b.cfg.Clock))
	}

	issued := b.event(kind, OutcomeOK, caller, &q)
	issued.Session = s.eventSession()
	issued.Reason = reason
	if err := b.cfg.Log.Append(ctx, issued, true); err != nil {
		return nil, err
	}
	if err := b.keep(s, removals); err != nil {
		b.ended(s, err.Message)
		return nil, err
	}
	return s, nil
}

// errKeyChanged says that the keychain's key is not the one that the request
// was resolved to; resolving again finds the new one.
var errKeyChanged = &Error{Code: CodeKeychainDenied, Message: "the key in the keychain keeps changing"}

// A sessionError is an STS failure with the id of the session that was
// announced for it.
type sessionError struct {
	id  string
	err error
}

func (e *sessionError) Error() string { return e.err.Error() }
func (e *sessionError) Unwrap() error { return e.err }

// A source is what a chain's first call is signed with.
type source struct {
	creds Credentials
	key   bool   // creds are the long-term key, to be cleared
	proof *base  // where they are a base session's
	code  Secret // for the call itself
}

func (s source) clear() {
	if s.key {
		s.creds.SecretAccessKey.Clear()
	}
}

// start returns what q's chain starts with: the key, or for MFA the session
// that a code gave. A code for the chain's own call is asked for here, as a
// goes on.
func (b *Broker) start(ctx context.Context, caller Caller, q *query, a *asking, ask bool) (source, error) {
	var code Secret
	switch {
	case q.serial != "" && !q.direct:
		need := baseMargin
		if len(q.chain.Hops) == 0 {
			need = q.need
		}
		proof, err := b.base(caller, q, need, time.Time{}, ask)
		if err != nil {
			return source{}, err
		}
		return source{creds: proof.creds, proof: proof}, nil
	case q.direct && !ask:
		return source{}, errWouldAsk
	case q.direct:
		standing, done := b.prompts.standing()
		defer done()
		var err error
		if code, err = b.code(standing, q, a); err != nil {
			return source{}, err
		}
	}
	key, err := b.keyFor(ctx, q)
	if err != nil {
		return source{}, err
	}
	return source{creds: key.Credentials(), key: true, code: code}, nil
}

// callSTS walks the chain.
func (b *Broker) callSTS(ctx context.Context, start source, q *query, name string) (STSSession, error) {
	creds := start.creds
	if len(q.chain.Hops) == 0 {
		if start.proof != nil {
			return STSSession{Credentials: creds, RequestID: start.proof.request}, nil
		}
		in := SessionTokenInput{Duration: q.duration}
		if q.direct {
			if !b.prompts.use(q.serial, start.code) {
				return STSSession{}, errUsed
			}
			in.SerialNumber, in.TokenCode = q.serial, start.code
		}
		return b.cfg.STS.SessionToken(ctx, creds, in, q.target)
	}
	var got STSSession
	for i, hop := range q.chain.Hops {
		in := AssumeRoleInput{
			RoleARN: hop.RoleARN, SessionName: hop.SessionName, ExternalID: hop.ExternalID,
			SourceIdentity: hop.SourceIdentity, Tags: hop.Tags, TransitiveTags: hop.TransitiveTags,
			Duration: minDuration, Chained: i > 0,
		}
		if in.SessionName == "" {
			in.SessionName = name
		}
		if i == len(q.chain.Hops)-1 {
			in.Duration = q.duration
		}
		if q.direct && i == 0 {
			if !b.prompts.use(q.serial, start.code) {
				return STSSession{}, errUsed
			}
			in.SerialNumber, in.TokenCode = q.serial, start.code
		}
		var err error
		if got, err = b.cfg.STS.AssumeRole(ctx, creds, in, q.target); err != nil {
			if len(q.chain.Hops) > 1 {
				return STSSession{}, fmt.Errorf("hop %d of %d (profile %q): %w", i+1, len(q.chain.Hops), hop.Profile, err)
			}
			return STSSession{}, err
		}
		creds = got.Credentials
	}
	return got, nil
}

// keep makes s the current session of its cache key and sets its timers. The
// session that it replaces is served no more. It keeps nothing, and says why,
// if the key was removed since removals was counted, or the lease has ended.
func (b *Broker) keep(s *session, removals int) *Error {
	b.mu.Lock()
	var late *Error
	switch {
	case b.removals[s.q.key.Name] != removals:
		late = Errorf(CodeDenied, "the key %q was removed meanwhile", s.q.key.Name)
	case s.q.lease != "" && !b.wantedLocked(s.q.lease):
		late = Errorf(CodeDenied, "the lease %s has ended meanwhile", s.q.lease)
	}
	if late != nil {
		b.mu.Unlock()
		return late
	}
	old := b.sessions[s.q.cacheKey]
	b.sessions[s.q.cacheKey] = s
	if old != nil {
		old.stopTimers()
	}
	left := s.left(b.cfg.Clock)
	stopRenew := func() {}
	if ahead := left - margin(s.life) - renewLead(s.life); ahead > 0 {
		stopRenew = b.cfg.Clock.AfterFunc(ahead, func() { b.renew(s) })
	}
	stopWarn := func() {}
	if ahead := left - warnAhead(s); s.q.lease != "" && ahead > 0 {
		stopWarn = b.cfg.Clock.AfterFunc(ahead, func() { b.warn(s) })
	}
	stopEnd := b.cfg.Clock.AfterFunc(left, func() { b.expire(s) })
	s.stopTimers = func() { stopRenew(); stopWarn(); stopEnd() }
	b.mu.Unlock()
	if old != nil {
		b.ended(old, "replaced by "+s.id)
	}
	return nil
}

// renew replaces s ahead of time if it has been used, so that those who use
// it never wait for STS. An unused one is left to expire.
func (b *Broker) renew(s *session) {
	l := b.lease(s.q.lease)
	if l == nil && s.handouts.Load() == 0 || l != nil && b.onlyHeld(l) || b.cached(s.q.cacheKey) != s {
		return
	}
	q := s.q
	q.session = ""
	_, err := b.mints.do(context.Background(), q.cacheKey, func() (minted, error) { return b.renewed(s, q) }, nil)
	if l != nil {
		b.mu.Lock()
		l.needsMFA = unasked(err)
		b.mu.Unlock()
	}
	if err != nil && !unasked(err) {
		// The next request tries again, with somebody to tell.
		b.refuse(context.Background(), b.self(), &q, "", fmt.Errorf("renew ahead: %w", err))
	}
}

// renewed mints what replaces s. Where something else has, it is that; where s
// was dropped, there is none.
func (b *Broker) renewed(s *session, q query) (minted, error) {
	if now := b.cached(q.cacheKey); now != s {
		return minted{now, false}, nil
	}
	n, err := b.mint(b.self(), q, "", EventSessionRenewed)
	return minted{n, true}, err
}

// expire drops s once it has expired. A timer may come early where a clock
// was set; then it is set again.
func (b *Broker) expire(s *session) {
	b.mu.Lock()
	if b.closed || b.sessions[s.q.cacheKey] != s {
		b.mu.Unlock()
		return
	}
	if left := s.left(b.cfg.Clock); left > 0 {
		s.stopTimers = b.cfg.Clock.AfterFunc(left, func() { b.expire(s) })
		b.mu.Unlock()
		return
	}
	delete(b.sessions, s.q.cacheKey)
	b.mu.Unlock()
	b.ended(s, "expired")
	b.leaseExpired(s)
}

// drop ends all sessions that match, at once.
func (b *Broker) drop(reason string, match func(*session) bool) {
	b.mu.Lock()
	var gone []*session
	for key, s := range b.sessions {
		if match(s) {
			delete(b.sessions, key)
			s.stopTimers()
			gone = append(gone, s)
		}
	}
	b.mu.Unlock()
	for _, s := range gone {
		b.ended(s, reason)
	}
}

func (b *Broker) ended(s *session, reason string) {
	e := b.event(EventSessionEnded, OutcomeOK, b.self(), &s.q)
	e.Session = s.eventSession()
	e.Reason = reason
	if err := b.cfg.Log.Append(context.Background(), e, false); err != nil {
		b.cfg.Logger.Error("end of session not recorded", "session", s.id, "err", err)
	}
}

// self is the daemon as the caller of what it does on its own.
func (b *Broker) self() Caller {
	return Caller{UID: b.cfg.Daemon.UID, PID: b.cfg.Daemon.PID, Program: "gatepassd", Via: "daemon", Resolved: true}
}

// cacheKey is everything of q that reaches AWS but the region: regional STS
// endpoints give tokens that are good in every region, so callers in two
// regions share one session.
func cacheKey(q *query) string {
	k := make([]byte, 0, 256)
	field := func(s string) { // with its length, so that no two keys read alike
		k = strconv.AppendInt(k, int64(len(s)), 10)
		k = append(append(k, ':'), s...)
	}
	number := func(n int64) { k = append(strconv.AppendInt(k, n, 10), ',') }
	field(q.key.AccessKeyID)
	number(int64(q.duration))
	field(q.target.Endpoint)
	field(q.serial)
	if q.direct {
		number(1)
	}
	for i := range q.chain.Hops {
		h := &q.chain.Hops[i]
		field(h.RoleARN)
		field(h.SessionName)
		field(h.ExternalID)
		field(h.MFASerial)
		field(h.SourceIdentity)
		number(int64(len(h.Tags)))
		for _, t := range h.Tags {
			field(t.Key)
			field(t.Value)
		}
		number(int64(len(h.TransitiveTags)))
		for _, t := range h.TransitiveTags {
			field(t)
		}
	}
	return string(k)
}

// newSessionID returns an id such as "s-7f3k2m9qxd": 50 random bits in
// lower-case base32 without the letters that read as digits.
func newSessionID() string {
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	var b [10]byte
	rand.Read(b[:])
	for i := range b {
		b[i] = alphabet[b[i]&31]
	}
	return "s-" + string(b[:])
}

// sessionName returns the RoleSessionName: the configured one verbatim, else
// "<IAM user>-<session id>", so that CloudTrail leads back to our entry. AWS
// allows 2 to 64 of [\w+=,.@-].
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
func sessionName(q *query, id string) string {
	if n := len(q.chain.Hops); n == 0 {
		return ""
	} else if name := q.chain.Hops[n-1].SessionName; name != "" {
		return name
	}
	user := q.key.Name
	if i := strings.LastIndexByte(q.key.UserARN, '/'); i >= 0 {
		user = q.key.UserARN[i+1:]
	}
	user = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("_+=,.@-", r):
			return r
		}
		return '-'
	}, user)
	suffix := "-s" + strings.TrimPrefix(id, "s-")
	return user[:min(len(user), 64-len(suffix))] + suffix
}
