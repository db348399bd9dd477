package forward

import (
	"gatepass/broker"
	"gatepass/broker/audit"
)

// A record is an entry on its way.
type record struct {
	raw   []byte // as it stands in the log
	entry audit.Entry
	sure  bool // its number fits those around it
	gap   gap
}

// A gap is what could not be sent of the log before an entry.
type gap struct {
	removed int64 // entries that are not in the log any more
	damaged int   // lines that are none
	why     error // of the first
}

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
