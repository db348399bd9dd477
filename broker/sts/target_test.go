package sts_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/sts"
)

func identify(w http.ResponseWriter, _ *http.Request) {
	answer(w, 200, resultXML("GetCallerIdentity",
		"<Arn>arn:aws:iam::111122223333:user/alice</Arn><UserId>AIDAGATEPASS</UserId><Account>111122223333</Account>"))
}

// Where calls go, and for which region they are signed.
func TestRegionsAndEndpoints(t *testing.T) {
	ca := newCA(t)
	var scope string
	f := newTLSFake(t, ca, func(w http.ResponseWriter, r *http.Request) {
		_, scope, _ = strings.Cut(r.Header.Get("Authorization"), "Credential="+keyID+"/")
		scope, _, _ = strings.Cut(scope, "/sts/aws4_request")
		_, scope, _ = strings.Cut(scope, "/")
		grant(w, r)
	}, "*.amazonaws.com", "*.us-east-1.amazonaws.com", "sts.us-east-1.amazonaws.com", "sts.eu-west-1.amazonaws.com",
		"sts.us-gov-west-1.amazonaws.com", "sts.cn-north-1.amazonaws.com.cn", "sts.eusc-de-east-1.amazonaws.eu",
		"sts.us-iso-east-1.c2s.ic.gov", "sts.us-isob-east-1.sc2s.sgov.gov", "sts.eu-isoe-west-1.cloud.adc-e.uk", "sts.us-isof-south-1.csp.hci.ic.gov",
		"profile.example", "config.example", "sts.config.example")
	const role = "arn:%s:iam::111122223333:role/Deploy"
	for _, tc := range []struct {
		partition     string
		cfg           sts.Config
		at            broker.Target
		host, signFor string
	}{
		{"aws", sts.Config{}, broker.Target{}, "sts.us-east-1.amazonaws.com", "us-east-1"},
		{"aws", sts.Config{}, broker.Target{Region: "eu-west-1"}, "sts.eu-west-1.amazonaws.com", "eu-west-1"},
		{"aws-cn", sts.Config{}, broker.Target{}, "sts.cn-north-1.amazonaws.com.cn", "cn-north-1"},
		{"aws-us-gov", sts.Config{}, broker.Target{}, "sts.us-gov-west-1.amazonaws.com", "us-gov-west-1"},
		{"aws-eusc", sts.Config{}, broker.Target{}, "sts.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"},
		{"aws-iso", sts.Config{}, broker.Target{}, "sts.us-iso-east-1.c2s.ic.gov", "us-iso-east-1"},
		{"aws-iso-b", sts.Config{}, broker.Target{}, "sts.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1"},
		{"aws-iso-e", sts.Config{}, broker.Target{}, "sts.eu-isoe-west-1.cloud.adc-e.uk", "eu-isoe-west-1"},
		{"aws-iso-f", sts.Config{}, broker.Target{}, "sts.us-isof-south-1.csp.hci.ic.gov", "us-isof-south-1"},
		{"aws", sts.Config{EndpointURL: "https://config.example"}, broker.Target{Region: "eu-west-1"}, "config.example", "eu-west-1"},
		{"aws", sts.Config{EndpointURL: "https://config.example", EndpointURLSTS: "https://sts.config.example/path"}, broker.Target{}, "sts.config.example", "us-east-1"},
		{"aws", sts.Config{EndpointURLSTS: "https://sts.config.example"}, broker.Target{Endpoint: "https://profile.example"}, "profile.example", "us-east-1"},
		{"aws-cn", sts.Config{EndpointURL: "https://config.example"}, broker.Target{Region: "eu-west-1"}, "config.example", "eu-west-1"},
		{"aws-new", sts.Config{}, broker.Target{Region: "eu-west-1"}, "", ""}, // another partition's region
		{"aws-new", sts.Config{}, broker.Target{}, "", ""},
		{"aws-cn", sts.Config{}, broker.Target{Region: "eu-west-1"}, "", ""},
		{"aws", sts.Config{}, broker.Target{Region: "us-gov-west-1"}, "", ""},
	} {
		t.Run(fmt.Sprint(tc.partition, tc.at, tc.cfg.EndpointURL), func(t *testing.T) {
			tc.cfg.CABundle = ca.bundle
			c := newClient(t, tc.cfg)
			var meant []string
			c.SetDial(dialTo(f.Listener.Addr().String(), &meant))
			in := assume()
			in.RoleARN = fmt.Sprintf(role, tc.partition)
			_, err := c.AssumeRole(t.Context(), key(), in, tc.at)
			if tc.host == "" {
				wantError(t, err, broker.CodeConfig, "partition", "region")
				if len(meant) != 0 {
					t.Errorf("asked %v", meant)
				}
				return
			}
			if tc.partition == "aws" && err != nil { // elsewhere the fake's answer is of another partition
				t.Fatal(err)
			}
			if len(meant) != 1 || meant[0] != tc.host+":443" || scope != tc.signFor {
				t.Errorf("asked %v, signed for %s", meant, scope)
			}
		})
	}
}

func TestIsRegion(t *testing.T) {
	for _, r := range []string{"eu-west-1", "us-gov-west-1", "us-isob-east-1", "eusc-de-east-1", "ap-southeast-12"} {
		if !sts.IsRegion(r) {
			t.Errorf("%s is refused", r)
		}
	}
	for _, r := range []string{"", "eu", "eu-west", "eu-west-", "-west-1", "eu--1", "EU-WEST-1", "eu-west-1.evil.example", "eu-west-1/", "eu-west-1@x",
		"eu-west-123", "aws-global", "eu-west-1\n", "é-west-1", strings.Repeat("a", 40) + "-b-1", strings.Repeat("a-", 20) + "1"} {
		if sts.IsRegion(r) {
			t.Errorf("%q is accepted", r)
		}
	}
}

var endpointRefusals = map[string]string{
	"http://sts.example.com":               "plain http to sts.example.com",
	"http://10.0.0.1:4566":                 "plain http to 10.0.0.1",
	"http://localhost.example.com":         "plain http",
	"http://127.0.0.1.example.com":         "plain http",
	"http://0.0.0.0:4566":                  "plain http",
	"https://user:hunter2@sts.example.com": "user or password",
	"http://user@127.0.0.1":                "user or password",
	"https://sts.example.com/?x=hunter2":   "query or fragment",
	"https://sts.example.com?":             "query or fragment",
	"https://sts.example.com/#f":           "query or fragment",
	"ftp://sts.example.com":                "neither https nor http",
	"sts.example.com":                      "not a URL",
	"https://":                             "not a URL",
	"https:sts.example.com":                "not a URL",
	"https://sts.exämple.com":              "not a URL",
	"https://sts example.com":              "not a URL",
	"://hunter2":                           "not a URL",
	"https://[::1":                         "not a URL",
}

func TestEndpointsThatAreRefused(t *testing.T) {
	c := newClient(t, sts.Config{})
	c.SetDial(func(context.Context, string, string) (net.Conn, error) {
		t.Error("a connection was made")
		return nil, net.ErrClosed
	})
	for endpoint, part := range endpointRefusals {
		_, err := sts.New(sts.Config{EndpointURL: endpoint})
		e := wantError(t, err, broker.CodeConfig, "[aws] endpoint_url: ", part)
		_, err = sts.New(sts.Config{EndpointURLSTS: endpoint})
		wantError(t, err, broker.CodeConfig, "[aws] endpoint_url_sts: ", part)
		_, err = c.CallerIdentity(t.Context(), key(), broker.Target{Endpoint: endpoint})
		wantError(t, err, broker.CodeConfig, "get caller identity: endpoint_url: ", part)
		if strings.Contains(e.Message, "hunter2") {
			t.Errorf("a password is in %s", e.Message)
		}
	}
	for _, endpoint := range []string{"http://127.0.0.1:4566", "http://localhost:4566/", "http://LOCALHOST", "http://[::1]:4566", "https://sts.example.com/path"} {
		if _, err := sts.New(sts.Config{EndpointURL: endpoint}); err != nil {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

func FuzzCheckEndpoint(f *testing.F) {
	for e := range endpointRefusals {
		f.Add(e)
	}
	f.Add("http://127.0.0.1:4566/x")
	f.Fuzz(func(t *testing.T, s string) {
		if sts.CheckEndpoint(s) != nil {
			return
		}
		u, err := url.Parse(s)
		if err != nil || u.User != nil || u.RawQuery != "" || u.Hostname() == "" {
			t.Fatalf("%q was accepted", s)
		}
		if u.Scheme != "https" {
			ip := net.ParseIP(u.Hostname())
			if !strings.EqualFold(u.Hostname(), "localhost") && !ip.IsLoopback() {
				t.Fatalf("plain http to %q was accepted", s)
			}
		}
	})
}

func TestTLS(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	call := func(t *testing.T, f *fake, endpoint, bundle string) error {
		c := newClient(t, sts.Config{EndpointURL: endpoint, CABundle: bundle})
		c.SetDial(dialTo(f.Listener.Addr().String(), nil))
		_, err := c.CallerIdentity(t.Context(), key(), broker.Target{})
		return err
	}
	f := newTLSFake(t, ca, identify, "sts.test")
	if err := call(t, f, "https://sts.test", ca.bundle); err != nil {
		t.Errorf("with the right authority: %v", err)
	}
	wantError(t, call(t, f, "https://sts.test", other.bundle), broker.CodeAWSUnreachable, "certificate of sts.test is signed by an unknown authority", "ca_bundle")
	wantError(t, call(t, f, "https://sts.test", ""), broker.CodeAWSUnreachable, "unknown authority", "ca_bundle")
	wantError(t, call(t, f, "https://other.test", ca.bundle), broker.CodeAWSUnreachable, "certificate of other.test is for another host")
	if n := f.asked.Load(); n != 1 {
		t.Errorf("%d requests reached a server without a right certificate", n-1)
	}

	f = newTLSFakeWith(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, time.Now().Add(-time.Minute), "sts.test")}}, identify)
	wantError(t, call(t, f, "https://sts.test", ca.bundle), broker.CodeAWSUnreachable, "has expired or is not valid yet", "clock")

	f = newFake(t, identify)
	wantError(t, call(t, f, "https://sts.test", ca.bundle), broker.CodeAWSUnreachable, "sts.test does not speak TLS")
}

func TestOldTLSIsRefused(t *testing.T) {
	ca := newCA(t)
	f := newTLSFakeWith(t, &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, time.Now().Add(time.Hour), "sts.test")},
		MinVersion:   tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
	}, identify)
	c := newClient(t, sts.Config{EndpointURL: "https://sts.test", CABundle: ca.bundle})
	c.SetDial(dialTo(f.Listener.Addr().String(), nil))
	_, err := c.CallerIdentity(t.Context(), key(), broker.Target{})
	wantError(t, err, broker.CodeAWSUnreachable, "sts.test")
	if f.asked.Load() != 0 {
		t.Error("a request was sent over TLS 1.1")
	}
}

func TestCABundle(t *testing.T) {
	dir := t.TempDir()
	empty, garbage := filepath.Join(dir, "empty.pem"), filepath.Join(dir, "garbage.pem")
	big := filepath.Join(dir, "big.pem")
	os.WriteFile(empty, nil, 0o600)
	os.WriteFile(garbage, []byte("-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n"), 0o600)
	os.WriteFile(big, nil, 0o600)
	os.Truncate(big, 9<<20)
	for path, part := range map[string]string{
		filepath.Join(dir, "none.pem"): "",
		dir:                            "not a regular file",
		empty:                          "no certificate in it",
		garbage:                        "no certificate in it",
		big:                            "larger than 8 MiB",
	} {
		_, err := sts.New(sts.Config{CABundle: path})
		e := wantError(t, err, broker.CodeConfig, "[aws] ca_bundle: "+fmt.Sprintf("%q", path), part)
		if strings.Contains(e.Message, "hunter2") {
			t.Errorf("the file is quoted: %s", e.Message)
		}
	}
}

// No variable of the environment changes where a call goes, through what, and
// what it says of us.
func TestEnvironmentChangesNothing(t *testing.T) {
	decoy := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the environment redirected %s %s", r.Method, r.URL)
		w.WriteHeader(500)
	})
	ca, other := newCA(t), newCA(t)
	var header http.Header
	f := newTLSFake(t, ca, func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		identify(w, r)
	}, "sts.eu-west-1.amazonaws.com")

	config := filepath.Join(t.TempDir(), "config")
	os.WriteFile(config, []byte("[default]\nregion = ap-south-1\nendpoint_url = "+decoy.URL+"\nca_bundle = "+other.bundle+
		"\nmax_attempts = 9\nuse_fips_endpoint = true\nuse_dualstack_endpoint = true\nsdk_ua_app_id = evil\n[profile p]\nregion = ap-south-1\n"), 0o600)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": decoy.URL, "AWS_ENDPOINT_URL_STS": decoy.URL, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
		"AWS_CA_BUNDLE": other.bundle,
		"HTTPS_PROXY":   decoy.URL, "https_proxy": decoy.URL, "HTTP_PROXY": decoy.URL, "http_proxy": decoy.URL, "ALL_PROXY": decoy.URL, "NO_PROXY": "",
		"AWS_REGION": "ap-south-1", "AWS_DEFAULT_REGION": "ap-south-1", "AWS_PROFILE": "p", "AWS_CONFIG_FILE": config, "AWS_SHARED_CREDENTIALS_FILE": config,
		"AWS_STS_REGIONAL_ENDPOINTS": "legacy", "AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true",
		"AWS_ACCESS_KEY_ID": "AKIAEVILEVILEVILEVIL", "AWS_SECRET_ACCESS_KEY": secretKey, "AWS_SESSION_TOKEN": sessionTok,
		"AWS_MAX_ATTEMPTS": "9", "AWS_RETRY_MODE": "adaptive", "AWS_NEW_RETRIES_2026": "true", "AWS_DISABLE_CLOCK_SKEW_CORRECTION": "true",
		"AWS_EXECUTION_ENV": "evil", "AWS_SDK_UA_APP_ID": "evil", "AWS_LAMBDA_FUNCTION_NAME": "evil", "_X_AMZN_TRACE_ID": "evil",
	} {
		t.Setenv(name, value)
	}
	c := newClient(t, sts.Config{CABundle: ca.bundle})
	var meant []string
	c.SetDial(dialTo(f.Listener.Addr().String(), &meant))
	if _, err := c.CallerIdentity(t.Context(), key(), broker.Target{Region: "eu-west-1"}); err != nil {
		t.Fatal(err)
	}
	if len(meant) != 1 || meant[0] != "sts.eu-west-1.amazonaws.com:443" {
		t.Errorf("asked %v", meant)
	}
	if s := fmt.Sprint(header); strings.Contains(s, "evil") || strings.Contains(s, "EVIL") || header.Get("X-Amz-Security-Token") != "" {
		t.Errorf("header %v", header)
	}
	if a := header.Get("Authorization"); !strings.Contains(a, keyID) {
		t.Errorf("signed with another key: %s", a)
	}

	// Retries stay ours.
	t.Run("retries", func(t *testing.T) {
		failing := newFake(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
		c := newClient(t, sts.Config{EndpointURL: failing.URL})
		c.CallerIdentity(t.Context(), key(), broker.Target{})
		if n := failing.asked.Load(); n != 3 {
			t.Errorf("%d attempts", n)
		}
	})
}

func TestProduct(t *testing.T) {
	for in, want := range map[string]string{"": "devel", "v1.2.3+dirty": "v1.2.3+dirty", "x\r\ny é(": "x--y---"} {
		if got := sts.Product(in); got != want {
			t.Errorf("product(%q) = %q, want %q", in, got, want)
		}
	}
}
