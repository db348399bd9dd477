package broker

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// keyIndex knows which keys are stored, without their secrets, so that a
// hand-out from the cache needs no keychain. It is read from the keychain
// when first needed and follows what passes through the broker.
type keyIndex struct {
	store KeyStore
	loads *flight[[]KeyInfo]

	mu         sync.Mutex
	keys       map[string]KeyInfo // nil until it was read
	generation int                // counts changes, so that a slower read does not undo one
	reads      int                // counts what keys was read from
}

func newKeyIndex(store KeyStore) *keyIndex {
	return &keyIndex{store: store, loads: newFlight[[]KeyInfo]()}
}

// lookup returns the named key. A name that is not known is looked for in the
// keychain again: another program may have put it there.
func (x *keyIndex) lookup(ctx context.Context, name string) (KeyInfo, error) {
	x.mu.Lock()
	info, ok := x.keys[name]
	reads := x.reads
	x.mu.Unlock()
	if ok {
		return info, nil
	}
	list, err := x.since(ctx, reads)
	if err != nil {
		return KeyInfo{}, err
	}
	for _, info := range list {
		if info.Name == name {
			return info, nil
		}
	}
	return KeyInfo{}, Errorf(CodeNotFound, "no key %q is stored", name)
}

// list reads the keychain.
func (x *keyIndex) list(ctx context.Context) ([]KeyInfo, error) { return x.since(ctx, math.MaxInt) }

// since reads the keychain, unless it has been read after the first reads of
// all: of many who look at once, the late need not read it again. Nobody waits
// for a read that began before the last change.
func (x *keyIndex) since(ctx context.Context, reads int) ([]KeyInfo, error) {
	x.mu.Lock()
	generation := x.generation
	x.mu.Unlock()
	return x.loads.do(ctx, strconv.Itoa(generation), func() ([]KeyInfo, error) {
		x.mu.Lock()
		if x.keys != nil && x.reads > reads {
			defer x.mu.Unlock()
			return slices.SortedFunc(maps.Values(x.keys), func(a, b KeyInfo) int { return strings.Compare(a.Name, b.Name) }), nil
		}
		x.mu.Unlock()
		list, err := x.store.Keys(context.Background())
		if err != nil {
			return nil, err
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.generation == generation {
			x.reads++
			x.keys = make(map[string]KeyInfo, len(list))
			for _, info := range list {
				x.keys[info.Name] = info
			}
		}
		return list, nil
	}, nil)
}

// names returns the names of the keys that are known to be stored, sorted.
func (x *keyIndex) names() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Sorted(maps.Keys(x.keys))
}

// known returns the keys by name, from the keychain only where it has not been
// read before.
func (x *keyIndex) known(ctx context.Context) (map[string]KeyInfo, error) {
	x.mu.Lock()
	keys := maps.Clone(x.keys)
	x.mu.Unlock()
	if keys != nil {
		return keys, nil
	}
	list, err := x.since(ctx, 0)
	if err != nil {
		return nil, err
	}
	keys = make(map[string]KeyInfo, len(list))
	for _, info := range list {
		keys[info.Name] = info
	}
	return keys, nil
}

// forget makes the next lookup read the keychain.
func (x *keyIndex) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.keys = nil
	x.generation++
}

// AddKey proves a key with GetCallerIdentity and stores it. A key that AWS
// refuses is not stored, nor is one whose entry cannot be written. Its error
// may be an [*AskError].
func (b *Broker) AddKey(ctx context.Context, caller Caller, k NewKey) (KeyInfo, error) {
	if err := b.Outside(ctx, caller, "store keys"); err != nil {
		return KeyInfo{}, err
	}
	info, err := b.addKey(ctx, caller, k, "")
	if ask, ok := asAsk(err); ok {
		return KeyInfo{}, ask
	}
	if err != nil {
		q := &query{key: KeyInfo{Name: k.Name}}
		if CheckAccessKeyID(k.AccessKeyID) == nil {
			q.key.AccessKeyID = k.AccessKeyID
		}
		return KeyInfo{}, b.refuse(ctx, caller, q, "", err)
	}
	return info, nil
}

// addKey adds a key; reason stands in its entry.
func (b *Broker) addKey(ctx context.Context, caller Caller, k NewKey, reason string) (KeyInfo, error) {
	if err := k.Check(); err != nil {
		return KeyInfo{}, err
	}
	if err := b.open(ctx, caller, "", k.Reachable); err != nil {
		return KeyInfo{}, err
	}
	release, err := b.changeKeys(ctx)
	if err != nil {
		return KeyInfo{}, err
	}
	defer release()
	stored, err := b.index.list(ctx)
	if err != nil {
		return KeyInfo{}, fmt.Errorf("store key %q: %w", k.Name, err)
	}
	for _, old := range stored {
		if old.Name == k.Name {
			return KeyInfo{}, Errorf(CodeUsage, "a key named %q is already stored (%s)", k.Name, old.AccessKeyID).
				WithHint("choose another name, or first: gatepass keys remove %s", k.Name)
		}
	}
	key := Key{
		KeyInfo:         KeyInfo{Name: k.Name, AccessKeyID: k.AccessKeyID, Added: b.cfg.Clock.Now().UTC()},
		SecretAccessKey: k.SecretAccessKey,
	}
	if !k.NoVerify {
		id, err := b.cfg.STS.CallerIdentity(ctx, key.Credentials(), Target{Region: k.Region})
		if err != nil {
			return KeyInfo{}, fmt.Errorf("key %q was not stored: %w", k.Name, err)
		}
		if strings.HasSuffix(id.ARN, ":root") && !k.AllowRoot {
			return KeyInfo{}, Errorf(CodeDenied, "key %q was not stored: it is the root user's of account %s, who may do anything", k.Name, id.Account).
				WithHint("make an IAM user and give it only what it needs; or insist with --allow-root")
		}
		key.UserARN = id.ARN
	}
	// The entry first: a key that could not be stored after it is recorded as
	// failed, while one that is stored without an entry could not be told.
	entry := Event{Kind: EventKeyAdded, Outcome: OutcomeOK, Account: accountOf(key.UserARN), Key: key.event(), Caller: &caller, Reason: reason}
	if err := b.cfg.Log.Append(context.WithoutCancel(ctx), entry, true); err != nil {
		return KeyInfo{}, fmt.Errorf("key %q was not stored: %w", k.Name, err)
	}
	defer b.index.forget()
	if err := b.cfg.Keys.PutKey(ctx, key); err != nil {
		return KeyInfo{}, fmt.Errorf("store key %q: %w", k.Name, err)
	}
	if err := b.readBack(ctx, key); err != nil {
		return KeyInfo{}, err
	}
	b.noteMade(ctx, key)
	return key.KeyInfo, nil
}

// readBack makes sure that the keychain gives back what it was given: whoever
// stores a key deletes it elsewhere next.
func (b *Broker) readBack(ctx context.Context, key Key) error {
	back, err := b.cfg.Keys.Key(ctx, key.Name)
	if err != nil {
		return fmt.Errorf("key %q was stored and cannot be read back: %w", key.Name, err)
	}
	defer back.SecretAccessKey.Clear()
	if back.AccessKeyID != key.AccessKeyID || !back.SecretAccessKey.Equal(key.SecretAccessKey) {
		return Errorf(CodeKeychainDenied, "key %q was stored, and the keychain gives back something else", key.Name).
			WithHint("keep the key where it is, and look at the keychain")
	}
	return nil
}

// changePatience is less than a client's: a rotation under way may take longer
// than either, and whoever waits for it is to be told so.
const changePatience = time.Minute

// changeKeys waits for its turn to change the stored keys.
func (b *Broker) changeKeys(ctx context.Context) (release func(), err error) {
	late := make(chan struct{})
	stop := b.cfg.Clock.AfterFunc(changePatience, func() { close(late) })
	defer stop()
	select {
	case b.keyChanges <- struct{}{}:
		return func() { <-b.keyChanges }, nil
	case <-late:
		return nil, Errorf(CodeLocked, "the stored keys are being changed by another command, perhaps a rotation").
			WithHint("wait until it is done, and try again")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Keys lists the stored keys by name. Its error may be an [*AskError].
func (b *Broker) Keys(ctx context.Context, caller Caller, how Reachable) ([]KeyState, error) {
	if err := b.Outside(ctx, caller, "list keys"); err != nil {
		return nil, err
	}
	if err := b.open(ctx, caller, "", how); err != nil {
		if ask, ok := asAsk(err); ok {
			return nil, ask
		}
		return nil, AsError(fmt.Errorf("list keys: %w", err))
	}
	list, err := b.index.list(ctx)
	if err != nil {
		return nil, AsError(fmt.Errorf("list keys: %w", err))
	}
	notes, err := b.notes.all()
	if err != nil { // a listing without them says more than none
		b.cfg.Logger.Warn("what is noted of keys cannot be read", "err", err)
	}
	states := make([]KeyState, len(list))
	for i, info := range list {
		states[i] = KeyState{KeyInfo: info, KeyNote: notes[info.Name]}
	}
	return states, nil
}

// RemoveKey removes a key. Its sessions are served no more, at once. Its error
// may be an [*AskError].
func (b *Broker) RemoveKey(ctx context.Context, caller Caller, name string, how Reachable) error {
	if err := b.Outside(ctx, caller, "remove keys"); err != nil {
		return err
	}
	q := &query{key: KeyInfo{Name: name}}
	if err := b.open(ctx, caller, "", how); err != nil {
		if ask, ok := asAsk(err); ok {
			return ask
		}
		return b.refuse(ctx, caller, q, "", fmt.Errorf("remove key: %w", err))
	}
	release, err := b.changeKeys(ctx)
	if err != nil {
		return b.refuse(ctx, caller, q, "", err)
	}
	defer release()
	info, err := b.index.lookup(ctx, name)
	if err != nil {
		return b.refuse(ctx, caller, q, "", fmt.Errorf("remove key: %w", err))
	}
	q.key = info
	// The entry first, as in AddKey.
	entry := Event{Kind: EventKeyRemoved, Outcome: OutcomeOK, Account: accountOf(info.UserARN), Key: info.event(), Caller: &caller}
	if err := b.cfg.Log.Append(context.WithoutCancel(ctx), entry, true); err != nil {
		return b.remember(caller, "", fmt.Errorf("key %q was not removed: %w", name, err))
	}
	// Twice: at once, however long the keychain takes, and again for what was
	// minted until it had let go of the key.
	b.dropKey(name)
	defer b.dropBases(context.WithoutCancel(ctx), info) // what was stored until then
	defer b.dropKey(name)
	if err := b.cfg.Keys.RemoveKey(ctx, name); err != nil {
		return b.refuse(ctx, caller, q, "", fmt.Errorf("remove key %q: %w", name, err))
	}
	b.forgetRotation(context.WithoutCancel(ctx), name)
	return nil
}

// dropKey ends a key's sessions and proofs, those being got included.
func (b *Broker) dropKey(name string) {
	b.index.forget()
	b.mu.Lock()
	b.removals[name]++
	maps.DeleteFunc(b.baseSessions, func(_ string, s *base) bool { return s.key == name })
	b.mu.Unlock()
	b.drop("key removed", func(s *session) bool { return s.q.key.Name == name })
}
