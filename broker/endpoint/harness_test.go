package endpoint

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatepass/broker"
)

const (
	secretKey    = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	sessionToken = "IQoJb3JpZ2luX2VjEXAMPLETOKEN//////////wEaDGV1LXdlc3QtMSJHMEUCIQ=="
)

// A harness is a Server whose gate is the test's.
type harness struct {
	*Server
	log *buffer
	dir string

	mu     sync.Mutex
	asked  []broker.Caller // at the gate
	lease  []string
	grant  broker.Grant
	err    error
	denied []denied              // that were to be recorded
	gate   func(context.Context) // called on the way, if not nil
	now    time.Time
	boot   time.Duration
}

// A denied is a refusal that was to be recorded.
type denied struct {
	lease  string
	caller broker.Caller
	why    error
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newHarness(t testing.TB) *harness {
	h := &harness{log: &buffer{}, dir: t.TempDir(), now: time.Now()}
	h.grant = session(h.now.Add(time.Hour))
	h.Server = New(Config{
		Credentials: h.credentials,
		Refused:     h.refused,
		Describe:    describe,
		Clock:       broker.Clock{Now: func() time.Time { h.mu.Lock(); defer h.mu.Unlock(); return h.now }, Boot: func() time.Duration { h.mu.Lock(); defer h.mu.Unlock(); return h.boot }},
		Logger:      slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		h.wantFree(t)
		log := h.log.String()
		for _, secret := range []string{secretKey, sessionToken} {
			if strings.Contains(log, secret) {
				t.Errorf("a secret is in the log: %s", log)
			}
		}
	})
	return h
}

// wantFree waits until all connections have given their places back.
func (h *harness) wantFree(t testing.TB) {
	t.Helper()
	for giveUp := time.Now().Add(10 * time.Second); len(h.places) > 0; runtime.Gosched() {
		if time.Now().After(giveUp) {
			t.Fatalf("%d connections have not given their places back", len(h.places))
		}
	}
}

func session(expires time.Time) broker.Grant {
	return broker.Grant{
		Profile: "ops", SessionID: "s-7f3k2", Region: "eu-west-1",
		Credentials: broker.Credentials{
			AccessKeyID: "ASIAIOSFODNN7EXAMPLE", SecretAccessKey: broker.NewSecret(secretKey),
			SessionToken: broker.NewSecret(sessionToken), Expires: expires, AccountID: "111122223333",
		},
	}
}

// describe is a small one that knows the process's program.
func describe(pid int) (broker.Caller, error) {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return broker.Caller{UID: os.Geteuid(), PID: pid, Exe: exe, Resolved: true, Ancestors: []broker.Process{{PID: 1}}}, err
}

func (h *harness) credentials(ctx context.Context, lease string, caller broker.Caller) (broker.Grant, error) {
	h.mu.Lock()
	h.asked, h.lease = append(h.asked, caller), append(h.lease, lease)
	gate := h.gate
	h.mu.Unlock()
	if gate != nil {
		gate(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.grant, h.err
}

func (h *harness) refused(_ context.Context, lease string, caller broker.Caller, why error) {
	h.set(func() { h.denied = append(h.denied, denied{lease, caller, why}) })
}

func (h *harness) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// calls returns who asked at the gate since calls was last called.
func (h *harness) calls() (asked []broker.Caller) {
	h.set(func() { asked, h.asked, h.lease = h.asked, nil, nil })
	return asked
}

// A served lease.
type served struct {
	h     *harness
	lease string
	port  int
	file  string
}

func (h *harness) open(t testing.TB, kind string) *served {
	t.Helper()
	return h.openAs(t, Endpoint{Lease: "l-" + kind, Kind: kind, Role: "Deploy", Account: "111122223333", Region: "eu-west-1"})
}

func (h *harness) openAs(t testing.TB, e Endpoint) *served {
	t.Helper()
	e.TokenFile = filepath.Join(h.dir, e.Lease)
	if e.Root.PID == 0 {
		e.Root = broker.ProcessID{PID: os.Getpid(), Start: startOf(t, os.Getpid())}
	}
	port, err := h.Open(e)
	if err != nil {
		t.Fatal(err)
	}
	return &served{h: h, lease: e.Lease, port: port, file: e.TokenFile}
}

// startOf reads when a process started, 0 where that is not to be read.
func startOf(t testing.TB, pid int) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	start, err := strconv.ParseUint(strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[19], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return start
}

func (s *served) host() string { return fmt.Sprintf("Host: 127.0.0.1:%d\r\n", s.port) }
func (s *served) url() string  { return fmt.Sprintf("http://127.0.0.1:%d/", s.port) }

func (s *served) token(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// raw sends a request as it is written and returns all that comes back until
// the connection is closed.
func (s *served) raw(t testing.TB, request string) string {
	t.Helper()
	answer, err := exchange(s.port, request)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func exchange(port int, request string) (string, error) {
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	if len(answer) > 0 {
		return string(answer), nil // a reset may follow
	}
	return "", err
}

// get is a request that container serves.
func (s *served) get(t testing.TB) string {
	return "GET / HTTP/1.1\r\n" + s.host() + "Authorization: " + s.token(t) + "\r\nConnection: close\r\n\r\n"
}

// imdsToken gets a token of IMDS.
func (s *served) imdsToken(t testing.TB) string {
	t.Helper()
	answer := s.raw(t, "PUT /latest/api/token HTTP/1.1\r\n"+s.host()+"X-aws-ec2-metadata-token-ttl-seconds: 60\r\nConnection: close\r\n\r\n")
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	if !strings.HasPrefix(head, "HTTP/1.1 200 ") || !strings.Contains(head, "X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 60\r\n") {
		t.Fatal(answer)
	}
	return body
}

const rolePath = "/latest/meta-data/iam/security-credentials/Deploy"

func (s *served) imdsGet(token, path string) string {
	return "GET " + path + " HTTP/1.1\r\n" + s.host() + "X-aws-ec2-metadata-token: " + token + "\r\nConnection: close\r\n\r\n"
}
