package profiles_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"

	"gatepass/profiles"
)

// The SDK for Go reads a sealed config, and finds in each profile gatepass
// and nothing else to ask.
func TestSealedInGo(t *testing.T) {
	dir := t.TempDir()
	files := profiles.Files{Config: filepath.Join(dir, "config"), Credentials: filepath.Join(dir, "credentials"), Trusted: true}
	const before = `[default]
region = us-east-1
cli_pager =
[profile ops]
role_arn = arn:aws:iam::111122223333:role/Ops
source_profile = work
region = eu-west-1
max_attempts = 7
services = local
s3 =
  addressing_style = path
[profile team/other@x.y+z]
sso_session = corp
sso_account_id = 111122223333
region = eu-west-2
[sso-session corp]
sso_start_url = https://corp.awsapps.com/start
[services local]
sts =
  endpoint_url = http://127.0.0.1:4566
`
	for path, text := range map[string]string{files.Config: before, files.Credentials: "[work]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = secret\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sealed, err := profiles.Seal(files, profiles.Sealing{Lease: "l-1", Program: "/opt/gatepass", Admitted: []string{"ops"}, Endpoint: true})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sealed")
	if err := os.WriteFile(path, sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		region, process, endpoint string
		attempts                  int
	}{
		"default":          {region: "eu-west-1", attempts: 7, endpoint: "http://127.0.0.1:4566"},
		"ops":              {region: "eu-west-1", attempts: 7, endpoint: "http://127.0.0.1:4566", process: "/opt/gatepass credential-process ops"},
		"work":             {process: "/opt/gatepass credential-process work"},
		"team/other@x.y+z": {region: "eu-west-2", process: "/opt/gatepass credential-process team/other@x.y+z"},
	} {
		got, err := config.LoadSharedConfigProfile(t.Context(), name, func(o *config.LoadSharedConfigOptions) {
			o.ConfigFiles, o.CredentialsFiles = []string{path}, []string{}
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		endpoint := got.Services.ServiceValues["sts"]["endpoint_url"]
		if got.Region != want.region || got.CredentialProcess != want.process || got.RetryMaxAttempts != want.attempts || endpoint != want.endpoint ||
			got.RoleARN != "" || got.SSOSessionName != "" || got.Credentials.HasKeys() {
			t.Errorf("%s: %+v, at %q", name, got, endpoint)
		}
	}
}
