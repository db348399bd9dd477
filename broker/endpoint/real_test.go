package endpoint

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"gatepass/broker"
)

// These tests ask with AWS's own clients.

// component returns a program's path. With GATEPASS_REAL=1 it must be there.
func component(t *testing.T, name string, probe ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		err = exec.Command(path, probe...).Run()
	}
	if err != nil {
		missing(t, fmt.Sprintf("%s %s: %v", name, strings.Join(probe, " "), err))
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

// sdkEnv is an environment that leads an SDK to s and to nothing else.
func sdkEnv(t *testing.T, s *served, kind string, more ...string) []string {
	dir := t.TempDir()
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "AWS_CONFIG_FILE=" + filepath.Join(dir, "none"),
		"AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(dir, "none"), "AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1",
		"AWS_MAX_ATTEMPTS=1", "AWS_PAGER=", "NO_PROXY=127.0.0.1", "NODE_NO_WARNINGS=1", "NODE_PATH=" + os.Getenv("GATEPASS_JS_SDK"),
	}
	if kind == Container {
		env = append(env, "AWS_CONTAINER_CREDENTIALS_FULL_URI="+s.url(), "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE="+s.file)
	} else {
		env = append(env, "AWS_EC2_METADATA_SERVICE_ENDPOINT="+s.url(), "AWS_EC2_METADATA_V1_DISABLED=true")
	}
	return append(env, more...)
}

// An sdk is asked for credentials as often as one likes, by one process, and
// returns their access key id, or "error: " and what it says.
type sdk func() string

// program starts a program that answers each line with one.
func program(t *testing.T, env []string, name string, args ...string) sdk {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env, cmd.Stderr = env, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	lines := bufio.NewReader(stdout)
	return func() string {
		io.WriteString(stdin, "\n")
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return strings.TrimSpace(line)
	}
}

const boto3Script = `
import sys, boto3
credentials = None
for line in sys.stdin:
    try:
        credentials = credentials or boto3.Session().get_credentials()
        if credentials is None: raise Exception("no credentials")
        print(credentials.get_frozen_credentials().access_key, flush=True)
    except Exception as e:
        print("error:", str(e).replace("\n", " "), flush=True)
`

const jsScript = `
const { STSClient } = require("@aws-sdk/client-sts");
const { fromHttp, fromNodeProviderChain } = require("@aws-sdk/credential-providers");
const readline = require("node:readline");
const credentials = process.argv[1] == "http" ? fromHttp() : fromNodeProviderChain();
const client = new STSClient({ credentials });
(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      console.log((await client.config.credentials()).accessKeyId);
    } catch (e) {
      console.log("error: " + e.message + " " + (e.Code ?? "") + " " + (e.Message ?? ""));
    }
  }
})();
`

func boto3(t *testing.T, env []string) sdk {
	return program(t, env, component(t, "python3", "-c", "import boto3"), "-c", boto3Script)
}

func jsSDK(t *testing.T, env []string, provider string) sdk {
	node := component(t, "node", "--version")
	if _, err := os.Stat(filepath.Join(os.Getenv("GATEPASS_JS_SDK"), "@aws-sdk", "credential-providers")); err != nil || os.Getenv("GATEPASS_JS_SDK") == "" {
		missing(t, "GATEPASS_JS_SDK names no node_modules with @aws-sdk/credential-providers")
	}
	return program(t, env, node, "-e", jsScript, provider)
}

// goSDK asks as package config of the SDK for Go does for the same variables.
func goSDK(t *testing.T, s *served, kind string) sdk {
	var provider aws.CredentialsProvider
	if kind == Container {
		provider = endpointcreds.New(s.url(), func(o *endpointcreds.Options) {
			o.AuthorizationTokenProvider = endpointcreds.TokenProviderFunc(func() (string, error) {
				b, err := os.ReadFile(s.file)
				return string(b), err
			})
		})
	} else {
		provider = ec2rolecreds.New(func(o *ec2rolecreds.Options) {
			o.Client = imds.New(imds.Options{Endpoint: s.url(), EnableFallback: aws.FalseTernary})
		})
	}
	cache := aws.NewCredentialsCache(provider, func(o *aws.CredentialsCacheOptions) {
		if kind == Container {
			o.ExpiryWindow = 5 * time.Minute
		}
	})
	return func() string {
		credentials, err := cache.Retrieve(t.Context())
		if err != nil {
			return "error: " + err.Error()
		}
		if credentials.SecretAccessKey != secretKey || credentials.SessionToken != sessionToken {
			t.Errorf("got %+v", credentials)
		}
		return credentials.AccessKeyID
	}
}

func eachSDK(t *testing.T, kind string, f func(t *testing.T, h *harness, s *served, ask sdk)) {
	for _, name := range []string{"boto3", "JavaScript", "Go"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			s := h.open(t, kind)
			env := sdkEnv(t, s, kind)
			switch name {
			case "boto3":
				f(t, h, s, boto3(t, env))
			case "JavaScript":
				f(t, h, s, jsSDK(t, env, map[string]string{Container: "http"}[kind]))
			case "Go":
				f(t, h, s, goSDK(t, s, kind))
			}
		})
	}
}

// issue makes the gate give sessions with the access key ids ASIA…1, 2, 3,
// with what is left of each.
func (h *harness) issue(left func(n int) time.Duration) {
	n := 0
	h.set(func() {
		h.gate = func(context.Context) {
			h.set(func() {
				n++
				h.grant = session(time.Now().Add(left(n)))
				h.grant.Credentials.AccessKeyID = fmt.Sprintf("ASIAEXAMPLE%d", n)
			})
		}
	})
}

// SDKs come back for what is about to expire, and not for what is not. When
// the daemon starts anew meanwhile, they read the new token.
func TestSDKsContainer(t *testing.T) {
	eachSDK(t, Container, func(t *testing.T, h *harness, s *served, ask sdk) {
		// The first lasts for two minutes, which is no time for any SDK.
		h.issue(func(n int) time.Duration {
			if n < 3 {
				return 2 * time.Minute
			}
			return time.Hour
		})
		var got []string
		for range 3 {
			got = append(got, ask())
			h.Close(s.lease)
			h.openAs(t, Endpoint{Lease: s.lease, Kind: Container, Port: s.port})
		}
		for range 3 {
			got = append(got, ask())
		}
		if last := got[len(got)-1]; !strings.HasPrefix(last, "ASIAEXAMPLE") || last != got[len(got)-2] || got[0] == last {
			t.Errorf("got %v", got)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if n := len(h.asked); n < 3 || n > 4 || h.asked[0].Via != Container {
			t.Errorf("the gate was asked %d times for %v", n, got)
		}
	})
}

func TestSDKsIMDS(t *testing.T) {
	eachSDK(t, IMDS, func(t *testing.T, h *harness, s *served, ask sdk) {
		for range 3 {
			if got := ask(); got != "ASIAIOSFODNN7EXAMPLE" {
				t.Errorf("got %s", got)
			}
		}
		if asked := h.calls(); len(asked) != 1 || asked[0].Via != IMDS {
			t.Errorf("the gate was asked %+v", asked)
		}
	})
}

// What the gate or End says is what the SDK's user gets to see.
func TestSDKsRefused(t *testing.T) {
	const why = "lease l-7f3k2 ended at 14:02: start another with gatepass exec ops"
	eachSDK(t, Container, func(t *testing.T, h *harness, s *served, ask sdk) {
		h.set(func() {
			h.err = broker.Errorf(broker.CodeDenied, "profile \"ops\" is for it alone").WithHint("gatepass groups check ops")
		})
		if got := ask(); !strings.HasPrefix(got, "error: ") || !strings.Contains(got, "denied") || !strings.Contains(got, "gatepass groups check ops") {
			t.Errorf("refused by the gate: %s", got)
		}
		h.End(s.lease, why)
		if got := ask(); !strings.HasPrefix(got, "error: ") || !strings.Contains(got, why) {
			t.Errorf("ended: %s", got)
		}
	})
}

// A fakeSTS takes every signature and notes whose it was.
type fakeSTS struct {
	*httptest.Server
	mu   sync.Mutex
	keys []string
}

func newFakeSTS(t *testing.T) *fakeSTS {
	f := &fakeSTS{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
		key, _, _ := strings.Cut(rest, "/")
		f.mu.Lock()
		f.keys = append(f.keys, key+" "+r.Header.Get("X-Amz-Security-Token"))
		f.mu.Unlock()
		w.Header().Set("Content-Type", "text/xml")
		io.WriteString(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>`+
			`<Arn>arn:aws:sts::111122223333:assumed-role/Deploy/alice-s7f3k2</Arn><UserId>AROAEXAMPLE:alice</UserId><Account>111122223333</Account>`+
			`</GetCallerIdentityResult></GetCallerIdentityResponse>`)
	}))
	t.Cleanup(f.Close)
	return f
}

func TestAWSCLI(t *testing.T) {
	aws := component(t, "aws", "--version")
	for _, kind := range []string{Container, IMDS} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h, sts := newHarness(t), newFakeSTS(t)
			s := h.open(t, kind)
			run := func() (string, error) {
				cmd := exec.CommandContext(t.Context(), aws, "sts", "get-caller-identity", "--endpoint-url", sts.URL)
				cmd.Env = sdkEnv(t, s, kind)
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			if out, err := run(); err != nil || !strings.Contains(out, "assumed-role/Deploy") {
				t.Fatalf("%s %v", out, err)
			}
			if want := "ASIAIOSFODNN7EXAMPLE " + sessionToken; len(sts.keys) != 1 || sts.keys[0] != want {
				t.Errorf("signed by %q", sts.keys)
			}
			if asked := h.calls(); len(asked) != 1 || asked[0].Via != kind {
				t.Errorf("the gate was asked %+v", asked)
			}
			const why = "lease l-7f3k2 ended at 14:02: start another with gatepass exec ops"
			h.End(s.lease, why)
			out, err := run()
			if err == nil {
				t.Errorf("after the end: %s", out)
			}
			if kind == Container && !strings.Contains(out, why) { // botocore keeps what IMDS says to itself
				t.Errorf("after the end it says %s", out)
			}
		})
	}
}

// The SDK for Go asks IMDS where it is.
func TestGoRegion(t *testing.T) {
	h := newHarness(t)
	s := h.open(t, IMDS)
	client := imds.New(imds.Options{Endpoint: s.url(), EnableFallback: aws.FalseTernary})
	region, err := client.GetRegion(t.Context(), nil)
	if err != nil || region.Region != "eu-west-1" {
		t.Errorf("%+v, %v", region, err)
	}
	info, err := client.GetIAMInfo(t.Context(), nil)
	if err != nil || info.InstanceProfileArn != "arn:aws:iam::111122223333:instance-profile/Deploy" {
		t.Errorf("%+v, %v", info, err)
	}
	// When the daemon starts anew, the SDK's token is worth nothing: it asks for
	// another.
	h.Close(s.lease)
	h.openAs(t, Endpoint{Lease: s.lease, Kind: IMDS, Port: s.port, Region: "eu-north-1"})
	if region, err := client.GetRegion(t.Context(), nil); err != nil || region.Region != "eu-north-1" {
		t.Errorf("%+v, %v", region, err)
	}
}
