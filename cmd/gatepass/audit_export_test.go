package main

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatepass/broker"
	"gatepass/broker/audit"
)

func TestAuditExport(t *testing.T) {
	h, entries := logged(t)
	all := strings.Join(entries, "")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, all},
		{[]string{"--format", "json"}, all},
		{[]string{"--after", "3"}, strings.Join(entries[4:], "")},
		{[]string{"--after", "5"}, ""},
		{[]string{"--since", "2026-11-03 10:00:02", "--until", "2026-11-03 10:00:04"}, strings.Join(entries[2:4], "")},
		{[]string{"--profile", "ops", "--after", "2"}, entries[3] + entries[5]},
	} {
		if r := h.run(append([]string{"audit", "export"}, tt.args...)...); r != (result{tt.want, "", 0}) {
			t.Errorf("%q: got %+v, want %s", tt.args, r, tt.want)
		}
	}
	if r := h.run("audit", "export", "--after", "6"); r.code != 65 || r.stdout != "" || !strings.Contains(r.stderr, "no entry 6 to go on after: it ends with entry 5") {
		t.Errorf("another log: %+v", r)
	}
	segment := filepath.Join(h.env["XDG_STATE_HOME"], "gatepass", "audit", "000001.jsonl")
	if err := os.Truncate(segment, 0); err != nil {
		t.Fatal(err)
	}
	if r := h.run("audit", "export", "--after", "0"); r.code != 65 || !strings.Contains(r.stderr, "no entry 0 to go on after: it is empty") {
		t.Errorf("an empty log: %+v", r)
	}
}

func TestAuditExportOCSF(t *testing.T) {
	h, entries := logged(t)
	r := h.run("audit", "export", "--format", "ocsf", "--after", "1")
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("%+v", r)
	}
	seq := 2
	for line := range strings.Lines(r.stdout) {
		var v struct {
			Metadata struct {
				Sequence int `json:"sequence"`
			} `json:"metadata"`
			Raw    string `json:"raw_data"`
			Device struct {
				Hostname string `json:"hostname"`
			} `json:"device"`
		}
		host, _ := os.Hostname()
		if err := json.Unmarshal([]byte(line), &v); err != nil || v.Metadata.Sequence != seq || v.Raw+"\n" != entries[seq] || v.Device.Hostname != host {
			t.Errorf("%v, entry %d: %s", err, seq, line)
		}
		seq++
	}
	if seq != len(entries) {
		t.Errorf("the last is %d", seq-1)
	}
}

func TestAuditExportCSV(t *testing.T) {
	h, _ := logged(t)
	r := h.run("audit", "export", "--format", "csv", "--event", "session.*", "--event", "request.denied")
	if r.code != 0 || r.stderr != "" || strings.Count(r.stdout, "\r\n") != 3 || strings.Count(r.stdout, "\n") != 3 {
		t.Fatalf("%+v", r)
	}
	rows, err := csv.NewReader(strings.NewReader(r.stdout)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(rows[0], csvHeader) {
		t.Errorf("the header is %q", rows[0])
	}
	cell := func(row int, name string) string { return rows[row][slices.Index(csvHeader, name)] }
	for _, tt := range []struct {
		row        int
		name, want string
	}{
		{1, "seq", "2"}, {1, "time", "2026-11-03T10:00:02.000000Z"}, {1, "session_expires", "2026-11-03T11:00:00.000000Z"},
		{1, "caller_program", "/opt/hashicorp/bin/terraform"}, {1, "caller_resolved", "false"}, {1, "reason", "ticket 4711"}, {1, "error_code", ""},
		{2, "key_name", ""}, {2, "error_code", "aws_denied"}, {2, "outcome", "denied"},
	} {
		if got := cell(tt.row, tt.name); got != tt.want {
			t.Errorf("row %d, %s: got %q, want %q", tt.row, tt.name, got, tt.want)
		}
	}
}

// What a caller says of itself is no formula, and breaks out of no cell.
func TestCSVCells(t *testing.T) {
	e := audit.Entry{Event: broker.Event{Profile: "=1+1", Reason: "@SUM(A1)", Account: "+1", Lease: "-1", RoleARN: `a-b;"=1; +2;c=3`, Decision: "x\n@y\t-z\n k", Groups: []string{"\tx"},
		Caller: &broker.Caller{Program: "a,\"b\"\nc", Cwd: "\r=1", Ancestors: []broker.Process{{PID: 7, Exe: "/bin/sh"}}}}, Cut: []string{"reason"}}
	if got := len(csvRow(e)); got != len(csvHeader) {
		t.Fatalf("%d cells below %d names", got, len(csvHeader))
	}
	if got := len(csvRow(audit.Entry{})); got != len(csvHeader) {
		t.Fatalf("%d cells below %d names where nothing is known", got, len(csvHeader))
	}
	row := csvRow(e)
	for name, want := range map[string]string{"profile": "'=1+1", "reason": "'@SUM(A1)", "account": "'+1", "lease": "'-1", "groups": "'\tx",
		"role_arn": `a-b;"'=1; '+2;c=3`, "decision": "x\n'@y\t'-z\n k",
		"caller_cwd": "'\r'=1", "caller_program": "a,\"b\"\nc", "caller_ancestors": "/bin/sh[7]", "cut": "reason", "time": "", "outcome": ""} {
		if got := harmless(row[slices.Index(csvHeader, name)]); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestAuditExportToFile(t *testing.T) {
	h, entries := logged(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "log.json")
	if err := os.WriteFile(file, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := h.run("audit", "export", "-o", file); r != (result{}) {
		t.Fatalf("%+v", r)
	}
	got, err := os.ReadFile(file)
	info, _ := os.Stat(file)
	if err != nil || string(got) != strings.Join(entries, "") || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v: %s", err, info.Mode(), got)
	}
	// A link stays one, and what is no file is not replaced.
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	if r := h.run("audit", "export", "--after", "4", "--output", link); r != (result{}) {
		t.Fatalf("%+v", r)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v", err)
	}
	if got, _ := os.ReadFile(file); string(got) != entries[5] {
		t.Errorf("through the link: %s", got)
	}
	if r := h.run("audit", "export", "-o", ""); r.code != 64 || r.stdout != "" {
		t.Errorf("no name: %+v", r)
	}
	if r := h.run("audit", "export", "-o", dir); r.code != 78 || !strings.Contains(r.stderr, "not a regular file") {
		t.Errorf("a directory: %+v", r)
	}
	if r := h.run("audit", "export", "-o", filepath.Join(dir, "none", "x")); r.code != 78 || !strings.HasSuffix(strings.TrimSpace(r.stderr), "/none/x: no such file or directory") {
		t.Errorf("no directory: %+v", r)
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// After an error of the log the old file stays; a line that is no entry is
// named, and the others are written.
func TestAuditExportOfABrokenLog(t *testing.T) {
	h, entries := logged(t)
	segment := filepath.Join(h.env["XDG_STATE_HOME"], "gatepass", "audit", "000001.jsonl")
	file := filepath.Join(t.TempDir(), "log.json")
	broken := entries[0] + "nonsense\n" + strings.Join(entries[2:], "")
	if err := os.WriteFile(segment, []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"json", "csv", "ocsf"} {
		r := h.run("audit", "export", "--format", format, "-o", file)
		got, _ := os.ReadFile(file)
		if r.code != 65 || !strings.Contains(r.stderr, "byte ") || strings.Count(string(got), "credentials.served") == 0 || strings.Contains(string(got), "nonsense") {
			t.Errorf("%s: %+v\n%s", format, r, got)
		}
	}
	before, _ := os.ReadFile(file)
	if err := os.RemoveAll(filepath.Dir(segment)); err != nil {
		t.Fatal(err)
	}
	if r := h.run("audit", "export", "-o", file); r.code != 78 {
		t.Errorf("no log: %+v", r)
	}
	if r := h.run("audit", "export", "--format", "csv"); r.code != 78 || r.stdout != "" {
		t.Errorf("no log: %+v", r)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("the old file was touched: %v", err)
	}
}

// What was pruned is told, so that a shipper knows that it came too late.
func TestAuditExportTellsOfAGap(t *testing.T) {
	h, entries := logged(t)
	segment := filepath.Join(h.env["XDG_STATE_HOME"], "gatepass", "audit", "000001.jsonl")
	if err := os.WriteFile(segment, []byte(strings.Join(entries[3:], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	r := h.run("audit", "export", "--after", "0")
	if r.code != 0 || r.stdout != strings.Join(entries[3:], "") || !strings.Contains(r.stderr, "2 entries after --after are no longer in the log") {
		t.Errorf("%+v", r)
	}
}
