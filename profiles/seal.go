package profiles

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// A Sealing says for which lease a config file is made.
type Sealing struct {
	Lease    string   // its id
	Admitted []string // the profiles that it is served; the first also to whoever names none
	Program  string   // absolute path of gatepass

	// Endpoint says that the environment inside names an endpoint that serves
	// the first profile. SDKs would rather run a credential_process of
	// [default] than ask there, so it gets none.
	Endpoint bool
}

// Seal returns the config file that the processes of a lease see in place of
// the user's two. It fails with a *[ConfigError] for files that cannot be read
// or do not parse, and for a Sealing that no SDK could make use of.
//
// [default] and the admitted profiles have what the user set in either file
// of how to speak to AWS and what to show: region, retries, s3, cli_pager and
// their like. [default] has the settings of the first admitted profile, since
// that is whose session whoever names no profile gets; of the user's own
// [default] it has only what concerns the AWS CLI's output. The admitted
// profiles ask gatepass for their sessions, and so do all others of the user,
// which have nothing beside that but their region: asking is how they come
// to be refused with a reason.
// The AWS CLI and the SDKs for Python and Go then stop and show it. Others,
// that for JavaScript among them, go on to the endpoint when a
// credential_process fails, and would have the first profile's session: nothing
// that a file could say to them alone keeps them from it. The endpoint refuses
// those whose AWS_PROFILE says that they were told another one.
//
// A key is copied because it is on a list of those that are known to be
// neutral. The other way round, a list of those that must stay outside,
// would let through what AWS will call its next credential, and the secrets
// that other tools keep in these files under names of their own. Values of
// keys that are not on the list are not even taken out of the files. What runs
// a program or leads elsewhere (cli_pager, endpoint_url, ca_bundle, services)
// is copied from trusted files alone.
//
// SDKs give a credential_process to a shell, and some fail on a file with a
// name that they do not like. A profile with such a name is left out; it
// cannot be admitted unless as the first one, which the endpoint serves.
func Seal(files Files, s Sealing) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	r := NewReader()
	config, _, err := r.readFile(files.Config)
	if err != nil {
		return nil, err
	}
	credentials, _, err := r.readFile(files.Credentials)
	defer func() {
		clear(config)
		clear(credentials)
	}()
	if err != nil {
		return nil, err
	}
	return seal(files, config, credentials, s)
}

// check refuses what would serve nobody, or could not be written.
func (s Sealing) check() error {
	if !consistsOf(s.Lease, isKeyByte) {
		return &ConfigError{Msg: quote(s.Lease) + " is no lease"}
	}
	if !filepath.IsAbs(s.Program) {
		return &ConfigError{File: s.Program, Msg: "the path of gatepass is not absolute"}
	}
	if _, msg := commandLine(s.Program, "x"); msg != "" {
		return &ConfigError{Msg: msg}
	}
	for i, name := range s.Admitted {
		switch msg := checkSealable(name); {
		case i > 0 && name == "default" && s.Admitted[0] != name:
			return &ConfigError{Profile: name, Msg: "inside a lease the default profile is the first one: name this one first"}
		case msg != "" && (i > 0 || !s.Endpoint):
			return &ConfigError{Profile: name, Msg: msg}
		}
	}
	return nil
}

// checkSealable says why a profile cannot stand in a sealed config.
func checkSealable(name string) string {
	if name == "__proto__" { // the SDK for JavaScript refuses the whole file
		return "not every SDK reads this name"
	}
	return checkServable(name)
}

// seal is Seal for what stands in the files.
func seal(files Files, config, credentials []byte, s Sealing) ([]byte, error) {
	set, err := newProfileSet(files, config, credentials, sealKeep)
	if err != nil {
		return nil, err
	}
	w := &sealer{resolver: newResolver(files, set), sealing: s}
	w.WriteString("# The profiles as the processes of lease " + s.Lease + " see them.\n" +
		"# gatepass made this file and removes it: what is written here is lost.\n")
	if len(s.Admitted) > 0 {
		w.first(s.Admitted[0])
	}
	for _, name := range set.names {
		if name != "default" && checkSealable(name) == "" {
			w.profile(name, slices.Contains(s.Admitted, name))
		}
	}
	w.endpoints(config)
	return w.Bytes(), nil
}

// A sealer writes a sealed config.
type sealer struct {
	bytes.Buffer
	*resolver
	sealing Sealing
	used    []string // the services sections that profiles name
}

// first writes [default], which is the profile named.
func (w *sealer) first(name string) {
	w.WriteString("\n[default]\n")
	p, own := w.find(name), w.find("default")
	w.settings(p)
	for _, set := range own.settings {
		if forOutput(set.key) && w.may(set.key) && !p.has(set.key) {
			w.setting(set)
		}
	}
	if !w.sealing.Endpoint {
		w.process(name)
	}
}

// profile writes a profile's section.
func (w *sealer) profile(name string, admitted bool) {
	w.WriteString("\n[profile " + name + "]\n")
	p := w.find(name)
	if admitted {
		w.settings(p)
	} else if region, ok := p.get("region"); ok {
		w.setting(region)
	}
	w.process(name)
}

// find returns a profile with what it includes, an empty one where there is
// none or its includes are broken: who asks for it will be told.
func (w *sealer) find(name string) *profile {
	p := w.profiles[name]
	if p == nil {
		return &profile{name: name}
	}
	if whole, err := w.withIncludes(p); err == nil {
		return whole
	}
	return p
}

func (w *sealer) process(name string) {
	if line, msg := commandLine(w.sealing.Program, name); msg == "" {
		w.WriteString("credential_process = " + line + "\n")
	}
}

// may reports whether a key may be copied.
func (w *sealer) may(key string) bool {
	n := neutral(key)
	return n == neutralAlways || n == neutralTrusted && w.files.Trusted
}

// settings writes what of a profile is neutral.
func (w *sealer) settings(p *profile) {
	for _, set := range p.settings {
		switch {
		case !w.may(set.key):
		case set.key == "services":
			if w.services[set.value] != nil && consistsOf(set.value, isKeyByte) {
				w.setting(set)
				w.used = append(w.used, set.value)
			}
		case set.key == "endpoint_url":
			if checkEndpoint(set.value) == "" {
				w.setting(set)
			}
		default:
			w.setting(set)
		}
	}
}

// setting writes one, unless SDKs would read more or less into it than one
// line. Of a block, those lines follow that are neutral.
func (w *sealer) setting(set setting) {
	switch {
	case isBlock(set.key):
		if strings.HasPrefix(set.value, "\n") {
			w.block(set.key, set.value, func(key, value string) bool { return neutralInside(set.key, key, value) })
		}
	case set.value == "" && forOutput(set.key):
		w.WriteString(set.key + " =\n") // which means something: "cli_pager =" is no pager
	case set.value != "" && isPrintable(set.value):
		w.WriteString(set.key + " = " + set.value + "\n")
	}
}

// block writes the lines of a nested value that keep says, if there are any.
func (w *sealer) block(key, value string, keep func(key, value string) bool) {
	inner, _ := nested(value)
	var lines []string
	for k, v := range inner {
		if v != "" && isPrintable(v) && keep(k, v) {
			lines = append(lines, "  "+k+" = "+v+"\n")
		}
	}
	if len(lines) > 0 {
		slices.Sort(lines)
		w.WriteString(key + " =\n" + strings.Join(lines, ""))
	}
}

// endpoints writes the [services] sections that profiles name, of which the
// endpoints alone are known to be neutral.
func (w *sealer) endpoints(config []byte) {
	slices.Sort(w.used)
	s, err := parse(config)
	if err != nil { // newProfileSet has parsed it
		return
	}
	for _, name := range slices.Compact(w.used) {
		w.WriteString("\n[services " + name + "]\n")
		var last *section // the one that counts
		for i := range s.sections {
			if n, ok := secondWord(s.sections[i].name); ok && n == name && strings.HasPrefix(s.sections[i].name, "services") {
				last = &s.sections[i]
			}
		}
		for i := last.first; i < last.last; i++ {
			if e := &s.entries[i]; opensBlock(config, e) && consistsOf(e.key, isKeyByte) {
				w.block(e.key, valueOf(config, e), func(key, value string) bool {
					return key == "endpoint_url" && checkEndpoint(value) == ""
				})
			}
		}
	}
}

// isKeyByte is for names that every SDK reads as they stand.
func isKeyByte(c byte) bool { return isWord(c) || c == '-' }

// isPrintable reports whether every SDK reads s as one line, and a person can
// see what.
func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// A neutrality says from which files a key may be copied.
type neutrality int

const (
	neutralNever   neutrality = iota
	neutralTrusted            // it runs a program, or leads elsewhere
	neutralAlways
)

// neutral says so of a key of a profile.
// https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html
// https://docs.aws.amazon.com/cli/latest/topic/config-vars.html
func neutral(key string) neutrality {
	switch key {
	case "endpoint_url", "services", "ca_bundle", "cli_pager":
		return neutralTrusted
	case "region", "aws_account_id",
		"retry_mode", "max_attempts", "defaults_mode", "tcp_keepalive", "disable_clock_skew_correction",
		"use_fips_endpoint", "use_dualstack_endpoint", "sts_regional_endpoints", "account_id_endpoint_mode",
		"endpoint_discovery_enabled", "ignore_configured_endpoint_urls", "disable_host_prefix_injection",
		"sigv4a_signing_region_set", "auth_scheme_preference",
		"request_checksum_calculation", "response_checksum_validation",
		"disable_request_compression", "request_min_compression_size_bytes",
		"s3_use_arn_region", "s3_us_east_1_regional_endpoint", "s3_disable_multiregion_access_points", "s3_disable_express_session_auth",
		"parameter_validation", "sdk_ua_app_id":
		return neutralAlways
	}
	if isBlock(key) || forOutput(key) {
		return neutralAlways
	}
	return neutralNever
}

// forOutput reports whether key only changes what the AWS CLI shows, and how
// it reads its arguments.
func forOutput(key string) bool {
	rest, ok := strings.CutPrefix(key, "cli_")
	return ok && consistsOf(rest, isKeyByte) || key == "output"
}

// isBlock reports whether a key's value is on the lines below it.
func isBlock(key string) bool { return key == "s3" || key == "emr" || key == "api_versions" }

// neutralInside says which of these lines are neutral.
func neutralInside(block, key, value string) bool {
	switch block + "." + key {
	case "s3.max_concurrent_requests", "s3.max_queue_size", "s3.multipart_threshold", "s3.multipart_chunksize",
		"s3.max_bandwidth", "s3.io_chunksize", "s3.preferred_transfer_client", "s3.target_bandwidth",
		"s3.disk_throughput", "s3.should_stream", "s3.direct_io",
		"s3.addressing_style", "s3.use_accelerate_endpoint", "s3.use_dualstack_endpoint", "s3.payload_signing_enabled",
		"s3.signature_version", "s3.use_arn_region", "s3.us_east_1_regional_endpoint", "s3.s3_disable_multiregion_access_points",
		"emr.service_role", "emr.instance_profile", "emr.log_uri", "emr.key_name", "emr.enable_debugging":
		return true
	}
	return block == "api_versions" && consistsOf(key, isKeyByte) && consistsOf(value, func(c byte) bool { return isDigit(c) || c == '-' })
}

// sealKeep is what is kept of a key when files are read to be sealed.
func sealKeep(key string) use {
	if neutral(key) != neutralNever || key == "include_profile" {
		return useValue
	}
	return useNothing
}
