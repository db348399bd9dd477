package sts_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/sts"
	"gatepass/broker/sts/ststest"
	"gatepass/profiles"
)

// Against the sandbox, which verifies every signature by its own code.
func TestAgainstSandbox(t *testing.T) {
	srv := ststest.NewServer(t, ststest.Example())
	c := newClient(t, sts.Config{EndpointURL: srv.URL})
	creds := func(user string) broker.Credentials {
		k := srv.Key(user)
		return broker.Credentials{AccessKeyID: k.ID, SecretAccessKey: broker.NewSecret(k.Secret), AccountID: "111122223333"}
	}
	ctx, at := t.Context(), broker.Target{Region: "eu-west-1"}
	in := func(arn string) broker.AssumeRoleInput {
		return broker.AssumeRoleInput{RoleARN: arn, SessionName: "alice-s1"}
	}

	id, err := c.CallerIdentity(ctx, creds("alice"), at)
	if err != nil || id.ARN != ststest.AliceARN {
		t.Fatalf("caller identity %+v, %v", id, err)
	}
	deploy, err := c.AssumeRole(ctx, creds("alice"), in(ststest.DeployARN), at)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(deploy.Credentials.Expires); left > time.Hour || left < 59*time.Minute {
		t.Errorf("%v left", left)
	}
	if id, err := c.CallerIdentity(ctx, deploy.Credentials, at); err != nil || id.ARN != deploy.ARN {
		t.Errorf("the session is of %+v, %v", id, err)
	}
	audit, err := c.AssumeRole(ctx, deploy.Credentials, in(ststest.AuditARN), at)
	if err != nil || audit.Credentials.AccountID != "444455556666" {
		t.Errorf("chain: %+v, %v", audit, err)
	}
	tagged := in(ststest.TaggedARN)
	tagged.Tags, tagged.TransitiveTags, tagged.SourceIdentity = []profiles.Tag{{Key: "team", Value: "it + ops"}}, []string{"team"}, "alice"
	if _, err := c.AssumeRole(ctx, creds("alice"), tagged, at); err != nil {
		t.Errorf("tags: %v", err)
	}
	calls := srv.Calls()
	if last := calls[len(calls)-1]; last.Tags["team"] != "it + ops" || last.SourceIdentity != "alice" {
		t.Errorf("the sandbox saw %+v", last)
	}

	base, err := c.SessionToken(ctx, creds("alice"), broker.SessionTokenInput{
		Duration: 8 * time.Hour, SerialNumber: ststest.AliceDevice, TokenCode: broker.NewSecret(srv.Code("alice")),
	}, at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AssumeRole(ctx, base.Credentials, in(ststest.AdminARN), at); err != nil {
		t.Errorf("with MFA: %v", err)
	}

	wrong := creds("alice")
	wrong.SecretAccessKey = broker.NewSecret(secretKey)
	long, chained, usedCode, noDevice := in(ststest.DeployARN), in(ststest.AuditARN), in(ststest.AdminARN), in(ststest.AdminARN)
	long.Duration, chained.Duration = 2*time.Hour, 2*time.Hour
	usedCode.SerialNumber, usedCode.TokenCode = ststest.AliceDevice, broker.NewSecret(srv.Code("alice"))
	noDevice.SerialNumber, noDevice.TokenCode = "arn:aws:iam::111122223333:mfa/nobody", broker.NewSecret("000000")
	untaggable, notIdentifiable := in(ststest.DeployARN), in(ststest.DeployARN)
	untaggable.Tags, notIdentifiable.SourceIdentity = tagged.Tags, "alice"
	for name, tc := range map[string]struct {
		creds broker.Credentials
		in    broker.AssumeRoleInput
		code  broker.Code
		part  string
	}{
		"wrong secret":    {wrong, in(ststest.DeployARN), broker.CodeAWSDenied, "not the one of this access key id"},
		"inactive key":    {creds("bob"), in(ststest.DeployARN), broker.CodeAWSDenied, "deleted or is inactive"},
		"deleted key":     {creds("carol"), in(ststest.DeployARN), broker.CodeAWSDenied, "deleted or is inactive"},
		"not trusted":     {creds("mallory"), in(ststest.DeployARN), broker.CodeAWSDenied, "trust policy does not name"},
		"no such role":    {creds("alice"), in("arn:aws:iam::111122223333:role/None"), broker.CodeAWSDenied, "does not exist"},
		"no external id":  {creds("alice"), in(ststest.ReadOnlyARN), broker.CodeAWSDenied, "requires an external_id"},
		"no MFA":          {creds("alice"), in(ststest.AdminARN), broker.CodeAWSDenied, "requires MFA"},
		"used code":       {creds("alice"), usedCode, broker.CodeMFAFailed, "works once"},
		"wrong device":    {creds("alice"), noDevice, broker.CodeMFAFailed, "mfa"},
		"too long":        {creds("alice"), long, broker.CodeAWSDenied, "lower duration_seconds"},
		"chained":         {deploy.Credentials, chained, broker.CodeAWSDenied, "3600 or less"},
		"tags":            {creds("alice"), untaggable, broker.CodeAWSDenied, "sts:TagSession"},
		"source identity": {creds("alice"), notIdentifiable, broker.CodeAWSDenied, "sts:SetSourceIdentity"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.AssumeRole(ctx, tc.creds, tc.in, at)
			wantError(t, err, tc.code, tc.part)
		})
	}
	t.Run("session token of a session", func(t *testing.T) {
		_, err := c.SessionToken(ctx, base.Credentials, broker.SessionTokenInput{}, at)
		wantError(t, err, broker.CodeAWSDenied, "long-term key")
	})
	for kind, code := range map[ststest.FaultKind]broker.Code{
		ststest.Throttle: broker.CodeThrottled, ststest.Fail: broker.CodeAWSUnreachable, ststest.Drop: broker.CodeAWSUnreachable,
		ststest.Truncate: broker.CodeAWSUnreachable, ststest.Garbage: broker.CodeAWSUnreachable, ststest.HTML: broker.CodeAWSUnreachable,
		ststest.Empty: broker.CodeAWSUnreachable, ststest.Incomplete: broker.CodeAWSUnreachable,
	} {
		t.Run(string(kind), func(t *testing.T) {
			srv.Faults().Add(ststest.Fault{Kind: kind})
			defer srv.Faults().Clear()
			_, err := c.AssumeRole(ctx, creds("alice"), in(ststest.DeployARN), at)
			wantError(t, err, code)
		})
	}
	t.Run("throttled in passing", func(t *testing.T) {
		srv.Faults().Add(ststest.Fault{Kind: ststest.Throttle, Count: 2})
		defer srv.Faults().Clear()
		if _, err := c.AssumeRole(ctx, creds("alice"), in(ststest.DeployARN), at); err != nil {
			t.Error(err)
		}
	})
	t.Run("wrong clock", func(t *testing.T) {
		srv.Faults().Add(ststest.Fault{Skew: 20 * time.Minute})
		defer srv.Faults().Clear()
		s, err := c.AssumeRole(ctx, creds("alice"), in(ststest.DeployARN), at)
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(s.Credentials.Expires); left > 61*time.Minute || left < 59*time.Minute {
			t.Errorf("%v left", left)
		}
	})
}

// component returns a program's path, or ends the test with the reason.
func component(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, program+" is not installed")
	}
	return path
}

func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GATEPASS_REAL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// start runs a server for the length of the test and waits until it accepts
// connections.
func start(t *testing.T, port string, cmd *exec.Cmd) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-exited })
	ready := make(chan struct{})
	go func() {
		for t.Context().Err() == nil {
			if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
				conn.Close()
				close(ready)
				return
			}
			select {
			case <-exited:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	select {
	case <-ready:
	case <-exited:
		t.Fatalf("%s ended: %s", cmd.Path, &out)
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not listen", cmd.Path)
	}
	return &out
}

// A name of this machine that is not a loopback name, so that a proxy is used
// for it.
func ownName(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err == nil {
		var addrs []string
		if addrs, err = net.LookupHost(name); err == nil {
			for _, a := range addrs {
				if ip := net.ParseIP(a); ip != nil && ip.IsLoopback() && ip.To4() != nil && !strings.EqualFold(name, "localhost") {
					return strings.ToLower(name)
				}
			}
			err = fmt.Errorf("%s is %v, not 127.0.0.1", name, addrs)
		}
	}
	missing(t, "this machine has no name for its loopback address: "+err.Error())
	return ""
}

func TestTinyproxy(t *testing.T) {
	tinyproxy, name := component(t, "tinyproxy"), ownName(t)
	ca := newCA(t)
	aws := newTLSFake(t, ca, grant, name)
	_, awsPort, _ := net.SplitHostPort(aws.Listener.Addr().String())
	endpoint := "https://" + name + ":" + awsPort

	run := func(t *testing.T, extra string) (string, string) {
		port := freePort(t)
		dir := t.TempDir()
		log := filepath.Join(dir, "log")
		conf := filepath.Join(dir, "conf")
		os.WriteFile(conf, []byte("Port "+port+"\nListen 127.0.0.1\nTimeout 30\nLogFile \""+log+"\"\nLogLevel Connect\nMaxClients 20\n"+extra), 0o600)
		start(t, port, exec.Command(tinyproxy, "-d", "-c", conf))
		return "127.0.0.1:" + port, log
	}
	t.Run("open", func(t *testing.T) {
		addr, log := run(t, "")
		c := newClient(t, sts.Config{EndpointURL: endpoint, CABundle: ca.bundle, Proxy: "http://" + addr})
		if _, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{}); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if b, _ := os.ReadFile(log); !bytes.Contains(b, []byte("CONNECT "+name+":"+awsPort)) {
			t.Errorf("the proxy was not asked: %s", b)
		}
	})
	t.Run("with a password", func(t *testing.T) {
		addr, _ := run(t, "BasicAuth alice hunter2\n")
		c := newClient(t, sts.Config{EndpointURL: endpoint, CABundle: ca.bundle, Proxy: "http://alice:hunter2@" + addr})
		if _, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{}); err != nil {
			t.Fatal(err)
		}
		c = newClient(t, sts.Config{EndpointURL: endpoint, CABundle: ca.bundle, Proxy: "http://alice:wrong@" + addr})
		_, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
		wantError(t, err, broker.CodeAWSUnreachable, "the proxy refused to connect", "(proxy http://"+addr+")")
	})
	t.Run("forbidding the port", func(t *testing.T) {
		addr, _ := run(t, "ConnectPort 1\n")
		c := newClient(t, sts.Config{EndpointURL: endpoint, CABundle: ca.bundle, Proxy: "http://" + addr})
		_, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
		wantError(t, err, broker.CodeAWSUnreachable, "the proxy refused to connect to "+name, "403", "(proxy http://"+addr+")")
	})
	t.Run("not asked", func(t *testing.T) {
		addr, log := run(t, "")
		c := newClient(t, sts.Config{EndpointURL: endpoint, CABundle: ca.bundle, Proxy: "http://" + addr, NoProxy: name})
		if _, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{}); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(log); bytes.Contains(b, []byte("CONNECT "+name)) {
			t.Errorf("the proxy was asked: %s", b)
		}
	})
}

// Against moto, another's verification of signatures, trust and permissions.
func TestMoto(t *testing.T) {
	moto := component(t, "moto_server")
	port := freePort(t)
	cmd := exec.Command(moto, "-H", "127.0.0.1", "-p", port)
	cmd.Dir = t.TempDir()
	start(t, port, cmd)
	url := "http://127.0.0.1:" + port
	c := newClient(t, sts.Config{EndpointURL: url})
	ctx, at := t.Context(), broker.Target{Region: "us-east-1"}

	// A user with a key and a role that trusts it are made by AWS's own query
	// protocol, unsigned while authentication is off.
	iam := func(form string) string {
		req, _ := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(form+"&Version=2010-05-08"))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIAX/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=x")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != 200 {
			t.Fatalf("%s: %d %s", form, res.StatusCode, b)
		}
		return string(b)
	}
	between := func(s, a, b string) string {
		_, s, _ = strings.Cut(s, a)
		s, _, _ = strings.Cut(s, b)
		return s
	}
	iam("Action=CreateUser&UserName=alice")
	made := iam("Action=CreateAccessKey&UserName=alice")
	iam(`Action=PutUserPolicy&UserName=alice&PolicyName=p&PolicyDocument=` +
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sts:*","iam:*"],"Resource":"*"}]}`)
	iam(`Action=CreateRole&RoleName=Deploy&AssumeRolePolicyDocument=` +
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::123456789012:user/alice"}}]}`)
	iam(`Action=CreateRole&RoleName=Other&AssumeRolePolicyDocument=` +
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::123456789012:user/bob"}}]}`)
	for _, group := range []string{"developers", "on-call"} {
		iam("Action=CreateGroup&GroupName=" + group)
		iam("Action=AddUserToGroup&UserName=alice&GroupName=" + group)
	}
	iam("Action=CreateVirtualMFADevice&VirtualMFADeviceName=alice")
	iam("Action=EnableMFADevice&UserName=alice&SerialNumber=arn:aws:iam::123456789012:mfa/alice&AuthenticationCode1=123456&AuthenticationCode2=654321")
	req, _ := http.NewRequestWithContext(ctx, "POST", url+"/moto-api/reset-auth", strings.NewReader("0"))
	req.Header.Set("Content-Type", "text/plain")
	if res, err := http.DefaultClient.Do(req); err != nil || res.StatusCode != 200 {
		t.Fatalf("reset-auth: %v %v", res, err)
	}

	alice := broker.Credentials{AccessKeyID: between(made, "<AccessKeyId>", "<"), SecretAccessKey: broker.NewSecret(between(made, "<SecretAccessKey>", "<"))}
	role := broker.AssumeRoleInput{RoleARN: "arn:aws:iam::123456789012:role/Deploy", SessionName: "alice-s1"}
	if id, err := c.CallerIdentity(ctx, alice, at); err != nil || id.ARN != "arn:aws:iam::123456789012:user/alice" {
		t.Errorf("identity %+v, %v", id, err)
	}
	s, err := c.AssumeRole(ctx, alice, role, at)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := c.CallerIdentity(ctx, s.Credentials, at); err != nil || id.ARN != s.ARN {
		t.Errorf("the session is of %+v, %v", id, err)
	}
	wrong := alice
	wrong.SecretAccessKey = broker.NewSecret(secretKey)
	_, err = c.AssumeRole(ctx, wrong, role, at)
	wantError(t, err, broker.CodeAWSDenied, "SignatureDoesNotMatch", "not the one of this access key id")
	_, err = c.AssumeRole(ctx, key(), role, at)
	wantError(t, err, broker.CodeAWSDenied, "InvalidClientTokenId", "deleted or is inactive")
	role.RoleARN = "arn:aws:iam::123456789012:role/Other"
	_, err = c.AssumeRole(ctx, alice, role, at)
	wantError(t, err, broker.CodeAWSDenied, "AccessDenied", "trust policy does not name")

	// Who it is: its groups and its device.
	const user = "arn:aws:iam::123456789012:user/alice"
	if groups, err := c.Groups(ctx, alice, user, ""); err != nil || !slices.Equal(groups, []string{"developers", "on-call"}) {
		t.Errorf("groups %q, %v", groups, err)
	}
	if devices, err := c.MFADevices(ctx, alice, user, ""); err != nil || len(devices) != 1 || devices[0].Serial != "arn:aws:iam::123456789012:mfa/alice" || devices[0].Enabled.IsZero() {
		t.Errorf("devices %+v, %v", devices, err)
	}
	_, err = c.Groups(ctx, alice, "arn:aws:iam::123456789012:user/nobody", "")
	wantError(t, err, broker.CodeAWSDenied, "NoSuchEntity")

	// Its two keys, the limit, and the end of one.
	made2, err := c.CreateAccessKey(ctx, alice, user)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := c.CallerIdentity(ctx, made2, at); err != nil || id.ARN != user {
		t.Errorf("the new key is of %+v, %v", id, err)
	}
	_, err = c.CreateAccessKey(ctx, alice, user)
	wantError(t, err, broker.CodeAWSDenied, "LimitExceeded")
	if err := c.SetAccessKeyStatus(ctx, made2, user, alice.AccessKeyID, false); err != nil {
		t.Error(err)
	}
	if keys, err := c.AccessKeys(ctx, made2, user); err != nil || len(keys) != 2 || keys[0].Active == keys[1].Active {
		t.Errorf("keys %+v, %v", keys, err)
	}
	if err := c.DeleteAccessKey(ctx, made2, user, alice.AccessKeyID); err != nil {
		t.Error(err)
	}
	_, err = c.CallerIdentity(ctx, alice, at)
	wantError(t, err, broker.CodeAWSDenied, "InvalidClientTokenId")
}
