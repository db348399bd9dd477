package main

import (
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
)

const versionHelp = `gatepass version prints the version of this program. "gatepass daemon status"
prints the daemon's.

usage: gatepass version

example:
  gatepass version
`

func versionCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "version",
		UsageText: versionHelp,
		Action: func(ctx *cli.Context) error {
			if err := noArguments(ctx); err != nil {
				return err
			}
			return c.write(fmt.Appendf(nil, "gatepass %s %s/%s %s\n", broker.Version(), runtime.GOOS, runtime.GOARCH, runtime.Version()))
		},
	}
}
