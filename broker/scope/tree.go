package scope

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"gatepass/broker"
)

// reached are the processes that a signal has reached below roots without a
// scope. When the root ends of it before them, they have other parents, and
// are the lease's all the same until they have ended or KILL was sent.
type reached struct {
	mu     sync.Mutex // held to look at byRoot and to change it
	byRoot map[broker.ProcessID][]broker.ProcessID
}

// of returns root and what was reached below it.
func (r *reached) of(root broker.ProcessID) []broker.ProcessID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]broker.ProcessID{root}, r.byRoot[root]...)
}

func (r *reached) set(root broker.ProcessID, ids []broker.ProcessID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(ids) == 0 {
		delete(r.byRoot, root)
		return
	}
	if r.byRoot == nil {
		r.byRoot = make(map[broker.ProcessID][]broker.ProcessID)
	}
	r.byRoot[root] = ids
}

// Inside implements [broker.Processes]. It lists at most maxInside, the oldest
// first; without a scope also what a signal has reached below the root and not
// ended.
func (t *Trees) Inside(scope string, root broker.ProcessID) ([]broker.Process, error) {
	members, err := t.list(scope, root, maxInside)
	if err != nil {
		return nil, fmt.Errorf("list the processes of a lease: %w", err)
	}
	if len(members) == 0 {
		t.reached.set(root, nil)
	}
	slices.SortFunc(members, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.id.Start, b.id.Start), cmp.Compare(a.id.PID, b.id.PID))
	})
	var inside []broker.Process
	for _, m := range members[:min(len(members), maxInside)] {
		if p, ok := t.describe(m.id); ok {
			inside = append(inside, p)
		}
	}
	return inside, nil
}

// Signal implements [broker.Processes]. HUP and TERM are followed by CONT, for
// those that are stopped. It fails when processes are started faster than they
// are found: those that were found have the signal then.
func (t *Trees) Signal(scope string, root broker.ProcessID, signal string) error {
	var err error
	switch signal {
	case "HUP", "TERM":
		_, err = t.each(scope, root, signal, "CONT")
	case "KILL":
		var done bool
		if done, err = t.killScope(scope); !done && err == nil {
			err = t.killEach(scope, root)
		}
	default:
		err = errors.New("there are HUP, TERM and KILL")
	}
	if err != nil {
		return fmt.Errorf("send %s to the processes of a lease: %w", signal, err)
	}
	return nil
}

// killEach ends processes one by one, after it has stopped them: a stopped
// process starts no others, and keeps its place in a full process table.
func (t *Trees) killEach(scope string, root broker.ProcessID) error {
	stopped, stopErr := t.each(scope, root, "STOP")
	var err error // the first
	for _, id := range stopped {
		if sent := t.send(scope, id, "KILL"); sent != errNotOurs {
			err = cmp.Or(err, sent)
		}
	}
	if stopErr != nil { // not all were stopped
		_, again := t.each(scope, root, "KILL")
		err = cmp.Or(err, again)
	}
	t.reached.set(root, nil)
	return err
}

// each gives signals to the processes of a lease, once to each, until a look
// finds no new ones. It returns whom it has reached, and the first error.
//
// A process that is being forked is nowhere to be seen yet. So with STOP one
// look more must find nobody new, after one that found everybody stopped.
func (t *Trees) each(scope string, root broker.ProcessID, signals ...string) (all []broker.ProcessID, err error) {
	seen := make(map[broker.ProcessID]error) // what send said
	still := signals[0] != "STOP"
	for deadline := time.Now().Add(t.signalTime); ; {
		members, listErr := t.list(scope, root, math.MaxInt)
		if listErr != nil {
			return all, cmp.Or(err, listErr)
		}
		news, moving := false, false
		var others []broker.ProcessID
		for _, m := range members {
			if m.id.PID <= 0 || m.id.PID == os.Getpid() {
				continue
			}
			if m.id != root {
				others = append(others, m.id)
			}
			sent, known := seen[m.id]
			if !known {
				news = true
				all = append(all, m.id)
				sent = t.send(scope, m.id, signals...)
				seen[m.id] = sent
				if sent != errNotOurs {
					err = cmp.Or(err, sent)
				}
			}
			moving = moving || !m.stopped && sent == nil
		}
		if scope == "" {
			t.reached.set(root, others)
		}
		switch {
		case !news && still:
			return all, err
		case time.Now().After(deadline):
			return all, cmp.Or(err, errors.New("they start others faster than these are found"))
		case signals[0] == "STOP":
			if still = !moving; moving && !news {
				time.Sleep(time.Millisecond) // the kernel stops them when it runs them
			}
		}
	}
}

// A member is a process of a lease as it was seen.
type member struct {
	id      broker.ProcessID
	stopped bool // and so starts no others
}

// A node is a process in a table of all.
type node struct {
	ppid    int
	start   uint64
	ended   bool
	stopped bool
	depth   int // 1 for a root, -1 for what is below none, 0 for what is not known yet
}

// A table is all processes as they were seen, one after the other, while they
// came and went.
type table struct {
	nodes map[int]*node
	look  func(pid int) (node, bool) // sees one as it is now; nil: the table was made in one look
}

// below returns the processes among roots and those below them that have not
// ended, children before their parents.
func (t table) below(roots []broker.ProcessID) []member {
	for _, root := range roots {
		if n := t.nodes[root.PID]; n != nil && n.start == root.Start {
			n.depth = 1
		}
	}
	var members []member
	for pid := range maps.Clone(t.nodes) { // parent may add to it
		if n := t.nodes[pid]; t.depth(pid) > 0 && !n.ended {
			members = append(members, member{broker.ProcessID{PID: pid, Start: n.start}, n.stopped})
		}
	}
	slices.SortFunc(members, func(a, b member) int { return t.nodes[b.id.PID].depth - t.nodes[a.id.PID].depth })
	return members
}

// depth returns how far below a root a process is, 1 for a root.
func (t table) depth(pid int) int {
	n := t.nodes[pid]
	if n.depth == 0 {
		n.depth = -1 // what a loop, if there were one, would find
		if parent := t.parent(pid, n); parent > 0 {
			if depth := t.depth(parent); depth > 0 {
				n.depth = depth + 1
			}
		}
	}
	return n.depth
}

// parent returns the parent of a process, 0 for none. A parent that is not
// there, or younger than its child and so the next owner of the number, has
// ended since the child was seen: the child has another by now.
func (t table) parent(pid int, n *node) int {
	for range 3 {
		if n.ppid == 0 {
			return 0
		}
		parent := t.nodes[n.ppid]
		if parent == nil && t.look != nil {
			if now, ok := t.look(n.ppid); ok {
				parent = &now
				t.nodes[n.ppid] = parent
			}
		}
		if parent != nil && parent.start <= n.start {
			return n.ppid
		}
		if t.look == nil {
			return 0
		}
		now, ok := t.look(pid)
		if !ok || now.start != n.start {
			return 0
		}
		n.ppid, n.ended, n.stopped = now.ppid, now.ended, now.stopped
	}
	return 0
}
