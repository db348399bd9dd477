package main

import (
	"context"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"gatepass/broker/wire"
)

const endHelp = `gatepass end ends leases: they are served no more, and all their processes are
ended: HUP, TERM and KILL, with [leases] grace between. What AWS has handed out
works there until it expires.

usage: gatepass end [LEASE...] [flags]
       gatepass end --all

LEASE is an id from "gatepass status"; inside a lease it may be left out.

  --all           every lease
  --release       for leases that have ended already, whose processes linger:
                  leave them running and lift the wall around them, so that
                  they may ask for any profile again. Only from outside.

examples:
  gatepass end l-7f3k2m9qxd
  gatepass end --release l-7f3k2m9qxd
`

func endCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "end",
		UsageText: endHelp,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all"},
			&cli.BoolFlag{Name: "release"},
		},
		Action: c.end,
	}
}

func (c *client) end(ctx *cli.Context) error {
	req := wire.EndLeasesRequest{Leases: ctx.Args().Slice(), All: ctx.Bool("all"), Release: ctx.Bool("release")}
	switch {
	case req.All && len(req.Leases) > 0:
		return usageOf(ctx, "--all stands alone, and there is %q", req.Leases[0])
	case !req.All && len(req.Leases) == 0 && !c.inside():
		return usageOf(ctx, "the id of a lease is missing, or --all")
	}
	for _, id := range req.Leases {
		if id == "" {
			return usageOf(ctx, "the id of a lease is empty")
		}
	}
	if c.inside() {
		// We are among those who are asked to end, and last to say so.
		signal.Ignore(syscall.SIGHUP, syscall.SIGTERM)
	}
	var ended wire.EndLeasesResponse
	call, cancel := context.WithTimeout(ctx.Context, wire.EndPatience)
	defer cancel()
	// A daemon that is started for this finds the leases of the one before it.
	err := c.ask(call, func(d *wire.Client) error {
		return d.Call(call, "POST", wire.PathLeaseEnd, req, &ended)
	})
	if err != nil {
		return err
	}
	if isTerminal(c.stderr) {
		what := "ended "
		if req.Release {
			what = "released "
		}
		if len(ended.Ended) == 0 {
			say(c.stderr, "there is no lease")
		} else {
			say(c.stderr, what+strings.Join(ended.Ended, ", "))
		}
	}
	return nil
}
