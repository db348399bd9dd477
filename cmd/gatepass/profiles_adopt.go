package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/profiles"
)

const profilesAdoptHelp = `gatepass profiles adopt makes profiles of your AWS config take their credentials
from gatepass, in the AWS CLI and in every SDK. In the profile's own section,
role_arn and its like get names that only gatepass reads, and a
credential_process line asks gatepass. All else stays as it is, comments and
order too; "gatepass profiles restore" takes it back. A line that runs
aws-vault is replaced, and what aws-vault takes from [default] is included.

A profile is left alone, and the reason said, when its key is not stored, when
an SDK would still take its credentials from elsewhere (plaintext keys, IAM
Identity Center, another program), or when a shell would misread its name.

usage: gatepass profiles adopt NAME... [--dry-run]
       gatepass profiles adopt --all [--dry-run]

  --all           every profile that can be adopted
  --dry-run       show what would change in the file, and change nothing

example:
  gatepass profiles adopt ops --dry-run
  gatepass profiles adopt ops
  AWS_PROFILE=ops aws sts get-caller-identity
`

const profilesRestoreHelp = `gatepass profiles restore undoes "gatepass profiles adopt" in your AWS config:
the keys of the profile get their names back, a line that was replaced
returns, and the credential_process goes. What you have changed since stays.

usage: gatepass profiles restore NAME... [--dry-run]
       gatepass profiles restore --all [--dry-run]

  --all           every profile that asks gatepass
  --dry-run       show what would change in the file, and change nothing

example:
  gatepass profiles restore --all
`

func profilesAdoptCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "adopt",
		UsageText: profilesAdoptHelp,
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "all"}, &cli.BoolFlag{Name: "dry-run"}},
		Action:    c.profilesAdopt,
	}
}

func profilesRestoreCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "restore",
		UsageText: profilesRestoreHelp,
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "all"}, &cli.BoolFlag{Name: "dry-run"}},
		Action:    c.profilesRestore,
	}
}

func (c *client) profilesAdopt(ctx *cli.Context) error {
	e, err := c.edit(ctx)
	if err != nil {
		return err
	}
	defer e.Close()
	program, err := c.program()
	if err != nil {
		return err
	}
	stored, err := c.storedKeys(ctx.Context)
	if err != nil {
		return err
	}
	e.Accept = func(chain *profiles.Chain) error { return accept(chain, stored) }
	names := ctx.Args().Slice()
	if ctx.Bool("all") {
		names = e.Names()
	}
	return c.finish(ctx, e, e.Adopt(program, names...), "is served by gatepass now")
}

func (c *client) profilesRestore(ctx *cli.Context) error {
	e, err := c.edit(ctx)
	if err != nil {
		return err
	}
	defer e.Close()
	names := ctx.Args().Slice()
	if ctx.Bool("all") {
		names = e.Adopted()
	}
	return c.finish(ctx, e, e.Restore(names...), "is no longer served by gatepass")
}

// edit opens the files that an SDK would read here.
func (c *client) edit(ctx *cli.Context) (*profiles.Editor, error) {
	switch all := ctx.Bool("all"); {
	case all && ctx.NArg() > 0:
		return nil, usageOf(ctx, "--all stands alone, and there is %q", ctx.Args().First())
	case !all && ctx.NArg() == 0:
		return nil, usageOf(ctx, "the name of a profile is missing, or --all")
	}
	files, err := c.awsFiles()
	if err != nil {
		return nil, err
	}
	e, err := profiles.OpenEditor(files)
	if err != nil {
		return nil, broker.ProfileError(err)
	}
	return e, nil
}

// awsFiles returns the files that an SDK would read here.
func (c *client) awsFiles() (files profiles.Files, err error) {
	for _, f := range []struct {
		variable, name string
		path           *string
	}{
		{"AWS_CONFIG_FILE", "config", &files.Config},
		{"AWS_SHARED_CREDENTIALS_FILE", "credentials", &files.Credentials},
	} {
		if *f.path, err = c.awsPath(f.variable); err != nil {
			return files, err
		}
		if *f.path == "" {
			home, err := c.home()
			if err != nil {
				return files, err
			}
			*f.path = filepath.Join(home, ".aws", f.name)
		}
	}
	return files, nil
}

// program returns the path of gatepass to write into a file: as it is found
// on PATH, so that it stays right when a package manager moves what it links
// to.
func (c *client) program() (string, error) {
	if found, err := exec.LookPath("gatepass"); err == nil && filepath.IsAbs(found) {
		return found, nil
	}
	if self := c.self(); len(self) > 0 && filepath.IsAbs(self[len(self)-1]) {
		return self[len(self)-1], nil
	}
	return "", broker.Errorf(broker.CodeConfig, "where gatepass is installed cannot be found").
		WithHint("put its directory on PATH")
}

// accept says why a profile would not work if it were adopted.
func accept(chain *profiles.Chain, stored []broker.KeyState) error {
	if slices.ContainsFunc(stored, func(k broker.KeyState) bool { return k.Name == chain.Key }) {
		return nil
	}
	return broker.Errorf(broker.CodeNotFound, "profile %q starts with the key %q, which is not stored", chain.Profile, chain.Key).
		WithHint("store it: gatepass keys add %s", chain.Key)
}

// finish saves what was changed, or shows it, and tells what came of it.
func (c *client) finish(ctx *cli.Context, e *profiles.Editor, results []profiles.Adoption, done string) error {
	if ctx.Bool("dry-run") {
		if err := c.write(changesText(e.Changes())); err != nil {
			return err
		}
	} else if err := e.Save(); err != nil {
		return broker.ProfileError(err)
	}
	var refused error
	for _, r := range results {
		switch {
		case r.Err != nil && ctx.Bool("all"):
			say(c.stderr, "left as it is: "+explained(r.Err).Error())
		case r.Err != nil:
			if refused != nil {
				report(c.stderr, refused)
			}
			refused = explained(r.Err)
		case r.Already && !ctx.Bool("all"):
			say(c.stderr, r.Profile+" "+done+" already")
		case !r.Already && !ctx.Bool("dry-run"):
			say(c.stderr, r.Profile+" "+done)
		}
	}
	return refused
}

// explained gives an error of package profiles its code.
func explained(err error) error {
	var e *broker.Error
	if errors.As(err, &e) {
		return err
	}
	return broker.ProfileError(err)
}
