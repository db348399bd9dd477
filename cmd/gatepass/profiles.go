package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"gatepass/broker/wire"
)

const profilesHelp = `gatepass profiles shows what the profiles of your AWS config mean, and makes
them ask gatepass. They live in ~/.aws/config, as for the AWS CLI;
AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name other files.

usage: gatepass profiles COMMAND

  list            show every profile, and whether a stored key reaches it
  show [NAME]     show the whole chain of one
  adopt NAME...   make the AWS CLI and the SDKs get them from gatepass
  restore NAME... undo that

See "gatepass profiles COMMAND --help" for each of them.

example:
  gatepass profiles list
`

func profilesCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:        "profiles",
		UsageText:   profilesHelp,
		Subcommands: []*cli.Command{profilesListCommand(c), profilesShowCommand(c), profilesAdoptCommand(c), profilesRestoreCommand(c)},
	}
}

// askAbout asks the daemon about profiles in the files that an SDK would read
// here, and decodes its answer into out.
func (c *client) askAbout(ctx context.Context, path, profile string, out any) error {
	r, err := c.request(profile, "profiles")
	if err != nil {
		return err
	}
	req := wire.ProfilesRequest{Profile: profile, ConfigFile: r.ConfigFile, CredentialsFile: r.CredentialsFile}
	return c.askTwice(ctx, func(d *wire.Client) error { return d.Call(ctx, "POST", path, req, out) })
}
