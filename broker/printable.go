package broker

import (
	"unicode"
	"unicode/utf8"
)

// Printable returns s with everything escaped that could move a terminal's
// cursor, colour it, or reorder or hide text: what others wrote (profile names,
// programs, AWS's messages) is shown, never obeyed.
func Printable(s string) string {
	clean := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	const hex = "0123456789abcdef"
	b := make([]byte, 0, len(s)+16)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1, r < 0x80 && !unicode.IsPrint(r):
			b = append(b, '\\', 'x', hex[s[i]>>4], hex[s[i]&15])
		case unicode.IsPrint(r):
			b = append(b, s[i:i+n]...)
		default: // controls of U+0080 to U+009F, bidi and other format characters, odd spaces
			b = append(b, '\\', 'u')
			if r > 0xffff {
				b[len(b)-1] = 'U'
				b = append(b, '0', '0', hex[r>>20&15], hex[r>>16&15])
			}
			b = append(b, hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		}
		i += n
	}
	return string(b)
}
