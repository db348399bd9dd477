package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/audit"
)

const auditTraceHelp = `gatepass audit trace tells the story of one session: which key asked for which
role, why, and who got it, process by process, until it ended.

usage: gatepass audit trace ID [--json]

ID is the session's access key id (ASIA..., as CloudTrail has it), its name at
AWS (alice-s7f3k2m9qxd), or its id in the log (s-7f3k2m9qxd); or a lease
(l-7f3k2m9qxd), whose sessions are told; or the access key id of a long-term key
(AKIA...), whose changes are.

Where several processes got a session, what AWS records of its access key was
done by one of them, and each is a candidate. What a process did with it, to
whom it passed it on, the log does not know.

It reads the whole log. An ID that the log does not name is exit code 78.
Whether the log is what was written, "gatepass audit verify" says.

  --json          the story as JSON, with its entries

example:
  gatepass audit trace ASIAIOSFODNN7EXAMPLE
`

func auditTraceCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "trace",
		UsageText: auditTraceHelp,
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json"}},
		Action:    c.auditTrace,
	}
}

func (c *client) auditTrace(ctx *cli.Context) error {
	id, err := oneArgument(ctx, "an access key id, the name or the id of a session, or the id of a lease")
	if err != nil {
		return err
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	trace, err := audit.FindTrace(ctx.Context, paths.AuditDir, id)
	if err != nil {
		return err
	}
	if ctx.Bool("json") {
		err = c.writeJSON(trace)
	} else {
		w := c.prose()
		w.trace(&trace, time.Now())
		err = c.show(w)
	}
	if err == nil && trace.Unreadable > 0 {
		err = unreadable(int64(trace.Unreadable))
	}
	return err
}

// trace tells the whole story.
func (w *prose) trace(t *audit.Trace, now time.Time) {
	leases := map[string]*audit.LeaseStory{}
	for i := range t.Leases {
		l := &t.Leases[i]
		leases[l.ID] = l
		if l.ID == t.ID {
			w.lease(l, t.Sessions)
		}
	}
	if leases[t.ID] == nil {
		for i := range t.Sessions {
			if i > 0 {
				w.WriteByte('\n')
			}
			w.session(&t.Sessions[i], t.Leases, now)
		}
	}
	if t.Key != nil {
		w.key(t.Key)
	}
}

func (w *prose) session(s *audit.SessionStory, leases []audit.LeaseStory, now time.Time) {
	of := ofProfile(s.Profile)
	proof := s.Issued != nil && s.Issued.Kind == broker.EventMFAVerified
	if proof {
		of = ", a proof of MFA"
	}
	w.title("session " + s.ID + of)
	w.fact("role", roleText(s.RoleARN, s.Account))
	w.fact("key", keyText(s.Key))
	w.fact("at AWS", atAWS(s.Session))
	if x := s.Session.Expires; !x.IsZero() {
		w.fact("until", x.Local().Format("2006-01-02 15:04:05 -0700"))
	}
	w.WriteByte('\n')
	all := sessionMoments(s)
	inside := map[string]bool{s.Lease: true}
	all = append(all, recipientMoments(s.Recipients)...)
	for _, r := range s.Recipients {
		inside[r.Lease] = true
	}
	for i := range leases {
		if inside[leases[i].ID] {
			all = append(all, leaseMoments(&leases[i])...)
		}
	}
	w.timeline(all)
	w.WriteByte('\n')
	w.say(0, sessionVerdict(s, proof, now))
}

// sessionVerdict says what the story means for whoever has the access key id.
func sessionVerdict(s *audit.SessionStory, proof bool, now time.Time) string {
	id := s.Session.AccessKeyID
	if id == "" {
		id = s.ID
	}
	var text string
	switch n := len(s.Recipients); {
	case s.Failed != nil:
		return "There was no such session: it was refused."
	case s.Issued == nil && s.Requested != nil && n == 0:
		return "STS was asked, and what it answered is not in the log: the daemon ended before it knew, or the entry is missing. AWS may have issued the session; nobody got it from gatepass."
	case proof:
		text = "The daemon keeps it for itself: sessions of roles start from it."
	case n == 0:
		text = "Nobody got it from gatepass. What AWS records of " + id + " would be somebody else's doing."
	case n == 1:
		text = "One process got it: what AWS records of " + id + " was done by it, or by those to whom it gave it."
	default:
		text = fmt.Sprintf("It is shared: %d processes got it. What AWS records of %s was done by one of them, or by those to whom it gave it. The log cannot tell by which: each is a candidate.", n, id)
	}
	if s.Ended == nil && !s.Session.Expires.IsZero() {
		if left := s.Session.Expires.Sub(now); left > 0 {
			text += " It is good for another " + span(left) + "."
		} else {
			text += " Its end is not in the log; it expired."
		}
	}
	return text
}

// sessionMoments are what happened to a session but for those who got it.
func sessionMoments(s *audit.SessionStory) (all []moment) {
	add := func(e *audit.Entry, what string, more ...string) {
		all = append(all, moment{seq: e.Seq, at: e.Time, what: what, more: more})
	}
	if e := s.Requested; e != nil {
		add(e, "asked of STS for "+whoAsked(e.Caller)+because(e.Reason))
	}
	if e := s.Issued; e != nil {
		until := ""
		if !e.Session.Expires.IsZero() {
			until = " until " + clock(e.Session.Expires, e.Time)
		}
		switch e.Kind {
		case broker.EventSessionRenewed:
			add(e, "issued by STS"+until+", ahead of the end of the one before")
		case broker.EventMFAVerified:
			add(e, "issued by STS"+until+", for a code of MFA")
		default:
			add(e, "issued by STS"+until)
		}
	}
	if e := s.Failed; e != nil {
		add(e, "refused, "+errorText(e.Error))
	}
	if e := s.Ended; e != nil {
		add(e, "ended"+colon(e.Reason))
	}
	return all
}

func leaseMoments(l *audit.LeaseStory) (all []moment) {
	add := func(e *audit.Entry, what string, more string) {
		m := moment{seq: e.Seq, at: e.Time, what: what}
		if more != "" {
			m.more = []string{more}
		}
		all = append(all, m)
	}
	if e := l.Started; e != nil {
		what := "lease " + l.ID + " began"
		if c := e.Caller; c != nil && c.PID != 0 {
			what += fmt.Sprintf(" in pid %d", c.PID)
		}
		command := ""
		if e.Caller != nil {
			command = e.Caller.Command
		}
		add(e, what+because(e.Reason), command)
	}
	if e := l.Ended; e != nil {
		add(e, "lease "+l.ID+" ended"+colon(e.Reason), "")
	}
	if e := l.Released; e != nil {
		add(e, "what lease "+l.ID+" left behind was let go"+because(e.Reason), "")
	}
	return all
}

func (w *prose) lease(l *audit.LeaseStory, sessions []audit.SessionStory) {
	w.title("lease " + l.ID + ofProfile(l.Profile))
	if e := l.Started; e != nil && e.Caller != nil {
		w.fact("ran", e.Caller.Command)
		w.fact("where", surroundings(e.Caller.User, e.Caller.Cwd, e.Caller.TTY, e.Caller.Ancestors, e.Caller.Resolved))
	}
	w.WriteByte('\n')
	all := leaseMoments(l)
	shared := 0
	for i := range sessions {
		s := &sessions[i]
		for _, m := range sessionMoments(s) {
			m.what = "session " + s.ID + " " + m.what
			all = append(all, m)
		}
		for _, r := range s.Recipients {
			if r.Lease != l.ID {
				shared++
				break
			}
		}
	}
	for i := range l.Recipients {
		l.Recipients[i].Lease = "" // it goes without saying
	}
	all = append(all, recipientMoments(l.Recipients)...)
	for _, e := range l.Refusals {
		all = append(all, moment{seq: e.Seq, at: e.Time, what: "refused to " + whoAsked(e.Caller) + ofProfile(e.Profile), more: []string{errorText(e.Error)}, paint: w.palette.red})
	}
	w.timeline(all)
	w.WriteByte('\n')
	text := count(int64(len(sessions)), "session", "sessions") + ", got by " + count(int64(len(l.Recipients)), "process", "processes") + " inside."
	if shared > 0 {
		text += fmt.Sprintf(" %d of them were got outside of the lease as well.", shared)
	}
	if more := l.Refused - len(l.Refusals); more > 0 {
		text += fmt.Sprintf(" %d more requests were refused.", more)
	}
	if l.Ended == nil {
		text += " Its end is not in the log."
	}
	w.say(0, text)
	for _, s := range sessions {
		if s.Session.AccessKeyID != "" {
			w.hang("  "+printable(s.ID)+"  ", atAWS(broker.EventSession{AccessKeyID: s.Session.AccessKeyID, Name: s.Session.Name}))
		}
	}
}

func (w *prose) key(k *audit.KeyStory) {
	w.title("long-term key " + keyText(&k.Key))
	w.WriteByte('\n')
	var all []moment
	for _, e := range k.Changes {
		all = append(all, moment{seq: e.Seq, at: e.Time, what: string(e.Kind) + ", by " + whoAsked(e.Caller) + colon(e.Reason)})
	}
	w.timeline(all)
	if len(all) > 0 {
		w.WriteByte('\n')
	}
	text := "No session was issued from it."
	if k.Sessions > 0 {
		text = fmt.Sprintf("%s issued from it, from %s to %s.", were(k.Sessions, "session"), k.First.Local().Format("2006-01-02 15:04:05"), k.Last.Local().Format("2006-01-02 15:04:05"))
	}
	w.say(0, text+" The key itself never leaves gatepass: what AWS records of it, but for calls to STS and IAM by this broker, is somebody else's doing.")
	w.say(0, "its entries: gatepass audit list --key "+k.Key.AccessKeyID)
}
