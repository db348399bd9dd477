//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
	"gatepass/profiles"
)

// inLease is a home in which gatepass exec opens a lease of ops and dns, with
// a sealed config and an endpoint as the daemon makes them, and whose own
// files and environment would lead SDKs elsewhere. refused counts what was asked of others.
func inLease(t *testing.T) (h *home, gatepass string, refused func() int) {
	t.Helper()
	h, _ = newLeaseHome(t)
	gatepass = filepath.Join(buildPrograms(t), "gatepass")
	dir := filepath.Join(h.env["HOME"], ".aws")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	files := profiles.Files{Config: filepath.Join(dir, "config"), Credentials: filepath.Join(dir, "credentials"), Trusted: true}
	const config = "[default]\nregion = us-east-1\n[profile ops]\nregion = eu-west-1\nrole_arn = arn:aws:iam::111122223333:role/Ops\nsource_profile = default\n" +
		"[profile dns]\nregion = eu-west-2\ncredential_process = /bin/false\n[profile other]\nsso_account_id = 111122223333\nregion = eu-west-3\n"
	room := filepath.Join(h.env["HOME"], "room")
	for path, text := range map[string]string{
		files.Config: config, files.Credentials: "[default]\naws_access_key_id = AKIAOUTSIDE\naws_secret_access_key = outside\n[ops]\naws_access_key_id = AKIAOPS\naws_secret_access_key = outside\n",
		room + ".credentials": "", room + ".token": "the token",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.env["AWS_PROFILE"], h.env["AWS_ACCESS_KEY_ID"], h.env["AWS_SECRET_ACCESS_KEY"] = "other", "AKIAOUTSIDE", "outside"
	h.env["HTTP_PROXY"], h.env["http_proxy"] = "http://127.0.0.1:1", "http://127.0.0.1:1"
	// Versions of Python may be chosen by a file of the real home's.
	for _, v := range []string{"PYENV_ROOT", "PYENV_VERSION", "NODE_NO_WARNINGS"} {
		h.env[v] = os.Getenv(v)
	}
	h.env["PATH"] = filepath.Dir(gatepass) + ":" + os.Getenv("PATH")

	others := 0
	credentials := func(id string) map[string]any {
		return map[string]any{
			"Version": 1, "AccessKeyId": "ASIA" + strings.ToUpper(id), "SecretAccessKey": "s", "SessionToken": "t", "Token": "t",
			"Expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
		}
	}
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "the token" {
			w.WriteHeader(403)
			return
		}
		json.NewEncoder(w).Encode(credentials("endpoint"))
	}))
	t.Cleanup(endpoint.Close)
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathLeases: func(body []byte) (int, map[string]string, string) {
			var r wire.StartLeaseRequest
			if err := json.Unmarshal(body, &r); err != nil {
				t.Error(err)
			}
			l := exampleLease()
			l.ConfigFile, l.CredentialsFile, l.TokenFile, l.Endpoint = room+".config", room+".credentials", room+".token", endpoint.URL+"/"
			if r.Serve == "env" {
				l.Serve, l.Endpoint, l.TokenFile, l.Renewable = "env", "", "", false
				l.Credentials = json.RawMessage(jsonOf(t, credentials("environment")))
			}
			config, err := profiles.Seal(files, profiles.Sealing{Lease: l.Lease, Program: r.Program, Admitted: []string{"ops", "dns"}, Endpoint: l.Endpoint != ""})
			if err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(l.ConfigFile, config, 0o600); err != nil {
				t.Error(err)
			}
			return 200, nil, jsonOf(t, l)
		},
		"POST " + wire.PathCredentials: func(body []byte) (int, map[string]string, string) {
			var r wire.CredentialsRequest
			if err := json.Unmarshal(body, &r); err != nil {
				t.Error(err)
			}
			if r.Profile == "other" {
				others++
				return 403, nil, jsonOf(t, broker.Error{Code: broker.CodeDenied, Message: "this lease is for ops and dns alone"})
			}
			return 200, nil, jsonOf(t, credentials("process"+r.Profile)) + "\n"
		},
	})
	return h, gatepass, func() int {
		h.mu.Lock()
		defer h.mu.Unlock()
		return others
	}
}

// Whichever way a program names a profile, and where it names none, each SDK
// finds the lease's session; every other profile leads to the refusal; and
// nothing outside is found.
func TestExecInRealClients(t *testing.T) {
	t.Parallel()
	h, gatepass, refused := inLease(t)
	bin := filepath.Dir(gatepass)
	scripts := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(scripts, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	py := write("key.py", "import boto3, sys\nsession = boto3.Session(profile_name=sys.argv[1] if len(sys.argv) > 1 else None)\nprint(session.get_credentials().access_key, session.region_name)\n")
	js := write("key.mjs", `import { createRequire } from "node:module";
const { fromNodeProviderChain } = createRequire(process.argv[2] + "/x.js")("@aws-sdk/credential-providers");
const profile = process.argv[3];
console.log((await fromNodeProviderChain(profile ? { profile } : {})()).accessKeyId);
`)
	modules := os.Getenv("GATEPASS_JS_SDK")
	for _, client := range []struct {
		name, needs string
		command     []string // prints the access key; takes a profile
		profile     string   // what stands before it
		goesOn      bool     // to the endpoint, where a credential_process fails: the refusal is recorded, and not shown
	}{
		{"SDK for Go", "", []string{filepath.Join(bin, "gosdk"), "key"}, "", false},
		{"boto3", "real:boto3", []string{"python3", py}, "", false},
		{"AWS CLI", "real:aws", []string{"aws", "configure", "list"}, "--profile", false},
		{"SDK for JavaScript", "real:js-sdk", []string{"node", js, modules}, "", true},
	} {
		t.Run(client.name, func(t *testing.T) {
			if client.needs != "" {
				if ok, err := condition(client.needs); err != nil {
					t.Fatal(err)
				} else if !ok {
					t.Skipf("%s is not here", client.needs)
				}
			}
			key := func(flags []string, env, profile string) string {
				args := append([]string{"exec", "ops", "--with", "dns"}, flags...)
				args = append(append(args, "--", "env", "A=B"), strings.Fields(env)...)
				args = append(args, client.command...)
				if profile != "" && client.profile != "" {
					args = append(args, client.profile)
				}
				if profile != "" {
					args = append(args, profile)
				}
				cmd := exec.Command(gatepass, args...)
				cmd.Env = h.environ()
				out, err := cmd.CombinedOutput()
				return fmt.Sprintln(string(out), err)
			}
			for _, c := range []struct {
				flags              []string
				env, profile, want string
			}{
				{nil, "", "", "ENDPOINT"},
				{nil, "AWS_PROFILE=ops", "", "PROCESSOPS"},
				{nil, "AWS_PROFILE=dns", "", "PROCESSDNS"},
				{nil, "", "ops", "PROCESSOPS"},
				{nil, "", "dns", "PROCESSDNS"},
				{[]string{"--env"}, "", "", "ENVIRONMENT"},
				{[]string{"--env"}, "", "dns", "PROCESSDNS"},
				{[]string{"--env"}, "", "default", "PROCESSOPS"},
			} {
				want := "ASIA" + c.want
				if client.name == "AWS CLI" { // which shows the last four letters
					want = "****" + c.want[len(c.want)-4:]
				}
				if got := key(c.flags, c.env, c.profile); !strings.Contains(got, want) || strings.Contains(got, "OUTSIDE") {
					t.Errorf("%v %s --profile %s: %s, want %s", c.flags, c.env, c.profile, got, want)
				}
			}
			before := refused()
			for _, got := range []string{key(nil, "", "other"), key(nil, "AWS_PROFILE=other", "")} {
				says := strings.Contains(got, "this lease is for ops and dns alone")
				if client.goesOn {
					says = strings.Contains(got, "ASIAENDPOINT") || !strings.Contains(got, "ASIA")
				}
				if !says || strings.Contains(got, "AKIA") || strings.Contains(got, "PROCESS") || strings.Contains(got, "OUTS") {
					t.Errorf("another profile: %s", got)
				}
			}
			if refused() < before+2 {
				t.Errorf("%d refusals", refused()-before)
			}
		})
	}
}
