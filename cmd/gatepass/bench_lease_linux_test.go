package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Hand-outs from a lease's container endpoint, each recorded by a real daemon,
// over 32 keep-alive connections, and in turns with them those of a server that
// does what aws-vault's does and records nothing. Clients and servers share the
// machine; daemon-µs/op and x-cpu leave the clients out.
func BenchmarkLeaseHandOuts(b *testing.B) {
	r := newRealm(b)
	ours := r.openLease(b)
	theirs, theirPID := bareEndpoint(b)
	pid := r.daemonPID()
	load(b, ours, 32, 2000) // connections, caches, the heap
	load(b, theirs, 32, 2000)
	var us, them time.Duration
	var ourCPU, theirCPU int
	const round = 5000
	b.ResetTimer()
	for left := b.N; left > 0; left -= round {
		n := min(left, round)
		before, beforeTheirs := cpuTicks(b, pid), cpuTicks(b, theirPID)
		us += load(b, ours, 32, n)
		them += load(b, theirs, 32, n)
		ourCPU += cpuTicks(b, pid) - before
		theirCPU += cpuTicks(b, theirPID) - beforeTheirs
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/us.Seconds(), "hand-outs/s")
	b.ReportMetric(float64(us.Nanoseconds())/float64(b.N), "ns/op")
	b.ReportMetric(float64(them)/float64(us), "x-bare")
	b.ReportMetric(float64(ourCPU)*1e4/float64(b.N), "daemon-µs/op")
	b.ReportMetric(float64(theirCPU)/float64(max(ourCPU, 1)), "x-bare-cpu")
}

// An sdkEndpoint is where an SDK gets its credentials.
type sdkEndpoint struct{ address, token string }

// openLease begins a lease that stands until the test ends.
func (r *realm) openLease(b *testing.B) sdkEndpoint {
	b.Helper()
	lease := r.command("gatepass", "exec", "deploy", "--", "sh", "-c",
		`echo $AWS_CONTAINER_CREDENTIALS_FULL_URI $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE; read -r _`)
	stdin, err := lease.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := lease.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	lease.Stderr = os.Stderr
	if err := lease.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stdin.Close(); lease.Wait() })
	var uri, file string
	if _, err := fmt.Fscanln(stdout, &uri, &file); err != nil {
		b.Fatal(err)
	}
	token, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	return sdkEndpoint{strings.TrimSuffix(strings.TrimPrefix(uri, "http://"), "/"), string(token)}
}

// load has connections ask n times together and returns how long that took.
func load(b *testing.B, e sdkEndpoint, connections, n int) time.Duration {
	b.Helper()
	request := fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\n\r\n", e.address, e.token)
	var left atomic.Int64
	left.Store(int64(n))
	var clients sync.WaitGroup
	start := time.Now()
	for range connections {
		clients.Go(func() {
			conn, err := net.Dial("tcp", e.address)
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
	return time.Since(start)
}

const bareEndpointName = "bare-endpoint"

func init() { standIns[bareEndpointName] = bareEndpointMain }

// bareEndpoint starts a server of credentials that are there.
func bareEndpoint(b *testing.B) (sdkEndpoint, int) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Args[0] = bareEndpointName
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stdin.Close(); cmd.Wait() })
	e := sdkEndpoint{token: strings.Repeat("t", 43)}
	if _, err := fmt.Fscanln(stdout, &e.address); err != nil {
		b.Fatal(err)
	}
	return e, cmd.Process.Pid
}

// bareEndpointMain serves as aws-vault exec --ecs-server does: it compares the
// token and encodes the credentials. It ends with its standard input.
func bareEndpointMain() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	token, expires := strings.Repeat("t", 43), time.Now().Add(time.Hour)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != token {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		json.NewEncoder(w).Encode(map[string]string{
			"AccessKeyId": "ASIAEXAMPLE000000001", "SecretAccessKey": strings.Repeat("s", 40), "Token": strings.Repeat("x", 400),
			"Expiration": expires.UTC().Format("2006-01-02T15:04:05Z"),
		})
	})
	go http.Serve(ln, mux)
	fmt.Println(ln.Addr())
	io.Copy(io.Discard, os.Stdin)
}

// What a fork storm inside one lease does to the hand-outs of another: 400
// processes that wait there, and two that fork without end, which go on and
// stand still in turns. x-quiet is what the processors that they take leave of
// the hand-outs; x-quiet-cpu is what each costs the daemon then, which must
// stay near 1.
func BenchmarkForkStorm(b *testing.B) {
	r := newRealm(b)
	other := r.openLease(b)
	storm := r.command("gatepass", "exec", "deploy", "--", "sh", "-c", `
		for i in $(seq 400); do sleep 1000 & done
		while :; do (:); done &
		while :; do (:); done &
		echo up
		read -r _ # until the test ends, however it does
		kill -KILL 0`)
	storm.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := storm.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := storm.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := storm.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stdin.Close()
		syscall.Kill(-storm.Process.Pid, syscall.SIGKILL)
		storm.Wait()
	})
	if _, err := fmt.Fscanln(stdout, new(string)); err != nil {
		b.Fatal(err)
	}
	pid := r.daemonPID()
	load(b, other, 32, 2000)
	const round = 5000
	var took [2]time.Duration
	var cpu [2]int
	for left := b.N; left > 0; left -= round {
		n := min(left, round)
		for i, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
			if err := syscall.Kill(-storm.Process.Pid, signal); err != nil {
				b.Fatal(err)
			}
			before := cpuTicks(b, pid)
			took[i] += load(b, other, 32, n)
			cpu[i] += cpuTicks(b, pid) - before
		}
	}
	b.ReportMetric(float64(took[1].Nanoseconds())/float64(b.N), "ns/op")
	b.ReportMetric(float64(b.N)/took[1].Seconds(), "hand-outs/s")
	b.ReportMetric(float64(took[0])/float64(took[1]), "x-quiet")
	b.ReportMetric(float64(cpu[1])/float64(max(cpu[0], 1)), "x-quiet-cpu")
}

// A thousand leases that stand in one daemon, each with a process, an endpoint
// and a session of its own: what the daemon holds before and then. ns/op is
// what it takes to begin one.
func BenchmarkThousandLeases(b *testing.B) {
	const n = 1000
	r := newRealm(b)
	if out, err := r.command("gatepass", "credential-process", "deploy").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	pid := r.daemonPID()
	idle := residentMiB(b, pid)
	for b.Loop() {
		for range n {
			r.openLease(b)
		}
	}
	b.ReportMetric(idle, "idle-MiB")
	b.ReportMetric(residentMiB(b, pid), "resident-MiB")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n/float64(b.N), "ns/op")
}
