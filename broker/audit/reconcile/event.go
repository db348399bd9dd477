package reconcile

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// An Event is what reconcile reads of a CloudTrail record.
// https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
type Event struct {
	ID        string    `json:"id"`
	Time      time.Time `json:"time"`   // in whole seconds
	Source    string    `json:"source"` // "s3.amazonaws.com"
	Name      string    `json:"name"`
	Region    string    `json:"region,omitempty"`
	Account   string    `json:"account,omitempty"` // whose trail tells it
	Address   string    `json:"address,omitempty"` // or the name of the AWS service that called
	Agent     string    `json:"agent,omitempty"`
	ErrorCode string    `json:"error_code,omitempty"` // AWS refused it
	RequestID string    `json:"request_id,omitempty"`
	Identity  Identity  `json:"identity"`

	// Of calls that make sessions and keys.
	Role        string `json:"role_arn,omitempty"`     // that was asked for
	SessionName string `json:"session_name,omitempty"` // that was asked for
	AskedSource string `json:"asked_source_identity,omitempty"`
	Issued      string `json:"issued_access_key_id,omitempty"`

	Presigned bool   `json:"presigned,omitempty"` // the signature was in a URL, which anybody may have used
	File      string `json:"file"`
}

// An Identity is who called.
// https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html
type Identity struct {
	Type           string    `json:"type,omitempty"`
	PrincipalID    string    `json:"principal_id,omitempty"` // of a role's session "AROA…:" and its name
	ARN            string    `json:"arn,omitempty"`
	Account        string    `json:"account,omitempty"`
	AccessKeyID    string    `json:"access_key_id,omitempty"`
	RoleARN        string    `json:"role_arn,omitempty"` // or, of a federated session, its user's
	SourceIdentity string    `json:"source_identity,omitempty"`
	Created        time.Time `json:"created,omitzero"`     // the session
	Console        bool      `json:"console,omitempty"`    // the console's own credentials for it
	InvokedBy      string    `json:"invoked_by,omitempty"` // the AWS service that called in its name
}

// Call is the event as "s3:GetObject".
func (e *Event) Call() string {
	service, _, _ := strings.Cut(e.Source, ".")
	return service + ":" + e.Name
}

// sessionName is the name of the role's session that called, "" for others.
func (id *Identity) sessionName() string {
	if _, rest, ok := strings.Cut(id.ARN, ":assumed-role/"); ok {
		if i := strings.LastIndexByte(rest, '/'); i >= 0 {
			return rest[i+1:]
		}
	}
	if strings.HasPrefix(id.PrincipalID, "AROA") {
		_, name, _ := strings.Cut(id.PrincipalID, ":")
		return name
	}
	return ""
}

// isOf reports whether the calling session is one of the role. The ARN of a
// session has no path; that of its issuer has.
func (id *Identity) isOf(role string) bool {
	if id.RoleARN != "" {
		return id.RoleARN == role
	}
	head, _, ok := strings.Cut(id.ARN, ":assumed-role/")
	if !ok {
		return id.Type == "AWSAccount" // another account's role: its name is not told
	}
	name := strings.TrimPrefix(id.ARN, head+":assumed-role/")
	name, _, _ = strings.Cut(name, "/")
	return strings.HasSuffix(role, "/"+name) && accountOf(role) == accountOf(id.ARN)
}

// internal reports whether AWS itself called: on behalf of the identity, or as
// a service that shows its name in the place of an address.
func (e *Event) internal() bool {
	return e.Identity.InvokedBy != "" || strings.HasSuffix(e.Address, ".amazonaws.com") || e.Address == "AWS Internal"
}

func accountOf(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 {
		return ""
	}
	return parts[4]
}

// A record is the part of CloudTrail's JSON that an Event comes from.
type record struct {
	UserIdentity struct {
		Type           string `json:"type"`
		PrincipalID    string `json:"principalId"`
		ARN            string `json:"arn"`
		AccountID      string `json:"accountId"`
		AccessKeyID    string `json:"accessKeyId"`
		InvokedBy      string `json:"invokedBy"`
		SessionContext struct {
			SessionIssuer struct {
				ARN string `json:"arn"`
			} `json:"sessionIssuer"`
			Attributes struct {
				CreationDate string `json:"creationDate"`
			} `json:"attributes"`
			SourceIdentity string `json:"sourceIdentity"`
		} `json:"sessionContext"`
	} `json:"userIdentity"`
	EventTime        string          `json:"eventTime"`
	EventSource      string          `json:"eventSource"`
	EventName        string          `json:"eventName"`
	Region           string          `json:"awsRegion"`
	SourceIPAddress  string          `json:"sourceIPAddress"`
	UserAgent        string          `json:"userAgent"`
	ErrorCode        string          `json:"errorCode"`
	RequestID        string          `json:"requestID"`
	EventID          string          `json:"eventID"`
	RecipientAccount string          `json:"recipientAccountId"`
	FromConsole      json.RawMessage `json:"sessionCredentialFromConsole"`
	Request          json.RawMessage `json:"requestParameters"`
	Response         json.RawMessage `json:"responseElements"`
	Additional       json.RawMessage `json:"additionalEventData"`
}

// parseEvent reads one record.
func parseEvent(raw []byte) (*Event, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("is not UTF-8")
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("is no CloudTrail event: %w", err)
	}
	if r.EventTime == "" || r.EventSource == "" || r.EventName == "" {
		return nil, errors.New("is no CloudTrail event: eventTime, eventSource or eventName is missing")
	}
	at, err := time.Parse(time.RFC3339, r.EventTime)
	if err != nil {
		return nil, fmt.Errorf("is no CloudTrail event: eventTime: %w", err)
	}
	id := r.UserIdentity
	e := &Event{
		ID: r.EventID, Time: at.UTC(), Source: r.EventSource, Name: r.EventName, Region: r.Region, Account: r.RecipientAccount,
		Address: r.SourceIPAddress, Agent: strings.Trim(r.UserAgent, "[]"), ErrorCode: r.ErrorCode, RequestID: r.RequestID, // S3 puts it in brackets
		Identity: Identity{
			Type: id.Type, PrincipalID: id.PrincipalID, ARN: id.ARN, Account: id.AccountID, AccessKeyID: id.AccessKeyID,
			RoleARN: id.SessionContext.SessionIssuer.ARN, SourceIdentity: id.SessionContext.SourceIdentity, InvokedBy: id.InvokedBy,
			Console: string(r.FromConsole) == `"true"` || string(r.FromConsole) == "true",
		},
	}
	e.Identity.Created, _ = time.Parse(time.RFC3339, id.SessionContext.Attributes.CreationDate)
	if e.Source == "sts.amazonaws.com" || e.Source == "iam.amazonaws.com" {
		if err := e.readCall(r.Request, r.Response); err != nil {
			return nil, err
		}
	}
	if len(r.Additional) > 2 {
		var more struct {
			Method any `json:"AuthenticationMethod"`
		}
		e.Presigned = json.Unmarshal(r.Additional, &more) == nil && more.Method == "QueryString"
	}
	return e, nil
}

// readCall reads what STS and IAM were asked and answered.
func (e *Event) readCall(request, response json.RawMessage) error {
	var asked struct {
		RoleARN     string `json:"roleArn"`
		SessionName string `json:"roleSessionName"`
		Source      string `json:"sourceIdentity"`
	}
	var answered struct {
		Credentials struct {
			AccessKeyID string `json:"accessKeyId"`
		} `json:"credentials"`
		AccessKey struct {
			AccessKeyID string `json:"accessKeyId"`
		} `json:"accessKey"`
	}
	for _, part := range []struct {
		raw  json.RawMessage
		into any
	}{{request, &asked}, {response, &answered}} {
		if len(part.raw) == 0 {
			continue
		}
		if err := json.Unmarshal(part.raw, part.into); err != nil {
			return fmt.Errorf("is no CloudTrail event of %s: %w", e.Call(), err)
		}
	}
	e.Role, e.SessionName, e.AskedSource = asked.RoleARN, asked.SessionName, asked.Source
	e.Issued = answered.Credentials.AccessKeyID
	if e.Issued == "" {
		e.Issued = answered.AccessKey.AccessKeyID
	}
	return nil
}

// mints reports whether the call makes a session.
func (e *Event) mints() bool {
	if e.Source != "sts.amazonaws.com" {
		return false
	}
	switch e.Name {
	case "AssumeRole", "GetSessionToken", "GetFederationToken", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity", "AssumeRoot":
		return true
	}
	return false
}
