package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"gatepass/broker"
)

func TestFrame(t *testing.T) {
	c := newHome(t).command(nil, nil)
	st := exampleStatus()
	st.Leases = exampleLeases()
	for _, size := range [][2]int{{80, 24}, {80, 200}, {120, 50}, {20, 5}, {1, 1}, {2, 2}, {80, 0}} {
		lines := c.frame(look{status: st}, at, size[0], size[1])
		if len(lines) > size[1] {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(withoutColours(line)); n > size[0] || strings.Contains(line, "\n") {
				t.Errorf("%v: %d columns: %q", size, n, line)
			}
			if strings.Count(line, "\x1b[") > 0 && !strings.HasSuffix(line, "\x1b[0m") && strings.LastIndex(line, "\x1b[0m") < strings.LastIndex(line, "\x1b[") {
				t.Errorf("%v: the colour goes on: %q", size, line)
			}
		}
	}
	whole := strings.Join(c.frame(look{status: st}, at, 80, 200), "\n")
	if plain := withoutColours(whole); !strings.Contains(plain, "ops, dns  42m") || !strings.Contains(plain, "last refusal") || !strings.HasPrefix(plain, "10:00:00 ") {
		t.Errorf("got\n%s", plain)
	}
	failed := c.frame(look{err: broker.Errorf(broker.CodeDaemonUnreachable, "no\x1b[2J").WithHint("do this")}, at, 80, 24)
	if got := strings.Join(failed, "\n"); !strings.Contains(got, `no\x1b[2J`) || !strings.Contains(got, "do this") || len(failed) != 4 {
		t.Errorf("got %q", failed)
	}
	plain := newHome(t)
	plain.env["NO_COLOR"] = "1"
	if got := strings.Join(plain.command(nil, nil).frame(look{status: st}, at, 80, 50), "\n"); strings.Contains(got, "\x1b") {
		t.Errorf("colours in %q", got)
	}
}

func TestClipColoured(t *testing.T) {
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{
		{"short", 80, "short"},
		{"exact", 5, "exact"},
		{"longer", 5, "long…"},
		{"\x1b[31mexact\x1b[0m", 5, "\x1b[31mexact\x1b[0m"},
		{"\x1b[31mlonger\x1b[0m", 5, "\x1b[31mlong…\x1b[0m"},
		{"a\x1b[31mb\x1b[0mcd", 3, "a\x1b[31mb\x1b[0m…\x1b[0m"},
		{"näïve", 4, "näï…"},
	} {
		if got := clipColoured(c.s, c.n); got != c.want {
			t.Errorf("%q to %d: %q, want %q", c.s, c.n, got, c.want)
		}
	}
}
