package main

import (
	"time"

	"gatepass/broker"
)

// parseWhen reads a point in time as people give it: RFC 3339, a date, a date
// and time, a time of today, "today", "yesterday", or how long ago ("2h",
// "3d"). Without an offset it is local time.
func parseWhen(s string, now time.Time) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, true
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, true
		}
	}
	y, m, d := now.Date()
	for _, layout := range []string{"15:04", "15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, now.Location()), true
		}
	}
	switch s {
	case "now":
		return now, true
	case "today":
		return time.Date(y, m, d, 0, 0, 0, 0, now.Location()), true
	case "yesterday":
		return time.Date(y, m, d-1, 0, 0, 0, 0, now.Location()), true
	}
	if ago, ok := parseDuration(s); ok && ago > 0 && s[len(s)-1] > '9' { // a bare number could be anything
		return now.Add(-ago), true
	}
	return time.Time{}, false
}

// when reads a flag's point in time.
func when(flag, value string, now time.Time) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	t, ok := parseWhen(value, now)
	if !ok {
		return t, broker.Errorf(broker.CodeUsage, "--%s %q is not a point in time", flag, value).
			WithHint("write it as 2h, yesterday, %s or %s", now.Format("2006-01-02"), now.Format(time.RFC3339))
	}
	return t, nil
}
