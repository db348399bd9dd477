package door

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/profiles"
)

// fakeBroker answers with what its functions say, and notes what it was
// asked.
type fakeBroker struct {
	credentials func(context.Context, broker.Caller, broker.Request) (broker.Grant, error)
	status      func() (broker.Status, error)
	wall        error // what Outside says
	own         broker.LeaseStatus

	mu      sync.Mutex
	callers []broker.Caller
	asked   []any
}

func (f *fakeBroker) note(c broker.Caller, what any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.callers, f.asked = append(f.callers, c), append(f.asked, what)
}

func (f *fakeBroker) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func (f *fakeBroker) Credentials(ctx context.Context, c broker.Caller, r broker.Request) (broker.Grant, error) {
	f.note(c, r)
	if f.credentials != nil {
		return f.credentials(ctx, c, r)
	}
	return grant(), nil
}

func (f *fakeBroker) WhoAmI(_ context.Context, c broker.Caller, r broker.Request) (broker.IdentityDetail, error) {
	f.note(c, r)
	return broker.IdentityDetail{
		Identity: broker.Identity{Account: "111122223333", ARN: "arn:aws:sts::111122223333:assumed-role/Ops/alice-s1", UserID: "AROA:alice-s1"},
		Groups:   []string{"developers"},
	}, nil
}

func (f *fakeBroker) AddKey(_ context.Context, c broker.Caller, k broker.NewKey) (broker.KeyInfo, error) {
	f.note(c, k)
	return broker.KeyInfo{Name: k.Name, AccessKeyID: k.AccessKeyID}, nil
}

func (f *fakeBroker) Keys(_ context.Context, c broker.Caller, how broker.Reachable) ([]broker.KeyState, error) {
	f.note(c, how)
	return nil, nil
}

func (f *fakeBroker) RotateKey(_ context.Context, c broker.Caller, r broker.RotateRequest) (broker.Rotated, error) {
	f.note(c, r)
	return broker.Rotated{KeyInfo: broker.KeyInfo{Name: r.Name}, Old: "AKIAOLD0000000000001"}, nil
}

func (f *fakeBroker) RemoveKey(_ context.Context, c broker.Caller, name string, _ broker.Reachable) error {
	f.note(c, name)
	return broker.Errorf(broker.CodeNotFound, "there is no key %q", name).WithHint("gatepass keys list")
}

func (f *fakeBroker) AWSVaultKeys(_ context.Context, c broker.Caller, at broker.AWSVault) ([]string, error) {
	f.note(c, at)
	return nil, nil
}

func (f *fakeBroker) ImportKey(_ context.Context, c broker.Caller, at broker.AWSVault, name, region string, how broker.Reachable) (broker.ImportedKey, error) {
	f.note(c, []any{at, name, region, how})
	return broker.ImportedKey{KeyInfo: broker.KeyInfo{Name: name, AccessKeyID: "AKIAIOSFODNN7EXAMPLE"}, Already: true}, nil
}

func (f *fakeBroker) RemoveImported(_ context.Context, c broker.Caller, at broker.AWSVault, name string, how broker.Reachable) error {
	f.note(c, []any{at, name, how})
	return nil
}

func (f *fakeBroker) Status(context.Context) (broker.Status, error) {
	f.note(broker.Caller{}, "status")
	if f.status != nil {
		return f.status()
	}
	return broker.Status{Daemon: broker.DaemonStatus{PID: 1, Version: "test"}}, nil
}

func (f *fakeBroker) Glance(context.Context) (broker.Status, error) {
	f.note(broker.Caller{}, "glance")
	return broker.Status{Daemon: broker.DaemonStatus{PID: 1, Version: "test"}}, nil
}

func (f *fakeBroker) ListProfiles(_ context.Context, c broker.Caller, files profiles.Files) (broker.ProfileList, error) {
	f.note(c, files)
	return broker.ProfileList{Profiles: []broker.ProfileInfo{}}, nil
}

func (f *fakeBroker) ShowProfile(_ context.Context, c broker.Caller, files profiles.Files, name string) (broker.ProfileDetail, error) {
	f.note(c, []any{files, name})
	return broker.ProfileDetail{ProfileInfo: broker.ProfileInfo{Name: name}}, nil
}

func (f *fakeBroker) Begin(_ context.Context, c broker.Caller, r broker.LeaseRequest) (broker.LeaseGrant, error) {
	f.note(c, r)
	g := broker.LeaseGrant{
		Lease:  broker.Lease{ID: "l-7f3k2m9qxd", Profiles: append([]string{r.Profile}, r.With...), Serve: cmp.Or(r.Serve, "container"), Port: 4711, Room: "/run/l-7f3k2m9qxd"},
		Region: "eu-central-1", Expires: time.Unix(2e9, 0), Renewable: true,
	}
	if g.Serve == "env" {
		g.Credentials, g.Renewable, g.Port = grant().Credentials, false, 0
	}
	return g, nil
}

func (f *fakeBroker) OwnLease(c broker.Caller) (broker.LeaseStatus, bool) {
	f.note(c, "own")
	return f.own, f.own.ID != ""
}

func (f *fakeBroker) Renew(_ context.Context, c broker.Caller, lease string, r broker.Request) (broker.LeaseStatus, error) {
	f.note(c, []any{lease, r})
	return broker.LeaseStatus{ID: lease}, nil
}

func (f *fakeBroker) End(_ context.Context, c broker.Caller, r broker.EndRequest) ([]string, error) {
	f.note(c, r)
	return r.Leases, nil
}

func (f *fakeBroker) Outside(context.Context, broker.Caller, string) error { return f.wall }

func (f *fakeBroker) PromptBeat(_ context.Context, c broker.Caller, id string) error {
	f.note(c, "beat "+id)
	return nil
}

func (f *fakeBroker) PromptAnswer(_ context.Context, c broker.Caller, id string, answer broker.Secret, why broker.Code) error {
	f.note(c, "answer "+id+" "+answer.Reveal()+string(why))
	return nil
}

const secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

func grant() broker.Grant {
	return broker.Grant{
		Credentials: broker.Credentials{
			AccessKeyID: "ASIAIOSFODNN7EXAMPLE", SecretAccessKey: broker.NewSecret(secret),
			SessionToken: broker.NewSecret(strings.Repeat("t", 700)), Expires: time.Unix(2e9, 0), AccountID: "111122223333",
		},
		Profile: "ops", Region: "eu-central-1", SessionID: "s-7f3k2m9qxd",
	}
}

// A harness is a server at its socket.
type harness struct {
	*Server
	broker *fakeBroker
	socket string
	log    *safeBuffer
	stops  chan broker.Caller
}

// safeBuffer is a log that a test reads while the server writes it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// serve starts a server; change, if not nil, has it before it serves.
func serve(t testing.TB, change func(*Server)) *harness {
	t.Helper()
	h := &harness{broker: new(fakeBroker), log: new(safeBuffer), stops: make(chan broker.Caller, 1), socket: socketPath(t)}
	h.Server = New(Config{
		Broker: h.broker,
		Stop:   func(c broker.Caller) { h.stops <- c },
		Logger: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if change != nil {
		change(h.Server)
	}
	ln, err := Listen(h.socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return h
}

// socketPath is a path short enough for a socket.
func socketPath(t testing.TB) string {
	dir, err := os.MkdirTemp("", "door")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "gatepass", "s.sock")
}

// raw sends bytes as they are and returns all that comes back.
func (h *harness) raw(t testing.TB, request string) string {
	t.Helper()
	c, err := net.Dial("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, request) // the server may close early
	b, err := io.ReadAll(c)
	if err != nil && len(b) == 0 {
		t.Fatalf("no answer: %v", err)
	}
	return string(b)
}
