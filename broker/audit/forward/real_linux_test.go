package forward

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"gatepass/broker/audit"
)

// A journald of a namespace of its own is started as systemd does it: with the
// socket, which outlives it.
func TestRealJournald(t *testing.T) {
	journald := lookFor(t, "/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald")
	journalctl := lookFor(t, "journalctl")
	if os.Getuid() != 0 {
		t.Skip("a journald of one's own needs root")
	}
	if _, err := os.Stat("/etc/machine-id"); err != nil {
		missing(t, "there is no /etc/machine-id, which journald needs")
	}
	namespace := fmt.Sprintf("gatepass%d", os.Getpid())
	dir := "/run/systemd/journal." + namespace
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Skip("no place for a journald's socket: ", err)
	}
	t.Cleanup(func() {
		os.RemoveAll(dir)
		for _, at := range []string{"/run/log/journal/*.", "/var/log/journal/*."} {
			left, _ := filepath.Glob(at + namespace)
			for _, path := range left {
				os.RemoveAll(path)
			}
		}
	})
	path := filepath.Join(dir, "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	socket, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	p := &program{t: t, start: func() *exec.Cmd {
		cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$1"`, journald, namespace)
		cmd.ExtraFiles = []*os.File{socket}
		return cmd
	}}
	received := func() (all []string) {
		scanLines(t, exec.Command(journalctl, "--namespace="+namespace, "-a", "-q", "--no-pager", "-o", "json", "SYSLOG_IDENTIFIER=gatepass"), func(line []byte) {
			var in struct {
				Entry    string `json:"GATEPASS_ENTRY"`
				Seq      string `json:"GATEPASS_SEQ"`
				Message  string `json:"MESSAGE"`
				Priority string `json:"PRIORITY"`
			}
			if err := json.Unmarshal(line, &in); err != nil {
				t.Fatalf("%v: %.300s", err, line)
			}
			e, err := audit.ParseEntry([]byte(in.Entry))
			if err != nil || in.Seq != fmt.Sprint(e.Seq) || in.Message != e.Summary() {
				t.Fatalf("%v: %.300s", err, line)
			}
			all = append(all, in.Entry)
		})
		return all
	}
	p.run()
	defer func() { p.end(syscall.SIGKILL) }()
	l, logDir := newLog(t, audit.Options{})
	cfg := quick(logDir, &memory{})
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.to = append(f.to, namedSink{"journald", &journaldSink{path}})
	f.Start()
	defer func() { f.stop(); f.wg.Wait() }()
	write(t, l, 300)
	atEnd(t, f, l)
	eventually(t, func() string {
		if n := len(received()); n < 300 {
			return fmt.Sprintf("%d of 300 arrived", n)
		}
		return ""
	})
	// Killed with messages waiting, and more coming than wait.
	p.cmd.Process.Signal(syscall.SIGSTOP)
	write(t, l, 300)
	p.end(syscall.SIGKILL)
	write(t, l, 100)
	p.run()
	atEnd(t, f, l)
	want := lines(t, logDir)
	eventually(t, func() string {
		if n := len(received()); n < len(want) {
			return fmt.Sprintf("%d of %d arrived", n, len(want))
		}
		return ""
	})
	seams := inOrder(t, received(), want)
	t.Logf("%d entries; it went back %d times", len(want), seams)
}
