package broker

import "context"

// enclose begins to move a lease's root into a scope. To wait for the service
// manager, and for the kernel to stop all forks meanwhile, takes as long as
// everything else that a lease begins with, so that is done at the same time.
// The function that it returns waits, and tells the scope: "" for none. Who
// hangs up meanwhile is moved all the same, and it must be known where to.
func (b *Broker) enclose(ctx context.Context, l *lease) (enclosed func() string) {
	ctx = context.WithoutCancel(ctx)
	done := make(chan struct{})
	var scope string
	go func() {
		defer close(done)
		var err error
		scope, err = b.cfg.Leases.Processes.Enclose(ctx, l.ID, l.Root)
		if err != nil {
			b.cfg.Logger.Warn("a lease has no scope of its own; what outlives its root is outside", "lease", l.ID, "err", err)
			scope = ""
		}
	}()
	return func() string { <-done; return scope }
}

// scopeOf returns the scope of a lease that may not have begun: until then it
// is corrected.
func (b *Broker) scopeOf(l *lease) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return l.Scope
}

// moveScope waits until a lease's root is where it belongs, corrects which
// scope the lease has, and reports whether it was another.
func (b *Broker) moveScope(l *lease) bool {
	if l.enclosed == nil {
		return false
	}
	scope := l.enclosed()
	b.mu.Lock()
	defer b.mu.Unlock()
	moved := l.Scope != scope
	l.Scope = scope
	return moved
}
