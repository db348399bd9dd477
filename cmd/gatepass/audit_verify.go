package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/audit"
)

const auditVerifyHelp = `gatepass audit verify proves that no entry of the audit log was changed, moved
or removed since it was signed. It trusts the public key that was pinned when
the log was first signed, not one that lies beside the log. Whoever can read
your keychain can sign another log, or put an older copy in the place of this
one: that is found only by a checkpoint that was kept elsewhere.

usage: gatepass audit verify [flags]

  --against FILE  prove that the log continues the checkpoints in FILE, which
                  "gatepass audit checkpoint" printed, or anchor_command got
  --key KEY|FILE  trust this public key, or the one in FILE, not the pinned one
  --json          print what was found as JSON

It exits with 65 when the log does not verify, and names the first bad entry.

examples:
  gatepass audit verify
  gatepass audit verify --against laptop.checkpoints
`

func auditVerifyCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		UsageText: auditVerifyHelp,
		Flags:     []cli.Flag{&cli.StringFlag{Name: "against"}, &cli.StringFlag{Name: "key"}, &cli.BoolFlag{Name: "json"}},
		Action:    c.auditVerify,
	}
}

func (c *client) auditVerify(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	against, err := against(ctx)
	if err != nil {
		return err
	}
	key, err := trustedKey(ctx, paths)
	if err != nil {
		return err
	}
	found, broken, err := verifyLog(ctx, paths, key, against)
	if err != nil {
		return err
	}
	if ctx.Bool("json") {
		if err := c.writeJSON(found); err != nil {
			return err
		}
	}
	if broken != nil || ctx.Bool("json") {
		return broken
	}
	return c.write([]byte(verified(found, key, time.Local)))
}

// verifyLog verifies the user's log with a public key, and against the
// checkpoints in a file, "" for none. broken is why the log is not to be trusted;
// the error, why that cannot be told.
func verifyLog(ctx *cli.Context, paths broker.Paths, key, against string) (found audit.Report, broken, err error) {
	found, err = audit.Verify(ctx.Context, audit.VerifyOptions{Dir: paths.AuditDir, Key: key, Against: against})
	if found.Problem == nil && err != nil {
		return found, nil, err
	}
	return found, notWhole(ctx, found, key, paths.AuditKey), nil
}

// against is the file that --against names, "" without it.
func against(ctx *cli.Context) (string, error) {
	if ctx.IsSet("against") && ctx.String("against") == "" {
		return "", usageOf(ctx, "the name after --against is empty")
	}
	return ctx.String("against"), nil
}

// notWhole is why a log is not to be trusted, and nil where it is. pinned is the
// file that the key to trust is usually pinned in.
func notWhole(ctx *cli.Context, r audit.Report, key, pinned string) error {
	switch p := r.Problem; {
	case p != nil && p.Seq >= 0:
		return broker.Errorf(broker.CodeData, "the audit log does not verify: entry %d is the first bad one: %s", p.Seq, p)
	case p != nil && p.Signer != "" && ctx.IsSet("key"): // the pinned key may well be right
		return broker.Errorf(broker.CodeData, "the audit log does not verify: %s", p).
			WithHint("is --key the right key? without it, the one in %s is trusted", pinned)
	case p != nil && p.Signer != "":
		return broker.Errorf(broker.CodeData, "the audit log does not verify: %s", p).
			WithHint("if you lost the old signing key (another keychain, a keychain made anew), remove %s: the next daemon pins the new key, and entries before it are then vouched for by the old key alone; if you did not, somebody else signs", pinned)
	case p != nil:
		return broker.Errorf(broker.CodeData, "the audit log does not verify: %s", p)
	case r.Entries > 0 && r.Signed == 0:
		return broker.Errorf(broker.CodeData, "the audit log does not verify: none of its %s is signed by %s", count(r.Entries, "entry", "entries"), keyName(key)).
			WithHint("is it the right key? the daemon signs within seconds, unless the keychain is locked: see gatepass status")
	}
	return nil
}

// keyName is the name in a public key.
func keyName(key string) string {
	name, _, _ := strings.Cut(key, "+")
	return name
}

// verified says that a log is whole, and how far that reaches, with times of
// where.
func verified(r audit.Report, key string, where *time.Location) string {
	if r.Entries == 0 {
		return "the audit log is empty\n"
	}
	const minutes = "2006-01-02 15:04"
	s := fmt.Sprintf("the audit log is whole: %s in %s, from %s to %s, ", count(r.Entries-r.Pruned, "entry", "entries"),
		count(int64(r.Segments), "file", "files"), r.First.In(where).Format(minutes), r.Last.In(where).Format(minutes))
	if r.Unsigned == 0 {
		s += "all signed by " + printable(keyName(key))
	} else {
		s += fmt.Sprintf("the first %d signed by %s, %d not signed yet", r.Signed-r.Pruned, printable(keyName(key)), r.Unsigned)
	}
	s += "\n"
	if r.Pruned > 0 {
		s += fmt.Sprintf("it begins with entry %d: those before were removed when they were old, as a signed entry says\n", r.Pruned)
	}
	if r.Against > 0 {
		s += fmt.Sprintf("it continues what was kept elsewhere: %s\n", count(r.Against, "checkpoint", "checkpoints"))
	}
	switch {
	case !r.Anchored.Time.IsZero():
		s += fmt.Sprintf("last anchored %s, with %s\n", r.Anchored.Time.In(where).Format(minutes), count(r.Anchored.Entries, "entry", "entries"))
	case r.Against == 0:
		s += "never anchored: whoever can read the keychain could have written it anew\n"
	}
	return s
}
