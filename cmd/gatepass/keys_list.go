package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
)

const keysListHelp = `gatepass keys list shows the stored keys: how old each is, when it was rotated,
how long ago gatepass last used it, and whose it is (user@account). It never
shows a secret. A key of more than 90 days is marked with "!"; "unfinished"
stands where a rotation is. The age counts from when AWS made the key or, where
its user may not see that (iam:ListAccessKeys), from when it was stored here.

usage: gatepass keys list [--json]

  --json          with age_days, and old for more than 90 days

example:
  gatepass keys list
`

// oldKey is the age from which a key is better replaced: the 90 days of the
// CIS AWS Foundations Benchmark.
const oldKey = 90 * day

const day = 24 * time.Hour

func keysListCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "list",
		UsageText: keysListHelp,
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json"}},
		Action:    c.keysList,
	}
}

func (c *client) keysList(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	keys, err := c.storedKeys(ctx.Context)
	if err != nil {
		return err
	}
	if ctx.Bool("json") {
		return c.writeJSON(listedKeys(keys, time.Now()))
	}
	if len(keys) == 0 {
		say(c.stderr, "no keys are stored\nstore one: gatepass keys add NAME")
		return nil
	}
	width, _ := columns(c.stdout)
	table, advice := keysTable(keys, time.Now(), width)
	if err := c.write(table); err != nil {
		return err
	}
	for _, line := range advice {
		say(c.stderr, line)
	}
	return nil
}

// A keyListing is what a program gets: the keys and what a person sees of them.
type keyListing struct {
	Keys []listedKey `json:"keys"`
}

type listedKey struct {
	broker.KeyState
	AgeDays int  `json:"age_days"`
	Old     bool `json:"old,omitempty"` // and better replaced
}

func listedKeys(keys []broker.KeyState, now time.Time) keyListing {
	list := keyListing{Keys: []listedKey{}}
	for _, k := range keys {
		age := keyAge(k, now)
		list.Keys = append(list.Keys, listedKey{KeyState: k, AgeDays: int(age / day), Old: age > oldKey})
	}
	return list
}

// keysTable is keys for a person, whose terminal has width columns (0 for no
// terminal), and what is to be done about them.
func keysTable(keys []broker.KeyState, now time.Time, width int) (table []byte, advice []string) {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tACCESS KEY ID\tAGE\tROTATED\tUSED\tUSER")
	for _, k := range keys {
		days := int(keyAge(k, now) / day)
		age, rotated := fmt.Sprintf("%d d", days), "never"
		if !k.Rotated.IsZero() {
			rotated = k.Rotated.Local().Format("2006-01-02")
		}
		again := "gatepass keys rotate " + k.Name
		switch rot := k.Rotation; {
		case rot != nil && rot.Step == broker.StepKept:
			advice = append(advice, fmt.Sprintf("%s: old key %s lives until %s\nto end it now: %s --finish",
				k.Name, rot.Old, rot.Until.Local().Format("2 Jan 15:04"), again))
		case rot != nil:
			rotated = "unfinished"
			advice = append(advice, fmt.Sprintf("%s: a rotation is unfinished since %s\nto go on: %s",
				k.Name, rot.Started.Local().Format("2 Jan 15:04"), again))
		case keyAge(k, now) > oldKey:
			age += "!"
			advice = append(advice, fmt.Sprintf("%s: the key is %d days old\nto replace it: %s", k.Name, days, again))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", clip(printable(k.Name), 16), printable(k.AccessKeyID), age, rotated, lastUse(k.LastUsed, now), keyUser(k.UserARN))
	}
	w.Flush()
	if width == 0 {
		return out.Bytes(), advice
	}
	for line := range strings.Lines(out.String()) {
		table = append(append(table, clip(strings.TrimSuffix(line, "\n"), width)...), '\n')
	}
	return table, advice
}

// keyAge is how old a key is, as far as that is known.
func keyAge(k broker.KeyState, now time.Time) time.Duration {
	born := k.Created
	if born.IsZero() {
		born = slices.MaxFunc([]time.Time{k.Added, k.Rotated}, time.Time.Compare)
	}
	return max(0, now.Sub(born))
}

// lastUse is how long ago that was, as exact as it is noted: to the hour.
func lastUse(t, now time.Time) string {
	switch ago := now.Sub(t); {
	case t.IsZero():
		return "never"
	case ago < time.Hour:
		return "<1 h"
	case ago < day:
		return fmt.Sprintf("%d h", ago/time.Hour)
	default:
		return fmt.Sprintf("%d d", ago/day)
	}
}

// keyUser is an IAM user's ARN in short: path/name@account.
func keyUser(arn string) string {
	if arn == "" {
		return "(not verified)"
	}
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 {
		return printable(arn)
	}
	return printable(strings.TrimPrefix(parts[5], "user/") + "@" + parts[4])
}
