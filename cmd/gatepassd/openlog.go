package main

import (
	"context"
	"errors"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/wire"
)

const (
	// logPatience is how long another daemon that has the log is waited for:
	// less than a starter waits, so that it learns why.
	logPatience = 8 * time.Second
	logLook     = 20 * time.Millisecond
)

var errOwnSocket = errors.New("its socket is this one's by now")

// openLog calls open until the log is this daemon's. Another one that has it
// either serves, and the error is an *[audit.ErrLocked]; or it has no socket
// any more, and ends once it has noticed and what is under way is answered.
// own is the socket that this daemon has been given already, "" for none: who
// answers there is not the other one, which listened there before.
func openLog(ctx context.Context, own string, patience time.Duration, open func(context.Context) (*audit.Log, error)) (*audit.Log, error) {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	look := time.NewTicker(logLook)
	defer look.Stop()
	for {
		book, err := open(ctx)
		other, ok := errors.AsType[*audit.ErrLocked](err)
		if !ok {
			return book, err
		}
		silent := errOwnSocket
		if own == "" || other.Socket != own {
			if silent = (&wire.Client{Socket: other.Socket}).Ping(waiting); silent == nil {
				return nil, other
			}
		}
		select {
		case <-waiting.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, broker.Errorf(broker.CodeDaemonUnreachable, "another gatepassd holds the audit log and does not answer: %w", silent)
		case <-look.C:
		}
	}
}
