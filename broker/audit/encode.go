package audit

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"gatepass/broker"
)

// The bounds of an entry. Lengths are in bytes as they stand in the file,
// escapes counted.
const (
	MaxEntry     = 16 << 10 // a line without its newline
	maxString    = 1 << 10  // each string of an entry
	maxAncestors = 16
	maxGroups    = 16

	// Where an entry gets too long for all that, its strings get these.
	tightString   = 256
	tightAncestor = 128
)

// A CommandMode says what of command lines is recorded: [audit] command in
// gatepass.toml.
type CommandMode string

// The modes. The zero value means CommandMasked.
const (
	CommandMasked CommandMode = "masked" // with what looks like a secret hidden
	CommandName   CommandMode = "name"   // the first word, without its directory
	CommandNone   CommandMode = "none"
)

// headRoom is the longest beginning of a line, up to and with the time:
// {"seq":9223372036854775807,"time":"2006-01-02T15:04:05.000000Z"
const headRoom = 64

const timeFormat = "2006-01-02T15:04:05.000000Z"

// An encoder holds one entry while it is written. What depends on the place
// in the log comes last, under the log's lock: [encoder.line] puts it into
// the room that [encoder.encode] leaves at the front.
type encoder struct {
	b     []byte
	cuts  []string // the fields that were cut
	tight bool
	err   error // why the entry could not be written, set under the log's lock
}

// encode writes all of e but its number and time.
func (x *encoder) encode(e *broker.Event, commands *commands) {
	x.tight = false
	x.fields(e, commands)
	if len(x.b) > MaxEntry {
		x.tight = true
		x.fields(e, commands)
	}
}

// line returns the entry's bytes with the newline.
func (x *encoder) line(seq int64, at time.Time) []byte {
	var head [headRoom]byte
	h := append(head[:0], `{"seq":`...)
	h = strconv.AppendInt(h, seq, 10)
	h = append(h, `,"time":"`...)
	h = appendTime(h, at)
	h = append(h, '"')
	start := headRoom - len(h)
	copy(x.b[start:], h)
	return x.b[start:]
}

// appendTime appends what at.UTC().Format(timeFormat) returns.
func appendTime(b []byte, at time.Time) []byte {
	at = at.UTC()
	year, month, day := at.Date()
	hour, minute, sec := at.Clock()
	b = appendDigits(b, year, 4)
	b = append(b, '-')
	b = appendDigits(b, int(month), 2)
	b = append(b, '-')
	b = appendDigits(b, day, 2)
	b = append(b, 'T')
	b = appendDigits(b, hour, 2)
	b = append(b, ':')
	b = appendDigits(b, minute, 2)
	b = append(b, ':')
	b = appendDigits(b, sec, 2)
	b = append(b, '.')
	b = appendDigits(b, at.Nanosecond()/1000, 6)
	return append(b, 'Z')
}

func appendDigits(b []byte, n, width int) []byte {
	var d [6]byte
	for i := width - 1; i >= 0; i-- {
		d[i] = byte('0' + n%10)
		n /= 10
	}
	return append(b, d[:width]...)
}

// fields writes the entry from its event on. The order is the format's.
func (x *encoder) fields(e *broker.Event, commands *commands) {
	x.b = append(x.b[:0], make([]byte, headRoom)...)
	x.cuts = x.cuts[:0]
	x.b = append(x.b, `,"event":`...)
	x.value("event", string(e.Kind))
	x.b = append(x.b, `,"outcome":`...)
	x.value("outcome", e.Outcome)
	x.str(`,"profile":`, "profile", e.Profile)
	x.str(`,"account":`, "account", e.Account)
	x.str(`,"role_arn":`, "role_arn", e.RoleARN)
	if k := e.Key; k != nil {
		x.object(`,"key":{`, func() {
			x.str(`,"name":`, "key.name", k.Name)
			x.str(`,"access_key_id":`, "key.access_key_id", k.AccessKeyID)
			x.str(`,"user_arn":`, "key.user_arn", k.UserARN)
		})
	}
	if s := e.Session; s != nil {
		x.object(`,"session":{`, func() {
			x.str(`,"id":`, "session.id", s.ID)
			x.str(`,"access_key_id":`, "session.access_key_id", s.AccessKeyID)
			x.str(`,"name":`, "session.name", s.Name)
			x.str(`,"source_identity":`, "session.source_identity", s.SourceIdentity)
			if !s.Expires.IsZero() {
				x.b = append(x.b, `,"expires":"`...)
				x.b = appendTime(x.b, s.Expires)
				x.b = append(x.b, '"')
			}
			x.str(`,"sts_request_id":`, "session.sts_request_id", s.STSRequestID)
		})
	}
	x.str(`,"lease":`, "lease", e.Lease)
	if c := e.Caller; c != nil {
		x.knownCaller(c, commands)
	}
	if len(e.Groups) > 0 {
		x.b = append(x.b, `,"groups":[`...)
		for i, g := range e.Groups {
			if i == maxGroups {
				x.cut("groups")
				break
			}
			if i > 0 {
				x.b = append(x.b, ',')
			}
			x.value("groups", g)
		}
		x.b = append(x.b, ']')
	}
	if e.Reason != "" { // typed in a hurry, or pasted
		x.str(`,"reason":`, "reason", maskCommand(e.Reason))
	}
	x.str(`,"decision":`, "decision", e.Decision)
	if f := e.Error; f != nil {
		x.b = append(x.b, `,"error":{"code":`...)
		x.value("error.code", string(f.Code))
		x.b = append(x.b, `,"message":`...)
		x.value("error.message", f.Message)
		x.b = append(x.b, '}')
	}
	if len(x.cuts) > 0 {
		x.b = append(x.b, `,"cut":["`...)
		for i, c := range x.cuts {
			if i > 0 {
				x.b = append(x.b, `","`...)
			}
			x.b = append(x.b, c...)
		}
		x.b = append(x.b, `"]`...)
	}
	x.b = append(x.b, "}\n"...)
}

// knownCaller writes the caller as it stood in an entry before, if it did.
func (x *encoder) knownCaller(c *broker.Caller, commands *commands) {
	if x.tight {
		x.caller(c, commands)
		return
	}
	if known, ok := commands.callers.find(c); ok {
		x.b, x.cuts = append(x.b, known.text...), append(x.cuts, known.cuts...)
		return
	}
	text, cuts := len(x.b), len(x.cuts)
	x.caller(c, commands)
	commands.callers.keep(c, x.b[text:], x.cuts[cuts:])
}

func (x *encoder) caller(c *broker.Caller, commands *commands) {
	x.b = append(x.b, `,"caller":{"uid":`...)
	x.b = strconv.AppendInt(x.b, int64(c.UID), 10)
	x.str(`,"user":`, "caller.user", c.User)
	x.b = append(x.b, `,"pid":`...)
	x.b = strconv.AppendInt(x.b, int64(c.PID), 10)
	x.str(`,"program":`, "caller.program", c.Program)
	x.str(`,"exe":`, "caller.exe", c.Exe)
	x.str(`,"command":`, "caller.command", commands.shown(c.Command))
	x.str(`,"cwd":`, "caller.cwd", c.Cwd)
	x.str(`,"tty":`, "caller.tty", c.TTY)
	x.str(`,"via":`, "caller.via", c.Via)
	x.b = append(x.b, `,"resolved":`...)
	x.b = strconv.AppendBool(x.b, c.Resolved)
	if len(c.Ancestors) > 0 {
		x.b = append(x.b, `,"ancestors":[`...)
		for i := range c.Ancestors {
			if i == maxAncestors {
				x.cut("caller.ancestors")
				break
			}
			if i > 0 {
				x.b = append(x.b, ',')
			}
			a := &c.Ancestors[i]
			x.b = append(x.b, `{"pid":`...)
			x.b = strconv.AppendInt(x.b, int64(a.PID), 10)
			x.str(`,"exe":`, "caller.ancestors.exe", a.Exe)
			x.str(`,"command":`, "caller.ancestors.command", commands.shown(a.Command))
			x.b = append(x.b, '}')
		}
		x.b = append(x.b, ']')
	}
	x.b = append(x.b, '}')
}

// object writes the fields that f writes, without the comma before the first.
func (x *encoder) object(open string, f func()) {
	x.b = append(x.b, open...)
	start := len(x.b)
	f()
	if len(x.b) > start {
		x.b = append(x.b[:start], x.b[start+1:]...)
	}
	x.b = append(x.b, '}')
}

// str writes a field, unless it is empty.
func (x *encoder) str(open, field, s string) {
	if s == "" {
		return
	}
	x.b = append(x.b, open...)
	x.value(field, s)
}

func (x *encoder) value(field, s string) {
	limit := maxString
	if x.tight {
		limit = tightString
		if strings.HasPrefix(field, "caller.ancestors") || field == "groups" {
			limit = tightAncestor
		}
	}
	var cut bool
	if x.b, cut = appendString(x.b, s, limit); cut {
		x.cut(field)
	}
}

func (x *encoder) cut(field string) {
	for _, c := range x.cuts {
		if c == field {
			return
		}
	}
	x.cuts = append(x.cuts, field)
}

// ellipsis ends a string that was cut.
const ellipsis = "…"

// plain says which ASCII bytes stand for themselves in a string.
var plain = func() (t [utf8.RuneSelf]bool) {
	for c := byte(0x20); c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendString appends s as a JSON string of which no byte does anything to a
// terminal. Where it would take more than limit bytes between the quotes, it
// ends in an ellipsis and cut is true.
func appendString(b []byte, s string, limit int) (_ []byte, cut bool) {
	b = append(b, '"')
	start := len(b)
	mark := start // the last place to cut at that leaves room for the ellipsis
	for i := 0; i < len(s); {
		if len(b)-start <= limit-len(ellipsis) {
			mark = len(b)
		}
		if c := s[i]; c < utf8.RuneSelf {
			if plain[c] {
				b = append(b, c)
			} else {
				b = appendEscape(b, rune(c))
			}
			i++
		} else {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 || !visible(r) {
				b = appendEscape(b, r)
			} else {
				b = append(b, s[i:i+n]...)
			}
			i += n
		}
		if len(b)-start > limit {
			return append(append(b[:mark], ellipsis...), '"'), true
		}
	}
	return append(b, '"'), false
}

// visible reports whether a terminal shows r as itself: no control (Cc),
// nothing that reorders or hides text (Cf: bidi, zero width, tags), no line
// or paragraph separator, nothing private or unassigned.
func visible(r rune) bool { return unicode.IsPrint(r) || r == ' ' }

func appendEscape(b []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(b, '\\', byte(r))
	case '\n':
		return append(b, '\\', 'n')
	case '\t':
		return append(b, '\\', 't')
	}
	if r > 0xffff {
		r -= 0x10000
		return appendUnit(appendUnit(b, 0xd800+r>>10), 0xdc00+r&0x3ff)
	}
	return appendUnit(b, r)
}

func appendUnit(b []byte, u rune) []byte {
	const hex = "0123456789abcdef"
	return append(b, '\\', 'u', hex[u>>12&15], hex[u>>8&15], hex[u>>4&15], hex[u&15])
}
