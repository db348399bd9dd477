package main

import (
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// exampleLease is one that the container endpoint serves.
func exampleLease() wire.StartLeaseResponse {
	return wire.StartLeaseResponse{
		Lease: "l-7f3k2m9qxd", Profile: "ops", Serve: "container", Endpoint: "http://127.0.0.1:4711/", TokenFile: "/run/l/token",
		ConfigFile: "/run/l/config", CredentialsFile: "/run/l/credentials", Region: "eu-west-1", Expires: at.Add(time.Hour), Renewable: true,
	}
}

func TestLeaseEnvironment(t *testing.T) {
	lease := []string{
		"GATEPASS_LEASE=l-7f3k2m9qxd", "GATEPASS_PROFILE=ops",
		"AWS_CONFIG_FILE=/run/l/config", "AWS_SHARED_CREDENTIALS_FILE=/run/l/credentials",
	}
	app := []string{"AWS_SDK_UA_APP_ID=gatepass-l-7f3k2m9qxd"}
	endpoint := []string{
		"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:4711/", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/run/l/token",
		"AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1", "AWS_EC2_METADATA_DISABLED=true",
	}
	proxy := func(upper, lower string) []string { return []string{"NO_PROXY=" + upper, "no_proxy=" + lower} }
	const loopback = "127.0.0.1,localhost,::1"
	all := slices.Concat[[]string]
	for _, c := range []struct {
		name   string
		before []string
		change func(*wire.StartLeaseResponse)
		want   []string
	}{
		{"nothing", nil, nil, all(lease, app, endpoint, proxy(loopback, loopback))},
		{"the rest stays, in its order", []string{"Z=1", "PATH=/bin", "A=", "Z=2", "=odd", "AWS_PAGER=", "AWS_CA_BUNDLE=/ca", "AWS_ENDPOINT_URL=http://a", "GATEPASS_SOCKET=/s", "GATEPASS_REASON=why"}, nil,
			all([]string{"Z=1", "PATH=/bin", "A=", "Z=2", "=odd", "AWS_PAGER=", "AWS_CA_BUNDLE=/ca", "AWS_ENDPOINT_URL=http://a", "GATEPASS_SOCKET=/s", "GATEPASS_REASON=why"}, lease, app, endpoint, proxy(loopback, loopback))},
		{"a region that nobody knows", []string{"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-2"}, func(l *wire.StartLeaseResponse) { l.Region = "" },
			all(lease, app, endpoint[:2], endpoint[4:], proxy(loopback, loopback))},
		{"the user's id stays", []string{"AWS_SDK_UA_APP_ID=shop"}, nil, all([]string{"AWS_SDK_UA_APP_ID=shop"}, lease, endpoint, proxy(loopback, loopback))},
		{"another lease's does not", []string{"AWS_SDK_UA_APP_ID=gatepass-l-2", "GATEPASS_LEASE=l-2", "GATEPASS_PROFILE=p", "GATEPASS_EXPIRES=x"}, nil, all(lease, app, endpoint, proxy(loopback, loopback))},
		{"an empty one", []string{"AWS_SDK_UA_APP_ID="}, nil, all(lease, app, endpoint, proxy(loopback, loopback))},
		{"one proxy variable", []string{"no_proxy=corp.example, 127.0.0.1"}, nil, all(lease, app, endpoint, proxy("corp.example,127.0.0.1,localhost,::1", "corp.example,127.0.0.1,localhost,::1"))},
		{"both", []string{"NO_PROXY=a", "A=1", "no_proxy=b,"}, nil, all([]string{"A=1"}, lease, app, endpoint, proxy("a,"+loopback, "b,"+loopback))},
		{"no proxy for anything", []string{"NO_PROXY=*"}, nil, all(lease, app, endpoint, proxy("*", "*"))},
		{"what cannot be renewed", nil, func(l *wire.StartLeaseResponse) { l.Renewable = false },
			all(lease, []string{"GATEPASS_EXPIRES=2026-11-03T11:00:00Z"}, app, endpoint, proxy(loopback, loopback))},
		{"imds", []string{"AWS_EC2_METADATA_DISABLED=true", "AWS_EC2_METADATA_V1_DISABLED=false"}, func(l *wire.StartLeaseResponse) { l.Serve, l.TokenFile = "imds", "" },
			all(lease, app, []string{
				"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:4711/", "AWS_EC2_METADATA_V1_DISABLED=true",
				"AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1",
			}, proxy(loopback, loopback))},
		{"env", []string{"NO_PROXY=a"}, func(l *wire.StartLeaseResponse) {
			l.Serve, l.Endpoint, l.TokenFile, l.Renewable, l.Credentials = "env", "", "", false, []byte(document)
		}, all([]string{"NO_PROXY=a"}, lease, []string{"GATEPASS_EXPIRES=2026-11-03T11:00:00Z"}, app, []string{
			"AWS_ACCESS_KEY_ID=ASIAEXAMPLE", "AWS_SECRET_ACCESS_KEY=wJalr/XUtn+FEMI", "AWS_SESSION_TOKEN=FwoG/tok+en==", "AWS_CREDENTIAL_EXPIRATION=2026-11-03T10:00:00Z",
			"AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1", "AWS_EC2_METADATA_DISABLED=true",
		})},
	} {
		l := exampleLease()
		if c.change != nil {
			c.change(&l)
		}
		before := slices.Clone(c.before)
		got, err := leaseEnvironment(c.before, l)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v\ngot\n  %s\nwant\n  %s", c.name, err, strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
		}
		if !slices.Equal(before, c.before) {
			t.Errorf("%s: the caller's environment was changed", c.name)
		}
	}
	for _, bad := range []func(*wire.StartLeaseResponse){
		func(l *wire.StartLeaseResponse) { l.Serve = "carrier-pigeon" },
		func(l *wire.StartLeaseResponse) { l.Serve, l.Credentials = "env", []byte(`{"AccessKeyId":"A"}`) },
		func(l *wire.StartLeaseResponse) {
			l.Serve, l.Credentials = "env", []byte(`{"AccessKeyId":"A\n","SecretAccessKey":"s"}`)
		},
	} {
		l := exampleLease()
		bad(&l)
		if env, err := leaseEnvironment(nil, l); err == nil || strings.Contains(err.Error(), "AccessKeyId") {
			t.Errorf("%+v: %q, %v", l, env, err)
		}
	}
}

// No credential of the caller's, nor what leads to one, goes inside.
func TestLeaseEnvironmentKeepsCredentialsOut(t *testing.T) {
	var before []string
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_ACCESS_KEY", "AWS_SECRET_KEY",
		"AMAZON_ACCESS_KEY_ID", "AMAZON_SECRET_ACCESS_KEY", "AMAZON_SESSION_TOKEN", "EC2_ACCESS_KEY", "EC2_SECRET_KEY", "EC2_SECURITY_TOKEN",
		"AWS_CREDENTIAL_EXPIRATION", "AWS_SESSION_EXPIRATION", "AWS_ACCOUNT_ID", "AWS_CREDENTIAL_SCOPE", "AWS_PROFILE", "AWS_DEFAULT_PROFILE",
		"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CREDENTIAL_FILE", "AWS_CREDENTIAL_PROFILES_FILE", "BOTO_CONFIG", "BOTO_PATH",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
		"AWS_EC2_METADATA_DISABLED", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "AWS_EC2_METADATA_V1_DISABLED",
		"AWS_METADATA_SERVICE_TIMEOUT", "AWS_METADATA_SERVICE_NUM_ATTEMPTS", "AWS_IMDS_USE_IPV6",
		"AWS_BEARER_TOKEN_BEDROCK", "AWS_LOGIN_CACHE_DIRECTORY", "AWS_SSO_SESSION", "AWS_SSO_ACCOUNT_ID",
		"AWS_VAULT", "AWS_VAULT_FILE_PASSPHRASE", "AWSUME_PROFILE", "GRANTED_SSO", "SAML2AWS_PASSWORD",
		"AWS_REGION", "AWS_DEFAULT_REGION",
		"DIRENV_DIFF", "DIRENV_DIR", "DIRENV_FILE", "DIRENV_WATCHES", "__MISE_DIFF", "__MISE_SESSION",
		"GATEPASS_FILE_PASSPHRASE", "GATEPASS_LEASE", "GATEPASS_PROFILE", "GATEPASS_EXPIRES",
	} {
		before = append(before, name+"=outside")
		if runtime.GOOS == "windows" {
			before = append(before, strings.ToLower(name)+"=outside")
		}
	}
	for _, serve := range []string{"container", "imds", "env"} {
		l := exampleLease()
		l.Serve, l.Credentials = serve, []byte(document)
		got, err := leaseEnvironment(before, l)
		if err != nil || strings.Contains(strings.Join(got, " "), "outside") {
			t.Errorf("%s: %v, %q", serve, err, got)
		}
		names := map[string]bool{}
		for _, v := range got {
			name, _, _ := strings.Cut(v, "=")
			if names[name] {
				t.Errorf("%s: %s is there twice", serve, name)
			}
			names[name] = true
		}
	}
}

// serveLease starts the lease for whoever asks, and returns the requests.
func (h *home) serveLease(l wire.StartLeaseResponse) func() []wire.StartLeaseRequest {
	var got []wire.StartLeaseRequest
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathLeases: func(body []byte) (int, map[string]string, string) {
			var r wire.StartLeaseRequest
			if err := json.Unmarshal(body, &r); err != nil {
				h.t.Errorf("request %q: %v", body, err)
			}
			got = append(got, r)
			return 200, nil, jsonOf(h.t, l)
		},
	})
	return func() []wire.StartLeaseRequest {
		h.mu.Lock()
		defer h.mu.Unlock()
		return got
	}
}

// What makes no sense, and what is refused, runs nothing.
func TestExecRefuses(t *testing.T) {
	h := newHome(t)
	h.env["PATH"] = "/usr/bin:/bin"
	h.programs = []string{"/opt/gatepass"}
	answer := broker.Error{Code: broker.CodeDenied, Message: "profile ops is not for you", Hint: "ask"}
	asked := 0
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathLeases: func([]byte) (int, map[string]string, string) {
			asked++
			return 403, nil, jsonOf(t, answer)
		},
	})
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"exec", 64, "the name of a profile is missing"},
		{"exec -- true", 64, "the name of a profile is missing"},
		{"exec ops true", 64, "a command stands after --, as in: gatepass exec ops -- true"},
		{"exec ops dns -- true", 64, "one profile is expected before --"},
		{"exec ops --", 64, "no command after --"},
		{"exec ops --env --imds -- true", 64, "exclude each other"},
		{"exec ops --min-left 1h -- true", 64, "no flag --min-left"},
		{"exec ops --duration soon -- true", 64, "not a length of time"},
		{"exec ops --prompt shout -- true", 64, "no way to ask"},
		{"exec ops --with= -- true", 64, "is empty"},
	} {
		if r := h.run(strings.Fields(c.args)...); r.code != c.code || !strings.Contains(r.stderr, c.says) || r.stdout != "" || asked != 0 {
			t.Errorf("%s: %+v, asked %d times", c.args, r, asked)
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	if r := h.run("exec", "ops", "--", "sh", "-c", "echo it runs"); r.code != 77 || r.stderr != "gatepass: profile ops is not for you\ngatepass: ask\n" || r.stdout != "" || asked != 1 {
		t.Errorf("%+v", r)
	}
}

// Inside a lease a command that takes a profile does without its name.
func TestProfileMayBeLeftOutInside(t *testing.T) {
	h := newHome(t)
	got := h.serveDocument("")
	for _, args := range [][]string{{"credential-process"}, {"export"}} {
		if r := h.run(args...); r.code != 64 {
			t.Errorf("%q outside: %+v", args, r)
		}
	}
	h.env["GATEPASS_LEASE"] = "l-1"
	for i, args := range [][]string{{"credential-process"}, {"credential-process", "--reason", "r"}, {"export"}} {
		r := h.run(args...)
		if r.code != 0 || r.stderr != "" || len(got()) != i+1 || got()[i].Profile != "" {
			t.Errorf("%q inside: %+v, asked %+v", args, r, got())
		}
	}
	h.env["AWS_PROFILE"] = "dns"
	if h.run("export"); got()[3].Profile != "dns" {
		t.Errorf("asked %+v", got()[3])
	}
	if h.run("credential-process"); got()[4].Profile != "" {
		t.Errorf("asked %+v", got()[4])
	}
}
