package sts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"gatepass/broker"
)

// A failure is what one attempt came to.
type failure struct {
	err   *broker.Error
	again bool // it may pass by itself
}

// explain turns what the SDK returned into what a person can act on. Nothing
// of the SDK's error is wrapped: it holds the answer's bytes.
func (c *Client) explain(caller, ctx context.Context, k *call, x *exchange, err error) failure {
	switch {
	case x.code != "":
		code := k.hide(x, x.code, 64)
		f := c.refusal(k, x, code, k.hide(x, x.message, maxText))
		hint := f.err.Hint
		f.err = broker.Errorf(f.err.Code, "%w", &broker.AWSRefusal{Code: code, Text: f.err.Message})
		f.err.Hint = hint
		return f
	case caller.Err() != nil:
		return failure{err: broker.Errorf(broker.CodeAWSUnreachable, "%s: given up before %s answered: %w%s", k.doing, x.peer(), caller.Err(), x.via())}
	case ctx.Err() != nil:
		return failure{err: k.fail(x, broker.CodeAWSUnreachable, "no answer from %s within %v", x.peer(), c.timeout).
			WithHint("check the network connection, and the proxy if there is one")}
	case x.err != nil:
		return k.unreachable(x)
	case x.status == 0:
		return failure{err: k.fail(x, broker.CodeInternal, "the request could not be made: %s", err)}
	case x.status >= 500:
		return failure{again: true, err: k.fail(x, broker.CodeAWSUnreachable, "%s answered %s", x.peer(), statusText(x.status))}
	case x.status >= 400:
		return failure{err: k.fail(x, broker.CodeAWSUnreachable, "%s answered %s, and not as AWS does", x.peer(), statusText(x.status)).
			WithHint("%s", k.stranger())}
	default:
		return failure{err: k.nonsense(x, errors.New("it is not "+k.service()+"'s XML, or cut short"))}
	}
}

// nonsense is the error for an answer that must not be used.
func (k *call) nonsense(x *exchange, err error) *broker.Error {
	return k.fail(x, broker.CodeAWSUnreachable, "the answer of %s cannot be used: %s", x.peer(), err).WithHint("%s", k.stranger())
}

// fail returns an error about k, freed of secrets and naming the proxy used.
func (k *call) fail(x *exchange, code broker.Code, format string, args ...any) *broker.Error {
	return broker.Errorf(code, "%s: %s%s", k.doing, k.hide(x, fmt.Sprintf(format, args...), 2*maxText), x.via())
}

// stranger is the hint for an answer that is not AWS's.
func (k *call) stranger() string {
	if k.endpoint != "" {
		return "is the configured endpoint_url one of " + k.service() + "?"
	}
	return "a proxy or a network's sign-in page may have answered in place of AWS"
}

// service names the service that k is a call of.
func (k *call) service() string {
	if k.iam {
		return "IAM"
	}
	return "STS"
}

// peer names who was asked.
func (x *exchange) peer() string {
	if x.host == "" {
		return "AWS"
	}
	return x.host
}

// via names the proxy used, for the end of a message.
func (x *exchange) via() string {
	if x.proxy == "" {
		return ""
	}
	return " (proxy " + x.proxy + ")"
}

var throttleCodes = []string{
	"Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
	"TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded", "SlowDown", "PriorRequestNotComplete",
}

// refusal explains an error of AWS's own. Codes and texts are those of
// https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html and
// of AWS's answers as they are reported.
func (c *Client) refusal(k *call, x *exchange, code, text string) failure {
	said := code
	if text != "" {
		said += ": " + text
	}
	refused := func(hint string) failure {
		return failure{err: k.fail(x, broker.CodeAWSDenied, "AWS refused: %s", said).WithHint("%s", hint)}
	}
	switch {
	case slices.Contains(throttleCodes, code) || x.status == http.StatusTooManyRequests:
		return failure{again: true, err: k.fail(x, broker.CodeThrottled, "AWS asks to slow down: %s", said).
			WithHint("wait a moment and try again; the limit is shared by everyone in the account")}

	case x.status >= 500:
		return failure{again: true, err: k.fail(x, broker.CodeAWSUnreachable, "AWS failed with %s: %s", statusText(x.status), said)}

	case code == "RegionDisabledException":
		return failure{err: k.fail(x, broker.CodeConfig, "AWS refused: %s", said).
			WithHint("STS is not active in %s for the role's account: activate it there under IAM, Account settings, or set another region", k.region)}

	case strings.Contains(text, "MultiFactorAuthentication failed"):
		hint := "an MFA code works once: wait for the next one"
		switch {
		case strings.Contains(text, "serial number is valid"):
			hint = "mfa_serial must be the ARN of a device of the key's own user"
		case strings.Contains(text, "must provide"):
			hint = "set mfa_serial in the profile"
		}
		return failure{err: k.fail(x, broker.CodeMFAFailed, "AWS refused: %s", said).WithHint("%s", hint)}

	case isSignatureCode(code):
		return c.badSignature(k, x, said)

	case code == "InvalidClientTokenId" || code == "UnrecognizedClientException":
		if !k.creds.SessionToken.IsZero() {
			return refused("the session that signs the call is not known here: it has ended, or is of another partition")
		}
		return refused("the access key was deleted or is inactive, is too new to be known everywhere (wait a minute), or belongs to another partition")

	case code == "ExpiredToken" || code == "ExpiredTokenException":
		return refused("the session that signs the call has expired, or this machine's clock is wrong")

	case code == "AccessDenied" || code == "AccessDeniedException":
		return refused(k.deniedHint(text))

	case strings.Contains(text, "DurationSeconds") || strings.Contains(text, "'durationSeconds'"):
		return refused(k.durationHint(text))

	case strings.Contains(text, "transitive tag key"):
		if strings.Contains(text, "conflicts") {
			return refused("a role before it passes that tag on, and it cannot be set again: leave it out of gatepass_session_tags here, or of gatepass_transitive_tags there")
		}
		return refused("gatepass_transitive_tags may only name tags of the same profile's gatepass_session_tags")

	case faultyParameter(text) != "":
		return refused("the profile's " + faultyParameter(text) + " is not one that AWS takes")

	case code == "PackedPolicyTooLarge":
		return refused("session tags and session policies are too long together: use fewer or shorter ones")

	case code == "InvalidAction" || code == "MissingAction" || code == "UnknownOperationException":
		return refused(k.stranger())
	}
	return failure{err: k.fail(x, broker.CodeAWSDenied, "AWS refused: %s", said)}
}

func isSignatureCode(code string) bool {
	switch code {
	case "SignatureDoesNotMatch", "InvalidSignatureException", "RequestTimeTooSkewed", "RequestExpired", "AuthFailure":
		return true
	}
	return false
}

// badSignature explains a refused signature: the clock where AWS's Date says
// so, which the next attempt makes up for; else the secret.
func (c *Client) badSignature(k *call, x *exchange, said string) failure {
	if !x.dated || (x.offset-x.skew).Abs() <= skewThreshold {
		return failure{err: k.fail(x, broker.CodeAWSDenied, "AWS refused: %s", said).
			WithHint("the secret access key is not the one of this access key id")}
	}
	c.learn(x)
	direction := "behind"
	if x.offset < 0 {
		direction = "ahead of"
	}
	by := x.offset.Abs()
	if by <= skewThreshold {
		return failure{again: true, err: k.fail(x, broker.CodeAWSDenied, "AWS refused: %s; this machine's clock has been set since the last call", said).
			WithHint("try again")}
	}
	return failure{
		again: by <= maxSkew,
		err: k.fail(x, broker.CodeAWSDenied, "AWS refused: %s; this machine's clock is %s %s AWS's", said, by.Round(time.Minute), direction).
			WithHint("set this machine's clock, then try again"),
	}
}

// deniedHint names what AccessDenied may mean, which AWS itself mostly leaves
// open: it does not even say whether the role exists.
func (k *call) deniedHint(text string) string {
	in := k.role
	switch {
	case strings.Contains(text, "with session credentials"):
		return "GetSessionToken needs a long-term key"
	case in == nil:
		if k.iam {
			return "the permissions of the key's user do not allow iam:" + k.op + ", or only with MFA"
		}
		return "the permissions of the key's user do not allow " + "sts:" + k.op
	case strings.Contains(text, "sts:TagSession") && len(in.Tags) == 0:
		return "the role's trust policy must allow sts:TagSession, for the tags that a role before it passes on: or leave them out of gatepass_transitive_tags there"
	case strings.Contains(text, "sts:TagSession"):
		return "the role's trust policy must allow sts:TagSession, or the profile must not set session tags (gatepass_session_tags)"
	case strings.Contains(text, "sts:SetSourceIdentity") && in.SourceIdentity == "":
		return "the role's trust policy must allow sts:SetSourceIdentity, for the source identity that a role before it passes on"
	case strings.Contains(text, "sts:SetSourceIdentity") && !k.creds.SessionToken.IsZero():
		return "the role's trust policy must allow sts:SetSourceIdentity, and gatepass_source_identity cannot change along a chain: set it where the chain begins, or nowhere"
	case strings.Contains(text, "sts:SetSourceIdentity"):
		return "the role's trust policy must allow sts:SetSourceIdentity, or the profile must not set a source identity (gatepass_source_identity)"
	case strings.Contains(text, "explicit deny"):
		return "a policy forbids it outright; ask whoever manages the account"
	}
	may := []string{"the role does not exist", "its trust policy does not name this caller", "the caller is not allowed sts:AssumeRole on it"}
	if in.ExternalID == "" {
		may = append(may, "it requires an external_id, and none is set")
	} else {
		may = append(may, "the external_id is wrong")
	}
	switch {
	case in.Chained:
		may = append(may, "it requires MFA, which the session of a role never has")
	case !k.creds.SessionToken.IsZero():
		may = append(may, "the MFA sign-in is too old for it")
	case in.SerialNumber == "":
		may = append(may, "it requires MFA, and no mfa_serial is set")
	}
	may = append(may, fmt.Sprintf("it wants another role_session_name than %.64q", in.SessionName))
	if in.SourceIdentity != "" {
		may = append(may, "it does not allow sts:SetSourceIdentity, or not this gatepass_source_identity")
	}
	if len(in.Tags) > 0 {
		may = append(may, "it does not allow sts:TagSession")
	}
	return "AWS does not say which: " + strings.Join(may, "; ")
}

// faultyParameter returns the key of a profile whose value AWS calls invalid
// by the parameter that it is sent as, or "".
func faultyParameter(text string) string {
	for _, p := range [][2]string{
		{"'roleSessionName'", "role_session_name"},
		{"'externalId'", "external_id"},
		{"'sourceIdentity'", "gatepass_source_identity"},
		{"'serialNumber'", "mfa_serial"},
		{"'roleArn'", "role_arn"},
		{"'transitiveTagKeys", "gatepass_transitive_tags"},
		{"'tags", "gatepass_session_tags"},
	} {
		if strings.Contains(text, p[0]) {
			return p[1]
		}
	}
	if strings.Contains(text, "Duplicate tag keys") {
		return "gatepass_session_tags"
	}
	return ""
}

// durationHint explains a refused duration.
func (k *call) durationHint(text string) string {
	switch {
	case strings.Contains(text, "chaining"):
		return "a role assumed with a session lasts an hour at most: set duration_seconds to 3600 or less"
	case strings.Contains(text, "MaxSessionDuration"):
		return "the role allows shorter sessions only: lower duration_seconds, or raise the role's maximum session duration"
	}
	return "duration_seconds is 900 to 43200 for a role, 900 to 129600 for a key's session"
}

// unreachable explains an attempt that brought no answer.
func (k *call) unreachable(x *exchange) failure {
	var (
		err       = x.err
		peer      = x.peer()
		connect   *connectError
		dns       *net.DNSError
		op        *net.OpError
		unknown   x509.UnknownAuthorityError
		otherHost x509.HostnameError
		invalid   x509.CertificateInvalidError
		cert      *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     tls.AlertError
		timeout   net.Error
	)
	if errors.As(err, &op) && op.Op == "proxyconnect" {
		peer = "the proxy"
	}
	// The text, the next step ("" for none), and whether to try again.
	var text, hint string
	var again bool
	switch {
	case errors.Is(err, errRedirect):
		text, hint = peer+" answered with a redirect, which AWS does not", k.stranger()
	case errors.Is(err, errTooLarge):
		text, hint = peer+" gave an "+err.Error(), k.stranger()
	case errors.As(err, &connect):
		text, again = "the proxy refused to connect to "+peer+": "+connect.Error(), connect.status >= 500
		if connect.status == http.StatusProxyAuthRequired {
			hint = `write the proxy's user and password into gatepass.toml: [aws] proxy = "http://user:password@host:port"`
		}
	case errors.As(err, &dns):
		text, hint = fmt.Sprintf("cannot find the address of %s: %s", dns.Name, dns.Err), "check the network connection, and the region or endpoint_url"
		again = !dns.IsNotFound
	case errors.As(err, &unknown):
		text = "the certificate of " + peer + " is signed by an unknown authority"
		hint = `where a company's proxy inspects TLS, name its authority's PEM file in gatepass.toml: [aws] ca_bundle = "/path/to/ca.pem"`
	case errors.As(err, &otherHost):
		text, hint = "the certificate of "+peer+" is for another host", k.stranger()
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		text, hint = "the certificate of "+peer+" has expired or is not valid yet", "check this machine's clock"
	case errors.As(err, &cert):
		text = "the certificate of " + peer + " is not valid: " + cert.Err.Error()
	case errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record):
		text, hint = peer+" does not speak TLS", k.stranger()
	case errors.As(err, &alert):
		text = "no TLS connection to " + peer + ": " + alert.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		text, hint, again = "cannot connect to "+peer+": timed out", "check the network connection, and the proxy if there is one", true
	case op != nil && (op.Op == "dial" || op.Op == "proxyconnect"):
		text, hint = "cannot connect to "+peer+": "+cause(op), "check the network connection, and the proxy if there is one"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		text, again = peer+" closed the connection before its answer was complete", true
	default:
		text, again = "no answer from "+peer+": "+err.Error(), true
	}
	return failure{again: again, err: k.fail(x, broker.CodeAWSUnreachable, "%s", text).WithHint("%s", hint)}
}

// cause is the system's word for a failed connection, without the names of
// calls and addresses that lead to it.
func cause(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}

// maxText bounds what is passed on of a text of AWS's, in bytes.
const maxText = 600

// hide returns text, which others wrote, fit to be shown: see [scrub].
func (k *call) hide(x *exchange, text string, max int) string {
	var secrets []string
	for _, s := range []string{k.creds.SecretAccessKey.Reveal(), k.creds.SessionToken.Reveal(), k.code.Reveal(), x.signature} {
		if s != "" {
			secrets = append(secrets, s, url.QueryEscape(s))
		}
	}
	text = scrub(text, secrets)
	if len(text) > max {
		for max > 0 && !utf8.RuneStart(text[max]) {
			max--
		}
		text = text[:max] + "…"
	}
	return text
}

// scrub returns the first 4 KiB of text on one line, without control, format
// and invalid characters and without a final stop. Whatever has eight bytes or
// more in a row in common with a secret, in either case, is masked, so that a
// cut or quoted secret is found too.
func scrub(text string, secrets []string) string {
	if len(text) > 4096 {
		text = text[:4096]
	}
	// With a refused signature AWS may send back all that was signed.
	text, _, _ = strings.Cut(text, "The Canonical String")
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, text)
	text = strings.TrimSuffix(strings.Join(strings.Fields(text), " "), ".")

	const run = 8
	masked := make([]bool, len(text))
	folded := foldASCII(text)
	for _, s := range secrets {
		s = foldASCII(s)
		n := min(run, len(s))
		for i := 0; n > 0 && i+n <= len(folded); i++ {
			if strings.Contains(s, folded[i:i+n]) {
				for j := range n {
					masked[i+j] = true
				}
			}
		}
	}
	if !slices.Contains(masked, true) {
		return text
	}
	var b strings.Builder
	for i := range len(text) {
		switch {
		case !masked[i]:
			b.WriteByte(text[i])
		case i == 0 || !masked[i-1]:
			b.WriteString("[secret]")
		}
	}
	return b.String()
}

// foldASCII lowers A to Z and leaves every byte in its place.
func foldASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
