package endpoint

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gatepass/broker"
)

// A lease is one that is served, on a port of its own and by an http.Server of
// its own, so that nothing of it can be reached by way of another's.
type lease struct {
	Endpoint
	server   *Server
	serving  bool // serve runs; Server.mu guards it
	listener net.Listener
	http     *http.Server
	done     chan struct{} // closed when serve has returned

	hosts [2]string // that a request may be for
	token []byte    // a container's
	key   []byte    // what the tokens of IMDS are made with
	role  string    // as it stands in a path of IMDS

	ended                       atomic.Pointer[broker.Error] // what every request gets from now on
	refusals                    damper                       // of all kinds, to the Logger
	foreign, late, unauthorized damper                       // to the audit log: of other users, after the end, without the token or from a browser
	clients                     clients

	mu    sync.Mutex // guards conns
	conns map[*conn]struct{}
}

func newLease(s *Server, e Endpoint) *lease {
	l := &lease{
		Endpoint: e, server: s, done: make(chan struct{}),
		key: make([]byte, 32), role: roleName(e.Role),
		conns: make(map[*conn]struct{}), clients: newClients(),
	}
	rand.Read(l.key)
	return l
}

// open listens and writes the token.
func (l *lease) open() (err error) {
	if l.listener, err = listen(l.Port); errors.Is(err, ErrPortTaken) {
		return broker.Errorf(broker.CodeDaemonUnreachable, "lease %s: open its port %d: %w", l.Lease, l.Port, err)
	} else if err != nil {
		return broker.Errorf(broker.CodeInternal, "lease %s: open a port for its SDKs: %w", l.Lease, err)
	}
	l.Port = l.listener.Addr().(*net.TCPAddr).Port
	for i, name := range [...]string{"127.0.0.1", "localhost"} {
		l.hosts[i] = net.JoinHostPort(name, strconv.Itoa(l.Port))
	}
	if l.Kind == Container {
		if l.token, err = writeToken(l.TokenFile); err != nil {
			l.listener.Close()
			return broker.Errorf(broker.CodeInternal, "lease %s: write the token for its SDKs: %w", l.Lease, err)
		}
	}
	var http1 http.Protocols
	http1.SetHTTP1(true) // what HTTP/2 keeps ready, for TLS alone, is a kilobyte
	l.http = &http.Server{
		Handler:        l,
		Protocols:      &http1,
		ReadTimeout:    l.server.patience,
		IdleTimeout:    idleTimeout,
		WriteTimeout:   writeTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       l.server.errorLog,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateActive {
				c.(*conn).spoke.Store(true)
			}
		},
		DisableGeneralOptionsHandler: true, // OPTIONS * is no exception
	}
	// net/http would give a connection that has not said anything 5 s more.
	l.http.RegisterOnShutdown(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for c := range l.conns {
			if !c.spoke.Load() {
				c.Conn.Close()
			}
		}
	})
	return nil
}

// portPatience is how long a port that is taken is tried again.
const portPatience = time.Second

// listen opens a port, 0 for any. One that is taken is tried again for a while:
// it may be the short connection of some program that happened to get it, or
// be held by a process which is about to end or to run another program.
func listen(port int) (net.Listener, error) {
	const inUse = syscall.Errno(10048) // Windows' WSAEADDRINUSE
	for giveUp := time.Now().Add(portPatience); ; time.Sleep(portPatience / 20) {
		ln, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, inUse) {
			return ln, err
		}
		if time.Now().After(giveUp) {
			return nil, ErrPortTaken
		}
	}
}

func (l *lease) serve() {
	defer close(l.done)
	if err := l.http.Serve(newGate(l)); !errors.Is(err, http.ErrServerClosed) {
		l.server.cfg.Logger.Error("a lease is served no more", "lease", l.Lease, "error", err)
	}
}

func (l *lease) close() {
	l.http.Close()
	<-l.done
	l.removeToken()
}

// discard is close for a lease that was never served.
func (l *lease) discard() {
	l.listener.Close()
	l.removeToken()
}

func (l *lease) removeToken() {
	if l.Kind != Container {
		return
	}
	if err := os.Remove(l.TokenFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		l.server.cfg.Logger.Warn("the token of an ended lease is left", "lease", l.Lease, "error", err)
	}
}

func (l *lease) shutdown(ctx context.Context) error {
	err := l.http.Shutdown(ctx)
	if err != nil {
		l.http.Close()
	}
	<-l.done
	return err
}
