package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gatepass/broker"
)

// leasesText shows leases as a tree, the ones that were started inside another
// below it, in lines of at most width columns.
func leasesText(leases []broker.LeaseStatus, now time.Time, p palette, width int) string {
	rows := leaseTree(leases)
	// Beside the name: 2 + 14 for what is left, 2 + 12 for the id, 2 + 6, 2 + 8.
	name, most := len("LEASE"), max(12, width-48)
	for _, r := range rows {
		name = min(most, max(name, utf8.RuneCountInString(r.name())))
	}
	var b strings.Builder
	line := func(s string, paint func(string) string) {
		b.WriteString(strings.TrimRight(paint(clip(s, width)), " ") + "\n")
	}
	plain := func(s string) string { return s }
	line(fmt.Sprintf("%-*s  %-14s  %-12s  %-6s  %s", name, "LEASE", "LEFT", "ID", "SERVED", "LAST"), plain)
	for _, r := range rows {
		last := "-"
		if !r.LastServed.IsZero() {
			last = span(now.Sub(r.LastServed)) + " ago"
		}
		left, paint := r.left(now, p)
		fmt.Fprintf(&b, "%-*s  %s  %-12s  %-6d  %s\n", name, clip(r.name(), name), paint(fmt.Sprintf("%-14s", left)), clip(printable(r.ID), 12), r.Served, last)
		line(r.below+r.whoAndWhat(), plain)
		if r.Reason != "" {
			line(r.below+"for "+printable(r.Reason), p.dim)
		}
		if r.State != "lingering" {
			continue
		}
		const shown = 4
		for i, process := range r.Processes {
			if i == shown {
				line(fmt.Sprintf("%sand %d more", r.below, len(r.Processes)-shown), p.yellow)
				break
			}
			line(fmt.Sprintf("%sstill runs: pid %d, %s", r.below, process.PID, printable(cmp.Or(process.Command, process.Exe, "a process"))), p.yellow)
		}
		line(r.below+"to end them, or to let them go: gatepass end [--release] "+printable(r.ID), p.dim)
	}
	return b.String()
}

// A leaseRow is a lease in the tree.
type leaseRow struct {
	broker.LeaseStatus
	branch string // what is drawn before its name
	below  string // and before the lines below it
}

// name is the row's first column.
func (r leaseRow) name() string {
	return r.branch + printable(strings.Join(r.Profiles, ", "))
}

// left says how long the lease's session lasts, and how sure that is.
func (r leaseRow) left(now time.Time, p palette) (string, func(string) string) {
	left := span(r.Expires.Sub(now))
	switch {
	case r.State == "lingering":
		return "ended", p.yellow
	case r.State == "needs-mfa" && !r.Expires.After(now):
		return "needs MFA", p.red
	case r.State == "live" && r.Renewable && !r.Expires.After(now):
		return "renewed on use", p.green
	case r.State == "expired" || !r.Expires.After(now):
		return "expired", p.red
	case r.State == "needs-mfa":
		return left + ", needs MFA", p.yellow
	case !r.Renewable:
		return left + ", then ends", p.yellow
	}
	return left, p.green
}

// whoAndWhat says which process holds the lease, and what it runs.
func (r leaseRow) whoAndWhat() string {
	who := fmt.Sprintf("pid %d", r.PID)
	if r.TTY != "" {
		who += ", " + printable(strings.TrimPrefix(r.TTY, "/dev/"))
	}
	if r.Serve != "" && r.Serve != "container" {
		who += ", by " + printable(r.Serve)
	}
	if r.Command != "" {
		who += ": " + printable(r.Command)
	}
	return who
}

// leaseTree puts leases in the order of their start, each one's children
// after it. A lease whose parent is not there stands by itself.
func leaseTree(leases []broker.LeaseStatus) []leaseRow {
	known := map[string]bool{}
	for _, l := range leases {
		known[l.ID] = true
	}
	children := map[string][]broker.LeaseStatus{}
	for _, l := range slices.SortedFunc(slices.Values(leases), func(x, y broker.LeaseStatus) int {
		return cmp.Or(x.Started.Compare(y.Started), strings.Compare(x.ID, y.ID))
	}) {
		parent := l.Parent
		if !known[parent] {
			parent = ""
		}
		children[parent] = append(children[parent], l)
	}
	var rows []leaseRow
	var add func(parent, indent string)
	add = func(parent, indent string) {
		list := children[parent]
		delete(children, parent) // each once, whatever the daemon says of parents
		for i, l := range list {
			row := leaseRow{LeaseStatus: l, branch: indent, below: indent + "  "}
			inner := ""
			if parent != "" {
				row.branch, inner = indent+"├ ", indent+"│ "
				if i == len(list)-1 {
					row.branch, inner = indent+"└ ", indent+"  "
				}
			}
			row.below = inner + "  "
			if len(children[l.ID]) > 0 {
				row.below = inner + "│ "
			}
			rows = append(rows, row)
			add(l.ID, inner)
		}
	}
	add("", "")
	for _, l := range leases { // those that are said to be inside one another
		if !slices.ContainsFunc(rows, func(r leaseRow) bool { return r.ID == l.ID }) {
			rows = append(rows, leaseRow{LeaseStatus: l, below: "  "})
		}
	}
	return rows
}
