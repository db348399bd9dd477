package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// prose writes paragraphs and timelines for a person, in lines that fit.
type prose struct {
	bytes.Buffer
	width   int
	palette palette
	day     string // the last heading
}

// prose is for standard output: as wide as the terminal, but not wider than is
// read well.
func (c *client) prose() *prose {
	width, ok := columns(c.stdout)
	if !ok {
		width = 80
	}
	return &prose{width: min(width, 100), palette: c.palette()}
}

// show has the user read what was written, in a pager where it is long.
func (c *client) show(w *prose) error {
	return c.paged(func(p *pager) error {
		_, err := p.Write(w.Bytes())
		if err != nil && !errors.Is(err, errQuit) {
			return notWritten(err)
		}
		return err
	})
}

// say writes a paragraph whose lines but the first are indented as far as it
// is.
func (w *prose) say(indent int, text string) { w.hang(strings.Repeat(" ", indent), text) }

// hang writes a paragraph after what is in front of its first line.
func (w *prose) hang(front, text string) { w.painted(front, text, nil) }

// painted is hang in a colour; nil is none.
func (w *prose) painted(front, text string, paint func(string) string) {
	indent := len([]rune(front))
	for i, line := range wrap(printable(text), w.width-indent) {
		if i > 0 {
			front = strings.Repeat(" ", indent)
		}
		if paint != nil {
			line = paint(line)
		}
		w.WriteString(front + line + "\n")
	}
}

// title writes a heading.
func (w *prose) title(text string) { w.painted("", text, w.palette.bold) }

// date writes the heading of a day, unless it is the one before's.
func (w *prose) date(at time.Time) {
	if day := at.Local().Format("2006-01-02 Monday"); day != w.day {
		w.day = day
		w.WriteString(w.palette.dim(day) + "\n")
	}
}

// fact writes what is known of something, unless nothing is.
func (w *prose) fact(name, value string) {
	if value != "" {
		w.hang(fmt.Sprintf("  %-8s  ", name), value)
	}
}

// A moment is an entry's place in a story.
type moment struct {
	seq   int64
	at    time.Time
	what  string
	more  []string // below it
	paint func(string) string
}

// timeline writes moments in the order of the log.
func (w *prose) timeline(all []moment) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b moment) int { return cmp.Compare(a.seq, b.seq) })
	digits := 0
	for _, m := range all {
		digits = max(digits, len(fmt.Sprint(m.seq)))
	}
	w.day = ""
	for _, m := range all {
		w.date(m.at)
		front := fmt.Sprintf("%s  #%-*d  ", m.at.Local().Format("15:04:05"), digits, m.seq)
		w.painted(front, m.what, m.paint)
		for _, text := range m.more {
			w.painted(strings.Repeat(" ", len(front)), text, w.palette.dim)
		}
	}
}

// clock tells a time, with its day where that is not day's.
func clock(t, day time.Time) string {
	t, day = t.Local(), day.Local()
	if t.Format("2006-01-02") == day.Format("2006-01-02") {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// whoAsked names the process behind an entry.
func whoAsked(c *broker.Caller) string {
	switch {
	case c == nil:
		return "somebody"
	case c.Via == "daemon":
		return "the daemon"
	}
	return process(c.Program, c.Asker())
}

func process(program string, p broker.Process) string {
	name := cmp.Or(program, p.Exe, "a process without a name")
	if p.PID == 0 {
		return name + " (in a PID namespace of its own)"
	}
	return fmt.Sprintf("%s (pid %d)", name, p.PID)
}

// surroundings tells where a process ran.
func surroundings(user, cwd, tty string, ancestors []broker.Process, resolved bool) string {
	var parts []string
	if user != "" {
		parts = append(parts, "as "+user)
	}
	if cwd != "" {
		parts = append(parts, "in "+cwd)
	}
	if tty != "" {
		parts = append(parts, "on "+tty)
	}
	var above []string
	for _, a := range ancestors {
		if a.PID == 1 {
			continue
		}
		name := a.Command // of another user's, the kernel tells no more
		if a.Exe != "" {
			name = filepath.Base(a.Exe)
		}
		above = append(above, fmt.Sprintf("%s (%d)", name, a.PID))
	}
	if len(above) > 0 {
		parts = append(parts, "below "+strings.Join(above, ", "))
	}
	text := strings.Join(parts, ", ")
	if !resolved {
		text = strings.TrimPrefix(text+"; its ancestors are not all known", "; ")
	}
	return text
}

// roleText names a role, or says that there is none.
func roleText(arn, account string) string {
	if _, name, ok := strings.Cut(arn, ":role/"); ok {
		return fmt.Sprintf("%s in %s (%s)", name, account, arn)
	}
	if arn != "" {
		return arn
	}
	return ""
}

// keyText names a long-term key.
func keyText(k *broker.EventKey) string {
	if k == nil {
		return ""
	}
	text := k.Name
	for _, more := range []string{k.AccessKeyID, k.UserARN} {
		if more != "" {
			text += ", " + more
		}
	}
	return strings.TrimPrefix(text, ", ")
}

// atAWS is what AWS knows a session by.
func atAWS(s broker.EventSession) string {
	var parts []string
	for _, part := range []string{s.AccessKeyID, s.Name} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if s.SourceIdentity != "" {
		parts = append(parts, "source identity "+s.SourceIdentity)
	}
	if s.STSRequestID != "" {
		parts = append(parts, "by STS request "+s.STSRequestID)
	}
	return strings.Join(parts, ", ")
}

// were begins a sentence about so many.
func were(n int, one string) string {
	if n == 1 {
		return "1 " + one + " was"
	}
	return fmt.Sprintf("%d %ss were", n, one)
}

// because is the end of a sentence that says why.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ", for: " + reason
}

// ofProfile says of which profile something is.
func ofProfile(name string) string {
	if name == "" {
		return ""
	}
	return " of profile " + name
}

// colon is the end of a sentence that explains it.
func colon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// errorText is what went wrong, with its code.
func errorText(e *broker.EventError) string {
	if e == nil {
		return errorMessage(e)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

func errorMessage(e *broker.EventError) string {
	if e == nil {
		return "the log does not say why"
	}
	return e.Message
}

// recipientMoments tell of the processes that got credentials. Those that are
// alike but for their numbers are told together.
func recipientMoments(all []audit.Recipient) (ms []moment) {
	type alike struct{ program, command, where, lease, reasons string }
	known := map[alike]int{}
	var groups [][]audit.Recipient
	for _, r := range all {
		is := alike{r.Program, r.Process.Command, surroundings(r.User, r.Cwd, r.TTY, r.Ancestors, r.Resolved), r.Lease, strings.Join(r.Reasons, "; ")}
		i, ok := known[is]
		if !ok {
			i = len(groups)
			known[is], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], r)
	}
	for _, g := range groups {
		ms = append(ms, recipientMoment(g))
	}
	return ms
}

func recipientMoment(g []audit.Recipient) moment {
	r, last := g[0], g[0].Last
	handouts := 0
	for _, one := range g {
		handouts += one.Handouts
		if one.Last.After(last) {
			last = one.Last
		}
	}
	m := moment{seq: r.FirstSeq, at: r.First, what: "got by " + process(r.Program, r.Process)}
	if len(g) > 1 {
		m.what = fmt.Sprintf("got by %d processes of %s", len(g), cmp.Or(r.Program, r.Process.Exe, "a program without a name"))
	}
	if handouts > 1 {
		m.what += fmt.Sprintf(", %d times until %s", handouts, clock(last, r.First))
	}
	if r.Lease != "" {
		m.what += ", in lease " + r.Lease
	}
	if len(g) > 1 {
		pids := make([]string, len(g))
		for i, one := range g {
			pids[i] = fmt.Sprint(one.Process.PID)
		}
		m.more = append(m.more, "pids "+strings.Join(pids, ", "))
	}
	for _, more := range []string{r.Process.Command, surroundings(r.User, r.Cwd, r.TTY, r.Ancestors, r.Resolved)} {
		if more != "" {
			m.more = append(m.more, more)
		}
	}
	if len(r.Reasons) > 0 {
		m.more = append(m.more, "for: "+strings.Join(r.Reasons, "; "))
	}
	return m
}
