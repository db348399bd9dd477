package ststest

import (
	"io"
	"log"
	"net/http/httptest"
)

// A Server is a [Sandbox] that listens on a loopback port. URL is its
// endpoint; for [NewTLSServer], Certificate is what clients must trust.
type Server struct {
	*Sandbox
	*httptest.Server
}

// TB is the part of [testing.TB] that the constructors need.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// NewServer starts a Sandbox that ends with the test.
func NewServer(t TB, config Config) *Server {
	t.Helper()
	return newServer(t, config, (*httptest.Server).Start)
}

// NewTLSServer is NewServer over TLS, with a certificate for 127.0.0.1 and
// example.com.
func NewTLSServer(t TB, config Config) *Server {
	t.Helper()
	return newServer(t, config, (*httptest.Server).StartTLS)
}

func newServer(t TB, config Config, start func(*httptest.Server)) *Server {
	t.Helper()
	s, err := New(config)
	if err != nil {
		t.Fatalf("ststest: %v", err)
		return nil
	}
	h := httptest.NewUnstartedServer(s)
	h.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that tests make fail
	start(h)
	t.Cleanup(func() {
		h.CloseClientConnections() // or a Slow fault holds Close up
		h.Close()
	})
	return &Server{Sandbox: s, Server: h}
}
