package door

import (
	"net"
	"path/filepath"
	"testing"
)

// pair returns both ends of a connection through a socket's file.
func pair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("unix", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

// A request on a connection whose caller has asked before.
func BenchmarkCallerAgain(b *testing.B) {
	ps := newProcesses()
	server, _ := pair(b)
	p, err := ps.peer(server)
	if err != nil {
		b.Fatal(err)
	}
	defer p.close()
	c, err := p.caller()
	if err != nil || !c.Resolved {
		b.Fatalf("%+v, %v", c, err)
	}
	b.ReportAllocs()
	start := cpuTime(b)
	for b.Loop() {
		if _, err := p.caller(); err != nil {
			b.Fatal(err)
		}
	}
	reportCPU(b, start)
	b.ReportMetric(float64(len(c.Ancestors)), "ancestors")
}

// The first request of a new connection: its process is looked at as a whole,
// the ones above it are known from the connection before.
func BenchmarkCallerNewConnection(b *testing.B) {
	benchmarkNewConnection(b, func(*processes) {})
}

// The first request of all.
func BenchmarkCallerFirst(b *testing.B) {
	benchmarkNewConnection(b, (*processes).close)
}

func benchmarkNewConnection(b *testing.B, before func(*processes)) {
	ps := newProcesses()
	server, _ := pair(b)
	var ancestors int
	b.ReportAllocs()
	start := cpuTime(b)
	for b.Loop() {
		before(ps)
		p, err := ps.peer(server)
		if err != nil {
			b.Fatal(err)
		}
		c, err := p.caller()
		if err != nil || !c.Resolved {
			b.Fatalf("%+v, %v", c, err)
		}
		ancestors = len(c.Ancestors)
		p.close()
	}
	reportCPU(b, start)
	b.ReportMetric(float64(ancestors), "ancestors")
}
