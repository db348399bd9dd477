package ststest

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"time"
)

const stsNamespace = "https://sts.amazonaws.com/doc/2011-06-15/"

// sts is the Security Token Service.
// https://docs.aws.amazon.com/STS/latest/APIReference/welcome.html
func (s *Sandbox) sts() *service {
	return &service{
		name:      "sts",
		version:   "2011-06-15",
		namespace: stsNamespace,
		actions: map[string]action{
			"AssumeRole":        s.assumeRole,
			"GetSessionToken":   s.getSessionToken,
			"GetCallerIdentity": s.getCallerIdentity,
		},
	}
}

type credentials struct {
	AccessKeyID     string `xml:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      string // RFC 3339, whole seconds, UTC
}

type getCallerIdentityResult struct {
	XMLName xml.Name `xml:"GetCallerIdentityResult"`
	Arn     string
	UserID  string `xml:"UserId"`
	Account string
}

func (s *Sandbox) getCallerIdentity(c *request) (any, *apiError) {
	return getCallerIdentityResult{Arn: c.caller.arn, UserID: c.caller.id, Account: c.caller.account.id}, nil
}

type getSessionTokenResult struct {
	XMLName     xml.Name `xml:"GetSessionTokenResult"`
	Credentials credentials
}

func (s *Sandbox) getSessionToken(c *request) (any, *apiError) {
	var v violations
	duration := v.seconds(c.params, 900, 129600)
	serial := v.text(c.params, "SerialNumber", 9, 256, serialPattern)
	v.text(c.params, "TokenCode", 6, 6, codePattern)
	if err := v.err(); err != nil {
		return nil, err
	}
	c.MFASerial = serial
	if c.caller.session != nil {
		return nil, accessDenied("Cannot call GetSessionToken with session credentials")
	}
	mfa, err := s.checkMFA(c)
	if err != nil {
		return nil, err
	}
	if duration == 0 {
		duration = 43200
	}
	if c.caller.isRoot() {
		duration = min(duration, 3600)
	}
	duration = s.shortened(duration)
	c.DurationSeconds = duration
	ses := newSession(c, duration)
	ses.Principal = c.caller.arn
	if !mfa.IsZero() {
		ses.MFA = mfa.Unix()
	}
	creds := s.sealer.seal(ses)
	c.IssuedKeyID = creds.AccessKeyID
	return getSessionTokenResult{Credentials: creds}, nil
}

// shortened is how long a session lasts that may last d seconds.
func (s *Sandbox) shortened(d int) int {
	if most := s.config.SessionSeconds; most > 0 {
		return min(d, most)
	}
	return d
}

func newSession(c *request, duration int) session {
	now := c.now.Unix()
	return session{Issued: now, Expires: now + int64(duration)}
}

type assumeRoleResult struct {
	XMLName         xml.Name `xml:"AssumeRoleResult"`
	AssumedRoleUser struct {
		AssumedRoleID string `xml:"AssumedRoleId"`
		Arn           string
	}
	Credentials      credentials
	PackedPolicySize *int   `xml:",omitempty"` // percent; absent without policies and tags
	SourceIdentity   string `xml:",omitempty"`
}

// An assumeRoleRequest is what a well-formed AssumeRole asks for.
type assumeRoleRequest struct {
	roleARN, sessionName, externalID, sourceIdentity, mfaSerial string

	duration   int // seconds; 0 means the default
	policyARNs []string
	tags       map[string]string
	transitive []string
	packed     int // percent of what a token can hold
}

// record notes the request. Only a well-formed one is noted, so that what the
// record holds is short and fit to print.
func (in assumeRoleRequest) record(c *Call) {
	c.RoleARN, c.SessionName, c.SourceIdentity = in.roleARN, in.sessionName, in.sourceIdentity
	c.MFASerial, c.DurationSeconds, c.PolicyARNs = in.mfaSerial, in.duration, in.policyARNs
	c.TransitiveTags = in.transitive
	if len(in.tags) > 0 {
		c.Tags = in.tags
	}
}

func (s *Sandbox) assumeRole(c *request) (any, *apiError) {
	in, err := parseAssumeRole(c.params)
	if err != nil {
		return nil, err
	}
	in.record(c.Call)
	if c.caller.isRoot() {
		return nil, accessDenied("Roles may not be assumed by root accounts.")
	}
	mfa, err := s.checkMFA(c)
	if err != nil {
		return nil, err
	}
	r := s.roles[in.roleARN]
	if r == nil {
		return nil, notAuthorized(c, actAssumeRole, "there is no such role")
	}
	context := authContext{
		caller: c.caller, externalID: in.externalID, now: c.now, mfa: mfa,
		sessionName: in.sessionName, sourceIdentity: in.sourceIdentity,
	}
	if from := c.caller.session; from != nil && from.SourceIdentity != "" {
		context.sourceIdentity = from.SourceIdentity
	}
	if why := r.allows(actAssumeRole, context); why != "" {
		return nil, notAuthorized(c, actAssumeRole, why)
	}
	ses := newSession(c, 0)
	ses.Principal, ses.Name = r.arn, in.sessionName
	if err := inherit(&ses, c, in); err != nil {
		return nil, err
	}
	if ses.SourceIdentity != "" {
		if why := r.allows(actSetSourceIdentity, context); why != "" {
			return nil, notAuthorized(c, actSetSourceIdentity, why)
		}
	}
	if len(in.tags)+len(ses.TransitiveTags) > 0 {
		if why := r.allows(actTagSession, context); why != "" {
			return nil, notAuthorized(c, actTagSession, why)
		}
	}
	duration, err := roleDuration(r, in.duration, c.caller.session != nil)
	if err != nil {
		return nil, err
	}
	duration = s.shortened(duration)
	ses.Expires = ses.Issued + int64(duration)
	c.DurationSeconds = duration

	var out assumeRoleResult
	p := rolePrincipal(r, in.sessionName)
	out.AssumedRoleUser.AssumedRoleID, out.AssumedRoleUser.Arn = p.id, p.arn
	out.Credentials = s.sealer.seal(ses)
	out.SourceIdentity = ses.SourceIdentity
	if in.packed > 0 {
		out.PackedPolicySize = &in.packed
	}
	c.IssuedKeyID = out.Credentials.AccessKeyID
	return out, nil
}

// notAuthorized is AWS's refusal for whatever in a trust policy is not met.
func notAuthorized(c *request, action, why string) *apiError {
	return accessDenied(fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s",
		c.caller.arn, action, c.RoleARN)).because(why)
}

// roleDuration returns a role session's length in seconds. Any session as the
// caller makes a chain, GetSessionToken's included.
func roleDuration(r *role, asked int, chained bool) (int, *apiError) {
	switch {
	case asked == 0:
		return 3600, nil
	case chained && asked > 3600:
		return 0, invalid("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	case time.Duration(asked)*time.Second > r.max:
		return 0, invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	return asked, nil
}

// inherit gives the new session what the request sets for it and the calling
// session passes on.
func inherit(ses *session, c *request, in assumeRoleRequest) *apiError {
	ses.SourceIdentity = in.sourceIdentity
	ses.TransitiveTags = map[string]string{}
	if from := c.caller.session; from != nil {
		if from.SourceIdentity != "" {
			if in.sourceIdentity != "" && in.sourceIdentity != from.SourceIdentity {
				return notAuthorized(c, actSetSourceIdentity, "the calling session has another source identity")
			}
			ses.SourceIdentity = from.SourceIdentity
		}
		for key := range in.tags {
			if _, ok := findFold(from.TransitiveTags, key); ok {
				return badValue("One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.")
			}
		}
		maps.Copy(ses.TransitiveTags, from.TransitiveTags)
	}
	for _, key := range in.transitive {
		own, _ := findFold(in.tags, key)
		ses.TransitiveTags[own] = in.tags[own]
	}
	return nil
}

// findFold finds a tag's key whatever its case.
func findFold(tags map[string]string, key string) (string, bool) {
	for k := range tags {
		if strings.EqualFold(k, key) {
			return k, true
		}
	}
	return "", false
}

func parseAssumeRole(p params) (assumeRoleRequest, *apiError) {
	var v violations
	in := assumeRoleRequest{
		roleARN:        v.required(p, "RoleArn", 20, 2048, arnPattern),
		sessionName:    v.required(p, "RoleSessionName", 2, 64, namePattern),
		externalID:     v.text(p, "ExternalId", 2, 1224, externalIDPattern),
		sourceIdentity: v.text(p, "SourceIdentity", 2, 64, namePattern),
		mfaSerial:      v.text(p, "SerialNumber", 9, 256, serialPattern),
		duration:       v.seconds(p, 900, 43200),
		tags:           map[string]string{},
	}
	v.text(p, "TokenCode", 6, 6, codePattern)
	policy := v.text(p, "Policy", 1, maxBody, policyPattern)
	repeated := in.parseTags(p, &v)
	for _, n := range p.members("TransitiveTagKeys") {
		key := p[fmt.Sprintf("TransitiveTagKeys.member.%d", n)]
		v.value(key, fmt.Sprintf("transitiveTagKeys.%d.member", n), 1, 128, tagKeyPattern)
		in.transitive = append(in.transitive, key)
	}
	v.count(len(in.transitive), 50, "transitiveTagKeys")
	for _, n := range p.members("PolicyArns") {
		arn := p[fmt.Sprintf("PolicyArns.member.%d.arn", n)]
		v.value(arn, fmt.Sprintf("policyArns.%d.member.arn", n), 20, 2048, arnPattern)
		in.policyARNs = append(in.policyARNs, arn)
	}
	v.count(len(in.policyARNs), 10, "policyArns")
	if err := v.err(); err != nil {
		return in, err
	}
	if repeated {
		return in, badValue("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
	}
	if !roleARN.MatchString(in.roleARN) {
		return in, invalid(in.roleARN + " is invalid")
	}
	for _, key := range in.transitive {
		if _, ok := findFold(in.tags, key); !ok {
			return in, badValue("The specified transitive tag key must be included in the requested tags.")
		}
	}
	if err := checkPolicies(policy, in.policyARNs, in.roleARN); err != nil {
		return in, err
	}
	return in, in.pack(policy)
}

func badValue(message string) *apiError {
	return refuse(http.StatusBadRequest, "InvalidParameterValue", message)
}

// parseTags reads the session tags; repeated says that one key came twice.
func (in *assumeRoleRequest) parseTags(p params, v *violations) (repeated bool) {
	members := p.members("Tags")
	v.count(len(members), 50, "tags")
	for _, n := range members {
		prefix := fmt.Sprintf("Tags.member.%d.", n)
		key, value := p[prefix+"Key"], p[prefix+"Value"]
		v.value(key, fmt.Sprintf("tags.%d.member.key", n), 1, 128, tagKeyPattern)
		if hasAWSPrefix(key) {
			v.add(key, fmt.Sprintf("tags.%d.member.key", n), "Member must not start with the reserved prefix aws:")
		}
		if _, present := p[prefix+"Value"]; !present {
			*v = append(*v, fmt.Sprintf("Value null at 'tags.%d.member.value' failed to satisfy constraint: Member must not be null", n))
		}
		v.value(value, fmt.Sprintf("tags.%d.member.value", n), 0, 256, tagValuePattern)
		if _, ok := findFold(in.tags, key); ok {
			repeated = true
		}
		in.tags[key] = value
	}
	return repeated
}

func hasAWSPrefix(s string) bool { return len(s) >= 4 && strings.EqualFold(s[:4], "aws:") }

var policyARN = regexp.MustCompile(`^arn:aws(-[a-z]+)*:iam::(aws|[0-9]{12}):policy/[\w+=,.@/-]+$`)

// checkPolicies checks the session policies. A managed policy is AWS's own or
// in the role's account.
func checkPolicies(policy string, arns []string, roleARN string) *apiError {
	if policy != "" {
		var doc struct{ Statement json.RawMessage }
		if json.Unmarshal([]byte(policy), &doc) != nil || len(doc.Statement) == 0 {
			return refuse(http.StatusBadRequest, "MalformedPolicyDocument", "Syntax errors in policy.")
		}
	}
	account := strings.Split(roleARN, ":")[4]
	for _, arn := range arns {
		m := policyARN.FindStringSubmatch(arn)
		if m == nil || m[2] != "aws" && m[2] != account {
			return invalid("ARN " + arn + " is not valid.")
		}
	}
	return nil
}

// pack estimates how much of a token policies and tags take. AWS compresses
// them in a way it does not tell; here 2048 plain characters are all there is.
func (in *assumeRoleRequest) pack(policy string) *apiError {
	const room = 2048
	size := len(policy)
	for _, arn := range in.policyARNs {
		size += len(arn)
	}
	for key, value := range in.tags {
		size += len(key) + len(value)
	}
	in.packed = (size*100 + room - 1) / room
	if in.packed > 100 {
		return refuse(http.StatusBadRequest, "PackedPolicyTooLarge",
			fmt.Sprintf("Packed size of session policies and tags consumes %d%% of allotted space.", in.packed))
	}
	return nil
}
