package ststest

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestCallerIdentity(t *testing.T) {
	c := newClient(t, Example())
	role := c.as("alice").session(t, assume(DeployARN))
	for _, tt := range []struct {
		name string
		s    signer
		arn  string
	}{
		{"user", c.as("alice"), AliceARN},
		{"root user", c.as("root"), "arn:aws:iam::111122223333:root"},
		{"user's session", c.signer(c.as("alice").session(t, params{"Action": "GetSessionToken"})), AliceARN},
		{"root user's session", c.signer(c.as("root").session(t, params{"Action": "GetSessionToken"})), "arn:aws:iam::111122223333:root"},
		{"role", c.signer(role), "arn:aws:sts::111122223333:assumed-role/Deploy/test-session"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.s.call(t, identity)
			if r.Status != 200 || r.Identity.Arn != tt.arn || r.Identity.Account != "111122223333" {
				t.Fatalf("%s: %+v, want %s", r, r.Identity, tt.arn)
			}
			prefix := map[string]string{"user": "AIDA", "user's session": "AIDA", "role": "AROA"}[tt.name]
			if prefix == "" {
				prefix = "111122223333"
			}
			if !strings.HasPrefix(r.Identity.UserId, prefix) {
				t.Errorf("user id %q, want %s…", r.Identity.UserId, prefix)
			}
			if r.OKRequestID == "" || r.OKRequestID != r.Header.Get("X-Amzn-Requestid") {
				t.Errorf("RequestId %q, header %q", r.OKRequestID, r.Header.Get("X-Amzn-Requestid"))
			}
			if r.XMLName.Space != "https://sts.amazonaws.com/doc/2011-06-15/" || r.XMLName.Local != "GetCallerIdentityResponse" {
				t.Errorf("the document is a %v", r.XMLName)
			}
			if got, want := r.Header.Get("Date"), noon.Format("Mon, 02 Jan 2006 15:04:05 GMT"); got != want {
				t.Errorf("Date %q, want %q", got, want)
			}
		})
	}
}

func TestAssumeRole(t *testing.T) {
	c := newClient(t, Example())
	r := c.as("alice").call(t, assume(TaggedARN, "DurationSeconds", "900", "SourceIdentity", "alice@example.com",
		"Tags.member.1.Key", "Team", "Tags.member.1.Value", "Ünits: 1+1", "Tags.member.2.Key", "Empty", "Tags.member.2.Value", "",
		"TransitiveTagKeys.member.1", "TEAM",
		"PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/ReadOnlyAccess", "Policy", `{"Version":"2012-10-17","Statement":[]}`))
	if r.Status != 200 {
		t.Fatal(r)
	}
	got := r.Role
	if got.AssumedRoleUser.Arn != "arn:aws:sts::111122223333:assumed-role/Tagged/test-session" ||
		!strings.HasPrefix(got.AssumedRoleUser.AssumedRoleId, "AROA") || !strings.HasSuffix(got.AssumedRoleUser.AssumedRoleId, ":test-session") {
		t.Errorf("AssumedRoleUser %+v", got.AssumedRoleUser)
	}
	if got.SourceIdentity != "alice@example.com" || got.PackedPolicySize == "" {
		t.Errorf("SourceIdentity %q, PackedPolicySize %q", got.SourceIdentity, got.PackedPolicySize)
	}
	if cr := got.Credentials; !strings.HasPrefix(cr.AccessKeyID, "ASIA") || len(cr.AccessKeyID) != 20 || len(cr.SecretAccessKey) != 40 ||
		cr.Expiration != "2026-03-04T12:15:00Z" {
		t.Errorf("credentials %+v", cr)
	}
	call := c.Calls()[0]
	want := Call{
		Time: noon, Action: "AssumeRole", Principal: AliceARN, AccessKeyID: "AKIAEXAMPLEALICE0001", UserAgent: "Go-http-client/1.1", RoleARN: TaggedARN,
		SessionName: "test-session", SourceIdentity: "alice@example.com", DurationSeconds: 900,
		RequestID: r.OKRequestID, IssuedKeyID: got.Credentials.AccessKeyID, Status: 200,
		Tags: map[string]string{"Team": "Ünits: 1+1", "Empty": ""}, TransitiveTags: []string{"TEAM"},
		PolicyARNs: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"},
	}
	if fmt.Sprintf("%+v", call) != fmt.Sprintf("%+v", want) {
		t.Errorf("recorded\n%+v, want\n%+v", call, want)
	}
	if r := c.as("alice").call(t, assume(DeployARN)); r.Role.PackedPolicySize != "" || strings.Contains(r.Body, "SourceIdentity") {
		t.Errorf("what was not asked for is answered: %s", r.Body)
	}
}

// TestTrust is about who may assume what. why is the sandbox's own record.
func TestTrust(t *testing.T) {
	role := func(st ...Statement) Config {
		config := Example()
		config.Accounts[1].Roles = []Role{{Name: "R", Path: "/team/", Trust: st}}
		return config
	}
	const arn = "arn:aws:iam::444455556666:role/team/R"
	const session = "arn:aws:sts::111122223333:assumed-role/Deploy/test-session"
	tags := []string{"Tags.member.1.Key", "a", "Tags.member.1.Value", "b"}
	for _, tt := range []struct {
		name   string
		trust  []Statement
		more   []string
		action string // not allowed; "" means that all is well
		why    string
	}{
		{name: "the user", trust: []Statement{{Principals: []string{AliceARN}}}},
		{name: "another user", trust: []Statement{{Principals: []string{AliceARN + "2"}}}, action: actAssumeRole, why: "the caller is not a trusted principal"},
		{name: "the user's account", trust: []Statement{{Principals: []string{"arn:aws:iam::111122223333:root"}}}},
		{name: "the user's account by number", trust: []Statement{{Principals: []string{"111122223333"}}}},
		{name: "another account", trust: []Statement{{Principals: []string{"arn:aws:iam::444455556666:root"}}}, action: actAssumeRole, why: "the caller is not a trusted principal"},
		{name: "everybody", trust: []Statement{{Principals: []string{"*"}}}},
		{name: "a role, asked by a user", trust: []Statement{{Principals: []string{DeployARN, session}}}, action: actAssumeRole, why: "the caller is not a trusted principal"},
		{name: "one of several", trust: []Statement{{Principals: []string{AliceARN + "2", AliceARN}}}},
		{name: "by the second statement", trust: []Statement{{Principals: []string{DeployARN}}, {Principals: []string{AliceARN}}}},
		{name: "another action", trust: []Statement{{Principals: []string{"*"}, Actions: []string{actTagSession}}}, action: actAssumeRole, why: "sts:AssumeRole is not allowed"},
		{name: "all actions", trust: []Statement{{Principals: []string{"*"}, Actions: []string{"sts:*"}}}, more: tags},

		{name: "external id", trust: []Statement{{Principals: []string{"*"}, ExternalID: "x/1"}}, more: []string{"ExternalId", "x/1"}},
		{name: "external id missing", trust: []Statement{{Principals: []string{"*"}, ExternalID: "x/1"}}, action: actAssumeRole, why: "the external id is missing"},
		{name: "external id wrong", trust: []Statement{{Principals: []string{"*"}, ExternalID: "x/1"}}, more: []string{"ExternalId", "X/1"}, action: actAssumeRole, why: "the external id is wrong"},
		{name: "external id not needed", trust: []Statement{{Principals: []string{"*"}}}, more: []string{"ExternalId", "x/1"}},
		{name: "conditions of two statements do not add up", more: []string{"ExternalId", "x/1"}, action: actAssumeRole, why: "MFA is required; the external id is wrong",
			trust: []Statement{{Principals: []string{"*"}, MFA: true, ExternalID: "x/1"}, {Principals: []string{"*"}, ExternalID: "x/2"}}},

		{name: "MFA", trust: []Statement{{Principals: []string{"*"}, MFA: true}}, action: actAssumeRole, why: "MFA is required"},
		{name: "MFA of an age", trust: []Statement{{Principals: []string{"*"}, MFAAge: 60}}, action: actAssumeRole, why: "MFA is required"},

		{name: "tags", trust: []Statement{{Principals: []string{"*"}, Actions: []string{actAssumeRole, actTagSession}}}, more: tags},
		{name: "tags by another statement", trust: []Statement{{Principals: []string{"*"}}, {Principals: []string{AliceARN}, Actions: []string{actTagSession}}}, more: tags},
		{name: "tags not allowed", trust: []Statement{{Principals: []string{"*"}}}, more: tags, action: actTagSession, why: "sts:TagSession is not allowed"},
		{name: "tags allowed to others", trust: []Statement{{Principals: []string{"*"}}, {Principals: []string{DeployARN}, Actions: []string{actTagSession}}}, more: tags, action: actTagSession, why: "sts:TagSession is not allowed; the caller is not a trusted principal"},
		{name: "source identity", trust: []Statement{{Principals: []string{"*"}, Actions: []string{actAssumeRole, actSetSourceIdentity}}}, more: []string{"SourceIdentity", "al"}},
		{name: "this session name", trust: []Statement{{Principals: []string{"*"}, SessionName: "test-session"}}},
		{name: "another session name", trust: []Statement{{Principals: []string{"*"}, SessionName: "alice"}}, action: actAssumeRole, why: "the session name is another"},
		{name: "this source identity", trust: []Statement{{Principals: []string{"*"}, Actions: []string{"sts:*"}, SourceIdentity: "al"}}, more: []string{"SourceIdentity", "al"}},
		{name: "another source identity", trust: []Statement{{Principals: []string{"*"}, Actions: []string{"sts:*"}, SourceIdentity: "bob"}}, more: []string{"SourceIdentity", "al"}, action: actAssumeRole, why: "the source identity is another"},
		{name: "no source identity", trust: []Statement{{Principals: []string{"*"}, Actions: []string{"sts:*"}, SourceIdentity: "bob"}}, action: actAssumeRole, why: "the source identity is another"},
		{name: "source identity not allowed", trust: []Statement{{Principals: []string{"*"}}}, more: []string{"SourceIdentity", "al"}, action: actSetSourceIdentity, why: "sts:SetSourceIdentity is not allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, role(tt.trust...))
			r := c.as("alice").call(t, assume(arn, tt.more...))
			if tt.action == "" {
				if r.Status != 200 || r.Role.AssumedRoleUser.Arn != "arn:aws:sts::444455556666:assumed-role/R/test-session" {
					t.Errorf("%s: %+v", r, r.Role)
				}
				return
			}
			r.refused(t, 403, "AccessDenied", "User: "+AliceARN+" is not authorized to perform: "+tt.action+" on resource: "+arn)
			if got := c.Calls()[0].Why; got != "trust policy: "+tt.why {
				t.Errorf("recorded reason %q, want %q", got, tt.why)
			}
		})
	}

	c := newClient(t, Example())
	for _, arn := range []string{"arn:aws:iam::111122223333:role/Nothing", "arn:aws:iam::999999999999:role/Deploy", "arn:aws:iam::111122223333:role/path/Deploy", "arn:aws-cn:iam::111122223333:role/Deploy"} {
		c.as("alice").call(t, assume(arn)).refused(t, 403, "AccessDenied", "User: "+AliceARN+" is not authorized to perform: sts:AssumeRole on resource: "+arn)
	}
	c.as("root").call(t, assume(DeployARN)).refused(t, 403, "AccessDenied", "Roles may not be assumed by root accounts.")
}

func TestChain(t *testing.T) {
	c := newClient(t, Example())
	deploy := c.signer(c.as("alice").session(t, assume(DeployARN)))
	if r := deploy.call(t, assume(AuditARN)); r.Role.AssumedRoleUser.Arn != "arn:aws:sts::444455556666:assumed-role/Audit/test-session" {
		t.Errorf("%s: %+v", r, r.Role)
	}
	c.as("alice").call(t, assume(AuditARN)).refused(t, 403, "AccessDenied", "not authorized")
	// The trust is the role's, not its user's.
	deploy.call(t, assume(OperatorARN)).refused(t, 403, "AccessDenied",
		"User: arn:aws:sts::111122223333:assumed-role/Deploy/test-session is not authorized to perform: sts:AssumeRole on resource: "+OperatorARN)

	config := Example()
	config.Accounts[1].Roles[1].Trust[0].Principals = []string{"arn:aws:sts::111122223333:assumed-role/Deploy/other-session"}
	c = newClient(t, config)
	deploy = c.signer(c.as("alice").session(t, assume(DeployARN)))
	deploy.call(t, assume(AuditARN)).refused(t, 403, "AccessDenied", "not authorized")
	other := c.signer(c.as("alice").session(t, assume(DeployARN, "RoleSessionName", "other-session")))
	if r := other.call(t, assume(AuditARN)); r.Status != 200 {
		t.Errorf("the trusted session itself: %s", r)
	}
}

// TestInherited is about what a chain passes on: the source identity always,
// tags where they were declared transitive.
func TestInherited(t *testing.T) {
	config := Example()
	all := Statement{Principals: []string{"*"}, Actions: []string{"sts:*"}}
	config.Accounts[0].Roles = []Role{
		{Name: "One", Trust: []Statement{all}}, {Name: "Two", Trust: []Statement{all}},
		{Name: "NoSource", Trust: []Statement{{Principals: []string{"*"}, Actions: []string{actAssumeRole, actTagSession}}}},
		{Name: "NoTags", Trust: []Statement{{Principals: []string{"*"}, Actions: []string{actAssumeRole, actSetSourceIdentity}}}},
	}
	c := newClient(t, config)
	arn := func(name string) string { return "arn:aws:iam::111122223333:role/" + name }
	tagged := []string{"Tags.member.1.Key", "Team", "Tags.member.1.Value", "a", "Tags.member.2.Key", "Local", "Tags.member.2.Value", "b", "TransitiveTagKeys.member.1", "Team"}

	source := c.signer(c.as("alice").session(t, assume(arn("One"), "SourceIdentity", "alice")))
	two := source.call(t, assume(arn("Two")))
	if two.Role.SourceIdentity != "alice" {
		t.Errorf("the source identity is lost: %s %q", two, two.Role.SourceIdentity)
	}
	third := c.signer(two.credentials()).call(t, assume(arn("Two")))
	if third.Role.SourceIdentity != "alice" {
		t.Errorf("the source identity is lost on the third hop: %s %q", third, third.Role.SourceIdentity)
	}
	if r := source.call(t, assume(arn("Two"), "SourceIdentity", "alice")); r.Status != 200 {
		t.Errorf("the same source identity again: %s", r)
	}
	source.call(t, assume(arn("Two"), "SourceIdentity", "bob")).refused(t, 403, "AccessDenied", "sts:SetSourceIdentity")
	source.call(t, assume(arn("NoSource"))).refused(t, 403, "AccessDenied", "sts:SetSourceIdentity")

	tags := c.signer(c.as("alice").session(t, assume(arn("One"), tagged...)))
	tags.call(t, assume(arn("Two"), "Tags.member.1.Key", "team", "Tags.member.1.Value", "c")).
		refused(t, 400, "InvalidParameterValue", "conflicts with a transitive tag key from the calling session")
	if r := tags.call(t, assume(arn("Two"), "Tags.member.1.Key", "Local", "Tags.member.1.Value", "c")); r.Status != 200 {
		t.Errorf("a tag that was not transitive cannot be set again: %s", r)
	}
	next := c.signer(tags.session(t, assume(arn("Two"))))
	next.call(t, assume(arn("Two"), "Tags.member.1.Key", "Team", "Tags.member.1.Value", "c")).
		refused(t, 400, "InvalidParameterValue", "conflicts with a transitive tag key")
	tags.call(t, assume(arn("NoTags"))).refused(t, 403, "AccessDenied", "sts:TagSession")
}

func TestDurations(t *testing.T) {
	const (
		tooShort = "1 validation error detected: Value '899' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900"
		chain    = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
		max      = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
	)
	c := newClient(t, Example())
	alice, root := c.as("alice"), c.as("root")
	temporary := c.signer(alice.session(t, params{"Action": "GetSessionToken"}))
	deploy := c.signer(alice.session(t, assume(DeployARN)))
	token := params{"Action": "GetSessionToken"}
	for _, tt := range []struct {
		name    string
		s       signer
		p       params
		seconds string // asked for; "" is absent
		got     time.Duration
		refusal string
	}{
		{"role, default", alice, assume(OperatorARN), "", time.Hour, ""},
		{"role, least", alice, assume(OperatorARN), "900", 15 * time.Minute, ""},
		{"role, less", alice, assume(OperatorARN), "899", 0, tooShort},
		{"role, most", alice, assume(OperatorARN), "43200", 12 * time.Hour, ""},
		{"role, more", alice, assume(OperatorARN), "43201", 0, "'43201' at 'durationSeconds' failed to satisfy constraint: Member must have value less than or equal to 43200"},
		{"role, its own most", alice, assume(DeployARN), "3600", time.Hour, ""},
		{"role, more than its own most", alice, assume(DeployARN), "3601", 0, max},
		{"role, no number", alice, assume(DeployARN), "1h", 0, "'1h' at 'durationSeconds'"},
		{"chained, most", deploy, assume(AuditARN), "3600", time.Hour, ""},
		{"chained, more", deploy, assume(AuditARN), "3601", 0, chain},
		{"after GetSessionToken, most", temporary, assume(OperatorARN), "3600", time.Hour, ""},
		{"after GetSessionToken, more", temporary, assume(OperatorARN), "3601", 0, chain},
		{"user, default", alice, token, "", 12 * time.Hour, ""},
		{"user, least", alice, token, "900", 15 * time.Minute, ""},
		{"user, less", alice, token, "899", 0, tooShort},
		{"user, most", alice, token, "129600", 36 * time.Hour, ""},
		{"user, more", alice, token, "129601", 0, "Member must have value less than or equal to 129600"},
		{"root user, default", root, token, "", time.Hour, ""},
		{"root user, more than an hour", root, token, "7200", time.Hour, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := maps.Clone(tt.p)
			if tt.seconds != "" {
				p["DurationSeconds"] = tt.seconds
			}
			r := tt.s.call(t, p)
			if tt.refusal != "" {
				r.refused(t, 400, "ValidationError", tt.refusal)
				return
			}
			if want := noon.Add(tt.got).Format(time.RFC3339); r.Status != 200 || r.credentials().Expiration != want {
				t.Errorf("%s, expires %s, want %s", r, r.credentials().Expiration, want)
			}
		})
	}
}

func TestShortenedSessions(t *testing.T) {
	config := Example()
	config.SessionSeconds = 60
	c := newClient(t, config)
	for _, p := range []params{assume(DeployARN), assume(DeployARN, "DurationSeconds", "900"), {"Action": "GetSessionToken"}} {
		if got, want := c.as("alice").session(t, p).Expiration, noon.Add(time.Minute).Format(time.RFC3339); got != want {
			t.Errorf("%v expires %s, want %s", p, got, want)
		}
	}
	c.as("alice").call(t, assume(DeployARN, "DurationSeconds", "899")).refused(t, 400, "ValidationError", "greater than or equal to 900")
}

func TestGetSessionTokenNeedsALongTermKey(t *testing.T) {
	c := newClient(t, Example())
	token := params{"Action": "GetSessionToken"}
	for _, creds := range []credentials{c.as("alice").session(t, token), c.as("alice").session(t, assume(DeployARN))} {
		c.signer(creds).call(t, token).refused(t, 403, "AccessDenied", "Cannot call GetSessionToken with session credentials")
	}
}

func TestParameters(t *testing.T) {
	c := newClient(t, Example())
	tags := func(n int) []string {
		var more []string
		for i := range n {
			more = append(more, fmt.Sprintf("Tags.member.%d.Key", i+1), fmt.Sprintf("k%d", i), fmt.Sprintf("Tags.member.%d.Value", i+1), "v")
		}
		return more
	}
	tag := func(key, value string) []string {
		return []string{"Tags.member.1.Key", key, "Tags.member.1.Value", value}
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	members := func(list, suffix, value string, n int) (more []string) {
		for i := range n {
			more = append(more, fmt.Sprintf("%s.member.%d%s", list, i+1, suffix), fmt.Sprintf("%s%d", value, i))
		}
		return more
	}
	const (
		policyARN = "arn:aws:iam::aws:policy/P"
		pattern   = "Member must satisfy regular expression pattern: "
		atMost    = "Member must have length less than or equal to "
		atLeast   = "Member must have length greater than or equal to "
	)
	for _, tt := range []struct {
		name, code, message string
		more                []string
	}{
		{"session name with a space", "ValidationError", "1 validation error detected: Value 'bad name!' at 'roleSessionName' failed to satisfy constraint: " + pattern + `[\w+=,.@-]*`, []string{"RoleSessionName", "bad name!"}},
		{"session name with a letter that is not ASCII", "ValidationError", "'roleSessionName' failed", []string{"RoleSessionName", "álice"}},
		{"session name with a newline", "ValidationError", "'roleSessionName' failed", []string{"RoleSessionName", "alice\n"}},
		{"session name too short", "ValidationError", atLeast + "2", []string{"RoleSessionName", "a"}},
		{"session name too long", "ValidationError", atMost + "64", []string{"RoleSessionName", long(65)}},
		{"role ARN too short", "ValidationError", "Value 'arn' at 'roleArn' failed to satisfy constraint: " + atLeast + "20", []string{"RoleArn", "arn"}},
		{"role ARN too long", "ValidationError", "'roleArn' failed to satisfy constraint: " + atMost + "2048", []string{"RoleArn", DeployARN + long(2048)}},
		{"role ARN with a control character", "ValidationError", "'roleArn' failed to satisfy constraint: " + pattern, []string{"RoleArn", DeployARN + "\x01"}},
		{"role ARN malformed", "ValidationError", "arn:aws:iam:111122223333:role/Deploy is invalid", []string{"RoleArn", "arn:aws:iam:111122223333:role/Deploy"}},
		{"role ARN of a user", "ValidationError", AliceARN + " is invalid", []string{"RoleArn", AliceARN}},
		{"source identity", "ValidationError", "'sourceIdentity' failed to satisfy constraint: " + pattern, []string{"SourceIdentity", "aws:alice"}},
		{"source identity too short", "ValidationError", atLeast + "2", []string{"SourceIdentity", "a"}},
		{"source identity too long", "ValidationError", atMost + "64", []string{"SourceIdentity", long(65)}},
		{"external id", "ValidationError", `'externalId' failed to satisfy constraint: ` + pattern + `[\w+=,.@:\/-]*`, []string{"ExternalId", "a b"}},
		{"external id too short", "ValidationError", atLeast + "2", []string{"ExternalId", "a"}},
		{"external id too long", "ValidationError", atMost + "1224", []string{"ExternalId", long(1225)}},
		{"serial number", "ValidationError", "'serialNumber' failed to satisfy constraint: " + pattern, []string{"SerialNumber", "GAHT 12345678"}},
		{"serial number too short", "ValidationError", atLeast + "9", []string{"SerialNumber", "12345678"}},
		{"code too short", "ValidationError", "'tokenCode' failed to satisfy constraint: " + atLeast + "6", []string{"TokenCode", "12345"}},
		{"code too long", "ValidationError", atMost + "6", []string{"TokenCode", "1234567"}},
		{"code with a letter", "ValidationError", pattern + `[\d]*`, []string{"TokenCode", "12345x"}},
		{"code in other digits", "ValidationError", pattern + `[\d]*`, []string{"TokenCode", "١٢٣٤٥٦"}},
		{"tag key empty", "ValidationError", "Value '' at 'tags.1.member.key' failed to satisfy constraint: " + atLeast + "1", tag("", "v")},
		{"tag key too long", "ValidationError", atMost + "128", tag(long(129), "v")},
		{"tag key pattern", "ValidationError", pattern + `[\p{L}\p{Z}\p{N}_.:/=+\-@]+`, tag("a*b", "v")},
		{"tag key reserved", "ValidationError", "reserved prefix aws:", tag("AWS:x", "v")},
		{"tag value too long", "ValidationError", atMost + "256", tag("k", long(257))},
		{"tag value pattern", "ValidationError", "'tags.1.member.value' failed to satisfy constraint: " + pattern, tag("k", "a\tb")},
		{"tag value missing", "ValidationError", "Value null at 'tags.1.member.value'", []string{"Tags.member.1.Key", "k"}},
		{"too many tags", "ValidationError", "'tags' failed to satisfy constraint: " + atMost + "50", tags(51)},
		{"tags that differ by case", "InvalidParameterValue", "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
			append(tag("Team", "a"), "Tags.member.2.Key", "team", "Tags.member.2.Value", "b")},
		{"transitive key without its tag", "InvalidParameterValue", "must be included in the requested tags", append(tag("a", "b"), "TransitiveTagKeys.member.1", "c")},
		{"transitive key pattern", "ValidationError", "'transitiveTagKeys.1.member'", []string{"TransitiveTagKeys.member.1", "*"}},
		{"too many transitive keys", "ValidationError", "'transitiveTagKeys' failed to satisfy constraint: " + atMost + "50", members("TransitiveTagKeys", "", "k", 51)},
		{"too many policies", "ValidationError", "'policyArns' failed to satisfy constraint: " + atMost + "10", members("PolicyArns", ".arn", policyARN, 11)},
		{"policy ARN too short", "ValidationError", "'policyArns.1.member.arn' failed to satisfy constraint: " + atLeast + "20", []string{"PolicyArns.member.1.arn", "arn"}},
		{"policy ARN of a role", "ValidationError", "ARN " + DeployARN + " is not valid.", []string{"PolicyArns.member.1.arn", DeployARN}},
		{"policy of another account", "ValidationError", "is not valid.", []string{"PolicyArns.member.1.arn", "arn:aws:iam::444455556666:policy/P"}},
		{"policy that is not JSON", "MalformedPolicyDocument", "Syntax errors in policy.", []string{"Policy", "{"}},
		{"policy without a statement", "MalformedPolicyDocument", "Syntax errors in policy.", []string{"Policy", `{"Version":"2012-10-17"}`}},
		{"policy with odd characters", "ValidationError", "'policy' failed", []string{"Policy", `{"Statement":"☃"}`}},
		{"policy too large", "PackedPolicyTooLarge", "consumes 101% of allotted space", []string{"Policy", `{"Statement":[]` + strings.Repeat(" ", 2034) + `}`}},
		{"two at once", "ValidationError", "2 validation errors detected: Value 'a' at 'roleSessionName' failed to satisfy constraint: " + atLeast + "2; Value 'b' at 'externalId' failed", []string{"RoleSessionName", "a", "ExternalId", "b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.as("alice").call(t, assume(TaggedARN, tt.more...)).refused(t, 400, tt.code, tt.message)
		})
	}
	for _, name := range []string{"RoleArn", "RoleSessionName"} {
		p := assume(TaggedARN)
		delete(p, name)
		c.as("alice").call(t, p).refused(t, 400, "ValidationError", "Value null at 'r"+name[1:]+"' failed to satisfy constraint: Member must not be null")
	}
	token := params{"Action": "GetSessionToken", "TokenCode": "12345", "SerialNumber": "x"}
	c.as("alice").call(t, token).refused(t, 400, "ValidationError", "2 validation errors detected")

	for _, more := range [][]string{
		{"RoleSessionName", "a1"}, {"RoleSessionName", long(64)}, {"ExternalId", "a:/" + long(1221)}, {"SourceIdentity", long(64)},
		tags(50), tag(long(128), long(256)), {"Policy", `{"Statement":[]}`}, members("PolicyArns", ".arn", policyARN, 10),
		{"PolicyArns.member.1.arn", "arn:aws:iam::111122223333:policy/path/P"}, {"Unknown", "parameter"},
	} {
		if r := c.as("alice").call(t, assume(TaggedARN, more...)); r.Status != 200 {
			t.Errorf("%.80q: %s", more, r)
		}
	}
}

func TestMFA(t *testing.T) {
	config := Example()
	bobsDevice := Device{Serial: "arn:aws:iam::111122223333:mfa/bob", Seed: "BOBBOBBOB"}
	config.Accounts[0].Users[1].MFA = []Device{bobsDevice}
	const (
		half   = "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code. "
		code   = "MultiFactorAuthentication failed with invalid MFA one time pass code. "
		device = "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA serial number is valid and associated with this user. "
		policy = "User: " + AliceARN + " is not authorized to perform: sts:AssumeRole on resource: " + AdminARN
	)
	shown := func(after time.Duration) string { return TOTP(config.Device("alice").Seed, noon.Add(after)) }
	admin := func(more ...string) params { return assume(AdminARN, more...) }
	with := func(serial, code string) []string { return []string{"SerialNumber", serial, "TokenCode", code} }

	for _, tt := range []struct {
		name   string
		p      params
		denied string
	}{
		{"none", admin(), policy},
		{"the code", admin(with(AliceDevice, shown(0))...), ""},
		{"the code before", admin(with(AliceDevice, shown(-30*time.Second))...), ""},
		{"the code after", admin(with(AliceDevice, shown(30*time.Second))...), ""},
		{"two codes before", admin(with(AliceDevice, shown(-60*time.Second))...), code},
		{"two codes after", admin(with(AliceDevice, shown(60*time.Second))...), code},
		{"a wrong code", admin(with(AliceDevice, fmt.Sprintf("%06d", 999_999-atoi(shown(0))))...), code},
		{"serial without code", admin("SerialNumber", AliceDevice), half},
		{"code without serial", admin("TokenCode", shown(0)), half},
		{"unknown device", admin(with("arn:aws:iam::111122223333:mfa/nobody", shown(0))...), device},
		{"another's device and code", admin(with(bobsDevice.Serial, TOTP(bobsDevice.Seed, noon))...), device},
		{"serial in another case", admin(with(strings.ToUpper(AliceDevice), shown(0))...), device},
		{"a wrong code where none is needed", assume(DeployARN, with(AliceDevice, shown(time.Hour))...), code},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, config)
			r := c.as("alice").call(t, tt.p)
			if tt.denied != "" {
				r.refused(t, 403, "AccessDenied", tt.denied)
			} else if r.Status != 200 {
				t.Error(r)
			}
		})
	}

	t.Run("roles and root users have no device", func(t *testing.T) {
		c := newClient(t, config)
		deploy := c.signer(c.as("alice").session(t, assume(DeployARN)))
		deploy.call(t, admin(with(AliceDevice, shown(0))...)).refused(t, 403, "AccessDenied", device)
		c.as("root").call(t, params{"Action": "GetSessionToken", "SerialNumber": AliceDevice, "TokenCode": shown(0)}).refused(t, 403, "AccessDenied", device)
	})

	t.Run("a code is good once", func(t *testing.T) {
		c := newClient(t, config)
		token := params{"Action": "GetSessionToken", "SerialNumber": AliceDevice, "TokenCode": shown(0)}
		c.as("alice").session(t, token)
		c.as("alice").call(t, token).refused(t, 403, "AccessDenied", code)
		c.as("alice").call(t, admin(with(AliceDevice, shown(0))...)).refused(t, 403, "AccessDenied", code)
		c.now = noon.Add(30 * time.Second) // the code would still be within the drift
		c.as("alice").call(t, admin(with(AliceDevice, shown(0))...)).refused(t, 403, "AccessDenied", code)
		if r := c.as("alice").call(t, admin(with(AliceDevice, shown(30*time.Second))...)); r.Status != 200 {
			t.Errorf("the next code: %s", r)
		}
		c.as("alice").call(t, admin(with(AliceDevice, shown(30*time.Second))...)).refused(t, 403, "AccessDenied", code)
	})

	t.Run("a code is used up by a call that fails later", func(t *testing.T) {
		c := newClient(t, config)
		c.as("alice").call(t, admin(append(with(AliceDevice, shown(0)), "DurationSeconds", "7200")...)).refused(t, 400, "ValidationError", "MaxSessionDuration")
		c.as("alice").call(t, admin(with(AliceDevice, shown(0))...)).refused(t, 403, "AccessDenied", code)
	})

	t.Run("a code is good once for many at a time", func(t *testing.T) {
		c := newClient(t, config)
		var ok atomic.Int32
		var all sync.WaitGroup
		for range 32 {
			all.Go(func() {
				if r, err := c.as("alice").do(t, admin(with(AliceDevice, shown(0))...)); err == nil && r.Status == 200 {
					ok.Add(1)
				}
			})
		}
		all.Wait()
		if ok.Load() != 1 {
			t.Errorf("%d of 32 were accepted", ok.Load())
		}
	})

	t.Run("a session carries its MFA as long as it is young enough", func(t *testing.T) {
		c := newClient(t, config)
		plain := c.as("alice").session(t, params{"Action": "GetSessionToken"})
		c.signer(plain).call(t, admin()).refused(t, 403, "AccessDenied", policy)
		if r := c.signer(plain).call(t, admin(with(AliceDevice, shown(0))...)); r.Status != 200 {
			t.Errorf("a code beside a session without MFA: %s", r)
		}
		c.now = noon.Add(time.Minute)
		proven := c.as("alice").session(t, params{"Action": "GetSessionToken", "SerialNumber": AliceDevice, "TokenCode": shown(time.Minute)})
		c.now = noon.Add(time.Minute + 3599*time.Second)
		role := c.signer(proven).session(t, admin())
		c.now = noon.Add(time.Minute + time.Hour)
		c.signer(proven).call(t, admin()).refused(t, 403, "AccessDenied", policy)
		if calls := c.Calls(); calls[len(calls)-1].Why != "trust policy: the MFA is too old" {
			t.Errorf("recorded reason %q", calls[len(calls)-1].Why)
		}
		// The role's session has no MFA of its own.
		c.signer(role).call(t, admin()).refused(t, 403, "AccessDenied", "assumed-role/Admin/test-session is not authorized")
	})
}

func atoi(s string) (n int) {
	for _, c := range s {
		n = n*10 + int(c-'0')
	}
	return n
}

// TestTOTP has the SHA-1 vectors of RFC 6238, appendix B, cut to six digits.
func TestTOTP(t *testing.T) {
	const seed = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" // "12345678901234567890"
	for at, want := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		if got := TOTP(seed, time.Unix(at, 0)); got != want {
			t.Errorf("at %d: %s, want %s", at, got, want)
		}
	}
	if TOTP("gezd gnbv gy3t qojq gezd gnbv gy3t qojq==", time.Unix(59, 0)) != "287082" {
		t.Error("a seed in groups, in small letters, is another")
	}
}

func TestWhatIsNoCall(t *testing.T) {
	c := newClient(t, Example())
	s := c.as("alice")
	s.call(t, params{}).refused(t, 400, "MissingAction", "Action")
	s.call(t, params{"Action": "AssumeRoleWithSAML"}).refused(t, 400, "InvalidAction", "Could not find operation AssumeRoleWithSAML for version 2011-06-15")
	s.call(t, params{"Action": "GetCallerIdentity", "Version": "2010-05-08"}).refused(t, 400, "InvalidAction", "for version 2010-05-08")
	s.call(t, params{"Action": "GetCallerIdentity", "Version": ""}).refused(t, 400, "InvalidAction", "for version NO_VERSION_SPECIFIED")
	s.call(t, params{"Action": "AssumeRole", "X": strings.Repeat("x", maxBody)}).refused(t, 413, "RequestEntityTooLarge", "")
	many := params{"Action": "AssumeRole"}
	for i := range maxParams {
		many[fmt.Sprint(i)] = ""
	}
	s.call(t, many).refused(t, 400, "MalformedQueryString", "too many")
	s.call(t, params{"Action": "GetCallerIdentity", "X": "\xff"}).refused(t, 400, "MalformedQueryString", "syntax error")
	s.call(t, params{"Action": "GetCallerIdentity", "\xff": "x"}).refused(t, 400, "MalformedQueryString", "syntax error")
	with := func(f func(*http.Request)) signer { s := c.as("alice"); s.before = f; return s }
	for _, body := range []string{identity.encode() + "&Action=GetCallerIdentity", identity.encode() + "&X=%zz"} {
		with(func(r *http.Request) { setBody(r, body) }).call(t, identity).refused(t, 400, "MalformedQueryString", "")
	}
	with(func(r *http.Request) { r.URL.RawQuery = "Version=2011-06-15" }).call(t, identity).refused(t, 400, "MalformedQueryString", "repeated")
	with(func(r *http.Request) { r.URL.Path = "/sts" }).call(t, identity).refused(t, 404, "UnknownOperationException", "")
	with(func(r *http.Request) { r.Method = "PUT" }).call(t, identity).refused(t, 405, "UnsupportedHttpVerb", "")
	with(func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }).call(t, identity).refused(t, 400, "MissingAction", "")
	if n := len(c.Calls()); n != c.Count("") || n != 14 {
		t.Errorf("%d calls recorded, %d of no action, want 14", n, c.Count(""))
	}
}
