package prompt

import (
	"strings"
	"unicode"

	"gatepass/broker"
)

// width is what a line of a dialog may have: dialogs do not break lines, or
// only at spaces, and a longer one makes a window that no screen shows whole.
const width = 60

// text is what the user reads. Its first line is ours alone: Qt takes a text
// for markup by what its first line holds.
func text(q broker.Question) string {
	var b strings.Builder
	line := func(s string) { b.WriteString(wrap(plain(s)) + "\n") }
	if q.Reason == "" {
		b.WriteString("A code of your MFA device is needed.\n\n")
	} else {
		b.WriteString("A code of your MFA device is needed once more.\n\n")
		line(q.Reason)
		b.WriteString("\n")
	}
	line("Profile: " + q.Profile)
	if q.Program != "" {
		line("Program: " + q.Program)
	}
	line("Device: " + q.Serial)
	return strings.TrimSuffix(b.String(), "\n")
}

// plain shows a text that others chose: no line of its own, nothing that
// reorders what stands around it, and not long.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // controls, bidi marks, odd spaces and line ends
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if r := []rune(s); len(r) > 300 {
		s = string(r[:300]) + "…"
	}
	return s
}

// wrap breaks a line at spaces, and where there is none in time, anywhere.
func wrap(s string) string {
	var b strings.Builder
	for r := []rune(s); ; {
		if len(r) <= width {
			b.WriteString(string(r))
			return b.String()
		}
		end := width
		for end > 0 && r[end] != ' ' {
			end--
		}
		next := end + 1
		if end < width/2 {
			end, next = width, width
		}
		b.WriteString(string(r[:end]) + "\n")
		r = r[next:]
	}
}

// escapeZenity keeps zenity from reading C's escapes in a text, and "_" as
// what underlines a letter.
func escapeZenity(s string) string {
	return strings.NewReplacer(`\`, `\\`, "_", "__").Replace(s)
}

// escapeKDialog keeps kdialog from reading C's escapes in a text, and Qt "&"
// as what underlines a letter.
func escapeKDialog(s string) string {
	return strings.NewReplacer(`\`, `\\`, "&", "&&").Replace(s)
}
