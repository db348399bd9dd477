// Package audittest writes audit logs for tests and benchmarks: the life of a
// busy laptop, by the real log, so that they are signed and verify. It measures
// what benchmarks of their readers need.
package audittest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// Options are what a log is to be like.
type Options struct {
	Dir         string
	Entries     int
	From, Until time.Time // what the entries spread over; by default the 30 days before Until, and that 2026-11-23T12:00:00Z
	Profiles    int       // by default 40
	Seed        uint64    // the same gives the same entries but for the key that signs them
	SegmentSize int64     // bytes; by default the log's own
}

// A Log is what was written.
type Log struct {
	Dir      string
	Verifier string // to pin

	// The last ones that have ended.
	Shared Session // several processes got it
	Leased Session // a lease's own
	Lease  string  // that lease
}

// A Session is one that the log tells of.
type Session struct {
	ID, AccessKeyID, Name string
	Profile               string
	Handouts              int
	Programs              map[string]int // hand-outs by program
}

// Write writes a log.
func Write(ctx context.Context, opts Options) (Log, error) {
	if opts.Until.IsZero() {
		opts.Until = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	}
	if opts.From.IsZero() {
		opts.From = opts.Until.AddDate(0, 0, -30)
	}
	if opts.Profiles == 0 {
		opts.Profiles = 40
	}
	signer, verifier, err := audit.GenerateKey(audit.KeyName("alice", "laptop"))
	if err != nil {
		return Log{}, err
	}
	w := &world{
		ctx: ctx, entries: opts.Entries, now: opts.From, rng: rand.New(rand.NewPCG(opts.Seed, 0)),
		step: float64(opts.Until.Sub(opts.From)) / float64(max(1, opts.Entries)),
	}
	w.log, err = audit.Open(ctx, audit.Options{
		Dir: opts.Dir, SegmentSize: opts.SegmentSize,
		Signer: func(context.Context) (note.Signer, error) { return note.NewSigner(signer.Reveal()) },
		Now:    func() time.Time { return w.now },
	})
	if err != nil {
		return Log{}, err
	}
	w.live(opts.Profiles)
	if err := w.log.Close(context.WithoutCancel(ctx)); w.err == nil {
		w.err = err
	}
	w.found.Dir, w.found.Verifier = opts.Dir, verifier
	return w.found, w.err
}

// A world is a laptop, its users' keys and the programs that run on it.
type world struct {
	ctx     context.Context
	log     *audit.Log
	err     error
	rng     *rand.Rand
	entries int // how many are still to be written
	now     time.Time
	step    float64 // the mean between two entries, in nanoseconds
	pid     int

	profiles []profile
	used     []profile  // these days
	open     []*session // the oldest first
	leases   []*lease
	found    Log
}

type profile struct {
	name, account, role string
	key                 *broker.EventKey
	programs            []int // who uses it
}

type session struct {
	profile
	broker.EventSession
	lease string
	Session
}

type lease struct {
	id      string
	began   time.Time
	caller  broker.Caller
	session *session
	served  int
}

// A program is one that asks for credentials.
type program struct{ name, exe, command string }

var programs = []program{
	{"/usr/local/bin/terraform", "/usr/local/bin/terraform", "terraform apply -auto-approve -var-file=env/prod.tfvars"},
	{"/usr/local/bin/aws", "/usr/bin/python3.11", "/usr/bin/python3.11 /usr/local/bin/aws s3 sync s3://example-artifacts/release ./release --only-show-errors"},
	{"/home/alice/src/reports/nightly.py", "/usr/bin/python3.11", "python3 nightly.py --month 2026-10"},
	{"/home/alice/src/api/node_modules/.bin/cdk", "/usr/bin/node", "node node_modules/.bin/cdk deploy --all --require-approval never"},
	{"java com.example.Ingest", "/usr/lib/jvm/java-21/bin/java", "java -Xmx2g -cp lib/* com.example.Ingest --queue orders"},
	{"python -m awscli", "/usr/bin/python3.12", "python -m awscli sts get-caller-identity"},
	{"/usr/local/bin/kubectl", "/usr/local/bin/kubectl", "kubectl get pods --all-namespaces -o wide"},
	{"/home/alice/bin/\x1b[31mcurl <script>alert(1)</script>", "/home/alice/bin/curl", "curl \"$(printf '\u202e')\" -o /dev/null"},
}

var reasons = []string{"", "", "", "", "", "", "ticket 4711", "nightly report", "INC-2031: restore orders", "<img src=x onerror=alert(1)>", "=1+1, \"quoted\"", "Störung im Lager 東京"}

// live writes the log.
func (w *world) live(profiles int) {
	keys := []*broker.EventKey{
		{Name: "work", AccessKeyID: "AKIAIOSFODNN7EXAMPLE", UserARN: "arn:aws:iam::111122223333:user/alice"},
		{Name: "client", AccessKeyID: "AKIAI44QH8DHBEXAMPLE", UserARN: "arn:aws:iam::444455556666:user/consultants/alice"},
		{Name: "ci", AccessKeyID: "AKIAJLKJ7XAMPLEEXAMP", UserARN: "arn:aws:iam::777788889999:user/ci"},
	}
	roles := []string{"Deploy", "ReadOnly", "Admin", "data/Analyst"}
	for i := range profiles {
		account := fmt.Sprintf("%012d", 111122223333+uint64(i%7)*111111111111)
		p := profile{account: account, key: keys[i%len(keys)], role: "arn:aws:iam::" + account + ":role/" + roles[i%len(roles)]}
		p.name = fmt.Sprintf("%s-%s-%d", []string{"prod", "staging", "dev", "data"}[i%4], []string{"eu", "us", "ap"}[i%3], i)
		for range 1 + w.rng.IntN(4) {
			p.programs = append(p.programs, min(w.rng.IntN(len(programs)), w.rng.IntN(len(programs)+2)))
		}
		w.profiles = append(w.profiles, p)
	}
	w.choose()
	w.add(broker.Event{Kind: broker.EventDaemonStarted, Caller: w.daemon()})
	for _, k := range keys {
		w.add(broker.Event{Kind: broker.EventKeyAdded, Account: k.UserARN[13:25], Key: k, Caller: w.shell("/usr/bin/zsh", "gatepass keys add "+k.Name)})
	}
	for w.entries > 0 && w.err == nil {
		w.expire()
		p := w.used[w.rng.IntN(len(w.used))]
		switch n := w.rng.IntN(1000); {
		case n < 20:
			w.refuse(p)
		case n < 25 && len(w.leases) < 12:
			w.begin(p)
		case n < 29 && len(w.leases) > 0:
			w.end(w.rng.IntN(len(w.leases)))
		case n < 30:
			w.restart()
		case n < 33:
			w.add(broker.Event{Kind: broker.EventMFAVerified, Account: p.key.UserARN[13:25], Key: p.key, Profile: p.name, Caller: w.shell("/usr/bin/zsh", "gatepass whoami "+p.name),
				Session: &broker.EventSession{ID: w.id("s-"), AccessKeyID: w.accessKey(), Expires: w.now.Add(8 * time.Hour), STSRequestID: w.request()}})
		case n < 400 && len(w.leases) > 0:
			l := w.leases[w.rng.IntN(len(w.leases))]
			l.served++
			w.serve(l.session, "", l.id, w.below(l))
		default:
			which := programs[p.programs[w.rng.IntN(len(p.programs))]]
			c := w.asking(which, p.name)
			reason := reasons[w.rng.IntN(len(reasons))]
			w.serve(w.sessionOf(p, c, reason), reason, "", c)
		}
	}
}

// add appends an event, some time after the last one.
func (w *world) add(e broker.Event) {
	if w.entries == 0 || w.err != nil {
		return
	}
	w.entries--
	if e.Outcome == "" {
		e.Outcome = broker.OutcomeOK
	}
	w.err = w.log.Append(w.ctx, e, false)
	// Requests come in bursts.
	mean := w.step / 4
	if w.rng.IntN(100) == 0 {
		mean = w.step * 75
		w.choose()
	}
	w.now = w.now.Add(time.Duration(w.rng.ExpFloat64() * mean)).Truncate(time.Microsecond)
}

// choose changes what is worked with: some profiles are used more than others.
func (w *world) choose() {
	w.used = w.used[:0]
	for range min(3, len(w.profiles)) {
		w.used = append(w.used, w.profiles[min(w.rng.IntN(len(w.profiles)), w.rng.IntN(len(w.profiles)))])
	}
}

// sessionOf is the shared session of p, which is made for c if there is none.
func (w *world) sessionOf(p profile, c *broker.Caller, reason string) *session {
	for _, s := range w.open {
		if s.name() == p.name && s.lease == "" {
			return s
		}
	}
	return w.mint(p, c, reason, "", broker.EventSessionIssued)
}

func (s *session) name() string { return s.profile.name }

// event is an entry about s.
func (s *session) event(kind broker.EventKind) broker.Event {
	about := s.EventSession
	return broker.Event{Kind: kind, Profile: s.name(), Account: s.account, RoleARN: s.role, Key: s.key, Session: &about, Lease: s.lease}
}

func (w *world) mint(p profile, c *broker.Caller, reason, lease string, kind broker.EventKind) *session {
	s := &session{profile: p, lease: lease, Session: Session{ID: w.id("s-"), Profile: p.name, Programs: map[string]int{}}}
	s.EventSession = broker.EventSession{ID: s.Session.ID, Name: "alice-s" + s.Session.ID[2:]}
	requested := s.event(broker.EventSessionRequested)
	requested.Caller, requested.Reason = c, reason
	w.add(requested)
	s.EventSession.AccessKeyID, s.Expires, s.STSRequestID = w.accessKey(), w.now.Add(time.Hour), w.request()
	s.Session.AccessKeyID, s.Session.Name = s.EventSession.AccessKeyID, s.EventSession.Name
	issued := s.event(kind)
	issued.Caller, issued.Reason = c, reason
	w.add(issued)
	w.open = append(w.open, s)
	return s
}

func (w *world) serve(s *session, reason, lease string, c *broker.Caller) {
	served := s.event(broker.EventCredentialsServed)
	served.Reason, served.Lease, served.Caller = reason, lease, c
	w.add(served)
	s.Handouts++
	s.Programs[c.Program]++
}

// expire ends the sessions whose hour is over, and renews what leases hold.
func (w *world) expire() {
	for len(w.open) > 0 && w.open[0].Expires.Before(w.now) {
		s := w.open[0]
		w.open = w.open[1:]
		if s.lease != "" {
			for _, l := range w.leases {
				if l.id == s.lease {
					l.session = w.mint(s.profile, w.daemon(), "", l.id, broker.EventSessionRenewed)
				}
			}
		}
		w.ended(s, "expired")
	}
}

func (w *world) ended(s *session, reason string) {
	e := s.event(broker.EventSessionEnded)
	e.Caller, e.Reason = w.daemon(), reason
	w.add(e)
	if w.entries > 0 && s.lease == "" && len(s.Programs) > 1 {
		w.found.Shared = s.Session
	}
}

func (w *world) begin(p profile) {
	c := w.shell("/usr/bin/zsh", "gatepass exec "+p.name+" --reason 'ticket 4711' -- make deploy")
	c.Via = "exec"
	l := &lease{id: w.id("l-"), began: w.now, caller: *c}
	l.session = w.mint(p, c, "ticket 4711", l.id, broker.EventSessionIssued)
	started := l.session.event(broker.EventLeaseStarted)
	started.Caller, started.Reason = c, "ticket 4711"
	w.add(started)
	w.leases = append(w.leases, l)
}

func (w *world) end(i int) {
	l := w.leases[i]
	w.leases = append(w.leases[:i:i], w.leases[i+1:]...)
	for j, s := range w.open {
		if s == l.session {
			w.open = append(w.open[:j:j], w.open[j+1:]...)
			w.ended(s, "lease ended")
			break
		}
	}
	w.add(broker.Event{Kind: broker.EventLeaseEnded, Profile: l.session.name(), Lease: l.id, Caller: &l.caller,
		Reason: fmt.Sprintf("exit status 0, after %s, %d hand-outs", w.now.Sub(l.began).Round(time.Second), l.served)})
	if w.entries > 0 && l.session.Handouts > 0 {
		w.found.Leased, w.found.Lease = l.session.Session, l.id
	}
}

func (w *world) refuse(p profile) {
	e := broker.Event{Kind: broker.EventRequestDenied, Outcome: broker.OutcomeDenied, Profile: p.name, Account: p.account, RoleARN: p.role, Key: p.key,
		Caller: w.asking(programs[w.rng.IntN(len(programs))], p.name)}
	switch w.rng.IntN(4) {
	case 0:
		e.Session = &broker.EventSession{ID: w.id("s-")}
		requested := e
		requested.Kind, requested.Outcome = broker.EventSessionRequested, broker.OutcomeOK
		w.add(requested)
		e.Error = &broker.EventError{Code: broker.CodeAWSDenied, Message: "assume role " + p.role + ": AWS refused: User: " + p.key.UserARN + " is not authorized to perform: sts:AssumeRole on resource: " + p.role}
	case 1:
		e.Kind, e.Outcome = broker.EventRequestFailed, broker.OutcomeFailed
		e.Error = &broker.EventError{Code: broker.CodeAWSUnreachable, Message: "assume role " + p.role + `: Post "https://sts.eu-west-1.amazonaws.com/": dial tcp: lookup sts.eu-west-1.amazonaws.com: no such host`}
	case 2:
		e.Kind, e.Outcome, e.Key, e.Account, e.RoleARN = broker.EventRequestFailed, broker.OutcomeFailed, nil, "", ""
		e.Profile = "prod-<b>typo</b>"
		e.Error = &broker.EventError{Code: broker.CodeNotFound, Message: `there is no profile "prod-<b>typo</b>" in /home/alice/.aws/config`}
	default:
		if len(w.leases) > 0 {
			e.Lease = w.leases[w.rng.IntN(len(w.leases))].id
		}
		e.Error = &broker.EventError{Code: broker.CodeDenied, Message: "pid 4711 (aws) is inside lease l-7f3k2m9qxd, which has the profile dev-eu-2 and no other"}
	}
	w.add(e)
}

// restart ends the daemon and with it all sessions.
func (w *world) restart() {
	for len(w.leases) > 0 {
		w.end(0)
	}
	for _, s := range w.open {
		w.ended(s, "daemon stopped")
	}
	w.open = nil
	w.add(broker.Event{Kind: broker.EventDaemonStopped, Caller: w.daemon(), Reason: "terminated"})
	w.now = w.now.Add(time.Duration(w.rng.Int64N(int64(10 * w.step))))
	w.add(broker.Event{Kind: broker.EventDaemonStarted, Caller: w.daemon()})
}

func (w *world) daemon() *broker.Caller {
	return &broker.Caller{UID: 1000, PID: 2101, Program: "gatepassd", Via: "daemon", Resolved: true}
}

func (w *world) nextPID() int {
	w.pid = w.pid%30000 + 1 + w.rng.IntN(3)
	return 2200 + w.pid
}

// shell is gatepass in a terminal.
func (w *world) shell(name, command string) *broker.Caller {
	return &broker.Caller{UID: 1000, User: "alice", PID: w.nextPID(), Program: name, Exe: "/home/alice/.local/bin/gatepass", Command: command,
		Cwd: "/home/alice", TTY: fmt.Sprintf("/dev/pts/%d", w.rng.IntN(8)), Via: "keys", Resolved: true, Ancestors: w.desktop()}
}

func (w *world) desktop() []broker.Process {
	return []broker.Process{{PID: 4012, Exe: "/usr/bin/zsh", Command: "-zsh"}, {PID: 1, Exe: "/usr/lib/systemd/systemd", Command: "/sbin/init"}}
}

// asking is p that runs gatepass credential-process.
func (w *world) asking(p program, profile string) *broker.Caller {
	line := "/home/alice/.local/bin/gatepass credential-process " + profile
	c := w.shell(p.name, line)
	c.Via, c.Cwd = "credential-process", "/home/alice/src/infra"
	c.Ancestors = append([]broker.Process{{PID: c.PID - 1, Exe: "/usr/bin/dash", Command: "/bin/sh -c " + line}, {PID: 5000 + w.rng.IntN(40), Exe: p.exe, Command: p.command}}, c.Ancestors...)
	return c
}

// below is a program inside a lease, which asks the lease's endpoint.
func (w *world) below(l *lease) *broker.Caller {
	p := programs[w.rng.IntN(3)]
	return &broker.Caller{UID: 1000, User: "alice", PID: w.nextPID(), Program: p.name, Exe: p.exe, Command: p.command, Cwd: l.caller.Cwd, TTY: l.caller.TTY,
		Via: "container", Resolved: true, Ancestors: append([]broker.Process{{PID: l.caller.PID, Exe: "/usr/bin/make", Command: "make deploy"}}, l.caller.Ancestors...)}
}

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

func (w *world) id(prefix string) string { return prefix + w.text(alphabet, 10) }

func (w *world) accessKey() string {
	return "ASIA" + w.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)
}

func (w *world) request() string {
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", w.rng.Uint32(), w.rng.Uint32()&0xffff, w.rng.Uint32()&0xfff, w.rng.Uint32()&0xfff, w.rng.Uint64()&(1<<48-1))
}

func (w *world) text(letters string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[w.rng.IntN(len(letters))]
	}
	return string(b)
}
