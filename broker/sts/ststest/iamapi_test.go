package ststest

import (
	"bytes"
	"os/exec"
	"testing"
	"time"
)

func TestIAMRefusals(t *testing.T) {
	config := Example()
	users := config.Accounts[0].Users
	users[0].RequiresMFA = []string{"iam:Update*"}
	users[0].Deny = []string{"iam:ListGroupsForUser"}
	users[3].Allow = []string{"iam:GetUser"} // mallory
	c := newClient(t, config)
	iam := func(s signer) signer { s.service = "iam"; return s }
	call := func(action string, more ...string) params {
		p := params{"Action": action, "Version": "2010-05-08"}
		for i := 0; i < len(more); i += 2 {
			p[more[i]] = more[i+1]
		}
		return p
	}
	refused := func(s signer, p params, status int, code, message string) {
		t.Helper()
		if r := s.call(t, p); r.Status != status || r.Error.Code != code || !bytes.Contains([]byte(r.Error.Message), []byte(message)) ||
			r.XMLName.Space != iamNamespace {
			t.Errorf("%s: got %s\nwant %d %s: …%s…", p["Action"], r.Body, status, code, message)
		}
	}
	alice, keyID := iam(c.as("alice")), c.Key("alice").ID
	refused(alice, call("UpdateAccessKey", "AccessKeyId", keyID, "Status", "Inactive"), 403, "AccessDenied", "iam:UpdateAccessKey on resource: user")
	refused(alice, call("ListGroupsForUser", "UserName", "alice"), 403, "AccessDenied", "explicit deny")
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
