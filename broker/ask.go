package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
)

// An asking is the questions for one code: how often it was asked, and why it
// is asked again.
type asking struct {
	attempt int
	reason  string
}

// refused notes why a code did not do.
func (a *asking) refused(err error) {
	if a.reason = err.Error(); !errors.Is(err, errUsed) {
		a.reason += ": check the code, or wait for the next"
	}
}

// errUsed is why a code is not sent.
var errUsed = Errorf(CodeMFAFailed, "that code has been used, and AWS takes each one once: wait for the next")

// code gets an MFA code for q from whoever can be asked. Its error ends the
// asking for all who wait.
func (b *Broker) code(ctx context.Context, q *query, a *asking) (_ Secret, err error) {
	key := q.promptKey()
	defer func() {
		if err != nil {
			b.prompts.conclude(key, err)
		}
	}()
	if a.attempt++; a.attempt > maxAttempts {
		return Secret{}, Errorf(CodeMFAFailed, "profile %q: %d codes were refused: %s", q.profile, maxAttempts, a.reason)
	}
	if q.mfaProcess != "" && b.cfg.MFA.Prompter != nil {
		code, err := b.cfg.MFA.Prompter.Run(ctx, q.mfaProcess)
		if err == nil {
			err = checkCode(code)
		}
		if err != nil {
			return Secret{}, fmt.Errorf("profile %q: mfa_process: %w", q.profile, err)
		}
		return code, nil
	}
	done, err := b.prompts.begin(ctx, key)
	if err != nil {
		return Secret{}, fmt.Errorf("profile %q: %w", q.profile, errUnanswered)
	}
	defer done()
	var unavailable error
	for {
		b.prompts.settle(key)
		w := b.prompts.next(key)
		if w == nil && b.prompts.back(ctx, key) {
			w = b.prompts.next(key)
		}
		if w == nil && a.reason != "" {
			return Secret{}, Errorf(CodeMFAFailed, "profile %q: %s", q.profile, a.reason).WithHint("wait for the next code and try again")
		}
		if w == nil {
			return Secret{}, cmp.Or(unavailable, unaskable(q.profile, q.serial))
		}
		code, err := b.askWaiter(ctx, key, w, Question{
			Profile: w.profile, Program: w.caller.Program, Key: q.key.Name, Serial: q.serial,
			Attempt: a.attempt, Reason: a.reason,
		})
		switch {
		case errors.Is(err, errPassed):
		case CodeOf(err) == CodePromptUnavailable:
			unavailable = err
		case err != nil:
			switch {
			case b.prompts.life.Err() != nil:
				return Secret{}, Errorf(CodePromptTimeout, "profile %q: the daemon stopped before the MFA code was given", w.profile).WithHint("ask again")
			case ctx.Err() != nil:
				err = errUnanswered
			}
			switch CodeOf(err) {
			case CodeCancelled:
				b.prompts.quiet(key, "was cancelled")
			case CodePromptTimeout:
				b.prompts.quiet(key, "was not answered")
			}
			return Secret{}, fmt.Errorf("profile %q: %w", w.profile, err)
		default:
			bad := checkCode(code)
			if bad == nil {
				return code, nil
			}
			a.reason = bad.Error()
			if a.attempt++; a.attempt > maxAttempts {
				return Secret{}, Errorf(CodeMFAFailed, "profile %q: %s", q.profile, a.reason)
			}
		}
	}
}

// askWaiter asks the user behind w, by the first way that there is.
func (b *Broker) askWaiter(ctx context.Context, key string, w *waiter, q Question) (Secret, error) {
	if !w.code.IsZero() {
		b.prompts.mu.Lock()
		w.tried = true // its one code
		b.prompts.mu.Unlock()
		return w.code, nil
	}
	if !w.how.Known {
		return Secret{}, b.prompts.sendBack(ctx, key, w, q)
	}
	ways := b.ways(w)
	for _, way := range ways {
		switch {
		case way == PromptTerminal && w.how.Terminal:
			return b.prompts.hand(ctx, key, w, q)
		case way == PromptPinentry || way == PromptDesktop:
			if b.cfg.MFA.Prompter == nil {
				continue
			}
			code, err := b.askProgram(ctx, w, q, way, len(ways) == 1)
			if CodeOf(err) != CodePromptUnavailable {
				return code, err
			}
		}
	}
	b.prompts.mu.Lock()
	w.tried = true
	b.prompts.mu.Unlock()
	return Secret{}, unaskable(q.Profile, q.Serial)
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
	code, err := b.cfg.MFA.Prompter.Ask(there, q, way, how)
	if err != nil && ctx.Err() == nil && w.ctx.Err() != nil {
		b.prompts.mu.Lock()
		w.tried = true // it is leaving
		b.prompts.mu.Unlock()
		err = errPassed
	}
	return code, err
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

func unaskable(profile, serial string) error {
	return Errorf(CodePromptUnavailable, "profile %q needs a code of the MFA device %s, and there is nobody to ask: no terminal in the foreground, no dialog", profile, serial).
		WithHint("in a terminal, once: gatepass export %s --mfa-code CODE >/dev/null; or set mfa_process in the profile", profile)
}

// checkCode returns why code cannot be one of an MFA device: AWS wants six
// digits.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html
func checkCode(code Secret) error {
	b := code.RevealBytes()
	if len(b) != 6 || strings.Trim(string(b), "0123456789") != "" {
		return Errorf(CodeMFAFailed, "an MFA code has six digits")
	}
	return nil
}
