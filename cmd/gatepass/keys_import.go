package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
	"gatepass/profiles"
)

const keysImportHelp = `gatepass keys import moves the plaintext keys of ~/.aws/credentials,
~/.aws/config and the environment into the OS keychain, step by step:

  1. each key is proved with AWS (GetCallerIdentity), stored under the name of
     its profile, and read back;
  2. its profile, and every profile that starts with it, is adopted, as by
     "gatepass profiles adopt", and proved by a session from gatepass;
  3. when you agree, the plaintext is removed from the files.

What cannot be proved stays where it is, and is said. All else in the files
stays as it is. Run again, it goes on where it stopped.

usage: gatepass keys import [flags]

  --yes           remove the plaintext without asking
  --no-adopt      store the keys, and change no file
  --dry-run       show what was found and what would change, and do nothing
  --region R      where to ask (for AWS China or GovCloud)

examples:
  gatepass keys import --dry-run
  gatepass keys import --yes
`

func keysImportCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "import",
		UsageText: keysImportHelp,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "yes"},
			&cli.BoolFlag{Name: "no-adopt"},
			&cli.BoolFlag{Name: "dry-run"},
			&cli.StringFlag{Name: "region"},
		},
		Action: c.keysImport,
	}
}

// An importing is one run of keys import.
type importing struct {
	*client
	ctx     context.Context
	edit    *profiles.Editor
	program string
	region  string
	failed  error // of the last key that could not be moved
}

// envKey is the name under which the environment's key is stored.
const envKey = "environment"

func (c *client) keysImport(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	files, err := c.awsFiles()
	if err != nil {
		return err
	}
	e, err := profiles.OpenEditor(files)
	if err != nil {
		return broker.ProfileError(err)
	}
	defer e.Close()
	m := &importing{client: c, ctx: ctx.Context, edit: e, region: ctx.String("region")}
	if m.program, err = c.program(); err != nil {
		return err
	}
	found, err := e.Plaintext()
	if err != nil {
		return broker.ProfileError(err)
	}
	for _, p := range found {
		defer clear(p.Secret)
	}
	id, secret, envErr := keyFromEnv(c.getenv)
	defer secret.Clear()
	inEnv := envErr == nil
	if len(found) == 0 && !inEnv {
		say(c.stderr, fmt.Sprintf("no plaintext keys are in %s, in %s or in the environment", files.Credentials, files.Config))
		return nil
	}
	for _, p := range found {
		m.tell(p.Profile, "found %s in %s:%d", p.AccessKeyID, p.File, p.Line)
	}
	if inEnv {
		m.tell(envKey, "found %s in the environment", id)
	}
	if ctx.Bool("dry-run") {
		return m.preview(found)
	}

	stored, err := c.storedKeys(ctx.Context)
	if err != nil {
		return err
	}
	var moved []string // profiles whose key is in the keychain, and may go
	for _, p := range found {
		if p.Problem != "" {
			m.leave(p.Profile, broker.Errorf(broker.CodeConfig, "%s", p.Problem))
			continue
		}
		secret := broker.NewSecret(p.Secret)
		err := m.store(p.Profile, p.AccessKeyID, secret, stored)
		secret.Clear()
		if err != nil {
			m.leave(p.Profile, err)
			continue
		}
		moved = append(moved, p.Profile)
	}
	if inEnv {
		m.environment(id, secret, stored, found)
	}
	if ctx.Bool("no-adopt") {
		for _, name := range moved {
			if err := m.prove(name); err != nil {
				m.leave(name, err)
			}
		}
		return m.failed
	}
	if moved, err = m.adopt(moved); err != nil {
		return err
	}
	if err := m.remove(moved, ctx.Bool("yes")); err != nil {
		return err
	}
	return m.failed
}

func (m *importing) tell(name, format string, args ...any) {
	say(m.stderr, name+": "+fmt.Sprintf(format, args...))
}

// leave says why a key stays where it is.
func (m *importing) leave(name string, err error) {
	m.failed = explained(err)
	e := broker.AsError(m.failed)
	m.tell(name, "stays where it is: %s", e.Message)
	if e.Hint != "" {
		m.tell(name, "%s", e.Hint)
	}
	m.failed = broker.Errorf(e.Code, "not every key could be moved").WithHint("what is left works as before; run again when that is mended: gatepass keys import")
}

// preview shows what adopting would change.
func (m *importing) preview(found []profiles.Plaintext) error {
	for _, p := range found {
		if p.Problem != "" {
			m.tell(p.Profile, "would stay where it is: %s", p.Problem)
			continue
		}
		m.edit.Leave(p.Profile)
		for _, r := range m.edit.Adopt(m.program, append([]string{p.Profile}, m.edit.Through(p.Profile)...)...) {
			if r.Err != nil {
				m.tell(p.Profile, "would stay where it is: %s", explained(r.Err))
			}
		}
	}
	return m.write(changesText(m.edit.Changes()))
}

// store puts a key into the keychain, unless it is there.
func (m *importing) store(name, id string, secret broker.Secret, stored []broker.KeyState) error {
	key := broker.NewKey{Name: name, AccessKeyID: id, SecretAccessKey: secret, Region: m.region}
	if err := key.Check(); err != nil {
		return err
	}
	if at := slices.IndexFunc(stored, func(k broker.KeyState) bool { return k.Name == name }); at >= 0 {
		if stored[at].AccessKeyID == id {
			return nil
		}
		return broker.Errorf(broker.CodeUsage, "another key, %s, is stored under that name", stored[at].AccessKeyID).
			WithHint("if it is not needed any more: gatepass keys remove %s", name)
	}
	if key.Region == "" {
		if key.Region = m.getenv("AWS_REGION"); key.Region == "" {
			key.Region = m.getenv("AWS_DEFAULT_REGION")
		}
	}
	var info broker.KeyInfo
	err := m.ask(m.ctx, func(d *wire.Client) error {
		return d.Call(m.ctx, "POST", wire.PathKeys, wire.AddKeyRequest{
			Name: name, AccessKeyID: id, SecretAccessKey: secret.Reveal(), Region: key.Region,
		}, &info)
	})
	if err == nil {
		m.tell(name, "stored the key of %s", info.UserARN)
	}
	return err
}

// environment stores the key that the environment holds, which only the user
// can take out of there.
func (m *importing) environment(id string, secret broker.Secret, stored []broker.KeyState, found []profiles.Plaintext) {
	name := envKey
	for _, k := range stored {
		if k.AccessKeyID == id {
			name = k.Name
		}
	}
	for _, p := range found {
		if p.AccessKeyID == id && p.Problem == "" {
			name = p.Profile
		}
	}
	if name == envKey {
		if err := m.store(envKey, id, secret, stored); err != nil {
			m.leave(envKey, err)
			return
		}
	}
	m.tell(envKey, "stored as %s: remove AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY from where your shell sets them; until then they win over every profile", name)
}

// adopt makes the profiles of the keys, and those that start with them, ask
// gatepass, and proves each of them. It returns those whose plaintext is not
// needed any more.
func (m *importing) adopt(names []string) (proved []string, err error) {
	through := map[string][]string{}
	done, refused := map[string]bool{}, map[string]bool{}
	needed := map[string]error{} // why the plaintext of a key is, by a profile that starts with it
	for _, name := range names {
		m.edit.Leave(name)
		through[name] = m.edit.Through(name)
	}
	for _, name := range names {
		results := m.edit.Adopt(m.program, append([]string{name}, through[name]...)...)
		if results[0].Err != nil {
			m.leave(name, results[0].Err)
			m.edit.Restore(adoptedNow(results[1:])...)
			continue
		}
		for _, r := range results[1:] {
			if r.Err != nil {
				m.tell(r.Profile, "is left as it is: %s", explained(r.Err))
				refused[r.Profile], needed[name] = true, stillNeeded(r.Profile, r.Err)
			}
		}
		for _, n := range adoptedNow(results) {
			done[n] = true
		}
		proved = append(proved, name)
	}
	if err := m.edit.Save(); err != nil {
		return nil, broker.ProfileError(err)
	}
	var back []string // to be restored
	proved = slices.DeleteFunc(proved, func(name string) bool {
		if err := m.prove(name); err != nil {
			m.leave(name, err)
			for _, n := range append([]string{name}, through[name]...) {
				if done[n] {
					back = append(back, n)
				}
			}
			return true
		}
		if done[name] {
			m.tell(name, "is served by gatepass now")
		}
		for _, n := range through[name] {
			if refused[n] {
				continue
			}
			switch err := m.prove(n); {
			case err != nil:
				m.tell(n, "is left as it is: %s", broker.AsError(err).Message)
				if done[n] {
					back = append(back, n)
				}
				// What AWS refuses to us it refuses to others with that key.
				if broker.CodeOf(err) != broker.CodeAWSDenied {
					needed[name] = stillNeeded(n, err)
				}
			case done[n]:
				m.tell(n, "is served by gatepass now")
			}
		}
		if needed[name] != nil {
			m.leave(name, needed[name])
		}
		return needed[name] != nil
	})
	if len(back) > 0 {
		m.edit.Restore(back...)
		if err := m.edit.Save(); err != nil {
			return nil, broker.ProfileError(err)
		}
	}
	return proved, nil
}

// stillNeeded says that a profile may be served with the plaintext key alone,
// for the reason err.
func stillNeeded(profile string, err error) error {
	return broker.Errorf(broker.CodeOf(explained(err)), "the profile %s starts with it, and is not served by gatepass", profile)
}

func adoptedNow(results []profiles.Adoption) (names []string) {
	for _, r := range results {
		if r.Err == nil && !r.Already {
			names = append(names, r.Profile)
		}
	}
	return names
}

// prove has the daemon make, or find, a session of a profile.
func (m *importing) prove(name string) error {
	req, err := m.request(name, "keys")
	if err != nil {
		return err
	}
	document, _, err := m.credentials(m.ctx, req)
	clear(document)
	return err
}

// remove takes the plaintext out of the files, if the user agrees.
func (m *importing) remove(names []string, yes bool) error {
	if len(names) == 0 {
		return nil
	}
	if !yes {
		answer, err := m.prompt("remove the plaintext keys of "+strings.Join(names, ", ")+" from the files? [y/N] ", shown)
		if err != nil {
			return promptError(err, "the keys are stored; removing the plaintext asks first",
				"to remove it without being asked: gatepass keys import --yes")
		}
		if answer != "y" && answer != "Y" && answer != "yes" {
			say(m.stderr, "the plaintext stays in the files; AWS programs go on using it\nto remove it later: gatepass keys import")
			return nil
		}
	}
	var removed []string
	for _, name := range names {
		if err := m.edit.RemovePlaintext(name); err != nil {
			m.leave(name, err)
			continue
		}
		removed = append(removed, name)
	}
	if err := m.edit.Save(); err != nil {
		return broker.ProfileError(err)
	}
	for _, name := range removed {
		m.tell(name, "removed the plaintext key")
	}
	return nil
}

// changesText shows changes as a diff.
func changesText(changes []profiles.Change) []byte {
	var out bytes.Buffer
	for _, change := range changes {
		fmt.Fprintf(&out, "@@ %s\n", printable(change.Section))
		for _, line := range change.Old {
			fmt.Fprintf(&out, "-%s\n", printable(line))
		}
		for _, line := range change.New {
			fmt.Fprintf(&out, "+%s\n", printable(line))
		}
	}
	return out.Bytes()
}
