package scope

import (
	"slices"
	"testing"

	"gatepass/broker"
)

func TestUnits(t *testing.T) {
	for name, ok := range map[string]bool{
		"gatepass-l-7f3k2m9qxd.scope":      true,
		"gatepass-l-.scope":                false,
		"gatepass-l-7f3k2m9qxd":            false,
		"gatepass-s-7f3k2m9qxd.scope":      false,
		"gatepass-l-7f3K.scope":            false,
		"gatepass-l-a/b.scope":             false,
		"gatepass-l-a.scope (deleted)":     false,
		"app-gatepass-l-7f3k2m9qxd.scope":  false,
		"gatepass-l-7f3k2m9qxd.scope.scop": false,
		"":                                 false,
	} {
		if isUnit(name) != ok {
			t.Errorf("%q: %v", name, !ok)
		}
	}
	for lease, want := range map[string]string{"l-7f3k": "gatepass-l-7f3k.scope", "": "", "x": "", "l-": "", "l-../x": "", "l-a b": ""} {
		if unit, ok := unitOf(lease); ok != (want != "") || ok && unit != want {
			t.Errorf("unit of %q: %q, %v", lease, unit, ok)
		}
	}
}

// Of what has the name of a scope, the outermost counts: a lease may make
// groups inside its own.
func TestScopeIn(t *testing.T) {
	const scope = "/user.slice/user-1000.slice/user@1000.service/app.slice/gatepass-l-one.scope"
	for path, want := range map[string]string{
		"":                                   "",
		"/":                                  "",
		"/user.slice/session-2.scope":        "",
		scope:                                scope,
		scope + "/":                          scope,
		scope + "/below":                     scope,
		scope + "/gatepass-l-two.scope":      scope,
		scope + "/a/gatepass-l-two.scope/b":  scope,
		"/gatepass-l-two.scope":              "/gatepass-l-two.scope",
		scope + "x":                          "",
		"/x" + scope[1:] + "-not":            "",
		"/a//b/gatepass-l-one.scope":         "/a//b/gatepass-l-one.scope",
		"/gatepass-l-.scope/gatepass-l-one":  "",
		"/app.slice/gatepass-l-one.scope.d/": "",
	} {
		if got := scopeIn(path); got != want {
			t.Errorf("%q is in %q, not %q", path, got, want)
		}
	}
}

// A table of processes as a walk sees them.
func TestBelow(t *testing.T) {
	id := func(pid int, start uint64) broker.ProcessID { return broker.ProcessID{PID: pid, Start: start} }
	nodes := func() map[int]*node {
		return map[int]*node{
			1:  {start: 1},
			10: {ppid: 1, start: 100},
			11: {ppid: 10, start: 110},
			12: {ppid: 11, start: 120},
			13: {ppid: 11, start: 105},                             // its parent is younger: another's number
			14: {ppid: 10, start: 100},                             // within the same tick
			15: {ppid: 10, start: 130, ended: true},                // a zombie
			16: {ppid: 15, start: 140},                             // of a leader that has ended, not all of its threads
			20: {ppid: 1, start: 90},                               // a neighbour
			21: {ppid: 99, start: 150},                             // its parent has ended
			30: {ppid: 31, start: 100}, 31: {ppid: 30, start: 100}, // which cannot be
		}
	}
	sorted := func(members []member) (pids []int) {
		for _, m := range members {
			pids = append(pids, m.id.PID)
		}
		slices.Sort(pids)
		return pids
	}
	for _, test := range []struct {
		name  string
		roots []broker.ProcessID
		look  func(pid int) (node, bool)
		want  []int
	}{
		{"one root", []broker.ProcessID{id(10, 100)}, nil, []int{10, 11, 12, 14, 16}},
		{"a root that has ended", []broker.ProcessID{id(10, 99)}, nil, nil},
		{"no such root", []broker.ProcessID{id(40, 100)}, nil, nil},
		{"two roots", []broker.ProcessID{id(11, 110), id(20, 90)}, nil, []int{11, 12, 20}},
		{"one root in the other", []broker.ProcessID{id(12, 120), id(10, 100)}, nil, []int{10, 11, 12, 14, 16}},
		{
			"an adopted child", []broker.ProcessID{id(10, 100)},
			func(pid int) (node, bool) { return node{ppid: 10, start: 150}, pid == 21 },
			[]int{10, 11, 12, 14, 16, 21},
		},
		{
			"a parent that came during the walk", []broker.ProcessID{id(10, 100)},
			func(pid int) (node, bool) { return node{ppid: 12, start: 145}, pid == 99 },
			[]int{10, 11, 12, 14, 16, 21},
		},
		{
			"a child whose number is used again", []broker.ProcessID{id(10, 100)},
			func(pid int) (node, bool) { return node{ppid: 10, start: 160}, pid == 21 },
			[]int{10, 11, 12, 14, 16},
		},
		{
			"a parent that is never there", []broker.ProcessID{id(10, 100)},
			func(pid int) (node, bool) { return node{ppid: 99, start: 150}, pid == 21 },
			[]int{10, 11, 12, 14, 16},
		},
	} {
		ids := table{nodes: nodes(), look: test.look}.below(test.roots)
		if got := sorted(ids); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, not %v", test.name, got, test.want)
		}
	}

	// Children come before their parents.
	ids := table{nodes: nodes()}.below([]broker.ProcessID{id(10, 100)})
	place := func(pid int) int {
		return slices.IndexFunc(ids, func(m member) bool { return m.id.PID == pid })
	}
	if !(place(12) < place(11) && place(11) < place(10)) {
		t.Errorf("in order %v", ids)
	}
}
