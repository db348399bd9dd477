package broker

import (
	"context"
	"time"
)

// PromptLifeForTest is how long the longest wait in the background lasts.
const PromptLifeForTest = promptLife

// ComesBack has a client that was sent away come again while the next one to
// ask is looked for, and reports whether it was found.
func ComesBack(clock Clock) bool {
	const pid = 1
	p := newPrompts(clock)
	defer p.end()
	m := &matter{key: "a matter"}
	p.queueLocked(m.key).away[pid] = clock.Boot()
	go p.join(m, &waiter{caller: Caller{PID: pid, Via: "whoami"}})
	return p.next(context.Background(), m.key) != nil
}

// RenewDropped has the only session renewed, and drops it after that was
// decided; a request that comes within a second waits for the renewal.
func RenewDropped(b *Broker) {
	b.mu.Lock()
	var s *session
	for _, s = range b.sessions {
	}
	b.mu.Unlock()
	go b.mints.do(context.Background(), s.q.cacheKey, func() (minted, error) {
		b.drop("dropped", func(*session) bool { return true })
		time.Sleep(time.Second)
		return b.renewed(s, s.q)
	}, nil)
}
