package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

const whoamiHelp = `gatepass whoami shows who you are at AWS: whom a profile's session speaks for
(GetCallerIdentity, which proves that the profile works, whatever SDK you use),
the IAM user whose key is behind it, the user's groups, the state of MFA, the
roles that your AWS config reaches with that key, and how long the session
lasts.

usage: gatepass whoami [NAME] [flags]

NAME is a profile of ~/.aws/config; without it, AWS_PROFILE says which, else
[default] is meant, else the only key that is stored.

What IAM does not tell stands there as unknown, with the permission that would
show it, and is no failure: iam:ListGroupsForUser and iam:ListMFADevices, each
of the user on itself. Where IAM wants MFA for them, a proof that is kept will
do; nobody is asked for a code on their behalf.

  --json          print {"account","arn","user_id","profile",
                  "session":{"id","role_arn","expires",...},
                  "user":{"arn","name","account","key","access_key_id"},
                  "groups":[],"mfa":{"devices":[{"mfa_serial","enabled"}],
                  "proofs":[{"key","mfa_serial","verified","expires"}]},
                  "roles":[{"profile","role_arn","account","through",
                  "mfa_serial"}],"unknown":[{"what","permission","code",
                  "message","hint","detail"}]}; what is not known is absent
  --region R      where to ask
  --reason R      why, for the audit log (or GATEPASS_REASON)
  --duration D    how long a new session should last: 3600, 90m, 1h
  --min-left D    take a cached session with at least this much time left
  --mfa-code C    the code that the MFA device shows, where one is needed
  --prompt WAY    how to ask for it: auto, tty, pinentry, desktop, none

examples:
  gatepass whoami
  gatepass whoami ops
  gatepass whoami ops --json
`

func whoamiCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "whoami",
		UsageText: whoamiHelp,
		Flags:     append(requestFlags(), &cli.BoolFlag{Name: "json"}),
		Action:    c.whoami,
	}
}

func (c *client) whoami(ctx *cli.Context) error {
	profile := c.getenv("AWS_PROFILE")
	if ctx.NArg() > 0 {
		var err error
		if profile, err = oneArgument(ctx, "the name of a profile"); err != nil {
			return err
		}
	}
	req, err := c.request(profile, "whoami")
	if err != nil {
		return err
	}
	if err := applyFlags(ctx, &req); err != nil {
		return err
	}
	var id broker.IdentityDetail
	err = c.asking(ctx.Context, &req, func(ctx context.Context) error {
		return c.ask(ctx, func(d *wire.Client) (err error) {
			id, err = d.WhoAmI(ctx, req)
			return err
		})
	})
	if err != nil {
		return err
	}
	if ctx.Bool("json") {
		return c.writeJSON(id)
	}
	width, _ := columns(c.stdout)
	return c.write(identityPage(id, time.Now(), width, c.palette()))
}

// maxRoles is how many roles a terminal is shown; a pipe gets all.
const maxRoles = 12

// identityPage is d for a person: a width of 0 is no terminal, and nothing is
// wrapped.
func identityPage(d broker.IdentityDetail, now time.Time, width int, p palette) []byte {
	const label = 9
	var b bytes.Buffer
	field := func(name, text string, paint func(string) string) {
		lines := []string{text}
		if width > 0 {
			lines = wrap(text, width-label)
		}
		for i, line := range lines {
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(&b, "%-*s%s\n", label, name, paint(line))
		}
	}
	plain := func(s string) string { return s }
	unknown := func(what, name, begins string) bool {
		i := slices.IndexFunc(d.Unknown, func(u broker.Unknown) bool { return u.What == what })
		if i < 0 {
			return false
		}
		text := begins + d.Unknown[i].Message
		if hint := d.Unknown[i].Hint; hint != "" {
			text += "; " + hint
		}
		field(name, printable(strings.ReplaceAll(text, "\n", "; ")), p.yellow)
		return true
	}

	unknown("profile", "profile", "not [default]: ")
	field("account", printable(d.Account), plain)
	field("arn", printable(d.ARN), p.bold)
	if d.User.Key == "" { // a daemon of an earlier version
		return b.Bytes()
	}
	switch s := d.Session; {
	case s != nil && s.RoleARN != "":
		field("session", fmt.Sprintf("%s: role %s, by profile %s, for another %s",
			printable(s.ID), printable(roleName(s.RoleARN)), printable(d.Profile), span(s.Expires.Sub(now))), plain)
	case s != nil:
		field("session", fmt.Sprintf("%s: no role, by profile %s, for another %s",
			printable(s.ID), printable(d.Profile), span(s.Expires.Sub(now))), plain)
	default:
		field("session", "none: no profile is named; this is the only stored key itself", plain)
	}
	if !unknown("user", "user", "unknown: ") {
		field("user", printable(d.User.Name)+" in "+printable(d.User.Account), plain)
	}
	field("key", printable(d.User.Key)+" ("+printable(d.User.AccessKeyID)+")", plain)
	switch {
	case unknown("groups", "groups", "unknown: "):
	case len(d.Groups) == 0:
		field("groups", "none", plain)
	default:
		field("groups", printable(strings.Join(d.Groups, ", ")), plain)
	}
	mfa := mfaLines(d.MFA, now)
	for i, line := range mfa {
		name := "mfa"
		if i > 0 {
			name = ""
		}
		field(name, printable(line), plain)
	}
	switch {
	case len(mfa) > 0:
		unknown("mfa_devices", "", "its other devices are unknown: ")
	case unknown("mfa_devices", "mfa", "unknown: "):
	default:
		field("mfa", "no device", plain)
	}
	if unknown("roles", "roles", "unknown: ") {
		return b.Bytes()
	}
	rows := roleRows(d.Roles)
	if len(rows) == 0 {
		field("roles", "none in your AWS config with this key", plain)
	}
	more := 0
	if width > 0 && len(rows) > maxRoles {
		more = len(rows) - maxRoles
		rows = rows[:maxRoles]
	}
	widths := make([]int, 3)
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	if width > 0 {
		fit(widths, width-label)
	}
	for i, row := range rows {
		name := "roles"
		if i > 0 {
			name = ""
		}
		fmt.Fprintf(&b, "%-*s%s\n", label, name, tableLine(row, widths, width))
	}
	if more > 0 {
		field("", fmt.Sprintf("and %d more; to see all: gatepass profiles list", more), p.dim)
	}
	return b.Bytes()
}

// mfaLines are the devices that are known, and what was proved with each.
func mfaLines(m broker.MFAState, now time.Time) []string {
	proved := make(map[string]string)
	for _, p := range m.Proofs {
		proved[p.Serial] = "proved for another " + span(p.Expires.Sub(now))
	}
	var lines []string
	for _, d := range m.Devices {
		state := cmp.Or(proved[d.Serial], "no proof is kept")
		if d.SecurityKey() {
			state = "a security key, which has no codes for the API"
		}
		lines = append(lines, d.Serial+", "+state)
	}
	for _, p := range m.Proofs {
		if !slices.ContainsFunc(m.Devices, func(d broker.MFADevice) bool { return d.Serial == p.Serial }) {
			lines = append(lines, p.Serial+", "+proved[p.Serial])
		}
	}
	return lines
}

// roleRows are the roles by name, each with its account and the profiles that
// reach it in one way.
func roleRows(roles []broker.RoleInReach) [][]string {
	type way struct{ arn, how string }
	profiles := make(map[way][]string)
	for _, r := range roles {
		var how []string
		if len(r.Through) > 0 {
			var through []string
			for _, arn := range r.Through {
				through = append(through, roleName(arn))
			}
			how = append(how, "through "+strings.Join(through, ", "))
		}
		if r.MFASerial != "" {
			how = append(how, "with MFA")
		}
		w := way{arn: r.RoleARN, how: strings.Join(how, ", ")}
		profiles[w] = append(profiles[w], r.Profile)
	}
	var rows [][]string
	for w, names := range profiles {
		by := strings.Join(names, ", ")
		if w.how != "" {
			by += " (" + w.how + ")"
		}
		rows = append(rows, []string{printable(roleName(w.arn)), printable(arnAccount(w.arn)), printable(by)})
	}
	slices.SortFunc(rows, func(x, y []string) int { return slices.Compare(x, y) })
	return rows
}
