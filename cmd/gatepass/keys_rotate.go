package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

const keysRotateHelp = `gatepass keys rotate replaces a stored key by a new one of the same IAM user:

  1. IAM makes a new key, which is stored beside the old one;
  2. it is used until all of AWS knows it: some seconds, at most 2 minutes;
  3. it takes the old key's place in the keychain;
  4. the old key is deactivated, and deleted once the new one was seen to work
     without it.

At every moment a key that works is stored. After any interruption (Ctrl-C, a
crash, no network) run it again: it goes on where it stopped.

usage: gatepass keys rotate NAME [flags]

  --keep-old D      let the old key live for a while: 3600, 90m, 24h, 7d; at
                    most 30 days, then the daemon ends it
  --finish          end an old key that is kept, now
  --mfa-serial ARN  the MFA device, where the user's policy wants MFA and no
                    profile of this key names it (mfa_serial)
  --mfa-code C      the code that the MFA device shows, where one is needed
  --prompt WAY      how to ask for it: auto, tty, pinentry, desktop, none
  --region R        where to prove the new key (for AWS China or GovCloud)
  --json            print the new and the old access key id

The user needs iam:ListAccessKeys, CreateAccessKey, UpdateAccessKey,
DeleteAccessKey and GetAccessKeyLastUsed on itself
(arn:aws:iam::*:user/${aws:username}), and room: AWS allows two keys a user.

examples:
  gatepass keys rotate work
  gatepass keys rotate work --keep-old 24h
  gatepass keys rotate work --finish
`

const (
	// maxKeep is how long an old key may be kept: who needs it for longer
	// does not rotate.
	maxKeep = 30 * 24 * time.Hour
	// rotatePatience is longer than a rotation takes: a dialog, the spread
	// of a new key through AWS, and the calls around them.
	rotatePatience = wire.RotatePatience + 30*time.Second
)

func keysRotateCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "rotate",
		UsageText: keysRotateHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "keep-old"},
			&cli.BoolFlag{Name: "finish"},
			&cli.StringFlag{Name: "mfa-serial"},
			&cli.StringFlag{Name: "mfa-code"},
			&cli.StringFlag{Name: "prompt"},
			&cli.StringFlag{Name: "region"},
			&cli.BoolFlag{Name: "json"},
		},
		Action: c.keysRotate,
	}
}

func (c *client) keysRotate(ctx *cli.Context) error {
	name, err := oneArgument(ctx, "the name of a key")
	if err != nil {
		return err
	}
	req, err := c.request("", "keys")
	if err == nil {
		err = applyFlags(ctx, &req)
	}
	if err != nil {
		return err
	}
	keep, err := seconds("keep-old", ctx.String("keep-old"))
	switch {
	case err != nil:
		return err
	case ctx.IsSet("keep-old") && ctx.Bool("finish"):
		return usageOf(ctx, "--keep-old and --finish exclude each other")
	case ctx.IsSet("keep-old") && keep == 0:
		return usageOf(ctx, "--keep-old is empty")
	case time.Duration(keep)*time.Second > maxKeep:
		return broker.Errorf(broker.CodeUsage, "--keep-old %q is more than 30 days", ctx.String("keep-old")).
			WithHint("an old key that is still needed after 30 days is not old: give its users the new one first")
	}
	if isTerminal(c.stderr) {
		if ctx.Bool("finish") {
			say(c.stderr, "ending the old key; this takes some seconds")
		} else {
			say(c.stderr, "making a new key and waiting until all of AWS knows it; this takes\nsome seconds, at most 2 min")
		}
	}
	var done broker.Rotated
	err = c.asking(ctx.Context, &req, func(context.Context) error {
		// Not the caller's context: how long a dialog may stand is less than
		// a rotation takes.
		call, cancel := context.WithTimeout(ctx.Context, rotatePatience)
		defer cancel()
		return c.ask(call, func(d *wire.Client) error {
			return d.Call(call, "POST", wire.PathKeysRotate, wire.RotateKeyRequest{
				Name: name, KeepSeconds: keep, Finish: ctx.Bool("finish"), Region: req.Region,
				ConfigFile: req.ConfigFile, CredentialsFile: req.CredentialsFile,
				MFASerial: ctx.String("mfa-serial"), MFACode: req.MFACode, Ask: req.Ask,
			}, &done)
		})
	})
	if errors.Is(err, wire.ErrNoAnswer) {
		// It may have been done all the same, and is then not to be done again.
		return broker.AsError(err).WithHint("nothing is lost; whether there is more to do says: gatepass keys list")
	}
	if err != nil {
		return err
	}
	if isTerminal(c.stderr) {
		say(c.stderr, rotatedLine(done))
	}
	if ctx.Bool("json") {
		return c.writeJSON(done)
	}
	return nil
}

// rotatedLine says what became of a rotation.
func rotatedLine(r broker.Rotated) string {
	old := "is deleted"
	if !r.OldUntil.IsZero() {
		old = "lives until " + r.OldUntil.Local().Format("2 January 15:04")
	}
	return fmt.Sprintf("the key %s is now %s\nthe old one, %s, %s", r.Name, r.AccessKeyID, r.Old, old)
}
