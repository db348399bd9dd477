package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"gatepass/broker/audit"
)

const auditStatsHelp = `gatepass audit stats counts hand-outs, refusals and failures by day, profile and
program, and entries by outcome and event.

usage: gatepass audit stats [flags]

` + entryHelp + `  --json            the numbers, all of them, as JSON

` + patternHelp + `
More than 31 days are shown by month.

example:
  gatepass audit stats --since 7d
`

func auditStatsCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "stats",
		UsageText: auditStatsHelp,
		Flags:     append(entryFlags(), &cli.BoolFlag{Name: "json"}),
		Action:    c.auditStats,
	}
}

func (c *client) auditStats(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	q, err := entryQuery(ctx, time.Now())
	if err != nil {
		return err
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	found, err := audit.FindStats(ctx.Context, paths.AuditDir, q, time.Local)
	if err != nil {
		return err
	}
	switch {
	case ctx.Bool("json"):
		err = c.writeJSON(found)
	case found.Entries == 0:
		say(c.stderr, "no entries")
	default:
		w := c.prose()
		w.stats(&found)
		err = c.show(w)
	}
	if err == nil && found.Unreadable > 0 {
		err = unreadable(found.Unreadable)
	}
	return err
}

const (
	mostDays = 31 // that are shown one by one
	mostRows = 10 // of the other tables
)

func (w *prose) stats(s *audit.Stats) {
	const minutes = "2006-01-02 15:04"
	w.say(0, fmt.Sprintf("%s, from %s to %s", count(s.Entries, "entry", "entries"), s.First.Local().Format(minutes), s.Last.Local().Format(minutes)))
	w.say(0, fmt.Sprintf("%s, %d refused, %d failed", count(s.Total.Handouts, "hand-out", "hand-outs"), s.Total.Denied, s.Total.Failed))
	if s.Total.All() > 0 {
		if len(s.Days) > mostDays {
			w.counts("MONTH", audit.Months(s.Days), len(s.Days))
		} else {
			w.counts("DAY", s.Days, len(s.Days))
		}
		w.counts("PROFILE", s.Profiles, mostRows)
		w.counts("PROGRAM", s.Programs, mostRows)
	}
	w.tallies("OUTCOME", s.Outcomes)
	w.tallies("EVENT", s.Events)
}

// counts draws a table with bars, of at most most rows and one for the others.
func (w *prose) counts(title string, all []audit.Count, most int) {
	if len(all) > most {
		rest := audit.Count{Name: fmt.Sprintf("%d more", len(all)-most)}
		for _, c := range all[most:] {
			rest.Handouts, rest.Denied, rest.Failed = rest.Handouts+c.Handouts, rest.Denied+c.Denied, rest.Failed+c.Failed
		}
		all = append(all[:most:most], rest)
	}
	name, largest := w.nameWidth(title, len(all), func(i int) string { return all[i].Name }), int64(1)
	for _, c := range all[:min(most, len(all))] {
		largest = max(largest, c.All())
	}
	room := w.width - name - len("  HAND-OUTS  REFUSED   FAILED  ")
	w.WriteString("\n" + w.palette.bold(fmt.Sprintf("%-*s  HAND-OUTS  REFUSED   FAILED", name, title)) + "\n")
	for i, c := range all {
		good := bar(c.Handouts, largest, room)
		bad := bar(c.All(), largest, room)[len(good):]
		line := w.cell(c.Name, name) + fmt.Sprintf("  %9d  %7d  %7d  ", c.Handouts, c.Denied, c.Failed)
		if i == most { // what many have together is not held against one
			good, bad = "", ""
		}
		if bad != "" {
			bad = w.palette.red(strings.ReplaceAll(bad, "█", "▒"))
		}
		w.WriteString(strings.TrimRight(line+w.palette.green(good)+bad, " ") + "\n")
	}
}

// tallies draws a table of entries with bars.
func (w *prose) tallies(title string, all []audit.Tally) {
	name, largest := w.nameWidth(title, len(all), func(i int) string { return all[i].Name }), int64(1)
	for _, t := range all {
		largest = max(largest, t.Entries)
	}
	room := w.width - name - len("    ENTRIES  ")
	w.WriteString("\n" + w.palette.bold(fmt.Sprintf("%-*s    ENTRIES", name, title)) + "\n")
	for _, t := range all {
		w.WriteString(strings.TrimRight(w.cell(t.Name, name)+fmt.Sprintf("  %9d  ", t.Entries)+w.palette.green(bar(t.Entries, largest, room)), " ") + "\n")
	}
}

// nameWidth is how wide the first column is, at most half of what there is.
func (w *prose) nameWidth(title string, rows int, name func(int) string) int {
	width := len(title)
	for i := range rows {
		width = max(width, utf8.RuneCountInString(rowName(name(i))))
	}
	return min(width, max(12, w.width*2/5))
}

func rowName(s string) string {
	if s == "" {
		return "(none)"
	}
	return printable(s)
}

// cell is a name in its column. Of a long one the end says more: of paths the
// beginnings are alike.
func (w *prose) cell(name string, width int) string {
	r := []rune(rowName(name))
	if len(r) > width {
		r = append([]rune("…"), r[len(r)-width+1:]...)
	}
	return string(r) + strings.Repeat(" ", width-len(r))
}

// bar is as long as n is of most; what is there is never invisible.
func bar(n, most int64, room int) string {
	if n <= 0 || room <= 0 {
		return ""
	}
	return strings.Repeat("█", max(1, int(n*int64(room)/most)))
}
