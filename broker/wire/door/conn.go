package door

import (
	"net"
	"sync"
	"sync/atomic"
)

// A gate lets in as many connections as there are places. The others stay in
// the socket's queue, where they wait and are not refused.
type gate struct {
	net.Listener
	server *Server
	places chan struct{} // one element for each open connection
	closed chan struct{}
	close  sync.Once
}

func (g *gate) Accept() (net.Conn, error) {
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
	c := &conn{Conn: inner, leave: func() { <-g.places }, server: g.server}
	c.peer, c.peerErr = g.server.processes.peer(inner)
	g.server.mu.Lock()
	g.server.conns[c] = struct{}{}
	g.server.mu.Unlock()
	return c, nil
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

// A conn is a connection with who is at its other end.
type conn struct {
	net.Conn
	server  *Server
	peer    *peer // nil with peerErr
	peerErr error
	spoke   atomic.Bool // has sent the beginning of a request
	leave   func()
	close   sync.Once
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.close.Do(func() {
		if c.peer != nil {
			c.peer.close()
		}
		c.server.mu.Lock()
		delete(c.server.conns, c)
		c.server.mu.Unlock()
		c.leave()
	})
	return err
}
