package broker

import "context"

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
