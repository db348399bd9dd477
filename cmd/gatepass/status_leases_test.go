package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gatepass/broker"
)

func exampleLeases() []broker.LeaseStatus {
	started := func(minutes int) time.Time { return at.Add(time.Duration(minutes) * time.Minute) }
	return []broker.LeaseStatus{
		{ID: "l-bbbbbbbbbb", Parent: "l-aaaaaaaaaa", Profiles: []string{"dns"}, Serve: "container", State: "needs-mfa", PID: 4250, TTY: "/dev/pts/3",
			Command: "make deploy", Started: started(-30), Expires: started(12), Renewable: true},
		{ID: "l-aaaaaaaaaa", Profiles: []string{"ops", "dns"}, Serve: "container", State: "live", PID: 4242, TTY: "/dev/pts/3", Reason: "ticket 4711",
			Command: "zsh", Started: started(-60), Expires: started(42), Renewable: true, Served: 17, LastServed: started(-3)},
		{ID: "l-cccccccccc", Parent: "l-bbbbbbbbbb", Profiles: []string{"dns"}, Serve: "env", State: "live", PID: 4260, TTY: "/dev/pts/3",
			Command: "./old-tool --all", Started: started(-20), Expires: started(40), Served: 1, LastServed: started(-20)},
		{ID: "l-dddddddddd", Parent: "l-aaaaaaaaaa", Profiles: []string{"ops"}, Serve: "imds", State: "expired", PID: 4270,
			Command: "python3 report.py", Started: started(-10), Expires: started(-1)},
		{ID: "l-eeeeeeeeee", Parent: "l-gone", Profiles: []string{"prod"}, Serve: "container", State: "lingering", PID: 4300, TTY: "/dev/pts/4",
			Command: "bash", Started: started(-90), Expires: started(5), Served: 2, LastServed: started(-80), Processes: []broker.Process{
				{PID: 4301, Exe: "/usr/bin/tmux", Command: "tmux new-session -d"}, {PID: 4302, Exe: "/usr/bin/vim"}, {PID: 4303}, {PID: 4304, Command: "d"}, {PID: 4305, Command: "e"}, {PID: 4306, Command: "f"},
			}},
	}
}

func TestLeasesText(t *testing.T) {
	const want = `LEASE     LEFT            ID            SERVED  LAST
prod      ended           l-eeeeeeeeee  2       1h20m ago
  pid 4300, pts/4: bash
  still runs: pid 4301, tmux new-session -d
  still runs: pid 4302, /usr/bin/vim
  still runs: pid 4303, a process
  still runs: pid 4304, d
  and 2 more
  to end them, or to let them go: gatepass end [--release] l-eeeeeeeeee
ops, dns  42m             l-aaaaaaaaaa  17      3m ago
│ pid 4242, pts/3: zsh
│ for ticket 4711
├ dns     12m, needs MFA  l-bbbbbbbbbb  0       -
│ │ pid 4250, pts/3: make deploy
│ └ dns   40m, then ends  l-cccccccccc  1       20m ago
│     pid 4260, pts/3, by env: ./old-tool --all
└ ops     expired         l-dddddddddd  0       -
    pid 4270, by imds: python3 report.py
`
	if got := leasesText(exampleLeases(), at, false, 80); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// Colours change nothing but colours.
	coloured := leasesText(exampleLeases(), at, true, 80)
	if got := strings.NewReplacer("\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "", "\x1b[2m", "", "\x1b[0m", "").Replace(coloured); got != want || coloured == want {
		t.Errorf("in colours\n%s", got)
	}
	page := string(statusPage(broker.Status{Leases: exampleLeases()}, at, false, 0))
	if !strings.Contains(page, "\n\n"+want+"\nsessions  none\n") {
		t.Errorf("the page is\n%s", page)
	}
}

func TestLeaseLeft(t *testing.T) {
	for _, c := range []struct {
		state     string
		left      time.Duration
		renewable bool
		want      string
	}{
		{"live", time.Hour, true, "1h0m"},
		{"live", time.Hour, false, "1h0m, then ends"},
		{"live", 0, true, "renewed on use"},
		{"live", 0, false, "expired"},
		{"needs-mfa", time.Minute, true, "1m, needs MFA"},
		{"needs-mfa", 0, true, "needs MFA"},
		{"expired", time.Minute, true, "expired"},
		{"lingering", time.Minute, true, "ended"},
	} {
		r := leaseRow{LeaseStatus: broker.LeaseStatus{State: c.state, Renewable: c.renewable}}
		if c.left > 0 {
			r.Expires = at.Add(c.left)
		}
		if got, _ := r.left(at, false); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestLeasesTextFits(t *testing.T) {
	leases := exampleLeases()
	for i := range leases {
		l := &leases[i]
		l.Profiles = []string{strings.Repeat("long-profile-", 3), strings.Repeat("näme", 9)}
		l.Command = strings.Repeat("word ", 60) + "\x1b[2J\n"
		l.Reason = strings.Repeat("because ", 30)
		l.Served, l.PID = 123456, 4194304
		l.LastServed = at.Add(-100 * time.Hour)
		for j := range l.Processes {
			l.Processes[j].Command = l.Command
		}
	}
	for i := range 30 { // deeper than there is room
		l := leases[0]
		l.ID, l.Parent = leaseID(i+1), leaseID(i)
		leases = append(leases, l)
	}
	for _, width := range []int{80, 120} {
		text := leasesText(leases, at, false, width)
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("%d columns: %s", n, line)
			}
		}
		if strings.Contains(text, "\x1b") {
			t.Errorf("it holds what moves a terminal: %q", text)
		}
	}
}

func leaseID(i int) string { return "l-" + strings.Repeat("x", i) }

// Whatever is said of parents, each lease is shown once.
func TestLeaseTreeShowsAll(t *testing.T) {
	leases := []broker.LeaseStatus{{ID: "l-1", Parent: "l-2"}, {ID: "l-2", Parent: "l-1"}, {ID: "l-3", Parent: "l-3"}, {ID: "l-4"}, {ID: "l-5", Parent: "l-4"}}
	rows := leaseTree(leases)
	seen := map[string]int{}
	for _, r := range rows {
		seen[r.ID]++
	}
	for _, l := range leases {
		if seen[l.ID] != 1 {
			t.Errorf("%s is shown %d times", l.ID, seen[l.ID])
		}
	}
}
