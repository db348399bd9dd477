package profiles

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestVaultCommand(t *testing.T) {
	for command, want := range map[string]string{
		"aws-vault exec --json ops":                           "ops",
		"/opt/aws-vault export --format=json ops":             "ops format=json",
		`"/opt/my tools/aws-vault" exec -j 'my ops'`:          "my ops",
		"aws-vault --backend file exec ops -d 1h --json":      "ops backend=file d=1h",
		"aws-vault --backend=pass --pass-prefix=aws exec ops": "ops backend=pass pass-prefix=aws",
		"aws-vault exec ops -- ./mine":                        "",
		"aws-vault exec ops ./mine":                           "",
		"aws-vault list ops":                                  "",
		"aws-vault exec":                                      "",
		"aws-vault exec --backend":                            "",
		"my-aws-vault exec --json ops":                        "",
		"aws-vault exec 'ops":                                 "",
	} {
		line, ok := vaultCommand(command)
		got := line.profile
		for _, name := range slices.Sorted(maps.Keys(line.flags)) {
			got += " " + name + "=" + line.flags[name]
		}
		if ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %v, want %q", command, got, ok, want)
		}
	}
}

func TestVaultFlags(t *testing.T) {
	e := edited(t, "[profile a]\ncredential_process = aws-vault --backend=file exec --json a\n[profile b]\ncredential_process = aws-vault --backend=file exec --json b\n"+
		"[profile c]\ncredential_process = aws-vault exec --json c\n[profile d]\ncredential_process = other --backend=pass exec --json d\n",
		"[e]\ncredential_process = aws-vault --backend=pass exec e\n")
	got := e.VaultFlags()
	want := []map[string]string{{"backend": "file"}, {}, {"backend": "pass"}}
	if !slices.EqualFunc(got, want, maps.Equal) {
		t.Errorf("%v, want %v", got, want)
	}
}

const vaultRole = "role_arn = arn:aws:iam::111122223333:role/R\n"

// Whatever aws-vault would serve with a key is found, the nearest first, and
// nothing else.
func TestThroughVault(t *testing.T) {
	e := edited(t, "[default]\ncredential_process = aws-vault exec --json default\n"+
		"[profile deep]\n"+vaultRole+"source_profile = ops\ncredential_process = aws-vault exec --json deep\n"+
		"[profile ops]\n"+vaultRole+"source_profile = work\ncredential_process = aws-vault exec --json ops\n"+
		"[profile work]\ncredential_process = aws-vault exec --json work\n"+
		"[profile bare]\n"+vaultRole+"source_profile = work\ninclude_profile = default\n"+
		"[profile elsewhere]\ncredential_process = aws-vault export --format=json ops\n"+
		"[profile said]\n"+vaultRole+"source_profile = work\ngatepass_key = other\n"+
		"[profile saidtoo]\n"+vaultRole+"source_profile = work\ngatepass_key = other\ncredential_process = aws-vault exec --json saidtoo\n"+
		"[profile my ops]\n[profile \"my role\"]\n"+vaultRole+"source_profile = work\ncredential_process = aws-vault exec --json 'my role'\n"+
		"[profile nobody]\n"+vaultRole+"source_profile = unlisted\n"+
		"[profile foreign]\nsource_profile = work\ncredential_process = other-program\n"+
		"[profile between]\nsource_profile = work\ncredential_process = aws-vault exec --json between\n[profile beyond]\n"+vaultRole+"source_profile = between\n"+
		"[profile sso]\nsso_session = x\nsource_profile = work\n",
		"[static]\naws_access_key_id = AKIA\naws_secret_access_key = s\n")
	kept := []string{"work", "unlisted", "static", "default", "between"}
	for key, want := range map[string][][]string{
		"work":     {{"bare", "my role", "ops", "saidtoo"}, {"deep", "elsewhere"}},
		"unlisted": {{"nobody"}},
		"static":   nil,
		"default":  nil,
		"between":  {{"beyond"}}, // though its source is work
	} {
		if got := e.ThroughVault(key, kept); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

// aws-vault gives every profile what [default] says; SDKs and gatepass do not.
// An adopted profile goes on having it, and loses it when it is restored.
func TestAdoptVaultDefaults(t *testing.T) {
	const mfa = "mfa_serial = arn:aws:iam::111122223333:mfa/alice\n"
	for _, tt := range []struct {
		name, before, profile string
		vaulted               bool
		includes              bool
		says                  string
	}{
		{"a line", "[default]\n" + mfa + "[profile work]\ncredential_process = aws-vault exec --json work\n", "work", false, true, ""},
		{"a line, and default has one", "[default]\ncredential_process = aws-vault exec --json default\n" + mfa + "[profile work]\ncredential_process = aws-vault exec --json work\n", "work", false, true, ""},
		{"no line", "[default]\n" + mfa + "[profile work]\n", "work", true, true, ""},
		{"no section", "[default]\n" + mfa, "work", true, true, ""},
		{"default's source", "[default]\nsource_profile = base\n[profile base]\n[profile ops]\n" + vaultRole + "credential_process = aws-vault exec --json ops\n", "ops", false, true, ""},
		{"not of aws-vault", "[default]\n" + mfa + "[profile work]\n", "work", false, false, ""},
		{"its own", "[default]\n" + mfa + "[profile work]\n" + mfa + "credential_process = aws-vault exec --json work\n", "work", false, false, ""},
		{"a region is the SDK's", "[default]\nregion = eu-west-1\n[profile work]\ncredential_process = aws-vault exec --json work\n", "work", false, false, ""},
		{"default itself", "[default]\n" + mfa + "credential_process = aws-vault exec --json default\n", "default", false, false, ""},
		{"it includes default", "[default]\n" + mfa + "[profile work]\ninclude_profile = default\ncredential_process = aws-vault exec --json work\n", "work", false, false, ""},
		{"it includes another", "[default]\n" + mfa + "[profile common]\n[profile work]\ninclude_profile = common\ncredential_process = aws-vault exec --json work\n", "work", false, false, "include_profile = default\" into profile \"common\""},
		{"for another", "[default]\n" + mfa + "[profile base]\n[profile work]\ncredential_process = aws-vault exec --json base\n", "work", false, false, "into profile \"base\""},
		{"default is not for us", "[default]\nsso_session = x\n" + mfa + "[profile work]\ncredential_process = aws-vault exec --json work\n", "work", false, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := edited(t, tt.before, "")
			if tt.vaulted {
				e.FromVault(tt.profile)
			}
			err := onlyError(e.Adopt(program, tt.profile))
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) || string(e.config.data) != tt.before {
					t.Errorf("%v\n%s", err, e.config.data)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(string(e.config.data), "+include_profile"); got != tt.includes {
				t.Errorf("includes: %v\n%s", got, e.config.data)
			}
			if err := e.Save(); err != nil {
				t.Fatal(err)
			}
			chain, err := NewReader().Resolve(e.files, tt.profile)
			if err != nil || !chain.Adopted || tt.includes && chain.MFASerial == "" && chain.Key != "base" {
				t.Errorf("%+v, %v\n%s", chain, err, e.config.data)
			}
			if again := e.Adopt(program, tt.profile); again[0].Err != nil || !again[0].Already {
				t.Errorf("again: %+v", again[0])
			}
			if err := onlyError(e.Restore(tt.profile)); err != nil {
				t.Fatal(err)
			}
			want := tt.before
			if tt.name == "no section" {
				want += "\n[profile work]\n"
			}
			if got := string(e.config.data); got != want {
				t.Errorf("restored:\n%q\nwant\n%q", got, want)
			}
		})
	}
}

// A profile that only aws-vault knew gets a section; nobody else does.
func TestAdoptFromVault(t *testing.T) {
	e := edited(t, "[profile ops]\n"+vaultRole+"source_profile = work", "")
	if err := onlyError(e.Adopt(program, "work")); err == nil {
		t.Error("made a profile of nothing")
	}
	e.FromVault("work")
	e.FromVault("a b")
	if err := onlyError(e.Adopt(program, "a b")); err == nil {
		t.Error("made a profile whose name cannot be served")
	}
	for _, group := range append([][]string{{"work"}}, e.ThroughVault("work", []string{"work"})...) {
		if err := onlyError(e.Adopt(program, group...)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Save(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"work", "ops"} {
		if chain, err := NewReader().Resolve(e.files, name); err != nil || chain.Key != "work" || !chain.Adopted {
			t.Errorf("%s: %+v, %v", name, chain, err)
		}
	}
}
