package keystore

import (
	"strings"

	"gatepass/broker"
)

// maxName is the longest name of a key or secret, in bytes.
const maxName = 64

// CheckName returns a [broker.CodeUsage] error for what cannot be the name of
// a stored key or secret. Names are 1 to 64 of A–Z a–z 0–9 _ . @ + = , - and
// begin with neither "-" nor ".", nor end with ".": some backends use them as
// file names and hand them to programs, so a name must not be an option
// ("-f"), hidden (".x"), a path ("..", "a/b"), or one that Windows makes into
// another ("ops." is "ops" there).
func CheckName(name string) error {
	if !validName(name) {
		return broker.Errorf(broker.CodeUsage, "%.80q cannot be the name of a key", name).
			WithHint("use 1 to %d letters, digits or _ . @ + = , - and begin with a letter or digit", maxName)
	}
	return nil
}

func validName(name string) bool {
	if name == "" || len(name) > maxName || name[0] == '-' || name[0] == '.' || name[len(name)-1] == '.' {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("_.@+=,-", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// The kinds of items, which are namespaces of their own.
const (
	kindKey    = "key"
	kindSecret = "secret"

	kindAWSVault = "aws-vault" // a key in aws-vault's own store; see awsvault.go
)

// itemName returns what the keychain calls the item of the given kind and
// name: "gatepass.key.ops". The prefix keeps us apart from the other programs
// in a shared collection. A capital letter becomes "~" and its small one, as
// Windows' credentials and the file systems of Windows and macOS take "Ops"
// and "ops" for the same.
func itemName(kind, name string) string {
	var b strings.Builder
	b.WriteString("gatepass." + kind + ".")
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			b.WriteByte('~')
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// nameOf inverts itemName; it reports false for what is not an item of that
// kind.
func nameOf(kind, item string) (string, bool) {
	s, ok := strings.CutPrefix(item, "gatepass."+kind+".")
	if !ok {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '~' {
			if i++; i == len(s) || s[i] < 'a' || s[i] > 'z' {
				return "", false
			}
			c = s[i] - ('a' - 'A')
		} else if 'A' <= c && c <= 'Z' {
			return "", false
		}
		b.WriteByte(c)
	}
	return b.String(), validName(b.String())
}
