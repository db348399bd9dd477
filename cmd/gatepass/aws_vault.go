package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// A vaultStore is a place where aws-vault may keep keys.
type vaultStore struct {
	wire.AWSVaultRequest
	// sure says that aws-vault is told to look there: what cannot be read is
	// then a failure. Else it is only where aws-vault looks by itself, and
	// whoever has never used it shall not hear of it.
	sure bool

	names      []string // of the keys
	passphrase broker.Secret
	given      error // why there is no passphrase
	asked      bool
}

func (s *vaultStore) String() string { return "aws-vault's store (" + s.Backend + ")" }

// vaultSettings are aws-vault's flags and variables that say where its keys
// are. https://github.com/99designs/aws-vault/blob/master/cli/global.go
var vaultSettings = map[string]string{
	"backend":                   "AWS_VAULT_BACKEND",
	"keychain":                  "AWS_VAULT_KEYCHAIN_NAME",
	"secret-service-collection": "AWS_VAULT_SECRET_SERVICE_COLLECTION_NAME",
	"pass-dir":                  "AWS_VAULT_PASS_PASSWORD_STORE_DIR",
	"pass-cmd":                  "AWS_VAULT_PASS_CMD",
	"pass-prefix":               "AWS_VAULT_PASS_PREFIX",
	"file-dir":                  "AWS_VAULT_FILE_DIR",
}

// vaultStores returns where aws-vault would look for keys: as the environment
// says, as each of the lines does that run it, and, where nothing says how, by
// itself. lines are the flags of these.
func (c *client) vaultStores(lines []map[string]string) ([]*vaultStore, error) {
	backend := c.getenv(vaultSettings["backend"])
	var stores []*vaultStore
	add := func(flags map[string]string, sure bool) error {
		s, err := c.vaultStore(flags)
		if err != nil {
			return err
		}
		for _, old := range stores {
			if old.AWSVaultRequest == s.AWSVaultRequest {
				old.sure = old.sure || sure
				return nil
			}
		}
		s.sure = sure
		stores = append(stores, s)
		return nil
	}
	for _, flags := range lines {
		if err := add(flags, true); err != nil {
			return nil, err
		}
	}
	if err := add(nil, backend != ""); err != nil {
		return nil, err
	}
	if backend != "" {
		return stores, nil
	}
	// Whoever chose the file store may have done so in another shell.
	file, err := c.vaultStore(map[string]string{"backend": "file"})
	if err != nil {
		return nil, err
	}
	if kept, err := os.ReadDir(file.Dir); err == nil && len(kept) > 0 {
		for _, s := range stores {
			s.sure = s.sure && s.Backend != defaultVaultBackend()
		}
		err = add(map[string]string{"backend": "file"}, true)
		return stores, err
	}
	return stores, nil
}

// defaultVaultBackend is what aws-vault uses where nothing says otherwise.
func defaultVaultBackend() string {
	switch runtime.GOOS {
	case "linux":
		return "secret-service"
	case "darwin":
		return "keychain"
	case "windows":
		return "wincred"
	}
	return "pass"
}

// vaultStore is the store that aws-vault uses with these flags.
func (c *client) vaultStore(flags map[string]string) (*vaultStore, error) {
	setting := func(flag string) string { return cmp.Or(flags[flag], c.getenv(vaultSettings[flag])) }
	s := &vaultStore{}
	s.Backend = cmp.Or(setting("backend"), defaultVaultBackend())
	var err error
	switch s.Backend {
	case "secret-service":
		s.Collection = cmp.Or(setting("secret-service-collection"), "awsvault")
	case "keychain":
		s.Keychain = cmp.Or(flags["keychain-name"], setting("keychain"), "aws-vault")
	case "pass":
		if program := setting("pass-cmd"); program != "" && program != "pass" {
			s.Backend = program // which nobody reads, and is told
			return s, nil
		}
		s.Prefix = strings.Trim(setting("pass-prefix"), "/")
		s.Dir, err = c.vaultDir(cmp.Or(setting("pass-dir"), c.getenv("PASSWORD_STORE_DIR"), "~/.password-store"))
	case "file":
		s.Dir, err = c.vaultDir(cmp.Or(setting("file-dir"), "~/.awsvault/keys"))
	}
	return s, err
}

// vaultDir makes a directory absolute, as aws-vault does.
func (c *client) vaultDir(dir string) (string, error) {
	if dir == "~" || strings.HasPrefix(dir, "~/") || strings.HasPrefix(dir, `~\`) && os.PathSeparator == '\\' {
		home, err := c.home()
		if err != nil {
			return "", err
		}
		dir = home + dir[1:]
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", broker.Errorf(broker.CodeConfig, "find aws-vault's directory %q: %w", dir, err)
	}
	return abs, nil
}

// look asks the daemon what lies in a store. It returns nothing for one that
// is not there.
func (c *client) look(ctx context.Context, s *vaultStore) ([]string, error) {
	var in wire.AWSVaultResponse
	err := c.ask(ctx, func(d *wire.Client) error { return d.Call(ctx, "POST", wire.PathAWSVault, s.AWSVaultRequest, &in) })
	switch code := broker.CodeOf(err); {
	case code == broker.CodeNotFound:
		return nil, nil
	case code == broker.CodeKeychainMissing && !s.sure:
		return nil, nil
	}
	return in.Names, err
}

// findVaulted looks into aws-vault's stores and tells what it found. A password
// store without a prefix of aws-vault's own may hold anything, and is searched
// for the profiles of the config file alone.
func (m *importing) findVaulted() (stores []*vaultStore, err error) {
	all, err := m.vaultStores(m.edit.VaultFlags())
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		names, err := m.look(m.ctx, s)
		if err != nil {
			m.unread(s, broker.AsError(err))
			continue
		}
		if s.Backend == "pass" && s.Prefix == "" {
			known := m.edit.Names()
			names = slices.DeleteFunc(names, func(n string) bool { return !slices.Contains(known, n) })
		}
		if len(names) == 0 {
			continue
		}
		s.names = names
		stores = append(stores, s)
		m.kept = append(m.kept, names...)
		for _, name := range names {
			m.tell(name, "found in %s", s)
		}
	}
	return stores, nil
}

// unread says why a store was not looked into. Where it may well not be there,
// that fails nothing.
func (m *importing) unread(s *vaultStore, e *broker.Error) {
	if !s.sure && (e.Code == broker.CodeKeychainTimeout || e.Code == broker.CodeDaemonUnreachable) {
		say(m.stderr, "whether aws-vault keeps keys ("+s.Backend+") is not known: "+e.Message)
		return
	}
	say(m.stderr, s.String()+" cannot be read: "+e.Message)
	if e.Hint != "" {
		say(m.stderr, e.Hint)
	}
	m.failed = broker.Errorf(e.Code, "not every store could be looked into").WithHint("run again when that is mended: gatepass keys import")
}

// keyRequest asks something about one key of a store.
func (m *importing) keyRequest(s *vaultStore, name string, ask *wire.Ask) wire.AWSVaultKeyRequest {
	r := wire.AWSVaultKeyRequest{AWSVaultRequest: s.AWSVaultRequest, Passphrase: s.passphrase.Reveal(), Name: name, Region: m.region, Ask: ask}
	if r.Region == "" {
		r.Region = cmp.Or(m.getenv("AWS_REGION"), m.getenv("AWS_DEFAULT_REGION"))
	}
	return r
}

// unlock finds the passphrase of a file store, once.
func (m *importing) unlock(s *vaultStore) error {
	if s.Backend != "file" || s.asked {
		return s.given
	}
	s.asked = true
	if p := m.getenv("AWS_VAULT_FILE_PASSPHRASE"); p != "" {
		s.passphrase = broker.NewSecret(p)
		return nil
	}
	p, err := m.prompt("passphrase of aws-vault's store "+s.Dir+" (not shown): ", hidden)
	if err != nil {
		s.given = promptError(err, "the passphrase of aws-vault's store cannot be asked for", "give it in AWS_VAULT_FILE_PASSPHRASE")
		return s.given
	}
	s.passphrase = broker.NewSecret(p)
	return nil
}

// storeVaulted has the daemon store a key of aws-vault, unless it is there.
func (m *importing) storeVaulted(s *vaultStore, name string) error {
	if err := checkVaulted(name); err != nil {
		return err
	}
	if err := m.unlock(s); err != nil {
		return err
	}
	var key broker.ImportedKey
	err := m.askLong(func(ctx context.Context, d *wire.Client, ask *wire.Ask) error {
		return d.Call(ctx, "POST", wire.PathAWSVaultImport, m.keyRequest(s, name, ask), &key)
	})
	if err == nil && !key.Already {
		m.tell(name, "stored the key of %s", key.UserARN)
	}
	return err
}

// checkVaulted refuses a name that aws-vault allows and gatepass does not.
func checkVaulted(name string) error {
	err := broker.CheckKeyName(name)
	if err == nil {
		return nil
	}
	return broker.AsError(err).WithHint("store it by hand, and write gatepass_key into its profiles: aws-vault exec --no-session %s -- gatepass keys add NAME --env", posixQuote(name))
}

// removeVaulted has the daemon remove a key from aws-vault's store.
func (m *importing) removeVaulted(s *vaultStore, name string) error {
	err := m.askLong(func(ctx context.Context, d *wire.Client, ask *wire.Ask) error {
		return d.Call(ctx, "POST", wire.PathAWSVaultRemove, m.keyRequest(s, name, ask), nil)
	})
	if errors.Is(err, wire.ErrNoAnswer) {
		// It may have been removed; asked again, the next run will know.
		return broker.Errorf(broker.CodeDaemonUnreachable, "gatepassd ended, and may or may not have removed it")
	}
	return err
}

// askLong is aboutKeys for what may show dialogs of two keychains.
func (m *importing) askLong(call func(context.Context, *wire.Client, *wire.Ask) error) error {
	return m.aboutKeys(m.ctx, func(ctx context.Context, d *wire.Client, ask *wire.Ask) error {
		ctx, cancel := context.WithTimeout(ctx, answerPatience)
		defer cancel()
		return call(ctx, d, ask)
	})
}
