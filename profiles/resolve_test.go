package profiles_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"gatepass/profiles"
)

// write makes a config and a credentials file and names them, trusted.
func write(t testing.TB, config, credentials string) profiles.Files {
	t.Helper()
	dir := t.TempDir()
	files := profiles.Files{Config: filepath.Join(dir, "config"), Credentials: filepath.Join(dir, "credentials"), Trusted: true}
	for path, text := range map[string]string{files.Config: config, files.Credentials: credentials} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// resolve resolves name in a config of its own.
func resolve(t testing.TB, config, credentials, name string) (*profiles.Chain, error) {
	t.Helper()
	return profiles.NewReader().Resolve(write(t, config, credentials), name)
}

const (
	roleA = "arn:aws:iam::111122223333:role/A"
	roleB = "arn:aws:iam::444455556666:role/path/to/B"
)

// What must not resolve, and what the error must say. $C and $K stand for the
// config and the credentials file.
func TestResolveRefuses(t *testing.T) {
	role := "role_arn = " + roleA + "\n"
	tests := []struct {
		name, config, credentials string
		want                      string
	}{
		{"not an ARN", "[profile p]\nrole_arn = admin\n", "", `$C:2: profile "p": role_arn: "admin" is not the ARN of a role: it must have 20`},
		{"ARN of a user", "[profile p]\nrole_arn = arn:aws:iam::111122223333:user/A\n", "", `must begin with "role/"`},
		{"ARN with a foreign partition", "[profile p]\nrole_arn = arn:evil:iam::111122223333:role/A\n", "", `the partition`},
		{"ARN with a region", "[profile p]\nrole_arn = arn:aws:iam:us-east-1:111122223333:role/A\n", "", `must look like`},
		{"ARN of STS", "[profile p]\nrole_arn = arn:aws:sts::111122223333:assumed-role/A/b\n", "", `must look like`},
		{"ARN with 11 digits", "[profile p]\nrole_arn = arn:aws:iam::11112222333:role/Abc\n", "", `12 digits`},
		{"ARN with digits of another script", "[profile p]\nrole_arn = arn:aws:iam::１１１１２２２２３３３３:role/A\n", "", `12 digits`},
		{"ARN without a name", "[profile p]\nrole_arn = arn:aws:iam::111122223333:role/a/\n", "", `name must be 1 to 64`},
		{"ARN with a letter of another script", "[profile p]\nrole_arn = arn:aws:iam::111122223333:role/Аdmin\n", "", `name must be 1 to 64`},
		{"ARN with a blank in its path", "[profile p]\nrole_arn = arn:aws:iam::111122223333:role/a b/C\n", "", `path must be`},
		{"ARN over two lines", "[profile p]\nrole_arn = " + roleA + "\n  x\n", "", `name must be 1 to 64`},
		{"ARN with a trailing comment", "[profile p]\nrole_arn = " + roleA + " # admin\n", "", `to the AWS CLI a comment is a line of its own`},
		{"ARN too long", "[profile p]\nrole_arn = arn:aws:iam::111122223333:role/" + strings.Repeat("a/", 1010) + "A\n", "", `20 to 2048`},
		{"empty ARN", "[profile p]\nrole_arn =\n", "", `$C:2: profile "p": role_arn: the value is empty`},
		{"ARNs that differ", "[profile p]\n" + role + "gatepass_role_arn = " + roleB + "\n", "", `$C:3: profile "p": gatepass_role_arn: differs from role_arn on line 2`},
		{"ARNs that differ between the files", "[profile p]\n" + role, "[p]\ngatepass_role_arn = " + roleB + "\n", `$K:2: profile "p": gatepass_role_arn: differs`},
		{"durations that differ", "[profile p]\n" + role + "duration_seconds=3600\ngatepass_duration=2h\n", "", `$C:4: profile "p": gatepass_duration: differs from duration_seconds`},
		{"serials that differ", "[profile p]\n" + role + "mfa_serial=GAHT12345678\ngatepass_mfa_serial=GAHT12345679\n", "", `gatepass_mfa_serial: differs from mfa_serial on line 3`},
		{"sources that differ", "[profile p]\n" + role + "source_profile=a\ngatepass_source_profile=b\n[profile a]\n[profile b]\n", "", `gatepass_source_profile: differs from source_profile on line 3`},
		{"session name too short", "[profile p]\n" + role + "role_session_name = x\n", "", `role_session_name: "x": a session name must be 2 to 64`},
		{"session name too long", "[profile p]\n" + role + "role_session_name = " + strings.Repeat("x", 65) + "\n", "", `session name must be`},
		{"session name with a slash", "[profile p]\n" + role + "role_session_name = a/b\n", "", `session name must be`},
		{"session name with a word character of another script", "[profile p]\n" + role + "role_session_name = jürgen\n", "", `session name must be`},
		{"external id with a blank", "[profile p]\n" + role + "external_id = sesame open\n", "", `external_id: an external id must be`},
		{"external id too short", "[profile p]\n" + role + "external_id = x\n", "", `external_id: an external id must be`},
		{"external id too long", "[profile p]\n" + role + "external_id = " + strings.Repeat("x", 1225) + "\n", "", `external_id: an external id must be`},
		{"MFA serial too short", "[profile p]\n" + role + "mfa_serial = 12345678\n", "", `mfa_serial: "12345678": an MFA serial`},
		{"MFA serial of a key too short", "[profile p]\nmfa_serial = 12345678\n", "", `mfa_serial: "12345678": an MFA serial`},
		{"source identity of AWS", "[profile p]\n" + role + "gatepass_source_identity = AWS:me\n", "", `must not begin with "aws:"`},
		{"source identity with a colon", "[profile p]\n" + role + "gatepass_source_identity = a:b\n", "", `a source identity must be`},
		{"duration too short", "[profile p]\n" + role + "duration_seconds = 899\n", "", `900 to 43200 seconds`},
		{"duration too long", "[profile p]\n" + role + "gatepass_duration = 13h\n", "", `900 to 43200 seconds`},
		{"duration of a key's session too long", "[profile p]\nduration_seconds = 129601\n", "", `900 to 129600 seconds`},
		{"duration with a unit in the standard key", "[profile p]\n" + role + "duration_seconds = 1h\n", "", `"1h" is not a number of seconds`},
		{"duration of nonsense", "[profile p]\n" + role + "gatepass_duration = soon\n", "", `"soon" is not a duration`},
		{"duration below a second", "[profile p]\n" + role + "gatepass_duration = 3600500ms\n", "", `is not a duration`},
		{"negative duration", "[profile p]\n" + role + "duration_seconds = -3600\n", "", `is not a number of seconds`},
		{"tag without a value", "[profile p]\n" + role + "gatepass_session_tags = a=b,c\n", "", `gatepass_session_tags: tag 2 has no "="`},
		{"tag without a key", "[profile p]\n" + role + "gatepass_session_tags = =b\n", "", `cannot be a tag's key`},
		{"tag of AWS", "[profile p]\n" + role + "gatepass_session_tags = Aws:x=b\n", "", `"aws:" is AWS's own`},
		{"tag twice", "[profile p]\n" + role + "gatepass_session_tags = Team=a,team=b\n", "", `tag "team" is there twice`},
		{"tag with a semicolon", "[profile p]\n" + role + "gatepass_session_tags = a=b;c\n", "", `the value of tag "a" must be`},
		{"tag over two lines", "[profile p]\n" + role + "gatepass_session_tags = a=b\n  c\n", "", `the value of tag "a" must be`},
		{"tag value too long", "[profile p]\n" + role + "gatepass_session_tags = a=" + strings.Repeat("x", 257) + "\n", "", `up to 256`},
		{"tag key too long", "[profile p]\n" + role + "gatepass_session_tags = " + strings.Repeat("x", 129) + "=a\n", "", `1 to 128`},
		{"51 tags", "[profile p]\n" + role + "gatepass_session_tags = " + manyTags(51, "=x") + "\n", "", `more than 50 tags`},
		{"51 transitive tags", "[profile p]\n" + role + "gatepass_transitive_tags = " + manyTags(51, "") + "\n", "", `more than 50 tags`},
		{"transitive tag twice", "[profile p]\n" + role + "gatepass_transitive_tags = a,A\n", "", `tag "A" is there twice`},
		{"transitive tag that is not set", "[profile p]\n" + role + "gatepass_session_tags = a=b\ngatepass_transitive_tags = A,c\n", "", `gatepass_transitive_tags: tag "c" is not in gatepass_session_tags`},
		{"empty transitive tag", "[profile p]\n" + role + "gatepass_transitive_tags = a,\n", "", `cannot be a tag's key`},
		{"serve by magic", "[profile p]\ngatepass_serve = magic\n", "", `gatepass_serve: "magic" is none of`},
		{"own key that is none", "[profile p]\ngatepass_rolearn = x\n", "", `$C:2: profile "p": "gatepass_rolearn": there is no such key; did you mean gatepass_role_arn?`},
		{"own key that is none, inherited", "[DEFAULT]\ngatepass_kee = x\n[profile p]\n", "", `$C:2: profile "p": "gatepass_kee": there is no such key; did you mean gatepass_key?`},
		{"empty key", "[profile p]\ngatepass_key =\n", "", `gatepass_key: a name must not be empty`},
		{"key with a control character", "[profile p]\ngatepass_key = a\x1bb\n", "", `gatepass_key: a name must not hold control`},
		{"region that is a host", "[profile p]\nregion = evil.example/\n", "", `region: "evil.example/": a region must be`},
		{"region with a comment", "[profile p]\nregion = eu-west-1 # home\n", "", `to the AWS CLI a comment is a line of its own`},
		{"region of default", "[default]\nregion = a.b\n[profile p]\n", "", `$C:2: profile "default": region: "a.b"`},
		{"endpoint of another scheme", "[profile p]\nendpoint_url = file:///etc/passwd\n", "", `endpoint_url: must be a URL`},
		{"endpoint without a host", "[profile p]\nendpoint_url = https:///x\n", "", `endpoint_url: must be a URL`},
		{"endpoint over two lines", "[profile p]\nendpoint_url = http://a\n  b\n", "", `endpoint_url: must be a URL`},
		{"endpoint with a password", "[profile p]\nendpoint_url = http://u:hunter2@a\n", "", `endpoint_url: must not hold a user or a password`},
		{"endpoint with a query", "[profile p]\nendpoint_url = http://a/?x\n", "", `must not hold a query`},
		{"endpoint with a fragment", "[profile p]\nendpoint_url = http://a/#\n", "", `must not hold a query`},
		{"services that are not there", "[profile p]\nservices = dev\n", "", `$C:2: profile "p": services: there is no section "[services dev]"`},
		{"services without a block", "[profile p]\nservices = dev\n[services dev]\nsts = http://a\n", "", `$C:4: profile "p": sts: in services "dev"`},
		{"services with a bad endpoint", "[profile p]\nservices = dev\n[services dev]\nsts =\n  endpoint_url = gopher://a\n", "", `endpoint_url: must be a URL`},
		{"mfa_process over two lines", "[profile p]\nmfa_process = a\n  b\n", "", `mfa_process: the command must be on one line`},

		{"source that is not there", "[profile p]\n" + role + "source_profile = bose\n[profile base]\n", "", `$C:3: profile "p": source_profile: there is no profile "bose" (p → ✗ bose); did you mean "base"?`},
		{"source that is nowhere near", "[profile p]\n" + role + "source_profile = zzz\n", "", `there is no profile "zzz" (p → ✗ zzz); to name a stored key, use "gatepass_key" instead`},
		{"source with a comment", "[profile p]\n" + role + "source_profile = base # x\n[profile base]\n", "", `there is no profile "base # x" (p → ✗ "base # x"); to the AWS CLI a comment`},
		{"empty source", "[profile p]\n" + role + "source_profile =\n", "", `source_profile: the value is empty`},
		{"source with a control character", "[profile p]\n" + role + "source_profile = a\n b\n", "", `source_profile: a name must not hold control`},
		{"loop of two", "[profile p]\n" + role + "source_profile = q\n[profile q]\n" + role + "source_profile = p\n", "", `$C:6: profile "q": source_profile: leads back to profile "p" (p → q → ✗ p)`},
		{"loop not through the start", "[profile p]\nsource_profile = q\n[profile q]\nsource_profile = r\n[profile r]\nsource_profile = q\n", "", `leads back to profile "q" (p → q → r → ✗ q)`},
		{"loop despite a key", "[profile p]\ngatepass_key = k\nsource_profile = q\n[profile q]\nsource_profile = p\n", "", `leads back`},
		{"bad ARN further down", "[profile p]\n" + role + "source_profile = q\n[profile q]\nrole_arn = x\n", "", `$C:5: profile "q": role_arn`},

		{"SSO session", "[profile p]\nsso_session = corp\n[sso-session corp]\n", "", `$C:2: profile "p": sso_session: the profile takes its credentials from IAM Identity Center`},
		{"SSO of old", "[profile p]\nsso_start_url = https://x\n", "", `sso_start_url: the profile takes`},
		{"SSO account", "[profile p]\nsso_account_id = 1\n", "", `sso_account_id: the profile takes`},
		{"SSO as the source", "[profile p]\n" + role + "source_profile = q\n[profile q]\nsso_session = corp\n", "", `$C:5: profile "q": sso_session`},
		{"SSO and a role without a source", "[profile p]\n" + role + "sso_session = corp\n", "", `sso_session: the profile takes`},
		{"web identity", "[profile p]\n" + role + "web_identity_token_file = /x\n", "", `web_identity_token_file: the profile takes its credentials from a web identity`},
		{"web identity beside a source", "[profile p]\n" + role + "source_profile=q\nweb_identity_token_file = /x\n[profile q]\n", "", `web_identity_token_file: the profile takes`},
		{"aws login", "[profile p]\nlogin_session = x\n", "", `login_session: the profile takes`},
		{"credential source", "[profile p]\n" + role + "credential_source = Environment\n", "", `credential_source: the profile takes its credentials from the environment`},
		{"credential source beside a source", "[profile p]\n" + role + "credential_source = Environment\nsource_profile = q\n[profile q]\n", "", `credential_source: cannot stand beside source_profile (line 4)`},
		{"another program", "[profile p]\ncredential_process = /usr/bin/vault --token hunter2\n", "", `credential_process: the profile takes its credentials from another program, which gatepass does not serve`},
		{"another program as the source", "[profile p]\n" + role + "source_profile = q\n[profile q]\ncredential_process = x\n", "", `$C:5: profile "q": credential_process`},
		{"another program and a role without a source", "[profile p]\n" + role + "credential_process = x\n", "", `credential_process: the profile takes`},
		{"another program by our name", "[profile p]\ncredential_process = sh -c 'gatepass credential-process p'\n", "", `another program`},
		{"another program that ends like us", "[profile p]\ncredential_process = /bin/notgatepass credential-process p\n", "", `another program`},
		{"another command of ours", "[profile p]\ncredential_process = /bin/gatepass export p\n", "", `another program`},
		{"another program with bad quoting", "[profile p]\ncredential_process = 'gatepass credential-process p\n", "", `another program`},
		{"ourselves for another profile", "[profile p]\ncredential_process = /bin/gatepass credential-process q\n", "", `asks gatepass for another profile, "q"`},
		{"another program in the credentials file", "[profile p]\n", "[p]\ncredential_process = x\n", `$K:2: profile "p": credential_process`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := write(t, tt.config, tt.credentials)
			chain, err := profiles.NewReader().Resolve(files, "p")
			var ce *profiles.ConfigError
			if !errors.As(err, &ce) {
				t.Fatalf("got %+v, %v; want a *ConfigError", chain, err)
			}
			want := strings.NewReplacer("$C", files.Config, "$K", files.Credentials).Replace(tt.want)
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not say %q", err, want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Errorf("error %q says too much", err)
			}
		})
	}
}

func manyTags(n int, value string) string {
	var tags []string
	for i := range n {
		tags = append(tags, "t"+strings.Repeat("i", i)+value)
	}
	return strings.Join(tags, ",")
}

func TestResolveRefusesNames(t *testing.T) {
	files := write(t, "[profile \"a\x01b\"]\n[profile '']\n[profile ok]\n", "")
	for _, name := range []string{"", "a\x01b", "a\nb", "a\u0085b", "\xff", strings.Repeat("x", 513)} {
		chain, err := profiles.NewReader().Resolve(files, name)
		var ce *profiles.ConfigError
		if !errors.As(err, &ce) {
			t.Errorf("Resolve(%q) = %v, %v; want a *ConfigError", name, chain, err)
		}
	}
	names, err := profiles.NewReader().Names(files)
	if want := []string{"ok"}; err != nil || !reflect.DeepEqual(names, want) {
		t.Errorf("Names = %q, %v; want %q", names, err, want)
	}
}

func TestNotFound(t *testing.T) {
	files := write(t, "[default]\n[profile production]\n[profile prod-eu]\n[profile Staging]\n[profile dev]\n[bare]\n", "[creds]\n")
	for _, tt := range []struct {
		name, nearest, message string
	}{
		{"prod", "prod-eu production", `no profile "prod" in $C or $K; did you mean "prod-eu" or "production"?`},
		{"staging", "Staging", `"Staging"?`},
		{"produciton", "production", `"production"?`},
		{"dve", "dev", `"dev"?`},
		{"Default", "default", `"default"?`},
		{"cred", "creds", `"creds"?`},
		{"development", "dev", `"dev"?`},
		{"xyzzy", "", `no profile "xyzzy" in $C or $K`},
		{"bare", "", `no profile "bare" in $C or $K: line 6 must read "[profile bare]"`},
		{"DEFAULT", "default", `"default"?`},
		{`$(reboot);"`, "", `no profile "$(reboot);\""`},
		{"a\u202eb", "", `no profile "a\u202eb"`},
	} {
		_, err := profiles.NewReader().Resolve(files, tt.name)
		var nf *profiles.NotFoundError
		if !errors.As(err, &nf) {
			t.Errorf("Resolve(%q) = %v; want a *NotFoundError", tt.name, err)
			continue
		}
		if got := strings.Join(nf.Nearest, " "); got != tt.nearest {
			t.Errorf("Resolve(%q): nearest %q; want %q", tt.name, got, tt.nearest)
		}
		want := strings.NewReplacer("$C", files.Config, "$K", files.Credentials).Replace(tt.message)
		if !strings.HasSuffix(err.Error(), want) && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %q; want %q", err, want)
		}
	}
}

func TestResolve(t *testing.T) {
	role := "role_arn = " + roleA + "\n"
	hops := func(h ...profiles.Hop) []profiles.Hop { return h }
	hopP := profiles.Hop{Profile: "p", RoleARN: roleA}
	tests := []struct {
		name, config, credentials string
		want                      profiles.Chain // less Profile, KeyFrom and Notes
		from                      string         // KeyFrom: "FILE:LINE profile", with "=" before an explicit key
		notes                     []string       // what each one says
	}{
		{"a key", "[profile p]\n", "", profiles.Chain{Key: "p"}, "$C:1 p", nil},
		{"a key of another name", "[profile p]\ngatepass_key = k\n", "", profiles.Chain{Key: "k"}, "=$C:2 p", nil},
		{"a key in the credentials file", "", "[p]\naws_access_key_id = AKIA\naws_secret_access_key = hunter2\n", profiles.Chain{Key: "p"}, "$K:1 p",
			[]string{`$K:3: profile "p": aws_secret_access_key: the plaintext keys of this profile are not used`}},
		{"half a key in the config file", "[profile p]\naws_access_key_id = AKIA\n", "", profiles.Chain{Key: "p"}, "$C:1 p",
			[]string{`$C:2: profile "p": aws_access_key_id: the plaintext keys`}},
		{"the session of a key", "[profile p]\nduration_seconds = 129600\nmfa_serial = GAHT12345678\nmfa_process = otp\n", "",
			profiles.Chain{Key: "p", Duration: 36 * time.Hour, MFASerial: "GAHT12345678", MFAProcess: "otp"}, "$C:1 p", nil},

		{"a role over the key of its name", "[profile p]\n" + role, "", profiles.Chain{Key: "p", Hops: hops(hopP)}, "$C:1 p", nil},
		{"a role over itself", "[profile p]\n" + role + "source_profile = p\n", "", profiles.Chain{Key: "p", Hops: hops(hopP)}, "$C:1 p", nil},
		{"a role over itself, with plaintext keys", "[profile p]\n" + role + "source_profile = p\n", "[p]\naws_secret_access_key = hunter2\n", profiles.Chain{Key: "p", Hops: hops(hopP)}, "$C:1 p",
			[]string{"plaintext"}},
		{"a role over a source", "[profile p]\n" + role + "source_profile = base\n[profile base]\n", "", profiles.Chain{Key: "base", Hops: hops(hopP)}, "$C:4 base", nil},
		{"a role over a source with plaintext keys", "[profile p]\n" + role + "source_profile = base\n", "[base]\naws_access_key_id = AKIA\naws_secret_access_key = hunter2\n",
			profiles.Chain{Key: "base", Hops: hops(hopP)}, "$K:1 base", []string{`$K:3: profile "base"`}},
		{"a role over a source that names its key", "[profile p]\n" + role + "source_profile = base\n[profile base]\ngatepass_key = k\n", "", profiles.Chain{Key: "k", Hops: hops(hopP)}, "=$C:5 base", nil},
		{"a role that names its key", "[profile p]\n" + role + "gatepass_key = k\n", "", profiles.Chain{Key: "k", Hops: hops(hopP)}, "=$C:3 p", nil},
		{"a role in the credentials file", "[profile p]\nregion = eu-west-1\n", "[p]\n" + role + "region = us-east-1\n",
			profiles.Chain{Key: "p", Hops: hops(hopP), Region: "us-east-1", STSRegion: "us-east-1"}, "$C:1 p", nil},
		{"a source whose MFA device is known", "[profile p]\n" + role + "source_profile = base\n[profile base]\nmfa_serial = GAHT12345678\n", "",
			profiles.Chain{Key: "base", MFASerial: "GAHT12345678", Hops: hops(hopP)}, "$C:4 base", nil},

		{"three roles", "[profile p]\n" + role + "source_profile = q\n[profile q]\nrole_arn = " + roleB + "\nsource_profile = r\nexternal_id = xx\n[profile r]\n" + role + "source_profile = base\n[profile base]\n", "",
			profiles.Chain{Key: "base", Hops: hops(profiles.Hop{Profile: "r", RoleARN: roleA}, profiles.Hop{Profile: "q", RoleARN: roleB, ExternalID: "xx"}, hopP)}, "$C:11 base", nil},
		{"the nearest key wins and shortens nothing", "[profile p]\n" + role + "gatepass_key = near\nsource_profile = q\n[profile q]\nrole_arn = " + roleB + "\ngatepass_key = far\n", "",
			profiles.Chain{Key: "near", Hops: hops(profiles.Hop{Profile: "q", RoleARN: roleB}, hopP)}, "=$C:3 p", nil},
		{"no role of its own, over a role", "[profile p]\nsource_profile = q\nregion = eu-west-1\nduration_seconds = 900\n[profile q]\n" + role, "",
			profiles.Chain{Key: "q", Region: "eu-west-1", STSRegion: "eu-west-1", Hops: hops(profiles.Hop{Profile: "q", RoleARN: roleA})}, "$C:5 q",
			[]string{`$C:4: profile "p": duration_seconds: does not apply`}},
		{"a source with plaintext keys and a role", "[profile p]\n" + role + "source_profile = q\n[profile q]\nrole_arn = " + roleB + "\nsource_profile = r\naws_access_key_id = x\naws_secret_access_key = hunter2\n[profile r]\n", "",
			profiles.Chain{Key: "q", Hops: hops(hopP)}, "$C:4 q", []string{"plaintext", `$C:5: profile "q": role_arn: the role is skipped`}},
		{"plaintext keys beside a source without a role", "[profile p]\nsource_profile = q\naws_secret_access_key = hunter2\n[profile q]\n", "", profiles.Chain{Key: "p"}, "$C:1 p", []string{"plaintext"}},

		{"twins", "[profile p]\ngatepass_role_arn = " + roleA + "\ngatepass_source_profile = base\n[profile base]\n", "", profiles.Chain{Key: "base", Hops: hops(hopP)}, "$C:4 base", nil},
		{"twins that agree", "[profile p]\n" + role + "gatepass_role_arn = " + roleA + "\nduration_seconds = 7200\ngatepass_duration = 2h\n", "",
			profiles.Chain{Key: "p", Hops: hops(profiles.Hop{Profile: "p", RoleARN: roleA, Duration: 2 * time.Hour})}, "$C:1 p", nil},
		{"every standard key", "[profile p]\nROLE_ARN: " + roleA + "\nmfa_serial: arn:aws:iam::111122223333:mfa/alice\nmfa_process = op otp aws\nexternal_id = a/b:c\nrole_session_name = alice@example.com\nduration_seconds = 43200\nregion = us-gov-west-1\nendpoint_url = http://127.0.0.1:4566\noutput = json\n", "",
			profiles.Chain{Key: "p", Region: "us-gov-west-1", STSRegion: "us-gov-west-1", Endpoint: "http://127.0.0.1:4566", IAMEndpoint: "http://127.0.0.1:4566", Hops: hops(profiles.Hop{
				Profile: "p", RoleARN: roleA, MFASerial: "arn:aws:iam::111122223333:mfa/alice", MFAProcess: "op otp aws", ExternalID: "a/b:c", SessionName: "alice@example.com", Duration: 12 * time.Hour})}, "$C:1 p", nil},
		{"every key of ours", "[profile p]\ngatepass_key = k\ngatepass_role_arn = " + roleA + "\ngatepass_mfa_serial = GAHT12345678\ngatepass_mfa_process = otp\ngatepass_external_id = x1\ngatepass_role_session_name = alice\ngatepass_duration = 900\ngatepass_source_identity = alice\n" +
			"gatepass_session_tags = Team = Ops 24/7 , cost=, ключ=a=b\ngatepass_transitive_tags = Team, cost\ngatepass_serve = imds\n", "",
			profiles.Chain{Key: "k", Serve: "imds", Hops: hops(profiles.Hop{
				Profile: "p", RoleARN: roleA, MFASerial: "GAHT12345678", MFAProcess: "otp", ExternalID: "x1", SessionName: "alice", Duration: 15 * time.Minute, SourceIdentity: "alice",
				Tags: []profiles.Tag{{Key: "Team", Value: "Ops 24/7"}, {Key: "cost"}, {Key: "ключ", Value: "a=b"}}, TransitiveTags: []string{"Team", "cost"}})}, "=$C:2 p", nil},
		{"a role's keys without a role", "[profile p]\ngatepass_session_tags = a=b\nexternal_id = ignored by the AWS CLI\n", "", profiles.Chain{Key: "p"}, "$C:1 p",
			[]string{`$C:2: profile "p": gatepass_session_tags: does not apply`}},
		{"empty values", "[profile p]\n" + role + "region =\nmfa_serial =\nexternal_id =\nduration_seconds =\nendpoint_url =\ngatepass_serve =\n", "", profiles.Chain{Key: "p", Hops: hops(hopP)}, "$C:1 p", nil},

		{"region of default for STS", "[default]\nregion = eu-west-1\n[profile p]\n", "", profiles.Chain{Key: "p", STSRegion: "eu-west-1"}, "$C:3 p", nil},
		{"region of DEFAULT", "[DEFAULT]\nregion = eu-west-1\n[profile p]\n", "", profiles.Chain{Key: "p", Region: "eu-west-1", STSRegion: "eu-west-1"}, "$C:3 p", nil},
		{"region of the source does not count", "[profile p]\n" + role + "source_profile = q\n[profile q]\nregion = eu-west-1\n", "", profiles.Chain{Key: "q", Hops: hops(hopP)}, "$C:4 q", nil},
		{"endpoint of services", "[profile p]\nendpoint_url = https://all.example\nservices = dev\n[services dev]\ns3 =\n  endpoint_url = https://s3.example\nsts =\n  endpoint_url = https://sts.example:8443/x\n", "",
			profiles.Chain{Key: "p", Endpoint: "https://sts.example:8443/x", IAMEndpoint: "https://all.example"}, "$C:1 p", nil},
		{"services without STS", "[profile p]\nendpoint_url = https://all.example\nservices = dev\n[services dev]\ns3 =\n  endpoint_url = https://s3.example\n", "",
			profiles.Chain{Key: "p", Endpoint: "https://all.example", IAMEndpoint: "https://all.example"}, "$C:1 p", nil},
		{"IAM's own endpoint", "[profile p]\nendpoint_url = https://all.example\nservices = dev\n[services dev]\niam =\n  endpoint_url = https://iam.example\n", "",
			profiles.Chain{Key: "p", Endpoint: "https://all.example", IAMEndpoint: "https://iam.example"}, "$C:1 p", nil},
		{"a bad endpoint of IAM is no matter of sessions", "[profile p]\nservices = dev\n[services dev]\niam =\n  endpoint_url = gopher://a\n", "",
			profiles.Chain{Key: "p", IAMEndpoint: "gopher://a"}, "$C:1 p", nil},
		{"services with IAM without a block", "[profile p]\nendpoint_url = https://all.example\nservices = dev\n[services dev]\niam = http://a\n", "",
			profiles.Chain{Key: "p", Endpoint: "https://all.example", IAMEndpoint: "https://all.example"}, "$C:1 p", []string{`$C:5: profile "p": iam: the settings of iam must stand on the lines below it, indented`}},
		{"endpoints to be ignored", "[profile p]\nendpoint_url = https://all.example\nignore_configured_endpoint_urls = True\n", "", profiles.Chain{Key: "p"}, "$C:1 p", nil},

		{"adopted", "[profile p]\ngatepass_role_arn = " + roleA + "\ncredential_process = /home/al/bin/gatepass credential-process p\n", "",
			profiles.Chain{Key: "p", Adopted: true, Hops: hops(hopP)}, "$C:1 p", nil},
		{"adopted, with quotes and flags", "[profile p]\ncredential_process = \"/home/al ice/gatepass\" --quiet credential-process 'p'\n", "", profiles.Chain{Key: "p", Adopted: true}, "$C:1 p", nil},
		{"adopted source", "[profile p]\n" + role + "source_profile = q\n[profile q]\ncredential_process = /bin/gatepass credential-process q\n", "", profiles.Chain{Key: "q", Hops: hops(hopP)}, "$C:4 q", nil},
		{"another program beside a role with a source", "[profile p]\n" + role + "source_profile = q\ncredential_process = x\nsso_session = y\n[profile q]\n", "", profiles.Chain{Key: "q", Hops: hops(hopP)}, "$C:6 q",
			[]string{`$C:5: profile "p": sso_session: is not used`, `$C:4: profile "p": credential_process: is not used`}},
		{"aws-vault's keys", "[profile p]\n" + role + "session_tags = a=b\nsource_identity = al\ngatepass_source_identity = al\nparent_profile = q\n", "", profiles.Chain{Key: "p", Hops: hops(profiles.Hop{Profile: "p", RoleARN: roleA, SourceIdentity: "al"})}, "$C:1 p",
			[]string{`$C:3: profile "p": session_tags: is read by aws-vault alone: write gatepass_session_tags instead`, `$C:6: profile "p": parent_profile: is read by aws-vault alone: write include_profile`}},
		{"another program, but a key all the same", "[profile p]\ngatepass_key = k\ncredential_process = x\n", "", profiles.Chain{Key: "k"}, "=$C:2 p", []string{`credential_process: is not used`}},
		{"a source elsewhere, but a key all the same", "[profile p]\n" + role + "source_profile = q\ngatepass_key = k\n[profile q]\nsso_session = x\n", "", profiles.Chain{Key: "k", Hops: hops(hopP)}, "=$C:4 p", []string{`$C:6: profile "q": sso_session: is not used`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := write(t, tt.config, tt.credentials)
			got, err := profiles.NewReader().Resolve(files, "p")
			if err != nil {
				t.Fatal(err)
			}
			place := strings.NewReplacer("$C", files.Config, "$K", files.Credentials)
			from := fmt.Sprintf("%s:%d %s", got.KeyFrom.File, got.KeyFrom.Line, got.KeyFrom.Profile)
			if got.KeyFrom.Explicit {
				from = "=" + from
			}
			if want := place.Replace(tt.from); from != want {
				t.Errorf("the key is from %s; want %s", from, want)
			}
			if len(got.Notes) != len(tt.notes) {
				t.Errorf("notes %q; want %q", got.Notes, tt.notes)
			} else {
				for i, n := range tt.notes {
					if !strings.Contains(got.Notes[i], place.Replace(n)) || strings.Contains(got.Notes[i], "hunter2") {
						t.Errorf("note %q; want %q", got.Notes[i], place.Replace(n))
					}
				}
			}
			tt.want.Profile = "p"
			got.KeyFrom, got.Notes, got.Way = profiles.KeyFrom{}, nil, nil
			if !reflect.DeepEqual(*got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", *got, tt.want)
			}
		})
	}
}

// A file that the user did not vouch for neither redirects nor runs anything.
func TestUntrusted(t *testing.T) {
	files := write(t, `[profile p]
role_arn = `+roleA+`
mfa_process = touch /tmp/x
endpoint_url = http://evil.example
source_profile = q
[profile q]
gatepass_mfa_process = touch /tmp/y
[profile s]
services = dev
[services dev]
sts =
  endpoint_url = http://evil.example
iam =
  endpoint_url = http://evil.example/iam
`, "")
	files.Trusted = false
	r := profiles.NewReader()
	for _, tt := range []struct {
		profile string
		notes   []string
	}{
		{"p", []string{":3: profile \"p\": mfa_process: does not count", ":7: profile \"q\": gatepass_mfa_process: does not count", ":4: profile \"p\": endpoint_url: does not count"}},
		{"s", []string{":11: profile \"s\": endpoint_url: does not count", ":13: profile \"s\": endpoint_url: does not count"}},
	} {
		c, err := r.Resolve(files, tt.profile)
		if err != nil {
			t.Fatal(err)
		}
		if c.Endpoint != "" || c.IAMEndpoint != "" || c.MFAProcess != "" || len(c.Hops) > 0 && c.Hops[0].MFAProcess != "" {
			t.Errorf("%s: endpoint %q, processes %q and %+v count", tt.profile, c.Endpoint, c.MFAProcess, c.Hops)
		}
		if len(c.Notes) != len(tt.notes) {
			t.Fatalf("%s: notes %q", tt.profile, c.Notes)
		}
		for i := range tt.notes {
			if !strings.Contains(c.Notes[i], tt.notes[i]) {
				t.Errorf("%s: note %q; want %q", tt.profile, c.Notes[i], tt.notes[i])
			}
		}
	}
	// The same files, trusted, are another matter for the same Reader.
	files.Trusted = true
	c, err := r.Resolve(files, "p")
	if err != nil || c.Endpoint != "http://evil.example" || c.IAMEndpoint != c.Endpoint || c.Hops[0].MFAProcess != "touch /tmp/x" || c.MFAProcess != "touch /tmp/y" {
		t.Errorf("trusted: %+v, %v", c, err)
	}
}

// Names that would mean something to a shell are names like any other.
func TestOddNames(t *testing.T) {
	config := "[profile \"a b\"]\ngatepass_key=1\n[profile ;$(reboot)]\ngatepass_key=2\n[profile a\\ c]\ngatepass_key=3\n[profile 'x]y']\ngatepass_key=4\n[profile ü/@%+:.]\ngatepass_key=5\n[profile default]\ngatepass_key=6\n"
	for name, key := range map[string]string{"a b": "1", ";$(reboot)": "2", "a c": "3", "x]y": "4", "ü/@%+:.": "5", "default": "6"} {
		c, err := resolve(t, config, "", name)
		if err != nil || c.Key != key {
			t.Errorf("Resolve(%q) = %+v, %v; want key %s", name, c, err, key)
		}
	}
}

// A long chain neither recurses nor squares.
func TestLongChain(t *testing.T) {
	const n = 20000
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "[profile p%d]\nrole_arn = %s\nsource_profile = p%d\n", i, roleA, i+1)
	}
	fmt.Fprintf(&b, "[profile p%d]\n", n)
	c, err := resolve(t, b.String(), "", "p0")
	if err != nil || len(c.Hops) != n || c.Key != fmt.Sprintf("p%d", n) || c.Hops[0].Profile != fmt.Sprintf("p%d", n-1) {
		t.Fatalf("%d hops over %q, %v", len(c.Hops), c.Key, err)
	}
	_, err = resolve(t, strings.Replace(b.String(), fmt.Sprintf("[profile p%d]", n), fmt.Sprintf("[profile p%d]\nsource_profile=p7", n), 1), "", "p0")
	if err == nil || len(err.Error()) > 1000 || !strings.Contains(err.Error(), `(p0 → p1 → p2 → p3 → … → p19997 → p19998 → p19999 → p20000 → ✗ p7)`) {
		t.Errorf("a long loop: %.2000v", err)
	}
}
