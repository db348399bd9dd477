package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/audit"
)

const auditShowHelp = `gatepass audit show explains one entry of the audit log, and names those that
belong to it: the request for its session, the hand-outs, the beginning and the
end of its lease.

usage: gatepass audit show NUMBER [--json]

NUMBER is the entry's, as audit list and audit trace show it ("seq" in JSON).
One that the log does not have is exit code 78, one whose line is no entry 65.

  --json          the entry as it is stored, and the stories of its session and
                  its lease

example:
  gatepass audit show 1042
`

func auditShowCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "show",
		UsageText: auditShowHelp,
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json"}},
		Action:    c.auditShow,
	}
}

func (c *client) auditShow(ctx *cli.Context) error {
	seq, err := entryNumber(ctx)
	if err != nil {
		return err
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	var raw []byte
	var entry audit.Entry
	for line, err := range audit.Entries(ctx.Context, paths.AuditDir, audit.Query{From: seq, To: seq + 1}) {
		switch {
		case err != nil && line.Raw == nil:
			return err
		case err != nil: // a line beside it
			continue
		}
		if entry, err = line.Entry(); err != nil {
			return broker.Errorf(broker.CodeData, "entry %d cannot be read: %w", seq, err)
		}
		raw = append(raw, line.Raw...)
		break
	}
	if raw == nil {
		return c.noEntry(ctx, paths.AuditDir, seq)
	}
	trace, err := audit.TraceOf(ctx.Context, paths.AuditDir, &entry)
	if err != nil {
		return err
	}
	if ctx.Bool("json") {
		return c.writeJSON(struct {
			Entry json.RawMessage `json:"entry"`
			Trace *audit.Trace    `json:"trace,omitempty"`
		}{raw, &trace})
	}
	w := c.prose()
	w.entry(&entry, time.Now())
	w.neighbours(&entry, &trace)
	return c.show(w)
}

// noEntry says which numbers there are. One that is among them is of a line
// that is damaged or gone.
func (c *client) noEntry(ctx *cli.Context, dir string, seq int64) error {
	ends := func(q audit.Query) int64 {
		for line, err := range audit.Entries(ctx.Context, dir, q) {
			if err == nil {
				return line.Seq
			}
		}
		return -1
	}
	first, last := ends(audit.Query{}), ends(audit.Query{Last: 1})
	switch {
	case last < 0:
		return broker.Errorf(broker.CodeNotFound, "the audit log has no entry %d: it is empty", seq)
	case seq > last:
		return broker.Errorf(broker.CodeNotFound, "the audit log has no entry %d: the last one is %d", seq, last)
	case seq < first:
		return broker.Errorf(broker.CodeNotFound, "the audit log has no entry %d: the first one is %d", seq, first)
	}
	return broker.Errorf(broker.CodeData, "entry %d of the audit log cannot be read: its line was damaged or removed", seq).
		WithHint("see: gatepass audit verify")
}

// entry explains e in sentences.
func (w *prose) entry(e *audit.Entry, now time.Time) {
	at := e.Time.Local()
	w.title(fmt.Sprintf("entry %d, %s", e.Seq, at.Format("Monday 2006-01-02 15:04:05 -0700")))
	w.WriteByte('\n')
	w.say(0, whatItSays(e))
	w.WriteByte('\n')
	w.fact("event", string(e.Kind)+", "+e.Outcome)
	if c := e.Caller; c != nil && c.Via != "daemon" {
		p := c.Asker()
		w.fact("program", process(c.Program, p))
		w.fact("ran", p.Command)
		above := c.Ancestors
		for i, a := range c.Ancestors {
			if a.PID == p.PID {
				above = c.Ancestors[i+1:]
			}
		}
		w.fact("where", surroundings(c.User, c.Cwd, c.TTY, above, c.Resolved))
		if p.PID != c.PID {
			w.fact("through", fmt.Sprintf("%s (pid %d), by %s", c.Command, c.PID, c.Via))
		} else {
			w.fact("through", surface(c.Via))
		}
	}
	w.fact("profile", e.Profile)
	w.fact("role", roleText(e.RoleARN, e.Account))
	if e.RoleARN == "" {
		w.fact("account", e.Account)
	}
	w.fact("key", keyText(e.Key))
	if s := e.Session; s != nil {
		w.fact("session", s.ID)
		w.fact("at AWS", atAWS(*s))
		if !s.Expires.IsZero() {
			w.fact("until", s.Expires.Local().Format("2006-01-02 15:04:05 -0700"))
		}
	}
	w.fact("lease", e.Lease)
	w.fact("reason", e.Reason)
	w.fact("groups", strings.Join(e.Groups, ", "))
	w.fact("decision", e.Decision)
	if e.Error != nil {
		w.fact("error", errorText(e.Error))
	}
	if len(e.Cut) > 0 {
		w.fact("cut", strings.Join(e.Cut, ", ")+" (too long to be recorded whole)")
	}
}

// surface says by which way a caller asked.
func surface(via string) string {
	switch via {
	case "container":
		return "the container endpoint of its lease"
	case "imds":
		return "the instance metadata endpoint of its lease"
	}
	return via
}

// whatItSays tells an entry in a sentence or two.
func whatItSays(e *audit.Entry) string {
	who, of, session := whoAsked(e.Caller), ofProfile(e.Profile), "a session"
	if e.Session != nil && e.Session.ID != "" {
		session = "session " + e.Session.ID
	}
	key := "a key"
	if e.Key != nil {
		key = "the key " + e.Key.Name
	}
	asked := "a session" + of
	if e.Profile == "" { // keys, the daemon, another's lease: the error says what
		asked = "something"
	}
	why := colon(e.Reason)
	switch e.Kind {
	case broker.EventDaemonStarted:
		return "The daemon began."
	case broker.EventDaemonStopped:
		return "The daemon ended" + why + "."
	case broker.EventLogRecovered:
		return "The log was mended when the daemon began" + why + "."
	case broker.EventLogLinked:
		return "From here on another key signs the log" + why + "."
	case broker.EventLogPruned:
		return "Old entries were about to be removed, as [audit] keep says" + why + "."
	case broker.EventKeyAdded:
		return upper(who) + " stored " + key + why + "."
	case broker.EventKeyRotating:
		return upper(who) + " was about to change " + key + why + "."
	case broker.EventKeyRotated:
		return upper(who) + " replaced " + key + why + "."
	case broker.EventKeyRemoved:
		return upper(who) + " removed " + key + why + "."
	case broker.EventKeyMoved:
		return upper(key) + " was taken out of where it came from" + why + "."
	case broker.EventMFAVerified:
		return "A code of MFA was accepted for " + key + ", asked for by " + who + "."
	case broker.EventSessionRequested:
		return "STS was about to be asked for " + session + of + ", for " + who + "."
	case broker.EventSessionIssued:
		return "STS issued " + session + of + ", for " + who + "."
	case broker.EventSessionRenewed:
		return "STS issued " + session + of + ", ahead of the end of the one before, so that nobody has to wait."
	case broker.EventSessionEnded:
		return upper(session) + of + " ended" + why + ". It is served no more; at AWS it works until it expires."
	case broker.EventLeaseStarted:
		return "Lease " + e.Lease + of + " began."
	case broker.EventLeaseRenewed:
		return upper(who) + " renewed the sessions of lease " + e.Lease + "."
	case broker.EventLeaseEnded:
		return "Lease " + e.Lease + of + " ended" + why + "."
	case broker.EventLeaseReleased:
		return upper(who) + " let go what lease " + e.Lease + " had left behind" + why + "."
	case broker.EventCredentialsServed:
		return upper(who) + " got " + session + of + "."
	case broker.EventRequestDenied:
		return upper(who) + " asked for " + asked + " and was refused: " + errorMessage(e.Error) + "."
	case broker.EventRequestFailed:
		return upper(who) + " asked for " + asked + " and got nothing: " + errorMessage(e.Error) + "."
	}
	return upper(string(e.Kind)) + ", by " + who + why + "."
}

// upper begins a sentence, unless with the name of a program.
func upper(s string) string {
	for _, ours := range []string{"the ", "a ", "session ", "somebody"} {
		if strings.HasPrefix(s, ours) {
			return strings.ToUpper(s[:1]) + s[1:]
		}
	}
	return s
}

// neighbours lists the entries that belong to e.
func (w *prose) neighbours(e *audit.Entry, t *audit.Trace) {
	var all []moment
	for i := range t.Sessions {
		all = append(all, sessionMoments(&t.Sessions[i])...)
		all = append(all, recipientMoments(t.Sessions[i].Recipients)...)
	}
	for i := range t.Leases {
		all = append(all, leaseMoments(&t.Leases[i])...)
	}
	if len(all) == 0 {
		return
	}
	for i := range all {
		all[i].more = nil
		if all[i].seq == e.Seq {
			all[i].paint = w.palette.bold
		}
	}
	w.WriteString("\n")
	w.title("what belongs to it")
	w.WriteString("\n")
	w.timeline(all)
	id := e.Lease
	if e.Session != nil && e.Session.ID != "" {
		id = e.Session.ID
	}
	w.WriteString("\n")
	w.say(0, "the whole story: gatepass audit trace "+id)
}
