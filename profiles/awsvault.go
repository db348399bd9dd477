package profiles

import (
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"
)

// A vaultLine is a command line of aws-vault that prints credentials.
type vaultLine struct {
	profile string
	flags   map[string]string // without their dashes
}

// vaultCommand reads a command line of aws-vault. It reports false for others,
// and for those of aws-vault that do not print credentials.
// https://github.com/ByteNess/aws-vault/blob/main/USAGE.md
func vaultCommand(command string) (line vaultLine, ok bool) {
	words, err := splitWords(command)
	if err != nil || len(words) < 3 {
		return line, false
	}
	program := words[0]
	if runtime.GOOS == "windows" {
		program = strings.ReplaceAll(program, `\`, "/")
	}
	if program = path.Base(program); program != "aws-vault" && program != "aws-vault.exe" {
		return line, false
	}
	withValue := []string{"--backend", "--prompt", "--keychain", "--keychain-name", "--secret-service-collection", "--pass-dir", "--pass-cmd",
		"--pass-prefix", "--file-dir", "--duration", "-d", "--mfa-token", "-t", "--region", "--format"}
	line.flags = map[string]string{}
	var args []string
	for i := 1; i < len(words); i++ {
		switch w := words[i]; {
		case slices.Contains(withValue, w):
			if i++; i < len(words) {
				line.flags[strings.TrimLeft(w, "-")] = words[i]
			}
		case w == "--":
			return line, false // and a command, whatever it prints
		case strings.HasPrefix(w, "-"):
			if name, value, ok := strings.Cut(w, "="); ok {
				line.flags[strings.TrimLeft(name, "-")] = value
			}
		default:
			args = append(args, w)
		}
	}
	if len(args) != 2 || args[0] != "exec" && args[0] != "export" {
		return line, false
	}
	line.profile = args[1]
	return line, true
}

// adopted returns what p will be: its credential_process is ours, whatever it
// was. Where aws-vault served another profile there, p starts with that.
func (p *profile) adopted(serves string) *profile {
	ours := *p
	set, _ := p.get("credential_process")
	ours.settings = slices.DeleteFunc(slices.Clone(p.settings), func(s setting) bool { return s.key == "credential_process" })
	word := "'" + strings.ReplaceAll(p.name, "'", `'\''`) + "'"
	ours.settings = append(ours.settings, setting{key: "credential_process", value: "gatepass credential-process " + word, file: p.file, line: set.line})
	if serves != p.name {
		ours.settings = append(ours.settings, setting{key: "gatepass_source_profile", value: serves, file: p.file, line: set.line})
	}
	return &ours
}

// vaultDefaults returns p as aws-vault sees it, which serves the named profile
// there: one that includes no other has what [default] says, as if it included
// that. Where this makes no difference to what is asked of AWS, p is returned
// as it is.
func (s *state) vaultDefaults(p *profile, serves string) (*profile, error) {
	last := p
	if serves != p.name {
		last = s.profiles[serves]
	}
	for range maxIncludes {
		if last == nil { // which resolving p tells
			return p, nil
		}
		set, ok := last.get("include_profile")
		if !ok || set.value == "" || set.value == p.name {
			break
		}
		last = s.profiles[set.value]
	}
	if last == nil || last.name == "default" || s.profiles["default"] == nil {
		return p, nil
	}
	more := *last
	more.settings = slices.DeleteFunc(slices.Clone(last.settings), func(s setting) bool { return s.key == "include_profile" })
	more.settings = append(more.settings, setting{key: "include_profile", value: "default", file: last.file, line: last.line})
	then := *s.profileSet
	then.profiles = maps.Clone(s.profiles)
	then.profiles[p.name] = p
	then.profiles[more.name] = &more
	chain, err := newResolver(s.files, &then).resolve(p.name)
	if err != nil {
		return p, nil // what [default] says is not for gatepass
	}
	if now, err := s.with(p).resolve(p.name); err == nil && sameSession(now, chain) {
		return p, nil
	}
	if last != p {
		return nil, &ConfigError{File: p.file, Line: p.line, Profile: p.name,
			Msg: "aws-vault takes from [default] here what gatepass does not: write \"include_profile = default\" into profile " + quote(last.name)}
	}
	return &more, nil
}

// FromVault tells that aws-vault has served a profile, though it has no line
// of it: Adopt then makes its section in the config file where there is none,
// and gives it what aws-vault took from [default].
func (e *Editor) FromVault(profile string) { e.vaulted[profile] = true }

// ThroughVault returns the profiles, other than the one of the same name, for
// which aws-vault uses, or would use, one of the keys that it keeps: those of
// [Editor.Through], and those whose line runs aws-vault. It uses the first one
// on the way, whatever the source_profile of that one's own profile. They come
// in groups, each of which can be adopted once those before it are.
func (e *Editor) ThroughVault(key string, kept []string) [][]string {
	s, err := e.read()
	if err != nil {
		return nil
	}
	then := *s.profileSet
	then.profiles = maps.Clone(s.profiles)
	vaulted := map[string]bool{}
	for name, p := range s.profiles {
		set, ok := p.get("credential_process")
		line, isVault := vaultCommand(set.value)
		switch {
		case isVault:
			vaulted[name] = true
			then.profiles[name] = p.adopted(line.profile)
		case !ok:
			then.profiles[name] = p.adopted(name)
		}
	}
	if then.profiles[key] == nil {
		then.profiles[key] = &profile{name: key, file: s.files.Config}
	}
	reads := newResolver(s.files, &then)
	byDepth := map[int][]string{}
	for _, name := range s.names {
		if name == key {
			continue
		}
		chain, err := reads.resolve(name)
		if err != nil || startOf(chain.Way, kept) != key {
			continue
		}
		if vaulted[name] || !chain.KeyFrom.Explicit || chain.Key == key {
			byDepth[len(chain.Way)] = append(byDepth[len(chain.Way)], name)
		}
	}
	var groups [][]string
	for _, depth := range slices.Sorted(maps.Keys(byDepth)) {
		groups = append(groups, byDepth[depth])
	}
	return groups
}

// startOf returns the profile on a way whose key aws-vault uses.
func startOf(way, kept []string) string {
	for _, name := range way {
		if slices.Contains(kept, name) {
			return name
		}
	}
	return ""
}

// VaultFlags returns the flags, without their dashes, of every line that runs
// aws-vault, the same ones once.
func (e *Editor) VaultFlags() []map[string]string {
	s, err := e.read()
	if err != nil {
		return nil
	}
	var all []map[string]string
	for _, name := range slices.Sorted(maps.Keys(s.profiles)) {
		set, _ := s.profiles[name].get("credential_process")
		line, ok := vaultCommand(set.value)
		if ok && !slices.ContainsFunc(all, func(f map[string]string) bool { return maps.Equal(f, line.flags) }) {
			all = append(all, line.flags)
		}
	}
	return all
}
