package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A runningLease is gatepass exec with a shell that does what it is told.
type runningLease struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Reader
}

// begin runs a shell in a lease of deploy.
func (r *realm) begin(t *testing.T, args ...string) *runningLease {
	t.Helper()
	cmd := r.command("gatepass", append(append([]string{"exec", "deploy"}, args...), "--", "sh")...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &runningLease{t, cmd, in, bufio.NewReader(out)}
}

// does runs a line and returns the line that comes of it.
func (l *runningLease) does(line string) string {
	l.t.Helper()
	stuck := time.AfterFunc(time.Minute, func() { l.cmd.Process.Kill() })
	defer stuck.Stop()
	fmt.Fprintln(l.stdin, line)
	answer, err := l.lines.ReadString('\n')
	if err != nil {
		l.t.Fatalf("%s: %q, %v", line, answer, err)
	}
	return strings.TrimSuffix(answer, "\n")
}

// until waits for something to come about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s", what)
		}
	}
}

// processorTime is what a process has used so far.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime, of proc_pid_stat(5)
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ
}

// A lease that forks and forks costs the daemon next to nothing, and others are
// served meanwhile; when it is ended, all of it ends.
func TestForkStormInALease(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it starts some thousand processes")
	}
	r := newRealm(t)
	daemon := r.daemonPID()
	l := r.begin(t)
	id := l.does("echo $GATEPASS_LEASE")
	before, began := processorTime(t, daemon), time.Now()
	// Two hundred that stay, then as many as go at once.
	l.does("i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done; i=0; while [ $i -lt 2000 ]; do (:) & i=$((i+1)); done; wait $! ; echo done")
	used, took := processorTime(t, daemon)-before, time.Since(began)
	t.Logf("2,200 processes in %s took %s of the daemon's", took.Round(time.Millisecond), used)
	if used > took/10 {
		t.Errorf("the daemon was busy for %s of %s", used, took)
	}

	// And while it goes on.
	fmt.Fprintln(l.stdin, "while :; do (:) & done")
	for range 10 {
		began := time.Now()
		if out, err := r.command("gatepass", "credential-process", "deploy").CombinedOutput(); err != nil {
			t.Errorf("outside: %v: %s", err, out)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("who is outside waited for %s", took)
		}
	}
	all := below(t, l.cmd.Process.Pid)
	if len(all) < 200 {
		t.Errorf("%d processes are below", len(all))
	}
	if out, err := r.command("gatepass", "end", id).CombinedOutput(); err != nil {
		t.Fatalf("end: %v: %s", err, out)
	}
	for _, pid := range all {
		until(t, "all have ended", func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err != nil || strings.Contains(string(stat), ") Z ") || !strings.Contains(string(stat), "(sleep)")
		})
	}
}

// A root that nobody reaps has ended all the same.
func TestLeaseOfAZombie(t *testing.T) {
	r := newRealm(t)
	cmd := r.command("gatepass", "exec", "deploy", "--", "sh", "-c", "exit 7")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	until(t, "the end is recorded", func() bool { return r.entries(t, "lease.ended") == 1 })
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(stat), ") Z ") {
		t.Fatalf("it is no zombie: %s, %v", stat, err)
	}
	out, err := r.command("gatepass", "audit", "list", "--json", "--event", "lease.ended").Output()
	if err != nil || !strings.Contains(string(out), "exit status 7") {
		t.Errorf("%v: %s", err, out)
	}
	until(t, "it is listed no more", func() bool { return len(r.status(t).Leases) == 0 })
}

// A lease's token opens its own endpoint, in one header, for its user, until
// the end; the refusals stand in the book.
func TestTokenOfALease(t *testing.T) {
	r := newRealm(t)
	one, two := r.begin(t), r.begin(t)
	const where = "echo $AWS_CONTAINER_CREDENTIALS_FULL_URI"
	url, other := one.does(where), two.does(where)
	token := one.does("cat $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE; echo")
	ask := func(url, header string) (int, string) {
		req, err := http.NewRequest("GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			req.Header.Set(header, token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	if status, body := ask(url, "Authorization"); status != 200 || !strings.Contains(body, "ASIA") {
		t.Fatalf("%d: %s", status, body)
	}
	denied := func(what string, n int) {
		t.Helper()
		if got := r.entries(t, "request.denied"); got != n {
			t.Errorf("%s: %d refusals are recorded, not %d", what, got, n)
		}
	}
	for _, c := range []struct{ what, url, header string }{
		{"in no header", url, ""}, {"in another header", url, "X-Aws-Ec2-Metadata-Token"}, {"of another lease", other, "Authorization"},
	} {
		if status, body := ask(c.url, c.header); status != 401 || strings.Contains(body, "ASIA") || strings.Contains(body, token) {
			t.Errorf("%s: %d: %s", c.what, status, body)
		}
	}
	denied("without the token", 2) // once for each lease
	for range 100 {
		ask(url, "")
	}
	denied("a hundred more", 2)

	t.Run("another user", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("needs root, to be another user")
		}
		for _, name := range []string{"setpriv", "curl"} {
			if _, err := exec.LookPath(name); err != nil {
				t.Skip(err)
			}
		}
		out, err := exec.Command("setpriv", "--reuid=65534", "--clear-groups", "curl", "-s", "-H", "Authorization: "+token, url).CombinedOutput()
		if err != nil || strings.Contains(string(out), "ASIA") || !strings.Contains(string(out), "serves user 0 alone") {
			t.Errorf("%v: %s", err, out)
		}
		denied("another user", 3)
		list, err := r.command("gatepass", "audit", "list", "--json", "--event", "request.denied").Output()
		if err != nil || !strings.Contains(string(list), `"uid":65534`) {
			t.Errorf("%v: %s", err, list)
		}
	})

	ended := r.entries(t, "lease.ended")
	fmt.Fprintln(one.stdin, "exit")
	until(t, "the lease has ended", func() bool { return r.entries(t, "lease.ended") > ended })
	for _, c := range []string{"its own", "another lease's"} {
		status, body := ask(map[string]string{"its own": url, "another lease's": other}[c], "Authorization")
		if status == 200 || strings.Contains(body, "ASIA") {
			t.Errorf("after the end, at %s: %d: %s", c, status, body)
		}
	}
	if got := two.does("printenv AWS_CONTAINER_CREDENTIALS_FULL_URI"); got != other {
		t.Errorf("the other lease: %s", got)
	}
}

// An SDK that has a session goes on when the daemon is killed under it, and gets
// the next one from the daemon that comes after.
func TestSDKOutlivesTheDaemon(t *testing.T) {
	t.Parallel()
	if ok, err := condition("real:boto3"); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("boto3 is not installed")
	}
	r := newRealm(t)
	r.write(t, "client.py", `
import datetime, sys, boto3
session = boto3.Session()
sts = session.client("sts", region_name="eu-west-1", endpoint_url=sys.argv[1])
credentials = session.get_credentials()
def ask(left):
    credentials._expiry_time = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=left)
    try:
        arn = sts.get_caller_identity()["Arn"]
    except Exception as e:
        return repr(e)
    return arn + " " + credentials.get_frozen_credentials().access_key
sts.get_caller_identity()
print("ready", flush=True)
while line := sys.stdin.readline():
    print(ask(int(line)), flush=True)
`)
	l := r.begin(t)
	ask := func(left string) (arn, key string) {
		t.Helper()
		arn, key, _ = strings.Cut(l.does(left), " ")
		if !strings.Contains(arn, "assumed-role/Deploy/") {
			t.Fatalf("%s min before the end: %s %s", left, arn, key)
		}
		return arn, key
	}
	l.does("exec python3 " + filepath.Join(r.home, "client.py") + " " + r.aws.URL) // it is ready
	_, first := ask("60")
	pid := r.daemonPID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the daemon is gone", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
	// It would like another session, and can do without.
	if _, key := ask("12"); key != first {
		t.Errorf("without a daemon it has %s, not %s", key, first)
	}
	if out, err := r.command("gatepass", "daemon", "start").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, second := ask("0")
	if second == first {
		t.Error("it has no new session")
	}
	l.stdin.Close()
	l.cmd.Wait()
	until(t, "the end is recorded", func() bool { return r.entries(t, "lease.ended") == 1 })
	if out, err := r.command("gatepass", "audit", "verify").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// A daemon that comes back without the passphrase of its file keychain serves
// a lease again once somebody outside has opened it.
func TestLeaseAfterARestartWithoutPassphrase(t *testing.T) {
	r := newRealm(t)
	l := r.begin(t)
	gosdk := "SANDBOX=" + r.aws.URL + " " + filepath.Join(r.bin, "gosdk") + ` 2>&1 | tr "\n" " "; echo`
	if got := l.does(gosdk); !strings.Contains(got, "assumed-role/Deploy/") {
		t.Fatal(got)
	}
	r.setenv("GATEPASS_FILE_PASSPHRASE=")
	r.restart(t)
	if got := l.does(gosdk); !strings.Contains(got, "keychain_locked") {
		t.Errorf("locked: %s", got)
	}
	p := r.onTerminal(t, "keys", "list")
	p.unseen("passphrase of the file keychain", "correct horse")
	p.exits(0)
	if got := l.does(gosdk); !strings.Contains(got, "assumed-role/Deploy/") {
		t.Errorf("open again: %s", got)
	}
}
