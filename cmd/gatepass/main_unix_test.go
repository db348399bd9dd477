//go:build unix

package main

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// The document leaves in one write, and nothing else does.
func TestCredentialProcessWritesOnce(t *testing.T) {
	h := newHome(t)
	h.serveDocument("eu-west-1")
	for _, args := range [][]string{{"credential-process", "ops"}, {"credential-process", "--", "ops"}} {
		var w countingWriter
		c := h.command(nil, nil)
		var stderr bytes.Buffer
		c.stdout, c.stderr = &w, &stderr
		if err := c.run(t.Context(), args); err != nil || len(w.writes) != 1 || w.writes[0] != document || stderr.Len() > 0 {
			t.Errorf("%q: %v, wrote %q, said %q", args, err, w.writes, stderr.String())
		}
	}
}

type countingWriter struct{ writes []string }

func (w *countingWriter) Write(b []byte) (int, error) {
	w.writes = append(w.writes, string(b))
	return len(b), nil
}

// A process whose standard output does not take the document fails.
func TestStandardOutputFails(t *testing.T) {
	h, _ := logged(t)
	h.serveDocument("")
	gatepass := filepath.Join(programs(t), "gatepass")
	if full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0); err == nil {
		defer full.Close()
		for _, args := range [][]string{{"credential-process", "ops"}, {"export", "ops"}, {"help"}, {"version"}, {"audit", "stats"}, {"audit", "list"}, {"audit", "export"}} {
			cmd := exec.Command(gatepass, args...)
			cmd.Env = h.environ()
			cmd.Stdout = full
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if cmd.Run(); cmd.ProcessState.ExitCode() != 70 || !strings.Contains(stderr.String(), "write to standard output") {
				t.Errorf("%q to a full disk: %v, %s", args, cmd.ProcessState, stderr.String())
			}
		}
	} else {
		t.Logf("no full disk to try: %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd := exec.Command(gatepass, "credential-process", "ops")
	cmd.Env = h.environ()
	cmd.Stdout = w
	cmd.Run()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGPIPE {
		t.Errorf("to a closed pipe: %v", cmd.ProcessState)
	}
}

// Every code that a daemon may answer with leads to its exit status.
func TestExitStatus(t *testing.T) {
	h := newHome(t)
	var next broker.Error
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathCredentials: func([]byte) (int, map[string]string, string) { return 500, nil, jsonOf(t, next) },
	})
	gatepass := filepath.Join(programs(t), "gatepass")
	for code, want := range map[broker.Code]int{
		broker.CodeUsage: 64, broker.CodeData: 65, broker.CodeKeychainMissing: 69, broker.CodeInternal: 70, broker.CodeLogUnwritable: 74,
		broker.CodeKeychainLocked: 75, broker.CodeDenied: 77, broker.CodeNotFound: 78, "of_a_later_version": 70,
	} {
		h.mu.Lock()
		next = broker.Error{Code: code, Message: "no"}
		h.mu.Unlock()
		if r := h.exec(gatepass, "credential-process", "ops"); r.code != want || r.stdout != "" || !strings.HasPrefix(r.stderr, "gatepass: no") {
			t.Errorf("%s: %+v, want %d", code, r, want)
		}
	}
}

// A daemon that ends between the question and the answer may have been
// replaced: a session is asked for again, once, and a key is not sent twice.
func TestDaemonEndsBeforeItAnswers(t *testing.T) {
	for _, c := range []struct {
		hangups int64
		args    []string
		calls   int64
		code    int
	}{
		{1, []string{"credential-process", "ops"}, 2, 0},
		{2, []string{"credential-process", "ops"}, 2, 69},
		{1, []string{"keys", "add", "work", "--stdin"}, 1, 69},
	} {
		h := newHome(t)
		h.stdin = testID + "\n" + testSecret + "\n"
		var calls atomic.Int64
		answer := func([]byte) (int, map[string]string, string) {
			if calls.Add(1) <= c.hangups {
				panic(http.ErrAbortHandler) // closes the connection
			}
			return 200, nil, document
		}
		h.serve(map[string]func([]byte) (int, map[string]string, string){
			"POST " + wire.PathCredentials: answer, "POST " + wire.PathKeys: answer,
		})
		if r := h.run(c.args...); r.code != c.code || calls.Load() != c.calls {
			t.Errorf("%q, %d hang-ups: %+v after %d calls", c.args, c.hangups, r, calls.Load())
		}
	}
}

// A daemon that listens and does not answer is no running daemon.
func TestDaemonStartAgainstOneThatHangs(t *testing.T) {
	h := newHome(t)
	if err := os.MkdirAll(filepath.Dir(h.socket()), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", h.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	h.patience = 50 * time.Millisecond
	if r := h.run("daemon", "start"); r.code != broker.CodeDaemonUnreachable.ExitStatus() || !strings.Contains(r.stderr, "did not answer in time") {
		t.Errorf("%+v", r)
	}
}
