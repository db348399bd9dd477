package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"gatepass/profiles"
)

// An IdentityDetail is what gatepass whoami shows: whom AWS sees, the IAM user
// behind it, and what that user has. What could not be seen is absent, and
// Unknown says why.
type IdentityDetail struct {
	Identity
	Profile string         `json:"profile,omitempty"` // "" for the key itself
	Session *SessionStatus `json:"session,omitempty"` // absent for the key itself
	User    KeyUser        `json:"user"`
	Groups  []string       `json:"groups,omitzero"` // sorted
	MFA     MFAState       `json:"mfa"`
	Roles   []RoleInReach  `json:"roles,omitzero"` // sorted by profile
	Unknown []Unknown      `json:"unknown,omitempty"`
}

// A KeyUser is the IAM user whose stored key is behind an identity.
type KeyUser struct {
	ARN         string `json:"arn,omitempty"`
	Name        string `json:"name,omitempty"`
	Account     string `json:"account,omitempty"`
	Key         string `json:"key"`
	AccessKeyID string `json:"access_key_id"`
}

// MFAState tells of a user's devices, and what was proved with them.
type MFAState struct {
	Devices []MFADevice   `json:"devices,omitzero"`
	Proofs  []ProofStatus `json:"proofs"` // that are kept; the longest first
}

// A RoleInReach is the role of a profile that starts with the same key. That
// the role's trust policy agrees is not known.
type RoleInReach struct {
	Profile   string   `json:"profile"`
	RoleARN   string   `json:"role_arn"`
	Account   string   `json:"account"`
	Through   []string `json:"through,omitempty"`    // the roles that are assumed before it
	MFASerial string   `json:"mfa_serial,omitempty"` // of the code that its chain starts with
}

// An Unknown is something that could not be seen, and why.
type Unknown struct {
	What       string `json:"what"`                 // "profile", "user", "groups", "mfa_devices" or "roles"
	Permission string `json:"permission,omitempty"` // of the user on itself, that would show it
	Code       Code   `json:"code"`
	Message    string `json:"message"`
	Hint       string `json:"hint,omitempty"`
	Detail     string `json:"detail,omitempty"` // AWS's own words, where Message is ours
}

// iamPatience bounds what IAM is asked beside the identity.
const iamPatience = 15 * time.Second

// WhoAmI asks AWS whom a profile's session speaks for, and IAM about the user
// behind it. The session passes the gate like any other and stays in the
// daemon. Without a profile, [default] is meant where it can be served, else
// the only key that is stored. Its error is that of the identity: what IAM
// does not tell is no failure. It may be an [*AskError].
func (b *Broker) WhoAmI(ctx context.Context, caller Caller, req Request) (IdentityDetail, error) {
	q := &query{profile: req.Profile}
	var unserved *Unknown
	l, err := b.within(caller)
	if err != nil {
		return IdentityDetail{}, b.refuse(ctx, caller, q, req.Reason, err)
	}
	if l != nil && req.Profile == "" {
		req.Profile = l.Profiles[0]
	}
	if req.Profile == "" {
		profile, key, why, err := b.unnamed(ctx, caller, req)
		if ask, ok := asAsk(err); ok {
			return IdentityDetail{}, ask
		}
		if err != nil {
			return IdentityDetail{}, b.refuse(ctx, caller, q, req.Reason, err)
		}
		req.Profile, q.profile, q.key, unserved = profile, profile, key, why
	}
	var out IdentityDetail
	if req.Profile == "" {
		q.target = Target{Region: req.Region}
		key, err := b.keyFor(ctx, q)
		if err == nil {
			defer key.SecretAccessKey.Clear()
			out, err = b.identify(ctx, req, q, key.Credentials(), &key)
		}
		if err != nil {
			return IdentityDetail{}, b.refuse(ctx, caller, q, req.Reason, err)
		}
	} else {
		s, err := b.pass(ctx, caller, l, q, req)
		if err != nil {
			return IdentityDetail{}, err
		}
		if out, err = b.identify(ctx, req, q, s.creds, nil); err != nil {
			return IdentityDetail{}, b.refuse(ctx, caller, q, req.Reason, err)
		}
		status := s.status()
		out.Profile, out.Session = q.profile, &status
	}
	if unserved != nil {
		out.Unknown = append([]Unknown{*unserved}, out.Unknown...)
	}
	return out, nil
}

// unnamed finds what is meant where no profile is named. For a key it returns
// no profile and, where there is a [default] that was meant to be served, why
// it is not.
func (b *Broker) unnamed(ctx context.Context, caller Caller, req Request) (profile string, key KeyInfo, unserved *Unknown, err error) {
	req.Profile = "default"
	q := &query{profile: req.Profile}
	err = b.resolve(ctx, caller, req, q)
	why := AsError(err)
	switch CodeOf(err) {
	case "":
		return req.Profile, KeyInfo{}, nil, nil
	case CodeNotFound, CodeConfig:
	default:
		return "", KeyInfo{}, nil, err
	}
	if err := b.open(ctx, caller, "", req.Reachable); err != nil {
		return "", KeyInfo{}, nil, fmt.Errorf("look for the only stored key: %w", err)
	}
	keys, err := b.index.list(ctx)
	switch {
	case err != nil:
		return "", KeyInfo{}, nil, fmt.Errorf("look for the only stored key: %w", err)
	case len(keys) == 0:
		return "", KeyInfo{}, nil, Errorf(CodeNotFound, "no profile is named, and no key is stored").
			WithHint("store the key of an IAM user: gatepass keys add NAME")
	case len(keys) > 1 && why.Code == CodeConfig:
		return "", KeyInfo{}, nil, why
	case len(keys) > 1:
		return "", KeyInfo{}, nil, Errorf(CodeUsage, "no profile is named, there is no [default] with a stored key, and %d keys are stored", len(keys)).
			WithHint("name a profile, or set AWS_PROFILE: gatepass profiles list shows them")
	}
	// A [default] that only sets a region says nothing about keys.
	if c := q.chain; why.Code == CodeConfig || c != nil && (len(c.Hops) > 0 || c.KeyFrom.Explicit || len(c.Way) > 1) {
		unserved = &Unknown{What: "profile", Code: why.Code, Message: why.Message, Hint: why.Hint}
	}
	return "", keys[0], unserved, nil
}

// identify asks, all at once, whom creds speak for, what IAM tells of the user
// behind q's key, and where that key leads. A nil key is read from the
// keychain.
func (b *Broker) identify(ctx context.Context, req Request, q *query, creds Credentials, key *Key) (IdentityDetail, error) {
	ctx, cancel := context.WithCancel(ctx)
	var (
		beside sync.WaitGroup
		user   inquiry
		lead   leads
	)
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { user = b.inquire(ctx, q, key) })
	beside.Go(func() { lead = b.leadsOf(req.Files, q.key) })
	id, err := b.cfg.STS.CallerIdentity(ctx, creds, q.target)
	if err != nil {
		return IdentityDetail{}, err
	}
	beside.Wait()

	out := IdentityDetail{
		Identity: id,
		User: KeyUser{
			ARN: user.arn, Name: user.arn[strings.LastIndexAny(user.arn, "/:")+1:], Account: accountOf(user.arn),
			Key: q.key.Name, AccessKeyID: q.key.AccessKeyID,
		},
		MFA:   MFAState{Proofs: []ProofStatus{}},
		Roles: lead.roles,
	}
	for _, p := range user.proofs {
		out.MFA.Proofs = append(out.MFA.Proofs, p.status())
	}
	if user.err != nil {
		out.Unknown = append(out.Unknown, unseen("user", user.err))
	}
	if user.noGroups == nil {
		out.Groups = append([]string{}, user.groups...)
		slices.Sort(out.Groups)
	} else {
		out.Unknown = append(out.Unknown, user.denied("groups", "iam:ListGroupsForUser", user.noGroups, q, lead.proves))
	}
	if user.noDevices == nil {
		out.MFA.Devices = append([]MFADevice{}, user.devices...)
	} else {
		out.Unknown = append(out.Unknown, user.denied("mfa_devices", "iam:ListMFADevices", user.noDevices, q, lead.proves))
	}
	if lead.err != nil {
		out.Unknown = append(out.Unknown, unseen("roles", lead.err))
	}
	return out, nil
}

// An inquiry is what could be learnt of the user behind a key.
type inquiry struct {
	arn    string
	err    error // why there is no arn
	proofs []*base

	groups              []string
	devices             []MFADevice
	noGroups, noDevices error
}

// inquire asks IAM about the user of q's key, as far as that goes within
// iamPatience. It asks nobody for an MFA code.
func (b *Broker) inquire(ctx context.Context, q *query, key *Key) (u inquiry) {
	ctx, cancel := context.WithTimeout(ctx, iamPatience)
	defer cancel()
	proofs := sync.OnceValue(func() []*base { return b.proofsOf(q.key) })
	defer func() { u.proofs = proofs() }()
	u.arn = q.key.UserARN
	none := func(err error) inquiry {
		u.noGroups, u.noDevices = err, err
		return u
	}
	if key == nil {
		read, err := b.keyFor(ctx, q)
		if err != nil {
			return none(err)
		}
		defer read.SecretAccessKey.Clear()
		key = &read
	}
	creds := key.Credentials()
	if u.arn == "" { // it was stored unproved
		id, err := b.cfg.STS.CallerIdentity(ctx, creds, q.target)
		if u.err = err; err != nil {
			return none(err)
		}
		u.arn = id.ARN
	}
	switch {
	case b.cfg.IAM == nil:
		return none(Errorf(CodeConfig, "this daemon has no way to IAM"))
	case !strings.Contains(u.arn, ":user/"):
		return none(Errorf(CodeConfig, "the key is of %s, and IAM tells of its users alone", u.arn))
	}
	endpoint := ""
	if q.chain != nil {
		endpoint = q.chain.IAMEndpoint
	}
	prove := func(denied error) (*base, error) {
		for _, p := range proofs() {
			if p.left(b.cfg.Clock) >= baseMargin {
				return p, nil
			}
		}
		return nil, &withoutMFA{denied}
	}
	var both sync.WaitGroup
	both.Go(func() {
		list := func(c Credentials) ([]string, error) { return b.cfg.IAM.Groups(ctx, c, u.arn, endpoint) }
		u.groups, u.noGroups = keyOrProof(func() ([]string, error) { return list(creds) }, prove, list)
	})
	both.Go(func() {
		list := func(c Credentials) ([]MFADevice, error) { return b.cfg.IAM.MFADevices(ctx, c, u.arn, endpoint) }
		u.devices, u.noDevices = keyOrProof(func() ([]MFADevice, error) { return list(creds) }, prove, list)
	})
	both.Wait()
	return u
}

// A withoutMFA is IAM's refusal to a key for which no proof of MFA is kept.
type withoutMFA struct{ error }

func (e *withoutMFA) Unwrap() error { return e.error }

// denied says why IAM does not tell what, with the permission that would show
// it and, where MFA may be what is missing, a profile that proves it.
func (u *inquiry) denied(what, permission string, err error, q, proves *query) Unknown {
	out := unseen(what, err)
	out.Permission = permission
	allow := "allow the user " + permission + " on itself"
	_, unproved := err.(*withoutMFA)
	switch {
	case unproved && proves != nil:
		again := "gatepass whoami " + shellWord(proves.profile)
		if proves.profile == q.profile && !q.direct {
			again += fmt.Sprintf(" --min-left %d", q.duration/time.Second) // or its session would do
		}
		out.Message, out.Detail = "IAM denies "+permission+" without MFA", out.Message
		out.Hint = "with MFA: " + again + "; or " + allow
	case unproved:
		serial := "ARN"
		if i := slices.IndexFunc(u.devices, func(d MFADevice) bool { return !d.SecurityKey() }); i >= 0 {
			serial = u.devices[i].Serial
		}
		out.Message, out.Detail = "IAM denies "+permission, out.Message
		out.Hint = allow + "; if it wants MFA, name the device in a profile of this key: mfa_serial = " + serial
	case refusedWith(err, accessDenied...):
		out.Message, out.Detail = "IAM denies "+permission+", with MFA too", out.Message
		out.Hint = allow
	case errors.Is(err, context.DeadlineExceeded): // ours
		out.Message, out.Detail = fmt.Sprintf("IAM did not answer within %s", iamPatience), out.Message
		out.Hint = "check the network connection, and the proxy if there is one"
	case refusedWith(err, "NoSuchEntity"):
		out.Hint = fmt.Sprintf("was the user renamed? then store its key anew: gatepass keys remove %s, gatepass keys add %[1]s", q.key.Name)
	}
	return out
}

func unseen(what string, err error) Unknown {
	e := AsError(err)
	return Unknown{What: what, Code: e.Code, Message: e.Message, Hint: e.Hint}
}

// leads are what a config makes of a key.
type leads struct {
	roles  []RoleInReach
	proves *query // the first profile whose chain starts with MFA; nil for none
	err    error
}

// leadsOf looks through the profiles that start with a key.
func (b *Broker) leadsOf(files profiles.Files, key KeyInfo) leads {
	all, err := b.startingWith(files, key)
	if err != nil {
		return leads{err: err}
	}
	out := leads{roles: []RoleInReach{}}
	for q := range all {
		if q.serial != "" && out.proves == nil {
			out.proves = q
		}
		last := len(q.chain.Hops) - 1
		if last < 0 {
			continue
		}
		role := RoleInReach{Profile: q.profile, RoleARN: q.chain.Hops[last].RoleARN, Account: account(q), MFASerial: q.serial}
		for _, hop := range q.chain.Hops[:last] {
			role.Through = append(role.Through, hop.RoleARN)
		}
		out.roles = append(out.roles, role)
	}
	return out
}

// proofsOf returns the proofs of a key that still count, the longest first:
// those in memory, else the one that the keychain keeps.
func (b *Broker) proofsOf(key KeyInfo) []*base {
	var proofs []*base
	b.mu.Lock()
	for k, s := range b.baseSessions {
		if strings.HasPrefix(k, key.AccessKeyID+"\x00") && s.left(b.cfg.Clock) > 0 {
			proofs = append(proofs, s)
		}
	}
	b.mu.Unlock()
	if len(proofs) == 0 {
		if s := b.readBase(key); s != nil {
			proofs = append(proofs, s)
		}
	}
	slices.SortFunc(proofs, func(x, y *base) int {
		return cmp.Or(y.creds.Expires.Compare(x.creds.Expires), cmp.Compare(x.serial, y.serial))
	})
	return proofs
}
