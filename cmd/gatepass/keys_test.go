package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

const (
	testID     = "AKIAIOSFODNN7EXAMPLE"
	testSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// serveKeys serves the keys routes and returns what was added and removed.
func (h *home) serveKeys(stored ...broker.KeyInfo) (added func() []wire.AddKeyRequest, removed func() []string) {
	var adds []wire.AddKeyRequest
	var removals []string
	var list []broker.KeyState
	for _, k := range stored {
		list = append(list, broker.KeyState{KeyInfo: k})
	}
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathKeysList: func([]byte) (int, map[string]string, string) {
			return 200, nil, jsonOf(h.t, wire.KeysResponse{Keys: list})
		},
		"POST " + wire.PathKeys: func(body []byte) (int, map[string]string, string) {
			var r wire.AddKeyRequest
			if err := json.Unmarshal(body, &r); err != nil {
				h.t.Error(err)
			}
			adds = append(adds, r)
			return 200, nil, jsonOf(h.t, broker.KeyInfo{Name: r.Name, AccessKeyID: r.AccessKeyID, UserARN: "arn:aws:iam::111122223333:user/alice"})
		},
		"POST " + wire.PathKeysRemove: func(body []byte) (int, map[string]string, string) {
			var r wire.RemoveKeyRequest
			if err := json.Unmarshal(body, &r); err != nil {
				h.t.Error(err)
			}
			removals = append(removals, r.Name)
			return 200, nil, "{}"
		},
	})
	added = func() []wire.AddKeyRequest { h.mu.Lock(); defer h.mu.Unlock(); return adds }
	removed = func() []string { h.mu.Lock(); defer h.mu.Unlock(); return removals }
	return added, removed
}

func TestKeysAdd(t *testing.T) {
	csvFile := filepath.Join(t.TempDir(), "alice.csv")
	if err := os.WriteFile(csvFile, []byte("\ufeffAccess key ID,Secret access key\r\n"+testID+","+testSecret+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		flags   []string
		stdin   string
		env     map[string]string
		answers []string
		want    wire.AddKeyRequest
	}{
		"stdin": {flags: []string{"--stdin"}, stdin: testID + "\n" + testSecret + "\n"},
		"stdin, CRLF, blanks": {flags: []string{"--stdin", "--no-verify", "--allow-root"}, stdin: "\r\n " + testID + "\r\n" + testSecret,
			want: wire.AddKeyRequest{NoVerify: true, AllowRoot: true}},
		"env": {flags: []string{"--env"}, env: map[string]string{"AWS_ACCESS_KEY_ID": testID, "AWS_SECRET_ACCESS_KEY": testSecret, "AWS_REGION": "cn-north-1"},
			want: wire.AddKeyRequest{Region: "cn-north-1"}},
		"csv": {flags: []string{"--csv", csvFile, "--region", "eu-west-1"}, env: map[string]string{"AWS_DEFAULT_REGION": "us-east-1"},
			want: wire.AddKeyRequest{Region: "eu-west-1"}},
		"prompt": {answers: []string{" " + testID + " ", testSecret}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			added, _ := h.serveKeys()
			h.stdin, h.answers = c.stdin, c.answers
			for k, v := range c.env {
				h.env[k] = v
			}
			r := h.run(append([]string{"keys", "add", "work"}, c.flags...)...)
			c.want.Name, c.want.AccessKeyID, c.want.SecretAccessKey = "work", testID, testSecret
			if r != (result{}) || len(added()) != 1 || added()[0] != c.want {
				t.Errorf("%+v, sent %+v", r, added())
			}
			if name == "prompt" && (len(h.asked) != 2 || h.asked[0] != "Access key ID: true" || h.asked[1] != "Secret access key (not shown): false") {
				t.Errorf("asked %q", h.asked)
			}
		})
	}
}

// What is refused never reaches the daemon, and the secret never an error.
func TestKeysAddRefuses(t *testing.T) {
	write := func(text string) string {
		f := filepath.Join(t.TempDir(), "key.csv")
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	for name, c := range map[string]struct {
		args    []string
		stdin   string
		env     map[string]string
		answers []string
		code    int
		says    string
	}{
		"two sources":           {args: []string{"work", "--stdin", "--env"}, stdin: testID + "\n" + testSecret + "\n", code: 64, says: "exclude each other"},
		"nobody to ask":         {args: []string{"work"}, code: 75, says: "--stdin, --env or --csv FILE"},
		"a bad name":            {args: []string{"a b", "--stdin"}, code: 64, says: "cannot be the name of a key"},
		"a name with a shell":   {args: []string{"$(id)", "--stdin"}, code: 64, says: "cannot be the name"},
		"a name with newline":   {args: []string{"a\nb", "--stdin"}, code: 64, says: "cannot be the name"},
		"a long name":           {args: []string{strings.Repeat("a", 65), "--stdin"}, code: 64, says: "cannot be the name"},
		"a bad name, no asking": {args: []string{"a b"}, answers: []string{"x", "y"}, code: 64, says: "cannot be the name"},
		"a bad id, no asking":   {args: []string{"work"}, answers: []string{testSecret, "never asked"}, code: 64, says: "not an access key id"},
		"temporary":             {args: []string{"work", "--stdin"}, stdin: "ASIAIOSFODNN7EXAMPLE\n" + testSecret + "\n", code: 64, says: "temporary"},
		"a role's id":           {args: []string{"work", "--stdin"}, stdin: "AROAIOSFODNN7EXAMPLE\n" + testSecret + "\n", code: 64, says: "AKIA"},
		"swapped":               {args: []string{"work", "--stdin"}, stdin: testSecret + "\n" + testID + "\n", code: 64, says: "not an access key id"},
		"a short id":            {args: []string{"work", "--stdin"}, stdin: "AKIAIOSFODNN7EX\n" + testSecret + "\n", code: 64, says: "not an access key id"},
		"a lower-case id":       {args: []string{"work", "--stdin"}, stdin: "AKIAiosfodnn7example\n" + testSecret + "\n", code: 64, says: "not an access key id"},
		"a short secret":        {args: []string{"work", "--stdin"}, stdin: testID + "\nshort\n", code: 64, says: "not a secret access key"},
		"a blank in the secret": {args: []string{"work", "--stdin"}, stdin: testID + "\nwJalrXUtnFEMI K7MDENG/bPxRfiCYEXAMPLEKEY\n", code: 64, says: "not a secret access key"},
		"nothing":               {args: []string{"work", "--stdin"}, code: 64, says: "it has 0"},
		"three lines":           {args: []string{"work", "--stdin"}, stdin: testID + "\n" + testSecret + "\nmore\n", code: 64, says: "it has 3"},
		"a flood":               {args: []string{"work", "--stdin"}, stdin: testID + "\n" + strings.Repeat("x", 1<<20), code: 64, says: "two lines"},
		"no id in the env":      {args: []string{"work", "--env"}, env: map[string]string{"AWS_SECRET_ACCESS_KEY": testSecret}, code: 64, says: "AWS_ACCESS_KEY_ID is not set"},
		"no secret in the env":  {args: []string{"work", "--env"}, env: map[string]string{"AWS_ACCESS_KEY_ID": testID}, code: 64, says: "AWS_SECRET_ACCESS_KEY is not set"},
		"a session in the env": {args: []string{"work", "--env"}, env: map[string]string{"AWS_ACCESS_KEY_ID": testID, "AWS_SECRET_ACCESS_KEY": testSecret, "AWS_SESSION_TOKEN": "x"},
			code: 64, says: "temporary credentials"},
		"no file":          {args: []string{"work", "--csv", "/nonexistent/key.csv"}, code: 64, says: "no such file"},
		"an empty file":    {args: []string{"work", "--csv", write("")}, code: 65, says: "empty"},
		"another file":     {args: []string{"work", "--csv", write("a,b\n" + testSecret + ",2\n")}, code: 65, says: "no columns"},
		"no CSV":           {args: []string{"work", "--csv", write("Access key ID,Secret access key\n\"" + testSecret + "\n")}, code: 65, says: "not CSV"},
		"two keys":         {args: []string{"work", "--csv", write("Access key ID,Secret access key\na," + testSecret + "\nb,c\n")}, code: 65, says: "holds 2 keys"},
		"no key":           {args: []string{"work", "--csv", write("Access key ID,Secret access key\n")}, code: 65, says: "holds 0 keys"},
		"a file too large": {args: []string{"work", "--csv", write(strings.Repeat("a,b\n", 1<<15))}, code: 65, says: "64 KiB"},
		"a directory":      {args: []string{"work", "--csv", t.TempDir()}, code: 64, says: "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			added, _ := h.serveKeys()
			h.stdin, h.answers = c.stdin, c.answers
			for k, v := range c.env {
				h.env[k] = v
			}
			r := h.run(append([]string{"keys", "add"}, c.args...)...)
			if r.code != c.code || r.stdout != "" || !strings.Contains(r.stderr, c.says) || len(added()) != 0 {
				t.Errorf("%+v, sent %d", r, len(added()))
			}
			if strings.Contains(r.stderr, testSecret) || strings.Contains(r.stderr, "K7MDENG") {
				t.Errorf("the secret is in the error: %s", r.stderr)
			}
			if strings.Contains(name, "no asking") && strings.Contains(strings.Join(h.asked, ""), "Secret") {
				t.Errorf("asked %q", h.asked)
			}
		})
	}
}

func TestKeyFromCSV(t *testing.T) {
	for name, text := range map[string]string{
		"today":         "Access key ID,Secret access key\n" + testID + "," + testSecret + "\n",
		"with BOM":      "\ufeffAccess key ID,Secret access key\r\n" + testID + "," + testSecret + "\r\n",
		"no newline":    "Access key ID,Secret access key\n" + testID + "," + testSecret,
		"of a new user": "User Name,Password,Access key ID,Secret access key,Console login link\nalice,pa\"\"ss," + testID + "," + testSecret + ",https://111122223333.signin.aws.amazon.com/console\n",
		"quoted":        "\"Access key ID\",\"Secret access key\"\n\"" + testID + "\",\"" + testSecret + "\"\n",
		"other case":    "access key id , SECRET ACCESS KEY\n" + testID + " , " + testSecret + "\n",
	} {
		if name == "of a new user" {
			text = strings.Replace(text, `pa""ss`, `"pa""ss,word"`, 1)
		}
		id, secret, err := keyFromCSV(strings.NewReader(text))
		if err != nil || id != testID || secret.Reveal() != testSecret {
			t.Errorf("%s: %q, %v", name, id, err)
		}
	}
}

func FuzzKeyFromCSV(f *testing.F) {
	f.Add("Access key ID,Secret access key\nAKIA,xyz\n")
	f.Add("\ufeffUser Name,Password,Access key ID,Secret access key,Console login link\r\na,,b,c,d\r\n")
	f.Add("Access key ID,Secret access key\n\"a\nb\",c")
	f.Fuzz(func(t *testing.T, text string) {
		id, secret, err := keyFromCSV(strings.NewReader(text))
		if err != nil {
			if code := broker.CodeOf(err); code != broker.CodeData {
				t.Errorf("%q: %v (%s)", text, err, code)
			}
			return
		}
		// What is returned stands in the file.
		for _, v := range []string{id, secret.Reveal()} {
			if !strings.Contains(text, v) && !strings.ContainsAny(text, "\"\r") {
				t.Errorf("%q: %q", text, v)
			}
		}
	})
}

func TestKeysList(t *testing.T) {
	h := newHome(t)
	h.serveKeys(
		broker.KeyInfo{Name: "home", AccessKeyID: "AKIAHOME", Added: time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)},
		broker.KeyInfo{Name: "work", AccessKeyID: testID, UserARN: "arn:aws:iam::111122223333:user/al\x1bice", Added: time.Now()},
	)
	want := `(?s)^NAME  ACCESS KEY ID         AGE +ROTATED  USED   USER
home  AKIAHOME              \d+ d!  never    never  \(not verified\)
work  AKIAIOSFODNN7EXAMPLE  0 d +never    never  al\\x1bice@111122223333
$`
	if r := h.run("keys", "list"); !regexp.MustCompile(want).MatchString(r.stdout) || r.code != 0 ||
		!strings.Contains(r.stderr, "gatepass: to replace it: gatepass keys rotate home\n") || strings.Contains(r.stderr, "work") {
		t.Errorf("got %+v\nwant %s", r, want)
	}
	r := h.run("keys", "list", "--json")
	var got wire.KeysResponse
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || len(got.Keys) != 2 || got.Keys[1].Name != "work" {
		t.Errorf("--json: %+v, %v", r, err)
	}
	h = newHome(t)
	h.serveKeys()
	if r := h.run("keys", "list"); r.stdout != "" || r.code != 0 || !strings.Contains(r.stderr, "gatepass keys add NAME") {
		t.Errorf("none: %+v", r)
	}
	if r := h.run("keys", "list", "--json"); r.stdout != "{\n  \"keys\": []\n}\n" {
		t.Errorf("none, --json: %+v", r)
	}
}

func TestKeysRemove(t *testing.T) {
	home := func() (*home, func() []string) {
		h := newHome(t)
		_, removed := h.serveKeys(broker.KeyInfo{Name: "work", AccessKeyID: testID})
		return h, removed
	}
	h, removed := home()
	if r := h.run("keys", "remove", "work", "--yes"); r != (result{}) || len(removed()) != 1 || removed()[0] != "work" {
		t.Errorf("--yes: %+v, %q", r, removed())
	}
	h, removed = home()
	h.answers = []string{"y"}
	if r := h.run("keys", "remove", "work"); r != (result{}) || len(removed()) != 1 ||
		h.asked[0] != "remove the key work ("+testID+") from the keychain? [y/N] true" {
		t.Errorf("y: %+v, %q, %q", r, removed(), h.asked)
	}
	for _, answer := range []string{"", "n", "no", "yy"} {
		h, removed = home()
		h.answers = []string{answer}
		if r := h.run("keys", "remove", "work"); r.code != 77 || len(removed()) != 0 {
			t.Errorf("%q: %+v, %q", answer, r, removed())
		}
	}
	h, removed = home()
	r := h.run("keys", "remove", "work")
	want := result{"", "gatepass: removing a key asks first: there is no terminal to ask on\ngatepass: to remove it without being asked: gatepass keys remove work --yes\n", 75}
	if r != want || len(removed()) != 0 {
		t.Errorf("nobody to ask: got %+v, want %+v", r, want)
	}
	h, removed = home()
	h.answers = []string{"y"}
	if r := h.run("keys", "remove", "wrok"); r.code != 78 || !strings.Contains(r.stderr, `did you mean "work"?`) || len(removed()) != 0 || len(h.asked) != 0 {
		t.Errorf("unknown: %+v", r)
	}
}
