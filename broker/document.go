package broker

import (
	"slices"
	"strconv"
	"time"
)

// Document returns c as the JSON document that a credential_process prints,
// with a final newline. Version is a number and Expiration is absent rather
// than empty, or SDKs refuse it.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
func (c Credentials) Document() []byte {
	return append(c.appendFields([]byte(`{"Version":1`), "SessionToken"), "}\n"...)
}

// ContainerDocument returns c as the JSON document that a container's
// credentials endpoint answers with.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
func (c Credentials) ContainerDocument() []byte {
	b := append(c.appendFields(nil, "Token"), "}\n"...)
	b[0] = '{'
	return b
}

// InstanceDocument returns c as the JSON document that the instance metadata
// service has for a role. SDKs refuse one without Code, and botocore reads
// an Expiration in whole seconds of UTC alone.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
func (c Credentials) InstanceDocument(updated time.Time) []byte {
	b := append([]byte(nil), `{"Code":"Success","LastUpdated":"`...)
	b = appendTime(b, updated)
	b = append(b, `","Type":"AWS-HMAC"`...)
	return append(c.appendFields(b, "Token"), "}\n"...)
}

// appendFields appends what all documents have, each field after a comma. They
// differ in what they call the session token.
func (c Credentials) appendFields(b []byte, token string) []byte {
	b = slices.Grow(b, 256+len(c.SecretAccessKey.b)+len(c.SessionToken.b)) // no copy left behind
	b = append(b, `,"AccessKeyId":`...)
	b = strconv.AppendQuote(b, c.AccessKeyID)
	b = append(b, `,"SecretAccessKey":`...)
	b = appendQuoted(b, c.SecretAccessKey.b)
	if !c.SessionToken.IsZero() {
		b = append(b, `,"`...)
		b = append(b, token...)
		b = append(b, `":`...)
		b = appendQuoted(b, c.SessionToken.b)
	}
	if !c.Expires.IsZero() {
		b = append(b, `,"Expiration":"`...)
		b = appendTime(b, c.Expires)
		b = append(b, '"')
	}
	if c.AccountID != "" {
		b = append(b, `,"AccountId":`...)
		b = strconv.AppendQuote(b, c.AccountID)
	}
	return b
}

// appendTime appends t in whole seconds of UTC.
func appendTime(b []byte, t time.Time) []byte {
	return t.UTC().Truncate(time.Second).AppendFormat(b, time.RFC3339)
}

// appendQuoted appends s as a JSON string without a copy that nobody clears.
// AWS's secrets are printable ASCII; what is not is escaped byte by byte.
func appendQuoted(b, s []byte) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	done := 0
	for i, c := range s {
		if c >= 0x20 && c < 0x7f && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[done:i]...)
		done = i + 1
		if c == '"' || c == '\\' {
			b = append(b, '\\', c)
		} else {
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(b, s[done:]...), '"')
}
