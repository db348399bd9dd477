//go:build unix

package forward

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatepass/broker/audit"
)

// A program is a real receiver that is killed and started again.
type program struct {
	t     *testing.T
	start func() *exec.Cmd // one that listens
	cmd   *exec.Cmd
	out   string // what it says
}

func (p *program) run() {
	p.t.Helper()
	p.cmd = p.start()
	p.out = filepath.Join(p.t.TempDir(), "says")
	out, err := os.Create(p.out)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) end(sig syscall.Signal) {
	p.cmd.Process.Signal(sig)
	p.cmd.Wait()
}

// survives writes entries while the receiver is ended and started again, and
// holds what it has received against the log.
//
// Once it is stopped first, when it has taken all that there was: what then
// comes lies unread in the kernel, and is lost when it is killed. That is the
// loss that a mere "sent" does not see.
func survives(t *testing.T, p *program, url string, received func() []string, midway ...syscall.Signal) {
	p.t = t
	p.run()
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	defer func() {
		if t.Failed() {
			said, _ := os.ReadFile(p.out)
			t.Logf("it says:\n%.3000s", said)
		}
	}()
	l, dir := newLog(t, audit.Options{SegmentSize: 512 << 10})
	store := &memory{}
	cfg := quick(dir, store)
	cfg.timeout = time.Second
	f := running(t, cfg, url)
	write(t, l, 200)
	atEnd(t, f, l)

	for _, sig := range midway {
		before := l.Status().Entries
		written := make(chan struct{})
		go func() {
			defer close(written)
			write(t, l, 2000) // several batches
		}()
		eventually(t, func() string {
			if st := f.Status(l.Status().Entries)[0]; l.Status().Entries-st.Lag <= before {
				return "nothing arrives"
			}
			return ""
		})
		p.end(sig)
		<-written
		eventually(t, func() string {
			if f.Status(l.Status().Entries)[0].Error == "" {
				write(t, l, 1)
				return "that it is down does not show"
			}
			return ""
		})
		p.run()
		atEnd(t, f, l)
	}

	p.cmd.Process.Signal(syscall.SIGSTOP)
	write(t, l, 100)
	eventually(t, func() string {
		if f.Status(0)[0].Error == "" {
			return "that it hangs does not show"
		}
		return ""
	})
	p.end(syscall.SIGKILL)
	write(t, l, 100)
	// And our own end, without a word.
	f.stop()
	f.wg.Wait()
	p.run()
	f = running(t, cfg, url)
	atEnd(t, f, l)
	want := lines(t, dir)
	eventually(t, func() string {
		if got := received(); len(got) == 0 || got[len(got)-1] != want[len(want)-1] {
			return fmt.Sprintf("%d entries are received, and the last of %d is not", len(got), len(want))
		}
		return ""
	})
	got := received()
	seams := inOrder(t, got, want)
	t.Logf("%d entries; it went back %d times", len(want), seams)
}

// fileLines are the whole lines of a file that may not be there yet.
func fileLines(t *testing.T, path string) (all []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutSuffix(line, "\n"); ok {
			all = append(all, text)
		}
	}
	return all
}

// freePort is a port that nothing listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// program looks for a real program by its names.
func lookFor(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	missing(t, names[0]+" is not installed")
	return ""
}

func TestRealRsyslog(t *testing.T) {
	rsyslogd := lookFor(t, "rsyslogd", "/usr/sbin/rsyslogd")
	c := newCertificates(t)
	for _, tt := range []struct{ name, module, input, url string }{
		{"tcp", `module(load="imtcp")`, `input(type="imtcp" address="127.0.0.1" port="%s")`, "syslog+tcp://127.0.0.1:%s"},
		{"tls", `module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid")`,
			`input(type="imtcp" address="127.0.0.1" port="%s")`, "syslog+tls://127.0.0.1:%s?ca=" + c.ca + "&cert=" + c.cert + "&key=" + c.key},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, port := t.TempDir(), freePort(t)
			out, conf := filepath.Join(dir, "out"), filepath.Join(dir, "rsyslog.conf")
			text := `global(workDirectory="` + dir + `" maxMessageSize="64k" net.enableDNS="off"`
			if tt.name == "tls" {
				if _, err := os.Stat("/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so"); err != nil {
					if found, _ := filepath.Glob("/usr/lib/*/rsyslog/lmnsd_gtls.so"); found == nil {
						missing(t, "rsyslog-gnutls is not installed")
					}
				}
				text += ` DefaultNetstreamDriver="gtls" DefaultNetstreamDriverCAFile="` + c.ca + `" DefaultNetstreamDriverCertFile="` + c.cert + `" DefaultNetstreamDriverKeyFile="` + c.key + `"`
			}
			// With a queue of its own that is not on disk, it loses what it
			// took when it is killed, which is not for a sender to mend.
			text += ")\nmain_queue(queue.type=\"Direct\")\n" + tt.module + "\n" + fmt.Sprintf(tt.input, port) + `
template(name="entry" type="string" string="%msg%\n")
action(type="omfile" file="` + out + `" template="entry")
`
			if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			p := &program{start: func() *exec.Cmd {
				return exec.Command(rsyslogd, "-n", "-f", conf, "-i", filepath.Join(dir, "pid"))
			}}
			survives(t, p, fmt.Sprintf(tt.url, port), func() []string { return fileLines(t, out) }, syscall.SIGTERM)
		})
	}
}

func TestRealRsyslogUDP(t *testing.T) {
	rsyslogd := lookFor(t, "rsyslogd", "/usr/sbin/rsyslogd")
	dir, port := t.TempDir(), freePort(t)
	out, conf := filepath.Join(dir, "out"), filepath.Join(dir, "rsyslog.conf")
	text := `global(workDirectory="` + dir + `" maxMessageSize="64k" net.enableDNS="off")
main_queue(queue.type="Direct")
module(load="imudp")
input(type="imudp" address="127.0.0.1" port="` + port + `" rcvbufSize="4m")
template(name="entry" type="string" string="%msg%\n")
action(type="omfile" file="` + out + `" template="entry")
`
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, start: func() *exec.Cmd {
		return exec.Command(rsyslogd, "-n", "-f", conf, "-i", filepath.Join(dir, "pid"))
	}}
	p.run()
	defer p.end(syscall.SIGKILL)
	l, logDir := newLog(t, audit.Options{})
	f := running(t, quick(logDir, &memory{}), "syslog+udp://127.0.0.1:"+port)
	write(t, l, 300)
	atEnd(t, f, l)
	want := lines(t, logDir)
	eventually(t, func() string {
		if n := len(fileLines(t, out)); n < len(want) {
			return fmt.Sprintf("%d of %d arrived", n, len(want))
		}
		return ""
	})
	inOrder(t, fileLines(t, out), want)
}

// GATEPASS_OTELCOL names a collector with the OTLP receiver and the file
// exporter; testdata/otelcol is one.
func TestRealCollector(t *testing.T) {
	otelcol := os.Getenv("GATEPASS_OTELCOL")
	if _, err := os.Stat(otelcol); otelcol == "" || err != nil {
		missing(t, "GATEPASS_OTELCOL names no OpenTelemetry collector")
	}
	c := newCertificates(t)
	dir, port := t.TempDir(), freePort(t)
	out, conf := filepath.Join(dir, "out"), filepath.Join(dir, "collector.yaml")
	// With rotation the exporter writes at once, so that what is answered
	// with 200 outlives a kill.
	text := `
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:` + port + `", tls: {cert_file: ` + c.cert + `, key_file: ` + c.key + `, client_ca_file: ` + c.ca + `}}}}}
exporters: {file: {path: ` + out + `, append: false, rotation: {max_megabytes: 1000}}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {logs: {receivers: [otlp], exporters: [file]}}
`
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &program{start: func() *exec.Cmd { return exec.Command(otelcol, "--config", "file:"+conf) }}
	received := func() (all []string) {
		for _, line := range fileLines(t, out) {
			var in struct {
				ResourceLogs []struct {
					Resource  struct{ Attributes []otlpAttribute }
					ScopeLogs []struct{ LogRecords []otlpRecord }
				}
			}
			if err := json.Unmarshal([]byte(line), &in); err != nil {
				t.Fatalf("%v: %.300s", err, line)
			}
			for _, of := range in.ResourceLogs {
				if *of.Resource.Attributes[0].Value.String != "gatepass" {
					t.Fatalf("the resource is %.300s", line)
				}
				for _, scope := range of.ScopeLogs {
					for _, r := range scope.LogRecords {
						e, err := audit.ParseEntry([]byte(*r.Body.String))
						if err != nil || r.Time != e.Time.UnixNano() || r.EventName != string(e.Kind) || *r.Attributes[0].Value.Int != fmt.Sprint(e.Seq) {
							t.Fatalf("%v: the record is %+v", err, r)
						}
						all = append(all, *r.Body.String)
					}
				}
			}
		}
		return all
	}
	survives(t, p, "otlp+https://127.0.0.1:"+port+"?ca="+c.ca+"&cert="+c.cert+"&key="+c.key, received, syscall.SIGKILL, syscall.SIGTERM)
}

// scanLines calls f with each line of a program's output.
func scanLines(t *testing.T, cmd *exec.Cmd, f func([]byte)) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(out)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		f(in.Bytes())
	}
	if err := errors.Join(in.Err(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
}
