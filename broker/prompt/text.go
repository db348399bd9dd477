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
	more := func(name, value string) {
		if value != "" {
			line(name + ": " + value)
		}
	}
	switch again := q.Reason != ""; {
	case q.Want == broker.WantPassphrase && again:
		b.WriteString("The passphrase of the keychain is needed once more.\n\n")
	case q.Want == broker.WantPassphrase:
		b.WriteString("The passphrase of the keychain is needed.\n\n")
	case q.Want == broker.WantNewPassphrase && again:
		b.WriteString("Choose the passphrase of the new keychain once more.\n\n")
	case q.Want == broker.WantNewPassphrase:
		b.WriteString("The keychain is new: choose the passphrase that opens it.\n" +
			"Without it nobody can read, or recover, what is kept there.\n\n")
	case q.Want == wantAgain:
		return "Type the same passphrase once more."
	case again:
		b.WriteString("A code of your MFA device is needed once more.\n\n")
	default:
		b.WriteString("A code of your MFA device is needed.\n\n")
	}
	if q.Reason != "" {
		line(q.Reason)
		b.WriteString("\n")
	}
	more("Keychain", q.Keychain)
	more("Profile", q.Profile)
	more("Program", q.Program)
	more("Device", q.Serial)
	return strings.TrimRight(b.String(), "\n")
}

// field names what is typed, where a dialog has room for it.
func field(q broker.Question) string {
	if unseen(q) {
		return "Passphrase"
	}
	return "MFA code"
}

// unseen reports whether nobody is to see what is typed.
func unseen(q broker.Question) bool {
	return q.Want != broker.WantCode
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

// escapeHTML is for kdialog where it shows markup, and reads C's escapes too.
func escapeHTML(s string) string {
	return strings.NewReplacer(`\`, `\\`, "&", "&amp;", "<", "&lt;", ">", "&gt;", "\n", "<br>").Replace(s)
}
