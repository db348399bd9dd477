package main

import (
	"context"
	"errors"
	"os"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/wire"
)

// ask makes call to the daemon, and starts one first where none runs.
func (c *client) ask(ctx context.Context, call func(*wire.Client) error) error {
	socket, err := c.askRunning(call)
	if !errors.Is(err, wire.ErrNoDaemon) {
		return err
	}
	if c.getenv("GATEPASS_AUTOSTART") == "0" {
		return broker.Errorf(broker.CodeDaemonUnreachable, "no daemon is running, and GATEPASS_AUTOSTART=0 forbids starting one").
			WithHint("start it: gatepass daemon start")
	}
	if err := c.startDaemon(ctx, socket); err != nil {
		return err
	}
	if _, err := c.askRunning(call); err != nil {
		if errors.Is(err, wire.ErrNoDaemon) {
			return broker.Errorf(broker.CodeDaemonUnreachable, "the daemon was started, and does not answer at %s", socket).
				WithHint("see: gatepass daemon status")
		}
		return err
	}
	return nil
}

// askRunning makes call to the daemon that runs: at the usual socket, or at
// the one that the audit log's lock names, which is how cron, su and ssh find
// the daemon of a desktop. Where there is neither, the error is
// [wire.ErrNoDaemon]; socket is the usual one in any case.
func (c *client) askRunning(call func(*wire.Client) error) (socket string, err error) {
	socket, err = wire.SocketPath(c.getenv, os.Getuid())
	if err != nil {
		return "", err
	}
	err = call(&wire.Client{Socket: socket})
	if !errors.Is(err, wire.ErrNoDaemon) {
		return socket, err
	}
	home, noHome := c.home()
	if noHome != nil {
		return socket, err
	}
	other, held, _ := audit.LockHolder(broker.PathsFor(c.getenv, home).AuditDir)
	if !held || other.Socket == "" || other.Socket == socket {
		return socket, err
	}
	return socket, call(&wire.Client{Socket: other.Socket})
}

// askNow is askRunning for what the daemon answers without waiting for AWS or
// a prompt: one that hangs is soon told from one that is busy.
func (c *client) askNow(ctx context.Context, call func(context.Context, *wire.Client) error) (socket string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	return c.askRunning(func(d *wire.Client) error { return call(ctx, d) })
}

// askTwice is ask for what does no harm when it is done twice: a daemon that
// ended before it answered may have been replaced.
func (c *client) askTwice(ctx context.Context, call func(*wire.Client) error) error {
	err := c.ask(ctx, call)
	if errors.Is(err, wire.ErrNoAnswer) {
		err = c.ask(ctx, call)
	}
	return err
}

// credentials asks the gate.
func (c *client) credentials(ctx context.Context, req wire.CredentialsRequest) (document []byte, region string, err error) {
	err = c.asking(ctx, &req, func(ctx context.Context) error {
		return c.askTwice(ctx, func(d *wire.Client) error {
			var h wire.Header
			document, h, err = d.Credentials(ctx, req)
			region = h.Region
			return err
		})
	})
	return document, region, err
}
