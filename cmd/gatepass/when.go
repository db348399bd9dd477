package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
)

// parseWhen reads a point in time as people give it: RFC 3339, a date, a date
// and a time, "today", "yesterday" or the name of a day (the last such day
// before today), each alone or with a time, a time of today, "now", or how long
// ago ("2h", "3d", "2w ago"). What has no offset is in now's zone.
func parseWhen(s string, now time.Time) (time.Time, bool) {
	for _, layout := range []string{
		time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05",
		"2006-01-02T15:04", "2006-01-02T15:04:05",
	} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, true
		}
	}
	day, rest, _ := strings.Cut(strings.Join(strings.Fields(strings.ToLower(s)), " "), " ")
	if day == "last" {
		if day, rest, _ = strings.Cut(rest, " "); weekday(day) < 0 {
			return time.Time{}, false
		}
	}
	back, clock := 0, rest // how many days, and the time on that day
	switch wanted := weekday(day); {
	case day == "now" && rest == "":
		return now, true
	case day == "today":
	case day == "yesterday":
		back = 1
	case wanted >= 0:
		if back = (int(now.Weekday()) - wanted + 7) % 7; back == 0 {
			back = 7
		}
	case rest == "" && strings.Contains(day, ":"):
		clock = day
	case rest == "" || rest == "ago":
		d, ok := parseAgo(day)
		return now.Add(-d), ok
	default:
		return time.Time{}, false
	}
	var at time.Time // of the year 0
	if clock != "" {
		var err error
		if at, err = time.Parse("15:04", clock); err != nil {
			if at, err = time.Parse("15:04:05", clock); err != nil {
				return time.Time{}, false
			}
		}
	}
	year, month, date := now.Date()
	return time.Date(year, month, date-back, at.Hour(), at.Minute(), at.Second(), at.Nanosecond(), now.Location()), true
}

// weekday reads the name of a day, whole or as three letters; -1 for what is
// none.
func weekday(s string) int {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if name := strings.ToLower(d.String()); s == name || s == name[:3] {
			return int(d)
		}
	}
	return -1
}

// parseAgo reads a length of time with its unit: a bare number could be
// anything.
func parseAgo(s string) (time.Duration, bool) {
	if weeks, ok := strings.CutSuffix(s, "w"); ok {
		n, err := strconv.Atoi(weeks)
		return time.Duration(n) * 7 * 24 * time.Hour, err == nil && 0 < n && n < 5000
	}
	d, ok := parseDuration(s)
	return d, ok && d > 0 && s[len(s)-1] > '9'
}

// when reads a flag's point in time, which is zero where it is not given. An
// empty one is not: a script's variable may be unset.
func when(ctx *cli.Context, flag string, now time.Time) (time.Time, error) {
	if !ctx.IsSet(flag) {
		return time.Time{}, nil
	}
	value := ctx.String(flag)
	t, ok := parseWhen(value, now)
	if !ok {
		return t, broker.Errorf(broker.CodeUsage, "--%s %q is not a point in time", flag, value).
			WithHint("write it as 2h, yesterday, %s or %s", now.Format("2006-01-02"), now.Format(time.RFC3339))
	}
	return t, nil
}
