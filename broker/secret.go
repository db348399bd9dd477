package broker

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// A Secret holds bytes that must not be seen: a secret access key, a session
// token, a token code. It prints, logs and formats as "[secret]" under every
// verb, refuses to be marshalled, and cannot be compared with ==. The bytes
// leave by Reveal alone, so a search for it finds every place where they do.
type Secret struct {
	_ [0]func() // == would not be constant-time
	b []byte
}

const redacted = "[secret]"

// NewSecret returns a Secret with a copy of s.
func NewSecret[S string | []byte](s S) Secret { return Secret{b: append([]byte(nil), s...)} }

// Reveal returns the bytes as a string. Call it only where they leave.
func (s Secret) Reveal() string { return string(s.b) }

// RevealBytes returns the Secret's own bytes: they change when it is cleared,
// and are not the caller's to change or keep.
func (s Secret) RevealBytes() []byte { return s.b }

// IsZero reports whether there is nothing to hide.
func (s Secret) IsZero() bool { return len(s.b) == 0 }

// Equal compares in constant time.
func (s Secret) Equal(t Secret) bool { return subtle.ConstantTimeCompare(s.b, t.b) == 1 }

// Clear overwrites the bytes, for this Secret and all copies of it.
func (s Secret) Clear() { clear(s.b) }

func (s Secret) String() string { return redacted }

// Format implements [fmt.Formatter] so that no verb, %x and %#v included,
// reaches the bytes.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

var errMarshalSecret = errors.New("a secret must not be marshalled")

// MarshalText refuses: what is written must be revealed by name.
func (s Secret) MarshalText() ([]byte, error) { return nil, errMarshalSecret }

// MarshalJSON refuses: what is written must be revealed by name.
func (s Secret) MarshalJSON() ([]byte, error) { return nil, errMarshalSecret }
