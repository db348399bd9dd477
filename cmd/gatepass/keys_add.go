package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

const keysAddHelp = `gatepass keys add stores an IAM user's access key in the OS keychain. It asks
AWS first whose key it is (GetCallerIdentity) and stores only what AWS accepts.
Where the user may see that (iam:ListAccessKeys), it notes how old the key is.

usage: gatepass keys add NAME [flags]

It asks for the key on the terminal, the secret unseen, or takes it from:

  --stdin         standard input: the access key id and the secret, one a line
  --env           AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
  --csv FILE      the file that the IAM console downloads; delete it afterwards

  --no-verify     store the key without asking AWS
  --allow-root    store it although it is the account's root user's
  --region R      where to ask (for AWS China or GovCloud)

NAME is yours to choose. A profile finds its key by the name of the profile, or
says gatepass_key = NAME in ~/.aws/config.

examples:
  gatepass keys add work
  gatepass keys add work --csv ~/Downloads/alice_accessKeys.csv
`

func keysAddCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "add",
		UsageText: keysAddHelp,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "stdin"},
			&cli.BoolFlag{Name: "env"},
			&cli.StringFlag{Name: "csv"},
			&cli.BoolFlag{Name: "no-verify"},
			&cli.BoolFlag{Name: "allow-root"},
			&cli.StringFlag{Name: "region"},
		},
		Action: c.keysAdd,
	}
}

func (c *client) keysAdd(ctx *cli.Context) error {
	name, err := oneArgument(ctx, "a name for the key")
	if err != nil {
		return err
	}
	if err := broker.CheckKeyName(name); err != nil { // before anybody types a secret
		return err
	}
	var sources int
	for _, given := range []bool{ctx.Bool("stdin"), ctx.Bool("env"), ctx.IsSet("csv")} {
		if given {
			sources++
		}
	}
	var id string
	var secret broker.Secret
	switch {
	case sources > 1:
		return broker.Errorf(broker.CodeUsage, "--stdin, --env and --csv exclude each other")
	case ctx.Bool("stdin"):
		if isTerminal(c.stdin) {
			return broker.Errorf(broker.CodeUsage, "--stdin on a terminal would show the secret").
				WithHint("without --stdin it is asked for unseen: gatepass keys add %s", name)
		}
		id, secret, err = keyFromLines(c.stdin)
	case ctx.Bool("env"):
		id, secret, err = keyFromEnv(c.getenv)
	case ctx.IsSet("csv"):
		id, secret, err = keyFromCSVFile(ctx.String("csv"))
	default:
		id, secret, err = c.keyFromPrompt()
	}
	if err != nil {
		return err
	}
	defer secret.Clear()
	key := broker.NewKey{
		Name: name, AccessKeyID: id, SecretAccessKey: secret, Region: ctx.String("region"),
		NoVerify: ctx.Bool("no-verify"), AllowRoot: ctx.Bool("allow-root"),
	}
	if err := key.Check(); err != nil {
		return err
	}
	if key.Region == "" {
		if key.Region = c.getenv("AWS_REGION"); key.Region == "" {
			key.Region = c.getenv("AWS_DEFAULT_REGION")
		}
	}
	var stored broker.KeyInfo
	err = c.aboutKeys(ctx.Context, func(ctx context.Context, d *wire.Client, ask *wire.Ask) error {
		return d.Call(ctx, "POST", wire.PathKeys, wire.AddKeyRequest{
			Name: key.Name, AccessKeyID: key.AccessKeyID, SecretAccessKey: secret.Reveal(), Region: key.Region,
			NoVerify: key.NoVerify, AllowRoot: key.AllowRoot, Ask: ask,
		}, &stored)
	})
	if err != nil {
		return err
	}
	if isTerminal(c.stderr) { // whoever typed a key wants to know whose it was
		if stored.UserARN != "" {
			say(c.stderr, fmt.Sprintf("stored the key %s of %s", name, stored.UserARN))
		} else {
			say(c.stderr, fmt.Sprintf("stored the key %s, not verified", name))
		}
		if ctx.IsSet("csv") {
			say(c.stderr, fmt.Sprintf("delete the file now, it holds the secret: %s", ctx.String("csv")))
		}
	}
	return nil
}

func (c *client) keyFromPrompt() (string, broker.Secret, error) {
	id, err := c.prompt("Access key ID: ", shown)
	if err == nil {
		id = strings.TrimSpace(id)
		if err := broker.CheckAccessKeyID(id); err != nil { // before the secret is typed
			return "", broker.Secret{}, err
		}
		var secret string
		if secret, err = c.prompt("Secret access key (not shown): ", hidden); err == nil {
			return id, broker.NewSecret(strings.TrimSpace(secret)), nil
		}
	}
	return "", broker.Secret{}, promptError(err, "the key cannot be asked for",
		"give it with --stdin, --env or --csv FILE; see: gatepass keys add --help")
}

// keyFromLines reads the access key id and the secret, one a line.
func keyFromLines(r io.Reader) (string, broker.Secret, error) {
	const limit = 4 << 10
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return "", broker.Secret{}, broker.Errorf(broker.CodeUsage, "read the key from standard input: %w", err)
	}
	defer clear(data)
	var lines [][]byte
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			lines = append(lines, line)
		}
	}
	if len(lines) != 2 || len(data) > limit {
		return "", broker.Secret{}, broker.Errorf(broker.CodeUsage,
			"standard input must hold two lines, the access key id and the secret; it has %d", len(lines))
	}
	return string(lines[0]), broker.NewSecret(lines[1]), nil
}

// keyFromEnv reads the two variables that every AWS tool knows.
func keyFromEnv(getenv func(string) string) (string, broker.Secret, error) {
	id, secret := getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY")
	switch {
	case id == "":
		return "", broker.Secret{}, broker.Errorf(broker.CodeUsage, "AWS_ACCESS_KEY_ID is not set")
	case secret == "":
		return "", broker.Secret{}, broker.Errorf(broker.CodeUsage, "AWS_SECRET_ACCESS_KEY is not set")
	case getenv("AWS_SESSION_TOKEN") != "":
		return "", broker.Secret{}, broker.Errorf(broker.CodeUsage,
			"AWS_SESSION_TOKEN is set, so the environment holds temporary credentials").
			WithHint("gatepass stores long-term keys of IAM users and makes the temporary ones itself")
	}
	return id, broker.NewSecret(secret), nil
}

func keyFromCSVFile(name string) (string, broker.Secret, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", broker.Secret{}, broker.Errorf(broker.CodeUsage, "read the key: %w", err)
	}
	defer f.Close()
	id, secret, err := keyFromCSV(f)
	if err != nil {
		e := broker.AsError(err)
		return "", broker.Secret{}, broker.Errorf(e.Code, "%s: %w", name, err)
	}
	return id, secret, nil
}

// keyFromCSV reads the file that the IAM console offers: today's with the
// columns "Access key ID" and "Secret access key", or the older one of a new
// user, with "User name" and "Password" before them. A byte order mark, CRLF
// and other columns do not matter; a file with several keys does. Errors
// never quote the file.
func keyFromCSV(r io.Reader) (string, broker.Secret, error) {
	const limit = 64 << 10
	fail := func(format string, args ...any) (string, broker.Secret, error) {
		return "", broker.Secret{}, broker.Errorf(broker.CodeData, format, args...).
			WithHint("give the file as the IAM console downloads it, or use --stdin")
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return "", broker.Secret{}, broker.Errorf(broker.CodeUsage, "read the key: %w", err)
	}
	defer clear(data)
	if len(data) > limit {
		return fail("this is not an access key file: it has more than 64 KiB")
	}
	rows, err := csv.NewReader(bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))).ReadAll()
	if err != nil {
		var at *csv.ParseError
		if errors.As(err, &at) {
			return fail("this is not an access key file: line %d is not CSV", at.Line)
		}
		return fail("this is not an access key file: it is not CSV")
	}
	if len(rows) == 0 {
		return fail("this is not an access key file: it is empty")
	}
	column := func(name string) int {
		return slices.IndexFunc(rows[0], func(s string) bool { return strings.EqualFold(strings.TrimSpace(s), name) })
	}
	id, secret := column("Access key ID"), column("Secret access key")
	if id < 0 || secret < 0 {
		return fail(`this is not an access key file: it has no columns "Access key ID" and "Secret access key"`)
	}
	if n := len(rows) - 1; n != 1 {
		return fail("this file holds %d keys, and one is added at a time", n)
	}
	return strings.TrimSpace(rows[1][id]), broker.NewSecret(strings.TrimSpace(rows[1][secret])), nil
}
