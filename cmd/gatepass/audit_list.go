package main

import (
	"bufio"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/audit"
)

const auditListHelp = `gatepass audit list shows the entries of the audit log, the oldest first.

usage: gatepass audit list [flags]

  --since T       from then on: 2h, 3d, 14:30, today, yesterday, 2026-11-03,
  --until T       "2026-11-03 14:30" or RFC 3339; up to, but not at, then
  --profile NAME  of this profile
  --event EVENT   of this kind, as credentials.served or request.denied
  --outcome O     ok, denied or failed
  --program NAME  asked by this program, as terraform
  --lease ID      of this lease
  --limit N       only the last N of them
  --follow        go on with entries as they are written; without --since and
                  --limit, after the last 10
  --json          the stored lines, byte for byte

It shows what is there; whether it is what was written, "gatepass audit verify"
says. A line that is no entry is named on standard error, and the exit code is
65 then.

examples:
  gatepass audit list --since yesterday --outcome denied
  gatepass audit list --profile ops --follow
`

func auditListCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "list",
		UsageText: auditListHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since"},
			&cli.StringFlag{Name: "until"},
			&cli.StringFlag{Name: "profile"},
			&cli.StringFlag{Name: "event"},
			&cli.StringFlag{Name: "outcome"},
			&cli.StringFlag{Name: "program"},
			&cli.StringFlag{Name: "lease"},
			&cli.IntFlag{Name: "limit"},
			&cli.BoolFlag{Name: "follow"},
			&cli.BoolFlag{Name: "json"},
		},
		Action: c.auditList,
	}
}

func (c *client) auditList(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	q, err := auditQuery(ctx, time.Now())
	if err != nil {
		return err
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	width, _ := columns(c.stdout)
	t := &table{width: width, palette: c.palette(), live: q.Follow}
	out := bufio.NewWriterSize(c.stdout, 64<<10)
	failed := func(err error) error {
		return broker.Errorf(broker.CodeInternal, "write to standard output: %w", err)
	}
	var shown, bad int64
	for line, err := range audit.Entries(ctx.Context, paths.AuditDir, q) {
		var entry audit.Entry
		if err == nil && !ctx.Bool("json") {
			if entry, err = line.Entry(); err != nil {
				err = broker.Errorf(broker.CodeData, "entry %d cannot be read: %w", line.Seq, err)
			}
		}
		if err != nil {
			out.Write(t.flush())
			if line.Raw == nil { // of the log, not of a line: there is no more
				out.Flush()
				return err
			}
			bad++
			if err := out.Flush(); err != nil { // so that it is told in its place
				return failed(err)
			}
			say(c.stderr, err.Error())
			continue
		}
		shown++
		if ctx.Bool("json") {
			out.Write(line.Raw)
			out.WriteByte('\n')
		} else {
			out.Write(t.add(entry))
		}
		if q.Follow {
			if err := out.Flush(); err != nil {
				return failed(err)
			}
		}
	}
	out.Write(t.flush())
	if err := out.Flush(); err != nil {
		return failed(err)
	}
	switch {
	case bad > 0:
		return broker.Errorf(broker.CodeData, "%s of the audit log cannot be read", count(bad, "line", "lines")).
			WithHint("see: gatepass audit verify")
	case shown == 0:
		say(c.stderr, "no entries")
	}
	return nil
}

// auditQuery is what the flags select.
func auditQuery(ctx *cli.Context, now time.Time) (q audit.Query, err error) {
	if q.Since, err = when("since", ctx.String("since"), now); err != nil {
		return q, err
	}
	if q.Until, err = when("until", ctx.String("until"), now); err != nil {
		return q, err
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		return q, usageOf(ctx, "--since is not before --until")
	}
	q.Last = ctx.Int("limit")
	if ctx.IsSet("limit") && q.Last <= 0 {
		return q, usageOf(ctx, "--limit %d shows nothing", q.Last)
	}
	q.Outcome = ctx.String("outcome")
	switch q.Outcome {
	case "", broker.OutcomeOK, broker.OutcomeDenied, broker.OutcomeFailed:
	default:
		return q, usageOf(ctx, "--outcome is ok, denied or failed, not %q", q.Outcome)
	}
	q.Event = broker.EventKind(ctx.String("event"))
	q.Profile, q.Program, q.Lease = ctx.String("profile"), ctx.String("program"), ctx.String("lease")
	if q.Follow = ctx.Bool("follow"); q.Follow && q.Since.IsZero() && q.Last == 0 {
		q.Last = 10
	}
	return q, nil
}
