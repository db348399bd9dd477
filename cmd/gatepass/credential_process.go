package main

import (
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"gatepass/broker/wire"
)

const credentialProcessHelp = `gatepass credential-process prints a profile's session for the AWS CLI and the
SDKs, as one JSON document and nothing else.

usage: gatepass credential-process NAME [flags]

NAME is a profile of ~/.aws/config. Inside a lease (gatepass exec) it may be
left out.

  --region R      region to use
  --reason R      why, for the audit log (or GATEPASS_REASON)
  --duration D    how long the session should last: 3600, 90m, 1h
  --min-left D    take a cached session with at least this much time left
  --mfa-code C    the code that the MFA device shows, where one is needed
  --prompt WAY    how to ask for it: auto, tty, pinentry, desktop, none

SDKs run it for you when a profile in ~/.aws/config says so, with the absolute
path of gatepass:

  [profile ops]
  credential_process = /home/alice/.local/bin/gatepass credential-process ops

It says nothing on success. On failure it exits with one of the codes of
"gatepass help exit-codes"; some SDKs hide its message, and "gatepass status"
shows the last one.

example:
  gatepass credential-process ops
`

func credentialProcessCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "credential-process",
		UsageText: credentialProcessHelp,
		Flags:     requestFlags(),
		Action: func(ctx *cli.Context) error {
			name := ""
			if ctx.NArg() > 0 || !c.inside() { // AWS_PROFILE is not asked: an SDK that runs us has it set
				var err error
				if name, err = oneArgument(ctx, "the name of a profile"); err != nil {
					return err
				}
			}
			req, err := c.request(name, "credential-process")
			if err != nil {
				return err
			}
			if err := applyFlags(ctx, &req); err != nil {
				return err
			}
			return c.credentialProcess(ctx.Context, req)
		},
	}
}

// plainCredentialProcess reports whether args are what SDKs run, a command
// and a name: building and parsing the whole command line would cost this
// call a good part of its time.
func plainCredentialProcess(args []string) bool {
	return len(args) == 2 && args[0] == "credential-process" && args[1] != "" && !strings.HasPrefix(args[1], "-")
}

// credentialProcess writes the daemon's document unparsed and in one write,
// so that a reader sees all of it or an error.
func (c *client) credentialProcess(ctx context.Context, req wire.CredentialsRequest) error {
	document, _, err := c.credentials(ctx, req)
	if err != nil {
		return err
	}
	return c.write(document)
}
