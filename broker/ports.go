package broker

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"gatepass/profiles"
)

// A KeyStore keeps long-term keys in the OS keychain. A keychain that is
// locked, missing, hung or that refuses is an *[Error] with the code that
// says so; [CodeNotFound] is returned only when the keychain answered and has
// no such key.
type KeyStore interface {
	// Keys lists what is stored, sorted by name.
	Keys(ctx context.Context) ([]KeyInfo, error)
	// Key returns one key with its secret, for one use: the caller clears it.
	Key(ctx context.Context, name string) (Key, error)
	// PutKey stores a key, replacing one of the same name.
	PutKey(ctx context.Context, key Key) error
	// RemoveKey removes a key; [CodeNotFound] when there is none.
	RemoveKey(ctx context.Context, name string) error
	// Backend names the keychain in the words of gatepass.toml.
	Backend() string
	// Probe returns nil when the keychain can be read now. It never prompts.
	Probe(ctx context.Context) error
}

// An Unlocker is a keychain that opens with a passphrase, which it is given
// once in the life of the daemon.
type Unlocker interface {
	// Locked returns nil once the passphrase is there, or where none is
	// needed. Till then it returns what every call returns, a
	// [CodeKeychainLocked]. It does not wait for anything.
	Locked() error
	// New reports whether the keychain is yet to be made, so that its
	// passphrase is to be chosen.
	New(ctx context.Context) (bool, error)
	// Unlock keeps a passphrase that opens the keychain, and reports false of
	// any other.
	Unlock(ctx context.Context, passphrase Secret) (bool, error)
}

// A Resolver finds out what a profile means. Its errors are those of package
// profiles.
type Resolver interface {
	Resolve(files profiles.Files, name string) (*profiles.Chain, error)
	// All resolves every profile, sorted by name.
	All(files profiles.Files) (iter.Seq[profiles.Resolution], error)
}

// A Target is where an STS call goes.
type Target struct {
	Region   string // "" means the partition's default
	Endpoint string // "" means the configuration's, else AWS's own
}

// An STS calls AWS's Security Token Service. Errors are *[Error]s with
// [CodeAWSDenied], [CodeAWSUnreachable], [CodeThrottled], [CodeMFAFailed] or
// [CodeConfig], whose messages name the call and, where one is used, the proxy.
type STS interface {
	CallerIdentity(ctx context.Context, creds Credentials, at Target) (Identity, error)
	SessionToken(ctx context.Context, creds Credentials, in SessionTokenInput, at Target) (STSSession, error)
	AssumeRole(ctx context.Context, creds Credentials, in AssumeRoleInput, at Target) (STSSession, error)
}

// SessionTokenInput are the parameters of GetSessionToken. Zero fields are
// not sent.
type SessionTokenInput struct {
	Duration     time.Duration
	SerialNumber string
	TokenCode    Secret
}

// AssumeRoleInput are the parameters of AssumeRole. Zero fields are not sent.
type AssumeRoleInput struct {
	RoleARN        string
	SessionName    string
	Duration       time.Duration
	ExternalID     string
	SerialNumber   string
	TokenCode      Secret
	SourceIdentity string
	Tags           []profiles.Tag
	TransitiveTags []string
	PolicyARNs     []string

	// Chained says that another role's session asks. It is not sent: it
	// explains refusals.
	Chained bool
}

// An STSSession is what GetSessionToken and AssumeRole return.
type STSSession struct {
	Credentials Credentials
	ARN         string // of the assumed role; "" from GetSessionToken
	RequestID   string // of the STS call, as CloudTrail records it
}

// An IAM calls AWS's Identity and Access Management about one IAM user, named
// by ARN, and its access keys. Errors are those of an [STS], with an
// [*AWSRefusal] in their chain where AWS refused.
type IAM interface {
	// AccessKeys lists the user's keys, inactive ones included.
	AccessKeys(ctx context.Context, creds Credentials, userARN string) ([]AccessKey, error)
	// CreateAccessKey makes a key. It is sent once: after an error that is no
	// refusal there may be a key whose secret nobody has.
	CreateAccessKey(ctx context.Context, creds Credentials, userARN string) (Credentials, error)
	SetAccessKeyStatus(ctx context.Context, creds Credentials, userARN, accessKeyID string, active bool) error
	DeleteAccessKey(ctx context.Context, creds Credentials, userARN, accessKeyID string) error
	// AccessKeyUsed tells when a key was last used, the zero time for never.
	AccessKeyUsed(ctx context.Context, creds Credentials, userARN, accessKeyID string) (time.Time, error)
	// Groups lists the names of the user's groups, MFADevices its devices.
	// endpoint is where a profile wants IAM to be called; "" means the
	// configuration's, else AWS's own.
	Groups(ctx context.Context, creds Credentials, userARN, endpoint string) ([]string, error)
	MFADevices(ctx context.Context, creds Credentials, userARN, endpoint string) ([]MFADevice, error)
}

// An AccessKey is what IAM tells of one.
type AccessKey struct {
	ID      string
	Active  bool
	Created time.Time
}

// An MFADevice is one that IAM knows of a user.
type MFADevice struct {
	Serial  string    `json:"mfa_serial"` // its ARN, or the number of a piece of hardware
	Enabled time.Time `json:"enabled"`
}

// SecurityKey reports whether d is a FIDO security key or passkey: those sign
// in to the console and have no codes for the API.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_mfa_fido_supported_configurations.html
func (d MFADevice) SecurityKey() bool { return strings.Contains(d.Serial, ":u2f/") }

// An AWSRefusal is in the chain of an error with which AWS answered.
type AWSRefusal struct {
	Code string // AWS's own, such as "LimitExceeded"
	Text string // the whole message
}

func (e *AWSRefusal) Error() string { return e.Text }

// accessDenied is how AWS says that a policy does not allow something.
var accessDenied = []string{"AccessDenied", "AccessDeniedException"}

// refusedWith reports whether err is AWS's refusal with one of the codes.
func refusedWith(err error, codes ...string) bool {
	refusal, ok := errors.AsType[*AWSRefusal](err)
	return ok && slices.Contains(codes, refusal.Code)
}

// A Log is the audit log. Append returns once the entry is written or, when
// durable, on disk (fsync). An error means that nothing may be released.
type Log interface {
	Append(ctx context.Context, e Event, durable bool) error
	Status() LogStatus
}

// LogStatus is the audit log's health.
type LogStatus struct {
	Entries  int64  `json:"entries"`         // how many the log holds
	Signed   int64  `json:"signed"`          // how many the last checkpoint covers
	Error    string `json:"error,omitempty"` // why it cannot be written now
	Anchored Anchor `json:"anchored,omitzero"`

	Forward []ForwardStatus `json:"forward,omitempty"` // where its entries are sent
}

// An Anchor says how much of the audit log is vouched for where whoever can
// change the log cannot change it.
type Anchor struct {
	Time    time.Time `json:"time,omitzero"`     // when a checkpoint last left this machine; zero for never
	Entries int64     `json:"entries,omitempty"` // how many it covers
	Error   string    `json:"error,omitempty"`   // why the newest one cannot be sent now
}

// ForwardStatus is how far one of the places is to which entries are sent.
type ForwardStatus struct {
	To         string    `json:"to"`                 // without its options
	Lag        int64     `json:"lag"`                // entries that are not there yet
	LagSeconds int64     `json:"lag_seconds"`        // since the first of them was written, as far as it was read
	LastSent   time.Time `json:"last_sent,omitzero"` // when the last one was delivered
	Rejected   int64     `json:"rejected,omitempty"` // delivered since the daemon started, and not kept there
	Error      string    `json:"error,omitempty"`    // of the last attempt, if it failed
}

// A Clock tells the wall time and the time since boot with suspend counted.
// What either says is expired, is expired.
type Clock struct {
	Now  func() time.Time
	Boot func() time.Duration // CLOCK_BOOTTIME; a monotonic clock where there is none
	// AfterFunc runs f in its own goroutine once d has passed, suspend
	// counted where the platform can; stop prevents a run that has not begun.
	AfterFunc func(d time.Duration, f func()) (stop func())
}
