package ststest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// These tests call the sandbox with AWS's own clients, whose signatures and
// parsers we did not write.

// component finds a program that a test needs. With GATEPASS_REAL=1 it must be
// there.
func component(t *testing.T, name string, probe ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil && len(probe) > 0 {
		err = exec.Command(path, probe...).Run()
	}
	if err != nil {
		if os.Getenv("GATEPASS_REAL") == "1" {
			t.Fatalf("%s %s: %v, and GATEPASS_REAL=1 requires it", name, strings.Join(probe, " "), err)
		}
		t.Skipf("%s %s: %v", name, strings.Join(probe, " "), err)
	}
	return path
}

// clientEnv is an environment in which AWS's clients find nothing of the
// user's.
func clientEnv(t *testing.T, url string, creds credentials, more ...string) []string {
	dir := t.TempDir()
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "AWS_CONFIG_FILE=" + filepath.Join(dir, "none"),
		"AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(dir, "none"), "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ENDPOINT_URL_STS=" + url, "AWS_DEFAULT_REGION=eu-central-1", "AWS_MAX_ATTEMPTS=1", "AWS_PAGER=", "NO_PROXY=127.0.0.1",
		"AWS_ACCESS_KEY_ID=" + creds.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + creds.SecretAccessKey,
	}
	if creds.SessionToken != "" {
		env = append(env, "AWS_SESSION_TOKEN="+creds.SessionToken)
	}
	return append(env, more...)
}

func TestAWSCLI(t *testing.T) {
	t.Parallel()
	aws := component(t, "aws", "--version")
	srv := NewServer(t, Example())
	user := func(name string) credentials {
		k := srv.Key(name)
		return credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret}
	}
	// cli returns the answer, or what AWS's client makes of the refusal.
	cli := func(creds credentials, args ...string) (out struct {
		Arn, Account    string
		AssumedRoleUser struct{ Arn string }
		SourceIdentity  string
	}, stderr string) {
		t.Helper()
		var o, e bytes.Buffer
		cmd := exec.CommandContext(t.Context(), aws, append([]string{"sts"}, args...)...)
		cmd.Env, cmd.Stdout, cmd.Stderr = clientEnv(t, srv.URL, creds), &o, &e
		if err := cmd.Run(); err == nil {
			if err := json.Unmarshal(o.Bytes(), &out); err != nil {
				t.Fatalf("%v: %s", err, &o)
			}
		} else if e.Len() == 0 {
			t.Fatal(err)
		}
		return out, e.String()
	}

	if out, stderr := cli(user("alice"), "get-caller-identity"); out.Arn != AliceARN {
		t.Fatalf("%+v %s", out, stderr)
	}
	role, stderr := cli(user("alice"), "assume-role", "--role-arn", TaggedARN, "--role-session-name", "cli@example.com",
		"--tags", "Key=Cost Centre,Value=a/b+c=ü", "Key=Empty,Value=", "--transitive-tag-keys", "Cost Centre", "--source-identity", "alice")
	if role.AssumedRoleUser.Arn != "arn:aws:sts::111122223333:assumed-role/Tagged/cli@example.com" || role.SourceIdentity != "alice" {
		t.Fatalf("%+v %s", role, stderr)
	}
	admin := []string{"assume-role", "--role-arn", AdminARN, "--role-session-name", "cli"}
	const denied = "(AccessDenied) when calling the AssumeRole operation: User: " + AliceARN + " is not authorized to perform: sts:AssumeRole on resource: " + AdminARN
	if _, stderr := cli(user("alice"), admin...); !strings.Contains(stderr, denied) {
		t.Errorf("without MFA: %s", stderr)
	}
	if out, stderr := cli(user("alice"), append(admin, "--serial-number", AliceDevice, "--token-code", srv.Code("alice"))...); out.AssumedRoleUser.Arn == "" {
		t.Errorf("with MFA: %s", stderr)
	}
	wrong := user("alice")
	wrong.SecretAccessKey = strings.ToUpper(wrong.SecretAccessKey)
	if _, stderr := cli(wrong, "get-caller-identity"); !strings.Contains(stderr, "(SignatureDoesNotMatch) when calling the GetCallerIdentity operation: "+msgSignature) {
		t.Errorf("wrong secret: %s", stderr)
	}
}

// TestBoto3 does what the CLI cannot: chains, and every parameter at once.
// Each step of the script prints a line.
func TestBoto3(t *testing.T) {
	t.Parallel()
	python := component(t, "python3", "-c", "import boto3")
	srv := NewServer(t, Example())
	k := srv.Key("alice")
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), python, "-c", boto3Script)
	cmd.Env = clientEnv(t, srv.URL, credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret}, "CODE="+srv.Code("alice"))
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	want := `identity arn:aws:iam::111122223333:user/alice
deploy arn:aws:sts::111122223333:assumed-role/Deploy/boto 3600
audit arn:aws:sts::444455556666:assumed-role/Audit/boto 900
tagged alice True
replay 403 AccessDenied MultiFactorAuthentication failed with invalid MFA one time pass code.
session 403 AccessDenied Cannot call GetSessionToken with session credentials
admin arn:aws:sts::111122223333:assumed-role/Admin/boto
wrong secret 403 SignatureDoesNotMatch ` + msgSignature + `
tampered 403 InvalidClientTokenId The security token included in the request is invalid.
no external id 403 AccessDenied User: arn:aws:iam::111122223333:user/alice is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::444455556666:role/ReadOnly
too long 400 ValidationError The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.
behind True
ahead True
throttled 400 Throttling Rate exceeded
failed 503 ServiceUnavailable try later
dropped ConnectionClosedError
garbage ResponseParserError
request id True
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

const boto3Script = `
import boto3, datetime, json, os, urllib.request
from botocore.exceptions import ClientError

url = os.environ["AWS_ENDPOINT_URL_STS"]

def client(c):
    return boto3.client("sts", aws_access_key_id=c["AccessKeyId"],
        aws_secret_access_key=c["SecretAccessKey"], aws_session_token=c["SessionToken"])

def left(c):
    now = datetime.datetime.now(datetime.timezone.utc)
    return round((c["Expiration"] - now).total_seconds() / 60) * 60

def refused(name, call, **kw):
    try:
        call(**kw)
        print(name, "allowed")
    except ClientError as e:
        r = e.response
        print(name, r["ResponseMetadata"]["HTTPStatusCode"], r["Error"]["Code"], r["Error"]["Message"].strip())
    except Exception as e:
        print(name, type(e).__name__)

def fault(**kw):
    r = urllib.request.Request(url + "/sandbox/fault", json.dumps(dict(kw, count=1)).encode(), method="POST")
    urllib.request.urlopen(r).close()

def role(name, account="111122223333"):
    return "arn:aws:iam::%s:role/%s" % (account, name)

alice = boto3.client("sts")
print("identity", alice.get_caller_identity()["Arn"])
deploy = alice.assume_role(RoleArn=role("Deploy"), RoleSessionName="boto")
print("deploy", deploy["AssumedRoleUser"]["Arn"], left(deploy["Credentials"]))
audit = client(deploy["Credentials"]).assume_role(RoleArn=role("Audit", "444455556666"), RoleSessionName="boto", DurationSeconds=900)
print("audit", audit["AssumedRoleUser"]["Arn"], left(audit["Credentials"]))
tagged = alice.assume_role(RoleArn=role("Tagged"), RoleSessionName="boto", DurationSeconds=3600, SourceIdentity="alice", ExternalId="a:b/c",
    Tags=[{"Key": "k %d" % i, "Value": "@ü+%d" % i} for i in range(12)], TransitiveTagKeys=["k 1", "k 11"],
    PolicyArns=[{"arn": "arn:aws:iam::aws:policy/ReadOnlyAccess"}],
    Policy=json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}))
print("tagged", tagged["SourceIdentity"], 0 < tagged["PackedPolicySize"] <= 100)
mfa = dict(SerialNumber="arn:aws:iam::111122223333:mfa/alice", TokenCode=os.environ["CODE"])
token = alice.get_session_token(DurationSeconds=900, **mfa)["Credentials"]
refused("replay", alice.get_session_token, **mfa)
refused("session", client(token).get_session_token)
print("admin", client(token).assume_role(RoleArn=role("Admin"), RoleSessionName="boto")["AssumedRoleUser"]["Arn"])
refused("wrong secret", client(dict(token, SecretAccessKey=audit["Credentials"]["SecretAccessKey"])).get_caller_identity)
refused("tampered", client(dict(token, SessionToken="AAAA" + token["SessionToken"][4:])).get_caller_identity)
refused("no external id", alice.assume_role, RoleArn=role("ReadOnly", "444455556666"), RoleSessionName="boto")
refused("too long", client(token).assume_role, RoleArn=role("Operator"), RoleSessionName="boto", DurationSeconds=7200)
for name, skew, text in ("behind", "6m", "Signature expired: "), ("ahead", "-6m", "Signature not yet current: "):
    fault(skew=skew)
    try:
        alice.get_caller_identity()
    except ClientError as e:
        print(name, e.response["Error"]["Code"] == "SignatureDoesNotMatch" and text in e.response["Error"]["Message"])
fault(kind="throttle")
refused("throttled", alice.get_caller_identity)
fault(kind="fail", status=503, message="try later")
refused("failed", alice.get_caller_identity)
fault(kind="drop")
refused("dropped", alice.get_caller_identity)
fault(kind="garbage")
refused("garbage", alice.get_caller_identity)
m = alice.get_caller_identity()["ResponseMetadata"]
print("request id", m["RequestId"] == m["HTTPHeaders"]["x-amzn-requestid"])
`
