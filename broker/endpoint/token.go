package endpoint

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"os"
	"time"
)

// writeToken makes a container's token and puts it into a file that our user
// alone can read, in one step: who reads the file finds the old token or the
// new one, whole. There is no newline, which SDKs refuse.
func writeToken(path string) (token []byte, err error) {
	random := make([]byte, 32)
	rand.Read(random)
	token = base64.RawURLEncoding.AppendEncode(nil, random)

	// A name that is always the same, so that a crash leaves one file at most.
	next := path + ".new"
	if err := os.Remove(next); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(token)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		os.Remove(next)
		return nil, err
	}
	return token, nil
}

// A token of IMDS is base64url of when it expires and of a MAC over that. The
// time is of the clock that counts from boot, which is never set back. The key
// is the lease's, of this run of the daemon: no other port takes the token,
// and none need be kept.

// newIMDSToken returns a token that lasts for ttl.
func (l *lease) newIMDSToken(ttl time.Duration) []byte {
	expires := binary.BigEndian.AppendUint64(nil, uint64(l.server.cfg.Clock.Boot()+ttl))
	return base64.RawURLEncoding.AppendEncode(nil, l.imdsMAC(expires))
}

// checkIMDSToken reports whether sent is a token of this port that has not
// expired.
func (l *lease) checkIMDSToken(sent string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(sent)
	if err != nil || len(b) != 8+sha256.Size || !hmac.Equal(b, l.imdsMAC(b[:8:8])) {
		return false
	}
	return uint64(l.server.cfg.Clock.Boot()) < binary.BigEndian.Uint64(b)
}

// imdsMAC returns expires with its MAC.
func (l *lease) imdsMAC(expires []byte) []byte {
	mac := hmac.New(sha256.New, l.key)
	mac.Write(expires)
	return mac.Sum(expires)
}
