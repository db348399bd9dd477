package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"gatepass/profiles"
)

// MFA says how MFA codes are asked for and how long a proof is kept. The
// passphrase of a keychain is asked for in the same ways.
type MFA struct {
	Keep     time.Duration // life of the session that a code gives; 0 means 8 h
	Prompt   string        // one of [PromptModes]; "" means "auto"
	Prompter Prompter      // nil: only clients' terminals
	Vault    Vault         // nil: a restart of the daemon asks again
}

// A Vault keeps what must survive a restart, in the OS keychain. Its errors
// are those of a [KeyStore].
type Vault interface {
	Secret(ctx context.Context, name string) (Secret, error)
	PutSecret(ctx context.Context, name string, value Secret) error
	RemoveSecret(ctx context.Context, name string) error
}

const (
	defaultKeep = 8 * time.Hour
	// freshBase is how old a proof may be for a refusal to have another cause
	// than its age.
	freshBase = 5 * time.Minute
	// baseMargin is how much life a base session needs to start a chain.
	baseMargin = 2 * time.Minute
)

// A base is a session that GetSessionToken gave for an MFA code. The roles of
// a chain are assumed with it, so that one code serves many. It is bound to
// the key and the device.
type base struct {
	key      string // its name
	serial   string
	creds    Credentials
	verified time.Time     // when the code was given
	bootEnds time.Duration // on the clock that counts suspend
	request  string

	denied map[string]bool // guarded by Broker.mu: the cache keys that were refused with this proof while it was new
}

func (s *base) left(c Clock) time.Duration {
	return min(s.creds.Expires.Sub(c.Now()), s.bootEnds-c.Boot())
}

// mfaOf returns the MFA device that a chain names, and the program that
// prints its codes. A chain starts from one key, whose user has the device,
// so it may name only one.
func mfaOf(chain *profiles.Chain) (serial, process string, err error) {
	serial, process = chain.MFASerial, chain.MFAProcess
	for _, hop := range chain.Hops {
		if serial != "" && hop.MFASerial != "" && hop.MFASerial != serial {
			return "", "", Errorf(CodeConfig, "profile %q names two MFA devices, %s and %s, and its chain starts from one key", chain.Profile, serial, hop.MFASerial).
				WithHint("leave the device of the key %q", chain.Key)
		}
		serial, process = cmp.Or(serial, hop.MFASerial), cmp.Or(process, hop.MFAProcess)
	}
	return serial, process, nil
}

// fitMFA makes q's duration one that a proof allows. A session from a base
// session lasts an hour at most, as a chained one; a longer one takes a code
// of its own straight from the key, so it is asked for only where somebody
// wants a long one by name or cannot renew it. Without a role the base
// session itself is served.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles.html (role chaining)
func (b *Broker) fitMFA(q *query, via string, asked time.Duration) {
	switch hops := len(q.chain.Hops); {
	case hops == 0 && asked == 0:
		q.duration = b.proofLife()
	case hops == 0:
		q.direct = true
	case hops == 1 && q.duration > chainedMaximum && (asked > 0 || unrenewable(via)):
		q.direct = true
	default:
		q.duration = min(q.duration, chainedMaximum)
	}
}

// promptKey is what a question stands for, once: a key and a device.
func (q *query) promptKey() string { return q.key.AccessKeyID + "\x00" + q.serial }

// matter is the MFA code that q needs.
func (q *query) matter() *matter {
	return &matter{
		key: q.promptKey(), question: Question{Want: WantCode, Key: q.key.Name, Serial: q.serial}, it: "the MFA code",
		check: checkCode, failed: CodeMFAFailed, retry: "wait for the next code and try again",
		locked: CodePromptUnavailable,
		state: func(profile string) string {
			return fmt.Sprintf("profile %q needs a code of the MFA device %s", profile, q.serial)
		},
		help: func(profile string) string {
			if q.begun {
				return "gatepass renew " + q.lease
			}
			return fmt.Sprintf("in a terminal, once: gatepass export %s --mfa-code CODE >/dev/null; or set mfa_process in the profile", shellWord(profile))
		},
		ready: func(profile string) string { return "gatepass export " + shellWord(profile) },
	}
}

// vaultName is the keychain item of a key's base session. There is one for a
// key, bound to the device that proved it last, so that it can be removed with
// the key.
func vaultName(key KeyInfo) string { return "mfa-" + key.AccessKeyID }

// proofLife is how long a base session lasts.
func (b *Broker) proofLife() time.Duration { return cmp.Or(b.cfg.MFA.Keep, defaultKeep) }

// base returns a base session for q: one that is kept, or a new one for a
// code that the user is asked for. With ask false, or where one younger than
// newer is wanted and there is none, it fails rather than asks.
//
// It runs within a mint, so it waits as long as a question stands, and one
// flight for each key and device serves all mints that need it.
func (b *Broker) base(caller Caller, q *query, need time.Duration, notBefore time.Time, ask bool) (*base, error) {
	usable := func(s *base) bool {
		return s != nil && s.left(b.cfg.Clock) >= need && !s.verified.Before(notBefore)
	}
	if s := b.knownBase(q); usable(s) {
		return s, nil
	}
	for {
		ours := false
		s, err := b.bases.do(context.Background(), q.promptKey(), func() (*base, error) {
			ours = true
			s := b.knownBase(q)
			if s == nil {
				s = b.loadBase(q)
			}
			if usable(s) {
				return s, nil
			}
			if !ask {
				return nil, errWouldAsk
			}
			return b.verify(caller, q)
		}, nil)
		if err != nil || ours || usable(s) {
			return s, err
		}
		// The call was for one who needs less.
	}
}

// errWouldAsk says that a question would be needed, and nobody waits for it.
var errWouldAsk = Errorf(CodePromptUnavailable, "an MFA code is needed")

func (b *Broker) knownBase(q *query) *base {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.baseSessions[q.promptKey()]
}

// verify asks for a code and turns it into a base session.
func (b *Broker) verify(caller Caller, q *query) (_ *base, err error) {
	defer func() { b.prompts.conclude(q.promptKey(), err) }()
	ctx, done := b.prompts.standing()
	defer done()
	var a asking
	for {
		code, err := b.code(ctx, q, &a)
		if err != nil {
			return nil, err
		}
		s, err := b.exchange(caller, q, code)
		if CodeOf(err) != CodeMFAFailed || q.mfaProcess != "" {
			return s, err
		}
		a.refused(err)
	}
}

// code gets an MFA code for q, from the profile's program or from whoever can
// be asked, as [Broker.answer] does.
func (b *Broker) code(ctx context.Context, q *query, a *asking) (Secret, error) {
	if q.mfaProcess == "" || b.cfg.MFA.Prompter == nil {
		return b.answer(ctx, q.matter(), q.profile, a)
	}
	var run ProcessID
	code, err := b.cfg.MFA.Prompter.Run(ctx, q.mfaProcess, func(pid int) (err error) {
		if q.inside != nil {
			run, err = b.takeIn(ctx, q.inside, pid)
		}
		return err
	})
	b.letGo(run)
	if err == nil {
		err = checkCode(code)
	}
	if err != nil {
		return Secret{}, fmt.Errorf("profile %q: mfa_process: %w", q.profile, err)
	}
	return code, nil
}

// errUsed is why a code is not sent.
var errUsed = Errorf(CodeMFAFailed, "that code has been used, and AWS takes each one once: wait for the next")

// refused notes why a code did not do.
func (a *asking) refused(err error) {
	if a.reason = err.Error(); !errors.Is(err, errUsed) {
		a.reason += ": check the code, or wait for the next"
	}
}

// checkCode returns why code cannot be one of an MFA device: AWS wants six
// digits.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html
func checkCode(code Secret) error {
	b := code.RevealBytes()
	if len(b) != 6 || strings.Trim(string(b), "0123456789") != "" {
		return Errorf(CodeMFAFailed, "an MFA code has six digits")
	}
	return nil
}

// exchange gives a code to STS for a base session: the intent is on disk
// before, and the proof before anybody gets the session.
func (b *Broker) exchange(caller Caller, of *query, code Secret) (*base, error) {
	ctx := context.Background()
	q := *of
	q.session = newSessionID()
	b.mu.Lock()
	removals := b.removals[q.key.Name]
	b.mu.Unlock()
	key, err := b.keyFor(ctx, &q)
	if err != nil {
		return nil, err
	}
	defer key.SecretAccessKey.Clear()
	if err := b.cfg.Log.Append(ctx, b.event(EventSessionRequested, OutcomeOK, caller, &q), true); err != nil {
		return nil, err
	}
	if !b.prompts.use(q.serial, code) {
		return nil, errUsed
	}
	boot := b.cfg.Clock.Boot()
	life := b.proofLife()
	got, err := b.cfg.STS.SessionToken(ctx, key.Credentials(), SessionTokenInput{Duration: life, SerialNumber: q.serial, TokenCode: code}, q.target)
	if err != nil {
		return nil, err
	}
	s := &base{key: q.key.Name, serial: q.serial, creds: got.Credentials, verified: b.cfg.Clock.Now(), bootEnds: boot + life, request: got.RequestID}
	entry := b.event(EventMFAVerified, OutcomeOK, caller, &q)
	entry.RoleARN, entry.Account = "", accountOf(q.key.UserARN)
	entry.Session = &EventSession{ID: q.session, AccessKeyID: s.creds.AccessKeyID, Expires: s.creds.Expires, STSRequestID: s.request}
	if err := b.cfg.Log.Append(ctx, entry, true); err != nil {
		return nil, err
	}
	b.mu.Lock()
	if b.removals[q.key.Name] != removals {
		b.mu.Unlock()
		return nil, Errorf(CodeDenied, "the key %q was removed meanwhile", q.key.Name)
	}
	b.baseSessions[q.promptKey()] = s
	b.mu.Unlock()
	b.storeBase(&q, s)
	b.mu.Lock()
	gone := b.removals[q.key.Name] != removals
	b.mu.Unlock()
	if gone { // while it was stored
		b.dropBases(ctx, q.key)
	}
	return s, nil
}

// keyFor reads the key that q was resolved to.
func (b *Broker) keyFor(ctx context.Context, q *query) (Key, error) {
	key, err := b.cfg.Keys.Key(ctx, q.key.Name)
	if err != nil {
		return Key{}, err
	}
	if key.AccessKeyID != q.key.AccessKeyID {
		key.SecretAccessKey.Clear()
		b.index.forget()
		return Key{}, errKeyChanged
	}
	b.noteUse(key.Name)
	return key, nil
}

// A storedBase is a base session in the keychain.
type storedBase struct {
	KeyID           string    `json:"key_id"`
	Serial          string    `json:"serial"`
	AccessKeyID     string    `json:"access_key_id"`
	SecretAccessKey string    `json:"secret_access_key"`
	SessionToken    string    `json:"session_token"`
	Expires         time.Time `json:"expires"`
	Verified        time.Time `json:"verified"`
	Request         string    `json:"request_id"`
}

// storeBase keeps s in the keychain. A keychain that cannot is no failure: the
// daemon then asks again after a restart.
func (b *Broker) storeBase(q *query, s *base) {
	if b.cfg.MFA.Vault == nil {
		return
	}
	data, err := json.Marshal(storedBase{
		KeyID: q.key.AccessKeyID, Serial: q.serial, AccessKeyID: s.creds.AccessKeyID,
		SecretAccessKey: s.creds.SecretAccessKey.Reveal(), SessionToken: s.creds.SessionToken.Reveal(),
		Expires: s.creds.Expires, Verified: s.verified, Request: s.request,
	})
	if err == nil {
		value := NewSecret(data)
		clear(data)
		defer value.Clear()
		err = b.cfg.MFA.Vault.PutSecret(context.Background(), vaultName(q.key), value)
	}
	if err != nil {
		b.cfg.Logger.Warn("the MFA session is not kept: a restart will ask again", "key", q.key.Name, "err", err)
	}
}

// loadBase takes up the base session that the keychain keeps for q's key, if
// it is of q's device. It returns nil for none.
func (b *Broker) loadBase(q *query) *base {
	b.mu.Lock()
	removals := b.removals[q.key.Name]
	b.mu.Unlock()
	s := b.readBase(q.key)
	if s == nil || s.serial != q.serial {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.removals[q.key.Name] != removals { // its key was removed meanwhile
		return nil
	}
	b.baseSessions[q.promptKey()] = s
	return s
}

// readBase returns the base session that the keychain keeps for a key, nil for
// none. What it says of itself counts only for the right key, not for longer
// than one lasts, and not from the future.
func (b *Broker) readBase(key KeyInfo) *base {
	if b.cfg.MFA.Vault == nil {
		return nil
	}
	value, err := b.cfg.MFA.Vault.Secret(context.Background(), vaultName(key))
	if err != nil {
		if CodeOf(err) != CodeNotFound {
			b.cfg.Logger.Warn("the kept MFA session cannot be read", "key", key.Name, "err", err)
		}
		return nil
	}
	defer value.Clear()
	var in storedBase
	now := b.cfg.Clock.Now()
	if err := json.Unmarshal(value.RevealBytes(), &in); err != nil {
		b.cfg.Logger.Warn("the kept MFA session is damaged", "key", key.Name)
		return nil
	}
	left := in.Expires.Sub(now)
	if in.KeyID != key.AccessKeyID || in.Serial == "" || in.SessionToken == "" ||
		left <= 0 || left > maxUserDuration || in.Verified.After(now) {
		return nil
	}
	return &base{
		key: key.Name, serial: in.Serial,
		creds: Credentials{
			AccessKeyID: in.AccessKeyID, SecretAccessKey: NewSecret(in.SecretAccessKey),
			SessionToken: NewSecret(in.SessionToken), Expires: in.Expires,
		},
		verified: in.Verified, request: in.Request, bootEnds: b.cfg.Clock.Boot() + left,
	}
}

// keyOrProof returns what key, which is f with the stored key, gives or, where
// AWS denies it that, what f gives with a session that MFA has proved: policies
// may want it. prove finds such a session, or says why there is none.
func keyOrProof[V any](key func() (V, error), prove func(denied error) (*base, error), f func(Credentials) (V, error)) (V, error) {
	v, err := key()
	if !refusedWith(err, accessDenied...) {
		return v, err
	}
	proof, err := prove(err)
	if err != nil {
		return v, err
	}
	return f(proof.creds)
}

// dropBases forgets what was proved for a key.
func (b *Broker) dropBases(ctx context.Context, key KeyInfo) {
	b.mu.Lock()
	for k := range b.baseSessions {
		if strings.HasPrefix(k, key.AccessKeyID+"\x00") {
			delete(b.baseSessions, k)
		}
	}
	b.mu.Unlock()
	if b.cfg.MFA.Vault == nil {
		return
	}
	if err := b.cfg.MFA.Vault.RemoveSecret(ctx, vaultName(key)); err != nil && CodeOf(err) != CodeNotFound {
		b.cfg.Logger.Warn("the kept MFA session of a removed key is still in the keychain", "key", key.Name, "err", err)
	}
}

// old reports whether a refusal may be for the age of the proof s: then a
// new one is worth a question, once.
func (b *Broker) old(s *base, cacheKey string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cfg.Clock.Now().Sub(s.verified) > freshBase && !s.denied[cacheKey]
}

// refusedFresh notes that age was not why cacheKey was refused.
func (b *Broker) refusedFresh(s *base, cacheKey string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.denied == nil {
		s.denied = make(map[string]bool)
	}
	s.denied[cacheKey] = true
}
