package profiles

import (
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ownPrefix begins the keys that are gatepass's own.
const ownPrefix = "gatepass_"

// A use says what is kept of a key when a file has been parsed.
type use int

const (
	useNothing   use = iota
	usePresence      // that it is there; its value may be secret, or does not matter
	useComplaint     // that it is there, once a section: ours by its prefix, and not known
	useValue
)

// known returns the key as a constant, and what is kept of it. It returns ""
// for keys that mean nothing to us.
func known(key []byte) (string, use) {
	switch k := string(key); k {
	case "role_arn", "source_profile", "credential_source", "mfa_serial", "mfa_process", "external_id",
		"duration_seconds", "role_session_name", "region", "endpoint_url", "services",
		"ignore_configured_endpoint_urls", "credential_process", "include_profile",
		"gatepass_key", "gatepass_role_arn", "gatepass_source_profile", "gatepass_mfa_serial",
		"gatepass_mfa_process", "gatepass_external_id", "gatepass_role_session_name", "gatepass_duration",
		"gatepass_source_identity", "gatepass_session_tags", "gatepass_transitive_tags", "gatepass_serve",
		"sts", "iam": // in [services]
		return k, useValue
	case "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_security_token",
		"web_identity_token_file", "login_session",
		"sso_session", "sso_start_url", "sso_account_id", "sso_role_name", "sso_region",
		"session_tags", "transitive_session_tags", "source_identity", "parent_profile": // aws-vault's
		return k, usePresence
	}
	return "", useNothing
}

// keep is what is kept of any key.
func keep(key string) use {
	if k, u := known([]byte(key)); k != "" {
		return u
	}
	if strings.HasPrefix(key, ownPrefix) {
		return useComplaint
	}
	return useNothing
}

// A profile is what both files say under one name.
type profile struct {
	name     string
	file     string // of its section; the config file's if it is in both
	line     int
	settings []setting
}

// A setting is one key of a profile.
type setting struct {
	key   string
	value string // "" where only the presence is kept
	file  string
	line  int
}

func (p *profile) get(key string) (setting, bool) {
	for _, s := range p.settings {
		if s.key == key {
			return s, true
		}
	}
	return setting{}, false
}

func (p *profile) has(key string) bool {
	_, ok := p.get(key)
	return ok
}

// A profileSet is the meaning of both files.
type profileSet struct {
	profiles map[string]*profile
	services map[string]*profile // [services NAME]
	bare     map[string]int      // other sections of the config file, and their lines
	names    []string            // of the profiles that can be asked for, sorted
}

// newProfileSet gives the two files their meaning, keeping of each key what
// keep says. A nil data is a file that does not exist.
func newProfileSet(files Files, config, credentials []byte, keep func(string) use) (*profileSet, error) {
	set := &profileSet{
		profiles: map[string]*profile{},
		services: map[string]*profile{},
		bare:     map[string]int{},
	}
	if err := readSections(files.Config, config, keep, set.addConfig); err != nil {
		return nil, err
	}
	if err := readSections(files.Credentials, credentials, keep, set.addCredentials); err != nil {
		return nil, err
	}
	for name := range set.profiles {
		if checkName(name) == "" {
			set.names = append(set.names, name)
		}
	}
	slices.Sort(set.names)
	return set, nil
}

// addConfig takes a section of the config file, as botocore's
// build_profile_map does: of two sections with one profile's name the later
// one counts, whole.
func (set *profileSet) addConfig(p *profile) {
	switch section := p.name; {
	case strings.HasPrefix(section, "profile"):
		if name, ok := secondWord(section); ok {
			p.name = name
			set.profiles[name] = p
		}
	case strings.HasPrefix(section, "sso-session"):
	case strings.HasPrefix(section, "services"):
		if name, ok := secondWord(section); ok {
			p.name = name
			set.services[name] = p
		}
	case section == "default":
		set.profiles[section] = p
	default:
		set.bare[section] = p.line
	}
}

// addCredentials takes a section of the credentials file, where each one is a
// profile by its verbatim name and its keys win.
func (set *profileSet) addCredentials(p *profile) {
	into := set.profiles[p.name]
	if into == nil {
		set.profiles[p.name] = p
		return
	}
	into.settings = slices.DeleteFunc(into.settings, func(s setting) bool { return p.has(s.key) })
	into.settings = append(into.settings, p.settings...)
}

// readSections parses data and passes on its sections as profiles named like
// them, with what [DEFAULT] gives them.
func readSections(file string, data []byte, keep func(string) use, add func(*profile)) error {
	s, cerr := parse(data)
	if cerr != nil {
		cerr.File = file
		return cerr
	}
	type inheritance struct {
		setting
		how use
		err *ConfigError // counts if a section inherits it
	}
	var defaults []inheritance
	complained := false
	for i := range s.sections {
		sec := &s.sections[i]
		if sec.name != inherited {
			continue
		}
		for j := sec.first; j < sec.last; j++ {
			d := inheritance{}
			d.setting, d.how, d.err = settingOf(file, data, &s.entries[j], keep)
			if d.how == useNothing && d.err == nil || d.how == useComplaint && complained {
				continue
			}
			complained = complained || d.how == useComplaint
			defaults = append(defaults, d)
		}
	}
	for i := range s.sections {
		sec := &s.sections[i]
		if sec.name == inherited {
			continue
		}
		p := &profile{name: sec.name, file: file, line: sec.line}
		own := s.entries[sec.first:sec.last]
		n := len(defaults)
		for j := range own {
			if keep(own[j].key) != useNothing {
				n++
			}
		}
		p.settings = make([]setting, 0, min(n, 64))
		complained := false
		for j := range own {
			set, how, err := settingOf(file, data, &own[j], keep)
			if err != nil {
				return err
			}
			if how == useNothing || how == useComplaint && complained {
				continue
			}
			complained = complained || how == useComplaint
			p.settings = append(p.settings, set)
		}
		for _, d := range defaults {
			if slices.ContainsFunc(own, func(e entry) bool { return e.key == d.key }) {
				continue
			}
			if d.err != nil {
				return d.err
			}
			p.settings = append(p.settings, d.setting)
		}
		add(p)
	}
	return nil
}

// settingOf returns what is kept of e. A value that begins on the next line
// must be a nested block, whether the key means anything to us or not.
func settingOf(file string, data []byte, e *entry, keep func(string) use) (setting, use, *ConfigError) {
	set := setting{key: e.key, file: file, line: e.line}
	how := keep(e.key)
	block := opensBlock(data, e)
	if block || how == useValue {
		value := valueOf(data, e)
		if strings.HasPrefix(value, "\n") {
			if _, ok := nested(value); !ok {
				return set, how, &ConfigError{File: file, Line: e.line, Key: e.key, Msg: `the value begins on the next line, so each of its lines must be "key = value"`}
			}
		}
		if how == useValue {
			set.value = value
		}
	}
	return set, how, nil
}

// opensBlock reports whether nothing stands on e's own line and more follows.
func opensBlock(data []byte, e *entry) bool {
	end, next := lineEnd(data[:e.end], e.value, true)
	return next < e.end && len(trim(data[e.value:end])) == 0
}

// secondWord returns the name in a section such as `profile "a b"`: the second
// of exactly two words.
func secondWord(section string) (string, bool) {
	// Nearly all names are plain.
	if kind, name, ok := strings.Cut(section, " "); ok && kind != "" && name != "" && !strings.ContainsAny(section[len(kind)+1:], " \t\r\n'\"\\") && !strings.ContainsAny(kind, "\t\r\n'\"\\") {
		return name, true
	}
	words, err := splitWords(section)
	if err != nil || len(words) != 2 {
		return "", false
	}
	return words[1], true
}

var errQuoting = errors.New("a quotation does not end")

// splitWords splits s as Python's shlex.split does: as a POSIX shell without
// its expansions, operators and comments.
func splitWords(s string) ([]string, error) {
	var (
		words  []string
		word   []byte
		quoted bool // there is a word, though it may be empty
		in     byte // the quotation we are in: ' or "
	)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case in != 0 && c == in:
			in = 0
		case c == '\\' && in != '\'':
			i++
			if i == len(s) {
				return nil, errQuoting
			}
			if in == '"' && s[i] != '"' && s[i] != '\\' {
				word = append(word, '\\')
			}
			word = append(word, s[i])
		case in != 0:
			word = append(word, c)
		case c == '\'' || c == '"':
			in, quoted = c, true
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			if len(word) > 0 || quoted {
				words = append(words, string(word))
			}
			word, quoted = word[:0], false
		default:
			word = append(word, c)
		}
	}
	if in != 0 {
		return nil, errQuoting
	}
	if len(word) > 0 || quoted {
		words = append(words, string(word))
	}
	return words, nil
}

// checkName says what is wrong with a profile's or key's name, or "".
func checkName(name string) string {
	const longest = 512
	switch {
	case name == "":
		return "a name must not be empty"
	case len(name) > longest:
		return "a name must not be longer than 512 bytes"
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return "a name must not hold control characters or invalid UTF-8"
	}
	return ""
}
