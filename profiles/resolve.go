package profiles

import (
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// A resolver resolves the profiles of one state of the files, each one once.
type resolver struct {
	files Files
	*profileSet
	resolved sync.Map // profile name → *resolution, for profiles that exist
}

type resolution struct {
	chain *Chain
	err   error
}

func newResolver(files Files, set *profileSet) *resolver {
	return &resolver{files: files, profileSet: set}
}

// resolve returns the chain of a profile. It is shared.
func (r *resolver) resolve(name string) (*Chain, error) {
	if v, ok := r.resolved.Load(name); ok {
		res := v.(*resolution)
		return res.chain, res.err
	}
	if msg := checkName(name); msg != "" {
		return nil, &ConfigError{Profile: name, Msg: msg}
	}
	p := r.profiles[name]
	if p == nil {
		return nil, &NotFoundError{Name: name, Nearest: nearest(name, r.names), Files: r.files, Bare: r.bare[name]}
	}
	res := r.meaning(name, p)
	r.resolved.Store(name, &res)
	return res.chain, res.err
}

// meaning resolves p, whatever is known of it.
func (r *resolver) meaning(name string, p *profile) (res resolution) {
	w := &walk{resolver: r, chain: Chain{Profile: name}}
	if w.asked, res.err = r.withIncludes(p); res.err == nil {
		res.err = w.resolve()
	}
	if res.err == nil {
		res.chain = &w.chain
	}
	return res
}

// A walk follows one profile to the key that starts its chain.
type walk struct {
	*resolver
	asked *profile // with its includes
	chain Chain
}

func (w *walk) resolve() error {
	for _, step := range [...]func(*walk) error{(*walk).follow, (*walk).duration, (*walk).region, (*walk).endpoint, (*walk).serve} {
		if err := step(w); err != nil {
			return err
		}
	}
	return nil
}

// follow finds the hops and the key.
func (w *walk) follow() error {
	var (
		key     *setting // the first gatepass_key on the way
		keyOf   *profile
		visited passed
	)
	for p := w.asked; ; {
		w.chain.Way = append(w.chain.Way, p.name)
		visited.add(w.chain.Way)
		if err := checkOwn(p); err != nil {
			return err
		}
		if s, ok := p.get("gatepass_key"); ok && key == nil {
			if msg := checkName(s.value); msg != "" {
				return wrong(p, s, "%s", msg)
			}
			key, keyOf = &s, p
		}
		hop, err := w.hop(p)
		if err != nil {
			return err
		}
		source, hasSource, err := either(p, "source_profile", "gatepass_source_profile")
		if err != nil {
			return err
		}
		static, isStatic := plaintext(p)
		if isStatic {
			w.note(p, static, "the plaintext keys of this profile are not used here, but SDKs prefer them: store them with \"gatepass keys add\" and remove them")
		}
		follows := hasSource && source.value != p.name
		if isStatic && (p != w.asked || hop == nil) {
			// The keys are the profile's, whatever role it names as well.
			follows = false
			if hop != nil {
				role, _, _ := either(p, "role_arn", "gatepass_role_arn")
				w.note(p, role, "the role is skipped where this profile is a source_profile, because it has keys of its own")
				hop = nil
			}
		}
		w.noteVault(p)
		if err := w.checkForeign(p, hop != nil, follows, key != nil); err != nil {
			return err
		}
		if hop != nil {
			w.chain.Hops = append(w.chain.Hops, *hop)
		} else if err := w.keyMFA(p); err != nil {
			return err
		}
		if !follows {
			w.chain.Key = p.name
			w.chain.KeyFrom = KeyFrom{Profile: p.name, File: p.file, Line: p.line}
			break
		}
		if msg := checkName(source.value); msg != "" {
			return wrong(p, source, "%s", msg)
		}
		next := w.profiles[source.value]
		if next == nil {
			return w.noProfile(p, source, w.chain.Way, `; to name a stored key, use "gatepass_key" instead`)
		}
		if visited.has(w.chain.Way, next.name) {
			return leadsBack(p, source, w.chain.Way, next.name)
		}
		if p, err = w.withIncludes(next); err != nil {
			return err
		}
	}
	slices.Reverse(w.chain.Hops)
	if key != nil {
		w.chain.Key = key.value
		w.chain.KeyFrom = KeyFrom{Profile: keyOf.name, Explicit: true, File: key.file, Line: key.line}
	}
	return nil
}

// passed knows the profiles of a way. Nearly all are short: only a long one
// needs a set.
type passed map[string]bool

const longWay = 8

func (p *passed) add(way []string) {
	switch n := len(way); {
	case n < longWay:
	case n == longWay:
		*p = make(passed, 2*longWay)
		for _, name := range way {
			(*p)[name] = true
		}
	default:
		(*p)[way[n-1]] = true
	}
}

func (p passed) has(way []string, name string) bool {
	return p[name] || p == nil && slices.Contains(way, name)
}

// hop returns the role of p, or nil if it names none.
func (w *walk) hop(p *profile) (*Hop, error) {
	arn, ok, err := either(p, "role_arn", "gatepass_role_arn")
	if err != nil {
		return nil, err
	}
	if !ok {
		for _, key := range []string{"gatepass_external_id", "gatepass_role_session_name", "gatepass_source_identity", "gatepass_session_tags", "gatepass_transitive_tags"} {
			if s, ok := p.get(key); ok {
				w.note(p, s, "does not apply to a profile without a role")
			}
		}
		return nil, nil
	}
	if msg := checkRoleARN(arn.value); msg != "" {
		return nil, wrong(p, arn, "%s is not the ARN of a role: %s%s", quote(arn.value), msg, commentHint(arn.value))
	}
	h := &Hop{Profile: p.name, RoleARN: arn.value}
	for _, f := range []struct {
		standard, twin string
		into           *string
		check          func(string) string
		shown          bool // in errors
	}{
		{"role_session_name", "gatepass_role_session_name", &h.SessionName, checkSessionName, true},
		{"external_id", "gatepass_external_id", &h.ExternalID, checkExternalID, false},
		{"mfa_serial", "gatepass_mfa_serial", &h.MFASerial, checkMFASerial, true},
		{"", "gatepass_source_identity", &h.SourceIdentity, checkSourceIdentity, true},
	} {
		s, ok, err := either(p, f.standard, f.twin)
		if err != nil {
			return nil, err
		}
		if !ok || s.value == "" {
			continue
		}
		if msg := f.check(s.value); msg != "" {
			if f.shown {
				msg = quote(s.value) + ": " + msg
			}
			return nil, wrong(p, s, "%s%s", msg, commentHint(s.value))
		}
		*f.into = s.value
	}
	if h.MFAProcess, err = w.mfaProcess(p); err != nil {
		return nil, err
	}
	if h.Duration, err = durationOf(p, maxRoleDuration); err != nil {
		return nil, err
	}
	if s, ok := p.get("gatepass_session_tags"); ok {
		if h.Tags, err = parseTags(s.value); err != nil {
			return nil, wrong(p, s, "%w", err)
		}
	}
	if s, ok := p.get("gatepass_transitive_tags"); ok {
		if h.TransitiveTags, err = parseTagKeys(s.value); err != nil {
			return nil, wrong(p, s, "%w", err)
		}
		for _, key := range h.TransitiveTags {
			if !slices.ContainsFunc(h.Tags, func(t Tag) bool { return strings.EqualFold(t.Key, key) }) {
				return nil, wrong(p, s, "tag %s is not in gatepass_session_tags", quote(key))
			}
		}
	}
	return h, nil
}

// keyMFA takes the MFA settings of p, which names no role, for the key itself.
// Those of the profile nearest to the one asked for count.
func (w *walk) keyMFA(p *profile) error {
	s, ok, err := either(p, "mfa_serial", "gatepass_mfa_serial")
	if err != nil {
		return err
	}
	if ok && s.value != "" && w.chain.MFASerial == "" {
		if msg := checkMFASerial(s.value); msg != "" {
			return wrong(p, s, "%s: %s%s", quote(s.value), msg, commentHint(s.value))
		}
		w.chain.MFASerial = s.value
	}
	process, err := w.mfaProcess(p)
	if w.chain.MFAProcess == "" {
		w.chain.MFAProcess = process
	}
	return err
}

// mfaProcess returns the command line that prints MFA codes, if the files may
// name one.
func (w *walk) mfaProcess(p *profile) (string, error) {
	s, ok, err := either(p, "mfa_process", "gatepass_mfa_process")
	switch {
	case err != nil || !ok || s.value == "":
		return "", err
	case !w.files.Trusted:
		w.note(p, s, untrusted)
		return "", nil
	case !isOneLine(s.value):
		return "", wrong(p, s, "the command must be on one line")
	}
	return s.value, nil
}

const untrusted = "does not count: this file is not the default one, and not in trusted_configs of gatepass.toml"

// duration sets how long the key's own session lasts, where that is what the
// profile means.
func (w *walk) duration() error {
	if len(w.chain.Hops) == 0 {
		d, err := durationOf(w.asked, maxSessionDuration)
		w.chain.Duration = d
		return err
	}
	if _, ok, err := either(w.asked, "role_arn", "gatepass_role_arn"); ok || err != nil {
		return err
	}
	for _, key := range []string{"duration_seconds", "gatepass_duration"} {
		if s, ok := w.asked.get(key); ok {
			w.note(w.asked, s, "does not apply: the role, and its duration, are those of another profile")
		}
	}
	return nil
}

// durationOf returns p's duration, between STS's minimum and most, or 0.
func durationOf(p *profile, most time.Duration) (time.Duration, error) {
	var found time.Duration
	for _, key := range []string{"duration_seconds", "gatepass_duration"} {
		s, ok := p.get(key)
		if !ok || s.value == "" {
			continue
		}
		d, ok := parseDuration(s.value, key == "gatepass_duration")
		switch {
		case !ok && key == "gatepass_duration":
			return 0, wrong(p, s, `%s is not a duration such as "3600" or "1h"%s`, quote(s.value), commentHint(s.value))
		case !ok:
			return 0, wrong(p, s, "%s is not a number of seconds%s", quote(s.value), commentHint(s.value))
		case d < minDuration || d > most:
			return 0, wrong(p, s, "%s is outside of what AWS allows here, %d to %d seconds", quote(s.value), minDuration/time.Second, most/time.Second)
		case found != 0 && found != d:
			return 0, wrong(p, s, "differs from duration_seconds of the same profile")
		}
		found = d
	}
	return found, nil
}

// checkForeign refuses a profile whose credentials do not begin with a stored
// key. explicit says that a gatepass_key asks for one all the same.
func (w *walk) checkForeign(p *profile, hasRole, follows, explicit bool) error {
	if source, ok := p.get("credential_source"); ok {
		if s, both := p.get("source_profile"); both {
			return wrong(p, source, "cannot stand beside source_profile (line %d)", s.line)
		}
	}
	for _, foreign := range []struct {
		key, what string
		anyway    bool // counts though the role has another source
	}{
		{"credential_source", "takes its credentials from the environment or the machine it runs on", true},
		{"web_identity_token_file", "takes its credentials from a web identity", true},
		{"sso_session", "takes its credentials from IAM Identity Center (SSO)", false},
		{"sso_start_url", "takes its credentials from IAM Identity Center (SSO)", false},
		{"sso_account_id", "takes its credentials from IAM Identity Center (SSO)", false},
		{"login_session", `takes its credentials from "aws login"`, false},
		{"credential_process", "takes its credentials from another program", false},
	} {
		s, ok := p.get(foreign.key)
		if !ok {
			continue
		}
		if foreign.key == "credential_process" {
			switch profile, ours := ownProcess(s.value); {
			case ours && profile == p.name:
				w.chain.Adopted = w.chain.Adopted || p == w.asked
				continue
			case ours:
				return wrong(p, s, "asks gatepass for another profile, %s: correct the name, or ask for that profile", quote(profile))
			}
		}
		if explicit || hasRole && follows && !foreign.anyway {
			w.note(p, s, "is not used")
			continue
		}
		return wrong(p, s, `the profile %s, which gatepass does not serve; use the AWS CLI as it is, or add "gatepass_key = NAME" to start from a stored key`, foreign.what)
	}
	return nil
}

// noteVault tells of keys that aws-vault reads and we do not, since they would
// change what is asked of AWS.
func (w *walk) noteVault(p *profile) {
	for _, k := range [...][2]string{
		{"session_tags", "gatepass_session_tags"},
		{"transitive_session_tags", "gatepass_transitive_tags"},
		{"source_identity", "gatepass_source_identity"},
		{"parent_profile", "include_profile"},
	} {
		if s, ok := p.get(k[0]); ok && !p.has(k[1]) {
			w.note(p, s, "is read by aws-vault alone: write "+k[1]+" instead")
		}
	}
}

// ownProcess reports whether a credential_process is
// "…/gatepass credential-process NAME", with flags or without, and returns
// NAME.
func ownProcess(command string) (profile string, ours bool) {
	if runtime.GOOS == "windows" {
		command = strings.ReplaceAll(command, `\`, "/")
	}
	words, err := splitWords(command)
	if err != nil || len(words) < 3 {
		return "", false
	}
	if program := path.Base(words[0]); program != "gatepass" && program != "gatepass.exe" {
		return "", false
	}
	args := slices.DeleteFunc(words[1:], func(a string) bool { return strings.HasPrefix(a, "-") })
	if len(args) != 2 || args[0] != "credential-process" {
		return "", false
	}
	return args[1], true
}

// region sets the profile's region and where to call STS.
func (w *walk) region() error {
	region, err := regionOf(w.asked)
	if err != nil {
		return err
	}
	w.chain.Region, w.chain.STSRegion = region, region
	if region == "" {
		if p := w.profiles["default"]; p != nil {
			w.chain.STSRegion, err = regionOf(p)
		}
	}
	return err
}

func regionOf(p *profile) (string, error) {
	s, ok := p.get("region")
	if !ok || s.value == "" {
		return "", nil
	}
	if msg := checkRegion(s.value); msg != "" {
		return "", wrong(p, s, "%s: %s%s", quote(s.value), msg, commentHint(s.value))
	}
	return s.value, nil
}

// endpoint sets where the profile wants STS and IAM to be called.
func (w *walk) endpoint() error {
	if s, ok := w.asked.get("ignore_configured_endpoint_urls"); ok && strings.EqualFold(s.value, "true") {
		return nil
	}
	url, err := w.configuredEndpoint("sts")
	if err != nil {
		return err
	}
	// No session needs IAM: what is wrong with its endpoint is no failure.
	iam, err := w.configuredEndpoint("iam")
	if err != nil {
		w.note(w.asked, iam, "the settings of iam must stand on the lines below it, indented")
		iam, _ = w.asked.get("endpoint_url")
	}
	if !w.files.Trusted {
		if url.value != "" {
			w.note(w.asked, url, untrusted)
		}
		if iam.value != "" && iam != url {
			w.note(w.asked, iam, untrusted)
		}
		return nil
	}
	w.chain.Endpoint, w.chain.IAMEndpoint = url.value, iam.value
	if url.value == "" {
		return nil
	}
	if msg := checkEndpoint(url.value); msg != "" {
		return wrong(w.asked, url, "%s", msg)
	}
	return nil
}

// configuredEndpoint returns the endpoint_url for a service in the profile's
// [services] section, else the profile's own, else a zero setting.
func (w *walk) configuredEndpoint(service string) (setting, error) {
	if s, ok := w.asked.get("services"); ok {
		services := w.services[s.value]
		if services == nil {
			return s, wrong(w.asked, s, "there is no section %s%s", quote("[services "+s.value+"]"), commentHint(s.value))
		}
		if own, ok := services.get(service); ok {
			if !strings.HasPrefix(own.value, "\n") {
				return own, wrong(w.asked, own, "in services %s, the settings of %s must stand on the lines below it, indented", quote(s.value), service)
			}
			block, _ := nested(own.value)
			if u := block["endpoint_url"]; u != "" {
				return setting{key: "endpoint_url", value: u, file: own.file, line: own.line}, nil
			}
		}
	}
	s, _ := w.asked.get("endpoint_url")
	return s, nil
}

func (w *walk) serve() error {
	s, ok := w.asked.get("gatepass_serve")
	if !ok || s.value == "" {
		return nil
	}
	switch s.value {
	case "container", "env", "imds":
		w.chain.Serve = s.value
		return nil
	}
	return wrong(w.asked, s, `%s is none of "container", "env" and "imds"%s`, quote(s.value), commentHint(s.value))
}

// checkOwn refuses keys that look like ours and are not.
func checkOwn(p *profile) error {
	for _, s := range p.settings {
		if strings.HasPrefix(s.key, ownPrefix) {
			if k, _ := known([]byte(s.key)); k == "" {
				msg := "there is no such key"
				if near := nearest(s.key, []string{
					"gatepass_key", "gatepass_role_arn", "gatepass_source_profile", "gatepass_mfa_serial", "gatepass_mfa_process",
					"gatepass_external_id", "gatepass_role_session_name", "gatepass_duration", "gatepass_source_identity",
					"gatepass_session_tags", "gatepass_transitive_tags", "gatepass_serve",
				}); len(near) > 0 {
					msg += "; did you mean " + near[0] + "?"
				}
				return wrong(p, s, "%s", msg)
			}
		}
	}
	return nil
}

// either returns the setting that p has in the standard form, in ours, or in
// both with one value. A source_profile or role that is empty is an error.
func either(p *profile, standard, twin string) (setting, bool, error) {
	s, hasStandard := p.get(standard)
	t, hasTwin := p.get(twin)
	switch {
	case hasStandard && hasTwin && s.value != t.value:
		return t, true, wrong(p, t, "differs from %s on line %d", standard, s.line)
	case !hasStandard:
		s = t
	}
	if s.key != "" && s.value == "" && mustHaveValue(standard) {
		return s, true, wrong(p, s, "the value is empty")
	}
	return s, hasStandard || hasTwin, nil
}

// plaintext returns where p has long-term keys in the file.
func plaintext(p *profile) (setting, bool) {
	if s, ok := p.get("aws_secret_access_key"); ok {
		return s, true
	}
	return p.get("aws_access_key_id")
}

// wrong says what is wrong with one setting of p.
func wrong(p *profile, s setting, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &ConfigError{File: s.file, Line: s.line, Profile: p.name, Key: s.key, Msg: err.Error()}
}

// note says that one setting of p does not count.
func (w *walk) note(p *profile, s setting, msg string) {
	w.chain.Notes = append(w.chain.Notes, wrong(p, s, "%s", msg).Error())
}
