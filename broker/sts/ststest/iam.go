package ststest

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// What IAM keeps: accounts, users with keys and devices, roles with their
// trust policies.

type account struct{ id, partition string }

// arn returns the ARN of a resource in the account.
func (a *account) arn(service, kind, path, name string) string {
	if path == "" {
		path = "/"
	}
	return fmt.Sprintf("arn:%s:%s::%s:%s%s%s", a.partition, service, a.id, kind, path, name)
}

func (a *account) root() string { return "arn:" + a.partition + ":iam::" + a.id + ":root" }

type user struct {
	account       *account
	name, arn, id string
	path          string
	groups        []string
	devices       []string // serial numbers

	allow, deny, mfaFor []string // actions; see [User]
}

// An accessKey's fields below status are guarded by Sandbox.mu, it included.
type accessKey struct {
	id      string
	account *account
	user    *user // nil for the account's root user
	secret  string
	created time.Time

	status          KeyStatus
	knownFrom       time.Time // by all of AWS
	news            string    // what is left of [Config.NewKey]
	used            time.Time // zero means never
	usedFor, usedIn string    // service and region of the last use
}

// known reports whether a use of k meets a part of AWS that knows it.
func (k *accessKey) known(now time.Time) bool {
	if k.news != "" {
		first := k.news[0]
		k.news = k.news[1:]
		if first == '-' {
			return false
		}
	}
	return !now.Before(k.knownFrom)
}

type role struct {
	account       *account
	name, arn, id string
	max           time.Duration
	trust         []Statement
}

// A principal is who signed a request. At most one of user and role is set;
// neither means the account's root user.
type principal struct {
	account *account
	user    *user
	role    *role
	arn, id string
	session *session // nil for a long-term key
}

func rootPrincipal(a *account) *principal {
	return &principal{account: a, arn: a.root(), id: a.id}
}

func userPrincipal(u *user) *principal {
	return &principal{account: u.account, user: u, arn: u.arn, id: u.id}
}

// rolePrincipal is the principal of an assumed role's session.
func rolePrincipal(r *role, sessionName string) *principal {
	return &principal{
		account: r.account, role: r, id: r.id + ":" + sessionName,
		arn: fmt.Sprintf("arn:%s:sts::%s:assumed-role/%s/%s", r.account.partition, r.account.id, r.name, sessionName),
	}
}

func (p *principal) isRoot() bool { return p.user == nil && p.role == nil }

// matches reports whether p is meant by the Principal of a trust policy.
func (p *principal) matches(pattern string) bool {
	switch {
	case pattern == "*", pattern == p.account.id, pattern == p.account.root(), pattern == p.arn:
		return true
	}
	return p.role != nil && pattern == p.role.arn
}

// The actions that a trust policy can allow.
const (
	actAssumeRole        = "sts:AssumeRole"
	actTagSession        = "sts:TagSession"
	actSetSourceIdentity = "sts:SetSourceIdentity"
)

// An authContext is what the conditions of a trust policy see.
type authContext struct {
	caller     *principal
	externalID string
	// What the new session will be called, and whom it will stand for.
	sessionName, sourceIdentity string

	now time.Time
	mfa time.Time // when a code was given; zero means never
}

// allows returns "" if the role's trust policy allows the action, else why it
// does not.
func (r *role) allows(action string, in authContext) (why string) {
	var whys []string
	for _, st := range r.trust {
		w := st.denies(action, in)
		if w == "" {
			return ""
		}
		if !slices.Contains(whys, w) {
			whys = append(whys, w)
		}
	}
	return "trust policy: " + strings.Join(whys, "; ")
}

// denies returns "" if the statement allows the action, else the first of its
// conditions that fails.
func (st Statement) denies(action string, in authContext) (why string) {
	actions := st.Actions
	if len(actions) == 0 {
		actions = []string{actAssumeRole}
	}
	switch {
	case !slices.Contains(actions, action) && !slices.Contains(actions, "sts:*"):
		return action + " is not allowed"
	case !slices.ContainsFunc(st.Principals, in.caller.matches):
		return "the caller is not a trusted principal"
	case st.ExternalID != "" && in.externalID == "":
		return "the external id is missing"
	case st.ExternalID != "" && in.externalID != st.ExternalID:
		return "the external id is wrong"
	case st.SessionName != "" && in.sessionName != st.SessionName:
		return "the session name is another"
	case st.SourceIdentity != "" && in.sourceIdentity != st.SourceIdentity:
		return "the source identity is another"
	case (st.MFA || st.MFAAge > 0) && in.mfa.IsZero():
		return "MFA is required"
	case st.MFAAge > 0 && int(in.now.Sub(in.mfa)/time.Second) >= st.MFAAge:
		return "the MFA is too old"
	}
	return ""
}

// SetKeyStatus changes what a long-term key is, as an administrator would. It
// fails for a key that was never declared.
func (s *Sandbox) SetKeyStatus(accessKeyID string, status KeyStatus) error {
	if !status.valid() {
		return fmt.Errorf("key status %q is none of active, inactive, deleted", status)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[accessKeyID]
	if k == nil {
		return fmt.Errorf("no key %q", accessKeyID)
	}
	k.status = status
	return nil
}

// uniqueID derives an id in the form of IAM's (AIDA…, AROA…) from an ARN, so
// that it is the same in every run.
func uniqueID(prefix, arn string) string {
	sum := sha256.Sum256([]byte(arn))
	return prefix + base32.StdEncoding.EncodeToString(sum[:])[:17]
}

var (
	accountID     = regexp.MustCompile(`^[0-9]{12}$`)
	partitionName = regexp.MustCompile(`^aws(-[a-z]+)*$`)
	regionName    = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`)
	longTermKeyID = regexp.MustCompile(`^AKIA[A-Z0-9]{16}$`)
	pathPattern   = regexp.MustCompile(`^/([\w+=,.@-]+/)*$`)
	principalARN  = regexp.MustCompile(`^arn:aws(-[a-z]+)*:(iam::[0-9]{12}:(root|(user|role)/[\w+=,.@/-]+)|sts::[0-9]{12}:assumed-role/[\w+=,.@-]+/[\w+=,.@-]+)$`)
	roleARN       = regexp.MustCompile(`^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/[\w+=,.@/-]+$`)
)
