package broker_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/profiles"
)

// A world is a Broker with fakes at its edges, all on the bubble's clock.
type world struct {
	*broker.Broker
	keys   *fakeKeys
	sts    *fakeSTS
	iam    *fakeIAM // nil for none
	log    *fakeLog
	vault  fakeVault
	mfa    broker.MFA
	leases *broker.Leases
	// profiles are what they mean at first, unless a test puts others here.
	profiles broker.Resolver
	// awsVault is nil where there is no way to one.
	awsVault broker.AWSVaultStore
	notes    fakeNotes
	// unlocker is nil for a keychain that needs no passphrase.
	unlocker broker.Unlocker
	// skew is added to the wall clock, slept to the boot clock.
	skew, slept time.Duration
	// looking, if not nil, is called before the wall clock is read; stopping
	// before a timer that was set for d is stopped.
	looking  func()
	stopping func(d time.Duration)
}

const (
	roleARN = "arn:aws:iam::111122223333:role/Deploy"
	userARN = "arn:aws:iam::111122223333:user/alice"
)

func newWorld(t *testing.T) *world { return newWorldWith(t, broker.MFA{}) }

func newWorldWith(t *testing.T, mfa broker.MFA) *world {
	w := &world{
		vault: fakeVault{},
		notes: fakeNotes{},
		keys:  &fakeKeys{keys: map[string]broker.Key{}},
		sts:   &fakeSTS{},
		iam:   &fakeIAM{},
		log:   &fakeLog{},
	}
	w.keys.keys["alice"] = key("alice", "AKIAALICE00000000001")
	// What waits for a client that never comes back ends by itself.
	t.Cleanup(func() { time.Sleep(broker.PromptLifeForTest) })
	mfa.Vault = w.vault
	w.mfa = mfa
	w.start()
	return w
}

// start makes the Broker anew, as a restart of the daemon does.
func (w *world) start() {
	start := time.Now()
	w.sts.now = func() time.Time { return time.Now().Add(w.skew) }
	cfg := broker.Config{
		Keys: w.keys, Unlocker: w.unlocker, STS: w.sts, AWSVault: w.awsVault, Notes: w.notes, Log: w.log, Logger: slog.New(slog.DiscardHandler),
		Profiles: w.meaning(fakeProfiles{
			"ops":   {Profile: "ops", Key: "alice", Region: "eu-west-1", Hops: []profiles.Hop{{Profile: "ops", RoleARN: roleARN}}},
			"ops2":  {Profile: "ops2", Key: "alice", Hops: []profiles.Hop{{Profile: "ops2", RoleARN: roleARN}}},
			"short": {Profile: "short", Key: "alice", Hops: []profiles.Hop{{Profile: "short", RoleARN: roleARN, Duration: 15 * time.Minute}}},
			"plain": {Profile: "plain", Key: "alice"},
			"lost":  {Profile: "lost", Key: "bob", Way: []string{"lost"}, KeyFrom: profiles.KeyFrom{Profile: "lost", Explicit: true}},
			"typo":  {Profile: "typo", Key: "alcie", Way: []string{"typo", "hub"}, KeyFrom: profiles.KeyFrom{Profile: "hub", Explicit: true}, Hops: []profiles.Hop{{Profile: "hub", RoleARN: roleARN}}},
			"keyless": {
				Profile: "keyless", Key: "hub\x1b", Way: []string{"keyless", "hub\x1b"}, KeyFrom: profiles.KeyFrom{Profile: "hub\x1b"},
				Hops: []profiles.Hop{{Profile: "hub\x1b", RoleARN: roleARN}, {Profile: "keyless", RoleARN: roleARN}},
			},
			"odd":      {Profile: "odd", Key: "x';reboot", Way: []string{"odd"}, KeyFrom: profiles.KeyFrom{Profile: "odd", Explicit: true}},
			"alice2":   {Profile: "alice2", Key: "alice2", Way: []string{"alice2"}, KeyFrom: profiles.KeyFrom{Profile: "alice2"}, Hops: []profiles.Hop{{Profile: "alice2", RoleARN: roleARN}}},
			"mfa":      {Profile: "mfa", Key: "alice", Hops: []profiles.Hop{{Profile: "mfa", RoleARN: roleARN, MFASerial: "arn:aws:iam::111122223333:mfa/alice"}}},
			"plainmfa": {Profile: "plainmfa", Key: "alice", MFASerial: "arn:aws:iam::111122223333:mfa/alice"},
			"long":     {Profile: "long", Key: "alice", Hops: []profiles.Hop{{Profile: "long", RoleARN: roleARN, MFASerial: "arn:aws:iam::111122223333:mfa/alice", Duration: 4 * time.Hour}}},
			"program":  {Profile: "program", Key: "alice", Hops: []profiles.Hop{{Profile: "program", RoleARN: roleARN, MFASerial: "arn:aws:iam::111122223333:mfa/alice", MFAProcess: "oathtool"}}},
			"two devices": {Profile: "two devices", Key: "alice", Hops: []profiles.Hop{
				{Profile: "mfa", RoleARN: roleARN, MFASerial: "arn:aws:iam::111122223333:mfa/alice"},
				{Profile: "two devices", RoleARN: roleARN, MFASerial: "arn:aws:iam::111122223333:mfa/bob"},
			}},
			"endless": {Profile: "endless", Key: "alice", Hops: make([]profiles.Hop, 17)},
			"chain": {Profile: "chain", Key: "alice", Hops: []profiles.Hop{
				{Profile: "ops", RoleARN: roleARN},
				{Profile: "chain", RoleARN: "arn:aws:iam::444455556666:role/Far", Duration: 12 * time.Hour},
			}},
		}),
		Clock: broker.Clock{
			Now: func() time.Time {
				if w.looking != nil {
					w.looking()
				}
				return time.Now().Add(w.skew).Round(0)
			},
			Boot: func() time.Duration { return time.Since(start) + w.slept },
			AfterFunc: func(d time.Duration, f func()) func() {
				timer := time.AfterFunc(d, f)
				return func() {
					if w.stopping != nil {
						w.stopping(d)
					}
					timer.Stop()
				}
			},
		},
		Files:  profiles.Files{Config: "/home/alice/.aws/config", Credentials: "/home/alice/.aws/credentials"},
		Daemon: broker.DaemonStatus{PID: 42, Version: "test"},
		MFA:    w.mfa,
		Leases: w.leases,
	}
	if w.iam != nil {
		cfg.IAM = w.iam
	}
	w.Broker = broker.New(cfg)
}

func (w *world) meaning(p fakeProfiles) broker.Resolver {
	if w.profiles == nil {
		w.profiles = p
	}
	return w.profiles
}

// fakeNotes is a notebook on no disk.
type fakeNotes map[string]broker.KeyNote

func (f fakeNotes) Notes() (map[string]broker.KeyNote, error) { return maps.Clone(f), nil }

func (f fakeNotes) SaveNotes(notes map[string]broker.KeyNote) error {
	clear(f)
	maps.Copy(f, notes)
	return nil
}

// fakeVault is the part of a keychain that keeps other secrets than keys.
type fakeVault map[string]string

func (v fakeVault) Secret(_ context.Context, name string) (broker.Secret, error) {
	if s, ok := v[name]; ok {
		return broker.NewSecret(s), nil
	}
	return broker.Secret{}, broker.Errorf(broker.CodeNotFound, "no %q", name)
}

func (v fakeVault) PutSecret(_ context.Context, name string, value broker.Secret) error {
	v[name] = value.Reveal()
	return nil
}

func (v fakeVault) RemoveSecret(_ context.Context, name string) error {
	delete(v, name)
	return nil
}

func key(name, id string) broker.Key {
	return broker.Key{
		KeyInfo:         broker.KeyInfo{Name: name, AccessKeyID: id, UserARN: userARN},
		SecretAccessKey: broker.NewSecret(longTermSecret),
	}
}

const longTermSecret = "long-term-secret-of-alice-0123456789abcd"

var cli = broker.Caller{UID: 1000, PID: 7, Program: "aws", Via: "credential-process", Resolved: true}

func (w *world) ask(t *testing.T, profile string) (broker.Grant, error) {
	t.Helper()
	return w.Credentials(t.Context(), cli, broker.Request{Profile: profile, Reachable: broker.Reachable{Known: true}})
}

func (w *world) mustAsk(t *testing.T, profile string) broker.Grant {
	t.Helper()
	g, err := w.ask(t, profile)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

type fakeProfiles map[string]profiles.Chain

func (f fakeProfiles) All(files profiles.Files) (iter.Seq[profiles.Resolution], error) {
	return func(yield func(profiles.Resolution) bool) {
		for _, name := range slices.Sorted(maps.Keys(f)) {
			chain, err := f.Resolve(files, name)
			if !yield(profiles.Resolution{Name: name, Chain: chain, Err: err}) {
				return
			}
		}
	}, nil
}

func (f fakeProfiles) Resolve(files profiles.Files, name string) (*profiles.Chain, error) {
	c, ok := f[name]
	if !ok {
		return nil, &profiles.NotFoundError{Name: name, Nearest: []string{"ops"}}
	}
	if !files.Trusted {
		c.Endpoint = ""
	}
	return &c, nil
}

// fakeKeys is a keychain. err, when set, is what every call fails with.
type fakeKeys struct {
	mu     sync.Mutex
	keys   map[string]broker.Key
	err    error
	lists  int
	probes int
	lose   func(broker.Key) broker.Key // what becomes of a key that is put; nil changes nothing
	listed func()                      // runs before a list that was made is returned; may be nil
	remove func()                      // runs before a key is removed; may be nil
	read   []broker.Secret             // every secret that was handed to the broker
}

func (f *fakeKeys) Keys(context.Context) ([]broker.KeyInfo, error) {
	f.mu.Lock()
	f.lists++
	var list []broker.KeyInfo
	for _, k := range f.keys {
		list = append(list, k.KeyInfo)
	}
	err, listed := f.err, f.listed
	f.mu.Unlock()
	slices.SortFunc(list, func(x, y broker.KeyInfo) int { return strings.Compare(x.Name, y.Name) })
	if listed != nil {
		listed()
	}
	return list, err
}

func (f *fakeKeys) Key(_ context.Context, name string) (broker.Key, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return broker.Key{}, f.err
	}
	k, ok := f.keys[name]
	if !ok {
		return broker.Key{}, broker.Errorf(broker.CodeNotFound, "no key %q", name)
	}
	k.SecretAccessKey = broker.NewSecret(k.SecretAccessKey.Reveal())
	f.read = append(f.read, k.SecretAccessKey)
	return k, nil
}

func (f *fakeKeys) PutKey(_ context.Context, k broker.Key) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		if f.lose != nil {
			k = f.lose(k)
		}
		k.SecretAccessKey = broker.NewSecret(k.SecretAccessKey.Reveal()) // the caller may clear its own
		f.keys[k.Name] = k
	}
	return f.err
}

func (f *fakeKeys) RemoveKey(_ context.Context, name string) error {
	if f.remove != nil {
		f.remove()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		delete(f.keys, name)
	}
	return f.err
}

func (f *fakeKeys) Backend() string { return "fake" }

func (f *fakeKeys) Probe(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.probes++
	return f.err
}

// fakeSTS gives sessions. What inCall was given runs inside each call.
type fakeSTS struct {
	now func() time.Time

	mu     sync.Mutex
	before func(call string) error
	calls  []string
	roles  []broker.AssumeRoleInput
	tokens []broker.SessionTokenInput
	id     broker.Identity
	ids    map[string]broker.Identity // by access key id, where they differ from id
}

func (f *fakeSTS) call(name string) (int, error) {
	f.mu.Lock()
	f.calls = append(f.calls, name)
	n, before := len(f.calls), f.before
	f.mu.Unlock()
	if before != nil {
		return n, before(name)
	}
	return n, nil
}

func (f *fakeSTS) inCall(before func(call string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = before
}

func (f *fakeSTS) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func (f *fakeSTS) session(n int, d time.Duration) broker.STSSession {
	return broker.STSSession{
		Credentials: broker.Credentials{
			AccessKeyID:     fmt.Sprintf("ASIA%016d", n),
			SecretAccessKey: broker.NewSecret("session-secret"),
			SessionToken:    broker.NewSecret("session-token"),
			Expires:         f.now().Add(d).Round(0),
		},
		RequestID: fmt.Sprintf("req-%d", n),
	}
}

func (f *fakeSTS) CallerIdentity(_ context.Context, c broker.Credentials, _ broker.Target) (broker.Identity, error) {
	_, err := f.call("GetCallerIdentity " + c.AccessKeyID)
	if id, ok := f.ids[c.AccessKeyID]; ok {
		return id, err
	}
	return f.id, err
}

func (f *fakeSTS) SessionToken(_ context.Context, c broker.Credentials, in broker.SessionTokenInput, _ broker.Target) (broker.STSSession, error) {
	n, err := f.call("GetSessionToken " + c.AccessKeyID)
	f.mu.Lock()
	f.tokens = append(f.tokens, in)
	f.mu.Unlock()
	return f.session(n, in.Duration), err
}

func (f *fakeSTS) AssumeRole(_ context.Context, c broker.Credentials, in broker.AssumeRoleInput, _ broker.Target) (broker.STSSession, error) {
	n, err := f.call("AssumeRole " + in.RoleARN + " with " + c.AccessKeyID)
	f.mu.Lock()
	f.roles = append(f.roles, in)
	f.mu.Unlock()
	return f.session(n, in.Duration), err
}

// fakeIAM tells of users. Its functions get the id of the key that signs.
type fakeIAM struct {
	broker.IAM // nil: keys are not changed
	groups     func(ctx context.Context, keyID string) ([]string, error)
	devices    func(ctx context.Context, keyID string) ([]broker.MFADevice, error)

	mu    sync.Mutex
	calls []string
}

func (f *fakeIAM) note(call, keyID, userARN, endpoint string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, strings.TrimSpace(call+" of "+userARN+" with "+keyID+" "+endpoint))
}

func (f *fakeIAM) AccessKeys(ctx context.Context, c broker.Credentials, userARN string) ([]broker.AccessKey, error) {
	if f.IAM == nil {
		return nil, nil
	}
	return f.IAM.AccessKeys(ctx, c, userARN)
}

func (f *fakeIAM) Groups(ctx context.Context, c broker.Credentials, userARN, endpoint string) ([]string, error) {
	f.note("groups", c.AccessKeyID, userARN, endpoint)
	if f.groups == nil {
		return nil, nil
	}
	return f.groups(ctx, c.AccessKeyID)
}

func (f *fakeIAM) MFADevices(ctx context.Context, c broker.Credentials, userARN, endpoint string) ([]broker.MFADevice, error) {
	f.note("devices", c.AccessKeyID, userARN, endpoint)
	if f.devices == nil {
		return nil, nil
	}
	return f.devices(ctx, c.AccessKeyID)
}

// fakeLog keeps entries. before, when set, runs before each append; fail
// decides which ones fail.
type fakeLog struct {
	before func(broker.Event)
	fail   func(broker.Event) error

	mu      sync.Mutex
	entries []broker.Event
	durable []bool
}

func (f *fakeLog) Append(_ context.Context, e broker.Event, durable bool) error {
	if f.before != nil {
		f.before(e)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		if err := f.fail(e); err != nil {
			return err
		}
	}
	f.entries = append(f.entries, e)
	f.durable = append(f.durable, durable)
	return nil
}

func (f *fakeLog) Status() broker.LogStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return broker.LogStatus{Entries: int64(len(f.entries))}
}

// kinds returns what was recorded, "event" or "event:code" for failures.
func (f *fakeLog) kinds() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var kinds []string
	for _, e := range f.entries {
		k := string(e.Kind)
		if e.Error != nil {
			k += ":" + string(e.Error.Code)
		}
		kinds = append(kinds, k)
	}
	return kinds
}

// stillClock is of tests in which no time passes.
var stillClock = broker.Clock{Now: time.Now, Boot: func() time.Duration { return 0 }}
