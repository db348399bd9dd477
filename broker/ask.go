package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
)

// A matter is what the user is asked for, with the words for it. Where profile
// is "", the request is about none.
type matter struct {
	key      string   // at most one question stands for it
	question Question // without who is asked, and how often
	it       string   // what errors call the answer
	check    func(Secret) error

	failed Code   // of an asking whose answers did not do
	retry  string // the hint then

	// Where the user cannot be asked: what is the matter, with which code, how
	// to do without a question, and how to be asked again.
	locked      Code
	state       func(profile string) string
	help, ready func(profile string) string
}

// about begins an error about a profile.
func about(profile string) string {
	if profile == "" {
		return ""
	}
	return fmt.Sprintf("profile %q: ", profile)
}

func (m *matter) unaskable(profile string) error {
	return Errorf(m.locked, "%s, and %w", m.state(profile), errNobody).WithHint("%s", m.help(profile))
}

// errNobody says that whoever waits for an answer cannot be asked for it.
var errNobody = errors.New("there is nobody to ask: no terminal in the foreground, no dialog")

// unasked reports whether err is that nobody was asked.
func unasked(err error) bool { return errors.Is(err, errNobody) || errors.Is(err, errWouldAsk) }

func (m *matter) unanswered() error {
	return Errorf(CodePromptTimeout, "nobody answered the question for %s", m.it)
}

func (m *matter) cancelled() error {
	return Errorf(CodeCancelled, "the user cancelled the question for %s", m.it)
}

// An asking is the questions for one answer: how often it was asked, and why
// it is asked again.
type asking struct {
	attempt int
	reason  string
}

// answer gets an answer from whoever can be asked; profile is of the request
// that is in need of it first. Its error ends the asking for all who wait; the
// caller concludes it, once.
func (b *Broker) answer(ctx context.Context, m *matter, profile string, a *asking) (Secret, error) {
	if a.attempt++; a.attempt > maxAttempts {
		return Secret{}, Errorf(m.failed, "%sasked for %s %d times: %s", about(profile), m.it, maxAttempts, a.reason)
	}
	done, err := b.prompts.begin(ctx, m.key)
	if err != nil {
		return Secret{}, fmt.Errorf("%s%w", about(profile), m.unanswered())
	}
	defer done()
	for {
		b.prompts.settle(m.key)
		w := b.prompts.next(ctx, m.key)
		if w == nil && a.reason != "" {
			e := Errorf(m.failed, "%s%s", about(profile), a.reason).WithHint("%s", m.retry)
			e.err = errNobody // for who comes back only now: it can be asked
			return Secret{}, e
		}
		if w == nil {
			return Secret{}, m.unaskable(profile)
		}
		q := m.question
		q.Profile, q.Program, q.Attempt, q.Reason = w.profile, w.caller.Program, a.attempt, a.reason
		answer, err := b.askWaiter(ctx, m, w, q)
		switch {
		case errors.Is(err, errPassed):
		case err != nil:
			switch {
			case b.prompts.life.Err() != nil:
				return Secret{}, Errorf(CodePromptTimeout, "%sthe daemon stopped before %s was given", about(w.profile), m.it).WithHint("ask again")
			case ctx.Err() != nil:
				err = m.unanswered()
			}
			switch CodeOf(err) {
			case CodeCancelled:
				b.prompts.quiet(m.key, "was cancelled")
			case CodePromptTimeout:
				b.prompts.quiet(m.key, "was not answered")
			}
			return Secret{}, fmt.Errorf("%s%w", about(w.profile), err)
		default:
			bad := m.check(answer)
			if bad == nil {
				return answer, nil
			}
			a.reason = bad.Error()
			if a.attempt++; a.attempt > maxAttempts {
				return Secret{}, Errorf(m.failed, "%s%s", about(profile), a.reason)
			}
		}
	}
}

// askWaiter asks the user behind w, by the first way that there is. errPassed
// means that w cannot be asked, or not any more: the next one may.
func (b *Broker) askWaiter(ctx context.Context, m *matter, w *waiter, q Question) (Secret, error) {
	if !w.code.IsZero() {
		b.prompts.tried(w) // its one code
		return w.code, nil
	}
	if !w.how.Known {
		return Secret{}, b.prompts.sendBack(ctx, m.key, w, q)
	}
	ways := b.ways(w)
	for _, way := range ways {
		switch {
		case way == PromptTerminal && w.how.Terminal:
			return b.prompts.hand(ctx, m, w, q)
		case way == PromptPinentry || way == PromptDesktop:
			if b.cfg.MFA.Prompter == nil {
				continue
			}
			answer, err := b.askProgram(ctx, w, q, way, len(ways) == 1)
			if CodeOf(err) != CodePromptUnavailable {
				return answer, err
			}
		}
	}
	b.prompts.tried(w)
	return Secret{}, errPassed
}

// askProgram asks by a program that the daemon starts. On a terminal, which
// pinentry takes only if that is wanted, it asks for no longer than w is there:
// after that the terminal is somebody else's.
func (b *Broker) askProgram(ctx context.Context, w *waiter, q Question, way string, onTerminal bool) (Secret, error) {
	how := w.how
	if !onTerminal {
		how.TTY = ""
	}
	if how.TTY == "" {
		return b.cfg.MFA.Prompter.Ask(ctx, q, way, how)
	}
	there, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	answer, err := b.cfg.MFA.Prompter.Ask(there, q, way, how)
	if err != nil && ctx.Err() == nil && w.ctx.Err() != nil {
		b.prompts.tried(w) // it is leaving
		err = errPassed
	}
	return answer, err
}

// ways are the ways to ask w's user, in their order: a person at a terminal
// there, a program's user by a dialog first.
func (b *Broker) ways(w *waiter) []string {
	mode := cmp.Or(w.how.Mode, b.cfg.MFA.Prompt, PromptAuto)
	switch {
	case mode != PromptAuto:
		return []string{mode}
	case interactive(w.caller.Via):
		return []string{PromptTerminal, PromptPinentry, PromptDesktop}
	}
	return []string{PromptPinentry, PromptDesktop, PromptTerminal}
}

// waitAnswered makes a request one of those who can be asked in a matter, until
// it leaves, which it must. code is an answer that it brings.
func (b *Broker) waitAnswered(ctx context.Context, caller Caller, m *matter, profile string, how Reachable, code Secret) (*waiter, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &waiter{caller: caller, profile: profile, how: how, code: code, ctx: ctx, cancel: cancel}
	leaveQueue, err := b.prompts.join(m, w)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	stop := func() {}
	if !interactive(caller.Via) {
		stop = b.cfg.Clock.AfterFunc(max(0, processPatience-how.Waited), func() {
			cancel(Errorf(CodePromptTimeout, "%snobody has given %s within %s", about(profile), m.it, processPatience).
				WithHint("answer the question that stands, or: %s", m.ready(profile)))
		})
	}
	w.leave = func() { leaveQueue(); stop(); cancel(nil) }
	return w, nil
}

// maxAskings bounds how often [answered] tries: w may come too late for an
// asking of another profile and for the one after it, and never for a third.
const maxAskings = 3

// answered returns what get does, which waits for what w's matter gives. An
// asking that others began may have found nobody before w came, or may be one
// that asks nobody, and w would share its failure: then the next one asks w.
//
// get's context ends when it is w's turn to ask, with an *[AskError] as its
// cause, or when a program has waited long enough.
func answered[V any](p *prompts, w *waiter, get func(context.Context) (V, error)) (V, error) {
	for try := 1; ; try++ {
		v, err := get(w.ctx)
		if !unasked(err) || try == maxAskings || w.ctx.Err() != nil || p.wasTried(w) {
			return v, w.cause(err)
		}
	}
}

// cause returns why w's context ended err, if it did.
func (w *waiter) cause(err error) error {
	if err == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	if why := context.Cause(w.ctx); why != nil && why != context.Canceled {
		return fmt.Errorf("%w", why)
	}
	return err
}
