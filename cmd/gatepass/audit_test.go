package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// events are a day in the life of a log.
var events = []broker.Event{
	{Kind: broker.EventDaemonStarted, Outcome: broker.OutcomeOK},
	{Kind: broker.EventKeyAdded, Outcome: broker.OutcomeOK, Key: &broker.EventKey{Name: "work", AccessKeyID: "AKIAEXAMPLE"},
		Caller: &broker.Caller{Program: "gatepass"}},
	{Kind: broker.EventSessionIssued, Outcome: broker.OutcomeOK, Profile: "ops", Key: &broker.EventKey{Name: "work"},
		Session: &broker.EventSession{ID: "s-7f3k2m", Expires: time.Date(2026, 11, 3, 11, 0, 0, 0, time.UTC)},
		Caller:  &broker.Caller{Program: "/opt/hashicorp/bin/terraform"}, Reason: "ticket 4711"},
	{Kind: broker.EventCredentialsServed, Outcome: broker.OutcomeOK, Profile: "ops",
		Session: &broker.EventSession{ID: "s-7f3k2m", Expires: time.Date(2026, 11, 3, 11, 0, 0, 0, time.UTC)},
		Caller:  &broker.Caller{Program: "terraform"}},
	{Kind: broker.EventRequestDenied, Outcome: broker.OutcomeDenied, Profile: "a-profile-with-a-long-name",
		Caller: &broker.Caller{Program: "python3 \x1b[31mevil"},
		Error:  &broker.EventError{Code: broker.CodeAWSDenied, Message: "assume role arn:aws:iam::111122223333:role/Admin: AWS refused: not authorized to perform sts:AssumeRole"}},
	{Kind: broker.EventRequestFailed, Outcome: broker.OutcomeFailed, Profile: "ops", Lease: "l-1",
		Caller: &broker.Caller{Program: "aws"}, Error: &broker.EventError{Code: broker.CodeThrottled, Message: "slow down"}},
}

// logged is a home whose audit log holds events at 10:00:00, 10:00:01… UTC of
// 2026-11-03, signed, with its key pinned.
func logged(t *testing.T) (h *home, entries []string) {
	t.Helper()
	h = newHome(t)
	paths := broker.PathsFor(h.command(nil, nil).getenv, h.env["HOME"])
	signer, verifier, err := audit.GenerateKey("test/log")
	if err != nil {
		t.Fatal(err)
	}
	if err := audit.WritePinnedKey(paths.AuditKey, verifier, false); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 3, 9, 59, 59, 0, time.UTC)
	l, err := audit.Open(context.Background(), audit.Options{
		Dir:    paths.AuditDir,
		Signer: func(context.Context) (note.Signer, error) { return note.NewSigner(signer.Reveal()) },
		Now:    func() time.Time { now = now.Add(time.Second); return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if err := l.Append(context.Background(), e, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(paths.AuditDir, "000001.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		entries = append(entries, line)
	}
	if len(entries) != len(events) {
		t.Fatalf("%d entries, want %d:\n%s", len(entries), len(events), data)
	}
	return h, entries
}

func TestAuditList(t *testing.T) {
	h, entries := logged(t)
	r := h.run("audit", "list")
	want := `TIME                 ENTRY  EVENT               PROFILE                     PROGRAM                       WHAT
2026-11-03 10:00:00  0      daemon.started
2026-11-03 10:00:01  1      key.added                                       gatepass                      key work
2026-11-03 10:00:02  2      session.issued      ops                         /opt/hashicorp/bin/terraform  s-7f3k2m until 11:00, key work, ticket 4711
2026-11-03 10:00:03  3      credentials.served  ops                         terraform                     s-7f3k2m until 11:00
2026-11-03 10:00:04  4      request.denied      a-profile-with-a-long-name  python3 \x1b[31mevil          aws_denied: assume role arn:aws:iam::111122223333:role/Admin: AWS refused: not authorized to perform sts:AssumeRole
2026-11-03 10:00:05  5      request.failed      ops                         aws                           throttled: slow down
`
	if r != (result{stdout: want}) {
		t.Errorf("got %+v\nwant %s", r, want)
	}
	if r := h.run("audit", "list", "--json"); r != (result{stdout: strings.Join(entries, "")}) {
		t.Errorf("--json is not the stored lines: %+v", r)
	}
	for flags, want := range map[string][]int{
		"--profile ops":                         {2, 3, 5},
		"--event credentials.served":            {3},
		"--outcome denied":                      {4},
		"--program aws":                         {5},
		"--lease l-1":                           {5},
		"--limit 2":                             {4, 5},
		"--profile ops --limit 2":               {3, 5},
		"--since 2026-11-03T10:00:04Z":          {4, 5},
		"--until 2026-11-03T10:00:01Z":          {0},
		"--since 2026-11-04":                    {},
		"--since 2026-11-03 --until 2026-11-04": {0, 1, 2, 3, 4, 5},
		"--outcome ok --until 2026-11-03T10:00:03Z --profile ops": {2},
	} {
		var lines string
		for _, i := range want {
			lines += entries[i]
		}
		r := h.run(append([]string{"audit", "list", "--json"}, strings.Fields(flags)...)...)
		if r.stdout != lines || r.code != 0 || (r.stderr == "gatepass: no entries\n") != (len(want) == 0) {
			t.Errorf("%s: %+v", flags, r)
		}
	}
	for _, flags := range []string{"--limit 0", "--limit -1", "--outcome maybe", "--since 2026-11-04 --until 2026-11-03", "--since 7"} {
		if r := h.run(append([]string{"audit", "list"}, strings.Fields(flags)...)...); r.code != 64 {
			t.Errorf("%s: %+v", flags, r)
		}
	}
}

// On a terminal the rows fit, days have headings, and nothing is lost of what
// went wrong.
func TestAuditTableFitsATerminal(t *testing.T) {
	_, entries := logged(t)
	tab := &table{width: 80}
	var got string
	for _, line := range entries {
		e, err := audit.ParseEntry([]byte(strings.TrimSuffix(line, "\n")))
		if err != nil {
			t.Fatal(err)
		}
		got += string(tab.add(e))
	}
	got += string(tab.flush())
	want := `TIME      ENTRY  EVENT               PROFILE        PROGRAM         WHAT
2026-11-03 Tuesday
10:00:00  0      daemon.started
10:00:01  1      key.added                          gatepass        key work
10:00:02  2      session.issued      ops            terraform       s-7f3k2m
10:00:03  3      credentials.served  ops            terraform       s-7f3k2m
10:00:04  4      request.denied      a-profile-wi…  python3 \x1b[…  aws_denied
          assume role arn:aws:iam::111122223333:role/Admin: AWS refused: not
          authorized to perform sts:AssumeRole
10:00:05  5      request.failed      ops            aws             throttled
          slow down
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, live := range []bool{false, true} {
		for _, width := range []int{40, 50, 64, 72} {
			tab, got := &table{width: width, live: live}, ""
			for _, line := range entries {
				e, _ := audit.ParseEntry([]byte(strings.TrimSuffix(line, "\n")))
				got += string(tab.add(e))
			}
			for line := range strings.Lines(got + string(tab.flush())) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
					t.Errorf("a line of %d on a terminal of %d, live %v: %q", n, width, live, line)
				}
			}
		}
	}
	tab = &table{width: 80, palette: true, live: true}
	e, _ := audit.ParseEntry([]byte(strings.TrimSuffix(entries[4], "\n")))
	if row := string(tab.add(e)); !strings.Contains(row, "\x1b[31m10:00:04") || strings.Contains(row, "\x1b[31mevil") {
		t.Errorf("colours: %q", row)
	}
}

// A line that is no entry is named, the others are shown.
func TestAuditListOfADamagedLog(t *testing.T) {
	h, entries := logged(t)
	file := filepath.Join(h.env["XDG_STATE_HOME"], "gatepass", "audit", "000001.jsonl")
	damaged := append([]string{}, entries...)
	damaged[2] = "garbage \x1b[2J\n"
	os.WriteFile(file, []byte(strings.Join(damaged, "")), 0o600)
	for _, flags := range [][]string{nil, {"--json"}} {
		r := h.run(append([]string{"audit", "list"}, flags...)...)
		if r.code != 65 || !strings.Contains(r.stderr, "000001.jsonl") || strings.Contains(r.stderr, "\x1b") ||
			strings.Count(r.stdout, "\n") < len(entries)-1 {
			t.Errorf("%q: %+v", flags, r)
		}
	}
	if r := h.run("audit", "show", "2"); r.code != 65 || !strings.Contains(r.stderr, "entry 2 of the audit log cannot be read") {
		t.Errorf("the entry itself: %+v", r)
	}
	os.WriteFile(file, []byte(strings.Join(entries[3:], "")), 0o600)
	for seq, want := range map[string]string{"2": "the first one is 3", "9": "the last one is 5"} {
		if r := h.run("audit", "show", seq); r.code != 78 || !strings.Contains(r.stderr, want) {
			t.Errorf("entry %s of the last three: %+v", seq, r)
		}
	}
}

func TestAuditWithoutALog(t *testing.T) {
	h := newHome(t)
	for _, args := range [][]string{{"audit", "list"}, {"audit", "list", "--follow"}, {"audit", "verify"}} {
		if r := h.run(args...); r.code != 78 || r.stdout != "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
	full, _ := logged(t) // for a key
	key := strings.TrimSpace(full.run("audit", "key").stdout)
	for _, args := range [][]string{{"list"}, {"list", "--follow"}, {"show", "1"}, {"trace", "s-1"}, {"stats"}, {"export"}, {"verify", "--key", key}, {"checkpoint", "--key", key}} {
		if r := h.run(append([]string{"audit"}, args...)...); r.code != 78 || !strings.Contains(r.stderr, "the daemon begins it when it first starts") {
			t.Errorf("%q says not what to do: %+v", args, r)
		}
	}
	delete(h.env, "HOME")
	if r := h.run("audit", "list"); r.code != 78 || !strings.Contains(r.stderr, "HOME is not set") {
		t.Errorf("no home: %+v", r)
	}
}

// --follow shows an entry as it is written, whole and at once.
func TestAuditFollow(t *testing.T) {
	h, entries := logged(t)
	cmd := exec.Command(filepath.Join(programs(t), "gatepass"), "audit", "list", "--follow", "--json", "--limit", "1")
	cmd.Env = h.environ()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line := make([]byte, 1<<16)
	n, err := out.Read(line)
	if err != nil || string(line[:n]) != entries[len(entries)-1] {
		t.Fatalf("first %q, %v", line[:n], err)
	}
	l, err := audit.Open(context.Background(), audit.Options{Dir: filepath.Join(h.env["XDG_STATE_HOME"], "gatepass", "audit")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	if err := l.Append(context.Background(), broker.Event{Kind: broker.EventDaemonStopped, Outcome: broker.OutcomeOK}, true); err != nil {
		t.Fatal(err)
	}
	n, err = out.Read(line)
	if err != nil || !strings.Contains(string(line[:n]), `"event":"daemon.stopped"`) || line[n-1] != '\n' {
		t.Errorf("then %q, %v", line[:n], err)
	}
}

func TestAuditVerify(t *testing.T) {
	h, entries := logged(t)
	want := result{stdout: "the audit log is whole: 6 entries in 1 file, from 2026-11-03 10:00 to 2026-11-03 10:00, all signed by test/log\nnever anchored: whoever can read the keychain could have written it anew\n"}
	if r := h.run("audit", "verify"); r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
	if r := h.run("audit", "verify", "--json"); r.code != 0 || !strings.Contains(r.stdout, `"signed": 6`) || r.stderr != "" {
		t.Errorf("--json: %+v", r)
	}

	// Another key signed none of it.
	_, other, err := audit.GenerateKey("test/other")
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(h.env["HOME"], "other.pub")
	os.WriteFile(key, []byte(other+"\n"), 0o600)
	if r := h.run("audit", "verify", "--key", key); r.code != 65 || r.stdout != "" ||
		!strings.Contains(r.stderr, "is --key the right key?") || strings.Contains(r.stderr, "remove ") {
		t.Errorf("another key: %+v", r)
	}
	os.WriteFile(key, []byte("not a key\n"), 0o600)
	if r := h.run("audit", "verify", "--key", key); r.code != 65 || r.stdout != "" {
		t.Errorf("no key: %+v", r)
	}
	if r := h.run("audit", "verify", "--key", key+".missing"); r.code != 78 || r.stdout != "" {
		t.Errorf("a missing key: %+v", r)
	}

	// A changed entry is named.
	dir := filepath.Join(h.env["XDG_STATE_HOME"], "gatepass", "audit")
	changed := append([]string{}, entries...)
	changed[3] = strings.Replace(changed[3], "terraform", "terraf0rm", 1)
	os.WriteFile(filepath.Join(dir, "000001.jsonl"), []byte(strings.Join(changed, "")), 0o600)
	if r := h.run("audit", "verify"); r.code != 65 || r.stdout != "" || !strings.Contains(r.stderr, "entry 3 is the first bad one") {
		t.Errorf("a changed entry: %+v", r)
	}
	if r := h.run("audit", "verify", "--json"); r.code != 65 || !strings.Contains(r.stdout, `"problem"`) || r.stderr == "" {
		t.Errorf("a changed entry, --json: %+v", r)
	}

	// Without its checkpoints nothing proves the log.
	os.WriteFile(filepath.Join(dir, "000001.jsonl"), []byte(strings.Join(entries, "")), 0o600)
	os.Remove(filepath.Join(dir, "checkpoints"))
	if r := h.run("audit", "verify"); r.code != 65 || r.stdout != "" || !strings.Contains(r.stderr, "none of its 6 entries is signed") {
		t.Errorf("no checkpoints: %+v", r)
	}
}

func TestVerifiedSentence(t *testing.T) {
	at := time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC)
	rep := audit.Report{Entries: 12, Segments: 2, Signed: 10, Unsigned: 2, First: at, Last: at}
	want := "the audit log is whole: 12 entries in 2 files, from 2026-11-03 10:00 to 2026-11-03 10:00, the first 10 signed by k, 2 not signed yet\n"
	for _, tt := range []struct {
		against  int64
		anchored broker.Anchor
		want     string
	}{
		{0, broker.Anchor{}, "never anchored: whoever can read the keychain could have written it anew\n"},
		{2, broker.Anchor{}, "it continues what was kept elsewhere: 2 checkpoints\n"},
		{0, broker.Anchor{Time: at, Entries: 1}, "last anchored 2026-11-03 10:00, with 1 entry\n"},
		{1, broker.Anchor{Time: at, Entries: 9}, "it continues what was kept elsewhere: 1 checkpoint\nlast anchored 2026-11-03 10:00, with 9 entries\n"},
	} {
		rep.Against, rep.Anchored = tt.against, tt.anchored
		if got := verified(rep, "k", time.Local); got != want+tt.want {
			t.Errorf("got  %q\nwant %q", got, want+tt.want)
		}
	}
	rep = audit.Report{Entries: 112, Pruned: 100, Segments: 2, Signed: 110, Unsigned: 2, First: at, Last: at, Anchored: broker.Anchor{Time: at, Entries: 1}}
	want += "it begins with entry 100: those before were removed when they were old, as a signed entry says\nlast anchored 2026-11-03 10:00, with 1 entry\n"
	if got := verified(rep, "k", time.Local); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestFitting(t *testing.T) {
	const what = "s-7f3k2m until 11:00, key work, ticket 4711"
	for n, want := range map[int]string{
		50: what, 43: what, 42: "s-7f3k2m until 11:00, key work, …", 33: "s-7f3k2m until 11:00, key work, …", 32: "s-7f3k2m until 11:00, …",
		23: "s-7f3k2m until 11:00, …", 22: "s-7f3k2m until 11:00", 19: "s-7f3k2m", 8: "s-7f3k2m", 7: "s-7f3k…",
	} {
		if got := fitting(what, n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{"a short line", []string{"a short line"}},
		{"words that do not fit in twenty columns", []string{"words that do not", "fit in twenty", "columns"}},
		{"x " + strings.Repeat("y", 45), []string{"x", strings.Repeat("y", 20), strings.Repeat("y", 20), "yyyyy"}},
	} {
		if got := wrap(c.in, 20); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

// holdLog holds the home's audit log as the daemon at socket.
func (h *home) holdLog(socket string) {
	h.t.Helper()
	l, err := audit.Open(context.Background(), audit.Options{Dir: filepath.Join(h.env["XDG_STATE_HOME"], "gatepass", "audit"), Socket: socket})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { l.Close(context.Background()) })
}
