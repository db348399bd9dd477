package ststest

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// iam makes s sign for IAM.
func iam(s signer) signer { s.service = "iam"; return s }

// call is an action of IAM's; more holds its parameters, name and value.
func call(action string, more ...string) params {
	p := params{"Action": action, "Version": "2010-05-08"}
	for i := 0; i < len(more); i += 2 {
		p[more[i]] = more[i+1]
	}
	return p
}

func TestIAMRefusals(t *testing.T) {
	config := Example()
	users := config.Accounts[0].Users
	users[0].RequiresMFA = []string{"iam:Update*"}
	users[0].Deny = []string{"iam:ListGroupsForUser"}
	users[3].Allow = []string{"iam:GetUser"} // mallory
	c := newClient(t, config)
	refused := func(s signer, p params, status int, code, message string) {
		t.Helper()
		if r := s.call(t, p); r.Status != status || r.Error.Code != code || !bytes.Contains([]byte(r.Error.Message), []byte(message)) ||
			r.XMLName.Space != iamNamespace {
			t.Errorf("%s: got %s\nwant %d %s: …%s…", p["Action"], r.Body, status, code, message)
		}
	}
	alice, keyID := iam(c.as("alice")), c.Key("alice").ID
	refused(alice, call("UpdateAccessKey", "AccessKeyId", keyID, "Status", "Inactive"), 403, "AccessDenied", "iam:UpdateAccessKey on resource: user")
	refused(alice, call("ListGroupsForUser", "UserName", "alice"), 403, "AccessDenied", "iam:ListGroupsForUser on resource: user alice with an explicit deny")
	refused(alice, call("ListGroupsForUser"), 400, "ValidationError", "Value null at 'userName'")
	refused(iam(c.as("mallory")), call("ListMFADevices"), 403, "AccessDenied", "iam:ListMFADevices on resource: user mallory because no identity-based policy allows")
	refused(alice, call("ListMFADevices", "MaxItems", "0"), 400, "ValidationError", "'maxItems' failed to satisfy constraint: Member must have value greater")
	refused(alice, call("ListMFADevices", "MaxItems", "1001"), 400, "ValidationError", "less than or equal to 1000")
	refused(alice, call("ListMFADevices", "Marker", "1"), 400, "ValidationError", "Invalid Marker")
	refused(iam(c.as("mallory")), call("ListAccessKeys"), 403, "AccessDenied", "no identity-based policy allows the iam:ListAccessKeys action")
	refused(alice, call("GetUser", "UserName", "nobody"), 404, "NoSuchEntity", "nobody cannot be found")
	refused(alice, call("DeleteAccessKey", "AccessKeyId", c.Key("mallory").ID), 404, "NoSuchEntity", "cannot be found")
	refused(alice, call("DeleteAccessKey"), 400, "ValidationError", "accessKeyId")
	refused(c.as("alice"), call("GetUser"), 403, "SignatureDoesNotMatch", "correct service: 'iam'")
	elsewhere := alice
	elsewhere.region = "eu-west-1"
	refused(elsewhere, call("GetUser"), 403, "SignatureDoesNotMatch", "valid region, not 'eu-west-1'")

	plain := iam(c.signer(c.as("alice").session(t, params{"Action": "GetSessionToken"})))
	refused(plain, call("GetUser", "UserName", "alice"), 403, "InvalidClientTokenId", "")
	proved := iam(c.signer(c.as("alice").session(t, params{"Action": "GetSessionToken", "SerialNumber": AliceDevice, "TokenCode": c.Code("alice")})))
	refused(proved, call("UpdateAccessKey", "AccessKeyId", keyID, "Status", "Inactive"), 400, "ValidationError", "Must specify userName")
	refused(proved, call("UpdateAccessKey", "UserName", "alice", "AccessKeyId", keyID, "Status", "Off"), 400, "ValidationError", "status")
	if r := proved.call(t, call("UpdateAccessKey", "UserName", "alice", "AccessKeyId", keyID, "Status", "Inactive")); r.Status != 200 {
		t.Errorf("with MFA: %s", r)
	}
	refused(alice, call("GetUser"), 403, "InvalidClientTokenId", "")
}

// Listings come in parts of what the call asks for, and of less where the
// configuration says so.
func TestIAMListings(t *testing.T) {
	groups := []string{"developers", "on-call", "billing"}
	for _, tt := range []struct {
		pageSize int
		maxItems string // "" sends none
		want     []int  // how many each part holds
	}{
		{0, "", []int{3}},
		{0, "3", []int{3}},
		{0, "2", []int{2, 1}},
		{0, "1", []int{1, 1, 1}},
		{2, "", []int{2, 1}},
		{1, "2", []int{1, 1, 1}},
	} {
		config := Example()
		config.PageSize = tt.pageSize
		alice := &config.Accounts[0].Users[0]
		alice.Groups = groups
		for _, serial := range []string{"GAHT12345678", "GAHT12345679", "GAHT12345670"} {
			alice.MFA = append(alice.MFA, Device{Serial: serial, Seed: alice.MFA[0].Seed})
		}
		c := newClient(t, config)
		p := call("ListGroupsForUser", "UserName", "alice")
		if tt.maxItems != "" {
			p["MaxItems"] = tt.maxItems
		}
		var got []string
		for i, n := range tt.want {
			r := iam(c.as("alice")).call(t, p)
			var out struct {
				Groups []struct{ GroupName, Arn, Path, GroupId, CreateDate string } `xml:"ListGroupsForUserResult>Groups>member"`
				More   bool                                                         `xml:"ListGroupsForUserResult>IsTruncated"`
				Marker string                                                       `xml:"ListGroupsForUserResult>Marker"`
			}
			if err := xml.Unmarshal([]byte(r.Body), &out); err != nil || r.Status != 200 {
				t.Fatalf("%v: %s", err, r.Body)
			}
			last := i == len(tt.want)-1
			if len(out.Groups) != n || out.More == last || (out.Marker == "") != last {
				t.Errorf("%+v: part %d is %+v", tt, i, out)
			}
			for _, g := range out.Groups {
				got = append(got, g.GroupName)
				if g.Arn != "arn:aws:iam::111122223333:group/"+g.GroupName || !strings.HasPrefix(g.GroupId, "AGPA") || g.Path != "/" {
					t.Errorf("group %+v", g)
				}
			}
			if p["Marker"] = out.Marker; !last {
				other := call("ListMFADevices", "Marker", out.Marker)
				if r := iam(c.as("alice")).call(t, other); r.Error.Message != "Invalid Marker." {
					t.Errorf("the marker of another listing: %s", r.Body)
				}
			}
		}
		if !slices.Equal(got, groups) {
			t.Errorf("%+v: groups %q", tt, got)
		}
	}
}

// TestIAMWithAWSCLI asks who a user is as AWS's own client does it.
func TestIAMWithAWSCLI(t *testing.T) {
	t.Parallel()
	aws := component(t, "aws", "--version")
	config := Example()
	users := config.Accounts[0].Users
	users[0].Groups = []string{"developers", "on-call", "billing"}
	users[0].RequiresMFA = []string{"iam:ListMFADevices"}
	users[3].Deny = []string{"iam:ListMFADevices"} // mallory
	config.PageSize = 2
	srv := NewServer(t, config)
	user := func(name string) credentials {
		k := srv.Key(name)
		return credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret}
	}
	cli := func(creds credentials, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), aws, append(args, "--output", "json")...)
		cmd.Env = clientEnv(t, srv.URL, creds, "AWS_ENDPOINT_URL_IAM="+srv.URL, "AWS_DEFAULT_REGION=us-east-1")
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.Run()
		return strings.Join(strings.Fields(out.String()), " ")
	}
	names := []string{"--query", "Groups[].GroupName"}
	groups := []string{"iam", "list-groups-for-user", "--user-name"}
	devices := []string{"iam", "list-mfa-devices"}
	for _, tt := range []struct {
		creds credentials
		args  []string
		want  string
	}{
		{user("alice"), slices.Concat(groups, []string{"alice"}, names), `[ "developers", "on-call", "billing" ]`},
		{user("alice"), slices.Concat(groups, []string{"alice", "--no-paginate"}, names), `[ "developers", "on-call" ]`},
		{user("mallory"), slices.Concat(groups, []string{"mallory"}, names), `[]`},
		{user("mallory"), devices, "(AccessDenied) when calling the ListMFADevices operation: User: arn:aws:iam::111122223333:user/mallory is not authorized to perform: iam:ListMFADevices on resource: user mallory with an explicit deny"},
		{user("alice"), devices, "(AccessDenied) when calling the ListMFADevices operation"},
	} {
		if got := cli(tt.creds, tt.args...); !strings.Contains(got, tt.want) {
			t.Errorf("%q: %s\nwant %s", tt.args, got, tt.want)
		}
	}
	var proved struct {
		Credentials struct{ AccessKeyId, SecretAccessKey, SessionToken string }
	}
	out := cli(user("alice"), "sts", "get-session-token", "--serial-number", AliceDevice, "--token-code", srv.Code("alice"))
	if err := json.Unmarshal([]byte(out), &proved); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	creds := credentials{AccessKeyID: proved.Credentials.AccessKeyId, SecretAccessKey: proved.Credentials.SecretAccessKey, SessionToken: proved.Credentials.SessionToken}
	want := `{ "MFADevices": [ { "UserName": "alice", "SerialNumber": "arn:aws:iam::111122223333:mfa/alice", "EnableDate": "2020-01-01T00:00:00Z" } ] }`
	if got := cli(creds, append(devices, "--user-name", "alice")...); got != want {
		t.Errorf("with MFA: %s", got)
	}
}

// TestIAMWithBoto3 rotates a key as AWS's own client does it.
func TestIAMWithBoto3(t *testing.T) {
	t.Parallel()
	python := component(t, "python3", "-c", "import boto3")
	config := Example()
	config.NewKey = "-+-"
	srv := NewServer(t, config)
	k := srv.Key("alice")
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), python, "-c", iamScript)
	cmd.Env = clientEnv(t, srv.URL, credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret}, "AWS_ENDPOINT_URL_IAM="+srv.URL)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	want := `created alice Active 40
limit 409 LimitExceeded Cannot exceed quota for AccessKeysPerUser: 2
keys 2 ['Active', 'Active']
first 403 InvalidClientTokenId
second arn:aws:iam::111122223333:user/alice
third 403 InvalidClientTokenId
fourth arn:aws:iam::111122223333:user/alice
used sts eu-central-1
inactive 403 InvalidClientTokenId
keys 2 ['Inactive', 'Active']
keys 1 ['Active']
gone 404 NoSuchEntity
user arn:aws:iam::111122223333:user/alice /
groups ['developers']
devices ['arn:aws:iam::111122223333:mfa/alice']
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, call := range srv.Calls() {
		if call.Time.Before(time.Now().Add(-time.Minute)) || call.Principal != "" && call.Principal != AliceARN {
			t.Errorf("recorded %+v", call)
		}
	}
}

const iamScript = `
import boto3, os
from botocore.exceptions import ClientError

def refused(name, call, text=False, **kw):
    try:
        call(**kw)
        print(name, "allowed")
    except ClientError as e:
        r = e.response
        print(name, r["ResponseMetadata"]["HTTPStatusCode"], r["Error"]["Code"], *([r["Error"]["Message"]] if text else []))

old = os.environ["AWS_ACCESS_KEY_ID"]
iam = boto3.client("iam", region_name="us-east-1")
key = iam.create_access_key()["AccessKey"]
print("created", key["UserName"], key["Status"], len(key["SecretAccessKey"]))
refused("limit", iam.create_access_key, True, UserName="alice")
def keys(c):
    found = sorted(c.list_access_keys(UserName="alice")["AccessKeyMetadata"], key=lambda k: k["CreateDate"])
    print("keys", len(found), [k["Status"] for k in found])
keys(iam)
new = dict(aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
sts = boto3.client("sts", **new)
refused("first", sts.get_caller_identity)
print("second", sts.get_caller_identity()["Arn"])
refused("third", sts.get_caller_identity)
print("fourth", sts.get_caller_identity()["Arn"])
with_new = boto3.client("iam", region_name="us-east-1", **new)
used = iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]
print("used", used["ServiceName"], used["Region"])
with_new.update_access_key(AccessKeyId=old, Status="Inactive")
refused("inactive", boto3.client("sts").get_caller_identity)
keys(with_new)
with_new.delete_access_key(AccessKeyId=old)
keys(with_new)
refused("gone", with_new.delete_access_key, AccessKeyId=old)
user = with_new.get_user()["User"]
print("user", user["Arn"], user["Path"])
print("groups", [g["GroupName"] for g in with_new.list_groups_for_user(UserName="alice")["Groups"]])
print("devices", [d["SerialNumber"] for d in with_new.list_mfa_devices()["MFADevices"]])
`
