// Package wire is the protocol between gatepass and gatepassd: HTTP/1.1 with
// JSON bodies over a unix socket (a named pipe on Windows), so that
//
//	curl --unix-socket "$XDG_RUNTIME_DIR/gatepass/gatepass.sock" http://gatepass/v1/status
//
// works. Both sides send [VersionHeader]. Unknown fields are ignored, so that
// client and daemon may differ by one version. A failure is a 4xx or 5xx with
// a [broker.Error] as its body: {"code":…,"message":…,"hint":…}.
//
// This package holds the messages and the client's end. It imports neither
// net/http nor, on unix, net: their start-up would cost the client more than
// the request itself, and with cgo net makes the program a dynamic one. The
// daemon's end (the listener, the identity of the peer, the server) is the
// package door below it.
package wire

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"gatepass/broker"
)

// VersionHeader carries Version in requests and answers.
const VersionHeader = "Gatepass-Protocol"

// Version is this protocol's version. Peers that differ by more than one
// refuse each other, but for [PathStop].
const Version = 1

// CheckVersion compares the other side's version, as its header gives it,
// with ours: nil when the two can talk. peer names the other side.
func CheckVersion(peer, header string) error {
	v, err := strconv.ParseUint(header, 10, 16)
	if err != nil {
		return broker.Errorf(broker.CodeDaemonUnreachable, "%s sends no usable protocol version (%q)", peer, header)
	}
	if v > Version+1 || v+1 < Version {
		return broker.Errorf(broker.CodeDaemonUnreachable, "%s speaks version %d of the protocol, this side version %d", peer, v, Version).
			WithHint("gatepass daemon restart, with gatepass and gatepassd of the same version")
	}
	return nil
}

// Host is the name in the Host header; "localhost" is accepted too.
const Host = "gatepass"

// MaxBody is the largest request body, in bytes.
const MaxBody = 64 << 10

// The routes.
const (
	PathCredentials    = "/v1/credentials"      // POST CredentialsRequest → the credential_process document
	PathWhoAmI         = "/v1/whoami"           // POST CredentialsRequest, its profile optional → broker.IdentityDetail
	PathStatus         = "/v1/status"           // GET → broker.Status
	PathGlance         = "/v1/status/glance"    // GET → the same, its keychain as it was up to 30 s ago
	PathKeys           = "/v1/keys"             // POST AddKeyRequest → broker.KeyInfo
	PathKeysList       = "/v1/keys/list"        // POST ListKeysRequest → KeysResponse
	PathKeysRotate     = "/v1/keys/rotate"      // POST RotateKeyRequest → broker.Rotated
	PathKeysRemove     = "/v1/keys/remove"      // POST RemoveKeyRequest → {}
	PathAWSVault       = "/v1/aws-vault"        // POST AWSVaultRequest → AWSVaultResponse
	PathAWSVaultImport = "/v1/aws-vault/import" // POST AWSVaultKeyRequest → broker.ImportedKey
	PathAWSVaultRemove = "/v1/aws-vault/remove" // POST AWSVaultKeyRequest → {}
	PathProfiles       = "/v1/profiles"         // POST ProfilesRequest → broker.ProfileList
	PathProfileShow    = "/v1/profiles/show"    // POST ProfilesRequest → broker.ProfileDetail
	PathLeases         = "/v1/leases"           // POST StartLeaseRequest → StartLeaseResponse
	PathLeaseOwn       = "/v1/leases/own"       // GET → an OwnLease, as text: the caller's; empty outside of leases
	PathLeaseRenew     = "/v1/leases/renew"     // POST RenewLeaseRequest → broker.LeaseStatus
	PathLeaseEnd       = "/v1/leases/end"       // POST EndLeasesRequest → EndLeasesResponse
	PathPromptBeat     = "/v1/prompts/beat"     // POST PromptBeatRequest → {}: the client still asks its user
	PathPromptReply    = "/v1/prompts/answer"   // POST PromptReplyRequest → {}
	PathStop           = "/v1/daemon/stop"      // POST {} → StopResponse, then the daemon drains and exits
)

// RotatePatience is how long the daemon has for an answer to PathKeysRotate:
// a dialog for an MFA code may stand for 3 minutes, and a new key takes up to
// 2 to spread through AWS.
const RotatePatience = 8 * time.Minute

// EndPatience is how long the daemon has for an answer to PathLeaseEnd: two
// times the longest grace, and what it takes to see that nothing is left.
const EndPatience = 3 * time.Minute

// Headers of an answer to PathCredentials, beside the document.
const (
	RegionHeader  = "Gatepass-Region"  // what region variables should say; absent for none
	SessionHeader = "Gatepass-Session" // the session's id
)

// A CredentialsRequest asks for a profile's credentials.
type CredentialsRequest struct {
	Profile         string `json:"profile"`
	Via             string `json:"via,omitempty"` // the surface: "credential-process", "export", "whoami"
	Region          string `json:"region,omitempty"`
	Reason          string `json:"reason,omitempty"`
	ConfigFile      string `json:"config_file,omitempty"`      // absolute; the client's AWS_CONFIG_FILE
	CredentialsFile string `json:"credentials_file,omitempty"` // absolute; the client's AWS_SHARED_CREDENTIALS_FILE
	DurationSeconds int    `json:"duration_seconds,omitempty"` // 0 leaves it to the profile
	MinLeftSeconds  int    `json:"min_left_seconds,omitempty"` // 0 leaves it to the surface
	MFACode         string `json:"mfa_code,omitempty"`         // of the MFA device, from --mfa-code
	Ask             *Ask   `json:"ask,omitempty"`
}

// Ask says how the user behind a client can be asked for what is needed: an
// MFA code, or the passphrase of the file keychain. A client sends it once it
// was told that there is a question.
type Ask struct {
	Terminal bool     `json:"terminal,omitempty"` // the client can ask on its terminal
	Mode     string   `json:"mode,omitempty"`     // --prompt: one of [broker.PromptModes]
	Env      []string `json:"env,omitempty"`      // "NAME=value", of [AskVariables], for a dialog that the daemon starts
	// WaitedMillis is how long the client has waited and asked before this
	// request: those that it repeats are one for whoever runs it.
	WaitedMillis int `json:"waited_ms,omitempty"`
}

// AskVariables are the variables that a dialog or pinentry needs.
var AskVariables = [...]string{
	"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "XDG_CURRENT_DESKTOP",
	"DBUS_SESSION_BUS_ADDRESS", "LANG", "LC_ALL", "TERM",
}

// A Needed is the body of an answer with status 202: nothing has been done yet,
// since the user is needed. With an id the client is to ask its user, to send
// [PathPromptBeat] every second meanwhile and then [PathPromptReply], and to
// make its request again. Without one it is to make its request again with
// Ask.
type Needed struct {
	Question broker.Question `json:"question"`
}

// PromptBeatRequest names a question.
type PromptBeatRequest struct {
	ID string `json:"id"`
}

// PromptReplyRequest answers a question: with what was typed, or with why
// there is nothing ("cancelled", "prompt_timeout", "prompt_unavailable").
type PromptReplyRequest struct {
	ID     string      `json:"id"`
	Answer string      `json:"answer,omitempty"`
	Why    broker.Code `json:"why,omitempty"`
}

// StartLeaseRequest asks for a lease whose root is the process that asks: it
// is about to become Command. Profile may be "" inside a lease.
type StartLeaseRequest struct {
	CredentialsRequest
	With    []string `json:"with,omitempty"`    // further profiles
	Serve   string   `json:"serve,omitempty"`   // one of [broker.ServeModes]; "" leaves it to profile and configuration
	Program string   `json:"program"`           // absolute path of gatepass, for the sealed config's credential_process
	Command string   `json:"command,omitempty"` // path of the program that it becomes; its arguments may hold secrets
}

// StartLeaseResponse is what the command's environment is built from. The
// lease has been recorded; it ends with the process that asked for it.
type StartLeaseResponse struct {
	Lease           string          `json:"lease"`
	Profile         string          `json:"profile"`
	Serve           string          `json:"serve"`
	Endpoint        string          `json:"endpoint,omitempty"`   // URL of the container or IMDS endpoint
	TokenFile       string          `json:"token_file,omitempty"` // for the container endpoint
	ConfigFile      string          `json:"config_file"`          // the sealed config
	CredentialsFile string          `json:"credentials_file"`     // empty
	Region          string          `json:"region,omitempty"`
	Expires         time.Time       `json:"expires"`               // of the session as it is now
	Renewable       bool            `json:"renewable"`             // served beyond Expires
	Credentials     json.RawMessage `json:"credentials,omitempty"` // the credential_process document; with "env" alone
}

// The files in a lease's room.
const (
	RoomConfig      = "config"
	RoomCredentials = "credentials"
	RoomToken       = "token"
)

// EndpointURL is where a lease's SDKs find their endpoint.
func EndpointURL(port int) string { return "http://127.0.0.1:" + strconv.Itoa(port) + "/" }

// An OwnLease is what a shell's prompt shows of the lease that it is in. It
// crosses the wire as "EXPIRES STATE PROFILE\n", EXPIRES in seconds of Unix
// time or 0, since to decode JSON costs a prompt more than all the rest.
type OwnLease struct {
	Profile string    // the first one
	State   string    // as in a broker.LeaseStatus
	Expires time.Time // of its session; zero where the next use gets a new one
}

// AppendText appends l as it crosses the wire.
func (l OwnLease) AppendText(b []byte) ([]byte, error) {
	expires := int64(0)
	if !l.Expires.IsZero() {
		expires = l.Expires.Unix()
	}
	b = strconv.AppendInt(b, expires, 10)
	b = append(b, ' ')
	b = append(b, l.State...)
	b = append(b, ' ')
	b = append(b, l.Profile...)
	return append(b, '\n'), nil
}

// UnmarshalText reads what AppendText has written; nothing is a zero OwnLease.
func (l *OwnLease) UnmarshalText(text []byte) error {
	*l = OwnLease{}
	if len(text) == 0 {
		return nil
	}
	expires, rest, _ := strings.Cut(string(text), " ")
	state, profile, _ := strings.Cut(rest, " ")
	profile, whole := strings.CutSuffix(profile, "\n")
	seconds, err := strconv.ParseInt(expires, 10, 64)
	if err != nil || state == "" || profile == "" || !whole {
		return broker.Errorf(broker.CodeInternal, "gatepassd's answer to %s makes no sense", PathLeaseOwn)
	}
	l.Profile, l.State = profile, state
	if seconds != 0 {
		l.Expires = time.Unix(seconds, 0)
	}
	return nil
}

// RenewLeaseRequest renews the sessions of a lease; "" is the caller's own.
type RenewLeaseRequest struct {
	Lease   string `json:"lease,omitempty"`
	Reason  string `json:"reason,omitempty"`
	MFACode string `json:"mfa_code,omitempty"`
	Ask     *Ask   `json:"ask,omitempty"`
}

// EndLeasesRequest ends leases and their processes: those named, all, or the
// caller's own. Release lifts the walls of leases that have ended already and
// leaves their processes running.
type EndLeasesRequest struct {
	Leases  []string `json:"leases,omitempty"`
	All     bool     `json:"all,omitempty"`
	Release bool     `json:"release,omitempty"`
}

// EndLeasesResponse names the leases that are ended.
type EndLeasesResponse struct {
	Ended []string `json:"ended"`
}

// AddKeyRequest stores a key. SecretAccessKey, the answer to a question, MFA
// codes and the passphrase of an AWSVaultKeyRequest are the only secrets that a
// client ever sends.
type AddKeyRequest struct {
	Name            string `json:"name"`
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key"`
	Region          string `json:"region,omitempty"`
	NoVerify        bool   `json:"no_verify,omitempty"`
	AllowRoot       bool   `json:"allow_root,omitempty"`
	Ask             *Ask   `json:"ask,omitempty"`
}

// ListKeysRequest asks for the stored keys.
type ListKeysRequest struct {
	Ask *Ask `json:"ask,omitempty"`
}

// KeysResponse lists the stored keys.
type KeysResponse struct {
	Keys []broker.KeyState `json:"keys"`
}

// RotateKeyRequest replaces a stored key by a new one of its user, or goes on
// with a rotation that was interrupted.
type RotateKeyRequest struct {
	Name            string `json:"name"`
	KeepSeconds     int    `json:"keep_seconds,omitempty"` // how long the old key stays as it is
	Finish          bool   `json:"finish,omitempty"`       // end an old key that is kept
	Region          string `json:"region,omitempty"`
	ConfigFile      string `json:"config_file,omitempty"`      // as in a CredentialsRequest
	CredentialsFile string `json:"credentials_file,omitempty"` // as in a CredentialsRequest
	MFASerial       string `json:"mfa_serial,omitempty"`
	MFACode         string `json:"mfa_code,omitempty"`
	Ask             *Ask   `json:"ask,omitempty"`
}

// RemoveKeyRequest removes a stored key.
type RemoveKeyRequest struct {
	Name string `json:"name"`
	Ask  *Ask   `json:"ask,omitempty"`
}

// AWSVaultRequest asks which keys aws-vault keeps, and says where it does.
type AWSVaultRequest struct {
	Backend    string `json:"backend"`              // as aws-vault calls it
	Collection string `json:"collection,omitempty"` // of secret-service
	Keychain   string `json:"keychain,omitempty"`   // of keychain
	Dir        string `json:"dir,omitempty"`        // of pass and file; absolute
	Prefix     string `json:"prefix,omitempty"`     // of pass
}

// AWSVaultResponse names aws-vault's keys.
type AWSVaultResponse struct {
	Names []string `json:"names"`
}

// AWSVaultKeyRequest stores a key of aws-vault, or removes one there that is
// stored. The key itself never leaves the daemon.
type AWSVaultKeyRequest struct {
	AWSVaultRequest
	Passphrase string `json:"passphrase,omitempty"` // of file
	Name       string `json:"name"`
	Region     string `json:"region,omitempty"` // where to ask AWS about it
	Ask        *Ask   `json:"ask,omitempty"`
}

// ProfilesRequest asks what profiles mean, and nothing of AWS.
type ProfilesRequest struct {
	Profile         string `json:"profile,omitempty"`          // the one to show
	ConfigFile      string `json:"config_file,omitempty"`      // absolute; the client's AWS_CONFIG_FILE
	CredentialsFile string `json:"credentials_file,omitempty"` // absolute; the client's AWS_SHARED_CREDENTIALS_FILE
}

// StopResponse names the process that is about to end.
type StopResponse struct {
	PID int `json:"pid"`
}
