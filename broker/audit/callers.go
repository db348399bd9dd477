package audit

import (
	"slices"
	"sync"

	"gatepass/broker"
)

// maxCallers is how many callers are kept as they stand in an entry.
const maxCallers = 64

// callers keeps how callers stand in an entry. The same few processes ask again
// and again, by way of the same ancestors, and their description is most of an
// entry: it is written out once, until it changes. mu guards shown.
type callers struct {
	mu    sync.Mutex
	shown map[callerKey]shownCaller
}

// A callerKey finds a caller that may be the same.
type callerKey struct {
	id  broker.ProcessID
	via string
}

// A shownCaller is never changed.
type shownCaller struct {
	caller broker.Caller
	text   []byte
	cuts   []string // the fields that were cut in it
}

func keyOf(c *broker.Caller) callerKey { return callerKey{c.ID, c.Via} }

// find returns how c stands in an entry, if that is known.
func (k *callers) find(c *broker.Caller) (s shownCaller, ok bool) {
	k.mu.Lock()
	s, ok = k.shown[keyOf(c)]
	k.mu.Unlock()
	return s, ok && looksLike(&s.caller, c)
}

func (k *callers) keep(c *broker.Caller, text []byte, cuts []string) {
	s := shownCaller{*c, slices.Clone(text), slices.Clone(cuts)}
	s.caller.Ancestors = slices.Clone(c.Ancestors)
	s.caller.Args = nil // there may be secrets in them, which Command has masked
	for i := range s.caller.Ancestors {
		s.caller.Ancestors[i].Args = nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.shown == nil || len(k.shown) >= maxCallers {
		k.shown = make(map[callerKey]shownCaller)
	}
	k.shown[keyOf(c)] = s
}

// looksLike reports whether two callers stand in an entry alike.
func looksLike(a, b *broker.Caller) bool {
	return a.UID == b.UID && a.User == b.User && a.PID == b.PID && a.Program == b.Program && a.Exe == b.Exe && a.Command == b.Command &&
		a.Cwd == b.Cwd && a.TTY == b.TTY && a.Via == b.Via && a.Resolved == b.Resolved &&
		slices.EqualFunc(a.Ancestors, b.Ancestors, func(a, b broker.Process) bool {
			return a.PID == b.PID && a.Exe == b.Exe && a.Command == b.Command
		})
}
