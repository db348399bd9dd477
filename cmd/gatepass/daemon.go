package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/wire"
)

const daemonHelp = `gatepass daemon looks after gatepassd, which keeps keys and sessions. It starts
by itself with the first request.

usage: gatepass daemon COMMAND

  start           start the daemon, if it does not run
  stop            stop it and wait until it is gone; cached sessions are dropped
  restart         stop it, then start it
  status          show its process, version and socket

See "gatepass daemon COMMAND --help" for each of them.

example:
  gatepass daemon status
`

const daemonStartHelp = `gatepass daemon start starts the daemon and returns when it answers. It does
nothing where one runs.

usage: gatepass daemon start [--foreground]

  --foreground    become the daemon, with its diagnostics on standard error

example:
  gatepass daemon start
`

const daemonStopHelp = `gatepass daemon stop stops the daemon and returns when its process is gone.
Requests under way are answered first; cached sessions are dropped.

usage: gatepass daemon stop

example:
  gatepass daemon stop
`

const daemonRestartHelp = `gatepass daemon restart stops the daemon, if it runs, and starts it again.

usage: gatepass daemon restart

example:
  gatepass daemon restart
`

const daemonStatusHelp = `gatepass daemon status shows the daemon's process, version and socket. Where
none runs it says so and exits with 69.

usage: gatepass daemon status [--json]

example:
  gatepass daemon status
`

func daemonCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "daemon",
		UsageText: daemonHelp,
		Subcommands: []*cli.Command{
			{
				Name:      "start",
				UsageText: daemonStartHelp,
				Flags:     []cli.Flag{&cli.BoolFlag{Name: "foreground"}},
				Action:    c.daemonStart,
			},
			{Name: "stop", UsageText: daemonStopHelp, Action: c.daemonStop},
			{Name: "restart", UsageText: daemonRestartHelp, Action: c.daemonRestart},
			{
				Name:      "status",
				UsageText: daemonStatusHelp,
				Flags:     []cli.Flag{&cli.BoolFlag{Name: "json"}},
				Action:    c.daemonShow,
			},
		},
	}
}

func (c *client) daemonStart(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	if ctx.Bool("foreground") {
		if err := c.refuseBelowLease(); err != nil {
			return err
		}
		program, err := c.daemonProgram()
		if err != nil {
			return err
		}
		err = becomeDaemon(program, []string{"--foreground"}, daemonEnvironment(c.environ()))
		if err != nil {
			return broker.Errorf(broker.CodeDaemonUnreachable, "run %s: %w", program, err)
		}
		return nil
	}
	return c.start(ctx)
}

func (c *client) start(ctx *cli.Context) error {
	// One that listens may hang all the same: only an answer counts.
	socket, err := c.askNow(ctx.Context, func(ctx context.Context, d *wire.Client) error {
		_, err := d.Status(ctx)
		return err
	})
	if !errors.Is(err, wire.ErrNoDaemon) {
		return err
	}
	return c.startDaemon(ctx.Context, socket)
}

// stopTimeout is how long a daemon may take to answer what is under way.
const stopTimeout = 30 * time.Second

func (c *client) daemonStop(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	running, err := c.stop(ctx)
	if err == nil && !running {
		say(c.stderr, "the daemon is not running")
	}
	return err
}

// stop stops the daemon and waits until it is gone; running says whether
// there was one.
func (c *client) stop(ctx *cli.Context) (running bool, err error) {
	var stopped wire.StopResponse
	gone := func(context.Context) error { return nil }
	_, err = c.askNow(ctx.Context, func(ctx context.Context, d *wire.Client) error {
		gone = c.awaitGone(d.Socket, &stopped)
		return d.Call(ctx, "POST", wire.PathStop, struct{}{}, &stopped)
	})
	if errors.Is(err, wire.ErrNoDaemon) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	wait, cancel := context.WithTimeout(ctx.Context, stopTimeout)
	defer cancel()
	if err = gone(wait); errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("it still runs after %s", stopTimeout)
	}
	if err != nil {
		return true, broker.Errorf(broker.CodeDaemonUnreachable, "stop the daemon, process %d: %w", stopped.PID, err)
	}
	return true, nil
}

// awaitGone returns what waits until the daemon at socket is gone, as it is
// known before it is told to stop: that it has let go of the audit log or,
// where it holds another one than this client's, that it answers no more. Its
// process is not asked about: the number may be one of another PID namespace.
func (c *client) awaitGone(socket string, stopped *wire.StopResponse) func(context.Context) error {
	if home, err := c.home(); err == nil {
		dir := broker.PathsFor(c.getenv, home).AuditDir
		if holder, held, err := audit.LockHolder(dir); err == nil && held && holder.Socket == socket {
			return func(ctx context.Context) error { return audit.AwaitRelease(ctx, dir, holder) }
		}
	}
	return func(ctx context.Context) error {
		d := wire.Client{Socket: socket}
		for ; ; time.Sleep(20 * time.Millisecond) {
			switch now, err := d.Status(ctx); {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, wire.ErrNoDaemon), err == nil && now.Daemon.PID != stopped.PID:
				return nil
			}
		}
	}
}

func (c *client) daemonRestart(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	if err := c.refuseBelowLease(); err != nil { // before anything is stopped
		return err
	}
	program, err := c.daemonProgram()
	if err != nil {
		return err
	}
	// A daemon that works, with its sessions, is not given up for one that
	// cannot start.
	if err := c.spawn(program, time.Now().Add(startTimeout), "--check"); err != nil {
		return fmt.Errorf("nothing was stopped: %w", err)
	}
	if _, err := c.stop(ctx); err != nil {
		return err
	}
	return c.start(ctx)
}

func (c *client) daemonShow(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	st, err := c.daemonStatus(ctx)
	if err != nil {
		return err
	}
	d := st.Daemon
	if ctx.Bool("json") {
		return c.writeJSON(d)
	}
	return c.write(fmt.Appendf(nil, "running  since %s (%s)\npid      %d\nversion  %s\nsocket   %s\n",
		d.Started.Local().Format("2006-01-02 15:04:05"), span(time.Since(d.Started)), d.PID, printable(d.Version), printable(d.Socket)))
}
