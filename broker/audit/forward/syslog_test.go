package forward

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatepass/broker/audit"
)

// A certificates directory has an authority, and a certificate and key for
// 127.0.0.1 that both ends use.
type certificates struct{ ca, cert, key string }

func newCertificates(t *testing.T) certificates {
	t.Helper()
	dir := t.TempDir()
	put := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey, ownKey := key(), key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	own := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	ownDER, err := x509.CreateCertificate(rand.Reader, own, ca, ownKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(ownKey)
	if err != nil {
		t.Fatal(err)
	}
	return certificates{put("ca.pem", "CERTIFICATE", caDER), put("cert.pem", "CERTIFICATE", ownDER), put("key.pem", "PRIVATE KEY", keyDER)}
}

// server is the TLS configuration of the other end, which asks for a
// certificate too.
func (c certificates) server(t *testing.T) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(c.ca)
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}
}

// A receiver listens, and does with each connection what serve says.
type receiver struct {
	addr string
	mu   sync.Mutex
	got  []string // messages
}

func (r *receiver) add(msg string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, msg)
}

func (r *receiver) messages() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.got...)
}

func receive(t *testing.T, cfg *tls.Config, serve func(r *receiver, n int, conn net.Conn)) *receiver {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{addr: l.Addr().String()}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				if cfg != nil {
					conn = tls.Server(conn, cfg)
					defer conn.Close()
				}
				serve(r, n, conn)
			})
		}
	})
	return r
}

// readFrame reads a message as RFC 6587, section 3.4.1 counts it.
func readFrame(in *bufio.Reader) (string, error) {
	digits, err := in.ReadString(' ')
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(digits, " "))
	if err != nil {
		return "", err
	}
	msg := make([]byte, n)
	_, err = io.ReadFull(in, msg)
	return string(msg), err
}

func readAll(r *receiver, _ int, conn net.Conn) {
	for in := bufio.NewReader(conn); ; {
		msg, err := readFrame(in)
		if err != nil {
			return
		}
		r.add(msg)
	}
}

// rfc5424 is a message of ours as section 6 has it.
var rfc5424 = regexp.MustCompile(`^<(86|84)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z laptop gatepass - (credentials\.served|request\.denied) - (\{.*\})$`)

func entriesIn(t *testing.T, messages []string) (entries []string) {
	t.Helper()
	for _, m := range messages {
		parts := rfc5424.FindStringSubmatch(m)
		if parts == nil {
			t.Fatalf("not a message: %.300s", m)
		}
		if e, err := audit.ParseEntry([]byte(parts[3])); err != nil || string(e.Kind) != parts[2] || (parts[1] == "84") != (e.Outcome == "denied") {
			t.Fatalf("%v: %.300s", err, m)
		}
		entries = append(entries, parts[3])
	}
	return entries
}

func TestSyslogTCPAndTLS(t *testing.T) {
	c := newCertificates(t)
	for _, tt := range []struct {
		name string
		cfg  *tls.Config
		url  string
	}{
		{"tcp", nil, "syslog+tcp://%s"},
		{"tls", c.server(t), "syslog+tls://%s?ca=" + c.ca + "&cert=" + c.cert + "&key=" + c.key},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := receive(t, tt.cfg, readAll)
			l, dir := newLog(t, audit.Options{})
			f := running(t, quick(dir, &memory{}), fmt.Sprintf(tt.url, r.addr))
			write(t, l, 700)
			atEnd(t, f, l)
			if seams := inOrder(t, entriesIn(t, r.messages()), lines(t, dir)); seams > 0 {
				t.Errorf("it went back %d times", seams)
			}
		})
	}
}

// A server that dies with something unread, or that reads a part, has taken
// nothing; one that says nothing is given up.
func TestSyslogServersThatFail(t *testing.T) {
	c := newCertificates(t)
	reset := func(conn net.Conn) {
		if tc, ok := conn.(*tls.Conn); ok {
			tc.Handshake()
			conn = tc.NetConn()
		}
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	part := func(r *receiver, conn net.Conn) {
		in := bufio.NewReader(conn)
		for range 5 {
			msg, err := readFrame(in)
			if err != nil {
				return
			}
			r.add(msg)
		}
	}
	for name, fail := range map[string]func(*receiver, net.Conn){
		"resets at once":      func(_ *receiver, conn net.Conn) { reset(conn) },
		"resets after a part": func(r *receiver, conn net.Conn) { part(r, conn); reset(conn) },
		"hangs after a part":  func(r *receiver, conn net.Conn) { part(r, conn); time.Sleep(300 * time.Millisecond); reset(conn) },
		"hangs at once":       func(r *receiver, conn net.Conn) { time.Sleep(300 * time.Millisecond); reset(conn) },
	} {
		for protocol, url := range map[string]string{"tcp": "syslog+tcp://%s", "tls": "syslog+tls://%s?ca=" + c.ca + "&cert=" + c.cert + "&key=" + c.key} {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				t.Parallel()
				var cfg *tls.Config
				if protocol == "tls" {
					cfg = c.server(t)
				}
				r := receive(t, cfg, func(r *receiver, n int, conn net.Conn) {
					if n < 3 {
						fail(r, conn)
						return
					}
					readAll(r, n, conn)
				})
				l, dir := newLog(t, audit.Options{})
				write(t, l, 200)
				config := quick(dir, &memory{})
				config.timeout = 100 * time.Millisecond
				if protocol == "tls" {
					config.timeout = 200 * time.Millisecond // a handshake is in it
				}
				f := running(t, config, fmt.Sprintf(url, r.addr))
				atEnd(t, f, l)
				inOrder(t, entriesIn(t, r.messages()), lines(t, dir))
			})
		}
	}
}

// The end of what a server says is its acknowledgement, so one that does not
// end has acknowledged nothing.
func TestSyslogServerThatTalks(t *testing.T) {
	r := receive(t, nil, func(_ *receiver, _ int, conn net.Conn) {
		conn.Write(make([]byte, 2*maxAnswer))
		<-t.Context().Done()
	})
	d, err := Parse("syslog+tcp://" + r.addr)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSyslog(d, "laptop")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.send(t.Context(), records(t, 3)); err == nil {
		t.Error("it has read nothing, and it counts as sent")
	}
}

// Whom a certificate does not name is told nothing.
func TestSyslogTLSRefusesStrangers(t *testing.T) {
	c, other := newCertificates(t), newCertificates(t)
	r := receive(t, c.server(t), readAll)
	for name, options := range map[string]string{
		"another authority":     "?ca=" + other.ca + "&cert=" + c.cert + "&key=" + c.key,
		"the system's":          "?cert=" + c.cert + "&key=" + c.key,
		"no certificate":        "?ca=" + c.ca,
		"another's certificate": "?ca=" + c.ca + "&cert=" + other.cert + "&key=" + other.key,
	} {
		d, err := Parse("syslog+tls://" + r.addr + options)
		if err != nil {
			t.Fatal(err)
		}
		s, err := newSyslog(d, "laptop")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.send(context.Background(), records(t, 3)); err == nil {
			t.Errorf("%s: it was sent", name)
		}
	}
	if got := r.messages(); len(got) > 0 {
		t.Errorf("%d messages arrived", len(got))
	}
}

func TestSyslogUDP(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	pc.(*net.UDPConn).SetReadBuffer(4 << 20)
	batch := records(t, 40)
	d, err := Parse("syslog+udp://" + pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSyslog(d, "laptop")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.send(context.Background(), batch); err != nil {
		t.Fatal(err)
	}
	var got []string
	buf := make([]byte, 64<<10)
	for range batch {
		pc.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, _, err := pc.ReadFrom(buf)
		if err != nil {
			t.Fatalf("%d arrived: %v", len(got), err)
		}
		got = append(got, string(buf[:n]))
	}
	for i, e := range entriesIn(t, got) {
		if e != string(batch[i].raw) {
			t.Errorf("datagram %d is %.200s", i, e)
		}
	}
	pc.Close() // from now on the kernel refuses
	if err := s.send(context.Background(), batch[:1]); err == nil {
		t.Error("nobody listens, and it was sent")
	}
}

func TestHeaderField(t *testing.T) {
	for in, want := range map[string]string{"": "-", "lap top\n": "laptop", "é": "-", strings.Repeat("a", 40): strings.Repeat("a", 32)} {
		if got := headerField(in, 32); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
