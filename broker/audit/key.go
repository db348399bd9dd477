package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"gatepass/broker"

	"golang.org/x/mod/sumdb/note"
)

// GenerateKey returns a new Ed25519 key that signs checkpoints: the signer's
// encoding, which belongs into the keychain and which [note.NewSigner] reads,
// and the verifier's, which is to be pinned. The name becomes the first line
// of each checkpoint; it is not empty and has neither spaces nor a plus.
func GenerateKey(name string) (signer broker.Secret, verifier string, err error) {
	if !validName(name) {
		return broker.Secret{}, "", fmt.Errorf("generate the audit log's key: %q cannot name a key", name)
	}
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return broker.Secret{}, "", fmt.Errorf("generate the audit log's key: %w", err)
	}
	return broker.NewSecret(skey), vkey, nil
}

// VerifierKey returns the public half of a signer key that [GenerateKey] made.
// Its errors do not quote the key.
func VerifierKey(signer broker.Secret) (string, error) {
	// PRIVATE+KEY+<name>+<hash>+<base64 of the algorithm and the seed>; a
	// name holds no plus sign, base64 may.
	f := strings.SplitN(signer.Reveal(), "+", 5)
	if len(f) == 5 {
		key, err := base64.StdEncoding.DecodeString(f[4])
		if err == nil && len(key) == 1+ed25519.SeedSize {
			defer clear(key)
			return note.NewEd25519VerifierKey(f[2], ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey))
		}
	}
	return "", broker.Errorf(broker.CodeData, "the audit log's signing key is damaged")
}

// KeyName returns a name for a new key of user's log on host, with a random
// end, since a log never has two keys of the same name.
func KeyName(user, host string) string {
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r == '+' || r == utf8.RuneError || unicode.IsSpace(r) || !unicode.IsPrint(r) {
				return '-'
			}
			return r
		}, s)
	}
	return fmt.Sprintf("gatepass-audit/%s@%s/%s", clean(user), clean(host), strings.ToLower(rand.Text()[:8]))
}

// validName is note's rule for key names; an origin is one.
func validName(name string) bool {
	return name != "" && len(name) <= 255 && utf8.ValidString(name) &&
		strings.IndexFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) < 0 &&
		!strings.Contains(name, "+")
}

// ReadPinnedKey returns the verifier key that file pins. A missing file is
// [broker.CodeNotFound], one that cannot be read [broker.CodeConfig], and one that
// holds something else [broker.CodeData].
func ReadPinnedKey(file string) (string, error) {
	return readKey(file, "read the audit log's pinned key", "the daemon writes it when it first signs the log; or name the key you trust with --key")
}

// ReadKey returns the verifier key that s is, else the one that the file s
// holds, with the codes of [ReadPinnedKey].
func ReadKey(s string) (string, error) {
	if _, err := note.NewVerifier(s); err == nil {
		return s, nil
	}
	return readKey(s, "read the public key to trust", `it is what "gatepass audit key" printed, or a file that holds that`)
}

// readKey reads a file that holds a verifier key. doing is what failed then,
// and absent what to do about a file that is not there.
func readKey(file, doing, absent string) (string, error) {
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", broker.Errorf(broker.CodeNotFound, "%s: %w", doing, err).WithHint("%s", absent)
	case err != nil:
		return "", broker.Errorf(broker.CodeConfig, "%s: %w", doing, err)
	case len(b) > 4096:
		return "", broker.Errorf(broker.CodeData, "%s: %s is too long to be a key", doing, file)
	}
	vkey := strings.TrimSuffix(string(b), "\n")
	if _, err := note.NewVerifier(vkey); err != nil {
		return "", broker.Errorf(broker.CodeData, "%s: %s: %w", doing, file, err)
	}
	return vkey, nil
}

// WritePinnedKey pins the verifier key in file (0600), unless another one is
// pinned there already: that is replaced only when told so, and else, as is what
// makes no key, a [broker.CodeData]. A file that cannot be written is a
// [broker.CodeConfig].
func WritePinnedKey(file, vkey string, replace bool) error {
	if _, err := note.NewVerifier(vkey); err != nil {
		return broker.Errorf(broker.CodeData, "pin the audit log's key: %w", err)
	}
	if !replace {
		old, err := ReadPinnedKey(file)
		switch {
		case err == nil && old == vkey:
			return nil
		case err == nil:
			return broker.Errorf(broker.CodeData, "pin the audit log's key: %s pins another key, %s", file, old).
				WithHint("if the log's key was replaced on purpose, remove the file; until then entries signed by the new key do not verify")
		case broker.CodeOf(err) != broker.CodeNotFound:
			return err
		}
	}
	dir := filepath.Dir(file)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = writeFile(osFS{}, dir, file, []byte(vkey+"\n"))
	}
	if err != nil {
		return broker.Errorf(broker.CodeConfig, "pin the audit log's key: %w", err)
	}
	return nil
}
