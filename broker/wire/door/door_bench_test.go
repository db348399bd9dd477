//go:build unix

package door

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatepass/broker"
)

// Hand-outs over the socket by 32 keep-alive connections, with a gate that
// costs nothing; client and server share the
// machine.
func BenchmarkCredentials(b *testing.B) {
	h := serve(b, func(s *Server) {
		s.cfg.Logger = slog.New(slog.DiscardHandler)
		s.cfg.Broker = benchBroker{}
	})
	benchmarkConnections(b, h.socket, 32)
}

type benchBroker struct{ Broker }

func (benchBroker) Credentials(context.Context, broker.Caller, broker.Request) (broker.Grant, error) {
	return benchGrant, nil
}

var benchGrant = grant()

func benchmarkConnections(b *testing.B, socket string, n int) {
	body := `{"profile":"ops","via":"credential-process","region":"eu-central-1"}`
	request := []byte(fmt.Sprintf("POST /v1/credentials HTTP/1.1\r\nHost: gatepass\r\nGatepass-Protocol: 1\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan error, n)
	b.ReportAllocs()
	start := cpuTime(b)
	b.ResetTimer()
	for range n {
		go func() { done <- ask(socket, request, &left) }()
	}
	for range n {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
	reportCPU(b, start)
}

// cpuTime is what this process used of all processors.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportCPU says what an operation costs whatever else the machine does.
func reportCPU(b *testing.B, start time.Duration) {
	b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
}

// ask is a client that costs as little as one in Go can.
func ask(socket string, request []byte, left *atomic.Int64) error {
	c, err := net.Dial("unix", socket)
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
