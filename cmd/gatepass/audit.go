package main

import (
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/audit"
)

const auditHelp = `gatepass audit reads the audit log: who asked for which role, with which
program, when, and what was answered. It reads the files and needs no daemon.

usage: gatepass audit COMMAND

  list            show entries
  show NUMBER     explain one entry
  trace ID        tell who got a session, from an access key id in CloudTrail
  stats           count entries by profile, program, outcome and day
  report          write an HTML file for people, with charts and a table
  reconcile       hold the log against CloudTrail: find what it does not explain
  export          write entries for other programs: json, csv, ocsf
  verify          prove that no entry was changed, moved or removed
  checkpoint      print the signed head, to be kept elsewhere
  prove           write a proof of one entry, for somebody else to check
  check-proof     check such a proof
  key             print the public key that is needed for it

See "gatepass audit COMMAND --help" for each of them.

examples:
  gatepass audit list --since yesterday
  gatepass audit trace ASIAIOSFODNN7EXAMPLE
`

func auditCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "audit",
		UsageText: auditHelp,
		Subcommands: []*cli.Command{
			auditListCommand(c),
			auditShowCommand(c),
			auditTraceCommand(c),
			auditReconcileCommand(c),
			auditStatsCommand(c),
			auditReportCommand(c),
			auditExportCommand(c),
			auditVerifyCommand(c),
			auditCheckpointCommand(c),
			auditProveCommand(c),
			auditCheckProofCommand(c),
			auditKeyCommand(c),
		},
	}
}

// trustedKey returns the public key that is to have signed the log: the one
// that --key is or names the file of, else the pinned one.
func trustedKey(ctx *cli.Context, paths broker.Paths) (string, error) {
	if ctx.IsSet("key") {
		return audit.ReadKey(ctx.String("key"))
	}
	return audit.ReadPinnedKey(paths.AuditKey)
}

// entryNumber is the argument of a command about one entry, with or without the
// "#" that audit show and audit trace put before it.
func entryNumber(ctx *cli.Context) (int64, error) {
	arg, err := oneArgument(ctx, "the number of an entry")
	if err != nil {
		return 0, err
	}
	seq, err := strconv.ParseInt(strings.TrimPrefix(arg, "#"), 10, 64)
	if err != nil || seq < 0 {
		return 0, usageOf(ctx, "%q is not the number of an entry", arg)
	}
	return seq, nil
}

// unreadable is the error of lines that are no entries.
func unreadable(lines int64) error {
	return broker.Errorf(broker.CodeData, "%s of the audit log cannot be read", count(lines, "line", "lines")).
		WithHint("see: gatepass audit verify")
}

// paths are the user's places on disk.
func (c *client) paths() (broker.Paths, error) {
	home, err := c.home()
	if err != nil {
		return broker.Paths{}, err
	}
	return broker.PathsFor(c.getenv, home), nil
}
