package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

const profilesListHelp = `gatepass profiles list shows every profile of your AWS config: the role and the
account that it leads to, the stored key that it starts with, its region, and
whether it is adopted, so that the AWS CLI and the SDKs get it from gatepass.

A key behind "✗" is not stored; behind "?" the keychain could not be read. A
profile that cannot be served is shown with the reason. Nothing is served and
nobody is asked.

usage: gatepass profiles list [--json]

  --json          print {"profiles":[{"name","role_arn","account","key",
                  "region","adopted","reachable","error"}],"keychain"};
                  "reachable" is "yes", "no" or "unknown"

example:
  gatepass profiles list
`

func profilesListCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "list",
		UsageText: profilesListHelp,
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json"}},
		Action:    c.profilesList,
	}
}

func (c *client) profilesList(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	if ctx.Bool("json") {
		var answer json.RawMessage
		if err := c.askAbout(ctx.Context, wire.PathProfiles, "", &answer); err != nil {
			return err
		}
		return c.writeIndented(answer)
	}
	var list broker.ProfileList
	if err := c.askAbout(ctx.Context, wire.PathProfiles, "", &list); err != nil {
		return err
	}
	if len(list.Profiles) == 0 {
		say(c.stderr, "your AWS config has no profiles\nto see what one looks like: gatepass")
		return nil
	}
	width, terminal := columns(c.stdout)
	if err := c.write(profileTable(list, width, c.palette())); err != nil {
		return err
	}
	if list.Keychain.State != "ok" {
		say(c.stderr, "whether the keys are stored is not known: "+list.Keychain.Message+"\n"+list.Keychain.Hint)
	} else if terminal && anyUnstored(list) {
		say(c.stderr, "✗ is a key that is not stored; see: gatepass profiles show NAME")
	}
	return nil
}

// writeIndented prints a document of the daemon's for a program, indented for
// the person who looks too.
func (c *client) writeIndented(document []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(document), "", "  "); err != nil {
		return broker.Errorf(broker.CodeInternal, "gatepassd's answer makes no sense: %w", err)
	}
	out.WriteByte('\n')
	return c.write(out.Bytes())
}

// broken reports whether a profile has no chain to show.
func broken(p broker.ProfileInfo) bool {
	return p.Error != nil && p.Error.Code != broker.CodeNotFound
}

func anyUnstored(list broker.ProfileList) bool {
	for _, p := range list.Profiles {
		if p.Reachable == broker.ReachNo && !broken(p) {
			return true
		}
	}
	return false
}

// profileTable shows the profiles to a person. On a terminal, which has a
// width, rows fit it and what is wrong with a profile stands below it in
// full; elsewhere a profile is a line.
func profileTable(list broker.ProfileList, width int, p palette) []byte {
	rows := [][]string{{"PROFILE", "ACCOUNT", "ROLE", "KEY", "REGION", "ADOPTED"}}
	for _, info := range list.Profiles {
		rows = append(rows, profileRow(info))
	}
	widths := make([]int, len(rows[0]))
	for i, row := range rows {
		if i > 0 && broken(list.Profiles[i-1]) {
			row = row[:1]
		}
		for j, cell := range row {
			widths[j] = max(widths[j], utf8.RuneCountInString(cell))
		}
	}
	if width > 0 {
		fit(widths, width)
	}
	var b bytes.Buffer
	for i, row := range rows {
		line := tableLine(row, widths, width)
		if i == 0 {
			b.WriteString(p.bold(line) + "\n")
			continue
		}
		switch info := list.Profiles[i-1]; {
		case broken(info) && width > 0:
			b.WriteString(p.red(tableLine([]string{row[0], "✗ not served"}, []int{widths[0], width}, width)) + "\n")
			for _, part := range wrap(printable(info.Error.Message), width-4) {
				b.WriteString("    " + p.dim(part) + "\n")
			}
		case broken(info):
			b.WriteString(tableLine([]string{row[0], "✗ " + printable(info.Error.Message)}, widths[:2], 0) + "\n")
		case info.Reachable == broker.ReachYes:
			b.WriteString(line + "\n")
		default:
			b.WriteString(p.yellow(line) + "\n")
		}
	}
	return b.Bytes()
}

func profileRow(info broker.ProfileInfo) []string {
	cells := []string{info.Name, info.Account, roleName(info.RoleARN), info.Key, info.Region, "no"}
	for i := range cells {
		if cells[i] = printable(cells[i]); cells[i] == "" {
			cells[i] = "-"
		}
	}
	switch info.Reachable {
	case broker.ReachNo:
		cells[3] = "✗ " + cells[3]
	case broker.ReachUnknown:
		cells[3] = "? " + cells[3]
	}
	if info.Adopted {
		cells[5] = "yes"
	}
	return cells
}

// roleName is the role's name with its path, which an account does not share
// with another role.
func roleName(arn string) string {
	_, name, _ := strings.Cut(arn, ":role/")
	return name
}

// tableLine lays out one row; on a terminal what does not fit its column is
// clipped.
func tableLine(cells []string, widths []int, terminal int) string {
	var b strings.Builder
	for i, cell := range cells {
		if terminal > 0 {
			cell = clip(cell, widths[i])
		}
		b.WriteString(cell)
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell))+2))
		}
	}
	return b.String()
}

// fit makes columns with two blanks between them fit a width by taking from
// the widest one as long as that leaves something to read.
func fit(widths []int, width int) {
	const least = 6
	total := 2 * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; total > width; total-- {
		widest := 0
		for i, w := range widths {
			if w > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= least {
			return
		}
		widths[widest]--
	}
}
