package ststest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// A session is what a session token says. The Sandbox keeps none of it: like
// AWS's, its tokens are sealed and carry everything.
type session struct {
	Principal      string            `json:"p"`           // ARN of the user, the role or the account's root
	Name           string            `json:"n,omitempty"` // RoleSessionName, for a role
	Issued         int64             `json:"i"`           // Unix seconds
	Expires        int64             `json:"e"`
	MFA            int64             `json:"m,omitempty"` // when an MFA code was given; 0 means never
	SourceIdentity string            `json:"s,omitempty"`
	TransitiveTags map[string]string `json:"t,omitempty"`
}

// A sealer makes session tokens. Its key comes from the configuration alone,
// so that sessions outlive a restart of the sandbox.
type sealer struct {
	aead   cipher.AEAD
	secret []byte
}

func newSealer(c Config) sealer {
	h := sha256.New()
	h.Write([]byte("gatepass sandbox session\n"))
	for _, a := range c.Accounts {
		h.Write([]byte(a.ID + "\n"))
		for _, k := range a.RootKeys {
			h.Write([]byte(k.ID + " " + k.Secret + "\n"))
		}
		for _, u := range a.Users {
			for _, k := range u.Keys {
				h.Write([]byte(k.ID + " " + k.Secret + "\n"))
			}
		}
	}
	key := h.Sum(nil)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has 16-byte blocks
	}
	return sealer{aead: aead, secret: key}
}

// seal returns credentials for ses. The token opens only beside its own access
// key id.
func (s sealer) seal(ses session) credentials {
	var b [10]byte
	rand.Read(b[:])
	keyID := "ASIA" + base32.StdEncoding.EncodeToString(b[:])
	plain, err := json.Marshal(ses)
	if err != nil {
		panic(err) // strings and numbers
	}
	nonce := make([]byte, s.aead.NonceSize())
	rand.Read(nonce)
	token := s.aead.Seal(nonce, nonce, plain, []byte(keyID))
	return credentials{
		AccessKeyID:     keyID,
		SecretAccessKey: s.secretOf(keyID),
		SessionToken:    base64.StdEncoding.EncodeToString(token),
		Expiration:      time.Unix(ses.Expires, 0).UTC().Format(time.RFC3339),
	}
}

func (s sealer) open(keyID, token string) (ses session, ok bool) {
	// Strict, and no line breaks, so that no second spelling of the token
	// passes for it.
	sealed, err := base64.StdEncoding.Strict().DecodeString(token)
	n := s.aead.NonceSize()
	if err != nil || strings.ContainsAny(token, "\r\n") || len(sealed) < n {
		return ses, false
	}
	plain, err := s.aead.Open(nil, sealed[:n], sealed[n:], []byte(keyID))
	if err != nil {
		return ses, false
	}
	return ses, json.Unmarshal(plain, &ses) == nil
}

// secretOf returns the secret access key, 40 characters, of a session's key id.
func (s sealer) secretOf(keyID string) string {
	return base64.StdEncoding.EncodeToString(hmacSHA256(s.secret, keyID)[:30])
}

// sessionCredentials opens a session token.
func (s *Sandbox) sessionCredentials(keyID, token string, now time.Time) (*principal, string, *apiError) {
	ses, ok := s.sealer.open(keyID, token)
	if !ok {
		return nil, "", invalidToken("the session token is not one that was issued with this key")
	}
	if now.Unix() >= ses.Expires {
		return nil, "", refuse(http.StatusForbidden, "ExpiredToken", "The security token included in the request is expired")
	}
	p := s.principalOf(ses)
	if p == nil {
		return nil, "", invalidToken("the session's principal is gone")
	}
	p.session = &ses
	return p, s.sealer.secretOf(keyID), nil
}

func (s *Sandbox) principalOf(ses session) *principal {
	if u := s.users[ses.Principal]; u != nil {
		return userPrincipal(u)
	}
	if r := s.roles[ses.Principal]; r != nil {
		return rolePrincipal(r, ses.Name)
	}
	for _, a := range s.accounts {
		if a.root() == ses.Principal {
			return rootPrincipal(a)
		}
	}
	return nil
}
