package main

import (
	"github.com/urfave/cli/v2"

	"gatepass/broker"
)

const auditHelp = `gatepass audit reads the audit log: who asked for which role, with which
program, when, and what was answered. It reads the files and needs no daemon.

usage: gatepass audit COMMAND

  list            show entries
  verify          prove that no entry was changed, moved or removed

See "gatepass audit COMMAND --help" for each of them.

example:
  gatepass audit list --since yesterday
`

func auditCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:        "audit",
		UsageText:   auditHelp,
		Subcommands: []*cli.Command{auditListCommand(c), auditVerifyCommand(c)},
	}
}

// paths are the user's places on disk.
func (c *client) paths() (broker.Paths, error) {
	home, err := c.home()
	if err != nil {
		return broker.Paths{}, err
	}
	return broker.PathsFor(c.getenv, home), nil
}
