package forward

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	firstPause = time.Second
	lastPause  = time.Minute

	// newsPause is how long a destination that fails is left alone at least,
	// once its pauses are longer, however many entries come.
	newsPause = 5 * time.Second

	// longestLater bounds what a destination can ask for.
	longestLater = 5 * time.Minute
)

// A later is an error of a destination that says when to come again.
type later struct {
	err error
	in  time.Duration
}

func (l *later) Error() string { return l.err.Error() }
func (l *later) Unwrap() error { return l.err }

// about is d or up to half of it less, so that a fleet does not come back at
// once.
func about(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }

// pause waits after a failure for which d is due, and returns what is due after
// the next. A new entry cuts it short, unless the destination said when to come
// again: what was down may be up, and somebody works here.
func (f *feed) pause(ctx context.Context, err error, d time.Duration) (next time.Duration) {
	next = min(2*d, lastPause)
	whole := about(d)
	if l, ok := errors.AsType[*later](err); ok {
		f.wait(ctx, min(max(whole, l.in), longestLater), nil)
		return next
	}
	least := min(whole, about(newsPause))
	f.wait(ctx, least, nil)
	if whole > least {
		f.wait(ctx, whole-least, f.news)
	}
	return next
}

// wait waits for d, but not longer than until there is news, which may be nil,
// or the end is near.
func (f *feed) wait(ctx context.Context, d time.Duration, news <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-f.wake:
		case <-news:
		case <-ctx.Done():
		}
		cancel()
	}()
	f.cfg.sleep(ctx, d)
	cancel()
	<-ended // or it would take the news of a later wait
}
