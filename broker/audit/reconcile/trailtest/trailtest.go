// Package trailtest makes CloudTrail files for tests: real ones are private.
//
// A [Trail] takes in what gatepass-sandbox was asked ([Trail.Call], whose
// argument is an element of what GET /sandbox/calls returns) and what sessions
// were used for ([Trail.Use]), and writes files as CloudTrail delivers them to
// S3 ([Trail.Write]): gzipped, by account, region and quarter of an hour, late,
// out of order, some events twice, with digests beside them; or what "aws
// cloudtrail lookup-events" prints ([Trail.LookupEvents]).
//
// The envelopes are those of eventVersion 1.11, with the fields that AWS
// documents, in the forms that it uses: STS's answer tells the access key and,
// as in reality, a session token, which is no secret here.
// https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
// https://docs.aws.amazon.com/IAM/latest/UserGuide/cloudtrail-integration.html
package trailtest

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Call is one that the sandbox was asked, in the form of its own record.
type Call struct {
	Time            time.Time `json:"time"`
	Action          string    `json:"action"`
	Principal       string    `json:"principal"` // ARN of the caller
	AccessKeyID     string    `json:"access_key_id"`
	UserAgent       string    `json:"user_agent"` // "" for the daemon's
	RoleARN         string    `json:"role_arn"`
	SessionName     string    `json:"session_name"`
	SourceIdentity  string    `json:"source_identity"`
	DurationSeconds int       `json:"duration_seconds"`
	MFASerial       string    `json:"mfa_serial"`
	RequestID       string    `json:"request_id"`
	IssuedKeyID     string    `json:"issued_access_key_id"`
	SubjectKeyID    string    `json:"subject_access_key_id"`
	Status          int       `json:"status"` // 0: dropped, so AWS did it and nobody heard
	Code            string    `json:"code"`
}

// A Use is a call of some service with a session or a key.
type Use struct {
	Time        time.Time
	Call        string // "s3:GetObject"
	Principal   string // ARN of the user or of the role's session
	AccessKeyID string // may be "", as it is at times
	Created     time.Time
	Region      string // "" for the trail's
	Address     string // "" for the trail's
	Agent       string // "" for the AWS CLI's
	Source      string // the source identity
	InvokedBy   string // an AWS service that called in the session's name
	Console     bool
	Presigned   bool
	ErrorCode   string
}

// A Trail collects events.
type Trail struct {
	// Address, Agent and Region are of calls that name none. Agent is the
	// daemon's; other programs' is the AWS CLI's.
	Address, Agent, Region string

	rng    *rand.Rand
	events []event
}

// An event is a record and where it is delivered.
type event struct {
	at              time.Time
	account, region string
	record          map[string]any
}

// CLI is the user agent of the AWS CLI on a Linux laptop.
const CLI = "aws-cli/2.17.20 md/awscrt#0.20.11 ua/2.0 os/linux#6.8.0 md/arch#x86_64 lang/python#3.11.8 md/pyimpl#CPython cfg/retry-mode#standard md/installer#exe md/command#s3.ls"

// New returns a trail whose ids and order come from seed.
func New(seed uint64) *Trail {
	return &Trail{Address: "203.0.113.7", Agent: "gatepass/1.0.0", Region: "eu-west-1", rng: rand.New(rand.NewPCG(seed, 5))}
}

// Len is the number of events.
func (t *Trail) Len() int { return len(t.events) }

// Calls takes in all that the sandbox's record, {"calls":[…]}, has.
func (t *Trail) Calls(record []byte) error {
	var all struct {
		Calls []Call `json:"calls"`
	}
	if err := json.Unmarshal(record, &all); err != nil {
		return err
	}
	for _, c := range all.Calls {
		t.Call(c)
	}
	return nil
}

// Call takes in a call of STS or IAM. One into another account is told in both.
// What was not authenticated is not in CloudTrail.
func (t *Trail) Call(c Call) {
	if c.Principal == "" || c.Action == "" {
		return
	}
	service := "sts"
	if !strings.HasPrefix(c.Action, "AssumeRole") && c.Action != "GetSessionToken" && c.Action != "GetCallerIdentity" {
		service = "iam"
	}
	agent := cmp.Or(c.UserAgent, t.Agent)
	u := Use{Time: c.Time, Call: service + ":" + c.Action, Principal: c.Principal, AccessKeyID: c.AccessKeyID, Agent: agent, ErrorCode: c.Code}
	if c.Code == "AccessDenied" && service == "iam" {
		u.ErrorCode = "AccessDeniedException"
	}
	r := t.record(u)
	r["requestID"] = c.RequestID
	request, response := map[string]any{}, map[string]any{}
	user := c.Principal[strings.LastIndexByte(c.Principal, '/')+1:]
	switch c.Action {
	case "AssumeRole":
		request["roleArn"], request["roleSessionName"] = c.RoleARN, c.SessionName
		if c.SourceIdentity != "" {
			request["sourceIdentity"], response["sourceIdentity"] = c.SourceIdentity, c.SourceIdentity
		}
		if c.MFASerial != "" {
			request["serialNumber"] = c.MFASerial
		}
		request["durationSeconds"] = c.DurationSeconds
		arn := sessionARN(c.RoleARN, c.SessionName)
		response["assumedRoleUser"] = map[string]any{"assumedRoleId": unique("AROA", c.RoleARN) + ":" + c.SessionName, "arn": arn}
		response["credentials"] = credentials(c)
	case "GetSessionToken":
		request["durationSeconds"] = c.DurationSeconds
		if c.MFASerial != "" {
			request["serialNumber"] = c.MFASerial
		}
		response["credentials"] = credentials(c)
	case "CreateAccessKey":
		request["userName"] = user
		response["accessKey"] = map[string]any{"userName": user, "accessKeyId": c.IssuedKeyID, "status": "Active", "createDate": c.Time.UTC().Format("Jan 2, 2006 3:04:05 PM")}
	case "UpdateAccessKey", "DeleteAccessKey":
		request["userName"], request["accessKeyId"] = user, c.SubjectKeyID
	default:
		request["userName"] = user
	}
	if c.Action != "GetCallerIdentity" {
		r["requestParameters"] = request
	}
	r["responseElements"] = nil
	if c.Code == "" && len(response) > 0 && (c.IssuedKeyID != "" || c.Action == "AssumeRole") {
		r["responseElements"] = response
	}
	home, away := accountOf(c.Principal), accountOf(c.RoleARN)
	if away == "" || away == home {
		t.add(u, home, r)
		return
	}
	shared := t.uuid()
	r["sharedEventID"] = shared
	t.add(u, home, r)
	other := map[string]any{}
	for k, v := range r {
		other[k] = v
	}
	other["eventID"] = t.uuid()
	other["recipientAccountId"] = away
	other["userIdentity"] = map[string]any{"type": "AWSAccount", "principalId": principal(c.Principal), "accountId": home}
	t.add(u, away, other)
}

// Use takes in a call of any service.
func (t *Trail) Use(u Use) {
	if u.Agent == "" {
		u.Agent = CLI
	}
	t.add(u, accountOf(u.Principal), t.record(u))
}

// Raw takes in a record as it is.
func (t *Trail) Raw(at time.Time, account string, record map[string]any) {
	t.events = append(t.events, event{at, account, t.Region, record})
}

func (t *Trail) add(u Use, account string, record map[string]any) {
	region := record["awsRegion"].(string)
	record["recipientAccountId"] = account
	t.events = append(t.events, event{u.Time, account, region, record})
}

// record is the envelope of a call.
func (t *Trail) record(u Use) map[string]any {
	service, name, _ := strings.Cut(u.Call, ":")
	region, address, agent := cmp.Or(u.Region, t.Region), cmp.Or(u.Address, t.Address), u.Agent
	if service == "iam" {
		region = "us-east-1"
	}
	if u.InvokedBy != "" {
		address, agent = u.InvokedBy, u.InvokedBy
	}
	if service == "s3" {
		agent = "[" + agent + "]"
	}
	host := service + "." + region + ".amazonaws.com"
	r := map[string]any{
		"eventVersion": "1.11", "userIdentity": identity(u), "eventTime": u.Time.UTC().Truncate(time.Second).Format(time.RFC3339),
		"eventSource": service + ".amazonaws.com", "eventName": name, "awsRegion": region, "sourceIPAddress": address, "userAgent": agent,
		"requestParameters": nil, "responseElements": nil, "requestID": t.uuid(), "eventID": t.uuid(),
		"readOnly":  strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List") || strings.HasPrefix(name, "Describe") || service == "sts",
		"eventType": "AwsApiCall", "managementEvent": service != "s3", "eventCategory": "Management",
		"tlsDetails": map[string]any{"tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256", "clientProvidedHostHeader": host},
	}
	if service == "s3" {
		method := "AuthHeader"
		if u.Presigned {
			method = "QueryString"
		}
		r["eventCategory"] = "Data"
		r["requestParameters"] = map[string]any{"bucketName": "example-bucket", "Host": host, "key": "reports/2026.csv"}
		r["additionalEventData"] = map[string]any{"SignatureVersion": "SigV4", "CipherSuite": "TLS_AES_128_GCM_SHA256", "bytesTransferredIn": 0, "AuthenticationMethod": method, "bytesTransferredOut": 4711}
		r["resources"] = []any{map[string]any{"type": "AWS::S3::Object", "ARN": "arn:aws:s3:::example-bucket/reports/2026.csv"}}
	}
	if u.ErrorCode != "" {
		r["errorCode"] = u.ErrorCode
		r["errorMessage"] = "User: " + u.Principal + " is not authorized to perform: " + u.Call
	}
	if u.Console {
		r["sessionCredentialFromConsole"] = "true"
	}
	return r
}

// identity is CloudTrail's userIdentity.
func identity(u Use) map[string]any {
	account := accountOf(u.Principal)
	id := map[string]any{"principalId": principal(u.Principal), "arn": u.Principal, "accountId": account}
	if u.AccessKeyID != "" {
		id["accessKeyId"] = u.AccessKeyID
	}
	if u.InvokedBy != "" {
		id["invokedBy"] = u.InvokedBy
	}
	created := u.Created
	if created.IsZero() {
		created = u.Time
	}
	attributes := map[string]any{"creationDate": created.UTC().Truncate(time.Second).Format(time.RFC3339), "mfaAuthenticated": "false"}
	if role, ok := roleOf(u.Principal); ok {
		id["type"] = "AssumedRole"
		id["sessionContext"] = map[string]any{
			"sessionIssuer": map[string]any{"type": "Role", "principalId": unique("AROA", role), "arn": role, "accountId": account, "userName": role[strings.LastIndexByte(role, '/')+1:]},
			"attributes":    attributes,
		}
		if u.Source != "" {
			id["sessionContext"].(map[string]any)["sourceIdentity"] = u.Source
		}
		return id
	}
	id["type"] = "IAMUser"
	id["userName"] = u.Principal[strings.LastIndexByte(u.Principal, '/')+1:]
	if strings.HasPrefix(u.AccessKeyID, "ASIA") {
		id["sessionContext"] = map[string]any{"attributes": attributes}
	}
	return id
}

// credentials are what STS answered. The expiration is a text for people.
func credentials(c Call) map[string]any {
	return map[string]any{
		"accessKeyId": c.IssuedKeyID, "sessionToken": "IQoJb3JpZ2luX2VjEXAMPLE/" + c.IssuedKeyID,
		"expiration": c.Time.Add(time.Duration(c.DurationSeconds) * time.Second).UTC().Format("Jan 2, 2006, 3:04:05 PM"),
	}
}

// Write writes the files below dir, as below a bucket's AWSLogs.
func (t *Trail) Write(dir string) error {
	type place struct{ account, region, file string }
	files := map[place][]json.RawMessage{}
	var order []place
	put := func(e event) error {
		// 2 to 15 minutes late, into the file of then.
		at := e.at.Add(2*time.Minute + time.Duration(t.rng.Int64N(int64(13*time.Minute)))).UTC().Truncate(5 * time.Minute)
		p := place{e.account, e.region, at.Format("2006/01/02/") + fmt.Sprintf("%s_CloudTrail_%s_%s_", e.account, e.region, at.Format("20060102T1504Z"))}
		raw, err := json.Marshal(e.record)
		if err != nil {
			return err
		}
		if files[p] == nil {
			order = append(order, p)
		}
		files[p] = append(files[p], raw)
		return nil
	}
	for _, e := range t.events {
		if err := put(e); err != nil {
			return err
		}
		if t.rng.IntN(4) == 0 { // delivered again
			if err := put(e); err != nil {
				return err
			}
		}
	}
	for _, p := range order {
		records := files[p]
		t.rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		name := filepath.Join(dir, "AWSLogs", p.account, "CloudTrail", p.region, filepath.FromSlash(p.file)+t.text(16)+".json.gz")
		if err := writeGzip(name, map[string]any{"Records": records}); err != nil {
			return err
		}
		digest := filepath.Join(dir, "AWSLogs", p.account, "CloudTrail-Digest", p.region, filepath.FromSlash(p.file)+"digest.json.gz")
		if err := writeGzip(digest, map[string]any{"awsAccountId": p.account, "digestStartTime": "2026-11-03T09:00:00Z", "logFiles": []any{}}); err != nil {
			return err
		}
	}
	return nil
}

func writeGzip(name string, v any) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := json.NewEncoder(z).Encode(v); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o600)
}

// LookupEvents writes what "aws cloudtrail lookup-events" prints.
func (t *Trail) LookupEvents(w io.Writer) error {
	var list []any
	for _, e := range t.events {
		raw, err := json.Marshal(e.record)
		if err != nil {
			return err
		}
		list = append(list, map[string]any{
			"EventId": e.record["eventID"], "EventName": e.record["eventName"], "EventTime": e.record["eventTime"], "EventSource": e.record["eventSource"],
			"Resources": []any{}, "CloudTrailEvent": string(raw),
		})
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "    ")
	return enc.Encode(map[string]any{"Events": list})
}

// sessionARN is the ARN of a role's session.
func sessionARN(role, name string) string {
	return "arn:aws:sts::" + accountOf(role) + ":assumed-role/" + role[strings.LastIndexByte(role, '/')+1:] + "/" + name
}

// roleOf returns the ARN of the role of a session.
func roleOf(arn string) (string, bool) {
	_, rest, ok := strings.Cut(arn, ":assumed-role/")
	if !ok {
		return "", false
	}
	name, _, _ := strings.Cut(rest, "/")
	return "arn:aws:iam::" + accountOf(arn) + ":role/" + name, true
}

// principal is CloudTrail's principalId.
func principal(arn string) string {
	if role, ok := roleOf(arn); ok {
		return unique("AROA", role) + ":" + arn[strings.LastIndexByte(arn, '/')+1:]
	}
	return unique("AIDA", arn)
}

// unique is IAM's unique id for what arn names.
func unique(prefix, arn string) string {
	h := fnv.New64a()
	io.WriteString(h, arn)
	return fmt.Sprintf("%s%016X", prefix, h.Sum64())
}

func accountOf(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 {
		return ""
	}
	return parts[4]
}

func (t *Trail) uuid() string {
	a, b := t.rng.Uint64(), t.rng.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", uint32(a), uint16(a>>32), a>>52, b>>52, b&(1<<48-1))
}

func (t *Trail) text(n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[t.rng.IntN(len(letters))]
	}
	return string(b)
}
