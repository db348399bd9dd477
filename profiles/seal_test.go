package profiles

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sealed seals the files for ops and what else is admitted.
func sealed(t testing.TB, config, credentials string, endpoint, trusted bool, admitted ...string) string {
	t.Helper()
	dir := t.TempDir()
	files := Files{Config: filepath.Join(dir, "config"), Credentials: filepath.Join(dir, "credentials"), Trusted: trusted}
	for path, text := range map[string]string{files.Config: config, files.Credentials: credentials} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Seal(files, Sealing{Lease: "l-7f3k2m9qxd", Program: program, Admitted: admitted, Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

const sealedHead = `# The profiles as the processes of lease l-7f3k2m9qxd see them.
# gatepass made this file and removes it: what is written here is lost.
`

func TestSeal(t *testing.T) {
	const config = `
[DEFAULT]
retry_mode = standard
[default]
region = us-east-1
output = table
cli_pager =
cli_binary_format = raw-in-base64-out
max_attempts = 9
[profile ops]
role_arn = arn:aws:iam::111122223333:role/Ops
source_profile = work
mfa_serial = arn:aws:iam::111122223333:mfa/alice
gatepass_reason = x
Region = eu-west-1
output = json
s3 =
    max_concurrent_requests = 3
    addressing_style = path
    preferred_transfer_client = CONTROL
    secret = hidden
emr =
    key_pair_file = /home/alice/key.pem
    log_uri = s3://logs
api_versions =
    ec2 = 2015-03-01
    s3 = not a date
services = local
endpoint_url = http://127.0.0.1:4566
sdk_ua_app_id = me
use_fips_endpoint = false
[profile other]
region = eu-central-1
services = gone
role_arn = arn:aws:iam::111122223333:role/Other
sso_session = corp
output = text
max_attempts = 3
[profile inherits]
include_profile = ops
[profile "a b"]
region = eu-west-1
[profile a;b]
region = eu-west-1
[profile __proto__]
region = eu-west-1
[sso-session corp]
sso_start_url = https://corp.awsapps.com/start
[plugins]
endpoint = evil
[services "local"]
s3 =
    endpoint_url = http://127.0.0.1:1
[services local]
s3 =
    endpoint_url = http://127.0.0.1:9000
    secret_url = http://127.0.0.1:2
dynamodb =
    endpoint_url = http://user:password@127.0.0.1:8000
[services unused]
s3 =
    endpoint_url = http://127.0.0.1:9001
`
	const credentials = "[work]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = hidden\nregion = us-west-2\n"
	const ops = `retry_mode = standard
region = eu-west-1
output = json
s3 =
  addressing_style = path
  max_concurrent_requests = 3
emr =
  log_uri = s3://logs
api_versions =
  ec2 = 2015-03-01
services = local
endpoint_url = http://127.0.0.1:4566
sdk_ua_app_id = me
use_fips_endpoint = false
`
	const stubs = `
[profile inherits]
region = eu-west-1
credential_process = /home/alice/.local/bin/gatepass credential-process inherits

[profile ops]
OPScredential_process = /home/alice/.local/bin/gatepass credential-process ops

[profile other]
OTHERcredential_process = /home/alice/.local/bin/gatepass credential-process other

[profile work]
region = us-west-2
credential_process = /home/alice/.local/bin/gatepass credential-process work
`
	const services = "\n[services local]\ns3 =\n  endpoint_url = http://127.0.0.1:9000\n"
	sorted := func(s string) string { // of one section the order of keys means nothing
		return sortedSections(t, s)
	}
	fill := func(ops, other string) string { return strings.NewReplacer("OPS", ops, "OTHER", other).Replace(stubs) }

	want := sealedHead + "\n[default]\n" + ops + "cli_pager =\ncli_binary_format = raw-in-base64-out\n" + fill(ops, "region = eu-central-1\n") + services
	if got := sealed(t, strings.Replace(config, "CONTROL", "\x01", 1), credentials, true, true, "ops"); sorted(got) != sorted(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	// Without an endpoint [default] asks by itself; other profiles may be inside.
	other := "retry_mode = standard\nregion = eu-central-1\noutput = text\nmax_attempts = 3\n"
	want = sealedHead + "\n[default]\n" + other + "cli_pager =\ncli_binary_format = raw-in-base64-out\ncredential_process = /home/alice/.local/bin/gatepass credential-process other\n" + fill(ops, other) + services
	if got := sealed(t, strings.Replace(config, "CONTROL", "", 1), credentials, false, true, "other", "ops"); sorted(got) != sorted(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	// Nor does an endpoint with a password come along.
	if got := sealed(t, "[profile ops]\nendpoint_url = http://user:password@127.0.0.1:4566\n", "", true, true, "ops"); strings.Contains(got, "password") {
		t.Errorf("got\n%s", got)
	}

	// What runs a program or leads elsewhere does not come out of a file that
	// nobody has declared trusted.
	got := sealed(t, config+"[profile p]\ncli_pager = sh -c evil\nca_bundle = /evil.pem\noutput = text\n", credentials, true, false, "ops", "p")
	for _, word := range []string{"endpoint_url", "services", "evil", "cli_pager"} {
		if strings.Contains(got, word) {
			t.Errorf("%s comes from an untrusted file:\n%s", word, got)
		}
	}
	if !strings.Contains(got, "[profile p]\n") || !strings.Contains(got, "addressing_style = path") {
		t.Errorf("got\n%s", got)
	}

	// The default profile may be the one that is asked for.
	got = sealed(t, "[default]\nregion = eu-west-1\nrole_arn = x\n[profile ops]\nregion = eu-west-2\n", "", false, true, "default", "ops")
	want = sealedHead + "\n[default]\nregion = eu-west-1\ncredential_process = /home/alice/.local/bin/gatepass credential-process default\n" +
		"\n[profile ops]\nregion = eu-west-2\ncredential_process = /home/alice/.local/bin/gatepass credential-process ops\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// sortedSections sorts the keys of each section, its blocks with them.
func sortedSections(t *testing.T, text string) string {
	t.Helper()
	s, err := parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var b strings.Builder
	for _, sec := range s.sections {
		b.WriteString("[" + sec.name + "]\n")
		var lines []string
		for _, e := range s.entries[sec.first:sec.last] {
			lines = append(lines, strings.TrimRight(text[e.start:e.end], "\n"))
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, "\n") + "\n")
	}
	return b.String()
}

// Of a profile whose name no credential_process can hold, the session comes
// from the endpoint or not at all.
func TestSealOddNames(t *testing.T) {
	const config = "[default]\nregion = us-east-1\n[profile a b]\n[profile \"a b\"]\nregion = eu-west-1\n"
	want := sealedHead + "\n[default]\nregion = eu-west-1\n"
	if got := sealed(t, config, "", true, true, "a b"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	dir := t.TempDir()
	files := Files{Config: filepath.Join(dir, "config")}
	if err := os.WriteFile(files.Config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		s    Sealing
		want string
	}{
		{Sealing{Admitted: []string{"a b"}}, "a shell would not read"},
		{Sealing{Admitted: []string{"ops", "a b"}, Endpoint: true}, "a shell would not read"},
		{Sealing{Admitted: []string{"ops", "__proto__"}, Endpoint: true}, "not every SDK"},
		{Sealing{Admitted: []string{"ops", "-x"}, Endpoint: true}, "flag"},
		{Sealing{Admitted: []string{"ops", "default"}, Endpoint: true}, "name this one first"},
		{Sealing{Program: "gatepass"}, "absolute"},
		{Sealing{Program: "/opt/a;b/gatepass"}, "a shell would not read the program's path"},
		{Sealing{Lease: "l-1\n[profile x]"}, "is no lease"},
	} {
		if tt.s.Program == "" {
			tt.s.Program = program
		}
		if got, err := Seal(files, tt.s); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v\n%s", tt.s, err, got)
		}
	}
	if err := os.WriteFile(files.Config, []byte("[default]\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Seal(files, Sealing{Program: program}); err == nil {
		t.Error("a file that does not parse is sealed")
	}
}

// credentialKeys are what AWS's own programs call a credential, or that from
// which they make one, and what other tools keep beside them.
var credentialKeys = []string{
	"aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_security_token", "aws_secret_key", "aws_access_key",
	"role_arn", "source_profile", "credential_source", "mfa_serial", "mfa_process", "external_id", "role_session_name", "duration_seconds",
	"web_identity_token_file", "credential_process", "login_session", "sso_session", "sso_start_url", "sso_account_id",
	"sso_role_name", "sso_region", "sso_registration_scopes", "parent_profile", "session_tags",
	"gatepass_key", "gatepass_role_arn", "gatepass_mfa_serial", "gatepass_external_id", "gatepass_session_tags",
	"ec2_metadata_service_endpoint", "metadata_service_timeout", "csm_host", "csm_client_id", "data_path",
	"azure_default_password", "github_token", "password", "secret", "x_principal_arn", "proxy_client_cert",
}

// No value of a credential's key is in a sealed config, wherever it stands.
func TestSealKeepsCredentialsOut(t *testing.T) {
	var lines, deeper strings.Builder
	for i, key := range credentialKeys {
		fmt.Fprintf(&lines, "%s = hidden-%d\n", key, i)
		fmt.Fprintf(&deeper, "    %s = hidden-%d\n", key, i)
	}
	for _, config := range []string{
		"[DEFAULT]\n" + lines.String() + "[profile ops]\nregion = eu-west-1\n",
		"[default]\n" + lines.String() + "[profile ops]\n" + lines.String(),
		"[profile ops]\nservices = s\ns3 =\n" + deeper.String() + "emr =\n" + deeper.String() + "api_versions =\n" + deeper.String() +
			"[services s]\ns3 =\n" + deeper.String() + "aws_secret_access_key =\n" + deeper.String(),
		"[profile ops]\ninclude_profile = base\n[profile base]\n" + lines.String(),
		"[profile ops]\ncli_history =\n" + deeper.String() + "region = eu-west-1\n    " + lines.String()[:60] + "\n",
	} {
		for _, credentials := range []string{"", "[ops]\n" + lines.String() + "[work]\n" + lines.String(), "[DEFAULT]\n" + lines.String() + "[ops]\n"} {
			for _, endpoint := range []bool{true, false} {
				if got := sealed(t, config, credentials, endpoint, true, "ops"); strings.Contains(got, "hidden") {
					t.Errorf("of\n%s\nand\n%s\ncame\n%s", config, credentials, got)
				}
			}
		}
	}
}

// checkSealed holds a sealed config against what it was made from: it parses,
// its sections are those of sealable profiles, each once, and of its lines
// each is a neutral key with the value that the files give it, or asks
// gatepass for the profile where it stands.
func checkSealed(t *testing.T, got, config, credentials []byte, s Sealing) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("%s\nsealed:\n%s\nof %q and %q", fmt.Sprintf(format, args...), got, config, credentials)
	}
	keepAll := func(string) use { return useValue }
	before, err := newProfileSet(Files{}, config, credentials, keepAll)
	if err != nil {
		fail("sealed though %v", err)
	}
	after, err := newProfileSet(Files{}, got, nil, keepAll)
	if err != nil {
		fail("%v", err)
	}
	if bytes.Contains(got, []byte("[DEFAULT]")) || len(after.bare) > 0 || bytes.ContainsAny(got, "\r\x00") {
		fail("other sections, or lines that end otherwise")
	}
	every := newResolver(Files{}, before)
	for name, p := range after.profiles {
		if before.profiles[name] == nil && name != "default" {
			fail("profile %q was not there", name)
		}
		asked := name
		if name == "default" && len(s.Admitted) > 0 {
			asked = s.Admitted[0]
		}
		process := false
		for _, set := range p.settings {
			if set.key == "credential_process" {
				if process = set.value == program+" credential-process "+asked; !process {
					fail("profile %q runs %q", name, set.value)
				}
				continue
			}
			if !slices.Contains(s.Admitted, asked) && set.key != "region" {
				fail("profile %q, which is not inside, has %s", name, set.key)
			}
			if neutral(set.key) == neutralNever {
				fail("profile %q has %s", name, set.key)
			}
			from := []*profile{before.profiles[asked], before.profiles["default"]}
			if from[0] != nil {
				if whole, err := every.withIncludes(from[0]); err == nil {
					from[0] = whole
				}
			}
			if !slices.ContainsFunc(from, func(p *profile) bool {
				if p == nil {
					return false
				}
				was, ok := p.get(set.key)
				if !strings.HasPrefix(set.value, "\n") {
					return ok && was.value == set.value
				}
				now, _ := nested(set.value)
				then, _ := nested(was.value)
				for k, v := range now {
					ok = ok && then[k] == v && neutralInside(set.key, k, v)
				}
				return ok
			}) {
				fail("profile %q has another %s", name, set.key)
			}
		}
		if want := !s.Endpoint || name != "default"; process != want && (name != "default" || len(s.Admitted) > 0) {
			fail("profile %q asks gatepass: %v", name, process)
		}
	}
	for name, p := range after.services {
		for _, set := range p.settings {
			now, ok := nested(set.value)
			for k, v := range now {
				was, _ := before.services[name].get(set.key)
				then, _ := nested(was.value)
				ok = ok && k == "endpoint_url" && then[k] == v && checkEndpoint(v) == ""
			}
			if !ok {
				fail("services %q has %s", name, set.key)
			}
		}
	}
	for _, name := range before.names {
		if checkSealable(name) == "" && after.profiles[name] == nil && name != "default" {
			fail("profile %q is missing", name)
		}
	}
}

func FuzzSeal(f *testing.F) {
	f.Add("[profile ops]\nregion = eu-west-1\noutput = json\n[profile b]\nrole_arn = x\n", "[work]\naws_access_key_id = AKIA\naws_secret_access_key = s\n", "ops", true)
	f.Add("[profile ops]\ns3 =\n  max_queue_size = 1\n  x = y\nservices = s\n[services s]\nsts =\n endpoint_url = http://a\n", "", "ops,b", false)
	f.Add("[DEFAULT]\nregion = \u2028x\ncli_pager =\n[profile \"a b\"]\n[profile default]\n", "[default]\nregion: x ; y\n", "default", true)
	f.Add("[profile ops]\ninclude_profile = b\n[profile b]\ninclude_profile = ops\nregion = x\n", "[b]\noutput = [x]\n", "b,ops", false)
	f.Fuzz(func(t *testing.T, config, credentials, admitted string, endpoint bool) {
		s := Sealing{Lease: "l-1", Program: program, Endpoint: endpoint}
		if admitted != "" {
			s.Admitted = strings.Split(admitted, ",")
		}
		if s.check() != nil {
			return
		}
		got, err := seal(Files{Trusted: true}, []byte(config), []byte(credentials), s)
		if err != nil {
			return
		}
		checkSealed(t, got, []byte(config), []byte(credentials), s)
	})
}

// randomSealed writes n sealed configs, made of odd files, into a directory.
func randomSealed(t *testing.T, n int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	rnd := rand.New(rand.NewPCG(3, 4))
	for made := 0; made < n; {
		config, credentials := randomFile(rnd), randomFile(rnd)
		if rnd.IntN(2) == 0 {
			credentials = nil
		}
		set, err := newProfileSet(Files{}, config, credentials, sealKeep)
		if err != nil {
			continue
		}
		s := Sealing{Lease: "l-1", Program: program, Endpoint: rnd.IntN(2) == 0}
		for _, name := range set.names {
			if checkSealable(name) == "" && (len(s.Admitted) == 0 || name != "default") {
				s.Admitted = append(s.Admitted, name)
			}
		}
		got, err := seal(Files{Trusted: true}, config, credentials, s)
		if err != nil {
			t.Fatal(err)
		}
		checkSealed(t, got, config, credentials, s)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(made)), got, 0o600); err != nil {
			t.Fatal(err)
		}
		made++
	}
	return dir
}

// Sealed configs mean to botocore what they mean to us.
func TestSealedInBotocore(t *testing.T) {
	const n = 500
	dir := randomSealed(t, n)
	theirs := askBotocore(t, dir)
	if len(theirs) != n {
		t.Fatalf("botocore read %d of %d", len(theirs), n)
	}
	for name, both := range theirs {
		if both[0].Error != "" {
			data, _ := os.ReadFile(filepath.Join(dir, name))
			t.Errorf("botocore refuses one: %s\n%s", both[0].Error, data)
		}
	}
	compare(t, dir, theirs)
}

// sealedScript prints what the SDK for JavaScript makes of each file in a
// directory.
const sealedScript = `
import { createRequire } from "node:module";
import { readdirSync } from "node:fs";
const require = createRequire(process.argv[2] + "/x.js");
const { loadSharedConfigFiles } = require("@smithy/core/config");
const out = {};
for (const name of readdirSync(process.argv[3]))
  out[name] = (await loadSharedConfigFiles({ configFilepath: process.argv[3] + "/" + name, filepath: "/dev/null", ignoreCache: true })).configFile;
console.log(JSON.stringify(out));
`

// And to the SDK for JavaScript.
func TestSealedInJavaScript(t *testing.T) {
	modules := os.Getenv("GATEPASS_JS_SDK")
	node, err := exec.LookPath("node")
	if err == nil && modules == "" {
		err = fmt.Errorf("GATEPASS_JS_SDK names no node_modules")
	}
	if err != nil {
		if os.Getenv("GATEPASS_REAL") == "1" {
			t.Fatal(err)
		}
		t.Skipf("the SDK for JavaScript cannot be asked: %v", err)
	}
	const n = 500
	dir := randomSealed(t, n)
	script := filepath.Join(t.TempDir(), "read.mjs")
	if err := os.WriteFile(script, []byte(sealedScript), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, script, modules, dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var theirs map[string]map[string]map[string]string
	if err := json.Unmarshal(out, &theirs); err != nil {
		t.Fatal(err)
	}
	if len(theirs) != n {
		t.Fatalf("it read %d of %d", len(theirs), n)
	}
	comment := regexp.MustCompile(`(^|\s)[;#]`)
	for name, profiles := range theirs {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for profile, ours := range ourMeaning(data, false).Profiles {
			for _, key := range []string{"credential_process", "region"} {
				value, ok := ours[key].(string)
				value = strings.TrimSpace(comment.Split(value, 2)[0]) // in the user's own file as well
				if ok && value != "" && profiles[profile][key] != value {
					t.Errorf("%s of %q is %q, not %q, in\n%s", key, profile, profiles[profile][key], value, data)
				}
			}
		}
	}
}
