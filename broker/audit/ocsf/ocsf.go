// Package ocsf tells entries of the audit log in the words of the Open
// Cybersecurity Schema Framework, version 1.8.0 (https://schema.ocsf.io/1.8.0),
// as SIEMs and data lakes take them in.
//
// What an entry becomes:
//
//	credentials.served session.issued session.renewed    Authorize Session (3003)
//	lease.started lease.renewed lease.released           Authorize Session
//	request.denied request.failed                        Authorize Session, or API
//	                                                     Activity where they are about
//	                                                     no profile
//	mfa.verified                                         Authentication (3002), logon
//	session.ended lease.ended                            Authentication, logoff
//	session.requested                                    API Activity (6003)
//	key.added key.rotating key.rotated key.removed key.moved
//	                                                     Entity Management (3004)
//	daemon.* log.*                                       Application Lifecycle (6002)
//	what this version does not know                      Base Event (0), activity 99
//
// In all of them metadata.event_code is the entry's event, metadata.sequence
// its number, raw_data the entry as it stands in the log, from which its leaf
// in the tree can be computed, and unmapped what OCSF has no name for. user is
// the IAM user whose key it is, actor the process that asked, privileges the
// role (of a session without a role: the user, whose rights it has),
// session.uid gatepass's session and session.credential_uid the access key id
// that CloudTrail shows.
package ocsf

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// Version is the schema's.
const Version = "1.8.0"

// Marshal returns the event, as JSON, that stands for an entry in the log of
// the machine host, "localhost" where that is not known. An error is that of a
// line which is no entry.
func Marshal(line audit.Line, host string) ([]byte, error) {
	e, err := line.Entry()
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = "localhost"
	}
	m := mapper{Entry: e, host: host}
	return json.Marshal(m.event(line.Raw))
}

// A kind is the class and the activity of an event.
type kind struct {
	class, activity int
	name            string // of an activity that the class does not have
	// intent says that the entry is written ahead, so that whether it comes
	// to pass is not known.
	intent bool
}

// The classes that are used, by class_uid.
const (
	baseEvent            = 0
	authentication       = 3002
	authorizeSession     = 3003
	entityManagement     = 3004
	applicationLifecycle = 6002
	apiActivity          = 6003
)

const otherActivity = 99

// kinds has every event of the log.
var kinds = map[broker.EventKind]kind{
	broker.EventDaemonStarted:     {class: applicationLifecycle, activity: 3},
	broker.EventDaemonStopped:     {class: applicationLifecycle, activity: 4},
	broker.EventLogRecovered:      {class: applicationLifecycle, activity: otherActivity, name: "Recover Log"},
	broker.EventLogLinked:         {class: applicationLifecycle, activity: otherActivity, name: "Change Signing Key"},
	broker.EventLogPruned:         {class: applicationLifecycle, activity: otherActivity, name: "Prune Log"},
	broker.EventKeyAdded:          {class: entityManagement, activity: 1},
	broker.EventKeyRotating:       {class: entityManagement, activity: 3, intent: true},
	broker.EventKeyRotated:        {class: entityManagement, activity: 3},
	broker.EventKeyRemoved:        {class: entityManagement, activity: 4},
	broker.EventKeyMoved:          {class: entityManagement, activity: 5, intent: true},
	broker.EventMFAVerified:       {class: authentication, activity: 1},
	broker.EventSessionRequested:  {class: apiActivity, activity: 1, intent: true},
	broker.EventSessionIssued:     {class: authorizeSession, activity: 1},
	broker.EventSessionRenewed:    {class: authorizeSession, activity: 1},
	broker.EventSessionEnded:      {class: authentication, activity: 2},
	broker.EventLeaseStarted:      {class: authorizeSession, activity: 1},
	broker.EventLeaseRenewed:      {class: authorizeSession, activity: 1},
	broker.EventLeaseEnded:        {class: authentication, activity: 2},
	broker.EventLeaseReleased:     {class: authorizeSession, activity: otherActivity, name: "Release Lease"},
	broker.EventCredentialsServed: {class: authorizeSession, activity: 1},
	broker.EventRequestDenied:     {class: authorizeSession, activity: 1},
	broker.EventRequestFailed:     {class: authorizeSession, activity: 1},
}

// A mapper tells one entry.
type mapper struct {
	audit.Entry
	host string
}

func (m *mapper) event(raw []byte) *event {
	k, ok := kinds[m.Kind]
	if !ok {
		k = kind{class: baseEvent, activity: otherActivity, name: string(m.Kind)}
	}
	if k.class == authorizeSession && m.Profile == "" && m.RoleARN == "" && m.Outcome != broker.OutcomeOK {
		k = kind{class: apiActivity, activity: otherActivity, name: string(m.Kind)}
	}
	v := &event{
		Time:     m.Time.UnixMilli(),
		Class:    k.class,
		Category: k.class / 1000, // a class's number begins with its category's
		Activity: k.activity, ActivityName: k.name,
		Type:    k.class*100 + k.activity,
		Message: m.Summary(),
		Device:  &device{Hostname: m.host},
		Raw:     string(raw),
	}
	v.Metadata = metadata{
		Version: Version, Profiles: []string{"host"},
		Product: product{Name: "gatepass", Vendor: "gatepass", Version: broker.Version()},
		UID:     strconv.FormatInt(m.Seq, 10), Sequence: m.Seq,
		Code: string(m.Kind), LogName: "gatepass-audit",
		OriginalTime: m.Time.UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
		Truncated:    len(m.Cut) > 0,
	}
	switch {
	case m.Lease != "":
		v.Metadata.Correlation = m.Lease
	case m.Session != nil:
		v.Metadata.Correlation = m.Session.ID
	}
	if m.Account != "" {
		v.Metadata.Profiles = append(v.Metadata.Profiles, "cloud")
		v.Cloud = &cloud{Provider: "AWS", Account: m.account()}
	}
	v.Unmapped = unmapped{Outcome: m.Outcome, Profile: m.Profile, Lease: m.Lease, Reason: m.Reason, Cut: m.Cut}
	if m.Caller != nil {
		v.Unmapped.Via, v.Unmapped.Resolved = m.Caller.Via, &m.Caller.Resolved
	}
	if m.Session != nil {
		v.Unmapped.RoleSessionName, v.Unmapped.SourceIdentity = m.Session.Name, m.Session.SourceIdentity
	}
	v.Actor = m.actor()
	m.outcome(v, k)
	switch k.class {
	case authorizeSession:
		v.User, v.Session = m.user(), m.session()
		v.Privileges = []string{m.privilege()}
		v.API = m.stsCall()
	case authentication:
		v.User, v.Session, v.Service = m.user(), m.session(), sts
		if m.Kind != broker.EventMFAVerified {
			v.Service = &named{Name: "gatepass"}
		} else {
			v.MFA, v.API = true, m.stsCall()
		}
	case entityManagement:
		v.Entity = m.key()
	case applicationLifecycle:
		v.App = &named{Name: "gatepass"}
	case apiActivity:
		v.Source = &device{Hostname: m.host}
		v.API = m.call()
		if v.Actor == nil { // which the class requires
			v.Actor = &actor{App: "gatepass"}
		}
	}
	if v.Cloud == nil && k.class != apiActivity {
		v.API = nil // it is the cloud profile's
	}
	return v
}

// outcome says how it went, and where a decision was taken, which.
func (m *mapper) outcome(v *event, k kind) {
	action, disposition := 0, 0 // unknown, as the others are
	switch m.Outcome {
	case broker.OutcomeOK:
		v.Status, v.Severity, action, disposition = 1, 1, 1, 1 // success, informational, allowed, allowed
	case broker.OutcomeDenied:
		v.Status, v.Severity, action, disposition = 2, 3, 2, 2 // failure, medium, denied, blocked
	case broker.OutcomeFailed:
		v.Status, v.Severity, action, disposition = 2, 2, 0, 27 // failure, low, unknown, error
	}
	if m.Error != nil {
		v.StatusCode, v.StatusDetail = string(m.Error.Code), m.Error.Message
	}
	if k.intent {
		v.Status = 0 // unknown
		return
	}
	if k.class != authorizeSession && m.Outcome == broker.OutcomeOK {
		return
	}
	v.Metadata.Profiles = append(v.Metadata.Profiles, "security_control")
	v.Action, v.Disposition = &action, &disposition
	if m.Decision != "" {
		v.Policy = &named{Name: m.Decision}
	}
}

// user is the IAM user behind the key, or where none is known the user of this
// machine.
func (m *mapper) user() *user {
	u := &user{Type: 1} // a user
	for _, g := range m.Groups {
		u.Groups = append(u.Groups, named{Name: g})
	}
	if m.Key != nil {
		if m.Key.AccessKeyID != "" {
			u.Credentials = []named{{UID: m.Key.AccessKeyID}}
		}
		if arn := m.Key.UserARN; arn != "" {
			u.UID, u.Name = arn, arn[strings.LastIndexByte(arn, '/')+1:]
			return u
		}
	}
	if os := m.osUser(); os != nil {
		u.Name, u.UID = os.Name, os.UID
		return u
	}
	u.Type, u.Name = 0, "unknown"
	return u
}

func (m *mapper) osUser() *user {
	if m.Caller == nil {
		return nil
	}
	return &user{Name: m.Caller.User, UID: strconv.Itoa(m.Caller.UID), Type: 1}
}

func (m *mapper) account() *account { return &account{UID: m.Account, Type: 10} } // an AWS account

// privilege is what the session may act as.
func (m *mapper) privilege() string {
	switch {
	case m.RoleARN != "":
		return m.RoleARN
	case m.Key != nil && m.Key.UserARN != "":
		return m.Key.UserARN
	case m.Profile != "":
		return m.Profile
	}
	return "unknown"
}

func (m *mapper) session() *session {
	if m.Session == nil && m.Lease == "" {
		return nil
	}
	s := &session{UID: m.Lease}
	if m.Caller != nil {
		s.Terminal = m.Caller.TTY
	}
	if m.Session != nil {
		if m.Session.ID != "" {
			s.UID = m.Session.ID
		}
		s.AltUID = assumedRole(m.RoleARN, m.Session.Name)
		s.Credential = m.Session.AccessKeyID
		s.Expires = millis(m.Session.Expires)
	}
	switch m.Kind {
	case broker.EventSessionEnded, broker.EventLeaseEnded:
		s.Ended = m.Reason
	case broker.EventMFAVerified:
		s.MFA = true
	}
	return s
}

// assumedRole is the ARN that CloudTrail shows for a session of a role, "" for
// other sessions. A role's path is not in it.
func assumedRole(role, name string) string {
	head, path, ok := strings.Cut(role, ":role/")
	if !ok || name == "" {
		return ""
	}
	return strings.Replace(head, ":iam:", ":sts:", 1) + ":assumed-role/" + path[strings.LastIndexByte(path, '/')+1:] + "/" + name
}

var sts = &named{Name: "sts.amazonaws.com"}

// stsCall is the call that gave the session, nil where that is not told.
func (m *mapper) stsCall() *api {
	if m.Session == nil || m.Session.STSRequestID == "" {
		return nil
	}
	return &api{Operation: m.operation(), Service: sts, Request: &named{UID: m.Session.STSRequestID}}
}

func (m *mapper) operation() string {
	if m.RoleARN != "" {
		return "AssumeRole"
	}
	return "GetSessionToken"
}

// call is the call of an API Activity: that of STS which is to come, or the
// one of gatepass which did not succeed.
func (m *mapper) call() *api {
	if m.Kind == broker.EventSessionRequested {
		return &api{Operation: m.operation(), Service: sts}
	}
	c := &api{Operation: "unknown", Service: &named{Name: "gatepass"}}
	if m.Caller != nil && m.Caller.Via != "" {
		c.Operation = m.Caller.Via
	}
	return c
}

// key is the key that an Entity Management is about.
func (m *mapper) key() *entity {
	k := &entity{Type: 99, TypeName: "Access Key", Name: "unknown"}
	if m.Key != nil {
		k.Name, k.UID = m.Key.Name, m.Key.AccessKeyID
		if m.Key.UserARN != "" {
			k.User = m.user()
		}
	}
	return k
}

// actor is the process that asked.
func (m *mapper) actor() *actor {
	c := m.Caller
	if c == nil {
		return nil
	}
	a := &actor{App: c.Program, User: m.osUser()}
	p := &process{PID: c.PID, Command: c.Command, Cwd: c.Cwd, File: fileAt(c.Exe), User: a.User}
	for _, above := range c.Ancestors {
		p.Ancestry = append(p.Ancestry, process{PID: above.PID, Command: above.Command, Path: above.Exe})
	}
	if c.PID != 0 || c.Exe != "" || c.Command != "" {
		a.Process = p
	}
	return a
}

func fileAt(path string) *file {
	if path == "" {
		return nil
	}
	return &file{Path: path, Name: path[strings.LastIndexAny(path, `/\`)+1:], Type: 1} // a regular file
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
