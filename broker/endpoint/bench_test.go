package endpoint

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatepass/broker"
)

func benchServer(b testing.TB) *Server {
	grant := session(time.Now().Add(time.Hour))
	s := New(Config{
		Credentials: func(context.Context, string, broker.Caller) (broker.Grant, error) { return grant, nil },
		Refused:     func(context.Context, string, broker.Caller, error) {},
		Describe:    describe,
		Clock:       broker.Clock{Now: time.Now, Boot: func() time.Duration { return time.Hour }},
		Logger:      slog.New(slog.DiscardHandler),
	})
	b.Cleanup(func() { s.Shutdown(context.Background()) })
	return s
}

func benchOpen(b testing.TB, s *Server, e Endpoint) *served {
	b.Helper()
	e.TokenFile = filepath.Join(b.TempDir(), "token")
	e.Root = broker.ProcessID{PID: os.Getpid(), Start: startOf(b, os.Getpid())}
	port, err := s.Open(e)
	if err != nil {
		b.Fatal(err)
	}
	return &served{port: port, file: e.TokenFile}
}

// Hand-outs by 32 keep-alive connections, with a gate that costs nothing;
// client and server share the machine.
func BenchmarkContainer(b *testing.B) {
	s := benchOpen(b, benchServer(b), Endpoint{Lease: "l-1", Kind: Container})
	benchmarkConnections(b, s.port, strings.Replace(s.get(b), "Connection: close\r\n", "", 1), 32)
}

func BenchmarkIMDS(b *testing.B) {
	s := benchOpen(b, benchServer(b), Endpoint{Lease: "l-1", Kind: IMDS, Role: "Deploy"})
	benchmarkConnections(b, s.port, strings.Replace(s.imdsGet(s.imdsToken(b), rolePath), "Connection: close\r\n", "", 1), 32)
}

func benchmarkConnections(b *testing.B, port int, request string, n int) {
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan error, n)
	b.ReportAllocs()
	b.ResetTimer()
	for range n {
		go func() { done <- ask(port, []byte(request), &left) }()
	}
	for range n {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// ask is a client that costs as little as one in Go can.
func ask(port int, request []byte, left *atomic.Int64) error {
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for left.Add(-1) >= 0 {
		if _, err := c.Write(request); err != nil {
			return err
		}
		length := 0
		for first := true; ; first = false {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return err
			}
			if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
				rest, _ := io.ReadAll(io.LimitReader(r, 1000))
				return fmt.Errorf("%s%s", line, rest)
			}
			if after, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
				length, _ = strconv.Atoi(strings.TrimSpace(after))
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := r.Discard(length); err != nil {
			return err
		}
	}
	return nil
}

// A hand-out on a connection of its own, as SDKs make them: with whose it is,
// and which process's.
func BenchmarkConnection(b *testing.B) {
	s := benchOpen(b, benchServer(b), Endpoint{Lease: "l-1", Kind: Container})
	request := s.get(b)
	for b.Loop() {
		if answer := s.raw(b, request); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
			b.Fatal(answer)
		}
	}
}

// What leases cost while nobody asks: their ports, tokens and goroutines.
func TestThousandLeases(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs memory of its own")
	}
	const n = 1000
	s, dir := benchServer(t), t.TempDir()
	before := memory()
	for i := range n {
		e := Endpoint{Lease: fmt.Sprint(i), Kind: []string{Container, IMDS}[i%2], TokenFile: filepath.Join(dir, fmt.Sprint(i)), Role: "Deploy"}
		if _, err := s.Open(e); errors.Is(err, syscall.EMFILE) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	used := float64(memory()-before) / (1 << 20)
	t.Logf("%d leases take %.1f MiB", n, used)
	if used > 12 {
		t.Errorf("%d leases take %.1f MiB", n, used)
	}
}

// memory is what the program has in use: heap and stacks.
func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
