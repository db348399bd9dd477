package broker

import (
	"strconv"
	"time"
)

// Document returns c as the JSON document that a credential_process prints,
// with a final newline. Version is a number and Expiration is absent rather
// than empty, or SDKs refuse it.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
func (c Credentials) Document() []byte {
	b := make([]byte, 0, 256+len(c.SessionToken.b))
	b = append(b, `{"Version":1,"AccessKeyId":`...)
	b = strconv.AppendQuote(b, c.AccessKeyID)
	b = append(b, `,"SecretAccessKey":`...)
	b = appendQuoted(b, c.SecretAccessKey.b)
	if !c.SessionToken.IsZero() {
		b = append(b, `,"SessionToken":`...)
		b = appendQuoted(b, c.SessionToken.b)
	}
	if !c.Expires.IsZero() {
		b = append(b, `,"Expiration":"`...)
		b = c.Expires.UTC().Truncate(time.Second).AppendFormat(b, time.RFC3339)
		b = append(b, '"')
	}
	if c.AccountID != "" {
		b = append(b, `,"AccountId":`...)
		b = strconv.AppendQuote(b, c.AccountID)
	}
	return append(b, "}\n"...)
}

// appendQuoted appends s as a JSON string without a copy that nobody clears.
// AWS's secrets are printable ASCII; what is not is escaped byte by byte.
func appendQuoted(b, s []byte) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c >= 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
