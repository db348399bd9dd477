package keystore

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/99designs/keyring"

	"gatepass/broker"
)

// open opens the backend that is asked for, and no other. It returns the
// backend's name: "auto" is the platform's own store or none.
func (h *helper) open() (vault, string, error) {
	backend := h.req.Backend
	if backend == "auto" {
		var err error
		if backend, err = h.auto(); err != nil {
			return nil, "", err
		}
	}
	if !slices.Contains(Backends(runtime.GOOS), backend) {
		return nil, "", broker.Errorf(broker.CodeConfig, "there is no keychain %.20q on %s", backend, runtime.GOOS)
	}
	open := h.openBackend
	if h.req.Kind == kindAWSVault {
		open = h.openAWSVault
	}
	v, err := open(backend)
	return v, backend, err
}

func (h *helper) openBackend(backend string) (vault, error) {
	switch backend {
	case "file":
		return h.openFile()
	case "pass":
		return h.openPass()
	case "keychain":
		return h.openKeychain()
	case "wincred":
		return h.openWinCred()
	case "keyctl":
		return h.openKeyctl()
	case "secret-service":
		return h.openSecretService()
	case "kwallet":
		return h.openKWallet()
	}
	return nil, missing(backend, "it is not known")
}

// openRing opens a backend of keyring. Open forgets why a backend could not be
// opened, so what can be known is found out before.
func openRing(backend string, cfg keyring.Config) (ringVault, error) {
	cfg.AllowedBackends = []keyring.BackendType{keyring.BackendType(backend)}
	ring, err := keyring.Open(cfg)
	if err != nil {
		return ringVault{}, missing(backend, "it cannot be opened")
	}
	return ringVault{backend, ring}, nil
}

// missing is the error for a keychain that is not there. Its hint is what to
// write where there is to be none.
func missing(backend, why string) *broker.Error {
	e := broker.Errorf(broker.CodeKeychainMissing, "the keychain (%s) is not there: %s", backend, why)
	if backend == "file" {
		return e
	}
	return e.WithHint("%s", otherKeychain)
}

const otherKeychain = `start the keychain's service, or choose the encrypted file store: write the line

    keychain = "file"

into gatepass.toml, and: gatepass daemon restart
Its passphrase is asked for when it is first needed.`

func locked(backend, why string) *broker.Error {
	e := broker.Errorf(broker.CodeKeychainLocked, "the keychain (%s) is locked: %s", backend, why)
	switch backend {
	case "file":
		return e.WithHint("in a terminal: gatepass keys list asks for its passphrase\nor start gatepassd with GATEPASS_FILE_PASSPHRASE set to it")
	case "pass":
		return e.WithHint("unlock gpg's key in a terminal, by showing any item with pass, and try again")
	}
	return e.WithHint("unlock it: log in to the desktop, or open its password manager there; then try again")
}

func denied(backend, why string) *broker.Error {
	return broker.Errorf(broker.CodeKeychainDenied, "the keychain (%s) refused: %s", backend, why)
}

// A ringVault is a keyring as it comes. The backends below wrap it where it
// lies.
type ringVault struct {
	backend string
	ring    keyring.Keyring
}

func (v ringVault) list() ([]string, error) {
	items, err := v.ring.Keys()
	if err != nil {
		return nil, mapError(v.backend, err)
	}
	return items, nil
}

func (v ringVault) get(item string) ([]byte, error) {
	it, err := v.ring.Get(item)
	if errors.Is(err, keyring.ErrKeyNotFound) {
		return nil, errAbsent
	} else if err != nil {
		return nil, mapError(v.backend, err)
	}
	if len(it.Data) > maxItem {
		return nil, broker.Errorf(broker.CodeData, "the item in the keychain (%s) is too long to be ours: %d bytes", v.backend, len(it.Data))
	}
	return it.Data, nil
}

func (v ringVault) put(item string, data []byte) error {
	return mapError(v.backend, v.ring.Set(keyring.Item{
		Key: item, Data: data, Label: item, Description: "gatepass",
	}))
}

func (v ringVault) remove(item string) error { return mapError(v.backend, v.ring.Remove(item)) }

func (v ringVault) probe() error {
	_, err := v.list()
	return err
}

// mapError gives the untyped errors of keyring and of what is below it their
// codes, by their texts. What it does not know is a refusal: the keychain did
// answer, and not with the item.
func mapError(backend string, err error) error {
	if err == nil {
		return nil
	}
	if e := (*broker.Error)(nil); errors.As(err, &e) {
		return e
	}
	text := printableText(err.Error())
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	switch {
	case errors.Is(err, os.ErrPermission):
		return denied(backend, text)
	case has("locked object", "locked collection", "Secret.Error.IsLocked",
		"User interaction is not allowed"): // macOS, errSecInteractionNotAllowed
		return locked(backend, text)
	case has("connection closed", "ServiceUnknown", "NameHasNoOwner", "Error.Disconnected", "Error.NoServer", "Spawn.",
		"No keychain is available", "specified keychain could not be found"): // macOS, errSecNotAvailable, errSecNoSuchKeychain
		return missing(backend, text)
	case has("Error.NoReply", "Error.Timeout", "Error.TimedOut"):
		return broker.Errorf(broker.CodeKeychainTimeout, "the keychain (%s) did not answer in time: %s", backend, text).
			WithHint("its service hangs: restart it, or log in again")
	case has("(-128)"): // macOS, userCanceledErr
		return denied(backend, "its dialog was cancelled")
	case has("disk quota exceeded") && backend == "keyctl":
		return denied(backend, "the kernel's quota of keys is used up (see /proc/key-users)")
	case has("invalid character", "unexpected end of JSON", "cannot unmarshal"):
		return broker.Errorf(broker.CodeData, "an item in the keychain (%s) is damaged", backend)
	}
	return denied(backend, text)
}

// printableText returns s as one line of at most 200 characters.
func printableText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return strings.TrimSpace(s)
}

// openKeychain opens the login keychain of macOS, which needs cgo.
func (h *helper) openKeychain() (vault, error) {
	return h.openKeychainOf(keyring.Config{
		ServiceName:                    "gatepass",
		KeychainTrustApplication:       true,
		KeychainAccessibleWhenUnlocked: true,
	})
}

func (h *helper) openKeychainOf(cfg keyring.Config) (vault, error) {
	if !slices.Contains(keyring.AvailableBackends(), keyring.KeychainBackend) {
		return nil, missing("keychain", "this gatepassd was built without cgo, which it needs on macOS")
	}
	if h.req.Op != opProbe && h.req.Op != opList {
		h.prompt(false) // it asks when it likes to, and there is no telling beforehand
	}
	ring, err := openRing("keychain", cfg)
	return keychainVault{ring}, err
}

// A keychainVault is macOS's keychain.
type keychainVault struct{ ringVault }

// get: keyring calls an item absent whenever the keychain returns none, also
// where that is a refusal. The list of names needs no unlocking.
func (v keychainVault) get(item string) ([]byte, error) {
	data, err := v.ringVault.get(item)
	if err != errAbsent {
		return data, err
	}
	items, err := v.list()
	if err != nil {
		return nil, err
	}
	if slices.Contains(items, item) {
		return nil, denied("keychain", "it holds the item but does not give it out: it is locked, or access was refused").
			WithHint("unlock the login keychain in Keychain Access and allow gatepassd")
	}
	return nil, errAbsent
}
