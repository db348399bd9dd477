package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/scope/scopetest"
	"gatepass/broker/sts/ststest"
	"gatepass/broker/wire"
)

// A warm credential-process, the whole process, and as a ratio to ssh-add -l
// on an agent with one key, in turns.
func BenchmarkCredentialProcess(b *testing.B) {
	r := newRealm(b)
	ours := func() *exec.Cmd { return r.command("gatepass", "credential-process", "deploy") }
	theirs := sshAdd(b, r)
	timed := func(cmd *exec.Cmd) time.Duration {
		start := time.Now()
		if err := cmd.Run(); err != nil {
			b.Fatalf("%v: %v", cmd, err)
		}
		return time.Since(start)
	}
	timed(ours())
	var us, them time.Duration
	for b.Loop() {
		us += timed(ours())
		them += timed(theirs())
	}
	b.ReportMetric(float64(us.Nanoseconds())/float64(b.N), "ns/op")
	b.ReportMetric(float64(us)/float64(them), "x-ssh-add")
}

// A lease from its beginning to its end, whole processes with the real daemon,
// beside ssh-agent's own way to run a command: with a session that is there,
// and against a daemon that answers at once, which leaves the client.
func BenchmarkExec(b *testing.B) { benchmarkExec(b, newRealm(b)) }

// The same where a systemd user manager makes a scope for each lease.
func BenchmarkExecInAScope(b *testing.B) {
	m := scopetest.Start(b, os.Getuid())
	r := newRealm(b)
	r.setenv("XDG_RUNTIME_DIR=" + m.RuntimeDir)
	benchmarkExec(b, r)
	out, err := r.command("gatepass", "exec", "deploy", "--", "cat", "/proc/self/cgroup").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "/gatepass-l-") {
		b.Errorf("the leases had no scopes: %v: %s", err, out)
	}
}

func benchmarkExec(b *testing.B, r *realm) {
	if _, err := exec.LookPath("ssh-agent"); err != nil {
		b.Skip("ssh-agent is not here to compare with")
	}
	r.write(b, ".config/gatepass/gatepass.toml", "keychain = \"file\"\n[aws]\nendpoint_url = \""+r.aws.URL+"\"\n[leases]\nsession = \"shared\"\n")
	r.restart(b)
	h := newHome(b)
	h.env["PATH"] = os.Getenv("PATH")
	h.serveLease(exampleLease())
	timed := func(total *time.Duration, cmd *exec.Cmd) {
		start := time.Now()
		if err := cmd.Run(); err != nil {
			b.Fatalf("%v: %v", cmd, err)
		}
		*total += time.Since(start)
	}
	var us, client, them time.Duration
	timed(new(time.Duration), r.command("gatepass", "credential-process", "deploy")) // which gets the session
	for b.Loop() {
		timed(&us, r.command("gatepass", "exec", "deploy", "--", "true"))
		alone := r.command("gatepass", "exec", "deploy", "--", "true")
		alone.Env = h.environ()
		timed(&client, alone)
		timed(&them, exec.Command("ssh-agent", "true"))
	}
	b.ReportMetric(float64(us.Nanoseconds())/float64(b.N), "ns/op")
	b.ReportMetric(float64(us)/float64(them), "x-ssh-agent")
	b.ReportMetric(float64(client)/float64(them), "client-x-ssh-agent")
}

// What a shell runs before each prompt, inside a lease and outside, the whole
// process, beside a warm credential-process and ssh-add -l. The daemon is one
// that answers at once: what is measured is the client.
func BenchmarkStatusPrompt(b *testing.B) {
	h := newHome(b)
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"GET " + wire.PathLeaseOwn:     func([]byte) (int, map[string]string, string) { return 200, nil, "4102444800 live ops\n" },
		"POST " + wire.PathCredentials: func([]byte) (int, map[string]string, string) { return 200, nil, document },
	})
	gatepass := filepath.Join(buildPrograms(b), "gatepass")
	outside := h.environ()
	h.env["GATEPASS_LEASE"] = "l-1"
	inside := h.environ()
	theirs := sshAdd(b, &realm{home: h.env["HOME"]})
	var inShell, atPrompt, process, add time.Duration
	timed := func(total *time.Duration, cmd *exec.Cmd, env []string) {
		if env != nil {
			cmd.Env = env
		}
		start := time.Now()
		if err := cmd.Run(); err != nil {
			b.Fatalf("%v: %v", cmd, err)
		}
		*total += time.Since(start)
	}
	for b.Loop() {
		timed(&atPrompt, exec.Command(gatepass, "status", "--prompt"), inside)
		timed(&process, exec.Command(gatepass, "credential-process", "ops"), inside)
		timed(&inShell, exec.Command(gatepass, "status", "--prompt"), outside)
		timed(&add, theirs(), nil)
	}
	b.ReportMetric(float64(atPrompt.Nanoseconds())/float64(b.N), "ns/op")
	b.ReportMetric(float64(atPrompt)/float64(process), "x-credential-process")
	b.ReportMetric(float64(atPrompt)/float64(add), "x-ssh-add")
	b.ReportMetric(float64(inShell)/float64(add), "outside-x-ssh-add")
}

// sshAdd starts an agent that holds one key, and returns what lists it.
func sshAdd(b *testing.B, r *realm) func() *exec.Cmd {
	for _, name := range []string{"ssh-agent", "ssh-add", "ssh-keygen"} {
		if _, err := exec.LookPath(name); err != nil {
			b.Skipf("%s is not here to compare with", name)
		}
	}
	socket, key := filepath.Join(r.home, "agent"), filepath.Join(r.home, "key")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { agent.Process.Kill(); agent.Wait() })
	env := append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	for _, args := range [][]string{{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key}, {"ssh-add", "-q", key}} {
		for try := 0; ; try++ {
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = env
			out, err := cmd.CombinedOutput()
			if err == nil {
				break
			}
			if try == 100 { // the agent takes its time to listen
				b.Fatalf("%v: %v: %s", args, err, out)
			}
			os.Remove(key)
			os.Remove(key + ".pub")
		}
	}
	return func() *exec.Cmd {
		cmd := exec.Command("ssh-add", "-l")
		cmd.Env = env
		return cmd
	}
}

// Two hundred processes at once with nothing in the cache and 200 ms of STS
// latency: how long after the session's arrival the last one has it, as the
// log tells.
func BenchmarkColdCrowd(b *testing.B) {
	const latency = 200 * time.Millisecond
	r := newRealm(b)
	var after time.Duration
	calls := 0
	for b.Loop() {
		r.restart(b)
		r.aws.Faults().Clear()
		r.aws.Faults().Add(ststest.Fault{Action: "AssumeRole", Delay: latency})
		before := r.aws.Count("AssumeRole")
		var crowd sync.WaitGroup
		for range 200 {
			crowd.Go(func() {
				if out, err := r.command("gatepass", "credential-process", "deploy").CombinedOutput(); err != nil {
					b.Errorf("%v: %s", err, out)
				}
			})
		}
		crowd.Wait()
		after += r.sinceIssued(b)
		calls += r.aws.Count("AssumeRole") - before
	}
	b.ReportMetric(float64(after.Milliseconds())/float64(b.N), "ms-after-arrival")
	b.ReportMetric(float64(calls)/float64(b.N), "AssumeRoles/op")
}

// sinceIssued returns the time from the last session.issued to the last
// credentials.served.
func (r *realm) sinceIssued(b *testing.B) time.Duration {
	var issued, served time.Time
	for line, err := range audit.Entries(b.Context(), r.auditDir(), audit.Query{}) {
		if err != nil {
			b.Fatal(err)
		}
		e, err := line.Entry()
		if err != nil {
			b.Fatal(err)
		}
		switch e.Kind {
		case broker.EventSessionIssued:
			issued = e.Time
		case broker.EventCredentialsServed:
			served = e.Time
		}
	}
	return served.Sub(issued)
}

// Hand-outs from the cache of a real daemon, log on, over 32 keep-alive
// connections; clients and daemon share the machine. With -benchtime 100000x
// resident-MiB is what the daemon holds after so many requests.
func BenchmarkHandOuts(b *testing.B) {
	r := newRealm(b)
	if out, err := r.command("gatepass", "credential-process", "deploy").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	pid := r.daemonPID()
	idle := residentMiB(b, pid)
	cpu := cpuTicks(b, pid)
	const body = `{"profile":"deploy","via":"credential-process"}`
	request := fmt.Appendf(nil, "POST /v1/credentials HTTP/1.1\r\nHost: gatepass\r\nGatepass-Protocol: 1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	var left atomic.Int64
	left.Store(int64(b.N))
	var clients sync.WaitGroup
	b.ResetTimer()
	for range 32 {
		clients.Go(func() {
			conn, err := net.Dial("unix", filepath.Join(r.home, "run", "gatepass", "gatepass.sock"))
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			if err := askOn(conn, request, &left); err != nil {
				b.Error(err)
			}
		})
	}
	clients.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "hand-outs/s")
	b.ReportMetric(float64(cpuTicks(b, pid)-cpu)*1e4/float64(b.N), "daemon-µs/op")
	b.ReportMetric(idle, "idle-MiB")
	b.ReportMetric(residentMiB(b, pid), "resident-MiB")
}

// askOn sends a request on a connection while there are any left, and waits for
// each answer.
func askOn(conn net.Conn, request []byte, left *atomic.Int64) error {
	answers := bufio.NewReader(conn)
	for left.Add(-1) >= 0 {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if err := skipAnswer(answers); err != nil {
			return err
		}
	}
	return nil
}

// skipAnswer reads a 200 and its body, at the least cost.
func skipAnswer(r *bufio.Reader) error {
	length := 0
	for first := true; ; first = false {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if first && !strings.HasPrefix(line, "HTTP/1.1 "+strconv.Itoa(http.StatusOK)) {
			return fmt.Errorf("answered %q", line)
		}
		if value, ok := strings.CutPrefix(line, "Content-Length: "); ok {
			length, _ = strconv.Atoi(strings.TrimSpace(value))
		}
		if len(line) == 2 {
			break
		}
	}
	_, err := r.Discard(length)
	return err
}

func residentMiB(b *testing.B, pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

// cpuTicks is what a process used of the processors, in 1/100 s.
func cpuTicks(b *testing.B, pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return user + system
}
