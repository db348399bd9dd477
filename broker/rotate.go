package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gatepass/profiles"
)

// A RotateRequest asks that a stored key be replaced by a new one.
type RotateRequest struct {
	Name   string
	Keep   time.Duration // how long the old key stays as it is; 0 ends it at once
	Finish bool          // end an old key that is kept, now
	Region string        // where to prove the new key; "" for the default
	Files  profiles.Files

	Serial    string // of the MFA device, for policies that want it; "" looks in the profiles
	Reachable Reachable
	Code      Secret
}

// Rotated tells what became of a rotation.
type Rotated struct {
	KeyInfo
	Old      string    `json:"old_access_key_id"`
	OldUntil time.Time `json:"old_until,omitzero"` // when the old key ends; zero: it has
}

// A Rotation is the journal of one that is not finished. With the keychain it
// says where to go on, whenever the daemon ended: the new key's secret is
// there, as an item of its own, from when AWS made it until the rotation ends.
type Rotation struct {
	Step    string        `json:"step"`
	Old     string        `json:"old"`           // access key ids
	New     string        `json:"new,omitempty"` // once it is known
	UserARN string        `json:"user_arn"`
	Region  string        `json:"region,omitempty"`
	Started time.Time     `json:"started"`
	Keep    time.Duration `json:"keep,omitempty"`
	Until   time.Time     `json:"until,omitzero"` // for StepKept
}

// The steps of a rotation, each on disk before what it names is done.
const (
	StepCreate = "create" // IAM is asked for a new key, which goes to the keychain beside the old one
	StepProve  = "prove"  // the new key is used until it is known everywhere, then takes the old one's place
	StepKept   = "kept"   // the old key lives on for a while
	StepRetire = "retire" // the old key is deactivated, the new one proved again, the old one deleted
)

const (
	// provedUses is how many uses in a row AWS must accept before a new key
	// counts: while it spreads, some parts of AWS know it and some do not.
	provedUses   = 5
	proveEvery   = time.Second
	proveSlower  = 3 * time.Second // after a refusal
	provePatient = 2 * time.Minute
	// keptRetry is when the daemon tries again to end a kept key.
	keptRetry = time.Hour
	// orphanSlack allows for clocks that differ from AWS's.
	orphanSlack = 5 * time.Minute
)

// RotateKey replaces a stored key by a new one of the same user, or goes on
// with a rotation that was interrupted. At every moment a key that works is
// stored under the name. Its error may be an [*AskError].
func (b *Broker) RotateKey(ctx context.Context, caller Caller, req RotateRequest) (Rotated, error) {
	if err := b.Outside(ctx, caller, "rotate keys"); err != nil {
		return Rotated{}, err
	}
	arrived := b.cfg.Clock.Now()
	r := &rotation{Broker: b, caller: caller, req: req, q: &query{key: KeyInfo{Name: req.Name}}}
	out, err := r.run(ctx, arrived)
	r.proof = nil
	if err == nil {
		return out, nil
	}
	if ask, ok := asAsk(err); ok {
		return Rotated{}, ask
	}
	err = fmt.Errorf("rotate key %q: %w", req.Name, err)
	if note, _ := b.notes.of(req.Name); note.Rotation != nil && note.Rotation.Step != StepKept {
		e := AsError(err)
		again := "nothing is lost; to go on: gatepass keys rotate " + req.Name
		if e.Hint != "" {
			again = e.Hint + "; " + again
		}
		err = e.WithHint("%s", again)
	}
	return Rotated{}, b.refuse(ctx, caller, r.q, "", err)
}

// A rotation is one call that works on a [Rotation].
type rotation struct {
	*Broker
	caller Caller
	req    RotateRequest
	q      *query // what entries tell; its key is the stored one
	note   Rotation
	proof  *base // signs IAM's calls where the policy wants MFA

	patience time.Duration // on the clock that counts suspend: until when a key may be unknown to AWS
}

// user is the name of the key's user.
func (r *rotation) user() string {
	return r.note.UserARN[strings.LastIndexByte(r.note.UserARN, '/')+1:]
}

func (r *rotation) run(ctx context.Context, arrived time.Time) (Rotated, error) {
	if r.cfg.IAM == nil || r.cfg.MFA.Vault == nil {
		return Rotated{}, Errorf(CodeConfig, "this daemon has no way to IAM or to the keychain")
	}
	if err := r.open(ctx, r.caller, "", r.req.Reachable); err != nil {
		return Rotated{}, err
	}
	release, err := r.changeKeys(ctx)
	if err != nil {
		return Rotated{}, err
	}
	defer release()
	r.patience = r.cfg.Clock.Boot() + provePatient
	note, err := r.notes.of(r.req.Name)
	if err != nil {
		return Rotated{}, err
	}
	r.index.forget() // what it says decides
	r.q.key, err = r.index.lookup(ctx, r.req.Name)
	if rot := note.Rotation; err != nil && CodeOf(err) == CodeNotFound && rot != nil && rot.Step == StepProve {
		// A keychain may lose an item while it replaces it. The new key is
		// beside it.
		r.q.key, err = KeyInfo{Name: r.req.Name, AccessKeyID: rot.Old, UserARN: rot.UserARN}, nil
	}
	if err != nil {
		return Rotated{}, err
	}
	switch rot := note.Rotation; {
	case rot == nil && r.req.Finish:
		return Rotated{}, Errorf(CodeUsage, "there is no old key to end")
	case rot == nil && note.Rotated.After(arrived):
		return Rotated{}, Errorf(CodeUsage, "it was rotated just now, by somebody else")
	case rot == nil:
		err = r.begin(ctx)
	case rot.Step == StepKept && !r.req.Finish:
		return Rotated{}, Errorf(CodeUsage, "it was rotated on %s, and its old key %s is kept until %s",
			note.Rotated.Format("2 January 15:04 MST"), rot.Old, rot.Until.Format("2 January 15:04 MST")).
			WithHint("to end the old key now: gatepass keys rotate %s --finish", r.req.Name)
	default:
		r.note = *rot
		if r.req.Keep > 0 {
			if rot.Step == StepRetire {
				return Rotated{}, Errorf(CodeUsage, "the old key %s cannot be kept any more: it is being ended", rot.Old).
					WithHint("without --keep-old it goes on: gatepass keys rotate %s", r.req.Name)
			}
			r.note.Keep = r.req.Keep // on disk with the next step
		}
		if rot.Step == StepCreate {
			err = r.recoverCreate(ctx)
		}
	}
	if err != nil {
		return Rotated{}, err
	}
	if r.note.Step == StepProve {
		if err := r.replace(ctx); err != nil {
			return Rotated{}, err
		}
	}
	if r.note.Step == StepKept && !r.req.Finish {
		r.await(r.req.Name, r.note.Until)
		return Rotated{KeyInfo: r.q.key, Old: r.note.Old, OldUntil: r.note.Until}, nil
	}
	if err := r.retire(ctx); err != nil {
		return Rotated{}, err
	}
	return Rotated{KeyInfo: r.q.key, Old: r.note.Old}, nil
}

// save puts the journal on disk.
func (r *rotation) save(ctx context.Context, change func(*Rotation)) error {
	next := r.note
	change(&next)
	err := r.notes.update(context.WithoutCancel(ctx), r.req.Name, func(n *KeyNote) { n.Rotation = &next })
	if err == nil {
		r.note = next
	}
	return err
}

// record writes, before it is done, what is done to which key.
func (r *rotation) record(kind EventKind, reason string) error {
	e := r.event(kind, OutcomeOK, r.caller, r.q)
	e.Reason = reason
	return r.cfg.Log.Append(context.Background(), e, true)
}

// rotationItem is the keychain item of a name's new key.
func rotationItem(name string) string { return "rotate-" + name }

// found goes on with a rotation of which the keychain alone tells: the journal
// is lost.
func (r *rotation) found(ctx context.Context) (bool, error) {
	stored, old, err := r.stored(ctx)
	switch {
	case CodeOf(err) == CodeNotFound:
		return false, nil
	case err != nil:
		return false, err
	}
	stored.SecretAccessKey.Clear()
	if r.note.Old != old && r.note.Old != stored.AccessKeyID {
		return false, nil // of a key that was stored here before
	}
	r.note.Started = r.cfg.Clock.Now().UTC()
	return true, r.save(ctx, func(n *Rotation) { n.Step, n.Old, n.New = StepProve, old, stored.AccessKeyID })
}

// begin looks before it starts: nothing is changed when it refuses.
func (r *rotation) begin(ctx context.Context) error {
	r.note = Rotation{Step: StepCreate, Old: r.q.key.AccessKeyID, UserARN: r.q.key.UserARN, Region: r.req.Region, Keep: r.req.Keep}
	if r.note.UserARN == "" {
		id, err := withKey(ctx, r, func(creds Credentials) (Identity, error) {
			return r.cfg.STS.CallerIdentity(ctx, creds, Target{Region: r.note.Region})
		})
		if err != nil {
			return err
		}
		r.note.UserARN = id.ARN
	}
	if !strings.Contains(r.note.UserARN, ":user/") {
		return Errorf(CodeDenied, "it is of %s, and only keys of IAM users are rotated", r.note.UserARN).
			WithHint("make an IAM user that may do only what it needs, and use its key")
	}
	if resumed, err := r.found(ctx); resumed || err != nil {
		return err
	}
	keys, err := r.list(ctx)
	if err != nil {
		return err
	}
	if len(keys) > 1 {
		return r.tooMany(keys)
	}
	r.note.Started = r.cfg.Clock.Now().UTC()
	if err := r.save(ctx, func(*Rotation) {}); err != nil {
		return err
	}
	return r.create(ctx)
}

func (r *rotation) list(ctx context.Context) ([]AccessKey, error) {
	return callIAM(ctx, r, func(creds Credentials) ([]AccessKey, error) {
		return r.cfg.IAM.AccessKeys(ctx, creds, r.note.UserARN)
	})
}

// tooMany explains AWS's limit with the way out.
func (r *rotation) tooMany(keys []AccessKey) error {
	e := Errorf(CodeAWSDenied, "the user %s has two access keys, AWS allows no more, and a rotation needs room for a new one", r.user())
	for _, k := range keys {
		if k.ID == r.note.Old {
			continue
		}
		state := "inactive"
		if k.Active {
			state = "active"
		}
		e = Errorf(CodeAWSDenied, "%s; the other is %s (%s, made on %s)", e.Message, k.ID, state, k.Created.Format("2 January 2006")).
			WithHint("if nothing uses it any more: aws iam delete-access-key --user-name %s --access-key-id %s", r.user(), k.ID)
	}
	return e
}

// A storedNew is the new key in the keychain.
type storedNew struct {
	Old    string `json:"old"` // access key id
	KeyID  string `json:"key_id"`
	Secret string `json:"secret"`
}

// create asks IAM for the new key and stores it beside the old one.
func (r *rotation) create(ctx context.Context) error {
	if err := r.record(EventKeyRotating, "a new access key is asked for"); err != nil {
		return r.undo(ctx, err)
	}
	detached := context.WithoutCancel(ctx) // whoever leaves must not lose AWS's answer
	unclear := false                       // whether AWS has made a key all the same
	made, err := callIAM(ctx, r, func(creds Credentials) (Credentials, error) {
		made, err := r.cfg.IAM.CreateAccessKey(detached, creds, r.note.UserARN)
		_, answered := asRefusal(err)
		unclear = err != nil && (!answered || CodeOf(err) == CodeAWSUnreachable)
		return made, err
	})
	switch {
	case unclear:
		return err // the journal finds it
	case err != nil:
		return r.undo(ctx, err)
	}
	defer made.SecretAccessKey.Clear()
	data, err := json.Marshal(storedNew{Old: r.note.Old, KeyID: made.AccessKeyID, Secret: made.SecretAccessKey.Reveal()})
	if err == nil {
		value := NewSecret(data)
		clear(data)
		err = r.cfg.MFA.Vault.PutSecret(detached, rotationItem(r.req.Name), value)
		value.Clear()
	}
	if err != nil {
		err = fmt.Errorf("store the new key %s: %w", made.AccessKeyID, err)
		if gone := r.drop(detached, made.AccessKeyID); gone != nil {
			r.cfg.Logger.Warn("a new access key that could not be stored is left at AWS", "access_key_id", made.AccessKeyID, "err", gone)
			return err // the journal finds it again
		}
		return r.undo(ctx, err)
	}
	return r.save(ctx, func(n *Rotation) { n.Step, n.New = StepProve, made.AccessKeyID })
}

// undo forgets a rotation that has changed nothing.
func (r *rotation) undo(ctx context.Context, err error) error {
	if failed := r.notes.update(context.WithoutCancel(ctx), r.req.Name, func(n *KeyNote) { n.Rotation = nil }); failed != nil {
		r.cfg.Logger.Warn("a rotation that did not begin is still noted", "key", r.req.Name, "err", failed)
	}
	return err
}

// drop deletes a new key that is not in use.
func (r *rotation) drop(ctx context.Context, id string) error {
	if err := r.record(EventKeyRotating, "the new access key "+id+", which cannot be used, is deleted"); err != nil {
		return err
	}
	_, err := callIAM(ctx, r, func(creds Credentials) (struct{}, error) {
		return struct{}{}, r.cfg.IAM.DeleteAccessKey(ctx, creds, r.note.UserARN, id)
	})
	return err
}

// recoverCreate goes on after an end between the intent to create and the
// note that it was done: with the new key where the keychain has it, else with
// another, once the one whose secret nobody has is deleted.
func (r *rotation) recoverCreate(ctx context.Context) error {
	if resumed, err := r.found(ctx); resumed || err != nil {
		return err
	}
	keys, err := r.list(ctx)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.ID == r.note.Old {
			continue
		}
		// Ours, if it was made since and never used: whoever else had made one
		// would use it.
		used, err := callIAM(ctx, r, func(creds Credentials) (time.Time, error) {
			return r.cfg.IAM.AccessKeyUsed(ctx, creds, r.note.UserARN, k.ID)
		})
		if err != nil || !used.IsZero() || k.Created.Before(r.note.Started.Add(-orphanSlack)) {
			return r.tooMany(keys)
		}
		if err := r.drop(context.WithoutCancel(ctx), k.ID); err != nil {
			return err
		}
	}
	return r.create(ctx)
}

// stored returns the new key from the keychain, and the id of the one that it
// is to replace.
func (r *rotation) stored(ctx context.Context) (_ Credentials, old string, err error) {
	value, err := r.cfg.MFA.Vault.Secret(ctx, rotationItem(r.req.Name))
	if err != nil {
		return Credentials{}, "", err
	}
	defer value.Clear()
	var in storedNew
	if json.Unmarshal(value.RevealBytes(), &in) != nil || CheckAccessKeyID(in.Old) != nil || CheckAccessKeyID(in.KeyID) != nil || in.Secret == "" {
		return Credentials{}, "", Errorf(CodeData, "the new key in the keychain is damaged").
			WithHint("remove the item %q from the keychain", rotationItem(r.req.Name))
	}
	return Credentials{AccessKeyID: in.KeyID, SecretAccessKey: NewSecret(in.Secret)}, in.Old, nil
}

// replace proves the new key and lets it take the old one's place.
func (r *rotation) replace(ctx context.Context) error {
	detached := context.WithoutCancel(ctx)
	if r.q.key.AccessKeyID != r.note.New { // else it has
		fresh, _, err := r.stored(ctx)
		if CodeOf(err) == CodeNotFound {
			if err := r.remake(ctx); err != nil {
				return err
			}
			fresh, _, err = r.stored(ctx)
		}
		if err != nil {
			return err
		}
		defer fresh.SecretAccessKey.Clear()
		if err := r.prove(ctx, fresh, provedUses); err != nil {
			return r.lost(ctx, err)
		}
		info := KeyInfo{Name: r.req.Name, AccessKeyID: r.note.New, UserARN: r.note.UserARN, Added: r.cfg.Clock.Now().UTC()}
		old := r.q.key
		r.q.key = info
		if err := r.record(EventKeyRotated, "it takes the place of "+r.note.Old); err != nil {
			r.q.key = old
			return err
		}
		key := Key{KeyInfo: info, SecretAccessKey: fresh.SecretAccessKey}
		err = r.cfg.Keys.PutKey(detached, key)
		r.index.forget()
		if err == nil {
			err = r.readBack(detached, key)
		}
		if err != nil {
			r.q.key = old
			return err
		}
	}
	// Sessions of the old key are served no more. What is being minted with
	// it is good, and is found by nobody after.
	r.Broker.drop("key rotated", func(s *session) bool { return s.q.key.AccessKeyID == r.note.Old })
	now := r.cfg.Clock.Now().UTC()
	next := r.note
	next.Step = StepRetire
	if next.Keep > 0 {
		next.Step, next.Until = StepKept, now.Add(next.Keep)
	}
	err := r.notes.update(detached, r.req.Name, func(n *KeyNote) { n.Rotation, n.Rotated, n.Created = &next, now, time.Time{} })
	if err == nil {
		r.note = next
	}
	return err
}

// remake makes another new key in the place of one that the keychain lost: AWS
// tells its secret once.
func (r *rotation) remake(ctx context.Context) error {
	if err := r.drop(context.WithoutCancel(ctx), r.note.New); err != nil && !refusedWith(err, "NoSuchEntity") {
		return err
	}
	if err := r.save(ctx, func(n *Rotation) { n.Step, n.New = StepCreate, "" }); err != nil {
		return err
	}
	return r.create(ctx)
}

// lost looks why a new key is not accepted: one that was deleted at AWS
// meanwhile will never be, and its rotation is over.
func (r *rotation) lost(ctx context.Context, err error) error {
	if !unknownYet(err) {
		return err
	}
	keys, failed := r.list(ctx)
	if failed != nil || slices.ContainsFunc(keys, func(k AccessKey) bool { return k.ID == r.note.New }) {
		return AsError(err).WithHint("to give it up: aws iam delete-access-key --user-name %s --access-key-id %s", r.user(), r.note.New)
	}
	if failed := r.cfg.MFA.Vault.RemoveSecret(ctx, rotationItem(r.req.Name)); failed != nil && CodeOf(failed) != CodeNotFound {
		return failed
	}
	return r.undo(ctx, Errorf(CodeAWSDenied, "the new key %s was deleted at AWS meanwhile; the old one is in use as before", r.note.New).
		WithHint("begin again: gatepass keys rotate %s", r.req.Name))
}

// unknownYet reports whether err is what AWS answers where it does not know a
// new key yet.
func unknownYet(err error) bool {
	return refusedWith(err, "InvalidClientTokenId", "InvalidAccessKeyId", "UnrecognizedClientException", "SignatureDoesNotMatch") ||
		CodeOf(err) == CodeThrottled
}

// prove uses a key until AWS has accepted it n times in a row.
func (r *rotation) prove(ctx context.Context, creds Credentials, n int) error {
	for accepted := 0; ; {
		id, err := patiently(ctx, r, func() (Identity, error) {
			id, err := r.cfg.STS.CallerIdentity(ctx, creds, Target{Region: r.note.Region})
			if err != nil {
				accepted = 0
			}
			return id, err
		})
		if err != nil {
			return fmt.Errorf("prove the key %s: %w", creds.AccessKeyID, err)
		}
		if id.ARN != r.note.UserARN {
			return Errorf(CodeAWSDenied, "AWS says that the new key is of %s, not of %s", id.ARN, r.note.UserARN)
		}
		if accepted++; accepted == n {
			return nil
		}
		if err := r.pause(ctx, proveEvery); err != nil {
			return err
		}
	}
}

// patiently calls f until it is not for the newness of a key that it fails.
func patiently[V any](ctx context.Context, r *rotation, f func() (V, error)) (V, error) {
	for {
		v, err := f()
		if err == nil || !unknownYet(err) {
			return v, err
		}
		if r.cfg.Clock.Boot()+proveSlower > r.patience {
			return v, fmt.Errorf("not known everywhere at AWS after %s: %w", provePatient, err)
		}
		if failed := r.pause(ctx, proveSlower); failed != nil {
			return v, failed
		}
	}
}

// pause waits for d.
func (b *Broker) pause(ctx context.Context, d time.Duration) error {
	done := make(chan struct{})
	stop := b.cfg.Clock.AfterFunc(d, func() { close(done) })
	defer stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retire ends the old key: it is deactivated, and deleted once the new one was
// seen to work without it.
func (r *rotation) retire(ctx context.Context) error {
	detached := context.WithoutCancel(ctx)
	if r.note.Step != StepRetire {
		if err := r.save(ctx, func(n *Rotation) { n.Step = StepRetire }); err != nil {
			return err
		}
	}
	change := func(reason string, do func(creds Credentials) error) error {
		if err := r.record(EventKeyRotating, reason); err != nil {
			return err
		}
		_, err := patiently(ctx, r, func() (struct{}, error) {
			return callIAM(ctx, r, func(creds Credentials) (struct{}, error) { return struct{}{}, do(creds) })
		})
		if refusedWith(err, "NoSuchEntity") {
			return nil // it is gone already
		}
		return err
	}
	err := change("the old access key "+r.note.Old+" is deactivated", func(creds Credentials) error {
		return r.cfg.IAM.SetAccessKeyStatus(detached, creds, r.note.UserARN, r.note.Old, false)
	})
	if err != nil {
		return err
	}
	_, err = withKey(ctx, r, func(creds Credentials) (struct{}, error) { return struct{}{}, r.prove(ctx, creds, 2) })
	if err != nil {
		again := change("the old access key "+r.note.Old+" is activated again", func(creds Credentials) error {
			return r.cfg.IAM.SetAccessKeyStatus(detached, creds, r.note.UserARN, r.note.Old, true)
		})
		if again != nil {
			r.cfg.Logger.Warn("the old access key is inactive", "access_key_id", r.note.Old, "err", again)
		}
		return err
	}
	err = change("the old access key "+r.note.Old+" is deleted", func(creds Credentials) error {
		return r.cfg.IAM.DeleteAccessKey(detached, creds, r.note.UserARN, r.note.Old)
	})
	if err != nil {
		return err
	}
	if err := r.cfg.MFA.Vault.RemoveSecret(detached, rotationItem(r.req.Name)); err != nil && CodeOf(err) != CodeNotFound {
		return err
	}
	r.dropBases(detached, KeyInfo{Name: r.req.Name, AccessKeyID: r.note.Old})
	return r.notes.update(detached, r.req.Name, func(n *KeyNote) { n.Rotation = nil })
}

// withKey calls f with the stored key.
func withKey[V any](ctx context.Context, r *rotation, f func(Credentials) (V, error)) (V, error) {
	key, err := r.keyFor(ctx, r.q)
	if err != nil {
		var none V
		return none, err
	}
	defer key.SecretAccessKey.Clear()
	return f(key.Credentials())
}

// callIAM calls f with the stored key or, where AWS refuses that, with a
// session that MFA has proved: policies may want it for changes of keys.
func callIAM[V any](ctx context.Context, r *rotation, f func(Credentials) (V, error)) (V, error) {
	proved := func(creds Credentials) (V, error) {
		v, err := f(creds)
		if refusedWith(err, "InvalidClientTokenId", "UnrecognizedClientException", "ExpiredToken", "ExpiredTokenException") {
			// Perhaps it has ended with the key that it came from: the next
			// try takes another.
			r.proof = nil
			for _, id := range []string{r.q.key.AccessKeyID, r.note.Old} {
				r.dropBases(context.WithoutCancel(ctx), KeyInfo{Name: r.req.Name, AccessKeyID: id})
			}
		}
		return v, err
	}
	if r.proof != nil {
		return proved(r.proof.creds)
	}
	return keyOrProof(func() (V, error) { return withKey(ctx, r, f) }, func(denied error) (*base, error) {
		proof, err := r.mfaProof(ctx)
		switch {
		case err != nil:
			return nil, err
		case proof == nil:
			return nil, AsError(denied).WithHint("the user's policy must allow iam:ListAccessKeys, CreateAccessKey, UpdateAccessKey, DeleteAccessKey and GetAccessKeyLastUsed on the user itself; if it wants MFA: gatepass keys rotate %s --mfa-serial ARN", r.req.Name)
		}
		r.proof = proof
		r.patience = r.cfg.Clock.Boot() + provePatient // whatever time a person took
		return proof, nil
	}, proved)
}

// mfaProof returns a session of the user with MFA: one that is kept, or a new
// one for a code. It returns none where no device is known.
func (r *rotation) mfaProof(ctx context.Context) (*base, error) {
	q := r.mfaQuery()
	if q.serial == "" {
		return nil, nil
	}
	for _, id := range []string{r.q.key.AccessKeyID, r.note.Old} {
		of := *q
		of.key.AccessKeyID = id
		s := r.knownBase(&of)
		if s == nil {
			s = r.loadBase(&of)
		}
		if s != nil && s.left(r.cfg.Clock) >= baseMargin {
			return s, nil
		}
	}
	if r.caller.Via == "daemon" {
		return nil, errWouldAsk
	}
	w, err := r.waitAnswered(ctx, r.caller, q.matter(), q.profile, r.req.Reachable, r.req.Code)
	if err != nil {
		return nil, err
	}
	defer w.leave()
	return answered(r.prompts, w, func(wait context.Context) (*base, error) {
		return r.proofs.do(wait, q.promptKey(), func() (*base, error) {
			return r.base(r.caller, q, baseMargin, time.Time{}, true)
		}, nil)
	})
}

// mfaQuery is what a question for a code is about: the device that the request
// names, or that of the first profile which starts with the key and has one.
func (r *rotation) mfaQuery() *query {
	q := &query{profile: r.req.Name, key: r.q.key, target: Target{Region: r.note.Region}, serial: r.req.Serial}
	if q.serial != "" {
		return q
	}
	all, err := r.startingWith(r.req.Files, r.q.key)
	if err != nil {
		return q
	}
	for p := range all {
		if p.serial != "" {
			q.profile, q.serial, q.mfaProcess = p.profile, p.serial, p.mfaProcess
			return q
		}
	}
	return q
}

// forgetRotation forgets what is noted of a key that is removed.
func (b *Broker) forgetRotation(ctx context.Context, name string) {
	var err error
	if b.cfg.MFA.Vault != nil { // whatever the notes say of it: they may be lost
		if err = b.cfg.MFA.Vault.RemoveSecret(ctx, rotationItem(name)); CodeOf(err) == CodeNotFound {
			err = nil
		}
	}
	if err == nil {
		err = b.notes.update(ctx, name, func(n *KeyNote) { *n = KeyNote{} })
	}
	if err != nil {
		b.cfg.Logger.Warn("what is noted of a removed key is still there", "key", name, "err", err)
	}
}

// awaitKept waits for the ends of old keys that are kept.
func (b *Broker) awaitKept() {
	notes, err := b.notes.all()
	if err != nil {
		b.cfg.Logger.Warn("what is noted of keys cannot be read", "err", err)
	}
	for name, note := range notes {
		// One that was kept may have ended half.
		if rot := note.Rotation; rot != nil && (rot.Step == StepKept || rot.Step == StepRetire && !rot.Until.IsZero()) {
			b.await(name, rot.Until)
		}
	}
}

// await ends name's old key when its time has come. A daemon that cannot, as
// where AWS wants an MFA code, records why and tries again.
func (b *Broker) await(name string, until time.Time) {
	b.cfg.Clock.AfterFunc(max(until.Sub(b.cfg.Clock.Now()), 0), func() {
		b.mu.Lock()
		closed := b.closed
		b.mu.Unlock()
		note, err := b.notes.of(name)
		if closed || err != nil || note.Rotation == nil || note.Rotation.Step == StepCreate || note.Rotation.Step == StepProve || !note.Rotation.Until.Equal(until) {
			return
		}
		if now := b.cfg.Clock.Now(); now.Before(until) { // a clock was set back
			b.await(name, until)
			return
		}
		if b.whenOpen(func() { b.await(name, until) }) {
			return // nobody is asked for the daemon's own sake
		}
		if _, err := b.RotateKey(context.Background(), b.self(), RotateRequest{Name: name, Finish: true}); err != nil {
			b.cfg.Logger.Warn("an old access key is not ended yet", "key", name, "err", err)
			b.cfg.Clock.AfterFunc(keptRetry, func() { b.await(name, until) })
		}
	})
}

func asRefusal(err error) (*AWSRefusal, bool) { return errors.AsType[*AWSRefusal](err) }
