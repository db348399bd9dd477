package profiles

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// chainsScript prints what botocore makes of each pair of files below a
// directory: all that its session says of each profile, and how it would get
// credentials for it, with a stand-in for STS that notes its parameters.
const chainsScript = `
import json, os, sys
import botocore.session
from botocore.credentials import create_credential_resolver
from botocore.exceptions import BotoCoreError
from datetime import datetime, timedelta, timezone

class STS:
    def __init__(self, calls, key):
        self.calls, self.key = calls, key
    def assume_role(self, **params):
        self.calls.append([self.key, params])
        return {"Credentials": {"AccessKeyId": "ASIA%d" % len(self.calls), "SecretAccessKey": "s", "SessionToken": "t",
            "Expiration": (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()}, "AssumedRoleUser": {"Arn": "arn:aws:sts::111122223333:assumed-role/x/y"}}

def session(dir):
    s = botocore.session.Session()
    s.set_config_variable("config_file", os.path.join(dir, "config"))
    s.set_config_variable("credentials_file", os.path.join(dir, "credentials"))
    return s

def chain(dir, name):
    s = session(dir)
    s.set_config_variable("profile", name)
    calls = []
    s.create_client = lambda service, **kw: STS(calls, kw["aws_access_key_id"])
    try:
        resolver = create_credential_resolver(s)
        resolver.get_provider("assume-role")._prompter = lambda prompt: "123456"
        for other in ("env", "container-role", "iam-role"):
            resolver.remove(other)
        creds = resolver.load_credentials()
        if creds is None:
            return {"none": True}
        key = creds.get_frozen_credentials().access_key
    except BotoCoreError as e:
        return {"error": type(e).__name__}
    roles = []
    for n, (by, params) in enumerate(calls):
        if n > 0 and by != "ASIA%d" % n:
            return {"error": "the calls are no chain: %r" % calls}
        roles.append({k: params[k] for k in ("RoleArn", "ExternalId", "DurationSeconds", "RoleSessionName", "SerialNumber") if k in params and not (k == "RoleSessionName" and params[k].startswith("botocore-session-"))})
    return {"key": calls[0][0] if calls else key, "roles": roles}

out = {}
for name in os.listdir(sys.argv[1]):
    dir = os.path.join(sys.argv[1], name)
    try:
        all = session(dir).full_config["profiles"]
    except BotoCoreError as e:
        out[name] = {"error": type(e).__name__}
        continue
    out[name] = {"profiles": all, "chains": {p: chain(dir, p) for p in all}}
json.dump(out, sys.stdout)
`

// A botocorePair is what botocore makes of a config and a credentials file.
type botocorePair struct {
	Error    string                    `json:"error,omitempty"`
	Profiles map[string]map[string]any `json:"profiles,omitempty"`
	Chains   map[string]botocoreChain  `json:"chains,omitempty"`
}

type botocoreChain struct {
	None  bool           `json:"none,omitempty"` // there are no credentials
	Error string         `json:"error,omitempty"`
	Key   string         `json:"key,omitempty"` // the access key id that begins
	Roles []botocoreRole `json:"roles,omitempty"`
}

type botocoreRole struct {
	RoleArn         string
	ExternalId      string `json:",omitempty"`
	RoleSessionName string `json:",omitempty"`
	SerialNumber    string `json:",omitempty"`
	DurationSeconds int    `json:",omitempty"`
}

func askBotocoreForChains(t *testing.T, dir string) map[string]botocorePair {
	t.Helper()
	if out, err := exec.Command("python3", "-c", "import botocore.session").CombinedOutput(); err != nil {
		if os.Getenv("GATEPASS_REAL") == "1" {
			t.Fatalf("botocore cannot be asked: %v: %s", err, out)
		}
		t.Skipf("botocore cannot be asked: %v", err)
	}
	cmd := exec.Command("python3", "-X", "utf8", "-c", chainsScript, dir)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "AWS_EC2_METADATA_DISABLED=true"}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]botocorePair
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// sameChain compares what a profile means here and there. Where botocore has
// no credentials we may have a stored key; where it has, we must go the same
// way, from the key of the section that it reads it in.
func sameChain(files Files, name string, theirs botocorePair) (counted string, err error) {
	their := theirs.Chains[name]
	our, ourErr := NewReader().Resolve(files, name)
	switch {
	case their.Error == "InfiniteLoopConfigError" || their.Error == "InvalidConfigError" && !reachesPlaintext(theirs, name):
		// A loop, or a source that is not there or has nothing. A loop is one to
		// both, but for a profile that is its own source: a stored key may stand
		// where botocore finds none.
		if their.Error == "InfiniteLoopConfigError" && ourErr == nil {
			if last := our.Way[len(our.Way)-1]; theirs.Profiles[last]["source_profile"] != last {
				return "", fmt.Errorf("botocore sees a loop, we %+v", *our)
			}
		}
		return "refused", nil
	case their.Error != "" || their.None:
		return "none", nil
	case ourErr != nil:
		return "", fmt.Errorf("botocore begins with %s, we say %v", their.Key, ourErr)
	}
	if key, _ := theirs.Profiles[our.Key]["aws_access_key_id"].(string); key != their.Key {
		return "", fmt.Errorf("botocore begins with %s, we with the key %q (%s)", their.Key, our.Key, key)
	}
	var roles []botocoreRole
	for _, h := range our.Hops {
		roles = append(roles, botocoreRole{h.RoleARN, h.ExternalID, h.SessionName, h.MFASerial, int(h.Duration / time.Second)})
	}
	if len(roles) != len(their.Roles) || len(roles) > 0 && !reflect.DeepEqual(roles, their.Roles) {
		return "", fmt.Errorf("botocore assumes %+v, we %+v", their.Roles, roles)
	}
	return fmt.Sprintf("%d roles", len(roles)), nil
}

// reachesPlaintext reports whether some profile on the way of name has keys.
func reachesPlaintext(all botocorePair, name string) bool {
	for range 100 {
		p := all.Profiles[name]
		if p["aws_access_key_id"] != nil {
			return true
		}
		next, _ := p["source_profile"].(string)
		if next == "" {
			return false
		}
		name = next
	}
	return false
}

// mergedMeaning is all that both files say of each profile.
func mergedMeaning(t *testing.T, files Files) map[string]map[string]any {
	t.Helper()
	config, err := os.ReadFile(files.Config)
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := os.ReadFile(files.Credentials)
	if err != nil {
		t.Fatal(err)
	}
	set, err := newProfileSet(files, config, credentials, func(string) use { return useValue })
	if err != nil {
		t.Fatal(err)
	}
	return flat(set.profiles)
}

func compareChains(t *testing.T, dir string, theirs map[string]botocorePair) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for pair, their := range theirs {
		files := Files{Config: filepath.Join(dir, pair, "config"), Credentials: filepath.Join(dir, pair, "credentials"), Trusted: true}
		names, err := NewReader().Names(files)
		if (err != nil) != (their.Error != "") {
			t.Errorf("%s: we say %v, botocore %q", pair, err, their.Error)
		}
		if err != nil {
			counts["unreadable"]++
			continue
		}
		if our := mergedMeaning(t, files); !reflect.DeepEqual(our, their.Profiles) {
			t.Errorf("%s:\nwe say        %v\nbotocore says %v", pair, our, their.Profiles)
		}
		for _, name := range names {
			counted, err := sameChain(files, name, their)
			if err != nil {
				config, _ := os.ReadFile(files.Config)
				credentials, _ := os.ReadFile(files.Credentials)
				t.Errorf("%s, profile %q: %v\n%s\n-- credentials --\n%s", pair, name, err, config, credentials)
			}
			counts[counted]++
		}
	}
	return counts
}

const (
	pairs         = "testdata/pairs"
	recordedPairs = "testdata/pairs.json" // askBotocoreForChains(pairs), by the botocore of [recorded]
)

// Both files together mean to us what they meant to botocore when that was
// recorded: their merge, and the way from each profile to its keys.
func TestRecordedChains(t *testing.T) {
	text, err := os.ReadFile(recordedPairs)
	if err != nil {
		t.Fatal(err)
	}
	var theirs map[string]botocorePair
	if err := json.Unmarshal(text, &theirs); err != nil {
		t.Fatal(err)
	}
	dirs, err := os.ReadDir(pairs)
	if err != nil || len(dirs) != len(theirs) {
		t.Fatalf("%d pairs in %s, %d recorded, %v", len(dirs), pairs, len(theirs), err)
	}
	testPairs(t, theirs)
}

// And so they do to the botocore that is installed.
func TestChainsAgainstBotocore(t *testing.T) {
	abs, err := filepath.Abs(pairs)
	if err != nil {
		t.Fatal(err)
	}
	theirs := askBotocoreForChains(t, abs)
	testPairs(t, theirs)
	if *record {
		text, err := json.MarshalIndent(theirs, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(recordedPairs, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func testPairs(t *testing.T, theirs map[string]botocorePair) {
	t.Helper()
	abs, err := filepath.Abs(pairs)
	if err != nil {
		t.Fatal(err)
	}
	counts := compareChains(t, abs, theirs)
	if counts["0 roles"] == 0 || counts["1 roles"] == 0 || counts["2 roles"] == 0 || counts["refused"] == 0 || counts["unreadable"] == 0 {
		t.Errorf("the corpus lacks a kind: %v", counts)
	}
	t.Log(counts)
}

// So do pairs made of the pieces that decide where a chain goes.
func TestChainsAgainstBotocoreAtRandom(t *testing.T) {
	const n = 150
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		config, credentials := randomPair(rnd)
		for name, text := range map[string]string{"config": config, "credentials": credentials} {
			if err := os.WriteFile(filepath.Join(sub, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	counts := compareChains(t, dir, askBotocoreForChains(t, dir))
	for _, kind := range []string{"0 roles", "1 roles", "2 roles", "3 roles", "none", "refused"} {
		if counts[kind] < 5 {
			t.Errorf("%d of %s: the files are not odd in the right way", counts[kind], kind)
		}
	}
	t.Log(counts)
}

func randomPair(rnd *rand.Rand) (config, credentials string) {
	names := []string{"default", "a", "b", "c", "d e", "ü"}
	odd := func(one int) bool { return rnd.IntN(one) == 0 }
	var b, c strings.Builder
	keys := func(b *strings.Builder, name string) {
		fmt.Fprintf(b, "aws_access_key_id = AKIA%x%d\naws_secret_access_key = s\n", name, rnd.IntN(100))
	}
	role := func(b *strings.Builder, i int, name string) {
		fmt.Fprintf(b, "role_arn = arn:aws:iam::%012d:role/R%d\n", rnd.IntN(3), i)
		for _, line := range []string{"external_id = x/y", "duration_seconds = 7200", "role_session_name = me@x", "mfa_serial = GAHT12345678"} {
			if odd(4) {
				b.WriteString(line + "\n")
			}
		}
	}
	for i, name := range names {
		if odd(10) {
			continue
		}
		switch {
		case name != "default":
			fmt.Fprintf(&b, "[profile %q]\n", name)
		case odd(2):
			b.WriteString("[default]\n")
		default:
			b.WriteString("[profile default]\n")
		}
		if !odd(3) {
			role(&b, i, name)
			if !odd(8) {
				fmt.Fprintf(&b, "source_profile = %s\n", names[rnd.IntN(len(names))])
			}
		}
		if odd(5) {
			keys(&b, name)
		}
		if odd(3) {
			fmt.Fprintf(&b, "region = eu-west-%d\n", rnd.IntN(9))
		}
	}
	for i, name := range names {
		if odd(3) {
			fmt.Fprintf(&c, "[%s]\n", name)
			if odd(6) {
				role(&c, i+10, name)
			}
			if odd(6) {
				fmt.Fprintf(&c, "source_profile = %s\n", names[rnd.IntN(len(names))])
			}
			keys(&c, name)
		}
	}
	return b.String(), c.String()
}
