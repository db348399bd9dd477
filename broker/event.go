package broker

import "time"

// An EventKind names what happened; the set is part of the audit log's
// public format.
type EventKind string

// The events.
const (
	EventDaemonStarted     EventKind = "daemon.started"
	EventDaemonStopped     EventKind = "daemon.stopped"
	EventLogRecovered      EventKind = "log.recovered"
	EventLogLinked         EventKind = "log.linked" // a new key signs from here on; written by the log alone
	EventLogPruned         EventKind = "log.pruned" // on disk and signed before old entries are removed; written by the log alone
	EventKeyAdded          EventKind = "key.added"
	EventKeyRotating       EventKind = "key.rotating" // on disk before IAM is asked to change a key, or a key is replaced
	EventKeyRotated        EventKind = "key.rotated"
	EventKeyRemoved        EventKind = "key.removed"
	EventKeyMoved          EventKind = "key.moved"         // on disk before a stored key is removed where it came from
	EventMFAVerified       EventKind = "mfa.verified"      // a code gave a session that chains start from
	EventSessionRequested  EventKind = "session.requested" // on disk before STS is called
	EventSessionIssued     EventKind = "session.issued"
	EventSessionRenewed    EventKind = "session.renewed"
	EventSessionEnded      EventKind = "session.ended"
	EventLeaseStarted      EventKind = "lease.started" // on disk before the command runs
	EventLeaseRenewed      EventKind = "lease.renewed" // by gatepass renew
	EventLeaseEnded        EventKind = "lease.ended"
	EventLeaseReleased     EventKind = "lease.released"     // the wall around what outlived a lease is lifted
	EventCredentialsServed EventKind = "credentials.served" // written before they leave
	EventRequestDenied     EventKind = "request.denied"     // by a rule, by AWS, by the keychain, by the user
	EventRequestFailed     EventKind = "request.failed"     // anything else that went wrong
)

// EventKinds are all of them.
var EventKinds = []EventKind{
	EventDaemonStarted, EventDaemonStopped, EventLogRecovered, EventLogLinked, EventLogPruned,
	EventKeyAdded, EventKeyRotating, EventKeyRotated, EventKeyRemoved, EventKeyMoved,
	EventMFAVerified, EventSessionRequested, EventSessionIssued, EventSessionRenewed,
	EventSessionEnded, EventLeaseStarted, EventLeaseRenewed, EventLeaseEnded,
	EventLeaseReleased, EventCredentialsServed, EventRequestDenied, EventRequestFailed,
}

// The outcomes of an [Event].
const (
	OutcomeOK     = "ok"
	OutcomeDenied = "denied"
	OutcomeFailed = "failed"
)

// An Event is one entry of the audit log, less the sequence number and the
// time, which the log gives it. Field order and names are the log's format;
// absent fields are omitted. No field can hold a [Secret]: a test walks the
// types.
type Event struct {
	Kind     EventKind     `json:"event"`
	Outcome  string        `json:"outcome"`
	Profile  string        `json:"profile,omitempty"`
	Account  string        `json:"account,omitempty"`
	RoleARN  string        `json:"role_arn,omitempty"`
	Key      *EventKey     `json:"key,omitempty"`
	Session  *EventSession `json:"session,omitempty"`
	Lease    string        `json:"lease,omitempty"`
	Caller   *Caller       `json:"caller,omitempty"`
	Groups   []string      `json:"groups,omitempty"`
	Reason   string        `json:"reason,omitempty"`   // given by the caller, or why a session ended
	Decision string        `json:"decision,omitempty"` // which rule allowed or refused
	Error    *EventError   `json:"error,omitempty"`
}

// An EventKey names the long-term key behind an [Event].
type EventKey struct {
	Name        string `json:"name,omitempty"`
	AccessKeyID string `json:"access_key_id,omitempty"`
	UserARN     string `json:"user_arn,omitempty"`
}

// An EventSession names the STS session of an [Event].
type EventSession struct {
	ID          string `json:"id,omitempty"` // ours: "s-7f3k2m9qxd"
	AccessKeyID string `json:"access_key_id,omitempty"`
	Name        string `json:"name,omitempty"` // RoleSessionName
	// SourceIdentity is what AWS knows the session's principal by, also in the
	// roles that are assumed with it.
	SourceIdentity string    `json:"source_identity,omitempty"`
	Expires        time.Time `json:"expires,omitzero"`
	STSRequestID   string    `json:"sts_request_id,omitempty"`
}

// An EventError is the failure in an [Event].
type EventError struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}
