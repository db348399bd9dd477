// Package keystore keeps long-term keys in the OS keychain, by way of
// github.com/99designs/keyring, which it alone imports.
//
// That library and the services behind it can hang for ever, leak a session a
// read, race with themselves and die with the session bus. So the daemon never
// calls them: each call of a [Store] starts a helper, gatepassd itself with
// [HelperArg], which makes itself undumpable, serves one request of its parent
// over a socket pair and ends. A helper that has not answered by the deadline
// is killed with all that it started. Secrets travel by that socket alone:
// never by argument, environment or temporary file. Importing keyring dials
// the session bus; the package busguard keeps it from that in the daemon.
//
// # What is stored
//
// A key is an item named "gatepass.key.NAME", in JSON:
//
//	{"version":1,"name":"ops","access_key_id":"AKIA…","secret":"…","user_arn":"arn:aws:iam::…","added":"2025-01-02T03:04:05Z"}
//
// Other secrets (the audit log's signing key) are items named
// "gatepass.secret.NAME", {"version":1,"name":…,"value":base64}. Capital
// letters in an item's name are written "~" and the small letter.
//
// Where each backend keeps them:
//
//	keychain        macOS: the login keychain, service "gatepass"; gatepassd alone is trusted without a dialog
//	wincred         Windows: generic credentials "gatepass:gatepass:ITEM", at most 2560 bytes each
//	secret-service  the collection "login", else the default one, attribute profile=ITEM
//	kwallet         the network wallet, folder "gatepass"
//	pass            PassDir, below PassPrefix
//	keyctl          the kernel's keyring "gatepass" of the user; gone with the next boot
//	file            one JWE (PBES2-HS256+A128KW, A256GCM) a file in FileDir, 0600
package keystore

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"gatepass/broker"
	"gatepass/broker/keystore/busguard"
)

// HelperArg is the one argument with which gatepassd must be run as a helper:
//
//	if len(os.Args) == 2 && os.Args[1] == keystore.HelperArg {
//		os.Exit(keystore.HelperMain())
//	}
const HelperArg = busguard.HelperArg

func init() { busguard.Restore() }

// The deadlines of a call, from its start, where Config names none.
const (
	DefaultDeadline       = 10 * time.Second
	DefaultPromptDeadline = 60 * time.Second
)

// maxCalls is how many helpers run at once. The Secret Service shows one
// dialog however many wait for it, so reads may be parallel.
const maxCalls = 4

// Config is what New needs to know.
type Config struct {
	// Backend is "auto" (also ""), or one of what [Backends] lists.
	Backend string

	// Helper is the program to run with HelperArg; "" is this program, as
	// it was started even if its file has been replaced since.
	Helper string

	// Env is the helper's whole environment; see [Env].
	Env []string

	// Deadline bounds a call, its wait for other calls included. Once the
	// helper says that a dialog may be open, PromptDeadline does, also from
	// the call's start: a person needs longer than a program, and a keychain
	// that hangs must not hold everyone for a minute. Zero means the default.
	Deadline, PromptDeadline time.Duration

	FileDir        string        // of the file backend; absolute
	FilePassphrase broker.Secret // of the file backend; the Store keeps it. Zero: Unlock brings it
	PassDir        string        // of pass; "" is what the environment says, else ~/.password-store
	PassPrefix     string        // of pass; "" is "gatepass"

	Logger *slog.Logger // nil discards
}

// A Store is a [broker.KeyStore]. Its methods may be called concurrently, and
// return as soon as their context ends.
type Store struct {
	cfg    Config
	calls  chan struct{} // holds a token for each running helper
	writes chan struct{} // holds one while a write runs: a write reads back what it wrote

	mu         sync.Mutex
	opened     string        // what "auto" turned out to be
	passphrase broker.Secret // of the file backend

	unlocked chan struct{} // closed once there is a passphrase, or none is needed
}

var (
	_ broker.KeyStore = (*Store)(nil)
	_ broker.Unlocker = (*Store)(nil)
)

// Backends lists the backends of the operating system goos, best first.
func Backends(goos string) []string {
	switch goos {
	case "linux":
		return []string{"secret-service", "kwallet", "pass", "keyctl", "file"}
	case "darwin":
		return []string{"keychain", "pass", "file"}
	case "windows":
		return []string{"wincred", "file"}
	}
	return []string{"pass", "file"}
}

// New returns a Store. It starts and opens nothing. Its errors are
// [broker.CodeConfig].
func New(cfg Config) (*Store, error) {
	cfg.Backend = cmp.Or(cfg.Backend, "auto")
	if here := Backends(runtime.GOOS); cfg.Backend != "auto" && !slices.Contains(here, cfg.Backend) {
		return nil, broker.Errorf(broker.CodeConfig, "keychain = %q: there is no such keychain on %s", cfg.Backend, runtime.GOOS).
			WithHint(`use one of "auto", "%s"`, strings.Join(here, `", "`))
	}
	if cfg.Backend == "file" && !filepath.IsAbs(cfg.FileDir) {
		return nil, broker.Errorf(broker.CodeConfig, "the directory of the file keychain is not an absolute path: %q", cfg.FileDir)
	}
	if cfg.PassDir != "" && !filepath.IsAbs(cfg.PassDir) {
		return nil, broker.Errorf(broker.CodeConfig, "the password store is not an absolute path: %q", cfg.PassDir)
	}
	cfg.PassPrefix = cmp.Or(cfg.PassPrefix, "gatepass")
	cfg.Deadline = cmp.Or(cfg.Deadline, DefaultDeadline)
	cfg.PromptDeadline = max(cmp.Or(cfg.PromptDeadline, DefaultPromptDeadline), cfg.Deadline)
	if cfg.Helper == "" {
		self, err := thisProgram()
		if err != nil {
			return nil, broker.Errorf(broker.CodeConfig, "find the program to run as keychain helper: %w", err)
		}
		cfg.Helper = self
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	keepDescriptors()
	s := &Store{
		cfg: cfg, calls: make(chan struct{}, maxCalls), writes: make(chan struct{}, 1),
		passphrase: cfg.FilePassphrase, unlocked: make(chan struct{}),
	}
	if cfg.Backend != "file" || !s.passphrase.IsZero() {
		close(s.unlocked)
	}
	return s, nil
}

// Env picks from environ what a helper and the programs that a keychain runs
// need: where the home, the session bus and the display are, and how to talk.
// A terminal is not among it, so that nothing asks on one.
func Env(environ []string) []string {
	names := []string{
		"HOME", "USER", "LOGNAME", "PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR",
		"DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
		"XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_CURRENT_DESKTOP",
		"GNUPGHOME", "PASSWORD_STORE_DIR",
		"SYSTEMROOT", "SYSTEMDRIVE", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "TEMP", "TMP",
	}
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if runtime.GOOS == "windows" {
			name = strings.ToUpper(name)
		}
		if slices.Contains(names, name) || strings.HasPrefix(name, "LC_") {
			env = append(env, kv)
		}
	}
	return env
}

// Backend names the keychain in the words of gatepass.toml. It is "auto" until
// a first call has found out which one that is; from then on that one is used.
func (s *Store) Backend() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.opened, s.cfg.Backend)
}

// Probe returns nil when the keychain can be read now. It never prompts; with
// pass and keychain it can tell only that the store is there, not that it is
// unlocked.
func (s *Store) Probe(ctx context.Context) error {
	_, err := s.call(ctx, &request{Op: opProbe})
	return err
}

// Locked returns an error where the file keychain has no passphrase yet. Other
// keychains have their own ways of asking.
func (s *Store) Locked() error {
	select {
	case <-s.unlocked:
		return nil
	default:
		return locked("file", "its passphrase has not been given yet")
	}
}

// Unlocked is closed once Locked returns nil.
func (s *Store) Unlocked() <-chan struct{} { return s.unlocked }

// New reports whether the file keychain holds nothing, so that whatever
// passphrase comes first will be its own.
func (s *Store) New(ctx context.Context) (bool, error) {
	a, err := s.call(ctx, &request{Op: opUnlock})
	return a.New, err
}

// Unlock keeps a passphrase of the file keychain if it is the right one: it
// opens what is stored, or nothing is. It is kept in memory alone.
func (s *Store) Unlock(ctx context.Context, passphrase broker.Secret) (bool, error) {
	if passphrase.IsZero() || len(passphrase.RevealBytes()) > maxPart {
		return false, nil
	}
	a, err := s.call(ctx, &request{Op: opUnlock, passphrase: slices.Clone(passphrase.RevealBytes())})
	if err != nil || !a.Opens {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.passphrase.IsZero() {
		s.passphrase = broker.NewSecret(passphrase.RevealBytes())
		close(s.unlocked)
	}
	return true, nil
}

// Keys lists what is stored, sorted by name. Secrets do not leave the helper.
// A key whose item is damaged is listed by its name alone.
func (s *Store) Keys(ctx context.Context) ([]broker.KeyInfo, error) {
	a, err := s.call(ctx, &request{Op: opList, Kind: kindKey})
	if err != nil {
		return nil, err
	}
	for _, name := range a.Damaged {
		s.cfg.Logger.Warn("a stored key is damaged", "key", name, "keychain", a.Backend)
	}
	return a.Keys, nil
}

// Key returns one key with its secret, for one use: the caller clears it.
func (s *Store) Key(ctx context.Context, name string) (broker.Key, error) {
	if !validName(name) {
		return broker.Key{}, s.notFound(kindKey, name)
	}
	a, err := s.call(ctx, &request{Op: opGet, Kind: kindKey, Name: name})
	if err != nil {
		return broker.Key{}, err
	}
	defer clear(a.value)
	if a.Key.Name != name || len(a.value) == 0 {
		return broker.Key{}, errNonsense
	}
	return broker.Key{KeyInfo: a.Key, SecretAccessKey: broker.NewSecret(a.value)}, nil
}

// PutKey stores a key, replacing one of the same name. Once it returns nil the
// key has been read back and is what was given.
func (s *Store) PutKey(ctx context.Context, key broker.Key) error {
	if err := CheckName(key.Name); err != nil {
		return err
	}
	// Refused here too, where nothing has been started yet.
	item, err := encodeKey(key.KeyInfo, key.SecretAccessKey.RevealBytes())
	clear(item)
	if err != nil {
		return err
	}
	_, err = s.call(ctx, &request{
		Op: opPut, Kind: kindKey, Name: key.Name, Key: key.KeyInfo,
		value: slices.Clone(key.SecretAccessKey.RevealBytes()),
	})
	return err
}

// RemoveKey removes a key; [broker.CodeNotFound] when there is none.
func (s *Store) RemoveKey(ctx context.Context, name string) error {
	return s.remove(ctx, kindKey, name)
}

// Secret returns a secret that is not a key, such as the audit log's signing
// key. Secrets have names of their own and are not among Keys.
func (s *Store) Secret(ctx context.Context, name string) (broker.Secret, error) {
	if !validName(name) {
		return broker.Secret{}, s.notFound(kindSecret, name)
	}
	a, err := s.call(ctx, &request{Op: opGet, Kind: kindSecret, Name: name})
	if err != nil {
		return broker.Secret{}, err
	}
	defer clear(a.value)
	if len(a.value) == 0 {
		return broker.Secret{}, errNonsense
	}
	return broker.NewSecret(a.value), nil
}

// PutSecret stores a secret of at most 16 KiB, as PutKey does a key.
func (s *Store) PutSecret(ctx context.Context, name string, value broker.Secret) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if n := len(value.RevealBytes()); n == 0 || n > maxSecret {
		return broker.Errorf(broker.CodeData, "store the secret %q: it has %d bytes where 1 to %d are allowed", name, n, maxSecret)
	}
	_, err := s.call(ctx, &request{
		Op: opPut, Kind: kindSecret, Name: name,
		value: slices.Clone(value.RevealBytes()),
	})
	return err
}

// RemoveSecret removes a secret; [broker.CodeNotFound] when there is none.
func (s *Store) RemoveSecret(ctx context.Context, name string) error {
	return s.remove(ctx, kindSecret, name)
}

func (s *Store) remove(ctx context.Context, kind, name string) error {
	if !validName(name) {
		return s.notFound(kind, name)
	}
	_, err := s.call(ctx, &request{Op: opRemove, Kind: kind, Name: name})
	return err
}

// notFound is for names that nothing can be stored under.
func (s *Store) notFound(kind, name string) error {
	return notFound(s.Backend(), kind, name)
}

func notFound(backend, kind, name string) *broker.Error {
	e := broker.Errorf(broker.CodeNotFound, "no %s %.80q in the keychain (%s)", kind, name, backend)
	if kind == kindKey {
		return e.WithHint("gatepass keys list shows what is stored; gatepass keys add stores a key")
	}
	return e
}

// call runs req in a helper and returns its answer. It takes over req's
// secrets and clears them.
func (s *Store) call(ctx context.Context, req *request) (answer, error) {
	req.Backend = s.Backend()
	req.FileDir, req.PassDir, req.PassPrefix = s.cfg.FileDir, s.cfg.PassDir, s.cfg.PassPrefix
	if req.Backend == "file" && req.Op != opUnlock {
		if err := s.Locked(); err != nil {
			req.clear()
			return answer{}, err
		}
		s.mu.Lock()
		req.passphrase = slices.Clone(s.passphrase.RevealBytes())
		s.mu.Unlock()
	}
	a, err := s.run(ctx, req)
	if err == nil {
		s.mu.Lock()
		s.opened = a.Backend
		s.mu.Unlock()
	}
	return a, err
}

// run is call for a request that says where the keychain is.
func (s *Store) run(ctx context.Context, req *request) (answer, error) {
	env := s.cfg.Env
	switch req.Backend {
	case "file", "pass", "keyctl":
		// They need no bus, so keyring's init shall not hang on one.
		env, req.Bus = withoutBus(env)
	}

	c := &call{cfg: &s.cfg, env: env, req: req, began: time.Now(), result: make(chan result)}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	defer c.cancel(nil)
	c.deadline = time.AfterFunc(s.cfg.Deadline, func() { c.cancel(errDeadline) })
	defer c.deadline.Stop()

	release, ok := s.admit(c.ctx, req.writes())
	if !ok {
		req.clear()
		return answer{}, c.ended()
	}
	c.started.Store(true)
	go func() {
		defer release()
		c.run()
	}()

	// The helper may be beyond killing for a while (a home on a network disk
	// that is gone); its goroutine waits for it, the caller does not.
	var r result
	select {
	case r = <-c.result:
	case <-c.ctx.Done():
		return answer{}, c.ended()
	}
	if r.err != nil {
		return answer{}, r.err
	}
	if r.answer.Error != nil {
		clear(r.answer.value)
		return answer{}, r.answer.Error
	}
	if !slices.Contains(Backends(runtime.GOOS), r.answer.Backend) || (req.Backend != "auto" && req.Backend != r.answer.Backend) {
		clear(r.answer.value)
		return answer{}, errNonsense
	}
	return r.answer, nil
}

// withoutBus returns env with a session bus that is not dialled, and the
// address that was there.
func withoutBus(env []string) (without []string, bus string) {
	const variable = "DBUS_SESSION_BUS_ADDRESS="
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, variable); ok {
			bus = v
		} else {
			without = append(without, kv)
		}
	}
	return append(without, variable+"disabled:"), bus
}

// admit waits for the turn of a call and returns what ends it.
func (s *Store) admit(ctx context.Context, writes bool) (release func(), ok bool) {
	if writes {
		select {
		case s.writes <- struct{}{}:
		case <-ctx.Done():
			return nil, false
		}
	}
	select {
	case s.calls <- struct{}{}:
	case <-ctx.Done():
		if writes {
			<-s.writes
		}
		return nil, false
	}
	return func() {
		<-s.calls
		if writes {
			<-s.writes
		}
	}, true
}

var (
	errDeadline = errors.New("deadline of the keychain call")
	errNonsense = broker.Errorf(broker.CodeInternal, "the keychain helper's answer makes no sense")
)
