package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

const whoamiHelp = `gatepass whoami asks AWS who a profile's session is (GetCallerIdentity), through
the daemon: it shows whether a profile works, whatever SDK you use.

usage: gatepass whoami [NAME] [flags]

NAME is a profile of ~/.aws/config; without it, AWS_PROFILE says which.

  --json          print {"account","arn","user_id"}
  --region R      where to ask
  --reason R      why, for the audit log (or GATEPASS_REASON)
  --duration D    how long a new session should last: 3600, 90m, 1h
  --min-left D    take a cached session with at least this much time left
  --mfa-code C    the code that the MFA device shows, where one is needed
  --prompt WAY    how to ask for it: auto, tty, pinentry, desktop, none

example:
  gatepass whoami ops
`

func whoamiCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "whoami",
		UsageText: whoamiHelp,
		Flags:     append(requestFlags(), &cli.BoolFlag{Name: "json"}),
		Action:    c.whoami,
	}
}

func (c *client) whoami(ctx *cli.Context) error {
	profile, err := c.profileArgument(ctx)
	if err != nil {
		return err
	}
	req, err := c.request(profile, "whoami")
	if err != nil {
		return err
	}
	if err := applyFlags(ctx, &req); err != nil {
		return err
	}
	var id broker.Identity
	err = c.asking(ctx.Context, &req, func(ctx context.Context) error {
		return c.ask(ctx, func(d *wire.Client) (err error) {
			id, err = d.WhoAmI(ctx, req)
			return err
		})
	})
	if err != nil {
		return err
	}
	if ctx.Bool("json") {
		return c.writeJSON(id)
	}
	return c.write(fmt.Appendf(nil, "account  %s\narn      %s\n", printable(id.Account), printable(id.ARN)))
}
