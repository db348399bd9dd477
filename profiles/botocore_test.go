package profiles

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// botocoreScript prints what botocore makes of each file in a directory, as a
// config file and as a credentials file.
const botocoreScript = `
import json, os, sys
from botocore import configloader
from botocore.exceptions import ConfigParseError

def attempt(f, path):
    try:
        return f(path)
    except ConfigParseError as e:
        return {"error": str(e)}

def config(path):
    c = configloader.load_config(path)
    return {"profiles": c["profiles"], "services": c["services"]}

def credentials(path):
    return {"profiles": configloader.raw_config_parse(path)}

out = {}
for name in os.listdir(sys.argv[1]):
    path = os.path.join(sys.argv[1], name)
    out[name] = [attempt(config, path), attempt(credentials, path)]
json.dump(out, sys.stdout)
`

// A meaning is what a file means, with whatever keys it has. Values that are
// nested blocks are maps.
type meaning struct {
	Error    string                    `json:"error,omitempty"`
	Profiles map[string]map[string]any `json:"profiles"`
	Services map[string]map[string]any `json:"services"`
}

// askBotocore returns its meaning of each file in dir.
func askBotocore(t *testing.T, dir string) map[string][2]meaning {
	t.Helper()
	missing := func(why string, args ...any) {
		t.Helper()
		if os.Getenv("GATEPASS_REAL") == "1" {
			t.Fatalf(why, args...)
		}
		t.Skipf(why, args...)
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		missing("the AWS CLI's own reader cannot be asked: %v", err)
	}
	if out, err := exec.Command(python, "-c", "import botocore.configloader").CombinedOutput(); err != nil {
		missing("the AWS CLI's own reader cannot be asked: %v: %s", err, out)
	}
	cmd := exec.Command(python, "-X", "utf8", "-c", botocoreScript, dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string][2]meaning
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// ourMeaning is the same from our reader, all keys kept.
func ourMeaning(data []byte, credentials bool) meaning {
	keepAll := func(string) use { return useValue }
	files, config, creds := Files{Config: "config", Credentials: "credentials"}, data, []byte(nil)
	if credentials {
		config, creds = creds, config
	}
	set, err := newProfileSet(files, config, creds, keepAll)
	if err != nil {
		return meaning{Error: err.Error()}
	}
	m := meaning{Profiles: flat(set.profiles)}
	if !credentials {
		m.Services = flat(set.services)
	}
	return m
}

// flat is profiles as JSON would have them.
func flat(profiles map[string]*profile) map[string]map[string]any {
	all := map[string]map[string]any{}
	for name, p := range profiles {
		all[name] = map[string]any{}
		for _, s := range p.settings {
			if all[name][s.key] = s.value; strings.HasPrefix(s.value, "\n") {
				block, _ := nested(s.value)
				inner := map[string]any{}
				for k, v := range block {
					inner[k] = v
				}
				all[name][s.key] = inner
			}
		}
	}
	return all
}

// compare holds our meaning of each file in dir against theirs. Where the two
// differ, one is wrong, unless the package's documentation says why.
func compare(t *testing.T, dir string, theirs map[string][2]meaning) (accepted, refused int) {
	t.Helper()
	for name, both := range theirs {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for i, kind := range []string{"config", "credentials"} {
			our, their := ourMeaning(data, i == 1), both[i]
			switch {
			case strings.Contains(our.Error, "NUL") && bytes.IndexByte(data, 0) >= 0:
				refused++ // documented
			case (our.Error != "") != (their.Error != ""):
				t.Errorf("%s as a %s file: we say %q, botocore says %q\n%q", name, kind, our.Error, their.Error, clip(data))
			case our.Error != "":
				refused++
			case !reflect.DeepEqual(our, their):
				t.Errorf("%s as a %s file:\nwe say        %.2000v\nbotocore says %.2000v\n%q", name, kind, our, their, clip(data))
			default:
				accepted++
			}
		}
	}
	return accepted, refused
}

func clip(data []byte) []byte { return data[:min(len(data), 2000)] }

const (
	corpus   = "testdata/ini"
	recorded = "testdata/botocore.json" // askBotocore(corpus), by botocore 1.43.11 on Python 3.11
)

var record = flag.Bool("record", false, "write "+recorded+" anew, with the botocore that is installed")

// The corpus means to us what it meant to botocore when that was recorded.
func TestRecordedBotocore(t *testing.T) {
	text, err := os.ReadFile(recorded)
	if err != nil {
		t.Fatal(err)
	}
	var theirs map[string][2]meaning
	if err := json.Unmarshal(text, &theirs); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(corpus)
	if err != nil || len(files) != len(theirs) || len(files) == 0 {
		t.Fatalf("%d files in %s, %d recorded, %v", len(files), corpus, len(theirs), err)
	}
	compare(t, corpus, theirs)
}

// And so it does to the botocore that is installed.
func TestAgainstBotocore(t *testing.T) {
	theirs := askBotocore(t, corpus)
	accepted, refused := compare(t, corpus, theirs)
	t.Logf("%d meanings agree, %d refusals", accepted, refused)
	if *record {
		for name, both := range theirs {
			for i := range both {
				if both[i].Error != "" {
					both[i].Error = "refused"
				}
			}
			theirs[name] = both
		}
		text, err := json.MarshalIndent(theirs, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(recorded, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Files made of the pieces on which readers differ.
func TestAgainstBotocoreAtRandom(t *testing.T) {
	const n = 2000
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), randomFile(rnd), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	accepted, refused := compare(t, dir, askBotocore(t, dir))
	if accepted < n/5 || refused < n/5 {
		t.Errorf("%d meanings, %d refusals: the files are not odd in the right way", accepted, refused)
	}
	t.Logf("%d meanings agree, %d refusals", accepted, refused)
}

func randomFile(rnd *rand.Rand) []byte {
	pick := func(from []string) string { return from[rnd.IntN(len(from))] }
	var (
		space    = []string{"", "", "", "", " ", "  ", "\t", "\f", "\v", "\x1c", "\u0085", "\u00a0", "\u2003", "\u2028", "\u3000", " \t "}
		breaks   = []string{"\n", "\n", "\n", "\n", "\n", "\n", "\n", "\r\n", "\r\n", "\r", "\n\n", "\n \n", "\r\r\n"}
		sections = []string{"default", "DEFAULT", "profile a", "profile b", "profile  c", `profile "a b"`, "profile 'x", `profile a\ b`, `profile "\""`, `profile "\x"`, "profilex y", "profile", "profile a b", "profile default", " default", "default ", "services s", "services 't'", "sso-session z", "a", "b", "x]y", "profile ''", "profile ü", "profile #", "profile a;b", "\u00a0"}
		keys     = []string{"region", "Region", "REGION", "role_arn", "source_profile", "s3", "sts", "k", "K", "key with blanks", "ключ", "КЛЮЧ", "İ", "i̇", "ﬁ", "ß", "ẞ", "K", "[x", "a]"}
		delims   = []string{"=", "=", "=", " = ", ":", " : ", "=:", "==", "= = "}
		values   = []string{"", "", "v", "value # no comment", "v;w", "#x", ";x", "a=b", "a:b", "%(x)s", "[profile x]", "\"q\"", "\ufeff", "é", "\x01", "x\x1cy"}
		lines    = []string{"", "# comment", "; comment", "  # deeper comment", "no delimiter", "rem x", "=", "= v", ":", "[]", "[", "]", "[]]", "\ufeff"}
		deeper   = []string{"x = 1", "y=2", "x = 1", "endpoint_url = http://a", "Mixed = Case", "plain", "[profile x]", "# c", "", "a:b", "p = q\x1dr = s", "= v", "x\u2028y=1"}
	)
	odd := func(one int) bool { return rnd.IntN(one) == 0 }
	var b strings.Builder
	if odd(60) {
		b.WriteString(pick([]string{"\ufeff", "\x00", "\xff", "\xff\xfe", "\xed\xa0\x80"}))
	}
	if !odd(20) {
		b.WriteString("[" + pick(sections) + "]" + pick(breaks))
	}
	for range rnd.IntN(9) {
		if odd(6) {
			b.WriteString(pick(space))
		}
		switch rnd.IntN(10) {
		case 0, 1, 2:
			b.WriteString("[" + pick(sections) + "]")
			if odd(6) {
				b.WriteString(pick([]string{" # comment", "x", "=y", "] # ]"}))
			}
		case 3, 4, 5, 6:
			b.WriteString(pick(keys) + pick(delims) + pick(values) + pick(space))
			for range rnd.IntN(3) {
				b.WriteString(pick(breaks) + pick([]string{" ", "  ", "\t", "\u00a0 ", "    "}) + pick(deeper))
			}
		case 7:
			if odd(3) {
				b.WriteString(pick(lines))
			} else {
				b.WriteString(pick(lines[:4]))
			}
		case 8:
			b.WriteString(pick([]string{"  ", "\t"}) + pick(deeper))
		}
		b.WriteString(pick(breaks))
	}
	return []byte(b.String())
}
