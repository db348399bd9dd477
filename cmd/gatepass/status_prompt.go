package main

import (
	"context"
	"time"

	"gatepass/broker/wire"
)

// promptPatience is how long a shell may wait for its prompt.
const promptPatience = 300 * time.Millisecond

// plainStatusPrompt reports whether args are what a shell runs before each of
// its prompts: the whole command line would cost as much as all the rest.
func plainStatusPrompt(args []string) bool {
	return len(args) == 2 && args[0] == "status" && args[1] == "--prompt"
}

// statusPrompt prints the lease that the caller is in, for a shell's prompt, or
// nothing: outside of leases, where no daemon runs, or where it is too slow. A
// prompt is no place for errors.
func (c *client) statusPrompt(ctx context.Context) error {
	if !c.inside() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, min(promptPatience, c.patience))
	defer cancel()
	var l wire.OwnLease
	_, err := c.askRunning(func(d *wire.Client) (err error) {
		l, err = d.OwnLease(ctx)
		return err
	})
	if err != nil || l.Profile == "" {
		return nil
	}
	return c.write([]byte(promptText(l, time.Now()) + "\n"))
}

// promptText is "ops 42m", or says why there is no time left.
func promptText(l wire.OwnLease, now time.Time) string {
	text := printable(l.Profile)
	if left := l.Expires.Sub(now); left > 0 && l.State != "expired" && l.State != "lingering" {
		text += " " + span(left)
	}
	switch l.State {
	case "lingering":
		text += " ended"
	case "expired":
		text += " expired"
	case "needs-mfa":
		text += " needs MFA"
	}
	return text
}
