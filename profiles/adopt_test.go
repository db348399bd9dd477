package profiles

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const program = "/home/alice/.local/bin/gatepass"

// edited writes the files and opens an editor of them.
func edited(t testing.TB, config, credentials string) *Editor {
	t.Helper()
	dir := t.TempDir()
	files := Files{Config: filepath.Join(dir, "config"), Credentials: filepath.Join(dir, "credentials")}
	for path, text := range map[string]string{files.Config: config, files.Credentials: credentials} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e, err := OpenEditor(files)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func onlyError(results []Adoption) error {
	for _, r := range results {
		if r.Err != nil {
			return r.Err
		}
	}
	return nil
}

func TestAdoptAndRestore(t *testing.T) {
	tests := []struct{ name, profile, before, after string }{
		{"role", "ops", "# mine\n[profile base]\nregion = eu-west-1\n\n[profile ops] ; the dangerous one\n# role of the team\nrole_arn = arn:aws:iam::111122223333:role/Ops\nSource_Profile=base\nregion: eu-west-1\noutput = json\n",
			"# mine\n[profile base]\nregion = eu-west-1\n\n[profile ops] ; the dangerous one\n# gatepass profiles adopt moved: role_arn Source_Profile\ncredential_process = /home/alice/.local/bin/gatepass credential-process ops\n# role of the team\ngatepass_role_arn = arn:aws:iam::111122223333:role/Ops\ngatepass_Source_Profile=base\nregion: eu-west-1\noutput = json\n"},
		{"no role", "base", "[profile base]\nregion = eu-west-1\n",
			"[profile base]\n# gatepass profiles adopt moved: nothing\ncredential_process = /home/alice/.local/bin/gatepass credential-process base\nregion = eu-west-1\n"},
		{"default at the end of the file", "default", "[default]",
			"[default]\n# gatepass profiles adopt moved: nothing\ncredential_process = /home/alice/.local/bin/gatepass credential-process default"},
		{"everything", "a", "[profile k]\r\n[profile a]\r\n  role_arn = arn:aws:iam::111122223333:role/A\r\n  source_profile = k\r\n  mfa_serial = arn:aws:iam::111122223333:mfa/alice\r\n  external_id = x1\r\n  role_session_name = me\r\n  Duration_Seconds = 1800\r\n  s3 =\r\n    max_concurrent_requests = 3\r\n",
			"[profile k]\r\n[profile a]\r\n  # gatepass profiles adopt moved: role_arn source_profile mfa_serial external_id role_session_name Duration_Seconds\r\n  credential_process = /home/alice/.local/bin/gatepass credential-process a\r\n  gatepass_role_arn = arn:aws:iam::111122223333:role/A\r\n  gatepass_source_profile = k\r\n  gatepass_mfa_serial = arn:aws:iam::111122223333:mfa/alice\r\n  gatepass_external_id = x1\r\n  gatepass_role_session_name = me\r\n  gatepass_duration = 1800\r\n  s3 =\r\n    max_concurrent_requests = 3\r\n"},
		{"own twins stay", "a", "[profile a]\ngatepass_key = k\ngatepass_duration = 1h\nrole_arn = arn:aws:iam::111122223333:role/A\n",
			"[profile a]\n# gatepass profiles adopt moved: role_arn\ncredential_process = /home/alice/.local/bin/gatepass credential-process a\ngatepass_key = k\ngatepass_duration = 1h\ngatepass_role_arn = arn:aws:iam::111122223333:role/A\n"},
		{"both forms", "a", "[profile a]\ngatepass_key = k\nrole_arn = arn:aws:iam::111122223333:role/A\ngatepass_role_arn = arn:aws:iam::111122223333:role/A\n",
			"[profile a]\n# gatepass profiles adopt moved: nothing\ncredential_process = /home/alice/.local/bin/gatepass credential-process a\ngatepass_key = k\n# gatepass profiles adopt replaced: role_arn = arn:aws:iam::111122223333:role/A\ngatepass_role_arn = arn:aws:iam::111122223333:role/A\n"},
		{"aws-vault", "a", "[profile a]\n\tcredential_process = aws-vault --backend=file exec -d 1h --json a\n\trole_arn = arn:aws:iam::111122223333:role/A\n\tgatepass_key = k",
			"[profile a]\n\t# gatepass profiles adopt moved: role_arn\n\tcredential_process = /home/alice/.local/bin/gatepass credential-process a\n# gatepass profiles adopt replaced: \tcredential_process = aws-vault --backend=file exec -d 1h --json a\n\tgatepass_role_arn = arn:aws:iam::111122223333:role/A\n\tgatepass_key = k"},
		{"aws-vault for another", "a", "[profile b]\nrole_arn = arn:aws:iam::111122223333:role/B\ngatepass_key = k\n[profile a]\ncredential_process = /opt/aws-vault export --format=json b\n",
			"[profile b]\nrole_arn = arn:aws:iam::111122223333:role/B\ngatepass_key = k\n[profile a]\n# gatepass profiles adopt moved: +gatepass_source_profile\ncredential_process = /home/alice/.local/bin/gatepass credential-process a\ngatepass_source_profile = b\n# gatepass profiles adopt replaced: credential_process = /opt/aws-vault export --format=json b\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := edited(t, tt.before, "")
			if err := onlyError(e.Adopt(program, tt.profile)); err != nil {
				t.Fatal(err)
			}
			if got := string(e.config.data); got != tt.after {
				t.Errorf("adopted:\n%q\nwant\n%q", got, tt.after)
			}
			if err := e.Save(); err != nil {
				t.Fatal(err)
			}
			chain, err := NewReader().Resolve(e.files, tt.profile)
			if err != nil || !chain.Adopted {
				t.Errorf("%v, %v", chain, err)
			}
			// Again: nothing to do.
			if again := e.Adopt(program, tt.profile); !again[0].Already || again[0].Err != nil || string(e.config.data) != tt.after {
				t.Errorf("again: %+v\n%s", again[0], e.config.data)
			}
			if err := onlyError(e.Restore(tt.profile)); err != nil {
				t.Fatal(err)
			}
			if got := string(e.config.data); got != tt.before {
				t.Errorf("restored:\n%q\nwant\n%q", got, tt.before)
			}
		})
	}
}

// What others write between adopting and restoring stays.
func TestRestoreAfterEdits(t *testing.T) {
	e := edited(t, "[profile ops]\nrole_arn = arn:aws:iam::111122223333:role/Ops\ngatepass_key = k\n", "")
	if err := onlyError(e.Adopt(program, "ops")); err != nil {
		t.Fatal(err)
	}
	e.config.data = []byte(strings.Replace(string(e.config.data), "gatepass_key = k\n", "region = eu-west-1\ngatepass_key = other\n", 1) + "[profile new]\nregion = us-east-1\n")
	if err := onlyError(e.Restore("ops")); err != nil {
		t.Fatal(err)
	}
	want := "[profile ops]\nrole_arn = arn:aws:iam::111122223333:role/Ops\nregion = eu-west-1\ngatepass_key = other\n[profile new]\nregion = us-east-1\n"
	if got := string(e.config.data); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Whatever is written before and behind a section meanwhile, restoring it gives
// back the section byte for byte, and changes nothing else.
func TestRestoreAfterEditsElsewhere(t *testing.T) {
	adopted := 0
	for seed := range uint64(1000) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
		br := pick("\n", "\n", "\r\n", "\r")
		others := 0
		elsewhere := func() string {
			var b strings.Builder
			for range rnd.IntN(4) {
				others++
				b.WriteString(fmt.Sprintf("[profile o%d]", others) + br)
				b.WriteString(pick("", "# "+movedMark+" role_arn"+br, "region = x"+br, "  s3 ="+br+"    a = b"+br, "credential_process = gatepass credential-process other"+br, br+br))
			}
			return b.String()
		}
		var lines []string
		for _, line := range []string{
			"role_arn" + pick(" = ", "=", ": ") + "arn:aws:iam::111122223333:role/A", "gatepass_key = k", pick("External_Id=x1", "external_id = x1"),
			"duration_seconds = 900", "mfa_serial = GAHT12345678", "region = eu-west-1", "; a remark", "# another", "", "output=json" + pick("", " ", "\t"),
			"s3 =" + br + "      addressing_style = path",
		} {
			if strings.HasPrefix(line, "role_arn") || strings.HasPrefix(line, "gatepass_key") || rnd.IntN(2) == 0 {
				lines = append(lines, line)
			}
		}
		rnd.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		indent := pick("", "", " ", "\t")
		section := pick("[profile a]", "[profile a] ; mine", "[profile 'a']") + br
		for _, line := range lines {
			section += indent + line + br
		}
		e := edited(t, elsewhere()+section+elsewhere(), "")
		if e.Adopt(program, "a")[0].Err != nil {
			continue // as in TestAdoptOddLayout
		}
		adopted++
		now := string(e.config.data)
		from := strings.Index(now, section[:strings.Index(section, br)])
		length := len(now) - from
		if next := strings.Index(now[from+1:], br+"[profile "); next >= 0 {
			length = 1 + next + len(br)
		}
		before, behind := elsewhere(), elsewhere()
		e.config.data = []byte(before + now[from:from+length] + behind)
		if err := e.Restore("a")[0].Err; err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, e.config.data)
		}
		if got, want := string(e.config.data), before+section+behind; got != want {
			t.Fatalf("seed %d:\n%q came back as\n%q", seed, want, got)
		}
	}
	if adopted < 500 {
		t.Errorf("%d of 1000 could be adopted: the sections are too odd", adopted)
	}
}

// A profile written for gatepass by hand gets the keys that SDKs read.
func TestRestoreByHand(t *testing.T) {
	e := edited(t, "[profile ops]\ngatepass_role_arn = arn:aws:iam::111122223333:role/Ops\ngatepass_duration = 1h\ngatepass_key = k\ncredential_process = gatepass credential-process ops\n", "")
	if err := onlyError(e.Restore("ops")); err != nil {
		t.Fatal(err)
	}
	want := "[profile ops]\nrole_arn = arn:aws:iam::111122223333:role/Ops\nduration_seconds = 3600\ngatepass_key = k\n"
	if got := string(e.config.data); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAdoptMovedProgramAndNewKeys(t *testing.T) {
	e := edited(t, "[profile ops]\nrole_arn = arn:aws:iam::111122223333:role/Ops\ngatepass_key = k\n", "")
	if err := onlyError(e.Adopt("/old/gatepass", "ops")); err != nil {
		t.Fatal(err)
	}
	e.config.data = append(e.config.data, "external_id = x1\n"...)
	if err := onlyError(e.Adopt("/my programs/gatepass", "ops")); err != nil {
		t.Fatal(err)
	}
	want := "[profile ops]\n# gatepass profiles adopt moved: role_arn external_id\ncredential_process = \"/my programs/gatepass\" credential-process ops\n" +
		"gatepass_role_arn = arn:aws:iam::111122223333:role/Ops\ngatepass_key = k\ngatepass_external_id = x1\n"
	if got := string(e.config.data); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAdoptRefuses(t *testing.T) {
	const role = "role_arn = arn:aws:iam::111122223333:role/A\ngatepass_key = k\n"
	tests := []struct{ name, profile, config, credentials, want string }{
		{"unknown", "opps", "[profile ops]\n", "", `did you mean "ops"?`},
		{"bare section", "ops", "[ops]\n", "", "must read"},
		{"broken chain", "a", "[profile a]\nrole_arn = arn:aws:iam::111122223333:role/A\nsource_profile = gone\n", "", "gone"},
		{"plaintext keys beside it", "a", "[profile a]\n" + role, "[a]\naws_access_key_id = AKIA\naws_secret_access_key = x\n", "keys import"},
		{"plaintext keys in the section", "a", "[profile a]\naws_access_key_id = AKIA\naws_secret_access_key = x\n", "", "keys import"},
		{"plaintext keys alone", "a", "", "[a]\naws_access_key_id = AKIA\naws_secret_access_key = x\n", "keys import"},
		{"role in the credentials file", "a", "[profile a]\nregion = eu-west-1\n", "[a]\n" + role, "credentials file"},
		{"only in the credentials file", "a", "", "[a]\n" + role, "[profile a]"},
		{"inherited", "a", "[DEFAULT]\nexternal_id = x1\n[profile a]\n" + role, "", "[DEFAULT]"},
		{"sso", "a", "[profile a]\nsso_session = x\n" + role, "", "Identity Center"},
		{"credential_source", "a", "[profile a]\ncredential_source = Environment\n" + role, "", "credential_source"},
		{"web identity", "a", "[profile a]\nweb_identity_token_file = /x\n" + role, "", "web_identity_token_file"},
		{"another program", "a", "[profile a]\ncredential_process = /opt/granted credential-process --profile a\ngatepass_key = k\n", "", "another program"},
		{"another's line", "a", "[profile a]\ncredential_process = gatepass credential-process b\ngatepass_key = k\n", "", `"b"`},
		{"aws-vault running a command", "a", "[profile a]\ncredential_process = aws-vault exec a -- ./mine\ngatepass_key = k\n", "", "another program"},
		{"aws-vault for another, and a role", "a", "[profile b]\n[profile a]\ncredential_process = aws-vault exec --json b\n" + role, "", "the one or the other"},
		{"two sections", "a", "[profile a]\n" + role + "[profile \"a\"]\n" + role, "", "2 sections"},
		{"a shell's name", "a;$(b)", "[profile 'a;$(b)']\n" + role, "", "shell"},
		{"a blank", "a b", "[profile \"a b\"]\n" + role, "", "shell"},
		{"a flag's name", "-a", "[profile -a]\n" + role, "", "flag"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := edited(t, tt.config, tt.credentials)
			err := onlyError(e.Adopt(program, tt.profile))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if string(e.config.data) != tt.config || len(e.Changes()) > 0 {
				t.Errorf("changed:\n%s", e.config.data)
			}
		})
	}
	e := edited(t, "[profile a]\n"+role, "")
	if err := onlyError(e.Adopt("/home/al$ice/gatepass", "a")); err == nil || !strings.Contains(err.Error(), "plain name") {
		t.Error(err)
	}
	if err := onlyError(e.Restore("a")); err == nil || !strings.Contains(err.Error(), "nothing to restore") {
		t.Error(err)
	}
}

// One profile that cannot be adopted is no reason not to adopt the others.
func TestAdoptMany(t *testing.T) {
	e := edited(t, "[profile a]\nrole_arn = arn:aws:iam::111122223333:role/A\nsource_profile = k\n[profile s]\nsso_session = x\n[profile k]\n", "")
	results := e.Adopt(program, e.Names()...)
	if results[0].Err != nil || results[1].Err == nil || results[2].Err != nil {
		t.Errorf("%+v", results)
	}
	if got := e.Adopted(); len(got) != 2 || got[0] != "a" || got[1] != "k" {
		t.Error(got)
	}
}

// A layout in which the new lines would be read as part of something else is
// left alone.
func TestAdoptOddLayout(t *testing.T) {
	config := "[profile a]\n   [profile b]\n   role_arn = arn:aws:iam::111122223333:role/A\n   gatepass_key = k\n"
	e := edited(t, config, "")
	for _, r := range e.Adopt(program, "a", "b") {
		if r.Err == nil {
			continue
		}
		if !strings.Contains(r.Err.Error(), "by hand") {
			t.Error(r.Err)
		}
	}
	after, err := e.read()
	if err != nil || len(after.syntax.sections) != 2 || after.profiles["b"] == nil {
		t.Errorf("%v\n%s", err, e.config.data)
	}
}

func TestSave(t *testing.T) {
	const before = "[profile a]\nrole_arn = arn:aws:iam::111122223333:role/A\ngatepass_key = k\n"
	e := edited(t, before, "")
	// A link is followed, and the mode kept.
	real := filepath.Join(t.TempDir(), "real")
	if err := os.Rename(e.files.Config, real); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(real, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, e.files.Config); err != nil {
		t.Skip(err)
	}
	if err := onlyError(e.Adopt(program, "a")); err != nil {
		t.Fatal(err)
	}
	if err := e.Save(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(e.files.Config); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", info, err)
	}
	if data, _ := os.ReadFile(real); !bytes.Contains(data, []byte("credential-process a")) {
		t.Errorf("%s", data)
	}

	// Somebody else's change is not overwritten.
	if err := onlyError(e.Restore("a")); err != nil {
		t.Fatal(err)
	}
	theirs := []byte("[profile theirs]\n")
	if err := os.WriteFile(real, theirs, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := e.Save(); err == nil || !strings.Contains(err.Error(), "meanwhile") {
		t.Error(err)
	}
	if data, _ := os.ReadFile(real); !bytes.Equal(data, theirs) {
		t.Errorf("%s", data)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(real), ".gatepass-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func FuzzAdopt(f *testing.F) {
	f.Add("[profile k]\n[profile a]\nrole_arn = arn:aws:iam::111122223333:role/A\nsource_profile=k\n", "a")
	f.Add("[profile a]\r\n  credential_process = aws-vault exec --json a\r\n  ; c\r\n  region =\r\n", "a")
	f.Add("[default]", "default")
	f.Add("[profile a]\n\trole_arn = arn:aws:iam::111122223333:role/A\n\t\t x\n\n # c\n\tgatepass_key: k", "a")
	f.Fuzz(func(t *testing.T, config, name string) {
		set, err := newProfileSet(Files{Config: "/c"}, []byte(config), nil, keep)
		if err != nil {
			return
		}
		e := &Editor{files: Files{Config: "/c", Trusted: true}, config: document{path: "/c", old: []byte(config), data: []byte(config)}}
		wasOurs := false
		if s, err := e.read(); err == nil {
			wasOurs = s.isOurs(name) || strings.Contains(config, "gatepass profiles adopt")
		}
		if r := e.Adopt(program, name)[0]; r.Err != nil || wasOurs {
			return
		}
		after, err := newProfileSet(Files{Config: "/c"}, e.config.data, nil, keep)
		if err != nil {
			t.Fatalf("%v\n%s", err, e.config.data)
		}
		for other, p := range set.profiles {
			q := after.profiles[other]
			if other == name {
				continue
			}
			if q == nil || len(p.settings) != len(q.settings) {
				t.Fatalf("profile %q changed:\n%s", other, e.config.data)
			}
			for i := range p.settings {
				if p.settings[i].key != q.settings[i].key || p.settings[i].value != q.settings[i].value {
					t.Fatalf("profile %q changed:\n%s", other, e.config.data)
				}
			}
		}
		if err := e.Restore(name)[0].Err; err != nil {
			t.Fatalf("%v\n%s", err, e.config.data)
		}
		if string(e.config.data) != config {
			t.Fatalf("%q came back as %q", config, e.config.data)
		}
	})
}
