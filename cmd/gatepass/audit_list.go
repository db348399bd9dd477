package main

import (
	"bufio"
	"context"
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/audit"
)

const auditListHelp = `gatepass audit list shows the entries of the audit log, the oldest first.

usage: gatepass audit list [flags]

` + entryHelp + `  --limit N         only the last N of them
  --reverse         the newest first
  --follow          go on with entries as they are written; without --since and
                    --limit, after the last 10
  --json            the stored lines, byte for byte

` + patternHelp + `
It shows what is there; whether it is what was written, "gatepass audit verify"
says. A line that is no entry is named on standard error, and the exit code is
65 then.

examples:
  gatepass audit list --since yesterday --outcome denied
  gatepass audit list --profile 'prod-*' --program terraform --since 7d
  gatepass audit list --profile ops --follow
`

func auditListCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "list",
		UsageText: auditListHelp,
		Flags:     append(entryFlags(), &cli.IntFlag{Name: "limit"}, &cli.BoolFlag{Name: "reverse"}, &cli.BoolFlag{Name: "follow"}, &cli.BoolFlag{Name: "json"}),
		Action:    c.auditList,
	}
}

func (c *client) auditList(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	q, err := listQuery(ctx, time.Now())
	if err != nil {
		return err
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	show := lister{client: c, q: q, dir: paths.AuditDir, json: ctx.Bool("json")}
	if show.json || q.Follow {
		return show.to(ctx.Context, &pager{out: c.stdout})
	}
	return c.paged(func(p *pager) error { return show.to(ctx.Context, p) })
}

// A lister shows entries.
type lister struct {
	*client
	q    audit.Query
	dir  string
	json bool
}

func (l *lister) to(ctx context.Context, p *pager) error {
	width, _ := columns(l.stdout)
	t := &table{width: width, palette: l.palette(), live: l.q.Follow}
	out := bufio.NewWriterSize(p, 64<<10)
	flush := func() error {
		err := out.Flush()
		if err != nil && !errors.Is(err, errQuit) {
			return notWritten(err)
		}
		return err
	}
	var shown, bad int64
	for line, err := range audit.Entries(ctx, l.dir, l.q) {
		var entry audit.Entry
		if err == nil && !l.json {
			if entry, err = line.Entry(); err != nil {
				err = broker.Errorf(broker.CodeData, "entry %d cannot be read: %w", line.Seq, err)
			}
		}
		if err != nil {
			out.Write(t.flush())
			if err := flush(); err != nil { // so that it is told in its place
				return err
			}
			if line.Raw == nil { // of the log, not of a line: there is no more
				return err
			}
			bad++
			if !p.paging() {
				say(l.stderr, err.Error())
			}
			continue
		}
		shown++
		if l.json {
			out.Write(line.Raw)
			out.WriteByte('\n')
		} else {
			out.Write(t.add(entry))
		}
		if l.q.Follow || shown%64 == 0 { // a pager that was left wants no more
			if err := flush(); err != nil {
				return err
			}
		}
	}
	out.Write(t.flush())
	if err := flush(); err != nil {
		return err
	}
	switch {
	case bad > 0:
		return unreadable(bad)
	case shown == 0:
		say(l.stderr, "no entries")
	}
	return nil
}

// listQuery is what the flags select.
func listQuery(ctx *cli.Context, now time.Time) (audit.Query, error) {
	q, err := entryQuery(ctx, now)
	if err != nil {
		return q, err
	}
	q.Decode = !ctx.Bool("json")
	q.Last, q.Reverse, q.Follow = ctx.Int("limit"), ctx.Bool("reverse"), ctx.Bool("follow")
	switch {
	case ctx.IsSet("limit") && q.Last <= 0:
		return q, usageOf(ctx, "--limit %d shows nothing", q.Last)
	case q.Reverse && q.Follow:
		return q, usageOf(ctx, "--reverse and --follow exclude one another")
	case q.Follow && !q.Until.IsZero(): // it would wait for ever, and show nothing
		return q, usageOf(ctx, "--until and --follow exclude one another")
	case q.Follow && q.Since.IsZero() && q.Last == 0:
		q.Last = 10
	}
	return q, nil
}
