package keystore

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/99designs/keyring"
	"github.com/godbus/dbus"

	"gatepass/broker"
)

// https://specifications.freedesktop.org/secret-service-spec/latest/
const (
	secretsPath       = "/org/freedesktop/secrets"
	secretsCollection = secretsPath + "/collection/"
	secretsIface      = "org.freedesktop.Secret."
)

// A secretVault is a collection of the Secret Service that is known to be
// there and unlocked. keyring takes a missing collection for an empty one,
// asks on a desktop that is not there, and forgets that a dialog was cancelled;
// so the state is looked at, and dialogs are shown, by us.
type secretVault struct {
	ringVault
	h          *helper
	conn       *dbus.Conn
	collection dbus.ObjectPath
}

func (h *helper) openSecretService() (vault, error) {
	return h.openCollection("gatepass", (*secretVault).find)
}

// openAWSVaultSecretService opens aws-vault's collection.
func (h *helper) openAWSVaultSecretService() (vault, error) {
	return h.openCollection("aws-vault", (*secretVault).findAWSVault)
}

func (h *helper) openCollection(service string, find func(*secretVault) (dbus.ObjectPath, error)) (vault, error) {
	conn, why := sessionBus()
	if conn == nil {
		return nil, missing("secret-service", why)
	}
	there, err := offered(conn, secretsName)
	if err != nil {
		return nil, mapError("secret-service", err)
	} else if !there {
		return nil, missing("secret-service", "nobody on the session bus offers "+secretsName)
	}
	v := &secretVault{h: h, conn: conn}
	if v.collection, err = find(v); err != nil {
		return nil, err
	}
	if err := v.unlock(v.collection, secretsIface+"Collection.Locked"); err != nil {
		return nil, err
	}
	v.ringVault, err = openRing("secret-service", keyring.Config{
		ServiceName:             service,
		LibSecretCollectionName: collectionName(v.collection),
	})
	return v, err
}

func (v *secretVault) object(path dbus.ObjectPath) dbus.BusObject {
	return v.conn.Object(secretsName, path)
}

// find returns the collection "login", else the default one. A service that
// was started by the bus and not by the login has not loaded any: that is not
// a keychain without keys. The first write on a new desktop makes one.
func (v *secretVault) find() (dbus.ObjectPath, error) {
	var all []dbus.ObjectPath
	if err := property(v.object(secretsPath), secretsIface+"Service.Collections", &all); err != nil {
		return "", mapError("secret-service", err)
	}
	if slices.Contains(all, secretsCollection+"login") {
		return secretsCollection + "login", nil
	}
	var path dbus.ObjectPath
	if err := v.object(secretsPath).Call(secretsIface+"Service.ReadAlias", 0, "default").Store(&path); err != nil {
		return "", mapError("secret-service", err)
	}
	if path != "/" && slices.Contains(all, path) {
		return path, nil
	}
	if v.h.req.Op != opPut || !v.h.mayPrompt() {
		return "", missing("secret-service", "its service runs but has no keyring loaded").
			WithHint("log in to the desktop so that its login keyring is opened (gatepass keys add makes one there where there is none); or %s", otherKeychain)
	}
	var prompt dbus.ObjectPath
	props := map[string]dbus.Variant{secretsIface + "Collection.Label": dbus.MakeVariant("Login")}
	if err := v.object(secretsPath).Call(secretsIface+"Service.CreateCollection", 0, props, "default").Store(&path, &prompt); err != nil {
		return "", mapError("secret-service", err)
	}
	if prompt != "/" {
		result, err := v.ask(prompt, false)
		if err != nil {
			return "", err
		}
		path, _ = result.Value().(dbus.ObjectPath)
	}
	if !strings.HasPrefix(string(path), secretsCollection) {
		return "", denied("secret-service", "it made no keyring")
	}
	return path, nil
}

// findAWSVault returns the collection that keyring takes for aws-vault's. It
// makes none, and so asks nobody who has never used aws-vault.
func (v *secretVault) findAWSVault() (dbus.ObjectPath, error) {
	var all []dbus.ObjectPath
	if err := property(v.object(secretsPath), secretsIface+"Service.Collections", &all); err != nil {
		return "", mapError("secret-service", err)
	}
	for _, path := range all {
		if collectionName(path) == v.h.req.Collection {
			return path, nil
		}
	}
	return "", noAWSVault("the keychain (secret-service) has no collection %q", v.h.req.Collection)
}

// unlock makes sure that the object is unlocked, as its property says. One
// without a password is unlocked by asking for it; for others there must be a
// desktop to ask on.
func (v *secretVault) unlock(path dbus.ObjectPath, lockedProperty string) error {
	var isLocked bool
	if err := property(v.object(path), lockedProperty, &isLocked); err != nil {
		return mapError("secret-service", err)
	}
	if !isLocked {
		return nil
	}
	var unlocked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	if err := v.object(secretsPath).Call(secretsIface+"Service.Unlock", 0, []dbus.ObjectPath{path}).Store(&unlocked, &prompt); err != nil {
		return mapError("secret-service", err)
	}
	if prompt != "/" && !v.h.mayPrompt() {
		v.object(prompt).Call(secretsIface+"Prompt.Dismiss", 0) // it was not shown yet
		return locked("secret-service", "its keyring is, and there is no desktop to ask on")
	}
	if prompt != "/" {
		if _, err := v.ask(prompt, true); err != nil {
			return err
		}
	}
	// The dialog's word is not enough: some say done and mean closed.
	if err := property(v.object(path), lockedProperty, &isLocked); err != nil {
		return mapError("secret-service", err)
	}
	if isLocked {
		return locked("secret-service", "it was not unlocked")
	}
	return nil
}

// ask shows a dialog of the service and waits for its end.
func (v *secretVault) ask(prompt dbus.ObjectPath, unlocks bool) (dbus.Variant, error) {
	v.h.prompt(unlocks)
	signals := make(chan *dbus.Signal, 16)
	v.conn.Signal(signals)
	defer v.conn.RemoveSignal(signals)
	dialog := v.object(prompt)
	if err := dialog.AddMatchSignal(secretsIface+"Prompt", "Completed", dbus.WithMatchObjectPath(prompt)).Err; err != nil {
		return dbus.Variant{}, mapError("secret-service", err)
	}
	if err := dialog.Call(secretsIface+"Prompt.Prompt", 0, "").Err; err != nil {
		return dbus.Variant{}, mapError("secret-service", err)
	}
	for s := range signals {
		if s.Path != prompt || s.Name != secretsIface+"Prompt.Completed" {
			continue
		}
		var dismissed bool
		var result dbus.Variant
		if err := dbus.Store(s.Body, &dismissed, &result); err != nil {
			return dbus.Variant{}, mapError("secret-service", err)
		}
		if dismissed {
			return dbus.Variant{}, denied("secret-service", "its dialog was cancelled")
		}
		return result, nil
	}
	return dbus.Variant{}, missing("secret-service", "the session bus went away while its dialog was open")
}

// collectionName returns what keyring must be told to find the collection. It
// compares paths with "_xx" taken for the byte that is xx in hexadecimal.
func collectionName(path dbus.ObjectPath) string {
	name := strings.TrimPrefix(string(path), secretsCollection)
	var b []byte
	for i := 0; i < len(name); i++ {
		if name[i] != '_' {
			b = append(b, name[i])
			continue
		}
		if i+3 > len(name) {
			return name
		}
		c, err := hex.DecodeString(name[i+1 : i+3])
		if err != nil {
			return name
		}
		b = append(b, c...)
		i += 2
	}
	return string(b)
}

// list goes by the attribute that get searches for. keyring goes by labels,
// which people edit, and skips those that it cannot read.
func (v *secretVault) list() ([]string, error) {
	var paths []dbus.ObjectPath
	if err := property(v.object(v.collection), secretsIface+"Collection.Items", &paths); err != nil {
		return nil, mapError("secret-service", err)
	}
	var items []string
	for _, path := range paths {
		var attributes map[string]string
		err := property(v.object(path), secretsIface+"Item.Attributes", &attributes)
		if e := (dbus.Error{}); errors.As(err, &e) && (strings.HasSuffix(e.Name, ".NoSuchObject") || strings.HasSuffix(e.Name, ".UnknownObject")) {
			continue // removed since
		} else if err != nil {
			return nil, mapError("secret-service", err)
		}
		if item := attributes["profile"]; item != "" {
			items = append(items, item)
		}
	}
	return items, nil
}

// get makes sure of the item first: some services lock items one by one.
func (v *secretVault) get(item string) ([]byte, error) {
	var paths []dbus.ObjectPath
	if err := v.object(v.collection).Call(secretsIface+"Collection.SearchItems", 0, map[string]string{"profile": item}).Store(&paths); err != nil {
		return nil, mapError("secret-service", err)
	}
	if len(paths) == 0 {
		return nil, errAbsent
	}
	if err := v.unlock(paths[0], secretsIface+"Item.Locked"); err != nil {
		return nil, err
	}
	data, err := v.ringVault.get(item)
	if err == errAbsent {
		return nil, broker.Errorf(broker.CodeKeychainDenied, "the keychain (secret-service) has the item %s and does not give it", item)
	}
	return data, err
}

func (v *secretVault) probe() error { return nil }
