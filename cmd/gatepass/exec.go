package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

const execHelp = `gatepass exec runs a command that has one profile's role, and no way to another:
a lease. It ends when the command does, however that ends.

usage: gatepass exec [flags] [NAME] [-- COMMAND [ARGUMENTS]]

NAME is a profile of ~/.aws/config; without it, AWS_PROFILE says which, and
inside a lease it may be left out. Without COMMAND your shell is run ($SHELL).
gatepass becomes the command: its process, terminal, signals and exit status
are the command's own. 127 says that there is no such command and 126 that it
cannot be run, as in a shell.

  --with NAME     a further profile that is served inside; may be repeated
  --reason R      why you need it, for the audit log (or GATEPASS_REASON)
  --region R      region to use inside
  --duration D    how long the session should last: 3600, 90m, 1h
  --env           put credentials into the environment, for what knows neither
                  profiles nor endpoints; they cannot be renewed
  --imds          serve them as an EC2 instance does (IMDSv2), for what knows
                  nothing but that
  --mfa-code C    the code that the MFA device shows, where one is needed
  --prompt WAY    how to ask for it: auto, tty, pinentry, desktop, none

Inside, the AWS CLI and the SDKs find the role without a profile's name, as
--profile NAME and as AWS_PROFILE=NAME. They see a copy of your AWS config
that has your regions, output and retries, and no key. Every other profile is
refused, whichever process asks, and so are your keys. GATEPASS_PROFILE and
GATEPASS_LEASE say where you are; "gatepass status --prompt" is for your
shell's prompt.

examples:
  gatepass exec ops -- aws s3 ls
  gatepass exec ops --reason "ticket 4711"
  gatepass exec ops --with dns -- terraform apply
  gatepass exec ops --env -- ./a-tool-that-knows-no-profiles
`

func execCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "exec",
		UsageText: execHelp,
		ArgsUsage: "[NAME] [-- COMMAND]",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "with"},
			&cli.StringFlag{Name: "reason"},
			&cli.StringFlag{Name: "region"},
			&cli.StringFlag{Name: "duration"},
			&cli.BoolFlag{Name: "env"},
			&cli.BoolFlag{Name: "imds"},
			&cli.StringFlag{Name: "mfa-code"},
			&cli.StringFlag{Name: "prompt"},
		},
		Action: c.exec,
	}
}

func (c *client) exec(ctx *cli.Context) error {
	names, words, err := splitCommand(ctx)
	if err != nil {
		return err
	}
	profile, err := c.profileNamed(ctx, names)
	if err != nil {
		return err
	}
	req := wire.StartLeaseRequest{With: ctx.StringSlice("with")}
	if req.CredentialsRequest, err = c.request(profile, "exec"); err != nil {
		return err
	}
	if err := applyFlags(ctx, &req.CredentialsRequest); err != nil {
		return err
	}
	switch env, imds := ctx.Bool("env"), ctx.Bool("imds"); {
	case env && imds:
		return usageOf(ctx, "--env and --imds exclude each other")
	case env:
		req.Serve = "env"
	case imds:
		req.Serve = "imds"
	}
	if slices.Contains(req.With, "") {
		return usageOf(ctx, "the name of a profile after --with is empty")
	}
	if req.Program, err = c.itself(); err != nil {
		return err
	}
	// No lease is started, and nobody asked for a code, for a command that
	// cannot run.
	shell := words == nil
	if shell {
		words = []string{c.shell()}
	}
	program, err := c.lookUp(words[0])
	if err != nil {
		return err
	}
	if req.Command, err = filepath.Abs(program); err != nil {
		req.Command = program
	}

	lease, err := c.startLease(ctx.Context, &req)
	if err != nil {
		return err
	}
	env, err := leaseEnvironment(c.environ(), lease)
	if err != nil {
		return err
	}
	switch {
	case !lease.Renewable:
		say(c.stderr, untilWhen(lease, req.DurationSeconds, time.Now()))
	case shell && isTerminal(c.stderr):
		say(c.stderr, fmt.Sprintf("lease %s: the role of %s and no other; exit leaves it", lease.Lease, lease.Profile))
	}
	// From here the lease is the command's. Should it not run after all, this
	// process ends, and with it the lease.
	return c.become(program, words, env)
}

// splitCommand returns what stands before "--", and the command after it; nil
// where there is none.
func splitCommand(ctx *cli.Context) (names, command []string, err error) {
	names = ctx.Args().Slice()
	at := slices.Index(names, "--")
	if at < 0 {
		if len(names) > 1 {
			return nil, nil, usageOf(ctx, "a command stands after --, as in: gatepass exec %s -- %s", names[0], names[1])
		}
		return names, nil, nil
	}
	names, command = names[:at], names[at+1:]
	switch {
	case len(names) > 1:
		return nil, nil, usageOf(ctx, "one profile is expected before --, and there are %d; further ones are named by --with", len(names))
	case len(command) == 0:
		return nil, nil, usageOf(ctx, "there is no command after --")
	}
	return names, command, nil
}

// startLease asks for the lease. It is asked once: a daemon that ended before
// it answered may have started it, and this process ends.
func (c *client) startLease(ctx context.Context, req *wire.StartLeaseRequest) (l wire.StartLeaseResponse, err error) {
	err = c.asking(ctx, &req.CredentialsRequest, func(ctx context.Context) error {
		return c.ask(ctx, func(d *wire.Client) error {
			return d.Call(ctx, "POST", wire.PathLeases, req, &l)
		})
	})
	if err == nil && (l.Lease == "" || l.ConfigFile == "" || l.CredentialsFile == "") {
		err = broker.Errorf(broker.CodeInternal, "gatepassd's answer to %s names no lease", wire.PathLeases)
	}
	return l, err
}

// untilWhen says when a lease ends that cannot be renewed.
func untilWhen(l wire.StartLeaseResponse, asked int, now time.Time) string {
	text := fmt.Sprintf("the session of %s ends at %s, in %s, and cannot be renewed", l.Profile, l.Expires.Local().Format("15:04"), span(l.Expires.Sub(now)))
	if l.Serve == "env" {
		text += " in an environment"
	}
	if left := l.Expires.Sub(now); left < time.Duration(asked)*time.Second*8/10 {
		text += "\na role that is assumed by a role lasts 1 h at most"
	}
	return text
}

// shell is the user's.
func (c *client) shell() string {
	if s := c.getenv(shellVariable); s != "" {
		return s
	}
	return defaultShell
}

// itself is the path by which the processes of a lease can run this program:
// as it was called, so that an upgrade meanwhile does no harm.
func (c *client) itself() (string, error) {
	if self := c.self(); len(self) > 0 && filepath.IsAbs(self[len(self)-1]) {
		return self[len(self)-1], nil
	}
	return c.program()
}

// A commandError is why a command was not run, and the status that a shell
// ends with then; with a nil error, the status of one that was.
type commandError struct {
	status int
	err    error
}

func (e *commandError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("the command ended with status %d", e.status)
	}
	return e.err.Error()
}

func (e *commandError) Unwrap() error { return e.err }

// The statuses of commands that are not run.
const (
	statusCannotRun = 126
	statusNotFound  = 127
)

func notFound(name string) error {
	return &commandError{statusNotFound, broker.Errorf(broker.CodeNotFound, "%s: there is no such command", name)}
}

func cannotRun(name string, why error) error {
	return &commandError{statusCannotRun, broker.Errorf(broker.CodeConfig, "%s cannot be run: %w", name, why)}
}

// statusOf is what the process ends with for err.
func statusOf(err error) int {
	if e, ok := errors.AsType[*commandError](err); ok {
		return e.status
	}
	return broker.CodeOf(err).ExitStatus()
}
