package profiles_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"gatepass/profiles"
)

// What include_profile gives, and what it does not.
func TestInclude(t *testing.T) {
	role := "role_arn = " + roleA + "\n"
	hop := profiles.Hop{Profile: "p", RoleARN: roleA}
	tests := []struct {
		name, config, credentials string
		want                      profiles.Chain // less Profile, Way, KeyFrom and Notes
	}{
		{"a role", "[profile p]\ninclude_profile = q\n[profile q]\n" + role, "", profiles.Chain{Key: "p", Hops: []profiles.Hop{hop}}},
		{"what makes a role", "[profile p]\n" + role + "include_profile = q\n[profile q]\nexternal_id = xx\nmfa_serial = GAHT12345678\nmfa_process = otp\nrole_session_name = al\nduration_seconds = 7200\nregion = eu-west-1\nsource_profile = s\n[profile s]\n", "",
			profiles.Chain{Key: "s", Region: "eu-west-1", STSRegion: "eu-west-1", Hops: []profiles.Hop{{Profile: "p", RoleARN: roleA, ExternalID: "xx", MFASerial: "GAHT12345678", MFAProcess: "otp", SessionName: "al", Duration: 2 * time.Hour}}}},
		{"of an adopted profile", "[profile p]\ninclude_profile = q\n[profile q]\ngatepass_role_arn = " + roleA + "\ngatepass_session_tags = a=b\ngatepass_transitive_tags = a\ngatepass_source_identity = al\ngatepass_serve = env\ncredential_process = /bin/gatepass credential-process q\n", "",
			profiles.Chain{Key: "p", Serve: "env", Hops: []profiles.Hop{{Profile: "p", RoleARN: roleA, SourceIdentity: "al", Tags: []profiles.Tag{{Key: "a", Value: "b"}}, TransitiveTags: []string{"a"}}}}},
		{"an adopted profile's own process stays", "[profile p]\ninclude_profile = q\ncredential_process = /bin/gatepass credential-process p\n[profile q]\n" + role + "credential_process = x\n", "",
			profiles.Chain{Key: "p", Adopted: true, Hops: []profiles.Hop{hop}}},
		{"its own keys win", "[profile p]\n" + role + "region = eu-west-1\ninclude_profile = q\n[profile q]\nrole_arn = " + roleB + "\nregion = us-east-1\n", "",
			profiles.Chain{Key: "p", Region: "eu-west-1", STSRegion: "eu-west-1", Hops: []profiles.Hop{hop}}},
		{"its own keys win in the other form", "[profile p]\ngatepass_role_arn = " + roleA + "\ngatepass_duration = 2h\ninclude_profile = q\n[profile q]\nrole_arn = " + roleB + "\nduration_seconds = 900\n", "",
			profiles.Chain{Key: "p", Hops: []profiles.Hop{{Profile: "p", RoleARN: roleA, Duration: 2 * time.Hour}}}},
		{"the nearest wins", "[profile p]\ninclude_profile = q\n[profile q]\n" + role + "include_profile = r\n[profile r]\nrole_arn = " + roleB + "\nexternal_id = xx\n", "",
			profiles.Chain{Key: "p", Hops: []profiles.Hop{{Profile: "p", RoleARN: roleA, ExternalID: "xx"}}}},
		{"an empty value is none", "[profile p]\nregion =\ninclude_profile = q\n[profile q]\nregion = eu-west-1\n", "", profiles.Chain{Key: "p", Region: "eu-west-1", STSRegion: "eu-west-1"}},
		{"an empty name is none", "[profile p]\ninclude_profile =\n", "", profiles.Chain{Key: "p"}},
		{"default is not included by itself", "[default]\n" + role + "[profile p]\ninclude_profile = q\n[profile q]\n", "", profiles.Chain{Key: "p"}},
		{"default by name", "[default]\n" + role + "[profile p]\ninclude_profile = default\n", "", profiles.Chain{Key: "p", Hops: []profiles.Hop{hop}}},
		{"the source's includes", "[profile p]\n" + role + "source_profile = s\n[profile s]\ninclude_profile = q\n[profile q]\nrole_arn = " + roleB + "\n", "",
			profiles.Chain{Key: "s", Hops: []profiles.Hop{{Profile: "s", RoleARN: roleB}, hop}}},
		{"a source that is the profile itself", "[profile p]\n" + role + "include_profile = q\n[profile q]\nsource_profile = p\n", "", profiles.Chain{Key: "p", Hops: []profiles.Hop{hop}}},
		{"a key", "[profile p]\n" + role + "include_profile = q\n[profile q]\ngatepass_key = k\n", "", profiles.Chain{Key: "k", Hops: []profiles.Hop{hop}}},
		{"a key yields to a source", "[profile p]\n" + role + "source_profile = s\ninclude_profile = q\n[profile q]\ngatepass_key = k\n[profile s]\n", "", profiles.Chain{Key: "s", Hops: []profiles.Hop{hop}}},
		{"no plaintext keys", "[profile p]\n" + role + "include_profile = q\nsource_profile = s\n[profile s]\n", "[q]\naws_access_key_id = x\naws_secret_access_key = hunter2\n", profiles.Chain{Key: "s", Hops: []profiles.Hop{hop}}},
		{"no endpoint", "[profile p]\ninclude_profile = q\n[profile q]\nendpoint_url = http://a\n", "", profiles.Chain{Key: "p"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := resolve(t, tt.config, tt.credentials, "p")
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Notes) > 0 {
				t.Errorf("notes %q", got.Notes)
			}
			tt.want.Profile = "p"
			got.KeyFrom, got.Notes, got.Way = profiles.KeyFrom{}, nil, nil
			if !reflect.DeepEqual(*got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", *got, tt.want)
			}
		})
	}
}

func TestIncludeRefuses(t *testing.T) {
	var deep strings.Builder
	for i := range 100 {
		fmt.Fprintf(&deep, "[profile p%d]\ninclude_profile = p%d\n", i, i+1)
	}
	tests := []struct{ name, config, want string }{
		{"a loop of one", "[profile p]\ninclude_profile = p\n", `$C:2: profile "p": include_profile: leads back to profile "p" (p → ✗ p)`},
		{"a loop of two", "[profile p]\ninclude_profile = q\n[profile q]\ninclude_profile = p\n", `$C:4: profile "q": include_profile: leads back to profile "p" (p → q → ✗ p)`},
		{"a loop not through the start", "[profile p]\ninclude_profile = q\n[profile q]\ninclude_profile = r\n[profile r]\ninclude_profile = q\n", `(p → q → r → ✗ q)`},
		{"a loop in a source", "[profile p]\nsource_profile = s\n[profile s]\ninclude_profile = s\n", `$C:4: profile "s": include_profile: leads back to profile "s" (s → ✗ s)`},
		{"none of that name", "[profile p]\ninclude_profile = bose\n[profile base]\n", `include_profile: there is no profile "bose" (p → ✗ bose); did you mean "base"?`},
		{"a name with a control character", "[profile p]\ninclude_profile = a\x1bb\n", `include_profile: a name must not hold control`},
		{"SSO", "[profile p]\ninclude_profile = q\n[profile q]\nsso_session = corp\n", `$C:4: profile "p": sso_session: the profile takes its credentials from IAM Identity Center`},
		{"a web identity", "[profile p]\ninclude_profile = q\n[profile q]\nweb_identity_token_file = /x\n", `web_identity_token_file: the profile takes`},
		{"another program", "[profile p]\ninclude_profile = q\n[profile q]\ncredential_process = x\n", `credential_process: the profile takes its credentials from another program`},
		{"a role that is none", "[profile p]\ninclude_profile = q\n[profile q]\nrole_arn = x\n", `$C:4: profile "p": role_arn: "x" is not the ARN`},
		{"a misspelt key", "[profile p]\ninclude_profile = q\n[profile q]\ngatepass_rolearn = x\n", `$C:4: profile "q": "gatepass_rolearn": there is no such key`},
		{"without end", "[profile p]\ninclude_profile = p0\n" + deep.String(), `more than 64 profiles include one another`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := write(t, tt.config, "")
			chain, err := profiles.NewReader().Resolve(files, "p")
			var ce *profiles.ConfigError
			if !errors.As(err, &ce) {
				t.Fatalf("got %+v, %v; want a *ConfigError", chain, err)
			}
			if want := strings.ReplaceAll(tt.want, "$C", files.Config); !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not say %q", err, want)
			}
		})
	}
}

// The drawing of a broken chain is one line of plain text, whatever the names.
func TestDraw(t *testing.T) {
	for _, tt := range []struct {
		way           []string
		what, missing string
		want          string
	}{
		{[]string{"prod"}, "key ", "base", "prod → ✗ key base"},
		{[]string{"prod", "hub"}, "", "bas", "prod → hub → ✗ bas"},
		{[]string{"a b", "$(x)", "a\x1b[31mb", "a\u202eb"}, "key ", `"`, `"a b" → "$(x)" → "a\x1b[31mb" → "a\u202eb" → ✗ key "\""`},
		{[]string{"1", "2", "3", "4", "5", "6", "7", "8"}, "", "x", "1 → 2 → 3 → 4 → 5 → 6 → 7 → 8 → ✗ x"},
		{[]string{"1", "2", "3", "4", "5", "6", "7", "8", "9"}, "", "x", "1 → 2 → 3 → 4 → … → 6 → 7 → 8 → 9 → ✗ x"},
		{[]string{"→"}, "", "", `"→" → ✗ ""`},
	} {
		if got := (&profiles.Chain{Way: tt.way}).Draw(tt.what, tt.missing); got != tt.want {
			t.Errorf("%q: %s; want %s", tt.way, got, tt.want)
		}
	}
	long := (&profiles.Chain{Way: []string{strings.Repeat("x", 512)}}).Draw("", strings.Repeat("\x00", 512))
	if len(long) > 800 {
		t.Errorf("%d bytes", len(long))
	}
}
