package audit

import (
	"strings"

	"gatepass/broker"
)

// Summary tells the entry in one line, as
// "credentials.served: profile deploy, role Deploy in 111122223333, by terraform, session s-7f3k2m9qxd".
// What came from outside stands in it as it is but for what a terminal would
// obey, which is left out.
func (e Entry) Summary() string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, strings.TrimSpace(name+" "+oneLine(value)))
		}
	}
	if e.Error != nil {
		add("", string(e.Error.Code))
	}
	add("profile", e.Profile)
	if _, role, ok := strings.Cut(e.RoleARN, ":role/"); ok {
		add("role", role+" in "+e.Account)
	}
	if e.Key != nil && e.Kind != broker.EventCredentialsServed {
		add("key", e.Key.Name)
	}
	if e.Caller != nil {
		add("by", e.Caller.Program)
	}
	if e.Session != nil {
		add("session", e.Session.ID)
	}
	add("lease", e.Lease)
	add("reason", e.Reason)
	if e.Error != nil {
		add("", e.Error.Message)
	}
	if len(parts) == 0 {
		return oneLine(string(e.Kind))
	}
	return oneLine(string(e.Kind)) + ": " + strings.Join(parts, ", ")
}

// oneLine is s in one line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r != ' ' && !visible(r):
			return -1
		}
		return r
	}, s)
}
