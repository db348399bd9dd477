package broker

// A beginning is a lease that was asked for and does not stand yet. While its
// user is asked the process that wants it makes its request again and again;
// all of them are about one lease, so that the sessions which an answer gave
// are found by the request after it.
type beginning struct {
	root    ProcessID
	waiting bool   // for its process to ask again
	stop    func() // stops watching over it, nil where nobody does
}

// beginLease gives l the id of the lease that its root has asked for before,
// or a new one.
func (b *Broker) beginLease(l *lease) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, n := range b.beginnings {
		if n.waiting && n.root == l.Root {
			n.waiting, l.ID = false, id
			return
		}
	}
	l.ID = newLeaseID()
	b.beginnings[l.ID] = &beginning{root: l.Root}
}

// awaitLease keeps what l has so far until its root asks again, or ends.
func (b *Broker) awaitLease(l *lease) {
	b.mu.Lock()
	n := b.beginnings[l.ID]
	watched := n == nil || n.stop != nil
	if n != nil {
		n.waiting = true
	}
	b.mu.Unlock()
	if watched {
		return
	}
	stop, err := b.cfg.Leases.Processes.Watch(l.Root, func(Exit) { b.giveUpLease(l.ID) })
	if err != nil { // it has ended
		b.giveUpLease(l.ID)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n.stop = stop
}

// giveUpLease forgets a lease that did not begin, and ends the sessions that
// it got.
func (b *Broker) giveUpLease(id string) {
	b.begunLease(id)
	b.drop("the lease could not begin", func(s *session) bool { return s.q.lease == id })
}

// begunLease ends a beginning: its lease stands, or never will.
func (b *Broker) begunLease(id string) {
	b.mu.Lock()
	stop := func() {}
	if n := b.beginnings[id]; n != nil && n.stop != nil {
		stop = n.stop
	}
	delete(b.beginnings, id)
	b.mu.Unlock()
	stop()
}

// wantedLocked reports whether a lease stands or begins: what was got for
// another one has come too late.
func (b *Broker) wantedLocked(id string) bool {
	l := b.leases[id]
	return b.beginnings[id] != nil || l != nil && l.Ended.IsZero()
}
