package wire

import (
	"context"
	"errors"
	"time"

	"gatepass/broker"
)

// Ping returns nil when our own user's daemon listens on the socket. It sends
// nothing, so it costs the daemon next to nothing and is no news of its health.
func (c *Client) Ping(ctx context.Context) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		timeout := c.Timeout
		if timeout == 0 {
			timeout = defaultTimeout
		}
		deadline = time.Now().Add(timeout)
	}
	conn, err := dial(ctx, deadline, c.Socket)
	if err != nil {
		if _, ok := errors.AsType[*broker.Error](err); ok {
			return err
		}
		return broker.Errorf(broker.CodeDaemonUnreachable, "call gatepassd at %s: %w", c.Socket, err)
	}
	return conn.Close()
}
