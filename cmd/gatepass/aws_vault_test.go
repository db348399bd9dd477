package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// Where aws-vault would look is where is looked.
func TestVaultStores(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the stores are Linux's")
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	const secrets = "secret-service awsvault"
	for name, c := range map[string]struct {
		env   map[string]string
		lines []map[string]string
		files bool // ~/.awsvault/keys is there and not empty
		want  []string
	}{
		"nothing":             {want: []string{secrets + "?"}},
		"a line":              {lines: []map[string]string{{"json": ""}}, want: []string{secrets}},
		"the environment":     {env: map[string]string{"AWS_VAULT_BACKEND": "file"}, want: []string{"file HOME/.awsvault/keys"}},
		"the environment's":   {env: map[string]string{"AWS_VAULT_BACKEND": "secret-service", "AWS_VAULT_SECRET_SERVICE_COLLECTION_NAME": "mine"}, want: []string{"secret-service mine"}},
		"a line's own":        {lines: []map[string]string{{"backend": "file", "file-dir": "/a/b/"}}, want: []string{"file /a/b", secrets + "?"}},
		"a line wins":         {env: map[string]string{"AWS_VAULT_BACKEND": "pass", "AWS_VAULT_FILE_DIR": "/env"}, lines: []map[string]string{{"backend": "file"}}, want: []string{"file /env", "pass HOME/.password-store"}},
		"the same twice":      {env: map[string]string{"AWS_VAULT_BACKEND": "kwallet"}, lines: []map[string]string{{}, {"backend": "kwallet"}, {"d": "1h"}}, want: []string{"kwallet"}},
		"files are there":     {files: true, want: []string{secrets + "?", "file HOME/.awsvault/keys"}},
		"files, and a line":   {files: true, lines: []map[string]string{{}}, want: []string{secrets + "?", "file HOME/.awsvault/keys"}},
		"files, but not used": {files: true, env: map[string]string{"AWS_VAULT_BACKEND": "pass"}, want: []string{"pass HOME/.password-store"}},
		"a relative place":    {env: map[string]string{"AWS_VAULT_BACKEND": "file", "AWS_VAULT_FILE_DIR": "keys"}, want: []string{"file " + wd + "/keys"}},
		"pass": {env: map[string]string{"AWS_VAULT_BACKEND": "pass", "AWS_VAULT_PASS_PREFIX": "/aws/", "PASSWORD_STORE_DIR": "/store"},
			want: []string{"pass /store aws"}},
		"pass elsewhere": {env: map[string]string{"AWS_VAULT_BACKEND": "pass", "AWS_VAULT_PASS_PASSWORD_STORE_DIR": "~/p", "PASSWORD_STORE_DIR": "/store"},
			want: []string{"pass HOME/p"}},
		"another pass":     {env: map[string]string{"AWS_VAULT_BACKEND": "pass", "AWS_VAULT_PASS_CMD": "gopass"}, want: []string{"gopass"}},
		"another keychain": {env: map[string]string{"AWS_VAULT_BACKEND": "op"}, want: []string{"op"}},
		"of macOS":         {lines: []map[string]string{{"backend": "keychain", "keychain": "mine"}}, want: []string{"keychain mine", secrets + "?"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			maps.Copy(h.env, c.env)
			if c.files {
				h.vaultFile("work")
			}
			stores, err := h.command(nil, nil).vaultStores(c.lines)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range stores {
				text := strings.Join(slices.DeleteFunc([]string{s.Backend, s.Collection, s.Keychain, s.Dir, s.Prefix}, func(s string) bool { return s == "" }), " ")
				if !s.sure {
					text += "?"
				}
				got = append(got, strings.ReplaceAll(text, h.env["HOME"], "HOME"))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// vaultFile puts an item into aws-vault's directory, as aws-vault 7.2 wrote it
// with the passphrase "staple".
func (h *home) vaultFile(name string) {
	h.t.Helper()
	dir := filepath.Join(h.env["HOME"], ".awsvault", "keys")
	data, err := os.ReadFile(filepath.Join("testdata", "aws-vault", name))
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// serveVaults answers for aws-vault's stores, and returns what was asked of
// each route. There are no sessions of the refused profiles.
func (h *home) serveVaults(look func(wire.AWSVaultRequest) (names []string, failure *broker.Error), refused ...string) (imports, removals func() []wire.AWSVaultKeyRequest) {
	var imported, removed []wire.AWSVaultKeyRequest
	note := func(into *[]wire.AWSVaultKeyRequest, answer any) func([]byte) (int, map[string]string, string) {
		return func(body []byte) (int, map[string]string, string) {
			var r wire.AWSVaultKeyRequest
			if err := json.Unmarshal(body, &r); err != nil {
				h.t.Error(err)
			}
			*into = append(*into, r)
			return 200, nil, jsonOf(h.t, answer)
		}
	}
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathKeysList: func([]byte) (int, map[string]string, string) { return 200, nil, `{"keys":[]}` },
		"POST " + wire.PathAWSVault: func(body []byte) (int, map[string]string, string) {
			var r wire.AWSVaultRequest
			if err := json.Unmarshal(body, &r); err != nil {
				h.t.Error(err)
			}
			names, failure := look(r)
			if failure != nil {
				return 500, nil, jsonOf(h.t, failure)
			}
			return 200, nil, jsonOf(h.t, wire.AWSVaultResponse{Names: names})
		},
		"POST " + wire.PathAWSVaultImport: note(&imported, broker.ImportedKey{KeyInfo: broker.KeyInfo{UserARN: "arn:aws:iam::111122223333:user/alice"}}),
		"POST " + wire.PathAWSVaultRemove: note(&removed, struct{}{}),
		"POST " + wire.PathCredentials: func(body []byte) (int, map[string]string, string) {
			var r wire.CredentialsRequest
			if err := json.Unmarshal(body, &r); err != nil {
				h.t.Error(err)
			}
			if slices.Contains(refused, r.Profile) {
				return 403, nil, jsonOf(h.t, broker.Errorf(broker.CodeAWSDenied, "AWS refused"))
			}
			return 200, nil, document
		},
	})
	take := func(list *[]wire.AWSVaultKeyRequest) func() []wire.AWSVaultKeyRequest {
		return func() []wire.AWSVaultKeyRequest { h.mu.Lock(); defer h.mu.Unlock(); return *list }
	}
	return take(&imported), take(&removed)
}

func newVaultHome(t *testing.T, config string) *home {
	h := newHome(t)
	h.programs = []string{"/usr/bin/gatepass"}
	dir := filepath.Join(h.env["HOME"], ".aws")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// Whoever has never used aws-vault hears nothing of it, and whoever has hears
// why it cannot be read.
func TestImportLooksForAWSVault(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the default store is Linux's")
	}
	const line = "[profile work]\ncredential_process = aws-vault exec --json work\n"
	for name, c := range map[string]struct {
		config  string
		backend string
		code    broker.Code
		exit    int
		says    string
	}{
		"never used, no bus":            {code: broker.CodeKeychainMissing},
		"never used, no collection":     {code: broker.CodeNotFound},
		"never used, hung":              {code: broker.CodeKeychainTimeout, says: "whether aws-vault keeps keys (secret-service) is not known: why\n"},
		"never used, but it is there":   {code: broker.CodeKeychainLocked, exit: 75, says: "aws-vault's store (secret-service) cannot be read: why\ngatepass: next\n"},
		"used, no bus":                  {config: line, code: broker.CodeKeychainMissing, exit: 69, says: "aws-vault's store (secret-service) cannot be read: why\n"},
		"used, hung":                    {config: line, code: broker.CodeKeychainTimeout, exit: 69, says: "cannot be read"},
		"used, locked":                  {config: line, code: broker.CodeKeychainLocked, exit: 75, says: "cannot be read"},
		"used, refused":                 {config: line, code: broker.CodeKeychainDenied, exit: 77, says: "cannot be read"},
		"used, nothing there":           {config: line, code: broker.CodeNotFound},
		"the environment names another": {backend: "op", code: broker.CodeConfig, exit: 78, says: "aws-vault's store (op) cannot be read: why\n"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, dry := range [][]string{nil, {"--dry-run"}, {"--no-adopt"}, {"--yes"}} {
				h := newVaultHome(t, c.config)
				h.env["AWS_VAULT_BACKEND"] = c.backend
				asked := 0
				imports, removals := h.serveVaults(func(wire.AWSVaultRequest) ([]string, *broker.Error) {
					asked++
					return nil, broker.Errorf(c.code, "why").WithHint("next")
				})
				h.answers = []string{"never asked"}
				r := h.run(append([]string{"keys", "import"}, dry...)...)
				if r.code != c.exit || r.stdout != "" || !strings.Contains(r.stderr, c.says) || asked != 1 || len(h.asked) > 0 {
					t.Errorf("%q: %+v, looked %d times, asked %q", dry, r, asked, h.asked)
				}
				if quiet := c.says == ""; quiet != (strings.Count(r.stderr, "\n") == 1) || !strings.Contains(r.stderr, "no plaintext keys are in") {
					t.Errorf("%q: says %s", dry, r.stderr)
				}
				if len(imports())+len(removals()) > 0 {
					t.Error("something was moved")
				}
			}
		})
	}
	// Without a daemon, nobody who has no aws-vault is bothered.
	h := newVaultHome(t, "")
	h.env["GATEPASS_AUTOSTART"] = "0"
	if r := h.run("keys", "import"); r.code != 0 || !strings.Contains(r.stderr, "is not known") {
		t.Errorf("no daemon: %+v", r)
	}
	h = newVaultHome(t, line)
	h.env["GATEPASS_AUTOSTART"] = "0"
	if r := h.run("keys", "import"); r.code != 69 || !strings.Contains(r.stderr, "cannot be read: no daemon is running") {
		t.Errorf("no daemon, but aws-vault: %+v", r)
	}
}

func TestImportFromAWSVault(t *testing.T) {
	const config = "[profile work]\ncredential_process = aws-vault --backend=file --file-dir=/keys exec --json work\n"
	at := wire.AWSVaultRequest{Backend: "file", Dir: "/keys"}
	look := func(in wire.AWSVaultRequest) ([]string, *broker.Error) {
		if in != at {
			return nil, broker.Errorf(broker.CodeNotFound, "none")
		}
		return []string{"bad name", "work"}, nil
	}
	read := func(h *home) string {
		data, err := os.ReadFile(filepath.Join(h.env["HOME"], ".aws", "config"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	request := func(passphrase string) wire.AWSVaultKeyRequest {
		return wire.AWSVaultKeyRequest{AWSVaultRequest: at, Passphrase: passphrase, Name: "work", Region: "eu-west-1"}
	}
	for name, c := range map[string]struct {
		env     string
		answers []string
		flags   []string
		exit    int
		imports []wire.AWSVaultKeyRequest
		removes bool
		adopts  bool
		asks    []string
	}{
		"asked":           {answers: []string{"staple", "y"}, exit: 64, imports: []wire.AWSVaultKeyRequest{request("staple")}, removes: true, adopts: true, asks: []string{"passphrase of aws-vault's store /keys (not shown): false", "remove the keys of work from aws-vault's store? [y/N] true"}},
		"an empty one":    {answers: []string{"", "y"}, exit: 64, imports: []wire.AWSVaultKeyRequest{request("")}, removes: true, adopts: true, asks: []string{"passphrase of aws-vault's store /keys (not shown): false", "remove the keys of work from aws-vault's store? [y/N] true"}},
		"not agreed":      {env: "staple", answers: []string{"n"}, exit: 64, imports: []wire.AWSVaultKeyRequest{request("staple")}, adopts: true, asks: []string{"remove the keys of work from aws-vault's store? [y/N] true"}},
		"agreed ahead":    {env: "staple", flags: []string{"--yes"}, exit: 64, imports: []wire.AWSVaultKeyRequest{request("staple")}, removes: true, adopts: true},
		"nobody to ask":   {exit: 75},
		"nobody to agree": {env: "staple", exit: 75, imports: []wire.AWSVaultKeyRequest{request("staple")}, adopts: true},
		"no adopting":     {env: "staple", flags: []string{"--no-adopt", "--yes"}, exit: 64, imports: []wire.AWSVaultKeyRequest{request("staple")}},
		"dry run":         {flags: []string{"--dry-run", "--yes"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newVaultHome(t, config)
			h.env["AWS_VAULT_FILE_PASSPHRASE"], h.env["AWS_REGION"] = c.env, "eu-west-1"
			h.answers = c.answers
			imports, removals := h.serveVaults(look)
			r := h.run(append([]string{"keys", "import"}, c.flags...)...)
			var want []wire.AWSVaultKeyRequest
			if c.removes {
				want = c.imports
			}
			if r.code != c.exit || !slices.Equal(imports(), c.imports) || !slices.Equal(removals(), want) || !slices.Equal(h.asked, c.asks) {
				t.Errorf("%+v\nimported %+v, removed %+v, asked %q", r, imports(), removals(), h.asked)
			}
			if adopted := strings.Contains(read(h), "/usr/bin/gatepass credential-process work"); adopted != c.adopts {
				t.Errorf("adopted: %v\n%s", adopted, read(h))
			}
			if name == "dry run" != strings.Contains(r.stdout, "+credential_process = /usr/bin/gatepass credential-process work\n") {
				t.Errorf("shown: %s", r.stdout)
			}
			if !strings.Contains(r.stderr, `bad name: `) || !strings.Contains(r.stderr, `"bad name" cannot be the name of a key`) || !strings.Contains(r.stderr, "--no-session 'bad name' --") && name != "dry run" {
				t.Errorf("a name that cannot be: %s", r.stderr)
			}
			if strings.Contains(r.stderr+r.stdout, "staple") {
				t.Errorf("the passphrase is in %+v", r)
			}
		})
	}
}

// A profile that names another key keeps it, and aws-vault keeps its own.
func TestImportOfAnotherKey(t *testing.T) {
	const config = "[profile base]\n[profile work]\nsource_profile = base\ncredential_process = aws-vault exec --json work\n"
	h := newVaultHome(t, config)
	h.env["AWS_VAULT_BACKEND"] = "kwallet"
	_, removals := h.serveVaults(func(wire.AWSVaultRequest) ([]string, *broker.Error) { return []string{"work"}, nil })
	r := h.run("keys", "import", "--yes")
	data, err := os.ReadFile(filepath.Join(h.env["HOME"], ".aws", "config"))
	if err != nil || string(data) != config || r.code != 78 || len(removals()) != 0 ||
		!strings.Contains(r.stderr, `work: stays in aws-vault's store (kwallet): the profile "work" starts with the key "base"`) || !strings.Contains(r.stderr, "gatepass_key = work") {
		t.Errorf("%+v\n%s, %v", r, data, err)
	}
}

// What a profile still needs aws-vault for stays there: one that cannot be
// adopted, one that does not work with gatepass, and one through it.
func TestImportKeepsWhatIsNeeded(t *testing.T) {
	const config = "[profile work]\ncredential_process = aws-vault exec --json work\n" +
		"[profile ops]\nrole_arn = arn:aws:iam::111122223333:role/Ops\nsource_profile = work\ncredential_process = aws-vault exec --json ops\n" +
		"[profile far]\nrole_arn = arn:aws:iam::111122223333:role/Far\nsource_profile = ops\n"
	for name, c := range map[string]struct {
		more    string
		refused []string
		needs   string
		adopted int
	}{
		"all is well":        {adopted: 3},
		"a session refused":  {refused: []string{"far"}, needs: "far", adopted: 2},
		"two refused":        {refused: []string{"ops", "far"}, needs: "ops, far", adopted: 1},
		"a name for shells":  {more: "[profile a;b]\nsource_profile = work\nrole_arn = arn:aws:iam::111122223333:role/B\n", needs: "a;b", adopted: 3},
		"the key's own":      {refused: []string{"work"}, needs: "-"},
		"a key of its own":   {more: "[profile own]\nsource_profile = work\ngatepass_key = own\n", adopted: 3},
		"another one's line": {more: "[profile other]\ncredential_process = other exec --json work\n", adopted: 3},
	} {
		t.Run(name, func(t *testing.T) {
			h := newVaultHome(t, config+c.more)
			h.env["AWS_VAULT_BACKEND"] = "kwallet"
			_, removals := h.serveVaults(func(in wire.AWSVaultRequest) ([]string, *broker.Error) {
				if in.Backend != "kwallet" {
					return nil, broker.Errorf(broker.CodeNotFound, "none")
				}
				return []string{"work"}, nil
			}, c.refused...)
			r := h.run("keys", "import", "--yes")
			data, err := os.ReadFile(filepath.Join(h.env["HOME"], ".aws", "config"))
			if err != nil || strings.Count(string(data), "\ncredential_process = /usr/bin/gatepass ") != c.adopted {
				t.Errorf("%v\n%s", err, data)
			}
			switch {
			case c.needs == "":
				if r.code != 0 || len(removals()) != 1 {
					t.Errorf("%+v, removed %+v", r, removals())
				}
			case c.needs == "-":
				if r.code != 77 || len(removals()) != 0 || string(data) != config {
					t.Errorf("%+v, removed %+v\n%s", r, removals(), data)
				}
			default:
				if r.code != 78 || len(removals()) != 0 || !strings.Contains(r.stderr, "work: stays in aws-vault's store (kwallet): it is still needed there, by "+c.needs+"\n") {
					t.Errorf("%+v, removed %+v", r, removals())
				}
			}
		})
	}
}

// aws-vault uses the first key on the way. A profile that has one of its own is
// not taken over by the key of its source_profile, nor is what starts with it.
func TestImportOfTwoKeysOnAWay(t *testing.T) {
	const config = "[profile base]\n[profile mine]\nsource_profile = base\ncredential_process = aws-vault exec --json mine\n" +
		"[profile ops]\nrole_arn = arn:aws:iam::111122223333:role/Ops\nsource_profile = mine\ncredential_process = aws-vault exec --json ops\n"
	look := func(in wire.AWSVaultRequest) ([]string, *broker.Error) { return []string{"base", "mine"}, nil }
	h := newVaultHome(t, config)
	h.env["AWS_VAULT_BACKEND"] = "kwallet"
	_, removals := h.serveVaults(look)
	r := h.run("keys", "import", "--yes")
	data, err := os.ReadFile(filepath.Join(h.env["HOME"], ".aws", "config"))
	if err != nil || r.code != 78 || len(removals()) != 1 || removals()[0].Name != "base" || !strings.Contains(string(data), config[len("[profile base]\n"):]) {
		t.Errorf("%+v, removed %+v\n%s, %v", r, removals(), data, err)
	}
	// The way out that is told.
	h = newVaultHome(t, strings.Replace(config, "[profile mine]\n", "[profile mine]\ngatepass_key = mine\n", 1))
	h.env["AWS_VAULT_BACKEND"] = "kwallet"
	_, removals = h.serveVaults(look)
	if r := h.run("keys", "import", "--yes"); r.code != 0 || len(removals()) != 2 || !strings.Contains(r.stderr, "ops: is served by gatepass now") {
		t.Errorf("%+v, removed %+v", r, removals())
	}
}

// Without a prefix of aws-vault's own, a password store holds much that is none
// of ours.
func TestImportFromAWholePasswordStore(t *testing.T) {
	for prefix, want := range map[string]int{"": 1, "aws": 2} {
		h := newVaultHome(t, "[profile work]\n")
		h.env["AWS_VAULT_BACKEND"], h.env["AWS_VAULT_PASS_PREFIX"] = "pass", prefix
		imports, _ := h.serveVaults(func(wire.AWSVaultRequest) ([]string, *broker.Error) { return []string{"mail", "work"}, nil })
		r := h.run("keys", "import", "--yes")
		if r.code != 0 || len(imports()) != want || strings.Contains(r.stderr, "mail") != (want == 2) {
			t.Errorf("prefix %q: %+v, imported %+v", prefix, r, imports())
		}
	}
}
