package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit/forward"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gatepass.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigErrorsNameFileLineAndKey(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "keychain = \"auto\"\n\nkeychian = \"file\"\n", `:3: unknown key "keychian"`},
		{"unknown key in a table", "[aws]\nproxi = \"http://p:1\"\n", `:2: unknown key "aws.proxi"`},
		{"unknown table", "\n[grups.it]\nmembers = []\n", `unknown key "grups`},
		{"wrong type", "\nkeychain = 7\n", `:2: keychain: must be a string, not of type integer`},
		{"wrong type in a table", "[aws]\n\nca_bundle = true\n", `:3: aws.ca_bundle: `},
		{"no list", "trusted_configs = 7\n", `:1: trusted_configs: must be a list of strings, not of type integer`},
		{"no table", "aws = 7\n", `:1: aws: must be a table, not of type integer`},
		{"no time", "[mfa]\nkeep = \"8\"\n", `:2: mfa.keep: "8" is not a time from "15m" to "36h"`},
		{"too short", "[mfa]\nkeep = \"14m\"\n", `:2: mfa.keep: "14m" is not`},
		{"too long", "[mfa]\nkeep = \"37h\"\n", `:2: mfa.keep: "37h" is not`},
		{"no way to ask", "[mfa]\nprompt = \"pigeon\"\n", `:2: mfa.prompt: "pigeon" is none of auto, tty, pinentry`},
		{"no way to serve", "[leases]\nserve = \"pigeon\"\n", `:2: leases.serve: "pigeon" is none of container, env, imds`},
		{"no session", "[leases]\nsession = \"\"\n", `:2: leases.session: "" is none of own, shared`},
		{"no renewal", "leases.renew = \"yes\"\n", `:1: leases.renew: "yes" is none of auto, ask, never`},
		{"no end", "[leases]\nat_expiry = \"kill\"\n", `:2: leases.at_expiry: "kill" is none of warn, end`},
		{"no grace", "[leases]\ngrace = \"0s\"\n", `:2: leases.grace: "0s" is not a time`},
		{"no way to forward", "[audit]\nforward = [\"pigeon\"]\n", `:2: audit.forward: destination 1: it is neither journald nor a URL`},
		{"no list to forward", "[audit]\nforward = \"journald\"\n", `:2: audit.forward: must be a list of strings, not of type string`},
		{"forwarded twice", "audit.forward = [\n\"journald\", \"syslog+udp://h\",\n\"syslog+udp://H:514\"]\n", `:1: audit.forward: destination 3: it is there already`},
		{"not in the list", "keychain = \"vault\"\n", `:1: keychain: "vault" is none of auto, `},
		{"relative path", "\ntrusted_configs = [\n\"a/b\"]\n", `:2: trusted_configs: "a/b" is not an absolute path`},
		{"not a URL", "[aws]\nendpoint_url = \"ftp://x\"\n", `:2: aws.endpoint_url: not a URL`},
		{"syntax", "keychain = \"auto\"\n[aws\n", `:2: `},
		{"twice", "keychain = \"auto\"\nkeychain = \"auto\"\n", `:2: `},
		{"too large", strings.Repeat("#\n", maxConfig), "larger than"},
		{"NUL", "keychain = \"a\x00uto\"\n", `:1: `},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, tt.text)
			_, err := readConfig(path)
			if broker.CodeOf(err) != broker.CodeConfig {
				t.Fatalf("got %v, want a config error", err)
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q and the path in it", err, tt.want)
			}
		})
	}
}

// What only the way to AWS can judge has its place in the file too.
func TestConfigErrorsOfAWSNameFileLineAndKey(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"[aws]\n\nendpoint_url = \"http://example.com\"\n", `:3: aws.endpoint_url: plain http to example.com`},
		{"[aws]\nendpoint_url_sts = \"https://me:hunter2@example.com\"\n", `:2: aws.endpoint_url_sts: it holds a user`},
		{"[aws]\nca_bundle = \"/nonexistent.pem\"\n", `:2: aws.ca_bundle: "/nonexistent.pem": `},
		{"aws.proxy = \"http://me:hunter2@p/path\"\n", `:1: aws.proxy: not a URL`},
		{"[aws]\nproxy = \"http://p\"\nno_proxy = \"a b\"\n", `:3: aws.no_proxy: "a b" is not a host`},
	} {
		path := write(t, tt.text)
		cfg, err := readConfig(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = newSTS(cfg, slog.New(slog.DiscardHandler))
		if broker.CodeOf(err) != broker.CodeConfig || !strings.HasPrefix(err.Error(), path+tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %v, want %s and the path before it", tt.text, err, tt.want)
		}
	}
}

func TestConfigKeep(t *testing.T) {
	day := 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"": 0, "7d": 7 * day, "168h": 7 * day, "400d": 400 * day, "9600h": 400 * day, "106751d": 106751 * day,
		"6d": -1, "167h": -1, "0d": -1, "400": -1, "d": -1, "400 d": -1, "-400d": -1, "+400d": -1, "4e2d": -1, "1.5d": -1,
		"1y": -1, "400D": -1, "400d0h": -1, "106752d": -1, "999999999999999999999d": -1, "9600m": -1,
	} {
		cfg, err := readConfig(write(t, "[audit]\nkeep = \""+text+"\"\n"))
		if want < 0 {
			if broker.CodeOf(err) != broker.CodeConfig || !strings.Contains(err.Error(), ":2: audit.keep: ") {
				t.Errorf("%q: %v, %v", text, cfg.Audit.keep, err)
			}
		} else if err != nil || cfg.Audit.keep != want {
			t.Errorf("%q: %v, %v, want %v", text, cfg.Audit.keep, err, want)
		}
	}
}

// What only the way to a destination can judge has its place too, and so has a
// URL with a password in it, which is not quoted.
func TestConfigErrorsOfForwardNameFileLineAndKey(t *testing.T) {
	path := write(t, "[audit]\n\nforward = [\"syslog+tls://h?ca=/nonexistent.pem\"]\n")
	cfg, err := readConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = newForwarder(cfg, broker.Paths{Forward: filepath.Join(t.TempDir(), "forward.json")}, slog.New(slog.DiscardHandler))
	if broker.CodeOf(err) != broker.CodeConfig || !strings.HasPrefix(err.Error(), path+":3: audit.forward: syslog+tls://h:6514: read the authorities: ") {
		t.Errorf("got %v", err)
	}
	_, err = readConfig(write(t, "[audit]\nforward = [\"otlp+https://me:hunter2@h\"]\n"))
	if err == nil || strings.Contains(fmt.Sprintf("%v %+v", err, err), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestConfigErrorHidesProxyPassword(t *testing.T) {
	_, err := readConfig(write(t, "[aws]\nproxy = \"socks5://me:hunter2@p:1\"\n"))
	if err == nil || strings.Contains(fmt.Sprintf("%v %+v", err, err), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestConfigUnreadable(t *testing.T) {
	if _, err := readConfig(t.TempDir()); broker.CodeOf(err) != broker.CodeConfig {
		t.Errorf("a directory: got %v, want a config error", err)
	}
	if pipe := filepath.Join(t.TempDir(), "pipe"); exec.Command("mkfifo", pipe).Run() == nil {
		if _, err := readConfig(pipe); broker.CodeOf(err) != broker.CodeConfig || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("a pipe: got %v, want a config error", err)
		}
	}
	cfg, err := readConfig(filepath.Join(t.TempDir(), "none.toml"))
	if err != nil || cfg.Keychain != "auto" || cfg.Audit.Command != "masked" {
		t.Errorf("no file: got %+v, %v, want the defaults", cfg, err)
	}
}

func TestConfigValues(t *testing.T) {
	t.Setenv("HOME", "/home/alice")
	cfg, err := readConfig(write(t, `
keychain = "file"
trusted_configs = ["~/work/aws.cfg", "/etc/aws/config"]
[aws]
endpoint_url = "http://127.0.0.1:4566"
endpoint_url_sts = "https://sts.example.com"
ca_bundle = "/etc/ca.pem"
proxy = "http://proxy:3128"
no_proxy = "example.com,10.0.0.0/8"
[audit]
command = "name"
keep = "400d"
forward = ["syslog+udp://logs.example.com"]
[mfa]
keep = "90m"
prompt = "pinentry"
[leases]
serve = "imds"
session = "shared"
renew = "ask"
at_expiry = "end"
grace = "5s"
`))
	if err != nil {
		t.Fatal(err)
	}
	to, err := forward.Parse("syslog+udp://logs.example.com")
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		Keychain:       "file",
		TrustedConfigs: []string{"/home/alice/work/aws.cfg", "/etc/aws/config"},
		AWS: awsConfig{
			EndpointURL: "http://127.0.0.1:4566", EndpointURLSTS: "https://sts.example.com",
			CABundle: "/etc/ca.pem", Proxy: "http://proxy:3128", NoProxy: "example.com,10.0.0.0/8",
		},
		Audit: auditConfig{
			Command: "name", Keep: "400d", keep: 400 * 24 * time.Hour,
			Forward: []string{"syslog+udp://logs.example.com"}, forward: []forward.Destination{to},
		},
		MFA:    mfaConfig{Keep: "90m", Prompt: "pinentry", keep: 90 * time.Minute},
		Leases: leasesConfig{Serve: "imds", Session: "shared", Renew: "ask", AtExpiry: "end", Grace: "5s", grace: 5 * time.Second},
	}
	cfg.refuse = nil
	if fmt.Sprint(cfg) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("keychain = \"file\"\n[aws]\nproxy = \"http://p\"\n")
	path := filepath.Join(f.TempDir(), "gatepass.toml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readConfig(path); err != nil && broker.CodeOf(err) != broker.CodeConfig {
			t.Errorf("%q: code of %v is %s", text, err, broker.CodeOf(err))
		}
	})
}
