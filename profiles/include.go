package profiles

import "slices"

// maxIncludes bounds how many profiles one is made of.
const maxIncludes = 64

// withIncludes returns p with what its include_profile gives it, as aws-vault
// does: a key that p does not have, or has empty, is that of the profile
// named, which may include another in turn. What says who a profile is (its
// plaintext keys, its credential_process of ours) and where requests go
// (endpoint_url, services) stays with its own profile.
//
// It is stricter than aws-vault in one thing: an included profile must exist.
func (r *resolver) withIncludes(p *profile) (*profile, error) {
	if s, ok := p.get("include_profile"); !ok || s.value == "" {
		return p, nil
	}
	merged := &profile{name: p.name, file: p.file, line: p.line, settings: slices.Clone(p.settings)}
	way := []string{p.name}
	for from := p; ; {
		s, ok := from.get("include_profile")
		if !ok || s.value == "" {
			return merged, nil
		}
		if msg := checkName(s.value); msg != "" {
			return nil, wrong(from, s, "%s", msg)
		}
		next := r.profiles[s.value]
		if next == nil {
			return nil, r.noProfile(from, s, way, "")
		}
		if slices.Contains(way, next.name) {
			return nil, leadsBack(from, s, way, next.name)
		}
		if err := checkOwn(next); err != nil {
			return nil, err
		}
		for _, key := range includable {
			merged.include(next, key)
		}
		if way = append(way, next.name); len(way) > maxIncludes {
			return nil, wrong(from, s, "more than %d profiles include one another", maxIncludes)
		}
		from = next
	}
}

// includable are the keys that include_profile gives, each with its twin.
var includable = [][2]string{
	{"role_arn", "gatepass_role_arn"},
	{"gatepass_key", ""}, // before the source, which it yields to
	{"source_profile", "gatepass_source_profile"},
	{"mfa_serial", "gatepass_mfa_serial"},
	{"mfa_process", "gatepass_mfa_process"},
	{"external_id", "gatepass_external_id"},
	{"role_session_name", "gatepass_role_session_name"},
	{"duration_seconds", "gatepass_duration"},
	{"gatepass_source_identity", ""},
	{"gatepass_session_tags", ""},
	{"gatepass_transitive_tags", ""},
	{"gatepass_serve", ""},
	{"region", ""},
	{"sso_session", ""},
	{"sso_start_url", ""},
	{"sso_account_id", ""},
	{"web_identity_token_file", ""},
	{"credential_process", ""},
}

// include gives p the key, in either form, that from has and p has not.
func (p *profile) include(from *profile, key [2]string) {
	for _, k := range key {
		// Of some keys only the presence is kept.
		if s, ok := p.get(k); ok && (s.value != "" || mustHaveValue(k) || keep(k) == usePresence) {
			return
		}
	}
	if key[0] == "gatepass_key" && (p.has("source_profile") || p.has("gatepass_source_profile")) {
		return // its own source says with which key to start
	}
	for _, k := range key {
		s, ok := from.get(k)
		if !ok || s.value == "" && keep(k) != usePresence {
			continue
		}
		if k == "credential_process" {
			if _, ours := ownProcess(s.value); ours {
				continue // it serves that profile, not this one
			}
		}
		p.settings = slices.DeleteFunc(p.settings, func(old setting) bool { return old.key == k })
		p.settings = append(p.settings, s)
	}
}

// mustHaveValue reports whether key, when it is there and empty, is an error
// rather than absent.
func mustHaveValue(key string) bool { return key == "role_arn" || key == "source_profile" }
