// Package sts calls AWS's Security Token Service for the daemon: which
// identity some credentials have, a session of a long-term key, a session of
// a role; and of Identity and Access Management what it takes to replace a
// key and to say who its user is. [Client] implements [broker.STS] and [broker.IAM].
//
// A client goes where its [Config] and the call's [broker.Target] say and
// nowhere else. It is built from explicit options, never from the SDK's
// default configuration, so that no AWS_* variable, proxy variable or profile
// redirects it or changes its authorities, retries or signing time. What a
// process cannot close by itself is its own runtime's: without a CA bundle,
// crypto/x509 finds the system's authorities by SSL_CERT_FILE and
// SSL_CERT_DIR on Unix; GODEBUG and the resolver's variables (LOCALDOMAIN,
// RES_OPTIONS, HOSTALIASES) count too. The daemon starts without them.
//
// What comes back is hostile until checked: bounded, complete, well-formed,
// for the role that was asked, valid now and not for ever. Messages of AWS are
// passed on without control characters and without anything of a secret.
//
// A wrong clock is not fatal. When AWS refuses a signature and its Date
// header says that this machine's clock is off by more than four minutes, the
// call is signed again for AWS's time, and later calls are from the start.
// Expiry is given in this machine's time, as those who compare it use that.
package sts

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"gatepass/broker"
)

// A Config says where calls go and through what. The zero value calls AWS
// directly, trusting the system's authorities.
type Config struct {
	EndpointURL    string        // of every AWS service; https, or http to this machine
	EndpointURLSTS string        // of STS alone; goes before EndpointURL
	EndpointURLIAM string        // of IAM alone; goes before EndpointURL
	CABundle       string        // PEM file of authorities, trusted instead of the system's
	Proxy          string        // http:// or https://, with user and password if need be; "" for none
	NoProxy        string        // hosts, domains and networks asked directly, as in NO_PROXY
	Timeout        time.Duration // of one call, retries included; 0 means 15 s
	Version        string        // of gatepass, for the User-Agent header, which CloudTrail records

	Logger *slog.Logger     // nil for none
	Now    func() time.Time // the wall clock; nil means [time.Now]
}

const (
	defaultTimeout = 15 * time.Second
	maxAttempts    = 3

	// skewThreshold is from when on a clock counts as wrong. AWS accepts 5
	// minutes; the SDKs draw the line at 4.
	skewThreshold = 4 * time.Minute
	// maxSkew bounds what a Date header is believed: time zones mistaken for
	// one another and a day's sleep are common, and a request signed for
	// another year is nobody's to collect.
	maxSkew = 24 * time.Hour
)

// A Client calls STS and IAM. It is safe for concurrent use.
type Client struct {
	api         *awssts.Client
	iam         *awsiam.Client
	transport   *transport
	endpoint    string // of STS in the configuration; "" for AWS's own
	iamEndpoint string
	timeout     time.Duration
	now         func() time.Time
	backoff     func(attempt int) time.Duration
	log         *slog.Logger
	skew        atomic.Int64 // AWS's time less ours, in ns, when that is beyond skewThreshold; else 0
}

var _ broker.STS = (*Client)(nil)

// New returns a client. An endpoint, proxy or CA bundle that cannot be used is
// an error with [broker.CodeConfig]. The CA bundle is read once, here.
func New(cfg Config) (*Client, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{timeout: cfg.Timeout, now: cfg.Now, backoff: backoff, log: cfg.Logger}
	for _, e := range []struct {
		key, url string
		of       []*string
	}{
		{"endpoint_url", cfg.EndpointURL, []*string{&c.endpoint, &c.iamEndpoint}},
		{"endpoint_url_sts", cfg.EndpointURLSTS, []*string{&c.endpoint}},
		{"endpoint_url_iam", cfg.EndpointURLIAM, []*string{&c.iamEndpoint}},
	} {
		if e.url == "" {
			continue
		}
		if err := checkEndpoint(e.url); err != nil {
			return nil, badConfig(e.key, err)
		}
		for _, endpoint := range e.of {
			*endpoint = e.url
		}
	}
	var err error
	if c.transport, err = newTransport(cfg); err != nil {
		return nil, err
	}
	c.api = awssts.New(awssts.Options{
		HTTPClient:   c.transport,
		HTTPSignerV4: signer{cfg.Now},
		// Retries are call's: it knows what must not be sent twice. And skew
		// is the signer's, so that one wrong clock is learnt only once.
		Retryer:                    aws.NopRetryer{},
		DisableClockSkewCorrection: true,
	})
	c.iam = awsiam.New(awsiam.Options{
		HTTPClient: c.transport, HTTPSignerV4: signer{cfg.Now},
		Retryer: aws.NopRetryer{}, DisableClockSkewCorrection: true,
	})
	return c, nil
}

// A ConfigError is in the chain of [New]'s error: the key of [aws] whose value
// cannot be used, and why.
type ConfigError struct {
	Key string // as in gatepass.toml, without "aws."
	Err error  // quotes no proxy and no endpoint
}

func (e *ConfigError) Error() string { return "[aws] " + e.Key + ": " + e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

func badConfig(key string, why error) error {
	return broker.Errorf(broker.CodeConfig, "%w", &ConfigError{key, why})
}

// Close closes idle connections. Calls under way go on.
func (c *Client) Close() error {
	c.transport.http.CloseIdleConnections()
	return nil
}

// CallerIdentity returns whom creds belong to. Every valid credential may ask.
func (c *Client) CallerIdentity(ctx context.Context, creds broker.Credentials, at broker.Target) (broker.Identity, error) {
	k := &call{op: "GetCallerIdentity", doing: "get caller identity", creds: creds}
	if err := c.prepare(k, at, ""); err != nil {
		return broker.Identity{}, err
	}
	out, x, err := do(ctx, c, k, c.api.GetCallerIdentity, &awssts.GetCallerIdentityInput{})
	if err != nil {
		return broker.Identity{}, err
	}
	id := broker.Identity{Account: aws.ToString(out.Account), ARN: aws.ToString(out.Arn), UserID: aws.ToString(out.UserId)}
	if err := checkIdentity(id); err != nil {
		return broker.Identity{}, k.nonsense(x, err)
	}
	return id, nil
}

// SessionToken returns a session of the long-term key creds (GetSessionToken).
func (c *Client) SessionToken(ctx context.Context, creds broker.Credentials, in broker.SessionTokenInput, at broker.Target) (broker.STSSession, error) {
	k := &call{op: "GetSessionToken", doing: "get session token", creds: creds, serial: in.SerialNumber, code: in.TokenCode}
	if err := c.prepare(k, at, ""); err != nil {
		return broker.STSSession{}, err
	}
	seconds, err := k.seconds(in.Duration)
	if err != nil {
		return broker.STSSession{}, err
	}
	out, x, err := do(ctx, c, k, c.api.GetSessionToken, &awssts.GetSessionTokenInput{
		DurationSeconds: seconds,
		SerialNumber:    optional(in.SerialNumber),
		TokenCode:       optional(in.TokenCode.Reveal()),
	})
	if err != nil {
		return broker.STSSession{}, err
	}
	s, err := c.session(out.Credentials, x)
	if err != nil {
		return broker.STSSession{}, k.nonsense(x, err)
	}
	s.Credentials.AccountID = creds.AccountID // a session stays in its key's account
	return s, nil
}

// AssumeRole returns a session of a role.
func (c *Client) AssumeRole(ctx context.Context, creds broker.Credentials, in broker.AssumeRoleInput, at broker.Target) (broker.STSSession, error) {
	role, err := ParseRoleARN(in.RoleARN)
	if err != nil {
		return broker.STSSession{}, broker.AsError(fmt.Errorf("assume role: %w", err))
	}
	k := &call{op: "AssumeRole", doing: "assume role " + in.RoleARN, creds: creds, serial: in.SerialNumber, code: in.TokenCode, role: &in}
	if err := c.prepare(k, at, role.Partition); err != nil {
		return broker.STSSession{}, err
	}
	seconds, err := k.seconds(in.Duration)
	if err != nil {
		return broker.STSSession{}, err
	}
	input := &awssts.AssumeRoleInput{
		RoleArn:           &in.RoleARN,
		RoleSessionName:   &in.SessionName,
		DurationSeconds:   seconds,
		ExternalId:        optional(in.ExternalID),
		SerialNumber:      optional(in.SerialNumber),
		TokenCode:         optional(in.TokenCode.Reveal()),
		SourceIdentity:    optional(in.SourceIdentity),
		TransitiveTagKeys: in.TransitiveTags,
	}
	for _, t := range in.Tags {
		input.Tags = append(input.Tags, types.Tag{Key: aws.String(t.Key), Value: aws.String(t.Value)})
	}
	for _, arn := range in.PolicyARNs {
		input.PolicyArns = append(input.PolicyArns, types.PolicyDescriptorType{Arn: aws.String(arn)})
	}
	out, x, err := do(ctx, c, k, c.api.AssumeRole, input)
	if err != nil {
		return broker.STSSession{}, err
	}
	s, err := c.session(out.Credentials, x)
	if err != nil {
		return broker.STSSession{}, k.nonsense(x, err)
	}
	if out.AssumedRoleUser != nil {
		s.ARN = aws.ToString(out.AssumedRoleUser.Arn)
	}
	if !role.assumed(s.ARN, in.SessionName) {
		return broker.STSSession{}, k.nonsense(x, fmt.Errorf("the session it returned is not of the role that was asked for, but of %.300q", s.ARN))
	}
	s.Credentials.AccountID = role.Account
	return s, nil
}

// A call is one request to STS, through all its attempts.
type call struct {
	op     string // as AWS names it
	doing  string // what every error begins with
	creds  broker.Credentials
	serial string
	code   broker.Secret           // single-use: sent once
	once   bool                    // sent once for another reason
	iam    bool                    // a call of IAM, not of STS
	role   *broker.AssumeRoleInput // nil unless a role is assumed
	place
}

// prepare decides where k goes and refuses what must not be sent.
func (c *Client) prepare(k *call, at broker.Target, partition string) error {
	p, err := c.place(at, partition)
	if err == nil {
		k.place = p
		err = k.check()
	}
	if err != nil {
		return broker.AsError(fmt.Errorf("%s: %w", k.doing, err))
	}
	return nil
}

// do makes the call: at most three attempts within the client's timeout and
// ctx's, another one only after what may pass by itself, and none after a
// token code may have reached AWS, for which it would be a used one.
func do[In, Out any](ctx context.Context, c *Client, k *call,
	op func(context.Context, *In, ...func(*awssts.Options)) (*Out, error), in *In,
) (*Out, *exchange, error) {
	options := func(o *awssts.Options) {
		o.Region = k.region
		o.BaseEndpoint = optional(k.endpoint)
		o.Credentials = aws.CredentialsProviderFunc(k.reveal)
	}
	return attempt(ctx, c, k, func(ctx context.Context) (*Out, error) { return op(ctx, in, options) })
}

// attempt is do for a call of any service.
func attempt[Out any](caller context.Context, c *Client, k *call, op func(context.Context) (*Out, error)) (*Out, *exchange, error) {
	ctx, cancel := context.WithTimeout(caller, c.timeout)
	defer cancel()
	once := k.once || !k.code.IsZero()
	if once {
		// A connection that AWS closed while it was idle fails on first use,
		// with the code perhaps on its way. A new one does not.
		c.transport.http.CloseIdleConnections()
	}
	start := c.now()
	for attempt := 1; ; attempt++ {
		x := &exchange{skew: time.Duration(c.skew.Load())}
		out, err := op(context.WithValue(ctx, exchangeKey{}, x))
		if err == nil {
			c.learn(x)
			c.log.Debug("aws call", "op", k.op, "host", x.host, "attempts", attempt, "took", c.now().Sub(start))
			return out, x, nil
		}
		failed := c.explain(caller, ctx, k, x, err)
		c.log.Debug("aws call failed", "op", k.op, "host", x.host, "attempt", attempt, "took", c.now().Sub(start),
			"code", failed.err.Code, "error", failed.err.Message)
		if !failed.again || attempt == maxAttempts || once && x.sent.Load() || !sleep(ctx, c.backoff(attempt)) {
			return nil, nil, failed.err
		}
	}
}

// backoff is 100 to 200 ms after the first attempt, twice that after the next.
func backoff(attempt int) time.Duration {
	d := 100 * time.Millisecond << attempt
	return d/2 + rand.N(d/2)
}

// sleep waits for d, and reports false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// reveal hands the credentials to the SDK as it signs. The SDK wants strings,
// which cannot be overwritten: the copies made here live until the garbage
// collector finds them unused, after the call. None is kept.
func (k *call) reveal(ctx context.Context) (aws.Credentials, error) {
	return credentials.NewStaticCredentialsProvider(
		k.creds.AccessKeyID, k.creds.SecretAccessKey.Reveal(), k.creds.SessionToken.Reveal(),
	).Retrieve(ctx)
}

// A signer is the SDK's HTTPSignerV4. It signs for AWS's time when this
// machine's clock is known to be wrong. Each request gets a v4.Signer of its
// own, because one that lives keeps the key it derived from the secret.
type signer struct{ now func() time.Time }

func (s signer) SignHTTP(ctx context.Context, creds aws.Credentials, r *http.Request, payloadHash, service, region string, _ time.Time, optFns ...func(*v4.SignerOptions)) error {
	x := ctx.Value(exchangeKey{}).(*exchange)
	at := s.now().Add(x.skew)
	return v4.NewSigner().SignHTTP(ctx, creds, r, payloadHash, service, region, at.UTC(), optFns...)
}

// learn keeps by how much this machine's clock is off, from an answer that
// depended on it.
func (c *Client) learn(x *exchange) {
	if !x.dated || x.offset.Abs() > maxSkew {
		return
	}
	skew := x.offset
	if skew.Abs() <= skewThreshold {
		skew = 0
	}
	old := c.skew.Swap(int64(skew))
	switch {
	case old == 0 && skew != 0:
		c.log.Warn("clock is wrong; signing for the time of aws", "host", x.host, "aws_ahead_by", skew.Round(time.Second))
	case old != 0 && skew == 0:
		c.log.Info("clock agrees with aws again", "host", x.host)
	}
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// seconds returns d as AWS takes it, nil for zero.
func (k *call) seconds(d time.Duration) (*int32, error) {
	switch s := int64(d / time.Second); {
	case d == 0:
		return nil, nil
	case s < 1 || s > 36*3600:
		return nil, broker.Errorf(broker.CodeConfig, "%s: a duration of %v is not between a second and 36 hours", k.doing, d)
	default:
		return aws.Int32(int32(s)), nil
	}
}

// check refuses parameters that STS does not take, before a signature is
// spent on them.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
func (k *call) check() error {
	if !only(k.creds.AccessKeyID, 16, 128, isWord) {
		return broker.Errorf(broker.CodeConfig, "the access key id is not 16 to 128 letters and digits")
	}
	if !isSecret(k.creds.SecretAccessKey.RevealBytes(), 512) {
		return broker.Errorf(broker.CodeConfig, "the secret access key is not printable ASCII of a key's length")
	}
	if t := k.creds.SessionToken; !t.IsZero() && !isSecret(t.RevealBytes(), maxToken) {
		return broker.Errorf(broker.CodeConfig, "the session token is not printable ASCII of a token's length")
	}
	if s := k.serial; s != "" && !isSerial(s) {
		return broker.Errorf(broker.CodeConfig, "mfa_serial %.100q is not the ARN or the serial number of an MFA device", s)
	}
	if !k.code.IsZero() && !only(k.code.Reveal(), 6, 6, isDigit) {
		return broker.Errorf(broker.CodeMFAFailed, "an MFA code has six digits")
	}
	in := k.role
	if in == nil {
		return nil
	}
	if !only(in.SessionName, 2, 64, isNameByte) {
		return broker.Errorf(broker.CodeConfig, "role_session_name %.100q is not 2 to 64 of A-Z a-z 0-9 _+=,.@-", in.SessionName)
	}
	if s := in.ExternalID; s != "" && !only(s, 2, 1224, func(c byte) bool { return isNameByte(c) || c == '/' || c == ':' }) {
		return broker.Errorf(broker.CodeConfig, "external_id %.100q is not 2 to 1224 of A-Z a-z 0-9 _+=,.@:/-", s)
	}
	if s := in.SourceIdentity; s != "" && !only(s, 2, 64, isNameByte) {
		return broker.Errorf(broker.CodeConfig, "gatepass_source_identity %.100q is not 2 to 64 of A-Z a-z 0-9 _+=,.@-", s)
	}
	return nil
}
