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

const keysImportHelp = `gatepass keys import moves keys into the OS keychain: those in plain text in
~/.aws/credentials, ~/.aws/config and the environment, and those that aws-vault
keeps. Step by step:

  1. each key is proved with AWS (GetCallerIdentity), stored under the name of
     its profile, and read back;
  2. its profile, and every profile that starts with it, is adopted, as by
     "gatepass profiles adopt", and proved by a session from gatepass;
  3. when you agree, the plaintext is removed from the files, and the key from
     aws-vault's store, unless a profile still needs it there.

What cannot be proved stays where it is, and is said. All else in the files
stays as it is. Run again, it goes on where it stopped.

aws-vault's store is where aws-vault looks for it: as its variables say
(AWS_VAULT_BACKEND, AWS_VAULT_FILE_DIR and so on), as the lines of your AWS
config do that run it, or in its own place: secret-service, kwallet, pass,
file, keychain or wincred. The passphrase of its files comes from
AWS_VAULT_FILE_PASSPHRASE, or is asked for.

usage: gatepass keys import [flags]

  --yes           remove the keys where they were without asking
  --no-adopt      store the keys, change no file, and remove nothing
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
	kept    []string // the names of aws-vault's keys
	failed  error    // of the last key that could not be moved
}

// A moving is a key on its way: from the files, from stores of aws-vault, or
// from both under one name, which is the profile's and will be the key's.
type moving struct {
	name   string
	plain  bool
	vaults []*vaultStore

	adopted map[string]bool // the profiles that were adopted for it
	through []string        // those that start with it
	refused map[string]bool // those of them that cannot be adopted
	needed  []string        // those that go on needing aws-vault
	inPlain []string        // those that may go on needing the plaintext
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
	for _, p := range found {
		m.tell(p.Profile, "found %s in %s:%d", p.AccessKeyID, p.File, p.Line)
	}
	id, secret, envErr := keyFromEnv(c.getenv)
	defer secret.Clear()
	inEnv := envErr == nil
	if inEnv {
		m.tell(envKey, "found %s in the environment", id)
	}
	vaults, err := m.findVaulted()
	if err != nil {
		return err
	}
	if len(found) == 0 && !inEnv && len(vaults) == 0 {
		say(c.stderr, fmt.Sprintf("no plaintext keys are in %s, in %s or in the environment, and none of aws-vault's was found", files.Credentials, files.Config))
		return m.failed
	}
	if ctx.Bool("dry-run") {
		return m.preview(found, vaults)
	}

	stored, err := c.storedKeys(ctx.Context)
	if err != nil {
		return err
	}
	var moves []*moving
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
		moves = append(moves, &moving{name: p.Profile, plain: true})
	}
	if inEnv {
		m.environment(id, secret, stored, found)
	}
	for _, s := range vaults {
		for _, name := range s.names {
			if err := m.storeVaulted(s, name); err != nil {
				m.stays(name, "in "+s.String(), err)
				continue
			}
			moves = moveFrom(moves, name, s)
		}
		defer s.passphrase.Clear()
	}
	if ctx.Bool("no-adopt") {
		for _, mv := range moves {
			if !mv.plain {
				continue
			}
			if err := m.prove(mv.name); err != nil {
				m.leave(mv.name, err)
			}
		}
		return m.failed
	}
	if moves, err = m.adopt(moves); err != nil {
		return err
	}
	if err := m.remove(moves, ctx.Bool("yes")); err != nil {
		return err
	}
	return m.failed
}

// moveFrom adds a key of aws-vault to moves.
func moveFrom(moves []*moving, name string, s *vaultStore) []*moving {
	at := slices.IndexFunc(moves, func(mv *moving) bool { return mv.name == name })
	if at < 0 {
		at = len(moves)
		moves = append(moves, &moving{name: name})
	}
	moves[at].vaults = append(moves[at].vaults, s)
	return moves
}

func (m *importing) tell(name, format string, args ...any) {
	say(m.stderr, name+": "+fmt.Sprintf(format, args...))
}

// leave says why a key stays where it is.
func (m *importing) leave(name string, err error) { m.stays(name, "where it is", err) }

// stays says why a key stays in a place.
func (m *importing) stays(name, where string, err error) {
	m.failed = explained(err)
	e := broker.AsError(m.failed)
	m.tell(name, "stays %s: %s", where, e.Message)
	if e.Hint != "" {
		m.tell(name, "%s", e.Hint)
	}
	m.failed = broker.Errorf(e.Code, "not every key could be moved").WithHint("what is left works as before; run again when that is mended: gatepass keys import")
}

// where is where a key is on its way from.
func (mv *moving) where() string {
	if mv.plain {
		return "where it is"
	}
	return "in " + mv.vaults[0].String()
}

// preview shows what adopting would change.
func (m *importing) preview(found []profiles.Plaintext, vaults []*vaultStore) error {
	var moves []*moving
	for _, p := range found {
		if p.Problem != "" {
			m.tell(p.Profile, "would stay where it is: %s", p.Problem)
			continue
		}
		moves = append(moves, &moving{name: p.Profile, plain: true})
	}
	for _, s := range vaults {
		for _, name := range s.names {
			moves = moveFrom(moves, name, s)
		}
	}
	m.begin(moves)
	for _, mv := range moves {
		if err := checkVaulted(mv.name); err != nil && !mv.plain {
			m.tell(mv.name, "would stay %s: %s", mv.where(), err)
			continue
		}
		results, err := m.change(mv)
		if err != nil {
			m.tell(mv.name, "would stay %s: %s", mv.where(), explained(err))
		}
		for _, r := range results {
			if r.Err != nil {
				m.tell(r.Profile, "would be left as it is: %s", explained(r.Err))
			}
		}
	}
	if err := m.write(changesText(m.edit.Changes())); err != nil {
		return err
	}
	return m.failed
}

// begin tells the editor what is on its way.
func (m *importing) begin(moves []*moving) {
	for _, mv := range moves {
		if mv.plain {
			m.edit.Leave(mv.name)
		}
		if len(mv.vaults) > 0 {
			m.edit.FromVault(mv.name)
		}
	}
}

// change adopts, in memory, a key's profile and those that start with the key.
// Where the profile cannot be, none is. The results are those of the others.
func (m *importing) change(mv *moving) ([]profiles.Adoption, error) {
	groups := [][]string{nil}
	if mv.plain {
		groups[0] = m.edit.Through(mv.name)
	}
	if len(mv.vaults) > 0 {
		groups = m.edit.ThroughVault(mv.name, m.kept)
		for _, name := range slices.Concat(groups...) {
			m.edit.FromVault(name)
		}
	}
	own := m.edit.Adopt(m.program, mv.name)[0]
	if own.Err == nil && !mv.plain && own.Chain.Key != mv.name {
		if !own.Already {
			m.edit.Restore(mv.name)
		}
		return nil, broker.Errorf(broker.CodeConfig, "the profile %q starts with the key %q, and aws-vault uses the one that it keeps under the profile's own name", mv.name, own.Chain.Key).
			WithHint("if the profile is to go on with that, write into it: gatepass_key = %s", mv.name)
	}
	if own.Err != nil {
		return nil, own.Err
	}
	var results []profiles.Adoption
	for _, group := range groups {
		results = append(results, m.edit.Adopt(m.program, group...)...)
	}
	mv.adopted, mv.refused = map[string]bool{}, map[string]bool{}
	for _, r := range append(results, own) {
		if r.Err == nil && !r.Already {
			mv.adopted[r.Profile] = true
		}
	}
	for _, r := range results {
		mv.through = append(mv.through, r.Profile)
		if r.Err != nil {
			mv.refused[r.Profile] = true
			mv.needed, mv.inPlain = append(mv.needed, r.Profile), append(mv.inPlain, r.Profile)
		}
	}
	return results, nil
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
	err := m.aboutKeys(m.ctx, func(ctx context.Context, d *wire.Client, ask *wire.Ask) error {
		return d.Call(ctx, "POST", wire.PathKeys, wire.AddKeyRequest{
			Name: name, AccessKeyID: id, SecretAccessKey: secret.Reveal(), Region: key.Region, Ask: ask,
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
// gatepass, and proves each of them. It returns the keys that are not needed
// any more where they come from.
func (m *importing) adopt(moves []*moving) (proved []*moving, err error) {
	m.begin(moves)
	for _, mv := range moves {
		results, err := m.change(mv)
		if err != nil {
			m.stays(mv.name, mv.where(), err)
			continue
		}
		for _, r := range results {
			if r.Err != nil {
				m.tell(r.Profile, "is left as it is: %s", explained(r.Err))
			}
		}
		proved = append(proved, mv)
	}
	if err := m.edit.Save(); err != nil {
		return nil, broker.ProfileError(err)
	}
	var back []string // to be restored
	proved = slices.DeleteFunc(proved, func(mv *moving) bool {
		if err := m.prove(mv.name); err != nil {
			m.stays(mv.name, mv.where(), err)
			for _, n := range append([]string{mv.name}, mv.through...) {
				if mv.adopted[n] {
					back = append(back, n)
				}
			}
			return true
		}
		if mv.adopted[mv.name] {
			m.tell(mv.name, "is served by gatepass now")
		}
		for _, n := range mv.through {
			if mv.refused[n] {
				continue
			}
			switch err := m.prove(n); {
			case err != nil:
				m.tell(n, "is left as it is: %s", broker.AsError(err).Message)
				if mv.adopted[n] {
					back = append(back, n)
				}
				mv.needed = append(mv.needed, n)
				// What AWS refuses to us it refuses to others with that key.
				if broker.CodeOf(err) != broker.CodeAWSDenied {
					mv.inPlain = append(mv.inPlain, n)
				}
			case mv.adopted[n]:
				m.tell(n, "is served by gatepass now")
			}
		}
		return false
	})
	if len(back) > 0 {
		m.edit.Restore(back...)
		if err := m.edit.Save(); err != nil {
			return nil, broker.ProfileError(err)
		}
	}
	return proved, nil
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

// remove takes the plaintext out of the files, and the keys out of aws-vault's
// stores, if the user agrees. What a profile still needs stays there.
func (m *importing) remove(moves []*moving, yes bool) error {
	var plain, vaulted []string
	for _, mv := range moves {
		switch {
		case !mv.plain:
		case len(mv.inPlain) > 0:
			m.leave(mv.name, broker.Errorf(broker.CodeConfig, "the profile %s starts with it, and is not served by gatepass", mv.inPlain[0]))
		default:
			plain = append(plain, mv.name)
		}
		switch {
		case len(mv.vaults) == 0:
		case len(mv.needed) > 0:
			m.stays(mv.name, "in "+mv.vaults[0].String(), broker.Errorf(broker.CodeConfig, "it is still needed there, by %s", strings.Join(mv.needed, ", ")))
			mv.vaults = nil
		default:
			vaulted = append(vaulted, mv.name)
		}
	}
	var what []string
	if len(plain) > 0 {
		what = append(what, "the plaintext keys of "+strings.Join(plain, ", ")+" from the files")
	}
	if len(vaulted) > 0 {
		what = append(what, "the keys of "+strings.Join(vaulted, ", ")+" from aws-vault's store")
	}
	if len(what) == 0 {
		return nil
	}
	if !yes {
		answer, err := m.prompt("remove "+strings.Join(what, ", and ")+"? [y/N] ", shown)
		if err != nil {
			return promptError(err, "the keys are stored; removing them where they were asks first",
				"to remove them without being asked: gatepass keys import --yes")
		}
		if answer != "y" && answer != "Y" && answer != "yes" {
			if len(plain) > 0 {
				say(m.stderr, "the plaintext stays in the files; AWS programs go on using it")
			}
			if len(vaulted) > 0 {
				say(m.stderr, "the keys stay in aws-vault's store")
			}
			say(m.stderr, "to remove them later: gatepass keys import")
			return nil
		}
	}
	if err := m.removePlaintext(plain); err != nil {
		return err
	}
	for _, mv := range moves {
		for _, s := range mv.vaults {
			if err := m.removeVaulted(s, mv.name); err != nil {
				m.stays(mv.name, "in "+s.String(), err)
				continue
			}
			m.tell(mv.name, "removed the key from %s", s)
		}
	}
	return nil
}

func (m *importing) removePlaintext(names []string) error {
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
