package broker

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// probeTimeout bounds how long status waits for the keychain.
const probeTimeout = 2 * time.Second

// Start records that the daemon serves. Nothing may be served if it fails.
func (b *Broker) Start(ctx context.Context) error {
	self := b.self()
	if err := b.cfg.Log.Append(ctx, Event{Kind: EventDaemonStarted, Outcome: OutcomeOK, Caller: &self}, true); err != nil {
		return err
	}
	b.awaitKept()
	return b.restoreLeases(ctx)
}

// Close waits for the calls under way, ends every session and records that
// the daemon stopped. ctx bounds the waiting.
func (b *Broker) Close(ctx context.Context, reason string) error {
	b.EndQuestions()
	b.mints.wait(ctx)
	b.bases.wait(ctx)
	b.proofs.wait(ctx)
	b.opens.wait(ctx)
	b.index.loads.wait(ctx)
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	if release, err := b.changeKeys(ctx); err == nil { // a rotation's step under way
		release()
	}
	b.drop("daemon stopped", func(*session) bool { return true })
	self := b.self()
	return b.cfg.Log.Append(ctx, Event{Kind: EventDaemonStopped, Outcome: OutcomeOK, Caller: &self, Reason: reason}, true)
}

// Status tells the state of the daemon, the keychain, the log and the
// sessions. It never prompts.
func (b *Broker) Status(ctx context.Context) (Status, error) {
	return b.status(b.keychainState(ctx))
}

// Glance is Status for who looks again and again: what it says of the keychain
// may be half a minute old, since each look costs a process.
func (b *Broker) Glance(ctx context.Context) (Status, error) {
	if last := b.keychain.Load(); last != nil && b.cfg.Clock.Boot()-last.at < glanceAge {
		return b.status(last.state)
	}
	return b.Status(ctx)
}

// glanceAge is how old what is said of the keychain may be at a glance.
const glanceAge = 30 * time.Second

// A keychainLook is how the keychain was, and when, by the clock that counts
// from boot.
type keychainLook struct {
	state KeychainStatus
	at    time.Duration
}

func (b *Broker) status(keychain KeychainStatus) (Status, error) {
	st := Status{
		Daemon:      b.cfg.Daemon,
		Keychain:    keychain,
		Log:         b.cfg.Log.Status(),
		Sessions:    []SessionStatus{},
		Proofs:      []ProofStatus{},
		Leases:      b.leaseStatuses(),
		LastRefusal: b.refusal.Load(),
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.sessions {
		if s.left(b.cfg.Clock) <= 0 {
			continue
		}
		st.Sessions = append(st.Sessions, s.status())
	}
	for _, s := range b.baseSessions {
		if s.left(b.cfg.Clock) > 0 {
			st.Proofs = append(st.Proofs, s.status())
		}
	}
	slices.SortFunc(st.Proofs, func(x, y ProofStatus) int {
		return cmp.Or(cmp.Compare(x.Key, y.Key), cmp.Compare(x.Serial, y.Serial))
	})
	slices.SortFunc(st.Sessions, func(x, y SessionStatus) int {
		return cmp.Or(cmp.Compare(x.Profile, y.Profile), x.Issued.Compare(y.Issued))
	})
	return st, nil
}

func (s *session) status() SessionStatus {
	st := SessionStatus{
		ID: s.id, Profile: s.q.profile, Account: s.creds.AccountID, RoleARN: roleARN(s.q.chain),
		Key: s.q.key.Name, AccessKeyID: s.creds.AccessKeyID,
		Issued: s.issued, Expires: s.creds.Expires, Served: s.handouts.Load(),
	}
	if at := s.lastServed.Load(); at != 0 {
		st.LastServed = time.Unix(0, at)
	}
	return st
}

func (s *base) status() ProofStatus {
	return ProofStatus{Key: s.key, Serial: s.serial, Verified: s.verified, Expires: s.creds.Expires}
}

// keychainState asks the keychain how it is. It never prompts.
func (b *Broker) keychainState(ctx context.Context) KeychainStatus {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	state := KeychainStatus{Backend: b.cfg.Keys.Backend(), State: "ok"}
	if err := b.cfg.Keys.Probe(ctx); err != nil {
		state.fail(err)
	}
	b.keychain.Store(&keychainLook{state, b.cfg.Clock.Boot()})
	return state
}

func (s *KeychainStatus) fail(err error) {
	e := AsError(err)
	s.State, s.Message, s.Hint = string(e.Code), e.Message, e.Hint
}
