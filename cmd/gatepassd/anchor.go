package main

import (
	"context"
	"errors"
	"os/exec"
	"time"

	"gatepass/broker"
	"gatepass/broker/prompt/program"
)

// anchorTime is how long anchor_command may take.
const anchorTime = 30 * time.Second

// anchorBy returns what sends a checkpoint of the audit log away: command, run
// by the shell with the checkpoint on its standard input. What it prints goes
// nowhere, since nobody knows what is in it. It returns nil for no command.
func anchorBy(command string, env []string) func(context.Context, []byte) error {
	if command == "" {
		return nil
	}
	return func(ctx context.Context, checkpoint []byte) error {
		ctx, cancel := context.WithTimeout(ctx, anchorTime)
		defer cancel()
		_, status, err := program.Run(ctx, program.Shell(command), env, checkpoint)
		switch {
		case ctx.Err() == context.DeadlineExceeded:
			return broker.Errorf(broker.CodeConfig, "anchor_command did not end within %s", anchorTime)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, exec.ErrWaitDelay): // it ended well, what it left behind did not
			return nil
		case err != nil:
			return broker.Errorf(broker.CodeConfig, "anchor_command cannot be run: %w", err)
		case status != 0:
			return broker.Errorf(broker.CodeConfig, "anchor_command ended with status %d", status)
		}
		return nil
	}
}
