package main

import (
	"context"

	"gatepass/broker"
)

// logAlarm returns what tells the user by the desktop that the audit log cannot
// be written, since programs that then fail seldom show why; and that it can
// again. Where there is no desktop, gatepass status says so to whoever asks.
func logAlarm(n broker.Notifier) func(context.Context, error) {
	return func(ctx context.Context, why error) {
		text := "the audit log can be written again"
		if why != nil {
			text = "nothing is handed out: " + why.Error()
			if hint := broker.AsError(why).Hint; hint != "" {
				text += "; " + hint
			}
		}
		n.Notify(ctx, text, "")
	}
}
