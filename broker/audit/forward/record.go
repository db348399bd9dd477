package forward

import (
	"gatepass/broker"
)

// A field is what a destination can search by.
type field struct{ name, value string }

// fields are the entry's, those that it has. Names are fit for OTLP after
// "gatepass.", and in upper case for journald.
func (r record) fields() []field {
	e := r.entry
	all := []field{{"event", string(e.Kind)}, {"outcome", e.Outcome}, {"profile", e.Profile}, {"account", e.Account}, {"role_arn", e.RoleARN}}
	if e.Key != nil {
		all = append(all, field{"key", e.Key.Name})
	}
	if e.Session != nil {
		all = append(all, field{"session", e.Session.ID}, field{"access_key_id", e.Session.AccessKeyID})
	}
	all = append(all, field{"lease", e.Lease})
	if e.Caller != nil {
		all = append(all, field{"program", e.Caller.Program})
	}
	all = append(all, field{"reason", e.Reason})
	if e.Error != nil {
		all = append(all, field{"error", string(e.Error.Code)})
	}
	has := all[:0]
	for _, f := range all {
		if f.value != "" {
			has = append(has, f)
		}
	}
	return has
}

// bad reports whether the entry tells of something that did not go well.
func (r record) bad() bool { return r.entry.Outcome != broker.OutcomeOK }
