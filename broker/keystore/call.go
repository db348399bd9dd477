package keystore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gatepass/broker"
)

// A call is one request and the helper that serves it. Its run owns the
// process; the caller only waits for result, and may leave.
type call struct {
	cfg    *Config
	env    []string
	req    *request
	ctx    context.Context
	cancel context.CancelCauseFunc
	result chan result

	began    time.Time
	deadline *time.Timer // cancels ctx
	started  atomic.Bool // has had its turn
	prompted atomic.Bool // the helper said that a dialog may be open
	locked   atomic.Bool // and that it is there to unlock
}

type result struct {
	answer answer
	err    error
}

// run starts the helper, gives it the request, hands on its answer and ends
// it. It returns once the process is gone.
func (c *call) run() {
	// The helper asks the kernel to be told of its parent's death, and means
	// by that the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer c.req.clear()

	p, err := start(c.cfg.Helper, c.env)
	if err != nil {
		c.deliver(result{err: broker.Errorf(broker.CodeInternal, "start the keychain helper: %w", err)})
		return
	}
	aborted := make(chan struct{})
	stop := context.AfterFunc(c.ctx, func() {
		p.kill()
		p.pipe.Close()
		close(aborted)
	})
	a, err := c.talk(p.pipe)
	// After this nobody else signals the process, so that its number cannot
	// be another's by then.
	if stop() {
		p.kill()
		p.pipe.Close()
	} else {
		<-aborted
	}
	if c.ctx.Err() != nil { // and so the caller has left, or is about to
		clear(a.value)
		p.wait()
		return
	}
	if err == nil {
		c.deliver(result{answer: a})
		p.wait()
		return
	}
	status := p.wait()
	words := p.words()
	c.cfg.Logger.Error("keychain helper failed", "op", c.req.Op, "keychain", c.req.Backend, "error", err, "status", status, "stderr", words)
	if words != "" {
		words = ": " + words
	}
	c.deliver(result{err: broker.Errorf(broker.CodeInternal, "the keychain helper gave no answer (%w; %s)%s", err, status, words)})
}

// deliver hands r to the caller, or clears it where the caller leaves.
func (c *call) deliver(r result) {
	select {
	case c.result <- r:
	case <-c.ctx.Done():
		clear(r.answer.value)
	}
}

// talk has the conversation of message.go.
func (c *call) talk(rw io.ReadWriter) (answer, error) {
	var a answer
	if err := readMessage(rw, &a, &a.value); err != nil {
		return answer{}, err
	}
	if a.State != stateReady {
		return answer{}, fmt.Errorf("it began with %.20q", a.State)
	}
	if err := writeMessage(rw, c.req, c.req.passphrase, c.req.value); err != nil {
		return answer{}, err
	}
	for {
		a = answer{}
		if err := readMessage(rw, &a, &a.value); err != nil {
			return answer{}, err
		}
		switch {
		case a.State == statePrompt && !c.prompted.Load():
			c.locked.Store(a.Locked)
			c.prompted.Store(true)
			c.deadline.Reset(c.cfg.PromptDeadline - time.Since(c.began))
		case a.State == stateDone && (a.Error == nil || a.Error.Code.Known()):
			return a, nil
		default:
			clear(a.value)
			return answer{}, errors.New("its answer makes no sense")
		}
	}
}

// ended says why the call's context did.
func (c *call) ended() error {
	backend, cause := c.req.Backend, context.Cause(c.ctx)
	if cause != errDeadline && !errors.Is(cause, context.DeadlineExceeded) {
		return broker.Errorf(broker.CodeCancelled, "the call to the keychain (%s) was given up: %w", backend, cause)
	}
	late := func(code broker.Code, format string, args ...any) *broker.Error {
		if cause != errDeadline { // the caller's
			format, args = format+": %w", append(args, cause)
		}
		return broker.Errorf(code, format, args...)
	}
	waited := time.Since(c.began).Round(100 * time.Millisecond)
	switch {
	case !c.started.Load():
		return late(broker.CodeKeychainTimeout, "the keychain (%s) did not answer in %s: earlier calls still wait for it", backend, waited).
			WithHint("look for a dialog of the keychain, or restart its service")
	case c.locked.Load():
		return late(broker.CodeKeychainLocked, "the keychain (%s) is locked and its dialog was not answered in %s", backend, waited).
			WithHint("unlock the keychain and try again")
	case c.prompted.Load():
		return late(broker.CodeKeychainTimeout, "the keychain (%s) did not answer in %s; it may have shown a dialog", backend, waited).
			WithHint("try again and answer the dialog")
	}
	c.cfg.Logger.Warn("keychain hangs", "op", c.req.Op, "keychain", backend, "waited", waited)
	return late(broker.CodeKeychainTimeout, "the keychain (%s) did not answer in %s", backend, waited).
		WithHint("its service hangs: restart it, or log in again")
}

// tail keeps the beginning of what a helper says on stderr: a refusal, or the
// reason of a crash. The traces below it are not kept.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[:min(len(p), 512-len(t.b))]...)
	return len(p), nil
}

// line returns the first line, cut and without control characters.
func (t *tail) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, _, _ := strings.Cut(string(t.b), "\n")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return ' '
		}
		return r
	}, s)
}
