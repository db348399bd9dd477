package profiles

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
)

// Adopting leaves two kinds of comments, from which restoring knows what to
// do: one that names the keys that were renamed, as they were written, and
// with a "+" those that are new; and in front of each line that a new one
// replaced, that line, byte for byte.
const (
	movedMark    = "# gatepass profiles adopt moved:"
	replacedMark = "# gatepass profiles adopt replaced: "
)

// movable are the keys that SDKs must not see beside a credential_process, or
// would put to use after it, each with the twin that only gatepass reads.
var movable = [][2]string{
	{"role_arn", "gatepass_role_arn"},
	{"source_profile", "gatepass_source_profile"},
	{"mfa_serial", "gatepass_mfa_serial"},
	{"mfa_process", "gatepass_mfa_process"},
	{"external_id", "gatepass_external_id"},
	{"role_session_name", "gatepass_role_session_name"},
	{"duration_seconds", "gatepass_duration"},
}

// addable are the keys that an adopted profile may have that it had not.
var addable = []string{"gatepass_source_profile", "include_profile"}

func twinOf(key string) string {
	for _, m := range movable {
		if m[0] == key {
			return m[1]
		}
	}
	return ""
}

// An Adoption says what came of adopting or restoring one profile.
type Adoption struct {
	Profile string
	Chain   *Chain // what it means; nil with Err
	Already bool   // nothing was to be done
	Err     error
}

// Adopt makes profiles ask gatepass for their credentials in every SDK: the
// keys that make a role get the names that only gatepass reads, and a
// credential_process runs program, an absolute path. A line of aws-vault is
// replaced. A profile that SDKs would still take from elsewhere is refused, as
// is one that does not mean the same afterwards.
func (e *Editor) Adopt(program string, names ...string) []Adoption {
	return e.each(names, func(s *state, name string) ([]edit, *Chain, error) {
		edits, chain, err := s.adopt(name, program, e.leaving[name], e.vaulted[name])
		if err == nil && len(edits) > 0 && e.Accept != nil {
			err = e.Accept(chain)
		}
		return edits, chain, err
	}, func(after *state, name string, before *Chain) (*Chain, error) {
		chain, err := after.resolve(name)
		switch {
		case err != nil:
			return nil, err
		case !chain.Adopted:
			return nil, errors.New("it would not ask gatepass")
		case !sameSession(before, chain):
			return nil, errors.New("it would lead to another key or role")
		}
		return chain, nil
	})
}

// each changes the profiles, all at once or, should that not be read back as
// it was meant, one by one.
func (e *Editor) each(names []string, change func(*state, string) ([]edit, *Chain, error), check func(after *state, name string, before *Chain) (*Chain, error)) []Adoption {
	results := make([]Adoption, len(names))
	if len(names) == 0 {
		return results
	}
	before, err := e.read()
	var edits []edit
	want := map[string]*Chain{}
	for i, name := range names {
		results[i].Profile = name
		if err != nil {
			results[i].Err = err
			continue
		}
		if _, twice := want[name]; twice {
			results[i].Already = true
			continue
		}
		more, chain, err := change(before, name)
		if err != nil {
			results[i].Err = err
			continue
		}
		want[name] = chain
		results[i].Already = len(more) == 0
		edits = append(edits, more...)
	}
	if err != nil {
		return results
	}
	after := before
	wrongWith := ""
	if len(edits) > 0 {
		data := before.apply(edits)
		if after, err = e.readAs(data); err == nil {
			wrongWith = misread(before, after, edits)
		}
	}
	for i, name := range names {
		if results[i].Err != nil {
			continue
		}
		p := before.profiles[name]
		if p == nil {
			p = &profile{name: name, file: e.files.Config}
		}
		var chain *Chain
		rerr := err
		if rerr == nil && wrongWith != "" {
			rerr = fmt.Errorf("section %s would mean something else", quote("["+wrongWith+"]"))
		}
		if rerr == nil {
			chain, rerr = check(after, name, want[name])
		}
		if rerr == nil {
			results[i].Chain = chain
			continue
		}
		if len(names) > 1 { // find the one that it is
			for i, name := range names {
				results[i] = e.each([]string{name}, change, check)[0]
			}
			return results
		}
		results[i].Already = false
		results[i].Err = &ConfigError{File: p.file, Line: p.line, Profile: name, Msg: "the way this section is written does not allow to change it safely: " + rerr.Error() + "; change it by hand", err: rerr}
		return results
	}
	if len(edits) > 0 {
		e.commit(before, after, edits)
	}
	return results
}

// adopt returns what makes a profile adopted, and what it means before. Of one
// whose plaintext keys are leaving, these do not stand in the way; one that
// aws-vault has served need not be in the files.
func (s *state) adopt(name, program string, leaving, vaulted bool) ([]edit, *Chain, error) {
	p := s.profiles[name]
	if p == nil && vaulted && checkName(name) == "" {
		p = &profile{name: name, file: s.files.Config}
	}
	if p == nil {
		_, err := s.resolve(name)
		return nil, nil, err
	}
	refuse := func(set setting, format string, args ...any) ([]edit, *Chain, error) {
		return nil, nil, wrong(p, set, format, args...)
	}
	here := setting{file: p.file, line: p.line}
	if msg := checkServable(name); msg != "" {
		return refuse(here, "%s, so it cannot stand in a credential_process: give it another name", msg)
	}
	sec, n := s.sectionOf(name)
	if sec == nil && !leaving && !vaulted {
		if at, ok := plaintext(p); ok {
			return refuse(at, "the profile has plaintext keys: move them with \"gatepass keys import\"")
		}
		return refuse(here, "the profile stands in the credentials file only: write %s in the config file", quote("[profile "+name+"]"))
	}
	if n > 1 {
		return refuse(here, "%d sections have this profile's name, of which SDKs read different ones: make them one", n)
	}

	var (
		edits []edit
		moved []string
		ours  bool
	)
	serves := name // by aws-vault
	for _, set := range p.settings {
		var own *entry
		if set.file == s.files.Config {
			own = s.entryOf(sec, set.key)
		}
		elsewhere := "in the section [DEFAULT]"
		if set.file != s.files.Config {
			elsewhere = "in the credentials file, which wins over the config file"
		}
		switch set.key {
		case "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_security_token":
			if leaving {
				continue
			}
			return refuse(set, "SDKs would use the plaintext keys of this profile instead: move them with \"gatepass keys import\", or remove them")
		case "sso_session", "sso_start_url", "sso_account_id", "sso_role_name", "sso_region":
			return refuse(set, "SDKs would sign in through IAM Identity Center instead, for which gatepass has no session: leave this profile as it is")
		case "login_session", "web_identity_token_file", "credential_source":
			return refuse(set, "SDKs would take the credentials from there instead: leave this profile as it is, or remove the key and name a stored key with gatepass_key")
		case "credential_process":
			asked, isOurs := ownProcess(set.value)
			command, isVault := vaultCommand(set.value)
			switch {
			case own == nil:
				return refuse(set, "it stands %s: remove it there", elsewhere)
			case isOurs && asked == name:
				ours = true
			case isOurs:
				return refuse(set, "asks gatepass for another profile, %s: correct the name", quote(asked))
			case !isVault:
				return refuse(set, "another program gives this profile its credentials: remove the line if gatepass is to do it")
			default:
				vaulted = true
				edits = append(edits, s.comment(sec, own))
				serves = command.profile
				if command.profile != name {
					if _, ok, _ := either(p, "source_profile", "gatepass_source_profile"); ok || p.has("role_arn") || p.has("gatepass_role_arn") {
						return refuse(set, "aws-vault serves the profile %s here, not the role of this section: remove the one or the other", quote(command.profile))
					}
					moved = append(moved, "+gatepass_source_profile")
				}
			}
		default:
			twin := twinOf(set.key)
			if twin == "" {
				continue
			}
			if own == nil {
				return refuse(set, "it stands %s, where it cannot be taken away from this profile alone: write it into the profile's own section", elsewhere)
			}
			if s.entryOf(sec, twin) != nil {
				edits = append(edits, s.comment(sec, own))
				continue
			}
			was := s.keyText(own)
			if twin == ownPrefix+own.key {
				twin = ownPrefix + was
			}
			edits = append(edits, s.rename(sec, own, twin))
			moved = append(moved, was)
		}
	}

	// What it means now, as far as gatepass reads it.
	inside, reads := p, s.resolver
	if vaulted && !ours {
		inside = p.adopted(serves)
		included, err := s.vaultDefaults(inside, serves)
		if err != nil {
			return nil, nil, err
		}
		if included != inside {
			moved = append(moved, "+include_profile")
		}
		inside, reads = included, s.with(included)
	}
	chain, err := reads.resolve(name)
	if err != nil {
		return nil, nil, err
	}

	br, indent := s.ending(sec), ""
	if sec != nil {
		indent = s.indent(sec)
	}
	command, msg := commandLine(program, name)
	if msg != "" {
		return refuse(here, "%s", msg)
	}
	if ours {
		own := s.entryOf(sec, "credential_process")
		if len(edits) == 0 && trimString(valueOf(s.data, own)) == command {
			return nil, chain, nil
		}
		if trimString(valueOf(s.data, own)) != command {
			// The program has moved.
			text, ending, _ := s.line(own.start)
			lead := text[:len(text)-len(trimLeft([]byte(text)))]
			edits = append(edits, edit{section: sec, start: own.start, end: own.end, text: lead + "credential_process = " + command + ending})
		}
		if len(moved) == 0 {
			return edits, chain, nil
		}
		if at, text, ok := s.movedLine(sec); ok {
			// Keys were added since: the list grows.
			_, ending, next := s.line(at)
			list := strings.TrimPrefix(strings.TrimSuffix(text, " nothing"), " ")
			edits = append(edits, edit{section: sec, start: at, end: next, text: indent + movedMark + joined(list, moved) + ending})
			return edits, chain, nil
		}
	}
	text := indent + movedMark + joined("", moved) + br
	keys := 0
	if !ours {
		text += indent + "credential_process = " + command + br
		keys++
	}
	for _, added := range addable {
		if slices.Contains(moved, "+"+added) {
			set, _ := inside.get(added)
			text += indent + added + " = " + set.value + br
			keys++
		}
	}
	if sec == nil {
		header := "[default]"
		if name != "default" {
			header = "[profile " + name + "]"
		}
		text = header + br + text
		if len(s.data) > 0 {
			text = br + text
		}
		return append(edits, edit{start: len(s.data), end: len(s.data), text: text}), chain, nil
	}
	_, _, next := s.line(sec.start)
	return append(edits, edit{section: sec, start: next, end: next, text: text, keys: keys}), chain, nil
}

func joined(list string, more []string) string {
	all := append(strings.Fields(list), more...)
	if len(all) == 0 {
		return " nothing"
	}
	return " " + strings.Join(all, " ")
}

func trimString(s string) string { return strings.TrimFunc(s, isSpace) }

// keyText returns an entry's key as it is written.
func (s *state) keyText(e *entry) string {
	text, _, _ := s.line(e.start)
	text = text[:strings.IndexAny(text, "=:")]
	return strings.TrimFunc(text, isSpace)
}

// rename gives an entry another key.
func (s *state) rename(sec *section, e *entry, to string) edit {
	text, br, next := s.line(e.start)
	lead := len(text) - len(trimLeft([]byte(text)))
	return edit{section: sec, start: e.start, end: next, text: text[:lead] + to + text[lead+len(s.keyText(e)):] + br}
}

// comment turns the lines of an entry into comments.
func (s *state) comment(sec *section, e *entry) edit {
	var b strings.Builder
	for off := e.start; off < e.end; {
		text, br, next := s.line(off)
		b.WriteString(replacedMark + text + br)
		off = next
	}
	return edit{section: sec, start: e.start, end: e.end, text: b.String(), keys: -1}
}

// movedLine finds the comment that lists what was moved, and what follows the
// mark.
func (s *state) movedLine(sec *section) (at int, list string, ok bool) {
	for off := sec.start; off < sec.end; {
		text, _, next := s.line(off)
		if list, ok := strings.CutPrefix(trimString(text), movedMark); ok {
			return off, list, true
		}
		off = next
	}
	return 0, "", false
}

// with returns what the files mean with p as the profile of its name.
func (s *state) with(p *profile) *resolver {
	then := *s.profileSet
	then.profiles = maps.Clone(s.profiles)
	then.profiles[p.name] = p
	return newResolver(s.files, &then)
}

// sameSession reports whether two chains reach AWS with the same key, roles and
// parameters.
func sameSession(a, b *Chain) bool {
	return a.Key == b.Key && a.MFASerial == b.MFASerial && a.MFAProcess == b.MFAProcess && a.Duration == b.Duration &&
		slices.EqualFunc(a.Hops, b.Hops, func(x, y Hop) bool {
			return x.RoleARN == y.RoleARN && x.SessionName == y.SessionName && x.ExternalID == y.ExternalID &&
				x.MFASerial == y.MFASerial && x.MFAProcess == y.MFAProcess && x.Duration == y.Duration && x.SourceIdentity == y.SourceIdentity &&
				slices.Equal(x.Tags, y.Tags) && slices.Equal(x.TransitiveTags, y.TransitiveTags)
		})
}

// checkServable says why a name cannot be an argument in a credential_process:
// SDKs give the line to a shell, or split it at blanks, or both.
func checkServable(name string) string {
	switch {
	case name == "" || strings.HasPrefix(name, "-"):
		return fmt.Sprintf("%s would be read as a flag", quote(name))
	case strings.ContainsFunc(name, func(r rune) bool { return !isBare(r) }):
		return fmt.Sprintf("a shell would not read the name %s as it stands (a-z, A-Z, 0-9 and . _ @ + : / - are safe)", quote(name))
	}
	return ""
}

// isBare reports whether every shell and SDK takes r for itself.
func isBare(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._@+:/-", r)
}

// commandLine returns the credential_process of a profile.
func commandLine(program, name string) (line, msg string) {
	quoted := false
	for _, r := range program {
		switch {
		case r == ' ':
			quoted = true
		case isBare(r), runtime.GOOS == "windows" && (r == '\\' || r == '(' || r == ')'):
		default:
			return "", fmt.Sprintf("a shell would not read the program's path %s as it stands: install gatepass in a directory with a plain name", quote(program))
		}
	}
	if quoted {
		program = `"` + program + `"`
	}
	return program + " credential-process " + name, ""
}
