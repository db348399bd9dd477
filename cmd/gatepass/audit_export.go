package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/audit/ocsf"
)

const auditExportHelp = `gatepass audit export writes entries of the audit log for other programs, the
oldest first.

usage: gatepass audit export [flags]

  --format FORMAT   json: the stored lines, byte for byte (default)
                    ocsf: events of OCSF 1.8.0, one a line
                    csv: a table with a header, for spreadsheets
  --after SEQ       only what comes after this entry
  -o, --output FILE replace FILE (0600) once all is written

` + entryHelp + `
` + patternHelp + `
A shipper runs it again and again and goes on --after the last number that it
got: "seq" of json and csv, "metadata.sequence" of ocsf. Numbers ascend by one,
across restarts and clocks that are set back. Where entries between are no
longer there, it says so; where the log ends before SEQ it is another log, and
the exit code is 65. So it is where a line is no entry; the others are written.

In csv, what a spreadsheet would take for a formula (=, +, -, @, tab or carriage
return first, or after a semicolon) gets an apostrophe before it. So csv is for
people; what has to be proved later is kept as json.

examples:
  gatepass audit export --since 30d --format csv -o november.csv
  gatepass audit export --after 41210 --format ocsf
`

// An exporter writes entries in one format.
type exporter interface {
	begin() error
	entry(audit.Line) error
	end() error
}

func auditExportCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "export",
		UsageText: auditExportHelp,
		Flags: append(entryFlags(), &cli.StringFlag{Name: "format", Value: "json"}, &cli.Int64Flag{Name: "after", Value: -1},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}}),
		Action: c.auditExport,
	}
}

func (c *client) auditExport(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	q, err := entryQuery(ctx, time.Now())
	if err != nil {
		return err
	}
	after := ctx.Int64("after")
	if ctx.IsSet("after") && after < 0 {
		return usageOf(ctx, "--after %d is not the number of an entry", after)
	}
	q.From = after + 1
	formats := map[string]func(io.Writer) exporter{
		"json": func(w io.Writer) exporter { return jsonExporter{w} },
		"csv":  newCSVExporter,
		"ocsf": newOCSFExporter,
	}
	format, ok := formats[ctx.String("format")]
	if !ok {
		return usageOf(ctx, "--format is json, csv or ocsf, not %q", ctx.String("format"))
	}
	q.Decode = ctx.String("format") != "json"
	file, err := outputFile(ctx)
	if err != nil {
		return err
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	if ctx.IsSet("after") {
		if err := c.checkAfter(ctx, paths.AuditDir, after); err != nil {
			return err
		}
	}
	var bad int64
	err = c.writeTo(file, func(w io.Writer) error {
		out := format(w)
		begin := sync.OnceValue(out.begin)
		var err error
		for line, failed := range audit.Entries(ctx.Context, paths.AuditDir, q) {
			if failed != nil && line.Raw == nil { // of the log, not of a line: there is no more
				return failed
			}
			err = begin()
			switch {
			case failed != nil:
				bad++
				say(c.stderr, failed.Error())
				continue
			case err == nil:
				err = out.entry(line)
			}
			if err != nil {
				break
			}
		}
		if err == nil {
			err = begin() // of an empty log
		}
		if err == nil {
			err = out.end()
		}
		if err != nil {
			return broker.Errorf(broker.CodeInternal, "write the export: %w", err)
		}
		return nil
	})
	if err == nil && bad > 0 {
		err = unreadable(bad)
	}
	return err
}

// checkAfter looks whether to go on after an entry makes sense: the log must
// have come that far, and what comes next should still be there.
func (c *client) checkAfter(ctx *cli.Context, dir string, after int64) error {
	last, known := int64(-1), true // what cannot be read is told by whoever reads on
	for line, err := range audit.Entries(ctx.Context, dir, audit.Query{Last: 1}) {
		last, known = line.Seq, err == nil
	}
	if known && last < after {
		end := fmt.Sprintf("ends with entry %d", last)
		if last < 0 {
			end = "is empty"
		}
		return broker.Errorf(broker.CodeData, "the audit log has no entry %d to go on after: it %s", after, end).
			WithHint("it is another log, or was put back to an older copy: see gatepass audit verify, and export it from its beginning")
	}
	for line, err := range audit.Entries(ctx.Context, dir, audit.Query{From: after + 1}) {
		if err == nil && line.Seq > after+1 {
			say(c.stderr, count(line.Seq-after-1, "entry", "entries")+" after --after are no longer in the log, which goes on with a later one")
		}
		break
	}
	return nil
}

// jsonExporter writes the lines as they are.
type jsonExporter struct{ w io.Writer }

func (jsonExporter) begin() error { return nil }
func (jsonExporter) end() error   { return nil }

func (x jsonExporter) entry(line audit.Line) error {
	if _, err := x.w.Write(line.Raw); err != nil {
		return err
	}
	_, err := x.w.Write([]byte{'\n'})
	return err
}

// ocsfExporter writes an event of OCSF a line.
type ocsfExporter struct {
	jsonExporter
	host string
}

func newOCSFExporter(w io.Writer) exporter {
	host, _ := os.Hostname()
	return ocsfExporter{jsonExporter{w}, host}
}

func (x ocsfExporter) entry(line audit.Line) error {
	event, err := ocsf.Marshal(line, x.host)
	if err != nil {
		return err
	}
	return x.jsonExporter.entry(audit.Line{Raw: event})
}
