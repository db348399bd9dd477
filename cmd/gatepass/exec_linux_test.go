package main

import (
	"strings"
	"testing"
)

// An orphan inside becomes the command's child, and so stays below the
// lease's root.
func TestExecKeepsOrphansBelow(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	h.serveLease(exampleLease())
	const script = `cd "$HOME" && mkfifo go out || exit 9
(setsid sh -c 'read x <go; cut -d" " -f4 /proc/$$/stat >out' &)
echo >go
read parent <out
echo $parent $$`
	r := h.exec(gatepass, "exec", "ops", "--", "sh", "-c", script)
	if pids := strings.Fields(r.stdout); r.code != 0 || len(pids) != 2 || pids[0] != pids[1] {
		t.Errorf("%+v", r)
	}
}
