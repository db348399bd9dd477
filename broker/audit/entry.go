package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"gatepass/broker"
)

// An Entry is one line of the log.
type Entry struct {
	Seq  int64     `json:"seq"`
	Time time.Time `json:"time"`
	broker.Event
	Cut []string `json:"cut,omitempty"` // the fields that were too long, as "caller.command"
}

// ParseEntry decodes a line of the log, given without its newline. Fields
// that this version does not know are skipped. An error says what makes it no
// entry.
func ParseEntry(line []byte) (Entry, error) {
	h, err := checkBytes(line)
	if err != nil {
		return Entry{}, err
	}
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return Entry{}, err
	}
	// The fixed head is what readers filter by and verify counts by; a
	// repeated or differently cased field must not say something else.
	if e.Seq != h.seq || string(e.Kind) != string(h.event) || e.Time.UTC().Format(timeFormat) != string(h.time) {
		return Entry{}, errors.New("a field is repeated")
	}
	return e, nil
}

// A lineHead is the part of a line that is at fixed places.
type lineHead struct {
	seq         int64
	time, event []byte // within the line
}

var (
	errHead  = errors.New(`does not begin like an entry, {"seq":N,"time":"…","event":"…"`)
	errNoEnd = errors.New("does not end like an entry")
)

const (
	headSeq   = `{"seq":`
	headTime  = `,"time":"`
	headEvent = `","event":"`
)

// parseHead reads the beginning of a line: numbers without leading zeros, the
// time in its one form.
func parseHead(line []byte) (h lineHead, err error) {
	if len(line) < len(headSeq) || string(line[:len(headSeq)]) != headSeq {
		return h, errHead
	}
	i := len(headSeq)
	start := i
	for i < len(line) && i < start+19 && '0' <= line[i] && line[i] <= '9' {
		h.seq = h.seq*10 + int64(line[i]-'0')
		i++
	}
	if i == start || line[start] == '0' && i > start+1 || h.seq < 0 {
		return h, errHead
	}
	rest := line[i:]
	const timeAt, eventAt = len(headTime), len(headTime) + len(timeFormat)
	if len(rest) < eventAt+len(headEvent) || string(rest[:timeAt]) != headTime || string(rest[eventAt:eventAt+len(headEvent)]) != headEvent {
		return h, errHead
	}
	h.time = rest[timeAt:eventAt]
	for j, c := range h.time {
		if want := timeFormat[j]; '0' <= want && want <= '9' && (c < '0' || c > '9') || (want < '0' || want > '9') && c != want {
			return h, errHead
		}
	}
	h.event = rest[eventAt+len(headEvent):]
	n := bytes.IndexByte(h.event, '"')
	if n < 0 {
		return h, errHead
	}
	h.event = h.event[:n]
	if line[len(line)-1] != '}' {
		return h, errNoEnd
	}
	return h, nil
}

// parseTime reads the time that a line bears, zero where it has none.
func parseTime(line []byte) time.Time {
	h, err := parseHead(line)
	if err != nil {
		return time.Time{}
	}
	t, _ := time.Parse(timeFormat, string(h.time))
	return t
}

// checkLine holds a line against the format as far as every later version
// keeps it: its length, its head, JSON, and no byte that a terminal obeys.
func checkLine(line []byte) (lineHead, error) {
	h, err := checkBytes(line)
	if err == nil && !json.Valid(line) {
		return h, errors.New("is not JSON")
	}
	return h, err
}

// checkBytes is checkLine for those who read the JSON themselves.
func checkBytes(line []byte) (lineHead, error) {
	if len(line) > MaxEntry {
		return lineHead{}, fmt.Errorf("is longer than %d bytes", MaxEntry)
	}
	h, err := parseHead(line)
	if err != nil {
		return h, err
	}
	for i := 0; i < len(line); {
		if c := line[i]; ' ' <= c && c < 0x7f {
			i++
			continue
		}
		r, n := utf8.DecodeRune(line[i:])
		if r == utf8.RuneError && n == 1 || !visible(r) {
			return h, fmt.Errorf("has a byte at %d that the log escapes", i)
		}
		i += n
	}
	return h, nil
}
