package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/audit/reconcile"
)

const auditReconcileHelp = `gatepass audit reconcile holds the audit log against CloudTrail: which process
is behind each event of your keys and sessions, and why, and which events the
log does not explain, as those of a stolen key.

usage: gatepass audit reconcile FILE|DIR... [flags]

  --since T            judge events from then on: 2h, yesterday, 2026-11-03...
  --until T            up to, but not at, then
  --all                show also what others did
  --known-address NET  this laptop also works from there: 203.0.113.0/24; may be
                       given again
  --known-agent TEXT   a user agent that is in order, as '*os/macos*'; may be
                       given again
  --no-verify          do not verify the log first
  --key KEY|FILE       verify it with this public key, not the pinned one
  --json               a line of JSON for each event, and a last one with counts

A FILE is CloudTrail's: as it is delivered to S3 (*.json.gz), or what "aws
cloudtrail lookup-events" prints. A DIR is a tree of them, without its digests.
Give those of the user's account and of the roles', of all regions, and of the
day before: what made a session says whose it is. CloudTrail is 5 to 15 minutes
late.

An event is not explained if it is

  unissued    a session of your key that the broker never asked for, or its use
  direct      a use of a long-term key that is not the broker's own
  other-key   a key of your IAM user that the log does not know
  untraced    a session of your role or user whose beginning nothing tells
  unserved    the use of a session that nobody had been handed by then
  ended       the use of a session after the leases that had it
  address     from where neither the broker's calls come nor --known-address is
  agent       by a system (Linux, macOS...) that no other session's events name

Sessions that the broker asked for without learning the outcome are told apart.
"go doc gatepass/broker/audit/reconcile" says how all this is found, and what
cannot be.

It exits with 0 when all is explained, with 1 when something is not, and with 65
when the log does not verify or a file cannot be read to its end.

examples:
  aws s3 sync s3://TRAIL/AWSLogs ./trail && gatepass audit reconcile ./trail
  aws cloudtrail lookup-events --max-items 500 > events.json
  gatepass audit reconcile events.json --since 2h
`

func auditReconcileCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "reconcile",
		UsageText: auditReconcileHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since"}, &cli.StringFlag{Name: "until"}, &cli.BoolFlag{Name: "all"},
			&cli.StringSliceFlag{Name: "known-address"}, &cli.StringSliceFlag{Name: "known-agent"},
			&cli.BoolFlag{Name: "no-verify"}, &cli.StringFlag{Name: "key"}, &cli.BoolFlag{Name: "json"},
		},
		Action: c.auditReconcile,
	}
}

// statusUnexplained is what reconcile ends with when it could read all and
// explain not all.
const statusUnexplained = 1

// A vouching says what is known of the log that explains.
type vouching struct {
	Verified bool  `json:"verified"`
	Entries  int64 `json:"entries,omitempty"`
	Signed   int64 `json:"signed,omitempty"`

	text string
}

func (c *client) auditReconcile(ctx *cli.Context) error {
	opts := reconcile.Options{Files: ctx.Args().Slice(), All: ctx.Bool("all"), Agents: ctx.StringSlice("known-agent")}
	if len(opts.Files) == 0 {
		return usageOf(ctx, "the files of CloudTrail's are missing")
	}
	if ctx.Bool("no-verify") && ctx.IsSet("key") {
		return usageOf(ctx, "--no-verify and --key exclude one another")
	}
	for _, text := range ctx.StringSlice("known-address") {
		net, err := parseNetwork(text)
		if err != nil {
			return usageOf(ctx, "--known-address %q is no address and no network", text)
		}
		opts.Addresses = append(opts.Addresses, net)
	}
	var err error
	if opts.Since, opts.Until, err = sinceUntil(ctx, time.Now()); err != nil {
		return err
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	opts.LogDir = paths.AuditDir
	log := vouching{text: "The audit log was not verified, as --no-verify says.\n"}
	if !ctx.Bool("no-verify") {
		if log, err = c.vouch(ctx, paths); err != nil {
			return err
		}
		opts.LogTo = log.Entries
	}
	var sum reconcile.Summary
	if ctx.Bool("json") {
		sum, err = c.reconcileJSON(ctx, opts, log)
	} else {
		page := newReconciliation(ctx.Bool("all"))
		if sum, err = reconcile.Run(ctx.Context, opts, page.add); err == nil || len(sum.Incomplete) > 0 {
			w := c.prose()
			w.reconciliation(page, &sum, log.text)
			if failed := c.show(w); failed != nil {
				return failed
			}
		}
	}
	switch {
	case err != nil:
		return err
	case sum.Unexplained > 0:
		return &commandError{statusUnexplained, broker.Errorf(broker.CodeData, "%s not explained by the audit log", were(int(sum.Unexplained), "event"))}
	}
	return nil
}

// vouch verifies the log.
func (c *client) vouch(ctx *cli.Context, paths broker.Paths) (vouching, error) {
	key, err := trustedKey(ctx, paths)
	if broker.CodeOf(err) == broker.CodeNotFound && !ctx.IsSet("key") {
		return vouching{}, broker.AsError(err).WithHint("without a key the log cannot be verified; to take it as it is: --no-verify")
	}
	if err != nil {
		return vouching{}, err
	}
	found, broken, err := verifyLog(ctx, paths, key, "")
	if err = cmp.Or(err, broken); err != nil {
		return vouching{}, err
	}
	return vouching{Verified: true, Entries: found.Entries, Signed: found.Signed, text: verified(found, key, time.Local)}, nil
}

// reconcileJSON writes what is found as it is found. The last line counts it:
// without that, it is not all.
func (c *client) reconcileJSON(ctx *cli.Context, opts reconcile.Options, log vouching) (reconcile.Summary, error) {
	out := bufio.NewWriterSize(c.stdout, 64<<10)
	enc := json.NewEncoder(out)
	var failed error
	sum, err := reconcile.Run(ctx.Context, opts, func(f reconcile.Finding) error {
		failed = enc.Encode(f)
		return failed
	})
	if err == nil || len(sum.Incomplete) > 0 {
		failed = enc.Encode(struct {
			Summary reconcile.Summary `json:"summary"`
			Log     vouching          `json:"log"`
		}{sum, log})
	}
	if failed == nil {
		failed = out.Flush()
	}
	if failed != nil {
		return sum, notWritten(failed)
	}
	return sum, err
}

// parseNetwork reads an address, or several as 203.0.113.0/24.
func parseNetwork(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	bits := a.BitLen()
	if a.Is6() {
		bits = 64 // within which laptops change theirs
	}
	return a.Prefix(bits)
}
