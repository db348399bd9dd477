package broker

import (
	"context"
	"fmt"
)

// An AWSVault says where aws-vault keeps its keys.
type AWSVault struct {
	Backend    string // in the words of gatepass.toml, which are aws-vault's
	Collection string // of the Secret Service
	Keychain   string // of macOS
	Dir        string // of pass and file; absolute
	Prefix     string // of pass
	Passphrase Secret // of file
}

// An AWSVaultStore reads what aws-vault keeps. Its errors are those of a
// [KeyStore]; a keychain in which aws-vault has no store is [CodeNotFound],
// and is never asked to make one.
type AWSVaultStore interface {
	// AWSVaultKeys returns the names of the keys, which are profiles'.
	AWSVaultKeys(ctx context.Context, at AWSVault) ([]string, error)
	// AWSVaultKey returns one key with its secret: the caller clears it.
	AWSVaultKey(ctx context.Context, at AWSVault, name string) (Key, error)
	// RemoveAWSVaultKey removes a key that is there just as it is given, and
	// no other.
	RemoveAWSVaultKey(ctx context.Context, at AWSVault, key Key) error
}

// An ImportedKey tells what became of a key of aws-vault.
type ImportedKey struct {
	KeyInfo
	Already bool `json:"already,omitempty"` // it was stored before
}

// AWSVaultKeys lists the keys in aws-vault's store by name, without reading
// them; [CodeNotFound] when there is no such store.
func (b *Broker) AWSVaultKeys(ctx context.Context, caller Caller, at AWSVault) ([]string, error) {
	if err := b.Outside(ctx, caller, "list keys"); err != nil {
		return nil, err
	}
	if b.cfg.AWSVault == nil {
		return nil, errNoAWSVault
	}
	names, err := b.cfg.AWSVault.AWSVaultKeys(ctx, at)
	if err != nil {
		return nil, AsError(err)
	}
	return names, nil
}

var errNoAWSVault = Errorf(CodeConfig, "this daemon cannot read aws-vault's store")

// ImportKey stores a key of aws-vault under its name, as AddKey stores one that
// it is given, and leaves it where it is. One that is stored already, and the
// same, is not stored again. Its error may be an [*AskError].
func (b *Broker) ImportKey(ctx context.Context, caller Caller, at AWSVault, name, region string, how Reachable) (ImportedKey, error) {
	if err := b.Outside(ctx, caller, "store keys"); err != nil {
		return ImportedKey{}, err
	}
	q := &query{key: KeyInfo{Name: name}}
	key, err := b.importKey(ctx, caller, at, q, region, how)
	if ask, ok := asAsk(err); ok {
		return ImportedKey{}, ask
	}
	if err != nil {
		return ImportedKey{}, b.refuse(ctx, caller, q, "", err)
	}
	return key, nil
}

func (b *Broker) importKey(ctx context.Context, caller Caller, at AWSVault, q *query, region string, how Reachable) (ImportedKey, error) {
	name := q.key.Name
	if b.cfg.AWSVault == nil {
		return ImportedKey{}, errNoAWSVault
	}
	// What could not be stored is not read.
	if err := CheckKeyName(name); err != nil {
		q.key.Name = ""
		return ImportedKey{}, err
	}
	if err := b.open(ctx, caller, "", how); err != nil {
		return ImportedKey{}, err
	}
	stored, err := b.index.list(ctx)
	if err != nil {
		return ImportedKey{}, fmt.Errorf("store key %q: %w", name, err)
	}
	key, err := b.cfg.AWSVault.AWSVaultKey(ctx, at, name)
	if err != nil {
		return ImportedKey{}, err
	}
	defer key.SecretAccessKey.Clear()
	if CheckAccessKeyID(key.AccessKeyID) == nil { // else it may be a secret
		q.key.AccessKeyID = key.AccessKeyID
	}
	for _, old := range stored {
		if old.Name != name {
			continue
		}
		if err := b.sameAsStored(ctx, key); err != nil {
			return ImportedKey{}, err
		}
		return ImportedKey{KeyInfo: old, Already: true}, nil
	}
	info, err := b.addKey(ctx, caller, NewKey{
		Name: name, AccessKeyID: key.AccessKeyID, SecretAccessKey: key.SecretAccessKey, Region: region, Reachable: how,
	}, fromAWSVault(at))
	return ImportedKey{KeyInfo: info}, err
}

// sameAsStored refuses a key that is not the one stored under its name.
func (b *Broker) sameAsStored(ctx context.Context, key Key) error {
	here, err := b.cfg.Keys.Key(ctx, key.Name)
	if err != nil {
		return fmt.Errorf("compare it with the key %q that is stored: %w", key.Name, err)
	}
	defer here.SecretAccessKey.Clear()
	differs := ""
	switch {
	case here.AccessKeyID != key.AccessKeyID:
		differs = "another key, " + here.AccessKeyID + ", is stored under that name"
	case !here.SecretAccessKey.Equal(key.SecretAccessKey):
		differs = "the key " + here.AccessKeyID + " is stored under that name with another secret"
	default:
		return nil
	}
	return Errorf(CodeUsage, "%s", differs).
		WithHint("keep the one that is in use, and remove the other: gatepass keys remove %s, or: aws-vault remove %s", key.Name, key.Name)
}

func fromAWSVault(at AWSVault) string { return "from aws-vault's store (" + at.Backend + ")" }

// RemoveImported removes a key from aws-vault's store. It must be stored here,
// and be the same. Its error may be an [*AskError].
func (b *Broker) RemoveImported(ctx context.Context, caller Caller, at AWSVault, name string, how Reachable) error {
	if err := b.Outside(ctx, caller, "remove keys"); err != nil {
		return err
	}
	q := &query{key: KeyInfo{Name: name}}
	err := b.removeImported(ctx, caller, at, q, how)
	if ask, ok := asAsk(err); ok {
		return ask
	}
	if err != nil {
		return b.refuse(ctx, caller, q, "", err)
	}
	return nil
}

func (b *Broker) removeImported(ctx context.Context, caller Caller, at AWSVault, q *query, how Reachable) error {
	if b.cfg.AWSVault == nil {
		return errNoAWSVault
	}
	if err := CheckKeyName(q.key.Name); err != nil {
		q.key.Name = ""
		return err
	}
	if err := b.open(ctx, caller, "", how); err != nil {
		return err
	}
	// While it is removed there, nobody removes it here.
	release, err := b.changeKeys(ctx)
	if err != nil {
		return err
	}
	defer release()
	key, err := b.cfg.Keys.Key(ctx, q.key.Name)
	if err != nil {
		return fmt.Errorf("the key %q must be stored here before it is removed there: %w", q.key.Name, err)
	}
	defer key.SecretAccessKey.Clear()
	q.key = key.KeyInfo
	// The entry first, as in AddKey.
	entry := Event{Kind: EventKeyMoved, Outcome: OutcomeOK, Account: accountOf(key.UserARN), Key: key.event(), Caller: &caller, Reason: fromAWSVault(at)}
	if err := b.cfg.Log.Append(context.WithoutCancel(ctx), entry, true); err != nil {
		return fmt.Errorf("key %q was not removed: %w", key.Name, err)
	}
	return b.cfg.AWSVault.RemoveAWSVaultKey(ctx, at, key)
}
