package profiles

import (
	"strings"
	"testing"
)

func TestPlaintext(t *testing.T) {
	e := edited(t,
		"[DEFAULT]\naws_access_key_id = AKIAD\n[profile a]\naws_access_key_id = AKIA1\naws_secret_access_key = s1\n[profile b]\nAWS_Access_Key_Id = AKIA2\naws_secret_access_key = s2\n[sso-session x]\naws_access_key_id = AKIAX\n",
		"[default]\naws_access_key_id=AKIA0\naws_secret_access_key = s0\n[b]\naws_access_key_id = AKIA3\naws_secret_access_key = s3\n[t]\naws_access_key_id = ASIA\naws_secret_access_key = st\naws_session_token = t\n[half]\naws_secret_access_key = sh\n[empty]\naws_access_key_id = AKIAE\naws_secret_access_key =\n[none]\nregion = eu-west-1\n[a]\naws_access_key_id = AKIA1\naws_secret_access_key = s1\n")
	found, err := e.Plaintext()
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ profile, id, secret, problem string }{
		{"default", "AKIA0", "s0", ""},
		{"b", "AKIA3", "", "different keys"},
		{"t", "ASIA", "", "temporary"},
		{"half", "", "", "half"},
		{"empty", "AKIAE", "", "empty"},
		{"a", "AKIA1", "s1", ""},
		{"DEFAULT", "AKIAD", "", "every profile"},
	}
	if len(found) != len(want) {
		t.Fatalf("%+v", found)
	}
	for i, w := range want {
		f := found[i]
		if f.Profile != w.profile || f.AccessKeyID != w.id || string(f.Secret) != w.secret || (f.Problem == "") != (w.problem == "") || !strings.Contains(f.Problem, w.problem) {
			t.Errorf("%+v, want %+v", f, w)
		}
	}
}

func TestRemovePlaintext(t *testing.T) {
	tests := []struct{ name, profile, config, credentials, config2, credentials2 string }{
		{"a section of its own", "a", "[profile a]\n", "# top\n[a]\naws_access_key_id = AKIA\naws_secret_access_key = s\n\n[b]\nx = 1\n", "[profile a]\n", "# top\n[b]\nx = 1\n"},
		{"the last one, without an end", "a", "", "[b]\nx = 1\n[a]\naws_access_key_id = AKIA\naws_secret_access_key = s", "", "[b]\nx = 1"},
		{"other keys stay", "a", "", "[a]\r\nregion = eu-west-1\r\naws_access_key_id = AKIA\r\naws_secret_access_key = s\r\noutput = json\r\n", "", "[a]\r\nregion = eu-west-1\r\noutput = json\r\n"},
		{"comments stay", "a", "", "[a]\n# Bob's\naws_access_key_id = AKIA\naws_secret_access_key = s\n", "", "[a]\n# Bob's\n"},
		{"the config file", "a", "[profile a]\naws_access_key_id = AKIA\naws_secret_access_key = s\nregion = eu-west-1\n", "", "[profile a]\nregion = eu-west-1\n", ""},
		{"both", "default", "[default]\naws_access_key_id = AKIA\naws_secret_access_key = s\n", "[default]\naws_access_key_id = AKIA\naws_secret_access_key = s\n", "[default]\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := edited(t, tt.config, tt.credentials)
			if err := e.RemovePlaintext(tt.profile); err != nil {
				t.Fatal(err)
			}
			if got := string(e.config.data); got != tt.config2 {
				t.Errorf("config: %q, want %q", got, tt.config2)
			}
			if got := string(e.credentials.data); got != tt.credentials2 {
				t.Errorf("credentials: %q, want %q", got, tt.credentials2)
			}
			if err := e.Save(); err != nil {
				t.Fatal(err)
			}
			if left, err := e.Plaintext(); err != nil || len(left) > 0 {
				t.Errorf("%v, %v", left, err)
			}
		})
	}
}

// A key deeper than the one that goes would become part of the one before it.
func TestRemovePlaintextOddLayout(t *testing.T) {
	const text = "[a]\nregion = eu-west-1\naws_access_key_id = AKIA\n# c\naws_secret_access_key = s\n  [b]\n  x = 1\n"
	e := edited(t, "", text)
	if err := e.RemovePlaintext("a"); err == nil {
		if s, cerr := parse(e.credentials.data); cerr != nil || len(s.sections) < 1 {
			t.Errorf("%v\n%s", cerr, e.credentials.data)
		}
	} else if string(e.credentials.data) != text {
		t.Errorf("refused, and changed:\n%s", e.credentials.data)
	}
}

// The profile whose key leaves is adopted, made where it is missing, and so
// are those that start with it.
func TestAdoptLeaving(t *testing.T) {
	e := edited(t, "[profile ops]\nrole_arn = arn:aws:iam::111122223333:role/Ops\nsource_profile = a\n[profile own]\nrole_arn = arn:aws:iam::111122223333:role/Own\nsource_profile = a\ngatepass_key = k",
		"[a]\naws_access_key_id = AKIA\naws_secret_access_key = s\nregion = eu-west-1\n")
	if through := e.Through("a"); len(through) != 1 || through[0] != "ops" {
		t.Fatal(through)
	}
	e.Leave("a")
	if err := onlyError(e.Adopt(program, "a", "ops")); err != nil {
		t.Fatal(err)
	}
	want := "[profile ops]\n# gatepass profiles adopt moved: role_arn source_profile\ncredential_process = /home/alice/.local/bin/gatepass credential-process ops\n" +
		"gatepass_role_arn = arn:aws:iam::111122223333:role/Ops\ngatepass_source_profile = a\n[profile own]\nrole_arn = arn:aws:iam::111122223333:role/Own\nsource_profile = a\ngatepass_key = k" +
		"\n\n[profile a]\n# gatepass profiles adopt moved: nothing\ncredential_process = /home/alice/.local/bin/gatepass credential-process a"
	if got := string(e.config.data); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := e.RemovePlaintext("a"); err != nil {
		t.Fatal(err)
	}
	if err := e.Save(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "ops"} {
		if chain, err := NewReader().Resolve(e.files, name); err != nil || chain.Key != "a" || !chain.Adopted {
			t.Errorf("%s: %+v, %v", name, chain, err)
		}
	}
	// It is no longer leaving.
	again := edited(t, "", "[a]\naws_access_key_id = AKIA\naws_secret_access_key = s\n")
	if err := onlyError(again.Adopt(program, "a")); err == nil {
		t.Error("adopted beside plaintext keys")
	}
	// A config that was empty ends its last line: others append to it.
	again.Leave("a")
	if err := onlyError(again.Adopt(program, "a")); err != nil {
		t.Fatal(err)
	}
	if got := string(again.config.data); got != "[profile a]\n# gatepass profiles adopt moved: nothing\ncredential_process = /home/alice/.local/bin/gatepass credential-process a\n" {
		t.Errorf("got\n%s", got)
	}
}

func FuzzRemovePlaintext(f *testing.F) {
	f.Add("[a]\naws_access_key_id = AKIA\naws_secret_access_key = s\n[b]\nregion = x\n", "a")
	f.Add("[a]\r\n aws_access_key_id: AKIA\r\n  more\r\n ; c\r\n aws_secret_access_key = s", "a")
	f.Fuzz(func(t *testing.T, text, name string) {
		before, err := newProfileSet(Files{Credentials: "/c"}, nil, []byte(text), keep)
		if err != nil {
			return
		}
		e := &Editor{files: Files{Credentials: "/c"}, leaving: map[string]bool{}, credentials: document{path: "/c", old: []byte(text), data: []byte(text)}}
		if err := e.RemovePlaintext(name); err != nil {
			return
		}
		after, err := newProfileSet(Files{Credentials: "/c"}, nil, e.credentials.data, keep)
		if err != nil {
			t.Fatalf("%v\n%q", err, e.credentials.data)
		}
		for other, p := range before.profiles {
			q := after.profiles[other]
			if other == name {
				continue
			}
			if q == nil || len(p.settings) != len(q.settings) {
				t.Fatalf("profile %q changed:\n%q\n%q", other, text, e.credentials.data)
			}
			for i := range p.settings {
				if p.settings[i].key != q.settings[i].key || p.settings[i].value != q.settings[i].value {
					t.Fatalf("profile %q changed:\n%q\n%q", other, text, e.credentials.data)
				}
			}
		}
	})
}
