package main

import (
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// entryHelp describes entryFlags.
const entryHelp = `  --since T         from then on: 2h, 3d, 14:30, today, yesterday, monday,
                    2026-11-03, "2026-11-03 14:30" or RFC 3339
  --until T         up to, but not at, then
  --profile NAME    of this profile
  --role ROLE       of this role: its ARN or its name
  --account ID      in this account
  --key KEY         that started with this key: its name or access key id
  --event EVENT     of this kind, as credentials.served or 'lease.*'
  --outcome O       ok, denied or failed
  --lease ID        of this lease
  --program NAME    asked by this program, as terraform
  --reason TEXT     with this reason, as '*ticket 4711*'
`

// patternHelp explains what entryFlags take.
const patternHelp = `The flags from --profile to --reason take patterns, in upper or lower case: *
stands for any text, ? for a character, [a-z] for one of these. A flag that is
given again widens the choice, different flags narrow it.
`

// entryFlags select entries.
func entryFlags() []cli.Flag {
	flags := []cli.Flag{&cli.StringFlag{Name: "since"}, &cli.StringFlag{Name: "until"}}
	for _, name := range []string{"profile", "role", "account", "key", "event", "outcome", "lease", "program", "reason"} {
		flags = append(flags, &cli.StringSliceFlag{Name: name})
	}
	return flags
}

// sinceUntil is the time that --since and --until bound.
func sinceUntil(ctx *cli.Context, now time.Time) (since, until time.Time, err error) {
	if since, err = when(ctx, "since", now); err != nil {
		return since, until, err
	}
	if until, err = when(ctx, "until", now); err != nil {
		return since, until, err
	}
	if !since.IsZero() && !until.IsZero() && !since.Before(until) {
		return since, until, usageOf(ctx, "--since is not before --until")
	}
	return since, until, nil
}

// entryQuery is what entryFlags select.
func entryQuery(ctx *cli.Context, now time.Time) (q audit.Query, err error) {
	if q.Since, q.Until, err = sinceUntil(ctx, now); err != nil {
		return q, err
	}
	q.Event, q.Outcome, q.Profile = ctx.StringSlice("event"), ctx.StringSlice("outcome"), ctx.StringSlice("profile")
	q.Role, q.Account, q.Key = ctx.StringSlice("role"), ctx.StringSlice("account"), ctx.StringSlice("key")
	q.Lease, q.Program, q.Reason = ctx.StringSlice("lease"), ctx.StringSlice("program"), ctx.StringSlice("reason")
	if err := q.Check(); err != nil {
		return q, err
	}
	for _, o := range q.Outcome {
		if !matchesAny(o, []string{broker.OutcomeOK, broker.OutcomeDenied, broker.OutcomeFailed}) {
			return q, usageOf(ctx, "--outcome is ok, denied or failed, not %q", o)
		}
	}
	for _, e := range q.Event {
		if !matchesAny(e, broker.EventKinds) {
			return q, broker.Errorf(broker.CodeUsage, "no event is called %q", e).WithHint("there are %s", eventNames())
		}
	}
	return q, nil
}

// matchesAny reports whether a pattern that was checked is found in one of the
// values.
func matchesAny[S ~string](pattern string, values []S) bool {
	return slices.ContainsFunc(values, func(v S) bool {
		ok, _ := audit.Match(pattern, string(v))
		return ok
	})
}

// eventNames lists what --event takes, but for patterns.
func eventNames() string {
	names := make([]string, len(broker.EventKinds))
	for i, k := range broker.EventKinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}
