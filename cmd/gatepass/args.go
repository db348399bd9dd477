package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
)

// A route is where a command line leads.
type route struct {
	path []string     // the command's name, as in "keys", "add"; empty at the root
	cmd  *cli.Command // nil at the root
	args []string     // the command's arguments, flags first, as urfave/cli needs them
	help bool         // -h or --help is among them
}

// arrange finds the command that args name and sorts its arguments: urfave/cli
// stops reading flags at the first argument that is none, people do not.
// What follows "--" is never a flag; a command whose ArgsUsage has "--" finds
// it among its arguments. Which flags take a value is read from the command's
// own definitions. An unknown command or flag and a flag without
// its value are [broker.CodeUsage].
func arrange(commands []*cli.Command, args []string) (route, error) {
	var r route
	var flags, rest []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			if r.cmd != nil && strings.Contains(r.cmd.ArgsUsage, "--") {
				rest = append(rest, a)
			}
			rest = append(rest, args[i+1:]...)
			i = len(args)
		case len(a) > 1 && a[0] == '-':
			name, _, hasValue := strings.Cut(strings.TrimPrefix(a[1:], "-"), "=")
			if name == "h" || name == "help" {
				r.help = true
				continue
			}
			f := r.flag(name)
			if f == nil {
				return r, r.unknownFlag(name)
			}
			flags = append(flags, a)
			if hasValue || !takesValue(f) {
				continue
			}
			if i++; i == len(args) {
				return r, r.usage("the flag --%s needs a value", name)
			}
			flags = append(flags, args[i])
		case r.cmd == nil || len(r.cmd.Subcommands) > 0:
			among := commands
			if r.cmd != nil {
				among = r.cmd.Subcommands
			}
			at := slices.IndexFunc(among, func(c *cli.Command) bool { return c.HasName(a) })
			if at < 0 {
				if r.help { // of what was found so far
					return r, nil
				}
				return r, r.unknownCommand(among, a)
			}
			r.cmd, r.path = among[at], append(r.path, a)
		default:
			rest = append(rest, a)
		}
	}
	if r.cmd == nil && len(rest) > 0 {
		return r, r.usage("a command stands before --, not after it")
	}
	r.args = append(flags, "--")
	r.args = append(r.args, rest...)
	return r, nil
}

// name returns the command as it is typed.
func (r route) name() string { return strings.Join(append([]string{"gatepass"}, r.path...), " ") }

func (r route) flag(name string) cli.Flag {
	if r.cmd == nil {
		return nil
	}
	for _, f := range r.cmd.Flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

func (r route) usage(format string, args ...any) error {
	return broker.Errorf(broker.CodeUsage, format, args...).WithHint("see: %s --help", r.name())
}

func (r route) unknownFlag(name string) error {
	var names []string
	if r.cmd != nil {
		for _, f := range r.cmd.Flags {
			names = append(names, f.Names()...)
		}
	}
	if near := nearest(name, names); near != "" {
		return r.usage("%s has no flag --%s; did you mean --%s?", r.name(), name, near)
	}
	if len(r.path) == 0 {
		return r.usage("flags come after the command, and gatepass itself has no --%s", name)
	}
	return r.usage("%s has no flag --%s", r.name(), name)
}

func (r route) unknownCommand(among []*cli.Command, name string) error {
	var names []string
	for _, c := range among {
		names = append(names, c.Names()...)
	}
	if near := nearest(name, names); near != "" {
		return r.usage("%s has no command %q; did you mean %q?", r.name(), name, near)
	}
	return r.usage("%s has no command %q", r.name(), name)
}

// nearest returns the one of names that a typing error may have turned into
// word, or "".
func nearest(word string, names []string) string {
	best, at := 1+min(2, len(word)/2), ""
	for _, n := range names {
		d := distance(word, n)
		if d < best || d == best && at != "" && n[:1] == word[:1] && at[:1] != word[:1] { // the first letter is seldom wrong
			best, at = d, n
		}
	}
	return at
}

// distance is the Levenshtein distance in bytes; words of more than 32 are as
// far as can be.
func distance(a, b string) int {
	if len(a) > 32 || len(b) > 32 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
