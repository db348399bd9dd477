package main

import (
	"github.com/urfave/cli/v2"

	"gatepass/broker/audit"
)

const auditCheckpointHelp = `gatepass audit checkpoint prints the newest signed head of the audit log (a C2SP
tlog-checkpoint): how many entries there are, and a hash of all of them. Keep
it where nobody who can change your files can change it: in a ticket, in a
mail, on another machine. "gatepass audit verify --against FILE" then proves
that the log is still the one that it was taken of.

usage: gatepass audit checkpoint [flags]

  --key KEY|FILE  trust this public key, or the one in FILE, not the pinned one

Newer entries are signed within 10 seconds, while the daemon runs and the
keychain is open. To have each checkpoint sent away by itself, see
anchor_command in the README; one that is only printed does not count as sent.

example:
  gatepass audit checkpoint | ssh backup 'cat >> laptop.checkpoints'
`

func auditCheckpointCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "checkpoint",
		UsageText: auditCheckpointHelp,
		Flags:     []cli.Flag{&cli.StringFlag{Name: "key"}},
		Action:    c.auditCheckpoint,
	}
}

func (c *client) auditCheckpoint(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	key, err := trustedKey(ctx, paths)
	if err != nil {
		return err
	}
	head, err := audit.NewestHead(paths.AuditDir, key)
	if err != nil {
		return err
	}
	return c.write(head.Checkpoint)
}

const auditKeyHelp = `gatepass audit key prints the public key that the audit log's checkpoints are
checked with, as it was pinned when the log was first signed. It is no secret:
give it to whoever is to check your proofs and checkpoints.

usage: gatepass audit key

example:
  gatepass audit key > alice.pub
`

func auditKeyCommand(c *client) *cli.Command {
	return &cli.Command{Name: "key", UsageText: auditKeyHelp, Action: c.auditKey}
}

func (c *client) auditKey(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	key, err := audit.ReadPinnedKey(paths.AuditKey)
	if err != nil {
		return err
	}
	return c.write([]byte(key + "\n"))
}
