package main

import (
	"github.com/urfave/cli/v2"
)

const firstScreen = `gatepass keeps your AWS access keys in the OS keychain, assumes roles when a
program asks, and writes down who asked.

  gatepass keys add work         store an IAM user's access key
  gatepass whoami ops            who you are there; that the profile ops works
  gatepass exec ops              open a shell with the role, and nothing else
  gatepass export ops            print a session for a shell
  gatepass status                what runs, what is cached, what was refused
  gatepass audit list            who asked for which role, and when

To serve a profile to the AWS CLI and the SDKs, put into ~/.aws/config:

  [profile ops]
  gatepass_role_arn = arn:aws:iam::111122223333:role/Ops
  gatepass_key = work
  credential_process = /home/alice/.local/bin/gatepass credential-process ops

"gatepass help" lists the commands, "gatepass COMMAND --help" explains one.
`

const rootHelp = `usage: gatepass COMMAND [ARGUMENTS] [FLAGS]

  keys add NAME              store an IAM user's access key in the OS keychain
  keys import                move keys here from your AWS files and aws-vault
  keys list                  show the stored keys
  keys rotate NAME           replace a key by a new one of the same user
  keys remove NAME           remove a key from the keychain

  profiles list              show your profiles, and which of them have a key
  profiles show [NAME]       show a profile's whole chain

  exec [NAME] [-- COMMAND]   run a command with one role and no other
  credential-process NAME    print a session for the AWS CLI and the SDKs
  export [NAME]              print a session for a shell, a file or a tool
  whoami [NAME]              show who you are at AWS: user, groups, MFA, roles

  status                     show leases, sessions and the last refusal
  renew [LEASE]              renew the sessions of what exec runs
  end [LEASE...]             end what exec runs
  audit list                 show the audit log
  audit show NUMBER          explain one of its entries
  audit trace ID             tell who got a session
  audit stats                count hand-outs and refusals
  audit report -o FILE.html  show it to people: charts, and a table to search
  audit reconcile FILE...    hold it against CloudTrail: find stolen keys
  audit export               write it for other programs: JSON, CSV, OCSF
  audit verify               prove that the audit log is whole
  audit checkpoint           print its signed head, to be kept elsewhere
  audit prove | check-proof  prove an entry to somebody else; check that
  audit key                  print the public key that is needed for it
  daemon start|stop|restart|status

  version                    print the version of this program
  help [COMMAND]             explain a command; also: help exit-codes,
                             help environment

Flags may stand before or after a command's argument; after "--" there are none.
Results go to standard output, everything else to standard error.

example:
  gatepass export ops --format json
`

const exitCodesHelp = `gatepass exits with 0, or with a code that says why not (64 to 78: sysexits.h):

   1  audit reconcile: CloudTrail has events that the audit log does not explain
  64  the command line makes no sense
  65  bad data: an audit log or a proof that does not verify, a malformed file
  69  the daemon, AWS or the keychain cannot be reached
  70  a bug in gatepass, or standard output could not be written
  74  the audit log, or the journal of keys, cannot be written: nothing is
      handed out or rotated
  75  try again: locked, nobody there to answer a question, too slow, throttled
  77  refused: by a rule, by AWS, by the keychain, or by you
  78  an unknown or broken profile, key or configuration

example:
  gatepass whoami ops || echo "status $?"
`

const environmentHelp = `gatepass reads these variables:

  AWS_PROFILE                      the profile, where a command has no NAME
                                   (exec, export, whoami and profiles show)
  AWS_CONFIG_FILE                  used in place of ~/.aws/config
  AWS_SHARED_CREDENTIALS_FILE      used in place of ~/.aws/credentials
  AWS_REGION, AWS_DEFAULT_REGION   the region, unless --region says it
  GATEPASS_REASON                  why, for the audit log, unless --reason says
  GATEPASS_AUTOSTART               0: never start the daemon
  GATEPASS_SOCKET                  the daemon's socket
  GATEPASS_CONFIG                  gatepass.toml, for a daemon that is started
  GATEPASS_FILE_PASSPHRASE         opens the file keychain, for a daemon that is
                                   started; without it the daemon asks
  AWS_VAULT_BACKEND and its like   where aws-vault keeps its keys, which
                                   "keys import" moves
  PAGER, LESS                      shows what is longer than the terminal; less
                                   with FRX unless they say otherwise
  NO_COLOR                         no colours

Inside a lease, gatepass exec sets these for your own use:

  GATEPASS_PROFILE                 the profile that is served
  GATEPASS_LEASE                   the lease's id
  GATEPASS_EXPIRES                 when it ends, if it cannot be renewed

example:
  GATEPASS_REASON="ticket 4711" gatepass whoami ops
`

const helpHelp = `gatepass help explains a command.

usage: gatepass help [COMMAND]

  gatepass help exit-codes     what the exit codes mean
  gatepass help environment    which variables are read

example:
  gatepass help keys add
`

func helpCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "help",
		UsageText: helpHelp,
		Action: func(ctx *cli.Context) error {
			words := ctx.Args().Slice()
			switch {
			case len(words) == 0:
				return c.write([]byte(rootHelp))
			case len(words) == 1 && words[0] == "exit-codes":
				return c.write([]byte(exitCodesHelp))
			case len(words) == 1 && words[0] == "environment":
				return c.write([]byte(environmentHelp))
			}
			r, err := arrange(c.commands(), append(words, "--help"))
			switch {
			case err != nil:
				return err
			case r.cmd == nil:
				return c.write([]byte(rootHelp))
			}
			return c.write([]byte(r.cmd.UsageText))
		},
	}
}
