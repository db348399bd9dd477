package main

import (
	"strings"
	"testing"
	"time"
)

func TestParseWhen(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skipf("no time zones here: %v", err)
	}
	now := time.Date(2026, 11, 3, 10, 30, 0, 0, berlin) // a Tuesday, nine days after the end of summer time
	for in, want := range map[string]string{
		"2026-11-01T08:00:00Z": "2026-11-01T08:00:00Z", "2026-11-01T08:00:00+02:00": "2026-11-01T06:00:00Z", "2026-11-01T08:00Z": "2026-11-01T08:00:00Z",
		"2026-11-01T08:00:00.5Z": "2026-11-01T08:00:00.5Z",
		"2026-11-01":             "2026-10-31T23:00:00Z", "2026-11-01 08:00": "2026-11-01T07:00:00Z", "2026-11-01T08:00:30": "2026-11-01T07:00:30Z",
		"2026-10-24": "2026-10-23T22:00:00Z",
		"08:00":      "2026-11-03T07:00:00Z", "8:00": "2026-11-03T07:00:00Z", "23:59:59": "2026-11-03T22:59:59Z",
		"today": "2026-11-02T23:00:00Z", "yesterday": "2026-11-01T23:00:00Z", "now": "2026-11-03T09:30:00Z",
		"yesterday 14:30": "2026-11-02T13:30:00Z", "today  08:00": "2026-11-03T07:00:00Z", "Yesterday": "2026-11-01T23:00:00Z",
		"monday": "2026-11-01T23:00:00Z", "last monday": "2026-11-01T23:00:00Z", "tue": "2026-10-26T23:00:00Z", "last tuesday": "2026-10-26T23:00:00Z",
		"Last Tuesday 09:15": "2026-10-27T08:15:00Z", "wednesday": "2026-10-27T23:00:00Z",
		"2h": "2026-11-03T07:30:00Z", "90m": "2026-11-03T08:00:00Z", "1h30m": "2026-11-03T08:00:00Z", "3d": "2026-10-31T09:30:00Z",
		"2w": "2026-10-20T09:30:00Z", "2h ago": "2026-11-03T07:30:00Z", "3d ago": "2026-10-31T09:30:00Z",
	} {
		got, ok := parseWhen(in, now)
		if !ok || got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %v, %v; want %s", in, got.UTC(), ok, want)
		}
	}
	for _, in := range []string{"", " ", "7", "3600", "soon", "-2h", "0h", "0w", "-1w", "2026-13-01", "2026-11-01T08:00:00X", "24:00", "08:60", "last", "last week",
		"last yesterday", "last 2h", "last last monday", "monday 25:00", "now ago", "today ago", "08:00 ago", "7 ago", "2h 3m", "w", "d", "ago"} {
		if got, ok := parseWhen(in, now); ok {
			t.Errorf("%q: %v", in, got)
		}
	}
}

// FuzzParseWhen wants no panic and no point in time that means no bound, and
// the same answer in another case and with more blanks.
func FuzzParseWhen(f *testing.F) {
	for _, s := range []string{"2026-11-01", "2h", "3d", "2w ago", "yesterday", "last tuesday 09:15", "08:00", "9223372036854775807h", "106752d"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 3, 10, 30, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		at, ok := parseWhen(s, now)
		if !ok {
			return
		}
		if at.IsZero() && s[:4] != "0001" {
			t.Errorf("%q: the zero time", s)
		}
		if s[0] > '9' && at.After(now.AddDate(0, 0, 1)) {
			t.Errorf("%q: %v is to come", s, at)
		}
		if again, ok := parseWhen(" "+strings.ToUpper(s)+" ", now); s[0] > '9' && (!ok || !again.Equal(at)) {
			t.Errorf("%q: %v, in upper case %v, %v", s, at, again, ok)
		}
	})
}
