package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// The times of a prompt.
const (
	// processPatience is how long a credential-process waits for answers, all
	// in all: the Go SDK ends it after a minute.
	processPatience = 45 * time.Second
	// promptLife is how long a question stands, whoever still waits.
	promptLife = 3 * time.Minute
	// quietTime is how long nobody is asked again on behalf of a
	// credential-process after the user cancelled or did not answer.
	quietTime = 5 * time.Minute
	// heartbeat is how often a client that asks says that it still does, and
	// heartbeatLimit how long it may stay silent: it died, or was stopped.
	heartbeat      = time.Second
	heartbeatLimit = 4 * heartbeat
	// codeLife is how long a code may still be valid at AWS, which takes each
	// one once.
	codeLife = 3 * time.Minute

	// settleTime is how long a client waits to hear what came of its answer.
	settleTime = 5 * time.Second

	maxAttempts = 3
)

// The ways to ask, as gatepass.toml and --prompt name them.
const (
	PromptAuto     = "auto"
	PromptTerminal = "tty"
	PromptPinentry = "pinentry"
	PromptDesktop  = "desktop"
	PromptNone     = "none"
)

// PromptModes are what [mfa] prompt and --prompt may say.
var PromptModes = []string{PromptAuto, PromptTerminal, PromptPinentry, PromptDesktop, PromptNone}

// What a Question asks for.
const (
	WantCode          = "mfa_code"       // what the MFA device Serial shows
	WantPassphrase    = "passphrase"     // what opens Keychain
	WantNewPassphrase = "new_passphrase" // what is to open Keychain, which is new; to be asked for twice
)

// A Question is put to a user.
type Question struct {
	ID       string `json:"id"`   // says who was asked; nobody else may answer
	Want     string `json:"want"` // one of WantCode and its like
	Profile  string `json:"profile,omitempty"`
	Program  string `json:"program,omitempty"` // who wants it
	Key      string `json:"key,omitempty"`
	Serial   string `json:"serial,omitempty"`
	Keychain string `json:"keychain,omitempty"`
	Attempt  int    `json:"attempt"`          // from 1
	Reason   string `json:"reason,omitempty"` // why it is asked again
}

// An AskError is no failure: it says that the caller is to put Question to
// its user and then to make its request again. One without ID is to be made
// again at once, with how the caller's user can be asked.
type AskError struct{ Question Question }

func (e *AskError) Error() string {
	if e.Question.Want == WantCode {
		return fmt.Sprintf("a code of the MFA device %s is needed", e.Question.Serial)
	}
	return fmt.Sprintf("the passphrase of the keychain (%s) is needed", e.Question.Keychain)
}

// asAsk returns the AskError in err's chain, if there is one.
func asAsk(err error) (*AskError, bool) { return errors.AsType[*AskError](err) }

// Reachable says how the user behind a caller can be asked. All of it is what
// the caller says of itself.
type Reachable struct {
	Known    bool   // the caller has said
	Terminal bool   // the caller can ask on its terminal
	Mode     string // --prompt; "" leaves it to the configuration
	TTY      string // for pinentry
	Env      []string
	Waited   time.Duration // before this request, with others that it repeats
}

// A Prompter asks users by programs that the daemon starts. Ask returns
// [CodePromptUnavailable] where there is no such program or no display,
// [CodeCancelled] and [CodePromptTimeout] as they say.
type Prompter interface {
	Ask(ctx context.Context, q Question, mode string, how Reachable) (Secret, error)
	// Run runs mfa_process and returns the code that it prints. begin is
	// called with the process before that runs anything of command, which with
	// an error it never does; on Windows it may have begun.
	Run(ctx context.Context, command string, begin func(pid int) error) (Secret, error)
}

// prompts are the questions that stand, at most one for each matter however
// many wait for its answer.
//
// Its times are of the clock that counts from boot: one that is set does not
// make anybody wait. mu guards everything below it and is never held while
// asking.
type prompts struct {
	clock Clock
	life  context.Context // ends with the daemon, and with it every question
	end   context.CancelFunc

	mu     sync.Mutex
	queues map[string]*promptQueue
	used   []usedCode
}

// A usedCode is one that was sent to AWS, which takes none twice.
type usedCode struct {
	serial string
	code   Secret
	at     time.Duration
}

// A promptQueue is those who wait for one answer, in the order in which they
// came.
type promptQueue struct {
	turn       chan struct{} // has room for one: who asks
	waiting    []*waiter
	changed    chan struct{}         // closed and replaced when somebody joins
	asked      *asked                // what a client is asking now; nil for nothing
	answered   *asked                // what was answered and is not settled
	away       map[int]time.Duration // by pid, clients that were sent away to come again, and since when
	quietUntil time.Duration
	quietCause string

	// How the last asking failed, for the client that was asked: it may come
	// again only after that.
	lastPID int
	failed  error
	failAt  time.Duration
}

// A waiter is a request that waits for an answer and could be asked itself.
type waiter struct {
	caller  Caller
	profile string
	how     Reachable
	code    Secret          // from --mfa-code, until it was tried
	tried   bool            // cannot be asked (again)
	ctx     context.Context // of the request
	cancel  context.CancelCauseFunc
	leave   func() // must be called
}

// asked is a question in the hands of a client.
type asked struct {
	matter   *matter
	question Question
	pid      int
	beat     time.Duration
	answer   chan promptAnswer // has room for one
	settled  chan struct{}     // closed once it is known what came of the answer
}

type promptAnswer struct {
	answer Secret
	err    error
}

func newPrompts(clock Clock) *prompts {
	life, end := context.WithCancel(context.Background())
	return &prompts{clock: clock, life: life, end: end, queues: make(map[string]*promptQueue)}
}

func (p *prompts) queueLocked(key string) *promptQueue {
	q := p.queues[key]
	if q == nil {
		q = &promptQueue{turn: make(chan struct{}, 1), changed: make(chan struct{}), away: make(map[int]time.Duration)}
		p.queues[key] = q
	}
	return q
}

// interactive reports whether a person waits for what via asks.
func interactive(via string) bool { return via != "credential-process" && !unattended(via) }

// join puts a request among those who can be asked. It is refused when the
// user has just cancelled and no person asks now. leave must be called.
func (p *prompts) join(m *matter, w *waiter) (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queueLocked(m.key)
	delete(q.away, w.caller.PID)
	if q.failed != nil && q.lastPID == w.caller.PID && p.clock.Boot()-q.failAt <= heartbeatLimit {
		err, q.failed = q.failed, nil
		return nil, err
	}
	if !interactive(w.caller.Via) && w.code.IsZero() {
		if left := q.quietUntil - p.clock.Boot(); left > 0 {
			return nil, Errorf(m.locked, "%s, and the last question %s; programs are not asked for again for %s",
				m.state(w.profile), q.quietCause, left.Round(time.Second)).
				WithHint("when you are ready: %s", m.ready(w.profile))
		}
	} else {
		q.quietUntil = 0
	}
	q.waiting = append(q.waiting, w)
	close(q.changed)
	q.changed = make(chan struct{})
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if i := slices.Index(q.waiting, w); i >= 0 {
			q.waiting = slices.Delete(q.waiting, i, i+1)
		}
	}, nil
}

// next returns the waiter to ask: the one of the highest rank that came first.
// Where there is none it waits for a client that was sent away, to say how it
// can be asked or with a question, if there is one that may still come again.
// nil means that there is nobody.
func (p *prompts) next(ctx context.Context, key string) *waiter {
	w, changed, left := p.first(key)
	if w == nil && left > 0 && p.joined(ctx, changed, left) {
		w, _, _ = p.first(key)
	}
	return w
}

// first returns the waiter to ask or, where there is none, what is closed when
// somebody joins, and how long one who was sent away may take. It looks at all
// that at once: who comes back is no longer away.
func (p *prompts) first(key string) (first *waiter, changed <-chan struct{}, left time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queueLocked(key)
	for _, w := range q.waiting {
		switch {
		case w.tried:
		case first == nil, w.rank() > first.rank():
			first = w
		}
	}
	for pid, since := range q.away {
		if l := since + settleTime + heartbeatLimit - p.clock.Boot(); l > 0 {
			left = max(left, l)
		} else {
			delete(q.away, pid)
		}
	}
	return first, q.changed, left
}

// rank orders those who wait: who brings a code, then a person's own command,
// then who has said how to be asked.
func (w *waiter) rank() (n int) {
	if !w.code.IsZero() {
		n += 4
	}
	if interactive(w.caller.Via) {
		n += 2
	}
	if w.how.Known {
		n++
	}
	return n
}

// tried notes that w cannot be asked, or not again.
func (p *prompts) tried(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.tried = true
}

func (p *prompts) wasTried(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.tried
}

// quiet keeps programs from asking for a while.
func (p *prompts) quiet(key, cause string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queueLocked(key)
	q.quietUntil, q.quietCause = p.clock.Boot()+quietTime, cause
}

// use notes that a code goes to AWS, and reports false if it went before.
func (p *prompts) use(serial string, code Secret) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.Boot()
	p.used = slices.DeleteFunc(p.used, func(u usedCode) bool { return now-u.at > codeLife })
	for _, u := range p.used {
		if u.serial == serial && u.code.Equal(code) {
			return false
		}
	}
	p.used = append(p.used, usedCode{serial, NewSecret(code.RevealBytes()), now})
	return true
}

// hand gives the question to the waiter's client and waits for its answer.
// errPassed means that the client died, was stopped or could not ask: the
// next one may.
func (p *prompts) hand(ctx context.Context, m *matter, w *waiter, question Question) (Secret, error) {
	question.ID = rand.Text()
	a := &asked{matter: m, question: question, pid: w.caller.PID, beat: p.clock.Boot(), answer: make(chan promptAnswer, 1), settled: make(chan struct{})}
	p.mu.Lock()
	q := p.queueLocked(m.key)
	q.asked, q.lastPID, q.failed = a, a.pid, nil
	w.tried = true // it comes back as a new request
	p.mu.Unlock()
	answered := false
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if q.asked = nil; answered {
			q.answered, q.away[a.pid] = a, p.clock.Boot()
		} else {
			close(a.settled)
		}
	}()
	w.cancel(&AskError{Question: question})
	for {
		late := make(chan struct{})
		stop := p.clock.AfterFunc(heartbeat, func() { close(late) })
		select {
		case r := <-a.answer:
			stop()
			answered = true
			return r.answer, r.err
		case <-ctx.Done():
			stop()
			return Secret{}, ctx.Err()
		case <-late:
		}
		p.mu.Lock()
		silent := p.clock.Boot()-a.beat > heartbeatLimit
		p.mu.Unlock()
		if silent {
			return Secret{}, errPassed
		}
	}
}

// errPassed says that this waiter could not be asked.
var errPassed = errors.New("nobody answered for this process")

// find returns the question with that id, if pid is the one who was asked.
func (p *prompts) find(id string, pid int) (*asked, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range p.queues {
		if a := q.asked; a != nil && a.question.ID == id && a.pid == pid {
			a.beat = p.clock.Boot()
			return a, nil
		}
	}
	return nil, Errorf(CodePromptTimeout, "the question is no longer open").WithHint("ask again")
}

// standing returns the context of a question: it ends with the time that a
// question stands, or with the daemon.
func (p *prompts) standing() (context.Context, func()) {
	ctx, cancel := context.WithCancel(p.life)
	stop := p.clock.AfterFunc(promptLife, cancel)
	return ctx, func() { stop(); cancel() }
}

// EndQuestions ends every question that stands, since the daemon is about to
// stop: who waits is told so and need not be waited for.
func (b *Broker) EndQuestions() { b.prompts.end() }

// PromptBeat says that the caller still asks its user; an error means that it
// need not any more.
func (b *Broker) PromptBeat(_ context.Context, caller Caller, id string) error {
	_, err := b.prompts.find(id, caller.PID)
	return err
}

// PromptAnswer hands in the answer to a question, or why there is none
// ([CodeCancelled]: the user does not want to; [CodePromptTimeout]: the user was
// not there; [CodePromptUnavailable]: the caller cannot ask).
//
// It returns once it is known what came of the answer, or after a while: a
// client that came again before would begin another asking.
func (b *Broker) PromptAnswer(ctx context.Context, caller Caller, id string, answer Secret, why Code) error {
	a, err := b.prompts.find(id, caller.PID)
	if err != nil {
		return err
	}
	r := promptAnswer{answer: answer}
	switch why {
	case "":
	case CodeCancelled:
		r.err = a.matter.cancelled()
	case CodePromptTimeout:
		r.err = a.matter.unanswered()
	default:
		r.err = errPassed
	}
	select {
	case a.answer <- r:
		late := make(chan struct{})
		defer b.cfg.Clock.AfterFunc(settleTime, func() { close(late) })()
		select {
		case <-a.settled:
		case <-late: // by now it waits with the others when it comes again
		case <-ctx.Done():
		}
		return nil
	default:
		return Errorf(CodeUsage, "the question was answered already")
	}
}

// sendBack has w's client say how its user can be asked. It comes as a new
// request; whoever comes first ends the waiting.
func (p *prompts) sendBack(ctx context.Context, key string, w *waiter, question Question) error {
	p.mu.Lock()
	w.tried = true
	q := p.queueLocked(key)
	changed := q.changed
	q.away[w.caller.PID] = p.clock.Boot()
	p.mu.Unlock()
	w.cancel(&AskError{Question: question})
	p.joined(ctx, changed, heartbeatLimit)
	return errPassed
}

// conclude ends an asking, and notes how it failed, if it did.
func (p *prompts) conclude(key string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queueLocked(key)
	if err != nil {
		q.failed, q.failAt = err, p.clock.Boot()
	}
	q.settleLocked()
}

// settle lets the client go on whose answer it is known what came of: it
// comes again, and finds the proof, the next question, or how it failed.
func (p *prompts) settle(key string) { p.conclude(key, nil) }

func (q *promptQueue) settleLocked() {
	if q.answered != nil {
		close(q.answered.settled)
		q.answered = nil
	}
}

// begin waits until nobody else asks in that matter: one who wants a long
// session takes a code of its own.
func (p *prompts) begin(ctx context.Context, key string) (done func(), err error) {
	p.mu.Lock()
	turn := p.queueLocked(key).turn
	p.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// joined waits for somebody to join the queue, for as long as limit. changed
// is the queue's from before.
func (p *prompts) joined(ctx context.Context, changed <-chan struct{}, limit time.Duration) bool {
	late := make(chan struct{})
	defer p.clock.AfterFunc(limit, func() { close(late) })()
	select {
	case <-changed:
		return true
	case <-late:
	case <-ctx.Done():
	}
	return false
}
