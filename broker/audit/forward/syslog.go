package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// A syslogSink sends RFC 5424 messages whose MSG is the entry.
//
// Over TCP and TLS every batch has a connection of its own. The protocols have
// no acknowledgement, and what is in a connection's buffers when a server dies
// is lost without a sign. But a server that has read everything closes the
// connection in order, once we have closed our half; one that died with
// something unread resets it. So the end of the connection is the
// acknowledgement. (RFC 5425, section 4.4, has both sides say close_notify.)
type syslogSink struct {
	to   Destination
	host string
	dial net.Dialer
}

func newSyslog(d Destination, host string) (sink, error) {
	if d.protocol == syslogTLS {
		if _, err := d.tlsConfig(); err != nil {
			return nil, err
		}
	}
	return &syslogSink{to: d, host: headerField(host, 255)}, nil
}

const (
	syslogFacility = 10 // authpriv
	syslogWarning  = 4
	syslogInfo     = 6
)

// appendMessage appends the entry as RFC 5424, section 6 has it. MSG is
// without a BOM, which readers of JSON would stumble over.
func (s *syslogSink) appendMessage(b []byte, r record) []byte {
	severity := syslogInfo
	if r.bad() {
		severity = syslogWarning
	}
	b = fmt.Appendf(b, "<%d>1 %s %s gatepass - %s - ", syslogFacility*8+severity,
		r.entry.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), s.host, headerField(string(r.entry.Kind), 32))
	return append(b, r.raw...)
}

// headerField is s as a field of the header: printable ASCII, not empty.
func headerField(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}

func (s *syslogSink) rest(n int, full bool) time.Duration {
	if s.to.protocol == syslogUDP {
		return time.Duration(n) * time.Millisecond // nothing tells of a receiver that cannot keep up
	}
	return restAfter(full)
}

func (s *syslogSink) send(ctx context.Context, batch []record) error {
	if s.to.protocol == syslogUDP {
		return s.sendDatagrams(ctx, batch)
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var frames, message []byte
	for _, r := range batch {
		message = s.appendMessage(message[:0], r)
		frames = append(append(strconv.AppendInt(frames, int64(len(message)), 10), ' '), message...) // RFC 6587, 3.4.1
	}
	if _, err := conn.Write(frames); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, io.LimitReader(conn, maxAnswer+1))
	if err == nil && n > maxAnswer {
		err = errors.New("it talks, as no syslog server does")
	}
	if err != nil {
		return fmt.Errorf("the server did not take all: %w", err)
	}
	return nil
}

// maxAnswer is how much a server may say, in bytes. It has nothing to say.
const maxAnswer = 64 << 10

// A halfCloser is a connection whose one direction can be closed.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

func (s *syslogSink) connect(ctx context.Context) (halfCloser, error) {
	if s.to.protocol == syslogTCP {
		conn, err := s.dial.DialContext(ctx, "tcp", s.to.host)
		if err != nil {
			return nil, err
		}
		return conn.(*net.TCPConn), nil
	}
	cfg, err := s.to.tlsConfig()
	if err != nil {
		return nil, err
	}
	conn, err := (&tls.Dialer{NetDialer: &s.dial, Config: cfg}).DialContext(ctx, "tcp", s.to.host)
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), nil
}

// refusalTime is how long to listen for an ICMP error: over loopback it comes
// at once, and further away it may not come at all.
const refusalTime = 50 * time.Millisecond

func (s *syslogSink) sendDatagrams(ctx context.Context, batch []record) error {
	conn, err := s.dial.DialContext(ctx, "udp", s.to.host)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var message []byte
	for _, r := range batch {
		message = s.appendMessage(message[:0], r)
		if _, err := conn.Write(message); err != nil {
			return err
		}
	}
	conn.SetReadDeadline(time.Now().Add(refusalTime))
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return ctx.Err()
}
