package broker

import "time"

// Credentials are what AWS accepts as a signature's source: a session from
// STS or, inside the daemon only and never handed out, a long-term key.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey Secret
	SessionToken    Secret    // zero for a long-term key
	Expires         time.Time // zero for a long-term key
	AccountID       string    // 12 digits; "" when not known
}

// A KeyInfo describes a stored key without its secret.
type KeyInfo struct {
	Name        string    `json:"name"`
	AccessKeyID string    `json:"access_key_id"`
	UserARN     string    `json:"user_arn,omitempty"` // as GetCallerIdentity proved it; "" if it never did
	Added       time.Time `json:"added"`
}

// A Key is a long-term IAM user access key as the keychain keeps it.
type Key struct {
	KeyInfo
	SecretAccessKey Secret
}

// Credentials returns the key as what signs a request to AWS.
func (k Key) Credentials() Credentials {
	return Credentials{AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey}
}

// An Identity is what GetCallerIdentity says of some credentials.
type Identity struct {
	Account string `json:"account"`
	ARN     string `json:"arn"`
	UserID  string `json:"user_id"`
}
