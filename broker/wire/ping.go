package wire

import (
	"context"
	"errors"

	"gatepass/broker"
)

// Ping returns nil when our own user's daemon listens on the socket. It sends
// nothing, so it costs the daemon next to nothing and is no news of its health.
func (c *Client) Ping(ctx context.Context) error {
	conn, err := dial(ctx, c.deadline(ctx), c.Socket)
	if err != nil {
		if _, ok := errors.AsType[*broker.Error](err); ok {
			return err
		}
		return broker.Errorf(broker.CodeDaemonUnreachable, "call gatepassd at %s: %w", c.Socket, err)
	}
	return conn.Close()
}
