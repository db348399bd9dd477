package broker

import (
	"time"

	"gatepass/profiles"
)

// A Request asks the gate for a profile's credentials.
type Request struct {
	Profile  string
	Files    profiles.Files // the caller's; the zero value means the default ones
	Region   string         // --region or the caller's AWS_REGION; "" leaves it to the profile
	Reason   string
	Duration time.Duration // 0 leaves it to the profile
	MinLeft  time.Duration // how long they must last; 0 means the usual margin

	Reachable Reachable // how to ask the caller's user
	Code      Secret    // of the MFA device, from --mfa-code; zero for none

	// What follows is set by the gate.
	lease    *lease // whose session it is: that the caller is inside, or which is about to begin
	inside   *lease // that the caller is inside, and so what is started for it
	renew    bool   // it is of gatepass renew, and the lease may be renewed
	endpoint bool   // it came to the lease's own endpoint, which asks for the same each time
}

// A Grant is what leaves through the gate, its entry already in the log.
type Grant struct {
	Credentials Credentials
	Profile     string
	Region      string // what region variables should say; "" for none
	SessionID   string
}

// A NewKey is a key to be stored.
type NewKey struct {
	Name            string
	AccessKeyID     string
	SecretAccessKey Secret
	Region          string    // where to prove it; "" for the default
	NoVerify        bool      // store it unproved
	AllowRoot       bool      // store it though it is the account's root user's
	Reachable       Reachable // how to ask the caller's user
}

// Status is what gatepass status shows.
type Status struct {
	Daemon      DaemonStatus    `json:"daemon"`
	Keychain    KeychainStatus  `json:"keychain"`
	Log         LogStatus       `json:"log"`
	Sessions    []SessionStatus `json:"sessions"`
	Proofs      []ProofStatus   `json:"mfa"`
	Leases      []LeaseStatus   `json:"leases"`
	LastRefusal *Refusal        `json:"last_refusal,omitempty"`
}

// ProofStatus describes a kept MFA proof: until it expires, the roles of its
// key need no code.
type ProofStatus struct {
	Key      string    `json:"key"`
	Serial   string    `json:"mfa_serial"`
	Verified time.Time `json:"verified"`
	Expires  time.Time `json:"expires"`
}

// DaemonStatus describes the running gatepassd.
type DaemonStatus struct {
	UID     int       `json:"-"`
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Socket  string    `json:"socket"`
}

// KeychainStatus describes the OS keychain in use.
type KeychainStatus struct {
	Backend string `json:"backend"`
	State   string `json:"state"` // "ok", else an error code such as "keychain_locked"
	Message string `json:"message,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// SessionStatus describes one cached session.
type SessionStatus struct {
	ID          string    `json:"id"`
	Profile     string    `json:"profile"`
	Account     string    `json:"account,omitempty"`
	RoleARN     string    `json:"role_arn,omitempty"`
	Key         string    `json:"key"`
	AccessKeyID string    `json:"access_key_id"`
	Issued      time.Time `json:"issued"`
	Expires     time.Time `json:"expires"`
	Served      int64     `json:"served"` // hand-outs
	LastServed  time.Time `json:"last_served,omitzero"`
}

// A Refusal is the last request that was denied or failed, kept for SDKs that
// hide what a credential_process says.
type Refusal struct {
	Time    time.Time `json:"time"`
	Profile string    `json:"profile,omitempty"`
	Program string    `json:"program,omitempty"`
	Code    Code      `json:"code"`
	Message string    `json:"message"`
	Hint    string    `json:"hint,omitempty"`
}
