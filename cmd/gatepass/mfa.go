package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// The times of a question for an MFA code.
const (
	// beat is how often the daemon is told that the user is still being
	// asked; after some seconds of silence it asks the next who waits.
	beat = time.Second
	// processPatience is how long a credential-process asks and waits, all in
	// all: the Go SDK ends it after a minute. A person's own command asks for
	// as long as the daemon lets a question stand.
	processPatience = 45 * time.Second
	personPatience  = 3 * time.Minute
	// answerPatience is how long the daemon may take while a dialog of its
	// own stands.
	answerPatience = personPatience + 30*time.Second
	// maxRounds bounds how often one request is sent back for a code.
	maxRounds = 12
)

// asking makes call until it needs no MFA code any more: it says how the user
// can be asked once that is wanted, and asks where the daemon says so.
func (c *client) asking(ctx context.Context, req *wire.CredentialsRequest, call func(context.Context) error) error {
	began := time.Now()
	if req.Ask != nil { // --prompt
		req.Ask = c.reachable(req.Via, req.Ask.Mode)
	}
	for range maxRounds {
		if req.Ask != nil {
			req.Ask.WaitedMillis = int(time.Since(began).Milliseconds())
		}
		err := c.within(ctx, req, call)
		var ask *broker.AskError
		switch {
		case !errors.As(err, &ask):
			return err
		case ask.Question.ID == "":
			req.Ask = c.reachable(req.Via, "")
		default:
			patience := personPatience
			if req.Via == "credential-process" {
				patience = processPatience - time.Since(began)
			}
			if err := c.answer(ctx, patience, ask.Question); err != nil {
				return err
			}
			req.MFACode = ""
		}
	}
	return broker.Errorf(broker.CodeInternal, "gatepassd asks for an MFA code again and again")
}

// within gives call as long as a dialog may stand, where one may.
func (c *client) within(ctx context.Context, req *wire.CredentialsRequest, call func(context.Context) error) error {
	if req.Ask == nil || req.Via == "credential-process" {
		return call(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	return call(ctx)
}

// reachable says how the user can be asked from here.
func (c *client) reachable(via, mode string) *wire.Ask {
	ask := &wire.Ask{Mode: mode, Terminal: c.canAsk(via == "credential-process"), Env: []string{}}
	for _, name := range wire.AskVariables {
		if v := c.getenv(name); v != "" {
			ask.Env = append(ask.Env, name+"="+v)
		}
	}
	return ask
}

// answer asks the user on the terminal, for as long as patience, and hands the
// daemon the code, or why there is none. The daemon's answer to the request itself says what came of
// it.
func (c *client) answer(ctx context.Context, patience time.Duration, q broker.Question) error {
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	asking, stop := context.WithCancelCause(asking)
	defer stop(nil)
	go func() {
		ticks := time.NewTicker(beat)
		defer ticks.Stop()
		for {
			select {
			case <-asking.Done():
				return
			case <-ticks.C:
			}
			_, err := c.askNow(asking, func(ctx context.Context, d *wire.Client) error {
				return d.Call(ctx, "POST", wire.PathPromptBeat, wire.PromptBeatRequest{ID: q.ID}, nil)
			})
			if err != nil && asking.Err() == nil {
				stop(errNotAsked)
				return
			}
		}
	}()
	code, err := c.terminal(asking, question(q), shown)
	if context.Cause(asking) == errNotAsked { // somebody else answered, or is asked now
		return nil
	}
	reply := wire.PromptReplyRequest{ID: q.ID, Code: strings.TrimSpace(code)}
	switch {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded):
		reply.Why = broker.CodePromptTimeout
	case errors.Is(err, errNoTerminal):
		reply.Why = broker.CodePromptUnavailable
	default:
		reply.Why = broker.CodeCancelled
	}
	_, told := c.askNow(context.WithoutCancel(ctx), func(ctx context.Context, d *wire.Client) error {
		return d.Call(ctx, "POST", wire.PathPromptReply, reply, nil)
	})
	var ended *endedError
	switch {
	case errors.As(err, &ended):
		return ended.end() // by the signal, as it would have without us
	case told != nil && broker.CodeOf(told) != broker.CodePromptTimeout:
		return told
	}
	return nil
}

// errNotAsked ends a question that the daemon no longer asks here.
var errNotAsked = errors.New("the question is no longer open")

// question is what the user reads.
func question(q broker.Question) string {
	var b strings.Builder
	if q.Reason != "" {
		b.WriteString("gatepass: " + printable(q.Reason) + "\n")
	}
	b.WriteString("gatepass: profile " + printable(q.Profile))
	if q.Program != "" {
		b.WriteString(", for " + printable(q.Program))
	}
	b.WriteString(": MFA code of " + printable(q.Serial) + ": ")
	return b.String()
}
