// The gatepass command asks gatepassd, the daemon that keeps your AWS keys,
// for what you need, and prints it. It is thin on purpose: the AWS CLI runs
// it before every command, so it links neither the AWS SDK nor the keychain
// nor an HTTP stack, and it holds no long-term key beyond keys add.
package main

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

func main() {
	c := &client{
		getenv:     os.Getenv,
		environ:    os.Environ,
		stdin:      os.Stdin,
		stdout:     os.Stdout,
		stderr:     os.Stderr,
		terminal:   askTerminal,
		canAsk:     canAskTerminal,
		leaseAbove: func() int { return wire.LeaseAbove(os.Getpid()) },
		self:       selfPaths,
		patience:   10 * time.Second,
	}
	if err := c.run(context.Background(), os.Args[1:]); err != nil {
		report(os.Stderr, err)
		os.Exit(statusOf(err))
	}
}

// A client is one run of gatepass: what it may touch of its process.
type client struct {
	getenv         func(string) string
	environ        func() []string
	stdin          io.Reader
	stdout, stderr io.Writer
	terminal       func(ctx context.Context, question string, e echo) (string, error)
	canAsk         func(background bool) bool // whether terminal would reach the user
	leaseAbove     func() int                 // the pid of a lease's root that we are below, or 0
	self           func() []string            // paths of this program
	patience       time.Duration              // with a daemon whose answer waits for nobody else
}

// run does what args ask. Its error is what the user reads, and its code the
// exit status.
func (c *client) run(ctx context.Context, args []string) error {
	if plainCredentialProcess(args) {
		req, err := c.request(args[1], "credential-process")
		if err != nil {
			return err
		}
		return c.credentialProcess(ctx, req)
	}
	if plainStatusPrompt(args) {
		return c.statusPrompt(ctx)
	}
	commands := c.commands()
	r, err := arrange(commands, args)
	switch {
	case err != nil:
		return err
	case r.cmd == nil && r.help:
		return c.write([]byte(rootHelp))
	case r.cmd == nil:
		return c.write([]byte(firstScreen))
	case r.help:
		return c.write([]byte(r.cmd.UsageText))
	case len(r.cmd.Subcommands) > 0:
		return r.usage("%s needs one more word", r.name())
	}
	prepare(commands)
	app := &cli.App{
		Name:            "gatepass",
		Commands:        commands,
		HideHelp:        true,
		HideHelpCommand: true,
		HideVersion:     true,
		Writer:          c.stderr,
		ErrWriter:       c.stderr,
		ExitErrHandler:  func(*cli.Context, error) {}, // main alone exits

		DisableSliceFlagSeparator: true, // a comma may be part of a name
	}
	return app.RunContext(ctx, append(append([]string{"gatepass"}, r.path...), r.args...))
}

// commands are all there is, in the order of the help.
func (c *client) commands() []*cli.Command {
	return []*cli.Command{
		keysCommand(c),
		profilesCommand(c),
		credentialProcessCommand(c),
		execCommand(c),
		exportCommand(c),
		whoamiCommand(c),
		statusCommand(c),
		renewCommand(c),
		endCommand(c),
		auditCommand(c),
		daemonCommand(c),
		versionCommand(c),
		helpCommand(c),
	}
}

// prepare takes urfave/cli's own help and its own words for usage errors out
// of commands: the help is written by hand and errors have codes.
func prepare(commands []*cli.Command) {
	for _, cmd := range commands {
		cmd.HideHelp = true
		cmd.OnUsageError = func(ctx *cli.Context, err error, _ bool) error {
			return usageOf(ctx, "%w", err)
		}
		prepare(cmd.Subcommands)
	}
}

// write puts b on standard output in one write. A reader that is gone, or a
// disk that is full, is an error.
func (c *client) write(b []byte) error {
	if _, err := c.stdout.Write(b); err != nil {
		return notWritten(err)
	}
	return nil
}

// notWritten is the error of a standard output that does not take what is
// written to it.
func notWritten(err error) error {
	return broker.Errorf(broker.CodeInternal, "write to standard output: %w", err)
}

// oneArgument returns the only argument, which what describes.
func oneArgument(ctx *cli.Context, what string) (string, error) {
	switch ctx.NArg() {
	case 0:
		return "", usageOf(ctx, "%s is missing", what)
	case 1:
		if ctx.Args().First() == "" {
			return "", usageOf(ctx, "%s is empty", what)
		}
		return ctx.Args().First(), nil
	}
	return "", usageOf(ctx, "one argument is expected, %s, and there are %d", what, ctx.NArg())
}

func noArguments(ctx *cli.Context) error {
	if ctx.NArg() > 0 {
		return usageOf(ctx, "no argument is expected, and there is %q", ctx.Args().First())
	}
	return nil
}

// profileArgument returns the profile that is named, else AWS_PROFILE's, else
// "" inside a lease: its own.
func (c *client) profileArgument(ctx *cli.Context) (string, error) {
	if ctx.NArg() > 1 {
		return oneArgument(ctx, "the name of a profile")
	}
	return c.profileNamed(ctx, ctx.Args().Slice())
}

func (c *client) profileNamed(ctx *cli.Context, names []string) (string, error) {
	switch p := c.getenv("AWS_PROFILE"); {
	case len(names) > 0 && names[0] == "":
		return "", usageOf(ctx, "the name of a profile is empty")
	case len(names) > 0:
		return names[0], nil
	case p != "":
		return p, nil
	case c.inside():
		return "", nil
	}
	return "", usageOf(ctx, "the name of a profile is missing, and AWS_PROFILE is not set")
}

// inside reports whether the environment is that of a lease. It proves
// nothing: the daemon looks for itself.
func (c *client) inside() bool { return c.getenv("GATEPASS_LEASE") != "" }

func usageOf(ctx *cli.Context, format string, args ...any) error {
	return broker.Errorf(broker.CodeUsage, format, args...).WithHint("see: %s --help", commandName(ctx))
}

func commandName(ctx *cli.Context) string {
	name := ""
	for _, up := range ctx.Lineage() {
		if up.Command != nil && up.Command.Name != "" {
			name = up.Command.Name + " " + name
		}
	}
	return name[:max(0, len(name)-1)]
}
