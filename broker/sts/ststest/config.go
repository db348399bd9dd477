package ststest

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// A Config declares what exists in a [Sandbox]. Durations are in seconds, as
// in AWS's own API. The TOML form is shown by [ExampleTOML].
type Config struct {
	// Region, if set, is the only region that the credential scope may name.
	Region string `toml:"region"`
	// NewKey is what the first uses of a key from CreateAccessKey meet, one
	// character each: "-" a part of AWS that does not know it yet, "+" one that
	// does. After them it is known everywhere.
	NewKey string `toml:"new_key"`
	// NewKeyDelay is for how long nothing knows such a key, in seconds.
	NewKeyDelay int `toml:"new_key_delay"`
	// PageSize is the most that one answer of IAM lists; 0 means 100, as
	// where a call does not say MaxItems.
	PageSize int `toml:"page_size"`
	// SessionSeconds, if set, is how long a session lasts that was asked for
	// longer: AWS has none under 15 minutes, and nobody waits so long to see
	// one renewed, or expire.
	SessionSeconds int `toml:"session_seconds"`

	Accounts []Account `toml:"account"`

	Now func() time.Time `toml:"-"` // nil means time.Now
	Log func(Call)       `toml:"-"` // called once a call, before it is answered; may be nil
}

// An Account is an AWS account.
type Account struct {
	ID        string `toml:"id"`        // 12 digits
	Partition string `toml:"partition"` // "" means "aws"
	RootKeys  []Key  `toml:"root_key"`  // keys of the account's root user
	Users     []User `toml:"user"`
	Roles     []Role `toml:"role"`
}

// A User is an IAM user. Of STS a user may call everything; of IAM what the
// three lists of actions say, such as "iam:ListAccessKeys" or "iam:*".
type User struct {
	Name   string   `toml:"name"`
	Path   string   `toml:"path"`   // "" means "/"
	Groups []string `toml:"groups"` // at most ten
	Keys   []Key    `toml:"key"`    // at most two
	MFA    []Device `toml:"mfa"`

	Allow       []string `toml:"allow"`        // none means all
	Deny        []string `toml:"deny"`         // goes before Allow
	RequiresMFA []string `toml:"requires_mfa"` // denied without aws:MultiFactorAuthPresent
}

// A Key is a long-term access key.
type Key struct {
	ID     string    `toml:"id"` // "AKIA" and 16 more
	Secret string    `toml:"secret"`
	Status KeyStatus `toml:"status"` // "" means [Active]
	// Created is when it was made. Zero means 30 days before the sandbox was.
	Created time.Time `toml:"created"`
}

// A KeyStatus says what became of a [Key]. AWS answers alike for a key that is
// inactive, deleted or was never there.
type KeyStatus string

// The statuses.
const (
	Active   KeyStatus = "active"
	Inactive KeyStatus = "inactive"
	Deleted  KeyStatus = "deleted"
)

func (s KeyStatus) valid() bool { return s == Active || s == Inactive || s == Deleted }

// A Device is a virtual MFA device.
type Device struct {
	Serial string `toml:"serial"` // its ARN
	Seed   string `toml:"seed"`   // base32; see [TOTP]
}

// A Role is an IAM role.
type Role struct {
	Name               string      `toml:"name"`
	Path               string      `toml:"path"`                 // "" means "/"
	MaxSessionDuration int         `toml:"max_session_duration"` // 3600–43200; 0 means 3600
	Trust              []Statement `toml:"trust"`
}

// A Statement is one Allow statement of a role's trust policy. All that it
// says must hold.
type Statement struct {
	// Principals are ARNs of users, of roles or of assumed-role sessions; an
	// account ("arn:aws:iam::111122223333:root" or its 12 digits), meaning all
	// in it; or "*".
	Principals []string `toml:"principals"`
	// Actions are of sts:AssumeRole, sts:TagSession, sts:SetSourceIdentity and
	// sts:*. None means sts:AssumeRole.
	Actions []string `toml:"actions"`
	// ExternalID is the condition StringEquals sts:ExternalId.
	ExternalID string `toml:"external_id"`
	// SessionName is the condition StringEquals sts:RoleSessionName.
	SessionName string `toml:"session_name"`
	// SourceIdentity is the condition StringEquals sts:SourceIdentity: set by
	// the request or passed on by the calling session.
	SourceIdentity string `toml:"source_identity"`
	// MFA is the condition Bool aws:MultiFactorAuthPresent.
	MFA bool `toml:"mfa"`
	// MFAAge is the condition NumericLessThan aws:MultiFactorAuthAge; it fails
	// without MFA.
	MFAAge int `toml:"mfa_age"`
}

// ExampleTOML is the built-in example as gatepass-sandbox --print-config
// prints it.
//
//go:embed example.toml
var ExampleTOML string

// Some names in the built-in example.
const (
	AliceARN    = "arn:aws:iam::111122223333:user/alice"
	AliceDevice = "arn:aws:iam::111122223333:mfa/alice"

	DeployARN   = "arn:aws:iam::111122223333:role/Deploy"   // trusts alice
	OperatorARN = "arn:aws:iam::111122223333:role/Operator" // trusts alice; sessions of up to 12 hours
	AdminARN    = "arn:aws:iam::111122223333:role/Admin"    // trusts the account, with MFA younger than an hour
	TaggedARN   = "arn:aws:iam::111122223333:role/Tagged"   // trusts alice and Deploy, allows tags and source identity
	AuditARN    = "arn:aws:iam::444455556666:role/Audit"    // trusts Deploy: a chain across accounts
	ReadOnlyARN = "arn:aws:iam::444455556666:role/ReadOnly" // trusts alice's account, with ReadOnlyExternalID

	ReadOnlyExternalID = "gatepass-example"
)

// Example returns the built-in example.
func Example() Config {
	c, err := ParseConfig("example.toml", []byte(ExampleTOML))
	if err != nil {
		panic(err)
	}
	return c
}

// ParseConfig parses TOML. Errors name the file and, for syntax, types and
// unknown keys, the line and key. What the accounts say is checked by [New].
func ParseConfig(file string, data []byte) (Config, error) {
	var c Config
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	err := dec.Decode(&c)
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		e := &unknown.Errors[0]
		row, _ := e.Position()
		return Config{}, fmt.Errorf("%s:%d: unknown key %s", file, row, strings.Join(e.Key(), "."))
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		row, _ := bad.Position()
		what := strings.TrimPrefix(bad.Error(), "toml: ")
		if key := strings.Join(bad.Key(), "."); key != "" {
			what = key + ": " + what
		}
		return Config{}, fmt.Errorf("%s:%d: %s", file, row, what)
	}
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// Key returns the first key of the user of that name, or of an account's root
// user for "root". The zero Key means that there is none.
func (c Config) Key(user string) Key {
	for _, a := range c.Accounts {
		if user == "root" && len(a.RootKeys) > 0 {
			return a.RootKeys[0]
		}
		for _, u := range a.Users {
			if u.Name == user && len(u.Keys) > 0 {
				return u.Keys[0]
			}
		}
	}
	return Key{}
}

// Device returns the first MFA device of the user of that name, or the zero
// Device.
func (c Config) Device(user string) Device {
	for _, a := range c.Accounts {
		for _, u := range a.Users {
			if u.Name == user && len(u.MFA) > 0 {
				return u.MFA[0]
			}
		}
	}
	return Device{}
}

// Key is [Config.Key] of the Sandbox's configuration.
func (s *Sandbox) Key(user string) Key { return s.config.Key(user) }

// Device is [Config.Device] of the Sandbox's configuration.
func (s *Sandbox) Device(user string) Device { return s.config.Device(user) }

// Code returns the code that the user's MFA device shows now, by the Sandbox's
// clock, or "" for a user without one.
func (s *Sandbox) Code(user string) string {
	d := s.Device(user)
	if d.Serial == "" {
		return ""
	}
	return TOTP(d.Seed, s.config.Now())
}

// index checks the configuration and makes it searchable.
func (s *Sandbox) index() error {
	s.accounts = map[string]*account{}
	s.users = map[string]*user{}
	s.roles = map[string]*role{}
	s.keys = map[string]*accessKey{}
	s.codes = map[string]*device{}
	if s.config.Region != "" && !regionName.MatchString(s.config.Region) {
		return fmt.Errorf("region %q is not a region's name", s.config.Region)
	}
	if strings.Trim(s.config.NewKey, "+-") != "" || s.config.NewKeyDelay < 0 {
		return errors.New("new_key is of + and -, and new_key_delay is not negative")
	}
	if s.config.PageSize < 0 {
		return errors.New("page_size is negative")
	}
	if s.config.SessionSeconds < 0 {
		return errors.New("session_seconds is negative")
	}
	for _, a := range s.config.Accounts {
		if err := s.indexAccount(a); err != nil {
			return fmt.Errorf("account %q: %w", a.ID, err)
		}
	}
	return nil
}

func (s *Sandbox) indexAccount(in Account) error {
	a := &account{id: in.ID, partition: in.Partition}
	if a.partition == "" {
		a.partition = "aws"
	}
	switch {
	case !accountID.MatchString(a.id):
		return errors.New("an account's id is 12 digits")
	case !partitionName.MatchString(a.partition):
		return fmt.Errorf("partition %q is not a partition's name", a.partition)
	case s.accounts[a.id] != nil:
		return errors.New("declared twice")
	}
	s.accounts[a.id] = a
	if err := s.indexKeys(in.RootKeys, a, nil); err != nil {
		return fmt.Errorf("root user: %w", err)
	}
	for _, u := range in.Users {
		if err := s.indexUser(u, a); err != nil {
			return fmt.Errorf("user %q: %w", u.Name, err)
		}
	}
	for _, r := range in.Roles {
		if err := s.indexRole(r, a); err != nil {
			return fmt.Errorf("role %q: %w", r.Name, err)
		}
	}
	return nil
}

func (s *Sandbox) indexUser(in User, a *account) error {
	if err := checkName(in.Name, in.Path); err != nil {
		return err
	}
	u := &user{
		account: a, name: in.Name, arn: a.arn("iam", "user", in.Path, in.Name), path: in.Path,
		groups: in.Groups, allow: in.Allow, deny: in.Deny, mfaFor: in.RequiresMFA,
	}
	if u.path == "" {
		u.path = "/"
	}
	for _, action := range slices.Concat(in.Allow, in.Deny, in.RequiresMFA) {
		if !strings.HasPrefix(action, "iam:") {
			return fmt.Errorf("%q is not an action of IAM, such as iam:ListAccessKeys or iam:*", action)
		}
	}
	if len(in.Groups) > maxGroups {
		return fmt.Errorf("more than %d groups", maxGroups)
	}
	for i, g := range in.Groups {
		switch {
		case checkText(g, 1, 128, namePattern) != "":
			return fmt.Errorf("group %q: not a name that IAM allows", g)
		case slices.ContainsFunc(in.Groups[:i], func(other string) bool { return strings.EqualFold(g, other) }):
			return fmt.Errorf("group %q: declared twice", g)
		}
	}
	u.id = uniqueID("AIDA", u.arn)
	if s.users[u.arn] != nil {
		return errors.New("declared twice")
	}
	s.users[u.arn] = u
	if err := s.indexKeys(in.Keys, a, u); err != nil {
		return err
	}
	for _, d := range in.MFA {
		seed, err := decodeSeed(d.Seed)
		switch {
		case err != nil:
			return fmt.Errorf("mfa %q: the seed is not base32", d.Serial)
		case checkText(d.Serial, 9, 256, serialPattern) != "":
			return fmt.Errorf("mfa %q: not a serial number", d.Serial)
		case s.codes[d.Serial] != nil:
			return fmt.Errorf("mfa %q: declared twice", d.Serial)
		}
		s.codes[d.Serial] = &device{owner: u, seed: seed}
		u.devices = append(u.devices, d.Serial)
	}
	return nil
}

func (s *Sandbox) indexKeys(keys []Key, a *account, u *user) error {
	if len(keys) > 2 {
		return errors.New("more than two access keys")
	}
	for _, k := range keys {
		if k.Status == "" {
			k.Status = Active
		}
		if k.Created.IsZero() {
			k.Created = s.config.Now().Add(-30 * 24 * time.Hour)
		}
		switch {
		case !longTermKeyID.MatchString(k.ID):
			return fmt.Errorf("key %q: an access key id is AKIA and 16 more capitals and digits", k.ID)
		case k.Secret == "":
			return fmt.Errorf("key %q: no secret", k.ID)
		case !k.Status.valid():
			return fmt.Errorf("key %q: status %q is none of active, inactive, deleted", k.ID, k.Status)
		case s.keys[k.ID] != nil:
			return fmt.Errorf("key %q: declared twice", k.ID)
		}
		s.keys[k.ID] = &accessKey{id: k.ID, account: a, user: u, secret: k.Secret, status: k.Status, created: k.Created}
	}
	return nil
}

func (s *Sandbox) indexRole(in Role, a *account) error {
	if err := checkName(in.Name, in.Path); err != nil {
		return err
	}
	r := &role{
		account: a, name: in.Name, arn: a.arn("iam", "role", in.Path, in.Name),
		max: time.Duration(in.MaxSessionDuration) * time.Second, trust: in.Trust,
	}
	r.id = uniqueID("AROA", r.arn)
	if r.max == 0 {
		r.max = time.Hour
	}
	switch {
	case r.max < time.Hour || r.max > 12*time.Hour:
		return errors.New("max_session_duration is 3600 to 43200")
	case s.roles[r.arn] != nil:
		return errors.New("declared twice")
	case len(in.Trust) == 0:
		return errors.New("nobody may assume it: no [[account.role.trust]]")
	}
	s.roles[r.arn] = r
	for _, st := range in.Trust {
		if err := st.check(); err != nil {
			return err
		}
	}
	return nil
}

func (st Statement) check() error {
	if len(st.Principals) == 0 {
		return errors.New("trust: no principals")
	}
	for _, p := range st.Principals {
		if p != "*" && !accountID.MatchString(p) && !principalARN.MatchString(p) {
			return fmt.Errorf("trust: %q is not a principal", p)
		}
	}
	for _, a := range st.Actions {
		if !slices.Contains([]string{actAssumeRole, actTagSession, actSetSourceIdentity, "sts:*"}, a) {
			return fmt.Errorf("trust: action %q is none of sts:AssumeRole, sts:TagSession, sts:SetSourceIdentity, sts:*", a)
		}
	}
	switch {
	case st.ExternalID != "" && checkText(st.ExternalID, 2, 1224, externalIDPattern) != "":
		return errors.New("trust: external_id is not one that a caller may send")
	case st.SessionName != "" && checkText(st.SessionName, 2, 64, namePattern) != "":
		return errors.New("trust: session_name is not one that a caller may send")
	case st.SourceIdentity != "" && checkText(st.SourceIdentity, 2, 64, namePattern) != "":
		return errors.New("trust: source_identity is not one that a caller may send")
	case st.MFAAge < 0:
		return errors.New("trust: mfa_age is negative")
	}
	return nil
}

// checkName checks the name and path of a user or role.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
func checkName(name, path string) error {
	if checkText(name, 1, 64, namePattern) != "" {
		return errors.New("not a name that IAM allows")
	}
	if path != "" && !pathPattern.MatchString(path) {
		return fmt.Errorf("path %q does not begin and end with a slash", path)
	}
	return nil
}
