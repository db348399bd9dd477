package main

import (
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker/audit"
	html "gatepass/broker/audit/report"
)

const auditReportHelp = `gatepass audit report writes the audit log as one HTML file for people: whether
it verifies, requests by day, leases by profile, hand-outs by program, what was
refused, how old the keys are, and a table of entries that can be searched.

usage: gatepass audit report -o FILE.html [flags]

  -o, --output FILE  replace FILE (0600) once all is written
  --since T          entries from then on: 2h, yesterday, 2026-11-03...
  --until T          up to, but not at, then
  --against FILE     as of gatepass audit verify
  --key KEY|FILE     verify the log with this public key, not the pinned one

The file needs no network and no other file. The table has the newest 100,000
entries, everything else is of all of them. It has what the log has of programs,
roles and reasons: give it to whoever may read that. It is a picture, and proves
nothing: the log does.

It exits with 65 when the log does not verify. The report is written all the
same, and says so.

examples:
  gatepass audit report --since 30d -o november.html
  gatepass audit report -o all.html --against laptop.checkpoints
`

func auditReportCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "report",
		UsageText: auditReportHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}}, &cli.StringFlag{Name: "since"}, &cli.StringFlag{Name: "until"},
			&cli.StringFlag{Name: "against"}, &cli.StringFlag{Name: "key"},
		},
		Action: c.auditReport,
	}
}

func (c *client) auditReport(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	if ctx.String("output") == "" {
		return usageOf(ctx, "the file to write is missing: -o FILE.html")
	}
	opts := html.Options{Now: time.Now()}
	var err error
	if opts.Since, opts.Until, err = sinceUntil(ctx, opts.Now); err != nil {
		return err
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	opts.LogDir = paths.AuditDir
	against, err := against(ctx)
	if err != nil {
		return err
	}
	key, err := trustedKey(ctx, paths)
	if err != nil {
		return err
	}
	found, broken, err := verifyLog(ctx, paths, key, against)
	if err != nil {
		return err
	}
	opts.Verdict = html.Verdict{Whole: broken == nil, Key: key}
	if broken == nil {
		opts.Verdict.Text = verified(found, key, time.UTC)
		opts.To = found.Entries // what came later is not verified
	} else {
		opts.Verdict.Text = broken.Error()
	}
	// Where there is no checkpoint to be had, the verdict says so.
	if head, err := audit.NewestHead(paths.AuditDir, key); err == nil {
		opts.Verdict.Checkpoint = string(head.Checkpoint)
	}
	err = c.writeTo(ctx.String("output"), func(w io.Writer) error {
		return html.Write(ctx.Context, w, opts)
	})
	if err != nil {
		return err
	}
	return broken
}
