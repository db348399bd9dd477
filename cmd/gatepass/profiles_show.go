package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

const profilesShowHelp = `gatepass profiles show shows the whole chain of a profile, from the stored key
through every role, what is served at its end, and what to know about it.
Nothing is served and nobody is asked.

usage: gatepass profiles show [NAME] [--json]

NAME is a profile of ~/.aws/config; without it, AWS_PROFILE says which.

  --json          print {"name","region","key","hops":[{"role_arn",
                  "session_name","external_id","mfa_serial","duration_seconds",
                  "source_identity","tags","transitive_tags"}],"adopted"} and
                  more; absent fields are omitted

example:
  gatepass profiles show ops
`

func profilesShowCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "show",
		UsageText: profilesShowHelp,
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json"}},
		Action:    c.profilesShow,
	}
}

func (c *client) profilesShow(ctx *cli.Context) error {
	name, err := c.profileArgument(ctx)
	if err != nil {
		return err
	}
	if ctx.Bool("json") {
		var answer json.RawMessage
		if err := c.askAbout(ctx.Context, wire.PathProfileShow, name, &answer); err != nil {
			return err
		}
		return c.writeIndented(answer)
	}
	var detail broker.ProfileDetail
	if err := c.askAbout(ctx.Context, wire.PathProfileShow, name, &detail); err != nil {
		return err
	}
	width, _ := columns(c.stdout)
	return c.write(profilePage(detail, width, c.palette()))
}

// profilePage shows one profile to a person: a width of 0 is no terminal, and
// nothing is wrapped.
func profilePage(d broker.ProfileDetail, width int, p palette) []byte {
	const label = 11
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

	field("profile", printable(d.Name), p.bold)
	if d.Error != nil && d.Error.Code == broker.CodeNotFound {
		field("chain", "✗ key "+printable(d.Key)+", which is not stored", p.red)
	} else {
		field("chain", "key "+printable(d.Key)+ofUser(d.User), plain)
	}
	if d.MFASerial != "" {
		field("", "with MFA by "+printable(d.MFASerial), plain)
	}
	names := 0
	for _, h := range d.Hops {
		names = max(names, utf8.RuneCountInString(printable(roleName(h.RoleARN))))
	}
	for _, h := range d.Hops {
		role := printable(roleName(h.RoleARN))
		line := "→ role " + role
		if width == 0 || names <= 32 {
			line += strings.Repeat(" ", names-utf8.RuneCountInString(role))
		}
		line += "  in " + printable(arnAccount(h.RoleARN))
		if h.Profile != d.Name {
			line += ", by profile " + printable(h.Profile)
		}
		// Written as it is, for the blanks in it.
		if width > 0 {
			line = clip(line, width-label)
		}
		fmt.Fprintf(&b, "%-*s%s\n", label, "", line)
		for _, s := range hopSettings(h) {
			lines := []string{s}
			if width > 0 {
				lines = wrap(s, width-label-4)
			}
			for _, line := range lines {
				fmt.Fprintf(&b, "%-*s    %s\n", label, "", p.dim(line))
			}
		}
	}

	serves := "a session of the key"
	if len(d.Hops) > 0 {
		serves = "a session of the last role"
	}
	if d.DurationSeconds > 0 {
		serves += " for " + lasting(d.DurationSeconds)
	}
	if d.Region != "" {
		serves += ", region " + printable(d.Region)
	}
	if d.Serve != "" {
		serves += ", by " + printable(d.Serve)
	}
	field("serves", serves, plain)
	if d.Adopted {
		field("adopted", "yes: the AWS CLI and the SDKs get it from gatepass", plain)
	} else {
		field("adopted", "no: the AWS CLI and the SDKs do without gatepass until \"profiles adopt\"", plain)
	}
	switch d.Reachable {
	case broker.ReachYes:
		field("reachable", "yes", p.green)
	case broker.ReachUnknown:
		field("reachable", "unknown: "+printable(d.Keychain.Message), p.yellow)
		if d.Keychain.Hint != "" {
			for line := range strings.Lines(d.Keychain.Hint) {
				field("", printable(strings.TrimSuffix(line, "\n")), plain)
			}
		}
	default:
		why := "no"
		if d.Error != nil {
			why += ": " + printable(d.Error.Message)
		}
		field("reachable", why, p.red)
		if d.Error != nil && d.Error.Hint != "" {
			field("", printable(d.Error.Hint), plain)
		}
	}
	for i, n := range d.Notes {
		name := "notes"
		if i > 0 {
			name = ""
		}
		field(name, "- "+printable(n), plain)
	}
	return b.Bytes()
}

// ofUser tells whose key it is, "" where that is not known.
func ofUser(arn string) string {
	at := strings.LastIndexByte(arn, '/')
	if at < 0 {
		return ""
	}
	return ", of " + printable(arn[at+1:]) + " in " + printable(arnAccount(arn))
}

func arnAccount(arn string) string {
	if f := strings.SplitN(arn, ":", 6); len(f) == 6 {
		return f[4]
	}
	return ""
}

// hopSettings are what a role is assumed with, one a line.
func hopSettings(h broker.ProfileHop) []string {
	var all []string
	add := func(name, value string) {
		if value != "" {
			all = append(all, name+" "+printable(value))
		}
	}
	add("external id", h.ExternalID)
	add("session name", h.SessionName)
	add("source identity", h.SourceIdentity)
	var tags []string
	for _, k := range slices.Sorted(maps.Keys(h.Tags)) {
		tags = append(tags, k+"="+h.Tags[k])
	}
	add("tags", strings.Join(tags, ", "))
	add("transitive tags", strings.Join(h.TransitiveTags, ", "))
	if h.DurationSeconds > 0 {
		add("asks for", lasting(h.DurationSeconds))
	}
	return all
}

// lasting is a length of time as a person writes it.
func lasting(seconds int) string {
	switch d := time.Duration(seconds) * time.Second; {
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", seconds)
}
