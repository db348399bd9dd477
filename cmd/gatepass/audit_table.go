package main

import (
	"bytes"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// A table shows entries, one by one, to a person. On a terminal each day has
// a heading, rows fit the width, and what went wrong is told in full below
// its row; elsewhere every entry is one line with its date.
type table struct {
	width   int // 0 when it is no terminal
	palette palette
	live    bool   // rows are shown as they come, in columns of the usual width
	day     string // the last heading

	held             []audit.Entry // until the columns fit them
	profile, program int           // widths of columns, 0 until they are known
	seq              int           // of that of their numbers
}

const (
	eventWidth  = 18 // "credentials.served"
	usualWidth  = 14 // of a profile's name, and a program's
	widestShown = 40 // of either
	usualSeq    = 6  // of an entry's number
	rowsToFit   = 100
)

// add takes an entry and returns what there is to show by now.
func (t *table) add(e audit.Entry) []byte {
	if t.profile > 0 {
		return t.row(e)
	}
	t.held = append(t.held, e)
	if !t.live && len(t.held) < rowsToFit {
		return nil
	}
	return t.flush()
}

// flush returns what shows the entries that were held back.
func (t *table) flush() []byte {
	var b bytes.Buffer
	if t.profile == 0 && len(t.held) > 0 {
		t.profile, t.program, t.seq = usualWidth, usualWidth, usualSeq
		if !t.live {
			t.fit()
		}
		b.WriteString(t.palette.bold(t.columns("TIME", "ENTRY", "EVENT", "PROFILE", "PROGRAM", "WHAT")) + "\n")
	}
	for _, e := range t.held {
		b.Write(t.row(e))
	}
	t.held = nil
	return b.Bytes()
}

// fit makes the columns as wide as the entries that are held need. On a
// terminal they leave room for "s-7f3k2m9qxd".
func (t *table) fit() {
	t.profile, t.program, t.seq = len("PROFILE"), len("PROGRAM"), len("ENTRY")
	for _, e := range t.held {
		t.seq = max(t.seq, len(strconv.FormatInt(e.Seq, 10)))
		t.profile = max(t.profile, utf8.RuneCountInString(printable(e.Profile)))
		t.program = max(t.program, utf8.RuneCountInString(printable(t.programOf(e))))
	}
	if t.width == 0 {
		t.profile, t.program = min(t.profile, widestShown), min(t.program, widestShown)
		return
	}
	t.profile = min(t.profile, max(12, t.width/6))
	rest := t.width - len("15:04:05  ") - t.seq - len("  ") - eventWidth - len("  ") - t.profile - len("  ")
	t.program = min(t.program, max(10, rest-len("  s-7f3k2m9qxd")))
}

// programOf is what stands for e's program. Of a path, the end tells more than
// the beginning.
func (t *table) programOf(e audit.Entry) string {
	switch {
	case e.Caller == nil:
		return ""
	case t.width > 0 && filepath.IsAbs(e.Caller.Program):
		return filepath.Base(e.Caller.Program)
	}
	return e.Caller.Program
}

// row returns what shows e.
func (t *table) row(e audit.Entry) []byte {
	var b bytes.Buffer
	local := e.Time.Local()
	at := local.Format("2006-01-02 15:04:05")
	if t.width > 0 {
		at = local.Format("15:04:05")
		if day := local.Format("2006-01-02 Monday"); day != t.day {
			t.day = day
			b.WriteString(t.palette.dim(day) + "\n")
		}
	}
	what, detail := whatHappened(e)
	if t.width == 0 && detail != "" {
		what, detail = what+": "+detail, ""
	}
	line := t.columns(at, strconv.FormatInt(e.Seq, 10), string(e.Kind), e.Profile, t.programOf(e), what)
	switch e.Outcome {
	case broker.OutcomeDenied:
		line = t.palette.red(line)
	case broker.OutcomeFailed:
		line = t.palette.yellow(line)
	}
	b.WriteString(line + "\n")
	if detail != "" {
		for _, part := range wrap(printable(detail), t.width-len("15:04:05  ")) {
			b.WriteString("          " + t.palette.dim(part) + "\n")
		}
	}
	return b.Bytes()
}

// columns lays out one row.
func (t *table) columns(at, seq, event, profile, program, what string) string {
	timeWidth := len("2006-01-02 15:04:05")
	if t.width > 0 {
		timeWidth = len("15:04:05")
	}
	cell := func(s string, width int) string {
		s = printable(s)
		if t.width > 0 {
			s = clip(s, width)
		}
		return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s))) + "  "
	}
	row := cell(at, timeWidth) + cell(seq, t.seq) + cell(event, eventWidth) + cell(profile, t.profile) + cell(program, t.program)
	what = printable(what)
	if t.width > 0 {
		what = fitting(what, max(8, t.width-utf8.RuneCountInString(row)))
	}
	row = strings.TrimRight(row+what, " ")
	if t.width > 0 {
		row = clip(row, t.width) // no room for all columns: a broken line is worse
	}
	return row
}

// fitting shortens what [whatHappened] tells to n columns: whole parts go, from
// the last, before one is cut.
func fitting(what string, n int) string {
	for utf8.RuneCountInString(what) > n {
		parts := strings.TrimSuffix(what, ", …")
		if i := strings.LastIndex(parts, ", "); i >= 0 {
			what = parts[:i] + ", …"
		} else if parts != what {
			what = parts
		} else if i := strings.Index(what, " until "); i >= 0 {
			what = what[:i]
		} else {
			return clip(what, n)
		}
	}
	return what
}

// whatHappened tells an entry in a few words, and what went wrong in full.
func whatHappened(e audit.Entry) (what, detail string) {
	if e.Error != nil {
		return string(e.Error.Code), e.Error.Message
	}
	var parts []string
	if e.Session != nil && e.Session.ID != "" {
		s := e.Session.ID
		if !e.Session.Expires.IsZero() && e.Kind != broker.EventSessionEnded {
			s += " until " + e.Session.Expires.Local().Format("15:04")
		}
		parts = append(parts, s)
	}
	if e.Key != nil && e.Key.Name != "" && e.Kind != broker.EventCredentialsServed {
		parts = append(parts, "key "+e.Key.Name)
	}
	if e.Lease != "" {
		parts = append(parts, e.Lease)
	}
	if e.Reason != "" {
		parts = append(parts, e.Reason)
	}
	return strings.Join(parts, ", "), ""
}

// wrap breaks s into lines of at most width columns, between words where it
// can.
func wrap(s string, width int) []string {
	width = max(width, 20)
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		for utf8.RuneCountInString(word) > width {
			r := []rune(word)
			if line != "" {
				lines = append(lines, line)
				line = ""
			}
			lines, word = append(lines, string(r[:width])), string(r[width:])
		}
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
