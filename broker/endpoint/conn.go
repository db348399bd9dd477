package endpoint

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"gatepass/broker"
)

// A gate lets in as many connections as there are places, the lease's own and
// those that all leases share. The others wait and are not refused.
type gate struct {
	net.Listener
	lease  *lease
	places chan struct{} // one element for each open connection of the lease
	closed chan struct{}
	close  sync.Once

	foreign atomic.Int32 // open connections that are not our user's
}

func newGate(l *lease) *gate {
	return &gate{Listener: l.listener, lease: l, places: make(chan struct{}, maxLeaseConns), closed: make(chan struct{})}
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		select {
		case g.places <- struct{}{}:
		case <-g.closed:
			return nil, net.ErrClosed
		}
		inner, err := g.Listener.Accept()
		if err != nil {
			<-g.places
			return nil, err
		}
		select {
		case g.lease.server.places <- struct{}{}:
		case <-g.closed:
			inner.Close()
			<-g.places
			return nil, net.ErrClosed
		}
		if c := g.admit(inner); c != nil {
			return c, nil
		}
	}
}

// admit returns nil when too many connections are another user's, who would
// otherwise keep out our own by holding all places.
func (g *gate) admit(inner net.Conn) *conn {
	c := &conn{Conn: inner, gate: g}
	if c.socket, c.uid, c.refused = g.lease.server.kernel.client(inner); c.refused != nil {
		c.foreign = true
		if g.foreign.Add(1) > maxForeign {
			c.Close()
			return nil
		}
	}
	g.lease.mu.Lock()
	defer g.lease.mu.Unlock()
	g.lease.conns[c] = struct{}{}
	return c
}

func (g *gate) Close() error {
	var err error = net.ErrClosed
	g.close.Do(func() {
		close(g.closed)
		err = g.Listener.Close()
	})
	return err
}

// connKey is the context key of a request's *conn.
type connKey struct{}

// A conn is a connection with who is at its other end. What follows spoke is
// the goroutine's that serves it.
type conn struct {
	net.Conn
	gate    *gate
	socket  socket        // the other end's
	uid     int           // whose that is, -1 where that is not known
	refused *broker.Error // why it is not served
	foreign bool
	close   sync.Once
	spoke   atomic.Bool // has sent the beginning of a request

	holder holder // of socket, as last found
	caller broker.Caller
	looked time.Time // when caller was made; zero before
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.close.Do(func() {
		g := c.gate
		g.lease.mu.Lock()
		delete(g.lease.conns, c)
		g.lease.mu.Unlock()
		if c.foreign {
			g.foreign.Add(-1)
		}
		<-g.lease.server.places
		<-g.places
	})
	return err
}
