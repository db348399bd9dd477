package broker

import (
	"context"
	"runtime/debug"
	"sync"
)

// A flight runs one call per key at a time and gives its result to all who
// wait. A waiter who leaves does not cancel the call: what was begun at AWS
// is finished, so that its outcome is known and can be used by the next.
type flight[V any] struct {
	mu    sync.Mutex
	calls map[string]*call[V]
	wg    sync.WaitGroup
}

// A call is one run. val and err are set before done is closed; waiters is
// guarded by the flight's mu.
type call[V any] struct {
	done    chan struct{}
	val     V
	err     error
	waiters int
}

func newFlight[V any]() *flight[V] {
	return &flight[V]{calls: make(map[string]*call[V])}
}

// do returns the result of the call for key that is under way, or of fn in a
// goroutine of its own. It returns ctx's error when that ends first. orphan,
// if not nil, gets the error of a call that nobody waited for to the end.
func (f *flight[V]) do(ctx context.Context, key string, fn func() (V, error), orphan func(error)) (V, error) {
	f.mu.Lock()
	c := f.calls[key]
	if c == nil {
		c = &call[V]{done: make(chan struct{})}
		f.calls[key] = c
		f.wg.Go(func() { f.run(key, c, fn, orphan) })
	}
	c.waiters++
	f.mu.Unlock()

	select {
	case <-c.done:
		return c.val, c.err
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls[key] != c { // finished meanwhile, and counted us as waiting
		<-c.done
		return c.val, c.err
	}
	c.waiters--
	var zero V
	return zero, ctx.Err()
}

func (f *flight[V]) run(key string, c *call[V], fn func() (V, error), orphan func(error)) {
	defer func() {
		// The daemon outlives a bug in one call, as it does in a handler.
		if p := recover(); p != nil {
			c.err = Errorf(CodeInternal, "panic: %v\n%s", p, debug.Stack())
		}
		f.mu.Lock()
		delete(f.calls, key)
		abandoned := c.waiters == 0
		close(c.done)
		f.mu.Unlock()
		if abandoned && c.err != nil && orphan != nil {
			orphan(c.err)
		}
	}()
	c.val, c.err = fn()
}

// wait returns when no call is under way, or when ctx ends.
func (f *flight[V]) wait(ctx context.Context) {
	idle := make(chan struct{})
	go func() { f.wg.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
