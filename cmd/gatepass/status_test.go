package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gatepass/broker"
	"gatepass/broker/wire"
)

var at = time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC)

func exampleStatus() broker.Status {
	return broker.Status{
		Daemon:   broker.DaemonStatus{PID: 4242, Version: broker.Version(), Started: at.Add(-133 * time.Minute), Socket: "/run/user/1000/gatepass/gatepass.sock"},
		Keychain: broker.KeychainStatus{Backend: "secret-service", State: "ok"},
		Log: broker.LogStatus{Entries: 1204, Signed: 1200, Anchored: broker.Anchor{Time: at.Add(-3 * time.Minute), Entries: 1180}, Forward: []broker.ForwardStatus{{To: "journald", LastSent: at},
			{To: "syslog+tls://logs.example.com:6514", Lag: 12, LagSeconds: 200, Error: "connection refused\x1b[2J"}, {To: "otlp+http://localhost:4318/v1/logs", Lag: 1, Rejected: 3}}},
		Proofs: []broker.ProofStatus{{Key: "work", Serial: "arn:aws:iam::111122223333:mfa/alice", Expires: at.Add(7*time.Hour + 30*time.Minute)}},
		Sessions: []broker.SessionStatus{
			{Profile: "prod", Account: "999988887777", RoleARN: "arn:aws:iam::999988887777:role/team/AdministratorAccess", Key: "work", Expires: at.Add(42 * time.Minute), Served: 3},
			{Profile: "dev", Account: "111122223333", Key: "work", Expires: at.Add(11*time.Hour + 30*time.Minute), Served: 17},
		},
		LastRefusal: &broker.Refusal{Time: at.Add(-5 * time.Minute), Profile: "nope", Program: "aws", Code: broker.CodeNotFound,
			Message: `profile "nope" is not in ~/.aws/config`, Hint: `did you mean "node"?`},
	}
}

func TestStatusPage(t *testing.T) {
	want := `daemon    running for 2h13m, pid 4242, version ` + broker.Version() + `
socket    /run/user/1000/gatepass/gatepass.sock
keychain  secret-service, ok
log       1204 entries, 4 not signed yet, last anchored 3m ago
forward   journald, up to date
forward   syslog+tls://logs.example.com:6514, 12 entries behind, for 3m
          connection refused\x1b[2J
forward   otlp+http://localhost:4318/v1/logs, 1 entry behind, 3 rejected there
mfa       key work for another 7h30m, by arn:aws:iam::111122223333:mfa/alice

PROFILE  LEFT    ACCOUNT       ROLE               KEY   SERVED
dev      11h30m  111122223333  (no role)          work  17
prod     42m     999988887777  team/Administrat…  work  3

last refusal, 5m ago to aws for nope: not_found
  profile "nope" is not in ~/.aws/config
  did you mean "node"?
`
	if got := string(statusPage(exampleStatus(), at, false, 0)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	bad := broker.Status{
		Daemon:   broker.DaemonStatus{PID: 1, Version: "v1", Started: at.Add(-5 * time.Second), Socket: "/s"},
		Keychain: broker.KeychainStatus{Backend: "file", State: "keychain_locked", Message: "the keychain is locked", Hint: "line one\nline two"},
		Log:      broker.LogStatus{Entries: 1, Signed: 1, Error: "no space left on device\x1b[2J", Anchored: broker.Anchor{Error: "anchor_command ended with status 3"}},
	}
	want = `daemon    running for 5s, pid 1, version v1
socket    /s
keychain  file, keychain_locked
          the keychain is locked
          line one
          line two
log       1 entry, never anchored
          its checkpoints do not leave this machine: anchor_command ended with status 3
          nothing is handed out: no space left on device\x1b[2J
sessions  none
`
	if got := string(statusPage(bad, at, false, 0)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestStatusPageFits80Columns(t *testing.T) {
	st := exampleStatus()
	for i := range st.Sessions {
		st.Sessions[i].Profile = strings.Repeat("long-profile-", 5)
		st.Sessions[i].Key = strings.Repeat("long-key-", 5)
		st.Sessions[i].Account = "999988887777"
		st.Sessions[i].Served = 123456
	}
	for line := range strings.Lines(string(statusPage(st, at, false, 0))) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func (h *home) serveStatus(st broker.Status) {
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"GET " + wire.PathStatus: func([]byte) (int, map[string]string, string) { return 200, nil, jsonOf(h.t, st) },
	})
}

func TestStatus(t *testing.T) {
	h := newHome(t)
	h.serveStatus(exampleStatus())
	r := h.run("status", "--json")
	var got broker.Status
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || jsonOf(t, got) != jsonOf(t, exampleStatus()) || r.stderr != "" {
		t.Errorf("--json: %+v, %v", r, err)
	}
	if r := h.run("daemon", "status"); r.code != 0 || !strings.Contains(r.stdout, "pid      4242\n") || r.stderr != "" {
		t.Errorf("daemon status: %+v", r)
	}
	if r := h.run("daemon", "status", "--json"); r.code != 0 || !strings.Contains(r.stdout, `"pid": 4242`) {
		t.Errorf("daemon status --json: %+v", r)
	}

	h = newHome(t)
	st := exampleStatus()
	st.Daemon.Version = "v0.0.1"
	h.serveStatus(st)
	for _, args := range [][]string{{"status"}, {"daemon", "status"}} {
		if r := h.run(args...); r.code != 0 || !strings.HasPrefix(r.stderr, "gatepass: the daemon is version v0.0.1, this program is ") {
			t.Errorf("%q of another version: %+v", args, r)
		}
	}
}

// A daemon that was started under another XDG_RUNTIME_DIR is found by the
// audit log's lock.
func TestDaemonFoundByTheAuditLog(t *testing.T) {
	h := newHome(t)
	h.serveDocument("")
	h.holdLog(h.socket())
	h.env["GATEPASS_AUTOSTART"] = "0"
	h.env["GATEPASS_SOCKET"] = filepath.Join(h.env["HOME"], "elsewhere", "gatepass.sock")
	if r := h.run("credential-process", "ops"); r != (result{stdout: document}) {
		t.Errorf("%+v", r)
	}
	// The one at the usual socket comes first.
	other := newHome(t)
	other.serveStatus(exampleStatus())
	h.env["GATEPASS_SOCKET"] = other.socket()
	if r := h.run("daemon", "status"); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

// A daemon that hangs is told soon, and the error says what to do about it.
func TestDaemonThatHangs(t *testing.T) {
	h := newHome(t)
	h.patience = 50 * time.Millisecond
	if err := os.MkdirAll(filepath.Dir(h.socket()), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", h.socket()) // accepts nobody
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, args := range [][]string{{"status"}, {"daemon", "status"}, {"daemon", "stop"}} {
		r := h.run(args...)
		if r.code != 69 || !strings.Contains(r.stderr, "did not answer in time") || !strings.Contains(r.stderr, "end the process gatepassd") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}
