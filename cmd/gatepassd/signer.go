package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/user"

	"golang.org/x/mod/sumdb/note"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/keystore"
)

// signingKey is the name of the audit log's signing key in the keychain.
const signingKey = "audit-signing-key"

// auditSigner returns what reads the audit log's signing key from the
// keychain, making one the first time, and pins its public half in file.
//
// A key that is lost (the user chose another keychain, say) is replaced, but
// its pin is not: audit verify goes on trusting the old one until the user
// removes the file, since a replaced key is also what tampering looks like.
func auditSigner(keys *keystore.Store, file string, log *slog.Logger) func(context.Context) (note.Signer, error) {
	return func(ctx context.Context) (note.Signer, error) {
		secret, err := keys.Secret(ctx, signingKey)
		if broker.CodeOf(err) == broker.CodeNotFound {
			secret, err = newSigningKey(ctx, keys)
		}
		if err != nil {
			return nil, fmt.Errorf("read the audit log's signing key: %w", err)
		}
		defer secret.Clear()
		signer, err := note.NewSigner(secret.Reveal())
		if err != nil { // its error may quote the key
			return nil, broker.Errorf(broker.CodeData, "the audit log's signing key in the keychain is damaged")
		}
		// Not only when the key is new: the daemon may have been killed
		// between the two, or the user removed the pin of a lost key.
		if err := pin(file, secret); err != nil {
			log.Warn("the audit log's signing key is not pinned", "key", signer.Name(), "err", err)
		}
		return signer, nil
	}
}

// pin writes the public half of the signing key into file, if none is there.
func pin(file string, secret broker.Secret) error {
	public, err := audit.VerifierKey(secret)
	if err != nil {
		return err
	}
	return audit.WritePinnedKey(file, public, false)
}

func newSigningKey(ctx context.Context, keys *keystore.Store) (broker.Secret, error) {
	name := "user"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	secret, _, err := audit.GenerateKey(audit.KeyName(name, host))
	if err != nil {
		return broker.Secret{}, err
	}
	if err := keys.PutSecret(ctx, signingKey, secret); err != nil {
		return broker.Secret{}, err
	}
	return secret, nil
}
