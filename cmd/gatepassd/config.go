package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"gatepass/broker"
	"gatepass/broker/audit/forward"
)

// config is gatepass.toml. Every key is optional; README.md lists them with
// their defaults and consequences. An unknown key is an error: a rule that is
// misspelt must not silently be no rule.
type config struct {
	// Keychain chooses where long-term keys are kept. "auto" is the
	// platform's store, and never silently a weaker one.
	Keychain string `toml:"keychain"`
	// TrustedConfigs lists AWS config files, beside ~/.aws/config, whose
	// endpoint_url and mfa_process count.
	TrustedConfigs []string `toml:"trusted_configs"`

	AWS   awsConfig   `toml:"aws"`
	Audit auditConfig `toml:"audit"`
	MFA   mfaConfig   `toml:"mfa"`

	Leases leasesConfig `toml:"leases"`

	// refuse says in which line of which file stands the value of key that
	// err forbids; nil where there is no file.
	refuse func(key string, err error) error
}

// awsConfig says how the daemon reaches AWS. Environment variables never do.
type awsConfig struct {
	EndpointURL    string `toml:"endpoint_url"`     // all services
	EndpointURLSTS string `toml:"endpoint_url_sts"` // wins over endpoint_url
	EndpointURLIAM string `toml:"endpoint_url_iam"` // wins over endpoint_url
	CABundle       string `toml:"ca_bundle"`        // PEM; replaces the system's roots
	Proxy          string `toml:"proxy"`            // http:// or https://
	NoProxy        string `toml:"no_proxy"`         // hosts, domains and CIDRs, separated by commas
}

type auditConfig struct {
	// Command says how much of a caller's command line is recorded.
	Command string `toml:"command"`
	// AnchorCommand gets each new checkpoint on its standard input, and is
	// to keep it where whoever can change the log cannot change it. The
	// shell runs it.
	AnchorCommand string `toml:"anchor_command"`
	// Keep is how long entries are kept at least: "400d"; "" is for ever.
	Keep string `toml:"keep"`
	// Forward lists where entries are sent, as [forward.Parse] reads it.
	Forward []string `toml:"forward"`

	keep    time.Duration
	forward []forward.Destination
}

// mfaConfig says how MFA codes are asked for.
type mfaConfig struct {
	Keep   string `toml:"keep"`   // how long a proof counts: "8h"; 15 min to 36 h
	Prompt string `toml:"prompt"` // one of [broker.PromptModes]

	keep time.Duration
}

// leasesConfig says how leases are served and end.
type leasesConfig struct {
	Serve    string `toml:"serve"`     // one of [broker.ServeModes]
	Session  string `toml:"session"`   // "own" or "shared"
	Renew    string `toml:"renew"`     // "auto", "ask" or "never"
	AtExpiry string `toml:"at_expiry"` // "warn" or "end"
	Grace    string `toml:"grace"`     // between the signals that end processes: "30s"; 1 s to 1 min

	grace time.Duration
}

// check finds a value that cannot be used, and cleans those that are paths.
// Its error never quotes a URL: a proxy's may hold a password.
func (c *config) check() (key string, err error) {
	if err := oneOf(c.Keychain, "auto", "keychain", "wincred", "secret-service", "kwallet", "pass", "keyctl", "file"); err != nil {
		return "keychain", err
	}
	if err := oneOf(c.Audit.Command, "masked", "name", "none"); err != nil {
		return "audit.command", err
	}
	if c.Audit.keep, err = keepTime(c.Audit.Keep); err != nil {
		return "audit.keep", err
	}
	for i, to := range c.Audit.Forward {
		d, err := forward.Parse(to)
		if err == nil && slices.ContainsFunc(c.Audit.forward, func(o forward.Destination) bool { return o.Name() == d.Name() }) {
			err = errors.New("it is there already")
		}
		if err != nil {
			return "audit.forward", fmt.Errorf("destination %d: %w", i+1, err)
		}
		c.Audit.forward = append(c.Audit.forward, d)
	}
	if err := oneOf(c.MFA.Prompt, broker.PromptModes...); err != nil {
		return "mfa.prompt", err
	}
	// What GetSessionToken gives.
	// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html
	if c.MFA.keep, err = time.ParseDuration(c.MFA.Keep); err != nil || c.MFA.keep < 15*time.Minute || c.MFA.keep > 36*time.Hour {
		return "mfa.keep", fmt.Errorf("%q is not a time from \"15m\" to \"36h\"", c.MFA.Keep)
	}
	for _, choice := range []struct {
		key, value string
		names      []string
	}{
		{"leases.serve", c.Leases.Serve, broker.ServeModes},
		{"leases.session", c.Leases.Session, []string{"own", "shared"}},
		{"leases.renew", c.Leases.Renew, []string{"auto", "ask", "never"}},
		{"leases.at_expiry", c.Leases.AtExpiry, []string{"warn", "end"}},
	} {
		if err := oneOf(choice.value, choice.names...); err != nil {
			return choice.key, err
		}
	}
	if c.Leases.grace, err = time.ParseDuration(c.Leases.Grace); err != nil || c.Leases.grace < time.Second || c.Leases.grace > time.Minute {
		return "leases.grace", fmt.Errorf("%q is not a time from \"1s\" to \"1m\"", c.Leases.Grace)
	}
	for key, value := range map[string]string{
		"aws.endpoint_url":     c.AWS.EndpointURL,
		"aws.endpoint_url_sts": c.AWS.EndpointURLSTS,
		"aws.endpoint_url_iam": c.AWS.EndpointURLIAM,
		"aws.proxy":            c.AWS.Proxy,
	} {
		u, err := url.Parse(value)
		if value != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			return key, errors.New("not a URL that begins with http:// or https:// and names a host")
		}
	}
	if c.AWS.CABundle != "" {
		if c.AWS.CABundle, err = absolute(c.AWS.CABundle); err != nil {
			return "aws.ca_bundle", err
		}
	}
	for i, path := range c.TrustedConfigs {
		if c.TrustedConfigs[i], err = absolute(path); err != nil {
			return "trusted_configs", err
		}
	}
	return "", nil
}

// minKeep is less than it takes until somebody asks what happened.
const minKeep = 7 * 24 * time.Hour

// keepTime reads a time in days or hours; "" is none.
func keepTime(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	unit := time.Hour
	digits, ok := strings.CutSuffix(s, "h")
	if !ok {
		unit = 24 * time.Hour
		digits, ok = strings.CutSuffix(s, "d")
	}
	n, err := strconv.ParseUint(digits, 10, 20)
	if !ok || err != nil || time.Duration(n) > math.MaxInt64/unit || time.Duration(n)*unit < minKeep {
		return 0, fmt.Errorf("%q is not a number of days or hours from \"7d\" on, as \"400d\"", s)
	}
	return time.Duration(n) * unit, nil
}

func oneOf(value string, names ...string) error {
	if slices.Contains(names, value) {
		return nil
	}
	return fmt.Errorf("%q is none of %s", value, strings.Join(names, ", "))
}

// absolute returns path cleaned, with ~/ expanded.
func absolute(path string) (string, error) {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("~ in %q: %w", path, err)
		}
		path = filepath.Join(home, rest)
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%q is not an absolute path", path)
	}
	return filepath.Clean(path), nil
}

// maxConfig bounds gatepass.toml, in bytes.
const maxConfig = 1 << 20

// readConfig reads gatepass.toml. A file that does not exist is an empty one;
// one that cannot be read or understood is an error that names file, line and
// key.
func readConfig(path string) (config, error) {
	cfg := config{Keychain: "auto", Audit: auditConfig{Command: "masked"}, MFA: mfaConfig{Keep: "8h", Prompt: "auto"},
		Leases: leasesConfig{Serve: "container", Session: "own", Renew: "auto", AtExpiry: "warn", Grace: "30s"}}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cfg, nil
	}
	if err != nil {
		return cfg, broker.Errorf(broker.CodeConfig, "read configuration: %w", err)
	}
	// Looked at first: opening a pipe would wait for its writer.
	if !info.Mode().IsRegular() {
		return cfg, broker.Errorf(broker.CodeConfig, "read configuration: %s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return cfg, broker.Errorf(broker.CodeConfig, "read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return cfg, broker.Errorf(broker.CodeConfig, "read configuration: %w", err)
	}
	if len(data) > maxConfig {
		return cfg, broker.Errorf(broker.CodeConfig, "read configuration: %s is larger than %d bytes", path, maxConfig)
	}
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		return cfg, explainTOML(path, err)
	}
	cfg.refuse = func(key string, err error) error {
		return broker.Errorf(broker.CodeConfig, "%s:%d: %s: %w", path, lineOf(data, key), key, err)
	}
	if key, err := cfg.check(); err != nil {
		return cfg, cfg.refuse(key, err)
	}
	return cfg, nil
}

// lineOf returns the line on which the dotted key is set in a document that
// parses, 0 if it is not.
func lineOf(data []byte, key string) int {
	var p unstable.Parser
	p.Reset(data)
	var table []string
	for p.NextExpression() {
		node := p.Expression()
		var path []string
		var line int
		for it := node.Key(); it.Next(); {
			path = append(path, string(it.Node().Data))
			line = p.Shape(it.Node().Raw).Start.Line
		}
		if node.Kind != unstable.KeyValue {
			table = path
			continue
		}
		// An inline table sets the keys below its own.
		set := strings.Join(append(slices.Clone(table), path...), ".")
		if key == set || strings.HasPrefix(key, set+".") {
			return line
		}
	}
	return 0
}

// wrongType says in TOML's words what the library says in Go's.
func wrongType(msg string) string {
	rest, ok := strings.CutPrefix(msg, "cannot decode TOML ")
	if !ok {
		return msg
	}
	is, goType, ok := strings.Cut(rest, " into struct field ")
	if !ok {
		return msg
	}
	_, goType, _ = strings.Cut(goType, " of type ")
	want := map[string]string{"string": "a string", "[]string": "a list of strings"}[goType]
	if want == "" {
		want = "a table"
	}
	return "must be " + want + ", not of type " + is
}

// explainTOML names file, line and key of what is wrong in path.
func explainTOML(path string, err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		e := unknown.Errors[0]
		line, _ := e.Position()
		return broker.Errorf(broker.CodeConfig, "%s:%d: unknown key %q", path, line, strings.Join(e.Key(), ".")).
			WithHint("the README lists every key; a misspelt one must not silently count for nothing")
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		line, _ := bad.Position()
		where := ""
		if key := strings.Join(bad.Key(), "."); key != "" {
			where = key + ": "
		}
		return broker.Errorf(broker.CodeConfig, "%s:%d: %s%s", path, line, where, wrongType(strings.TrimPrefix(bad.Error(), "toml: ")))
	}
	return broker.Errorf(broker.CodeConfig, "%s: %w", path, err)
}
