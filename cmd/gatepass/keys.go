package main

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

const keysHelp = `gatepass keys keeps IAM user access keys in the OS keychain.

usage: gatepass keys COMMAND

  add NAME        store a key, once AWS has confirmed it
  list            show the stored keys, without their secrets
  import          move keys out of your AWS files and out of aws-vault
  rotate NAME     replace a key by a new one, step by step
  remove NAME     remove a key from the keychain

See "gatepass keys COMMAND --help" for each of them.

example:
  gatepass keys list
`

const keysRemoveHelp = `gatepass keys remove removes a key from the OS keychain. AWS is not told: the
key stays active there until you delete it in IAM.

usage: gatepass keys remove NAME [--yes]

  --yes           do not ask

example:
  gatepass keys remove work --yes
`

func keysCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "keys",
		UsageText: keysHelp,
		Subcommands: []*cli.Command{
			keysAddCommand(c),
			keysImportCommand(c),
			keysRotateCommand(c),
			keysListCommand(c),
			{
				Name:      "remove",
				UsageText: keysRemoveHelp,
				Flags:     []cli.Flag{&cli.BoolFlag{Name: "yes"}},
				Action:    c.keysRemove,
			},
		},
	}
}

func (c *client) storedKeys(ctx context.Context) ([]broker.KeyState, error) {
	var list wire.KeysResponse
	req := wire.CredentialsRequest{Via: "keys"}
	err := c.asking(ctx, &req, func(ctx context.Context) error {
		return c.askTwice(ctx, func(d *wire.Client) error {
			return d.Call(ctx, "POST", wire.PathKeysList, wire.ListKeysRequest{Ask: req.Ask}, &list)
		})
	})
	return list.Keys, err
}

func (c *client) keysRemove(ctx *cli.Context) error {
	name, err := oneArgument(ctx, "the name of a key")
	if err != nil {
		return err
	}
	if !ctx.Bool("yes") {
		keys, err := c.storedKeys(ctx.Context)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(keys, func(k broker.KeyState) bool { return k.Name == name })
		if at < 0 {
			return unknownKey(name, keys)
		}
		if rot := keys[at].Rotation; rot != nil && rot.Step != broker.StepCreate && rot.Step != broker.StepProve {
			say(c.stderr, "its old key, "+rot.Old+", stays at AWS as it is")
		} else if rot != nil {
			left := "the new key, if AWS has made one,"
			if rot.New != "" {
				left = "the new key, " + rot.New + ","
			}
			say(c.stderr, "a rotation of it is unfinished: "+left+" stays at AWS")
		}
		answer, err := c.prompt("remove the key "+name+" ("+keys[at].AccessKeyID+") from the keychain? [y/N] ", shown)
		if err != nil {
			return promptError(err, "removing a key asks first", "to remove it without being asked: gatepass keys remove %s --yes", name)
		}
		if answer != "y" && answer != "Y" && answer != "yes" {
			return broker.Errorf(broker.CodeCancelled, "the key %q was not removed", name)
		}
	}
	return c.aboutKeys(ctx.Context, func(ctx context.Context, d *wire.Client, ask *wire.Ask) error {
		return d.Call(ctx, "POST", wire.PathKeysRemove, wire.RemoveKeyRequest{Name: name, Ask: ask}, nil)
	})
}

func unknownKey(name string, keys []broker.KeyState) error {
	var names []string
	for _, k := range keys {
		names = append(names, k.Name)
	}
	err := broker.Errorf(broker.CodeNotFound, "no key %q is stored", name)
	if near := nearest(name, names); near != "" {
		return err.WithHint("did you mean %q?", near)
	}
	return err.WithHint("see: gatepass keys list")
}

// writeJSON prints v for a program, indented for the person who looks too.
func (c *client) writeJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return c.write(append(b, '\n'))
}
