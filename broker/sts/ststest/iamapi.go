package ststest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const iamNamespace = "https://iam.amazonaws.com/doc/2010-05-08/"

// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
const (
	maxKeys   = 2  // access keys of a user, inactive ones included
	maxGroups = 10 // groups that a user is in
)

// iam is the part of Identity and Access Management that a user needs for its
// own keys and to know itself.
// https://docs.aws.amazon.com/IAM/latest/APIReference/welcome.html
func (s *Sandbox) iam() *service {
	svc := &service{
		name:      "iam",
		version:   "2010-05-08",
		namespace: iamNamespace,
		region:    "us-east-1", // of the one endpoint that serves the world
		actions:   map[string]action{},
	}
	for name, act := range map[string]iamAction{
		"CreateAccessKey":      s.createAccessKey,
		"UpdateAccessKey":      s.updateAccessKey,
		"DeleteAccessKey":      s.deleteAccessKey,
		"ListAccessKeys":       s.listAccessKeys,
		"GetAccessKeyLastUsed": s.getAccessKeyLastUsed,
		"GetUser":              s.getUser,
		"ListGroupsForUser":    s.listGroupsForUser,
		"ListMFADevices":       s.listMFADevices,
	} {
		svc.actions[name] = func(c *request) (any, *apiError) { return s.serveIAM(name, act, c) }
	}
	return svc
}

// An iamAction works on one user.
type iamAction func(c *request, u *user) (any, *apiError)

// serveIAM finds the user that a call is about and asks whether the caller may
// do it.
func (s *Sandbox) serveIAM(name string, act iamAction, c *request) (any, *apiError) {
	if ses := c.caller.session; ses != nil && c.caller.user != nil && ses.MFA == 0 {
		return nil, invalidToken("a session from GetSessionToken without MFA cannot call IAM")
	}
	var v violations
	ofUser := v.text
	if name == "ListGroupsForUser" { // the one that does not take it from the signature
		ofUser = v.required
	}
	userName := ofUser(c.params, "UserName", 1, 128, namePattern)
	c.SubjectKeyID = v.text(c.params, "AccessKeyId", 16, 128, keyIDPattern)
	if err := v.err(); err != nil {
		c.SubjectKeyID = ""
		return nil, err
	}
	var u *user
	switch {
	case name == "GetAccessKeyLastUsed": // goes by the key
		s.mu.Lock()
		if k := s.keys[c.SubjectKeyID]; k != nil {
			u = k.user
		}
		s.mu.Unlock()
		if u == nil || u.account != c.caller.account {
			return nil, accessDenied("User: " + c.caller.arn + " is not authorized to perform: iam:GetAccessKeyLastUsed on resource: access key " + c.SubjectKeyID)
		}
	case userName == "" && c.caller.user != nil && c.caller.session == nil:
		u = c.caller.user
	case userName == "":
		return nil, invalid("Must specify userName when calling with non-User credentials")
	default:
		for _, of := range s.users {
			if of.account == c.caller.account && of.name == userName {
				u = of
			}
		}
	}
	about := userName
	if about == "" && u != nil {
		about = u.name
	}
	if err := c.mayCall("iam:"+name, about); err != nil {
		return nil, err
	}
	if u == nil {
		return nil, noSuchEntity("The user with name %s cannot be found.", userName)
	}
	return act(c, u)
}

// mayCall checks the caller's declared permissions.
func (c *request) mayCall(action, resource string) *apiError {
	u := c.caller.user
	if u == nil {
		return nil
	}
	refused := "User: " + c.caller.arn + " is not authorized to perform: " + action + " on resource: user " + resource
	switch {
	case matchesAction(u.deny, action):
		return accessDenied(refused + " with an explicit deny in an identity-based policy")
	case len(u.allow) > 0 && !matchesAction(u.allow, action):
		return accessDenied(refused + " because no identity-based policy allows the " + action + " action")
	case matchesAction(u.mfaFor, action) && (c.caller.session == nil || c.caller.session.MFA == 0):
		return accessDenied(refused + " with an explicit deny in an identity-based policy").because("MFA is required")
	}
	return nil
}

// matchesAction reports whether one of patterns is action, "*" at its end
// standing for anything.
func matchesAction(patterns []string, action string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, wild := strings.CutSuffix(p, "*")
		return p == action || wild && strings.HasPrefix(action, prefix)
	})
}

func noSuchEntity(format string, args ...any) *apiError {
	return refuse(http.StatusNotFound, "NoSuchEntity", fmt.Sprintf(format, args...))
}

type createAccessKeyResult struct {
	XMLName   xml.Name `xml:"CreateAccessKeyResult"`
	AccessKey struct {
		UserName, AccessKeyID, Status, SecretAccessKey, CreateDate iamText
	}
}

// iamText is a string whose element has AWS's spelling, which differs from
// Go's for ids.
type iamText string

func (t iamText) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	if name, ok := strings.CutSuffix(start.Name.Local, "ID"); ok {
		start.Name.Local = name + "Id"
	}
	return e.EncodeElement(string(t), start)
}

func stamp(t time.Time) iamText { return iamText(t.UTC().Format(time.RFC3339)) }

func (s *Sandbox) createAccessKey(c *request, u *user) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keysOfLocked(u)) >= maxKeys {
		return nil, refuse(http.StatusConflict, "LimitExceeded", fmt.Sprintf("Cannot exceed quota for AccessKeysPerUser: %d", maxKeys))
	}
	var id [10]byte
	rand.Read(id[:])
	var secret [30]byte
	rand.Read(secret[:])
	k := &accessKey{
		id: "AKIA" + base32.StdEncoding.EncodeToString(id[:]), secret: base64.StdEncoding.EncodeToString(secret[:]),
		account: u.account, user: u, status: Active, created: c.now,
		news: s.config.NewKey, knownFrom: c.now.Add(time.Duration(s.config.NewKeyDelay) * time.Second),
	}
	s.keys[k.id] = k
	c.IssuedKeyID = k.id
	var out createAccessKeyResult
	out.AccessKey.UserName, out.AccessKey.AccessKeyID, out.AccessKey.Status = iamText(u.name), iamText(k.id), "Active"
	out.AccessKey.SecretAccessKey, out.AccessKey.CreateDate = iamText(k.secret), stamp(k.created)
	return out, nil
}

// keysOfLocked returns a user's keys that are not deleted, oldest first.
func (s *Sandbox) keysOfLocked(u *user) []*accessKey {
	var keys []*accessKey
	for _, k := range s.keys {
		if k.user == u && k.status != Deleted {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b *accessKey) int {
		if c := a.created.Compare(b.created); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
	return keys
}

// keyLocked returns the key that a call names.
func (s *Sandbox) keyLocked(c *request, u *user) (*accessKey, *apiError) {
	if c.SubjectKeyID == "" {
		return nil, invalid("1 validation error detected: Value null at 'accessKeyId' failed to satisfy constraint: Member must not be null")
	}
	if k := s.keys[c.SubjectKeyID]; k != nil && k.user == u && k.status != Deleted {
		return k, nil
	}
	return nil, noSuchEntity("The Access Key with id %s cannot be found.", c.SubjectKeyID)
}

// maxItems is how much of a listing IAM gives at once.
const maxItems = 100

// members are a listing; its element is there also where it is empty.
type members[V any] struct {
	Of []V `xml:"member"`
}

// A part says whether an answer is the last of its listing, and how to get the
// next one.
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListGroupsForUser.html
type part struct {
	IsTruncated bool
	Marker      string `xml:",omitempty"`
}

// cut leaves of a whole listing what the call asks for, at most as many as
// [Config.PageSize] says: IAM may give less than MaxItems.
func cut[V any](s *Sandbox, c *request, u *user, all *[]V, p *part) *apiError {
	var v violations
	n := v.number(c.params, "MaxItems", 1, 1000)
	marker := v.text(c.params, "Marker", 1, maxBody, markerPattern)
	if err := v.err(); err != nil {
		return err
	}
	if n == 0 {
		n = maxItems
	}
	if s.config.PageSize > 0 {
		n = min(n, s.config.PageSize)
	}
	from := 0
	for marker != "" && marker != c.marker(u, from) {
		if from++; from >= len(*all) {
			return invalid("Invalid Marker.")
		}
	}
	*all = (*all)[from:]
	if len(*all) > n {
		*all, p.IsTruncated, p.Marker = (*all)[:n], true, c.marker(u, from+n)
	}
	return nil
}

// marker returns what leads to the rest of a listing from its n-th entry on.
// Clients must not see what it means.
func (c *request) marker(u *user, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s of %s from %d", c.Action, u.arn, n))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// An emptyResult is what IAM answers where there is nothing to say.
type emptyResult struct{ XMLName xml.Name }

func (s *Sandbox) updateAccessKey(c *request, u *user) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.keyLocked(c, u)
	if err != nil {
		return nil, err
	}
	status := map[string]KeyStatus{"Active": Active, "Inactive": Inactive}[c.params["Status"]]
	if status == "" {
		return nil, invalid("1 validation error detected: Value at 'status' failed to satisfy constraint: Member must satisfy enum value set: [Active, Inactive]")
	}
	k.status = status
	return emptyResult{xml.Name{Local: "UpdateAccessKeyResult"}}, nil
}

func (s *Sandbox) deleteAccessKey(c *request, u *user) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.keyLocked(c, u)
	if err != nil {
		return nil, err
	}
	k.status = Deleted
	return emptyResult{xml.Name{Local: "DeleteAccessKeyResult"}}, nil
}

type keyMetadata struct {
	UserName, AccessKeyID, Status, CreateDate iamText
}

type listAccessKeysResult struct {
	XMLName  xml.Name             `xml:"ListAccessKeysResult"`
	UserName string               `xml:"UserName"`
	Keys     members[keyMetadata] `xml:"AccessKeyMetadata"`
	part
}

func (s *Sandbox) listAccessKeys(c *request, u *user) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &listAccessKeysResult{UserName: u.name}
	for _, k := range s.keysOfLocked(u) {
		status := iamText("Active")
		if k.status != Active {
			status = "Inactive"
		}
		out.Keys.Of = append(out.Keys.Of, keyMetadata{iamText(u.name), iamText(k.id), status, stamp(k.created)})
	}
	return out, cut(s, c, u, &out.Keys.Of, &out.part)
}

type getAccessKeyLastUsedResult struct {
	XMLName  xml.Name `xml:"GetAccessKeyLastUsedResult"`
	UserName string
	LastUsed struct {
		Date        string `xml:"LastUsedDate,omitempty"`
		ServiceName string
		Region      string
	} `xml:"AccessKeyLastUsed"`
}

func (s *Sandbox) getAccessKeyLastUsed(c *request, u *user) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.keyLocked(c, u)
	if err != nil {
		return nil, err
	}
	out := getAccessKeyLastUsedResult{UserName: u.name}
	out.LastUsed.ServiceName, out.LastUsed.Region = "N/A", "N/A"
	if !k.used.IsZero() {
		out.LastUsed.Date, out.LastUsed.ServiceName, out.LastUsed.Region = string(stamp(k.used)), k.usedFor, k.usedIn
	}
	return out, nil
}

type getUserResult struct {
	XMLName xml.Name `xml:"GetUserResult"`
	User    struct{ Path, UserName, UserID, Arn, CreateDate iamText }
}

// epoch is when all that a configuration declares was made, but for keys.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *Sandbox) getUser(c *request, u *user) (any, *apiError) {
	var out getUserResult
	out.User.Path, out.User.UserName, out.User.UserID = iamText(u.path), iamText(u.name), iamText(u.id)
	out.User.Arn, out.User.CreateDate = iamText(u.arn), stamp(epoch)
	return out, nil
}

type group struct{ Path, GroupName, GroupID, Arn, CreateDate iamText }

type listGroupsForUserResult struct {
	XMLName xml.Name `xml:"ListGroupsForUserResult"`
	Groups  members[group]
	part
}

func (s *Sandbox) listGroupsForUser(c *request, u *user) (any, *apiError) {
	out := &listGroupsForUserResult{}
	for _, name := range u.groups {
		arn := u.account.arn("iam", "group", "", name)
		out.Groups.Of = append(out.Groups.Of, group{"/", iamText(name), iamText(uniqueID("AGPA", arn)), iamText(arn), stamp(epoch)})
	}
	return out, cut(s, c, u, &out.Groups.Of, &out.part)
}

type mfaDevice struct{ UserName, SerialNumber, EnableDate iamText }

type listMFADevicesResult struct {
	XMLName xml.Name           `xml:"ListMFADevicesResult"`
	Devices members[mfaDevice] `xml:"MFADevices"`
	part
}

func (s *Sandbox) listMFADevices(c *request, u *user) (any, *apiError) {
	out := &listMFADevicesResult{}
	for _, serial := range u.devices {
		out.Devices.Of = append(out.Devices.Of, mfaDevice{iamText(u.name), iamText(serial), stamp(epoch)})
	}
	return out, cut(s, c, u, &out.Devices.Of, &out.part)
}
