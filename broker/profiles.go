package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"gatepass/profiles"
)

// A Reach says whether a profile can be served with the keys that are stored.
type Reach string

// The values. A profile whose own configuration is broken is out of reach
// whatever the keychain says.
const (
	ReachYes     Reach = "yes"
	ReachNo      Reach = "no"
	ReachUnknown Reach = "unknown" // the keychain cannot be read now
)

// A ProfileList is what gatepass profiles list shows.
type ProfileList struct {
	Profiles []ProfileInfo  `json:"profiles"` // sorted by name
	Keychain KeychainStatus `json:"keychain"`
}

// ProfileInfo describes a profile in a line.
type ProfileInfo struct {
	Name      string `json:"name"`
	RoleARN   string `json:"role_arn,omitempty"` // of the last role of its chain
	Account   string `json:"account,omitempty"`
	Key       string `json:"key,omitempty"`
	Region    string `json:"region,omitempty"`
	Adopted   bool   `json:"adopted"`
	Reachable Reach  `json:"reachable"`
	Error     *Error `json:"error,omitempty"` // why it is out of reach
}

// ProfileDetail is what gatepass profiles show shows: the whole chain, and
// what is served at its end.
type ProfileDetail struct {
	ProfileInfo
	User            string         `json:"user_arn,omitempty"`   // whose key it is
	MFASerial       string         `json:"mfa_serial,omitempty"` // of the code that the chain starts with
	Hops            []ProfileHop   `json:"hops,omitempty"`
	DurationSeconds int            `json:"duration_seconds,omitempty"` // of the sessions that are served
	Serve           string         `json:"serve,omitempty"`
	Notes           []string       `json:"notes,omitempty"`
	Keychain        KeychainStatus `json:"keychain"`
}

// A ProfileHop is one AssumeRole of a chain, as the profile sets it.
type ProfileHop struct {
	Profile         string            `json:"profile"` // the one that names the role
	RoleARN         string            `json:"role_arn"`
	SessionName     string            `json:"session_name,omitempty"`
	ExternalID      string            `json:"external_id,omitempty"`
	MFASerial       string            `json:"mfa_serial,omitempty"`
	DurationSeconds int               `json:"duration_seconds,omitempty"`
	SourceIdentity  string            `json:"source_identity,omitempty"`
	Tags            map[string]string `json:"tags,omitempty"`
	TransitiveTags  []string          `json:"transitive_tags,omitempty"`
}

// ListProfiles tells of every profile in files what it leads to. It serves
// nothing and prompts nobody: with a keychain that cannot be read it says so
// and tells the rest.
func (b *Broker) ListProfiles(ctx context.Context, caller Caller, files profiles.Files) (ProfileList, error) {
	if err := b.Outside(ctx, caller, "list profiles"); err != nil {
		return ProfileList{}, err
	}
	files = b.files(files)
	keys := b.look(ctx)
	all, err := b.cfg.Profiles.All(files)
	if err != nil {
		return ProfileList{}, Errorf(CodeConfig, "list profiles: %w", err)
	}
	out := ProfileList{Profiles: []ProfileInfo{}}
	seen := <-keys
	out.Keychain = seen.state
	for r := range all {
		_, info := b.describe(r, seen)
		out.Profiles = append(out.Profiles, info)
	}
	return out, nil
}

// ShowProfile tells all about one profile, as ListProfiles does. A profile
// whose configuration is broken is an error, one whose key is missing is not.
func (b *Broker) ShowProfile(ctx context.Context, caller Caller, files profiles.Files, name string) (ProfileDetail, error) {
	if err := b.Outside(ctx, caller, "show profiles"); err != nil {
		return ProfileDetail{}, err
	}
	files = b.files(files)
	seen := <-b.look(ctx)
	chain, err := b.cfg.Profiles.Resolve(files, name)
	q, info := b.describe(profiles.Resolution{Name: name, Chain: chain, Err: err}, seen)
	if err != nil {
		if _, stored := seen.keys[name]; stored && info.Error.Code == CodeNotFound {
			return ProfileDetail{}, notAKey(info.Error, name)
		}
		return ProfileDetail{}, info.Error
	}
	out := ProfileDetail{
		ProfileInfo: info, User: q.key.UserARN, MFASerial: q.serial, Serve: chain.Serve, Keychain: seen.state,
		DurationSeconds: int(q.duration / time.Second),
		Notes:           append(b.remarks(q), chain.Notes...),
	}
	for _, h := range chain.Hops {
		hop := ProfileHop{
			Profile: h.Profile, RoleARN: h.RoleARN, SessionName: h.SessionName, ExternalID: h.ExternalID, MFASerial: h.MFASerial,
			DurationSeconds: int(h.Duration / time.Second), SourceIdentity: h.SourceIdentity, TransitiveTags: h.TransitiveTags,
		}
		for _, t := range h.Tags {
			if hop.Tags == nil {
				hop.Tags = make(map[string]string)
			}
			hop.Tags[t.Key] = t.Value
		}
		out.Hops = append(out.Hops, hop)
	}
	return out, nil
}

// A storedKeys is what the keychain showed of itself.
type storedKeys struct {
	state KeychainStatus
	keys  map[string]KeyInfo // nil when it could not be read
}

// look asks the keychain, without a prompt, which keys are stored. It answers
// once, also when ctx ends.
func (b *Broker) look(ctx context.Context) <-chan storedKeys {
	out := make(chan storedKeys, 1)
	go func() {
		seen := storedKeys{state: b.keychainState(ctx)}
		if seen.state.State == "ok" {
			keys, err := b.index.known(ctx)
			if err != nil {
				seen.state.fail(err)
			}
			seen.keys = keys
		}
		out <- seen
	}()
	return out
}

// describe says what the gate would make of a profile, and what a request for
// it would be.
func (b *Broker) describe(r profiles.Resolution, seen storedKeys) (*query, ProfileInfo) {
	info := ProfileInfo{Name: r.Name, Reachable: ReachNo}
	q := &query{profile: r.Name}
	if r.Err != nil {
		info.Error = ProfileError(r.Err)
		return q, info
	}
	chain := r.Chain
	q.chain = chain
	info.RoleARN, info.Key, info.Region, info.Adopted = roleARN(chain), chain.Key, chain.Region, chain.Adopted
	key, stored := seen.keys[chain.Key]
	q.key = key
	info.Account = account(q)
	switch err := b.plan(q, "", 0); {
	case err != nil:
		info.Error = AsError(err)
	case seen.keys == nil:
		info.Reachable = ReachUnknown
	case !stored:
		info.Error = AsError(b.noKey(chain))
	default:
		info.Reachable = ReachYes
	}
	return q, info
}

// startingWith yields the profiles in files that the gate would serve from a
// stored key, sorted by name, each as what a request for it would be.
func (b *Broker) startingWith(files profiles.Files, key KeyInfo) (iter.Seq[*query], error) {
	all, err := b.cfg.Profiles.All(b.files(files))
	if err != nil {
		return nil, Errorf(CodeConfig, "look through the profiles: %w", err)
	}
	stored := storedKeys{keys: map[string]KeyInfo{key.Name: key}}
	return func(yield func(*query) bool) {
		for r := range all {
			if r.Err != nil || r.Chain.Key != key.Name {
				continue
			}
			if q, info := b.describe(r, stored); info.Reachable == ReachYes && !yield(q) {
				return
			}
		}
	}, nil
}

// remarks say what somebody who looks at q's profile may not expect.
func (b *Broker) remarks(q *query) []string {
	var (
		notes []string
		hops  = q.chain.Hops
	)
	switch n := len(hops); {
	case n == 0 && q.serial == "":
		notes = append(notes, "a session of the key is served, never the key itself; without MFA it cannot call IAM, and of STS only AssumeRole and GetCallerIdentity")
	case n == 0:
		notes = append(notes, "a session of the key is served, never the key itself")
	case n > 1:
		note := "chained: a role that is assumed by a role lasts 1 h at most"
		if d := hops[n-1].Duration; d > chainedMaximum {
			note += fmt.Sprintf(", so its %s are not asked for", hours(d))
		}
		notes = append(notes, note)
	case q.serial != "" && hops[0].Duration > chainedMaximum:
		notes = append(notes, fmt.Sprintf("with MFA, a session of %s needs a code of its own: export and --duration ask for one, everything else gets sessions of 1 h that are renewed", hours(hops[0].Duration)))
	}
	return notes
}

// hours is d as a person writes it.
func hours(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", cmp.Or(d/time.Second, 1))
}

// explainProfile turns what package profiles says into an Error, and tells a
// user who named a key instead of a profile.
func (b *Broker) explainProfile(ctx context.Context, name string, err error) error {
	e := ProfileError(err)
	if e.Code != CodeNotFound {
		return e
	}
	if _, err := b.index.lookup(ctx, name); err == nil {
		return notAKey(e, name)
	}
	return e
}

func notAKey(e *Error, name string) *Error {
	return e.WithHint("a key of that name is stored, but a key is not a profile; add to ~/.aws/config: %s", section(name))
}

// ProfileError turns what package profiles says into an Error.
func ProfileError(err error) *Error {
	var missing *profiles.NotFoundError
	if !errors.As(err, &missing) {
		return Errorf(CodeConfig, "%w", err)
	}
	e := Errorf(CodeNotFound, "%w", err)
	if len(missing.Nearest) > 0 { // the message names them
		return e
	}
	return e.WithHint("add it to ~/.aws/config: %s", section(missing.Name))
}

// noKey says that the key that chain starts with is not stored, and where the
// profile says that it starts so.
func (b *Broker) noKey(chain *profiles.Chain) error {
	from := chain.KeyFrom
	near := profiles.Nearest(chain.Key, b.index.names())
	if !from.Explicit && len(chain.Hops) > 0 && chain.Hops[0].Profile == from.Profile {
		e := Errorf(CodeNotFound, "the role of profile %q has no key to start from: no source_profile, no gatepass_key, and no key named %q is stored (%s)",
			from.Profile, chain.Key, chain.Draw("key ", chain.Key))
		if len(near) > 0 {
			return e.WithHint("to start from the stored key %q, add to that profile: gatepass_key = %s", near[0], near[0])
		}
		return e.WithHint("add to that profile: gatepass_key = NAME, with a name of gatepass keys list; or store it: gatepass keys add %s", shellWord(chain.Key))
	}
	e := Errorf(CodeNotFound, "profile %q starts with the key %q, which is not stored (%s)", chain.Profile, chain.Key, chain.Draw("key ", chain.Key))
	if len(near) > 0 {
		return e.WithHint("did you mean the key %q? else store it: gatepass keys add %s", near[0], shellWord(chain.Key))
	}
	return e.WithHint("store it with: gatepass keys add %s", shellWord(chain.Key))
}

// section is the header of a profile, as it must be written to have the name.
func section(name string) string {
	if name == "default" {
		return "[default]"
	}
	return "[profile " + shellWord(name) + "]" // botocore unquotes as a shell does
}
