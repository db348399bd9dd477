package sts_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/sts"
	"gatepass/profiles"
)

func TestAssumeRoleSendsAllAndReturnsTheSession(t *testing.T) {
	var form url.Values
	var header http.Header
	expires := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		form, header = r.PostForm, r.Header
		answer(w, 200, assumedXML(sessionARN, expires))
	})
	c := newClient(t, sts.Config{EndpointURL: f.URL, Version: "1.2.3"})
	creds := key()
	creds.SessionToken = broker.NewSecret(sessionTok)
	got, err := c.AssumeRole(t.Context(), creds, broker.AssumeRoleInput{
		RoleARN: roleARN, SessionName: "alice-s1", Duration: 30 * time.Minute, ExternalID: "ext-1",
		SerialNumber: "arn:aws:iam::111122223333:mfa/alice", TokenCode: broker.NewSecret("123456"), SourceIdentity: "alice",
		Tags: []profiles.Tag{{Key: "team", Value: "it"}, {Key: "empty"}}, TransitiveTags: []string{"team"},
		PolicyARNs: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"},
	}, broker.Target{Region: "eu-west-1"})
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{
		"Action": {"AssumeRole"}, "Version": {"2011-06-15"}, "RoleArn": {roleARN}, "RoleSessionName": {"alice-s1"},
		"DurationSeconds": {"1800"}, "ExternalId": {"ext-1"}, "SerialNumber": {"arn:aws:iam::111122223333:mfa/alice"},
		"TokenCode": {"123456"}, "SourceIdentity": {"alice"},
		"Tags.member.1.Key": {"team"}, "Tags.member.1.Value": {"it"}, "Tags.member.2.Key": {"empty"}, "Tags.member.2.Value": {""},
		"TransitiveTagKeys.member.1": {"team"}, "PolicyArns.member.1.arn": {"arn:aws:iam::aws:policy/ReadOnlyAccess"},
	}
	if fmt.Sprint(form) != fmt.Sprint(want) {
		t.Errorf("sent\n%v, want\n%v", form, want)
	}
	if ua := header.Get("User-Agent"); ua != "gatepass/1.2.3" {
		t.Errorf("User-Agent is %q", ua)
	}
	if a := header.Get("Authorization"); !strings.Contains(a, keyID) || !strings.Contains(a, "/eu-west-1/sts/aws4_request") {
		t.Errorf("not signed with the key for eu-west-1: %s", a)
	}
	if header.Get("X-Amz-Security-Token") != sessionTok {
		t.Error("the session token was not sent")
	}
	cr := got.Credentials
	if cr.AccessKeyID != sessionID || cr.SecretAccessKey.Reveal() != sessionKey || cr.SessionToken.Reveal() != sessionTok ||
		!cr.Expires.Equal(expires) || cr.AccountID != "111122223333" {
		t.Errorf("credentials %+v", cr)
	}
	if got.ARN != sessionARN || got.RequestID != "5f1b2c3d-0000-4000-8000-000000000001" {
		t.Errorf("ARN %q, request id %q", got.ARN, got.RequestID)
	}
}

func TestZeroFieldsAreNotSent(t *testing.T) {
	var form url.Values
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		form = r.PostForm
		grant(w, r)
	})
	c := newClient(t, sts.Config{EndpointURL: f.URL})
	if _, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{}); err != nil {
		t.Fatal(err)
	}
	want := url.Values{"Action": {"AssumeRole"}, "Version": {"2011-06-15"}, "RoleArn": {roleARN}, "RoleSessionName": {"alice-s1"}}
	if fmt.Sprint(form) != fmt.Sprint(want) {
		t.Errorf("sent %v, want %v", form, want)
	}
}

func TestSessionToken(t *testing.T) {
	var form url.Values
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		form = r.PostForm
		answer(w, 200, resultXML("GetSessionToken", credentialsXML(time.Now().Add(12*time.Hour))))
	})
	c := newClient(t, sts.Config{EndpointURL: f.URL})
	got, err := c.SessionToken(t.Context(), key(), broker.SessionTokenInput{
		Duration: 8 * time.Hour, SerialNumber: "arn:aws:iam::111122223333:mfa/alice", TokenCode: broker.NewSecret("123456"),
	}, broker.Target{})
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{"Action": {"GetSessionToken"}, "Version": {"2011-06-15"}, "DurationSeconds": {"28800"},
		"SerialNumber": {"arn:aws:iam::111122223333:mfa/alice"}, "TokenCode": {"123456"}}
	if fmt.Sprint(form) != fmt.Sprint(want) {
		t.Errorf("sent %v, want %v", form, want)
	}
	if got.Credentials.SessionToken.Reveal() != sessionTok || got.Credentials.AccountID != "111122223333" || got.ARN != "" {
		t.Errorf("session %+v", got)
	}
}

func TestCallerIdentity(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		answer(w, 200, resultXML("GetCallerIdentity",
			"<Arn>arn:aws:iam::111122223333:user/alice</Arn><UserId>AIDAGATEPASS</UserId><Account>111122223333</Account>"))
	})
	c := newClient(t, sts.Config{EndpointURL: f.URL})
	got, err := c.CallerIdentity(t.Context(), key(), broker.Target{})
	want := broker.Identity{Account: "111122223333", ARN: "arn:aws:iam::111122223333:user/alice", UserID: "AIDAGATEPASS"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

// What must not be sent is refused before any connection.
func TestRefusedBeforeSending(t *testing.T) {
	f := newFake(t, grant)
	c := newClient(t, sts.Config{EndpointURL: f.URL})
	for name, tc := range map[string]struct {
		change func(*broker.Credentials, *broker.AssumeRoleInput, *broker.Target)
		code   broker.Code
		part   string
	}{
		"role": {func(_ *broker.Credentials, in *broker.AssumeRoleInput, _ *broker.Target) {
			in.RoleARN = "arn:aws:iam::1:role/x\n"
		}, broker.CodeConfig, `"arn:aws:iam::1:role/x\n" is not a role's ARN`},
		"session name":    {func(_ *broker.Credentials, in *broker.AssumeRoleInput, _ *broker.Target) { in.SessionName = "a b" }, broker.CodeConfig, "role_session_name"},
		"no session name": {func(_ *broker.Credentials, in *broker.AssumeRoleInput, _ *broker.Target) { in.SessionName = "" }, broker.CodeConfig, "role_session_name"},
		"external id":     {func(_ *broker.Credentials, in *broker.AssumeRoleInput, _ *broker.Target) { in.ExternalID = "é" }, broker.CodeConfig, "external_id"},
		"source identity": {func(_ *broker.Credentials, in *broker.AssumeRoleInput, _ *broker.Target) { in.SourceIdentity = "aws:x" }, broker.CodeConfig, "gatepass_source_identity"},
		"serial":          {func(_ *broker.Credentials, in *broker.AssumeRoleInput, _ *broker.Target) { in.SerialNumber = "short" }, broker.CodeConfig, "mfa_serial"},
		"token code": {func(_ *broker.Credentials, in *broker.AssumeRoleInput, _ *broker.Target) {
			in.TokenCode = broker.NewSecret("12345a")
		}, broker.CodeMFAFailed, "six digits"},
		"duration":        {func(_ *broker.Credentials, in *broker.AssumeRoleInput, _ *broker.Target) { in.Duration = -time.Hour }, broker.CodeConfig, "duration"},
		"no whole second": {func(_ *broker.Credentials, in *broker.AssumeRoleInput, _ *broker.Target) { in.Duration = 5 }, broker.CodeConfig, "duration"},
		"long duration": {func(_ *broker.Credentials, in *broker.AssumeRoleInput, _ *broker.Target) {
			in.Duration = 37 * time.Hour
		}, broker.CodeConfig, "duration"},
		"region": {func(_ *broker.Credentials, _ *broker.AssumeRoleInput, at *broker.Target) { at.Region = "evil.example/" }, broker.CodeConfig, `"evil.example/" is not a region`},
		"endpoint": {func(_ *broker.Credentials, _ *broker.AssumeRoleInput, at *broker.Target) {
			at.Endpoint = "http://sts.example.com"
		}, broker.CodeConfig, "plain http to sts.example.com"},
		"key id": {func(c *broker.Credentials, _ *broker.AssumeRoleInput, _ *broker.Target) { c.AccessKeyID = secretKey }, broker.CodeConfig, "access key id"},
		"no key": {func(c *broker.Credentials, _ *broker.AssumeRoleInput, _ *broker.Target) { *c = broker.Credentials{} }, broker.CodeConfig, "access key id"},
		"secret": {func(c *broker.Credentials, _ *broker.AssumeRoleInput, _ *broker.Target) {
			c.SecretAccessKey = broker.NewSecret(secretKey + "\n")
		}, broker.CodeConfig, "secret access key"},
		"no secret": {func(c *broker.Credentials, _ *broker.AssumeRoleInput, _ *broker.Target) {
			c.SecretAccessKey = broker.Secret{}
		}, broker.CodeConfig, "secret access key"},
		"token": {func(c *broker.Credentials, _ *broker.AssumeRoleInput, _ *broker.Target) {
			c.SessionToken = broker.NewSecret(sessionTok + "\r\nX-Evil: 1")
		}, broker.CodeConfig, "session token"},
	} {
		t.Run(name, func(t *testing.T) {
			creds, in, at := key(), assume(), broker.Target{}
			tc.change(&creds, &in, &at)
			_, err := c.AssumeRole(t.Context(), creds, in, at)
			wantError(t, err, tc.code, "assume role", tc.part)
		})
	}
	if n := f.asked.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// Each row is what AWS says and what a person must read of it.
func TestRefusalsOfAWS(t *testing.T) {
	const notAuthorized = "User: arn:aws:iam::111122223333:user/alice is not authorized to perform: "
	for name, tc := range map[string]struct {
		status     int
		code, text string
		change     func(*broker.AssumeRoleInput)
		want       broker.Code
		parts      []string
		attempts   int64
	}{
		"denied": {403, "AccessDenied", notAuthorized + "sts:AssumeRole on resource: " + roleARN, nil,
			broker.CodeAWSDenied, []string{"assume role " + roleARN + ": AWS refused: AccessDenied: User: arn", "requires an external_id", "requires MFA", "does not exist"}, 1},
		"denied with parameters": {403, "AccessDenied", notAuthorized + "sts:AssumeRole", func(in *broker.AssumeRoleInput) {
			in.ExternalID, in.SerialNumber, in.SourceIdentity, in.Tags = "ext-1", "arn:aws:iam::111122223333:mfa/a", "alice", []profiles.Tag{{Key: "a"}}
		}, broker.CodeAWSDenied, []string{"external_id is wrong", "sts:SetSourceIdentity", "sts:TagSession"}, 1},
		"denied to a role": {403, "AccessDenied", notAuthorized + "sts:AssumeRole", func(in *broker.AssumeRoleInput) { in.Chained = true },
			broker.CodeAWSDenied, []string{"it requires MFA, which the session of a role never has; it wants another"}, 1},
		"tag session":     {403, "AccessDenied", notAuthorized + "sts:TagSession on resource: x", nil, broker.CodeAWSDenied, []string{"trust policy must allow sts:TagSession"}, 1},
		"source identity": {403, "AccessDenied", notAuthorized + "sts:SetSourceIdentity on resource: x", nil, broker.CodeAWSDenied, []string{"trust policy must allow sts:SetSourceIdentity"}, 1},
		"session name":    {403, "AccessDenied", notAuthorized + "sts:AssumeRole", nil, broker.CodeAWSDenied, []string{`another role_session_name than "alice-`}, 1},
		"own tags": {403, "AccessDenied", notAuthorized + "sts:TagSession on resource: x", func(in *broker.AssumeRoleInput) { in.Tags = []profiles.Tag{{Key: "a"}} },
			broker.CodeAWSDenied, []string{"must not set session tags (gatepass_session_tags)"}, 1},
		"tags passed on": {403, "AccessDenied", notAuthorized + "sts:TagSession on resource: x", nil, broker.CodeAWSDenied, []string{"gatepass_transitive_tags there"}, 1},
		"own source identity": {403, "AccessDenied", notAuthorized + "sts:SetSourceIdentity on resource: x", func(in *broker.AssumeRoleInput) { in.SourceIdentity = "alice" },
			broker.CodeAWSDenied, []string{"must not set a source identity"}, 1},
		"source identity passed on": {403, "AccessDenied", notAuthorized + "sts:SetSourceIdentity on resource: x", nil, broker.CodeAWSDenied, []string{"that a role before it passes on"}, 1},
		"tag set again":             {400, "InvalidParameterValue", "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.", nil, broker.CodeAWSDenied, []string{"cannot be set again"}, 1},
		"tag that is not set":       {400, "InvalidParameterValue", "The specified transitive tag key must be included in the requested tags.", nil, broker.CodeAWSDenied, []string{"gatepass_transitive_tags may only name"}, 1},
		"tags twice":                {400, "InvalidParameterValue", "Duplicate tag keys found. Please note that Tag keys are case insensitive.", nil, broker.CodeAWSDenied, []string{"the profile's gatepass_session_tags"}, 1},
		"a tag's value":             {400, "ValidationError", "1 validation error detected: Value 'x' at 'tags.1.member.value' failed to satisfy constraint", nil, broker.CodeAWSDenied, []string{"the profile's gatepass_session_tags"}, 1},
		"a name":                    {400, "ValidationError", "1 validation error detected: Value 'x' at 'roleSessionName' failed to satisfy constraint", nil, broker.CodeAWSDenied, []string{"the profile's role_session_name is not one"}, 1},
		"an external id":            {400, "ValidationError", "1 validation error detected: Value 'x' at 'externalId' failed to satisfy constraint", nil, broker.CodeAWSDenied, []string{"the profile's external_id is not one"}, 1},
		"an identity":               {400, "ValidationError", "1 validation error detected: Value 'x' at 'sourceIdentity' failed to satisfy constraint", nil, broker.CodeAWSDenied, []string{"the profile's gatepass_source_identity is not one"}, 1},
		"a serial":                  {400, "ValidationError", "1 validation error detected: Value 'x' at 'serialNumber' failed to satisfy constraint", nil, broker.CodeAWSDenied, []string{"the profile's mfa_serial is not one"}, 1},
		"seconds":                   {400, "ValidationError", "1 validation error detected: Value '60' at 'durationSeconds' failed to satisfy constraint", nil, broker.CodeAWSDenied, []string{"900 to 43200"}, 1},
		"explicit deny":             {403, "AccessDenied", notAuthorized + "sts:AssumeRole with an explicit deny in a service control policy", nil, broker.CodeAWSDenied, []string{"forbids it outright"}, 1},
		"used code":                 {403, "AccessDenied", "MultiFactorAuthentication failed with invalid MFA one time pass code. ", nil, broker.CodeMFAFailed, []string{"works once"}, 1},
		"wrong serial":              {403, "AccessDenied", "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA serial number is valid and associated with this user.", nil, broker.CodeMFAFailed, []string{"mfa_serial must be"}, 1},
		"no serial":                 {403, "AccessDenied", "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code.", nil, broker.CodeMFAFailed, []string{"set mfa_serial"}, 1},
		"unknown key":               {403, "InvalidClientTokenId", "The security token included in the request is invalid.", nil, broker.CodeAWSDenied, []string{"deleted or is inactive", "partition"}, 1},
		"wrong secret":              {403, "SignatureDoesNotMatch", "The request signature we calculated does not match", nil, broker.CodeAWSDenied, []string{"not the one of this access key id"}, 1},
		"expired":                   {403, "ExpiredToken", "The security token included in the request is expired", nil, broker.CodeAWSDenied, []string{"has expired"}, 1},
		"expired, modelled":         {400, "ExpiredTokenException", "expired", nil, broker.CodeAWSDenied, []string{"has expired"}, 1},
		"region disabled":           {403, "RegionDisabledException", "STS is not activated in this region for account:111122223333.", nil, broker.CodeConfig, []string{"STS is not active in us-east-1", "Account settings"}, 1},
		"over the maximum":          {400, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.", nil, broker.CodeAWSDenied, []string{"lower duration_seconds"}, 1},
		"chained":                   {400, "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.", nil, broker.CodeAWSDenied, []string{"3600 or less"}, 1},
		"too short":                 {400, "ValidationError", "1 validation error detected: Value '60' at 'durationSeconds' failed: DurationSeconds", nil, broker.CodeAWSDenied, []string{"900 to 43200"}, 1},
		"packed":                    {400, "PackedPolicyTooLarge", "Serialized token too large for session", nil, broker.CodeAWSDenied, []string{"fewer or shorter"}, 1},
		"malformed policy":          {400, "MalformedPolicyDocument", "bad ARN", nil, broker.CodeAWSDenied, []string{"MalformedPolicyDocument: bad ARN"}, 1},
		"not sts":                   {400, "InvalidAction", "The action AssumeRole is not valid for this endpoint.", nil, broker.CodeAWSDenied, []string{"endpoint_url"}, 1},
		"throttled":                 {400, "Throttling", "Rate exceeded", nil, broker.CodeThrottled, []string{"AWS asks to slow down: Throttling: Rate exceeded"}, 3},
		"too many":                  {429, "Whatever", "slow", nil, broker.CodeThrottled, []string{"slow down"}, 3},
		"throttled as 503":          {503, "SlowDown", "Please reduce", nil, broker.CodeThrottled, nil, 3},
		"failing":                   {500, "InternalFailure", "An internal error has occurred.", nil, broker.CodeAWSUnreachable, []string{"AWS failed with 500 Internal Server Error: InternalFailure"}, 3},
		"unavailable":               {503, "ServiceUnavailable", "try later", nil, broker.CodeAWSUnreachable, []string{"503 Service Unavailable"}, 3},
		"unheard of":                {418, "Teapot", "", nil, broker.CodeAWSDenied, []string{"AWS refused: Teapot"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, func(w http.ResponseWriter, r *http.Request) { refuse(w, tc.status, tc.code, tc.text) })
			c := newClient(t, sts.Config{EndpointURL: f.URL})
			in := assume()
			if tc.change != nil {
				tc.change(&in)
			}
			_, err := c.AssumeRole(t.Context(), key(), in, broker.Target{})
			e := wantError(t, err, tc.want, tc.parts...)
			if strings.HasSuffix(e.Message, ".") {
				t.Errorf("message ends with a stop: %s", e.Message)
			}
			if n := f.asked.Load(); n != tc.attempts {
				t.Errorf("%d attempts, want %d", n, tc.attempts)
			}
		})
	}
}

// What a refusal says of MFA depends on who asks.
func TestDeniedForMFA(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) { refuse(w, 403, "AccessDenied", "not authorized") })
	c := newClient(t, sts.Config{EndpointURL: f.URL})
	proved := broker.Credentials{AccessKeyID: "ASIAIOSFODNN7EXAMPLE", SecretAccessKey: broker.NewSecret(secretKey), SessionToken: broker.NewSecret(strings.Repeat("a-session-token/", 8))}
	device := assume()
	device.SerialNumber, device.TokenCode = "arn:aws:iam::111122223333:mfa/alice", broker.NewSecret("123456")
	chained := assume()
	chained.Chained = true
	says := []string{"no mfa_serial is set", "the MFA sign-in is too old for it", "the session of a role never has"}
	for name, tc := range map[string]struct {
		creds broker.Credentials
		in    broker.AssumeRoleInput
		want  string // of says; "" for none
	}{
		"a key":                 {key(), assume(), says[0]},
		"a key with a code":     {key(), device, ""},
		"a session with MFA":    {proved, assume(), says[1]},
		"the session of a role": {proved, chained, says[2]},
	} {
		_, err := c.AssumeRole(t.Context(), tc.creds, tc.in, broker.Target{})
		hint := wantError(t, err, broker.CodeAWSDenied).Hint
		for _, s := range says {
			if strings.Contains(hint, s) != (s == tc.want) {
				t.Errorf("%s: %s", name, hint)
			}
		}
	}
}

// Stand-ins for AWS wrap their errors in other ways than STS.
func TestOtherErrorFormats(t *testing.T) {
	const e = "<Code>AccessDenied</Code><Message>no</Message>"
	for _, body := range []string{
		"<ErrorResponse><Errors><Error>" + e + "</Error></Errors></ErrorResponse>",
		"<Response><Errors><Error>" + e + "</Error></Errors></Response>",
		`<?xml version="1.0" encoding="UTF-8"?><Error>` + e + "</Error>",
	} {
		f := newFake(t, func(w http.ResponseWriter, r *http.Request) { answer(w, 403, body) })
		_, err := newClient(t, sts.Config{EndpointURL: f.URL}).AssumeRole(t.Context(), key(), assume(), broker.Target{})
		wantError(t, err, broker.CodeAWSDenied, "AWS refused: AccessDenied: no")
	}
}

// What stands between us and AWS fails in its own ways.
func TestFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		handler  http.HandlerFunc
		parts    []string
		attempts int64
	}{
		"html 403": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(403)
			fmt.Fprint(w, "<html><body>Access to this site is blocked</body></html>")
		}, []string{"answered 403 Forbidden, and not as AWS does", "endpoint_url"}, 1},
		"text 404":  {func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, []string{"404 Not Found"}, 1},
		"empty 403": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, []string{"403 Forbidden"}, 1},
		"garbage 503": {func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "\x00\x1b[31m", http.StatusServiceUnavailable)
		}, []string{"answered 503 Service Unavailable"}, 3},
		"garbage":        {func(w http.ResponseWriter, r *http.Request) { answer(w, 200, "<<<>&\x00") }, []string{"not STS's XML"}, 1},
		"html":           {func(w http.ResponseWriter, r *http.Request) { answer(w, 200, "<html><body>Sign in</body></html>") }, []string{"cannot be used"}, 1},
		"empty":          {func(w http.ResponseWriter, r *http.Request) { answer(w, 200, "") }, []string{"no credentials"}, 1},
		"no credentials": {func(w http.ResponseWriter, r *http.Request) { answer(w, 200, resultXML("AssumeRole", "")) }, []string{"no credentials"}, 1},
		"xml cut short": {func(w http.ResponseWriter, r *http.Request) {
			x := assumedXML(sessionARN, time.Now().Add(time.Hour))
			answer(w, 200, x[:len(x)/2])
		}, []string{"cut short"}, 1},
		"bad expiration": {func(w http.ResponseWriter, r *http.Request) {
			answer(w, 200, strings.Replace(assumedXML(sessionARN, time.Now()), "<Expiration>", "<Expiration>x", 1))
		}, []string{"not STS's XML"}, 1},
		"body shorter than announced": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5000")
			grant(w, r)
		}, []string{"closed the connection before its answer was complete"}, 3},
		"dropped": {func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, []string{"closed the connection"}, 3},
		"10 MB announced": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10000000")
			w.WriteHeader(200)
		}, []string{"answer larger than 1024 KiB"}, 1},
		"10 MB": {func(w http.ResponseWriter, r *http.Request) {
			chunk := bytes.Repeat([]byte("<a>"), 10000)
			for range 350 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, []string{"answer larger than 1024 KiB"}, 1},
		"huge header": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Huge", strings.Repeat("x", 200<<10))
			grant(w, r)
		}, []string{"no answer from"}, 3},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://login.example/?token=1", http.StatusTemporaryRedirect)
		}, []string{"answered with a redirect"}, 1},
		"not http": {func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				conn.Write([]byte("SSH-2.0-OpenSSH_9.2\x1b[31m\r\n"))
				conn.Close()
			}
		}, []string{"no answer from"}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, tc.handler)
			c := newClient(t, sts.Config{EndpointURL: f.URL})
			_, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
			e := wantError(t, err, broker.CodeAWSUnreachable, tc.parts...)
			if !strings.HasPrefix(e.Message, "assume role "+roleARN+": ") || strings.ContainsAny(e.Message, "\x1b\n\x00") {
				t.Errorf("message: %q", e.Message)
			}
			if n := f.asked.Load(); n != tc.attempts {
				t.Errorf("%d attempts, want %d", n, tc.attempts)
			}
		})
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	elsewhere := newFake(t, grant)
	for _, status := range []int{301, 302, 303, 307, 308} {
		f := newFake(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, status) })
		_, err := newClient(t, sts.Config{EndpointURL: f.URL}).AssumeRole(t.Context(), key(), assume(), broker.Target{})
		wantError(t, err, broker.CodeAWSUnreachable, "redirect")
	}
	if n := elsewhere.asked.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// An attempt that fails in passing is made up for.
func TestRetrySucceeds(t *testing.T) {
	for name, first := range map[string]http.HandlerFunc{
		"throttled": func(w http.ResponseWriter, r *http.Request) { refuse(w, 400, "Throttling", "Rate exceeded") },
		"503":       func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) },
		"dropped":   func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			var f *fake
			f = newFake(t, func(w http.ResponseWriter, r *http.Request) {
				if f.asked.Load() < 3 {
					first(w, r)
					return
				}
				grant(w, r)
			})
			c := newClient(t, sts.Config{EndpointURL: f.URL})
			if _, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{}); err != nil {
				t.Errorf("third attempt: %v", err)
			}
		})
	}
}

// A token code is used up by the request that carries it.
func TestTokenCodeIsSentOnce(t *testing.T) {
	in := assume()
	in.SerialNumber, in.TokenCode = "arn:aws:iam::111122223333:mfa/alice", broker.NewSecret("123456")
	for name, h := range map[string]http.HandlerFunc{
		"throttled": func(w http.ResponseWriter, r *http.Request) { refuse(w, 400, "Throttling", "Rate exceeded") },
		"503":       func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) },
		"dropped":   func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"cut":       func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "5000"); grant(w, r) },
		"skewed": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			refuse(w, 403, "SignatureDoesNotMatch", "Signature expired")
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, h)
			c := newClient(t, sts.Config{EndpointURL: f.URL})
			if _, err := c.AssumeRole(t.Context(), key(), in, broker.Target{}); err == nil {
				t.Error("no error")
			}
			if _, err := c.SessionToken(t.Context(), key(), broker.SessionTokenInput{SerialNumber: in.SerialNumber, TokenCode: in.TokenCode}, broker.Target{}); err == nil {
				t.Error("no error")
			}
			if n := f.asked.Load(); n != 2 {
				t.Errorf("two calls made %d requests", n)
			}
		})
	}

	// Where there was no connection, the code is as good as new.
	f := newFake(t, grant)
	c := newClient(t, sts.Config{EndpointURL: f.URL})
	dials := 0
	c.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dials++; dials < 3 {
			return nil, &net.DNSError{Err: "server misbehaving", Name: "x", IsTemporary: true}
		}
		return net.Dial(network, addr)
	})
	if _, err := c.AssumeRole(t.Context(), key(), in, broker.Target{}); err != nil || dials != 3 {
		t.Errorf("after %d dials: %v", dials, err)
	}
}

// A connection that the server closed while it was idle must not swallow a
// token code.
func TestTokenCodeUsesANewConnection(t *testing.T) {
	var conns []string
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		conns = append(conns, r.RemoteAddr)
		grant(w, r)
	})
	c := newClient(t, sts.Config{EndpointURL: f.URL})
	in := assume()
	for _, code := range []string{"", "", "123456"} {
		if code != "" {
			in.SerialNumber, in.TokenCode = "arn:aws:iam::111122223333:mfa/alice", broker.NewSecret(code)
		}
		if _, err := c.AssumeRole(t.Context(), key(), in, broker.Target{}); err != nil {
			t.Fatal(err)
		}
	}
	if conns[0] != conns[1] || conns[1] == conns[2] {
		t.Errorf("connections %v: want the first two calls to share one and the third to have its own", conns)
	}
}

// hang answers nothing until the client goes, which the server notices once it
// has read the request.
func hang(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func TestTimeout(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"no answer": hang,
		"half an answer": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "<AssumeRoleResponse>")
			w.(http.Flusher).Flush()
			hang(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, h)
			c := newClient(t, sts.Config{EndpointURL: f.URL, Timeout: 50 * time.Millisecond})
			_, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
			wantError(t, err, broker.CodeAWSUnreachable, "no answer from 127.0.0.1:", "within 50ms")
			if n := f.asked.Load(); n != 1 {
				t.Errorf("%d attempts", n)
			}
		})
	}
}

func TestCallersContext(t *testing.T) {
	arrived := make(chan struct{}, 1)
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		hang(w, r)
	})
	c := newClient(t, sts.Config{EndpointURL: f.URL})

	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err := c.AssumeRole(ctx, key(), assume(), broker.Target{})
	wantError(t, err, broker.CodeAWSUnreachable, "given up")
	if !errors.Is(err, context.Canceled) {
		t.Error("errors.Is does not find context.Canceled")
	}

	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = c.AssumeRole(ctx, key(), assume(), broker.Target{})
	wantError(t, err, broker.CodeAWSUnreachable, "given up")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error("errors.Is does not find context.DeadlineExceeded")
	}
}

// The wait before the next attempt never outlasts the call: the last error is
// given instead.
func TestNoAttemptBeyondTheDeadline(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) { refuse(w, 400, "Throttling", "Rate exceeded") })
	c, err := sts.New(sts.Config{EndpointURL: f.URL, Timeout: 90 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
	wantError(t, err, broker.CodeThrottled)
	if n := f.asked.Load(); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

func TestNetworkFaults(t *testing.T) {
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused.Close()
	t.Run("connection refused", func(t *testing.T) {
		c := newClient(t, sts.Config{EndpointURL: "http://" + refused.Addr().String()})
		_, err := c.CallerIdentity(t.Context(), key(), broker.Target{})
		wantError(t, err, broker.CodeAWSUnreachable, "get caller identity: cannot connect to "+refused.Addr().String(), "refused")
	})
	t.Run("no such host", func(t *testing.T) {
		c := newClient(t, sts.Config{})
		dials := 0
		c.SetDial(func(context.Context, string, string) (net.Conn, error) {
			dials++
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "sts.xx-nowhere-1.amazonaws.com", IsNotFound: true}}
		})
		_, err := c.CallerIdentity(t.Context(), key(), broker.Target{Region: "xx-nowhere-1"})
		wantError(t, err, broker.CodeAWSUnreachable, "cannot find the address of sts.xx-nowhere-1.amazonaws.com: no such host", "region")
		if dials != 1 {
			t.Errorf("%d attempts", dials)
		}
	})
	t.Run("dial timeout", func(t *testing.T) {
		c := newClient(t, sts.Config{})
		dials := 0
		c.SetDial(func(context.Context, string, string) (net.Conn, error) {
			dials++
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
		})
		_, err := c.CallerIdentity(t.Context(), key(), broker.Target{})
		wantError(t, err, broker.CodeAWSUnreachable, "cannot connect to sts.us-east-1.amazonaws.com: timed out")
		if dials != 3 {
			t.Errorf("%d attempts", dials)
		}
	})
}

func TestLocalhostIsNotAskedOfDNS(t *testing.T) {
	f := newFake(t, grant)
	_, port, _ := net.SplitHostPort(f.Listener.Addr().String())
	c := newClient(t, sts.Config{EndpointURL: "http://localhost:" + port})
	var meant []string
	c.SetDial(dialTo(f.Listener.Addr().String(), &meant))
	if _, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{}); err != nil {
		t.Fatal(err)
	}
	if len(meant) != 1 || meant[0] != "127.0.0.1:"+port {
		t.Errorf("dialled %v", meant)
	}
}

// Nothing that a server says back, and nothing that is logged, holds a secret.
func TestEchoedSecretsAreMasked(t *testing.T) {
	const code = "918273"
	var logged bytes.Buffer
	for name, say := range map[string]func(r *http.Request) string{
		"authorization": func(r *http.Request) string { return r.Header.Get("Authorization") },
		"token":         func(r *http.Request) string { return "token " + r.Header.Get("X-Amz-Security-Token") + " is odd" },
		"escaped token": func(r *http.Request) string { return url.QueryEscape(r.Header.Get("X-Amz-Security-Token")) },
		"secret":        func(r *http.Request) string { return "key=" + secretKey },
		"cut secret":    func(r *http.Request) string { return strings.Repeat("x", 4080) + secretKey },
		"folded secret": func(r *http.Request) string { return strings.ToUpper(secretKey) },
		"part":          func(r *http.Request) string { return secretKey[5:25] },
		"form":          func(r *http.Request) string { r.ParseForm(); return strings.ReplaceAll(r.PostForm.Encode(), "&", " ") },
		"control":       func(r *http.Request) string { return secretKey[:20] + "\u200b" + secretKey[20:] },
	} {
		t.Run(name, func(t *testing.T) {
			for _, errorCode := range []string{"AccessDenied", "InternalFailure", ""} {
				var signature string
				f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
					_, signature, _ = strings.Cut(r.Header.Get("Authorization"), "Signature=")
					said := say(r)
					if errorCode == "" {
						refuse(w, 403, said, said)
						return
					}
					refuse(w, 403, errorCode, said)
				})
				c := newClient(t, sts.Config{EndpointURL: f.URL, Logger: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))})
				creds, in := key(), assume()
				creds.SessionToken = broker.NewSecret(sessionTok)
				in.SerialNumber, in.TokenCode = "arn:aws:iam::111122223333:mfa/alice", broker.NewSecret(code)
				_, err := c.AssumeRole(t.Context(), creds, in, broker.Target{})
				e := wantError(t, err, broker.CodeAWSDenied)
				low := strings.ToLower(e.Message + logged.String())
				for _, s := range []string{secretKey, sessionTok, url.QueryEscape(sessionTok), signature} {
					for i := 0; i+9 <= len(s); i++ {
						if part := strings.ToLower(s[i : i+9]); strings.Contains(low, part) {
							t.Fatalf("%q is in %s", part, low)
						}
					}
				}
				if strings.Contains(low, code) {
					t.Errorf("the token code is in %s", low)
				}
			}
		})
	}
	if logged.Len() == 0 {
		t.Error("nothing was logged")
	}
}

// Answers are hostile: each of these would be a session without the check.
func TestHostileAnswers(t *testing.T) {
	hour := time.Now().Add(time.Hour)
	good := assumedXML(sessionARN, hour)
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the answer", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, tc := range map[string]struct{ body, part string }{
		"no access key id":     {replace("<AccessKeyId>"+sessionID+"</AccessKeyId>", ""), "access key id"},
		"odd access key id":    {replace(sessionID, "ASIA\"}{GATEPASSTEST"), "access key id"},
		"long access key id":   {replace(sessionID, strings.Repeat("A", 129)), "access key id"},
		"no secret":            {replace(sessionKey, ""), "secret access key"},
		"secret with newline":  {replace(sessionKey, sessionKey+"&#10;x"), "secret access key"},
		"secret not ASCII":     {replace(sessionKey, sessionKey+"é"), "secret access key"},
		"long secret":          {replace(sessionKey, strings.Repeat("s", 513)), "secret access key"},
		"short secret":         {replace(sessionKey, "short"), "secret access key"},
		"no token":             {replace("<SessionToken>"+sessionTok+"</SessionToken>", ""), "session token"},
		"token with space":     {replace(sessionTok, sessionTok+" x"), "session token"},
		"huge token":           {replace(sessionTok, strings.Repeat("t", 16<<10+1)), "session token"},
		"no expiration":        {replace("<Expiration>"+hour.UTC().Format(time.RFC3339)+"</Expiration>", ""), "when the session expires"},
		"expired":              {assumedXML(sessionARN, time.Now().Add(-time.Minute)), "expired already"},
		"lasts for ever":       {assumedXML(sessionARN, time.Now().Add(37*time.Hour)), "longer than the 36 hours"},
		"other role":           {assumedXML("arn:aws:sts::111122223333:assumed-role/Other/alice-s1", hour), "not of the role"},
		"other account":        {assumedXML("arn:aws:sts::999922223333:assumed-role/Deploy/alice-s1", hour), "not of the role"},
		"other partition":      {assumedXML("arn:aws-cn:sts::111122223333:assumed-role/Deploy/alice-s1", hour), "not of the role"},
		"other session":        {assumedXML("arn:aws:sts::111122223333:assumed-role/Deploy/mallory", hour), "not of the role"},
		"not a role's session": {assumedXML("arn:aws:sts::111122223333:federated-user/Deploy/alice-s1", hour), "not of the role"},
		"no ARN":               {replace("<Arn>"+sessionARN+"</Arn>", ""), "not of the role"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, func(w http.ResponseWriter, r *http.Request) { answer(w, 200, tc.body) })
			c := newClient(t, sts.Config{EndpointURL: f.URL})
			got, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
			wantError(t, err, broker.CodeAWSUnreachable, "cannot be used", tc.part)
			if got.Credentials.AccessKeyID != "" || !got.Credentials.SecretAccessKey.IsZero() {
				t.Error("credentials were returned with the error")
			}
		})
	}
	// And the ones that are right, though they look unusual.
	for name, body := range map[string]string{
		"role name in other case": assumedXML("arn:aws:sts::111122223333:assumed-role/deploy/alice-s1", hour),
		"36 hours":                assumedXML(sessionARN, time.Now().Add(36*time.Hour)),
		"4 KiB token":             replace(sessionTok, strings.Repeat("t", 4096)),
	} {
		f := newFake(t, func(w http.ResponseWriter, r *http.Request) { answer(w, 200, body) })
		if _, err := newClient(t, sts.Config{EndpointURL: f.URL}).AssumeRole(t.Context(), key(), assume(), broker.Target{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostileIdentities(t *testing.T) {
	for name, body := range map[string]string{
		"empty":         "",
		"no account":    "<Arn>arn:aws:iam::111122223333:user/alice</Arn><UserId>AIDA</UserId>",
		"odd account":   "<Arn>arn:aws:iam::11112222333x:user/alice</Arn><UserId>AIDA</UserId><Account>11112222333x</Account>",
		"no arn":        "<UserId>AIDA</UserId><Account>111122223333</Account>",
		"other account": "<Arn>arn:aws:iam::999922223333:user/alice</Arn><UserId>AIDA</UserId><Account>111122223333</Account>",
		"other service": "<Arn>arn:aws:s3::111122223333:user/alice</Arn><UserId>AIDA</UserId><Account>111122223333</Account>",
		"odd partition": "<Arn>arn:xx:iam::111122223333:user/alice</Arn><UserId>AIDA</UserId><Account>111122223333</Account>",
		"newline":       "<Arn>arn:aws:iam::111122223333:user/al&#10;ice</Arn><UserId>AIDA</UserId><Account>111122223333</Account>",
		"no user id":    "<Arn>arn:aws:iam::111122223333:user/alice</Arn><Account>111122223333</Account>",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, func(w http.ResponseWriter, r *http.Request) { answer(w, 200, resultXML("GetCallerIdentity", body)) })
			_, err := newClient(t, sts.Config{EndpointURL: f.URL}).CallerIdentity(t.Context(), key(), broker.Target{})
			wantError(t, err, broker.CodeAWSUnreachable, "cannot be used")
		})
	}
}

// A request id that is not one is left out of the log, not shown.
func TestOddRequestID(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amzn-Requestid", strings.Repeat("x", 129))
		fmt.Fprint(w, assumedXML(sessionARN, time.Now().Add(time.Hour)))
	})
	s, err := newClient(t, sts.Config{EndpointURL: f.URL}).AssumeRole(t.Context(), key(), assume(), broker.Target{})
	if err != nil || s.RequestID != "" {
		t.Errorf("request id %q, %v", s.RequestID, err)
	}
}

func TestScrub(t *testing.T) {
	for in, want := range map[string]string{
		"a\x1b[31mb\u202ec\x00":                   "a[31mbc",
		" two\n lines.":                           "two lines",
		"bad \xff utf-8":                          "bad utf-8",
		"does not match. The Canonical String: x": "does not match",
		"key " + secretKey + ", key":              "key [secret], key",
	} {
		if got := sts.Scrub(in, []string{secretKey}); got != want {
			t.Errorf("scrub(%q) = %q, want %q", in, got, want)
		}
	}
	if n := len(sts.Scrub(strings.Repeat("é", 1<<20), nil)); n > 4096 {
		t.Errorf("%d bytes are left", n)
	}
}

func BenchmarkAssumeRole(b *testing.B) {
	f := newFake(b, grant)
	c := newClient(b, sts.Config{EndpointURL: f.URL})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.AssumeRole(b.Context(), key(), assume(), broker.Target{}); err != nil {
			b.Fatal(err)
		}
	}
}
