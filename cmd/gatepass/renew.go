package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

const renewHelp = `gatepass renew gives a lease new sessions, with an entry of their own in the
audit log. Most leases are renewed by themselves; this is for those whose
renewal needs an MFA code, or whose rule is renew = "ask".

usage: gatepass renew [LEASE] [flags]

LEASE is an id from "gatepass status"; inside a lease it may be left out.

  --reason R      why, for the audit log (or GATEPASS_REASON)
  --mfa-code C    the code that the MFA device shows, where one is needed
  --prompt WAY    how to ask for it: auto, tty, pinentry, desktop, none
  --json          print the lease as it is now

example:
  gatepass renew l-7f3k2m9qxd
`

func renewCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "renew",
		UsageText: renewHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "reason"},
			&cli.StringFlag{Name: "mfa-code"},
			&cli.StringFlag{Name: "prompt"},
			&cli.BoolFlag{Name: "json"},
		},
		Action: c.renew,
	}
}

func (c *client) renew(ctx *cli.Context) error {
	id := ""
	if ctx.NArg() > 0 || !c.inside() {
		var err error
		if id, err = oneArgument(ctx, "the id of a lease"); err != nil {
			return err
		}
	}
	req := wire.CredentialsRequest{Via: "renew", Reason: c.getenv("GATEPASS_REASON")}
	if err := applyFlags(ctx, &req); err != nil {
		return err
	}
	var l broker.LeaseStatus
	err := c.asking(ctx.Context, &req, func(ctx context.Context) error {
		return c.ask(ctx, func(d *wire.Client) error {
			return d.Call(ctx, "POST", wire.PathLeaseRenew, wire.RenewLeaseRequest{Lease: id, Reason: req.Reason, MFACode: req.MFACode, Ask: req.Ask}, &l)
		})
	})
	if err != nil {
		return err
	}
	if isTerminal(c.stderr) {
		say(c.stderr, fmt.Sprintf("the lease %s has sessions until %s, for another %s", l.ID, l.Expires.Local().Format("15:04"), span(time.Until(l.Expires))))
	}
	if ctx.Bool("json") {
		return c.writeJSON(l)
	}
	return nil
}
