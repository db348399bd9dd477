//go:build unix

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// oldLog puts a log in the place of r's before a daemon has one: four segments
// of 500 days ago, and one of yesterday. Nobody has signed it yet.
func (r *realm) oldLog(t *testing.T) (lines []byte) {
	t.Helper()
	dir := r.auditDir()
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(-500 * 24 * time.Hour)
	l, err := audit.Open(t.Context(), audit.Options{Dir: dir, SegmentSize: 64 << 10, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		if _, err := os.Stat(filepath.Join(dir, "000004.jsonl")); err == nil && now.Before(time.Now().Add(-400*24*time.Hour)) {
			now = time.Now().Add(-24 * time.Hour)
		}
		if _, err := os.Stat(filepath.Join(dir, "000005.jsonl")); err == nil {
			break
		}
		e := broker.Event{Kind: broker.EventCredentialsServed, Outcome: broker.OutcomeOK, Profile: "old", Reason: fmt.Sprintf("%d %s", i, strings.Repeat("why ", 100))}
		if err := l.Append(t.Context(), e, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%06d.jsonl", i+1)))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, b...)
	}
	return lines
}

// until runs status until cond, which the daemon brings about by itself.
func (r *realm) until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); {
		if time.Now().After(deadline) {
			files, _ := os.ReadDir(r.auditDir())
			t.Fatalf("%s: there are %v", what, files)
		}
		if out, err := r.command("gatepass", "status").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// The daemon signs what it finds, compresses it, and removes what is older
// than it is told to keep; it is killed on the way, and what the client reads
// is the log.
func TestKeepInTheDaemon(t *testing.T) {
	t.Parallel()
	r := newRealm(t)
	if out, err := r.command("gatepass", "daemon", "stop").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.RemoveAll(r.auditDir()); err != nil {
		t.Fatal(err)
	}
	lines := r.oldLog(t)
	run := func(args ...string) []byte {
		t.Helper()
		cmd := r.command("gatepass", args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, &stderr)
		}
		return out
	}
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(r.auditDir(), name))
		return err == nil
	}
	whole := func() {
		t.Helper()
		// It may not be signed yet.
		if out, err := r.command("gatepass", "audit", "verify").CombinedOutput(); err != nil && !strings.Contains(string(out), "is signed by") {
			t.Errorf("verify: %v: %s", err, out)
		}
		if got := run("audit", "list", "--json", "--profile", "old"); !bytes.HasSuffix(lines, got) || len(got) < len(lines)/5 {
			t.Errorf("%d bytes of entries, of %d", len(got), len(lines))
		}
	}
	for range 5 {
		run("credential-process", "deploy") // which starts it
		whole()
		if pid := r.daemonPID(); pid != 0 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		for held := true; held; { // until it is dead
			var err error
			if _, held, err = audit.LockHolder(r.auditDir()); err != nil {
				t.Fatal(err)
			}
		}
	}
	run("daemon", "start")
	r.until(t, "compressed", func() bool { return !there("000001.jsonl") && !there("000004.jsonl") })
	if got := run("audit", "list", "--json", "--profile", "old"); !bytes.Equal(got, lines) {
		t.Errorf("compressed: %d bytes of entries, not %d", len(got), len(lines))
	}

	config := filepath.Join(".config", "gatepass", "gatepass.toml")
	text, err := os.ReadFile(filepath.Join(r.home, config))
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, config, string(text)+"[audit]\nkeep = \"400d\"\n")
	run("daemon", "restart")
	r.until(t, "pruned", func() bool {
		run("credential-process", "deploy")
		return !there("000001.jsonl.zst")
	})
	whole()
	if out := string(run("audit", "verify")); !strings.Contains(out, "those before were removed when they were old, as a signed entry says") {
		t.Errorf("verify says %s", out)
	}
	if out := string(run("audit", "list", "--event", "log.pruned")); !strings.Contains(out, "log.pruned") {
		t.Errorf("list says %s", out)
	}
	if !there("000002.jsonl.zst") {
		t.Error("more than one segment went on one day")
	}
}
