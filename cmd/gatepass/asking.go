package main

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// The times of a question.
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
	// maxRounds bounds how often one request is sent back for an answer.
	maxRounds = 16
)

// asking makes call until it needs no answer of the user any more: it says how
// the user can be asked once that is wanted, and asks where the daemon says so.
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
			if ask.Question.Want == broker.WantCode {
				req.MFACode = ""
			}
		}
	}
	return broker.Errorf(broker.CodeInternal, "gatepassd asks again and again")
}

// aboutKeys makes a call about the stored keys, as asking does.
func (c *client) aboutKeys(ctx context.Context, call func(ctx context.Context, d *wire.Client, ask *wire.Ask) error) error {
	req := wire.CredentialsRequest{Via: "keys"}
	return c.asking(ctx, &req, func(ctx context.Context) error {
		return c.ask(ctx, func(d *wire.Client) error { return call(ctx, d, req.Ask) })
	})
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
// daemon what was typed, or why there is nothing. The daemon's answer to the
// request itself says what came of it.
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
	typed, err := c.typed(asking, q)
	if context.Cause(asking) == errNotAsked { // somebody else answered, or is asked now
		return nil
	}
	reply := wire.PromptReplyRequest{ID: q.ID, Answer: typed}
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

// typed returns what the user types for q.
func (c *client) typed(ctx context.Context, q broker.Question) (string, error) {
	switch q.Want {
	case broker.WantCode:
		code, err := c.terminal(ctx, question(q), shown)
		return strings.TrimSpace(code), err
	case broker.WantPassphrase, broker.WantNewPassphrase:
		return c.passphrase(ctx, q)
	}
	return "", errNoTerminal // a later daemon's question
}

// passphrase asks unseen, twice for a new one, until what is typed can be sent.
func (c *client) passphrase(ctx context.Context, q broker.Question) (string, error) {
	for {
		first, err := c.terminal(ctx, question(q), hidden)
		if err != nil {
			return "", err
		}
		q.Reason = "that is not UTF-8, as which passphrases are kept"
		if !utf8.ValidString(first) {
			continue
		}
		if q.Want == broker.WantPassphrase || first == "" { // which the daemon refuses
			return first, nil
		}
		second, err := c.terminal(ctx, "gatepass: the same once more (not shown): ", hidden)
		if err != nil {
			return "", err
		}
		if first == second {
			return first, nil
		}
		q.Reason = "the two passphrases differ"
	}
}

// question is what the user reads.
func question(q broker.Question) string {
	var b strings.Builder
	if q.Reason != "" {
		b.WriteString("gatepass: " + printable(q.Reason) + "\n")
	} else if q.Want == broker.WantNewPassphrase {
		b.WriteString("gatepass: the " + printable(q.Keychain) + " keychain is new: choose the passphrase that opens it;\n" +
			"gatepass: without it nobody can read, or recover, what is kept there\n")
	}
	b.WriteString("gatepass: ")
	var whose []string
	if q.Profile != "" {
		whose = append(whose, "profile "+printable(q.Profile))
	}
	if q.Program != "" {
		whose = append(whose, "for "+printable(q.Program))
	}
	if len(whose) > 0 {
		b.WriteString(strings.Join(whose, ", ") + ": ")
	}
	switch q.Want {
	case broker.WantCode:
		b.WriteString("MFA code of " + printable(q.Serial) + ": ")
	case broker.WantPassphrase:
		b.WriteString("passphrase of the " + printable(q.Keychain) + " keychain (not shown): ")
	case broker.WantNewPassphrase:
		b.WriteString("new passphrase (not shown): ")
	}
	return b.String()
}
