package broker

import (
	"context"
	"fmt"
)

// open makes sure that the keychain has its passphrase, before anything that
// needs it: the user behind the caller is asked where it has not. All who come
// meanwhile wait for that one answer.
//
// After a wait its error is an [*AskError]: the request is to be made again,
// since one request waits for one answer.
func (b *Broker) open(ctx context.Context, caller Caller, profile string, how Reachable) error {
	if b.cfg.Unlocker == nil {
		return nil
	}
	locked := b.cfg.Unlocker.Locked()
	if locked == nil || unattended(caller.Via) {
		return locked
	}
	m := b.passphrase(AsError(locked))
	w, err := b.waitAnswered(ctx, caller, m, profile, how, Secret{})
	if err != nil {
		return err
	}
	defer w.leave()
	_, err = answered(b.prompts, w, func(wait context.Context) (struct{}, error) {
		return b.opens.do(wait, m.key, func() (struct{}, error) { return struct{}{}, b.unlock(m, profile) }, nil)
	})
	if err != nil {
		return err
	}
	return &AskError{Question: m.question}
}

// unattended reports whether nobody is asked for what via wants: the daemon's
// own doings, and the endpoints of leases, where no SDK waits for a person.
func unattended(via string) bool { return via == "daemon" || via == "container" || via == "imds" }

// passphrase is what opens the keychain.
func (b *Broker) passphrase(locked *Error) *matter {
	keychain := b.cfg.Keys.Backend()
	return &matter{
		key: "keychain", question: Question{Want: WantPassphrase, Keychain: keychain},
		it: fmt.Sprintf("the passphrase of the keychain (%s)", keychain),
		check: func(passphrase Secret) error {
			if passphrase.IsZero() {
				return Errorf(CodeKeychainDenied, "the passphrase is empty")
			}
			return nil
		},
		failed: CodeKeychainDenied, retry: "try again",
		locked: CodeKeychainLocked,
		state: func(profile string) string {
			return fmt.Sprintf("%sthe keychain (%s) is locked", about(profile), keychain)
		},
		help:  func(string) string { return locked.Hint },
		ready: func(string) string { return "gatepass keys list" },
	}
}

// unlock asks until the keychain opens.
func (b *Broker) unlock(m *matter, profile string) (err error) {
	if b.cfg.Unlocker.Locked() == nil {
		return nil
	}
	defer func() { b.prompts.conclude(m.key, err) }()
	ctx, done := b.prompts.standing()
	defer done()
	fresh, err := b.cfg.Unlocker.New(ctx)
	if err != nil {
		return fmt.Errorf("%s%w", about(profile), err)
	}
	asked := *m
	if fresh {
		asked.question.Want = WantNewPassphrase
	}
	var a asking
	for {
		passphrase, err := b.answer(ctx, &asked, profile, &a)
		if err != nil {
			return err
		}
		ok, err := b.cfg.Unlocker.Unlock(ctx, passphrase)
		passphrase.Clear()
		if err != nil {
			return fmt.Errorf("%s%w", about(profile), err)
		}
		if ok {
			b.cfg.Logger.Info("the keychain was opened by its passphrase", "keychain", m.question.Keychain)
			b.opened()
			return nil
		}
		a.reason = "this passphrase does not open the keychain"
	}
}

// whenOpen runs f in a goroutine once the keychain is open, and reports false
// where it is.
func (b *Broker) whenOpen(f func()) bool {
	if b.cfg.Unlocker == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cfg.Unlocker.Locked() == nil {
		return false
	}
	b.shut = append(b.shut, f)
	return true
}

// opened runs what waits for the keychain.
func (b *Broker) opened() {
	b.mu.Lock()
	waiting := b.shut
	b.shut = nil
	b.mu.Unlock()
	for _, f := range waiting {
		b.cfg.Clock.AfterFunc(0, f)
	}
}
