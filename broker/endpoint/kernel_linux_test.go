package endpoint

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// pair returns both ends of a connection, the client's from a socket of the
// family.
func pair(t testing.TB, family int) (server, client *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no socket of family %d: %v", family, err)
	}
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	if family == unix.AF_INET6 {
		to = &unix.SockaddrInet6{Port: port, Addr: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}}
	}
	if err := unix.Connect(fd, to); err != nil {
		unix.Close(fd)
		t.Skipf("family %d does not reach 127.0.0.1: %v", family, err)
	}
	file := os.NewFile(uintptr(fd), "client")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); c.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

func inode(t testing.TB, c *net.TCPConn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) })
	if err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

// Both ways in which the kernel tells whose a socket is agree, for sockets of
// both families.
func TestKernel(t *testing.T) {
	k := newKernel()
	defer k.close()
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		server, client := pair(t, family)
		from := server.RemoteAddr().(*net.TCPAddr).AddrPort()
		to := server.LocalAddr().(*net.TCPAddr).AddrPort()
		want := inode(t, client)
		for name, look := range map[string]func(client, server netip.AddrPort) (int, uint32, error){"sock_diag": k.diag, "table": k.table} {
			uid, ino, err := look(from, to)
			if err != nil && name == "sock_diag" && os.Getenv("GATEPASS_REAL") != "1" {
				t.Logf("this kernel has no sock_diag: %v", err)
				continue
			}
			if err != nil || uid != os.Geteuid() || ino != want {
				t.Errorf("%s, family %d: uid %d, inode %d (want %d), %v", name, family, uid, ino, want, err)
			}
			// The other way round it is our own end.
			if _, ino, err := look(to, from); err != nil || ino != inode(t, server) {
				t.Errorf("%s, family %d, our end: inode %d, %v", name, family, ino, err)
			}
			nobody := netip.AddrPortFrom(from.Addr(), 1)
			if _, ino, err := look(nobody, to); err == nil {
				t.Errorf("%s found inode %d where nothing is connected", name, ino)
			}
		}
		if s, _, refused := k.client(server); refused != nil || uint32(s) != want {
			t.Errorf("client: %d, %v", s, refused)
		}
		// Once the client has gone, nobody can tell whose it was.
		client.Close()
		if s, _, refused := k.client(server); refused == nil {
			t.Errorf("after the client left: %d", s)
		}
	}
}

// What listens on the client's port is not the client.
func TestKernelListener(t *testing.T) {
	k := newKernel()
	defer k.close()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	from := netip.AddrPortFrom(at.Addr(), at.Port()+1)
	for name, look := range map[string]func(client, server netip.AddrPort) (int, uint32, error){"sock_diag": k.diag, "table": k.table} {
		if uid, ino, err := look(at, from); err == nil {
			t.Errorf("%s: uid %d, inode %d", name, uid, ino)
		}
	}
}

// A kernel without sock_diag is asked once.
func TestKernelWithoutDiag(t *testing.T) {
	k := newKernel()
	defer k.close()
	fds := [2]int{}
	var err error
	if fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	unix.Close(fds[1]) // sends to it fail
	k.netlink = fds[0]
	server, client := pair(t, unix.AF_INET)
	if s, _, refused := k.client(server); refused != nil || uint32(s) != inode(t, client) {
		t.Errorf("%d, %v", s, refused)
	}
	if k.noDiag.Load() || k.netlink >= 0 {
		t.Error("what failed once is not tried again, or is kept")
	}
	if s, _, refused := k.client(server); refused != nil || uint32(s) != inode(t, client) {
		t.Errorf("%d, %v", s, refused)
	}
	if k.netlink < 0 {
		t.Error("it was not opened again")
	}
}

// A connection from elsewhere, however it came here.
func TestRemote(t *testing.T) {
	server, _ := pair(t, unix.AF_INET)
	k := newKernel()
	defer k.close()
	for _, from := range []string{"192.0.2.1", "10.0.0.1", "::ffff:192.0.2.1", "fe80::1", "0.0.0.0"} {
		c := elsewhere{server, &net.TCPAddr{IP: net.ParseIP(from), Port: 4711}}
		if _, _, refused := k.client(c); refused != errRemote {
			t.Errorf("from %s: %v", from, refused)
		}
	}
}

// elsewhere is a connection that came from somewhere else.
type elsewhere struct {
	net.Conn
	remote net.Addr
}

func (f elsewhere) RemoteAddr() net.Addr { return f.remote }

// Whose a connection is: once for each.
func BenchmarkClient(b *testing.B) {
	server, _ := pair(b, unix.AF_INET)
	k := newKernel()
	defer k.close()
	for b.Loop() {
		if _, _, refused := k.client(server); refused != nil {
			b.Fatal(refused)
		}
	}
}

// Which process's it is, in a lease of one process: once for each connection,
// and once a second.
func BenchmarkSearch(b *testing.B) {
	server, _ := pair(b, unix.AF_INET)
	k := newKernel()
	s, _, refused := k.client(server)
	k.close()
	if refused != nil {
		b.Fatal(refused)
	}
	for b.Loop() {
		if _, ok := k.search(s, os.Getpid(), nil, false); !ok {
			b.Fatal("not found")
		}
	}
}

func TestRuns(t *testing.T) {
	k := newKernel()
	self := broker.ProcessID{PID: os.Getpid(), Start: startOf(t, os.Getpid())}
	if !k.runs(self) {
		t.Error("we do not run")
	}
	if k.runs(broker.ProcessID{PID: self.PID, Start: self.Start + 1}) || k.runs(broker.ProcessID{PID: 1 << 23, Start: self.Start}) {
		t.Error("who does not run does")
	}
	// A program's name may hold what looks like the rest.
	k.proc = t.TempDir()
	if err := os.MkdirAll(filepath.Join(k.proc, "7"), 0o700); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]bool{
		"7 (a) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 42 0 0":                                            true,
		"7 (a) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 7 0) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 42 0": true,
		"7 (a) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 42 0) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 7 0": false,
		"7 (a) S 1 1 1": false, "": false, "7": false,
	} {
		if err := os.WriteFile(filepath.Join(k.proc, "7", "stat"), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := k.runs(broker.ProcessID{PID: 7, Start: 42}); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func diagReply(client, server netip.AddrPort, uid, inode uint32) []byte {
	native := binary.NativeEndian
	b := make([]byte, unix.SizeofNlMsghdr+diagReplySize)
	native.PutUint32(b, uint32(len(b)))
	native.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint32(b[8:], 7)
	m := b[unix.SizeofNlMsghdr:]
	m[0] = unix.AF_INET
	binary.BigEndian.PutUint16(m[4:], client.Port())
	binary.BigEndian.PutUint16(m[6:], server.Port())
	from, to := client.Addr().As4(), server.Addr().As4()
	copy(m[8:], from[:])
	copy(m[24:], to[:])
	native.PutUint32(m[diagReplyUID:], uid)
	native.PutUint32(m[diagReplyInode:], inode)
	return b
}

var (
	diagClient = netip.MustParseAddrPort("127.0.0.1:41234")
	diagServer = netip.MustParseAddrPort("127.0.0.1:9911")
)

// A reply that is changed where it says which socket it is about is not
// believed.
func TestParseDiag(t *testing.T) {
	good := diagReply(diagClient, diagServer, 1000, 4711)
	if uid, inode, err := parseDiag(good, 7, diagClient, diagServer); err != nil || uid != 1000 || inode != 4711 {
		t.Fatalf("%d, %d, %v", uid, inode, err)
	}
	for i := range good {
		b := append([]byte(nil), good...)
		b[i] ^= 0x41
		_, _, err := parseDiag(b, 7, diagClient, diagServer)
		m := i - unix.SizeofNlMsghdr
		matters := i == 4 || i == 5 || i >= 8 && i < 12 || // type, sequence
			m >= 4 && m < 12 || m >= 24 && m < 28 // ports, addresses
		if (err != nil) != matters && m != 0 {
			t.Errorf("with byte %d changed: %v", i, err)
		}
	}
	for n := range good {
		if _, _, err := parseDiag(good[:n], 7, diagClient, diagServer); err == nil {
			t.Errorf("cut to %d bytes it is believed", n)
		}
	}
}

func FuzzParseDiag(f *testing.F) {
	f.Add(diagReply(diagClient, diagServer, 1000, 4711))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := parseDiag(b, 7, diagClient, diagServer); err == nil && len(b) < unix.SizeofNlMsghdr+diagReplySize {
			t.Errorf("%x is believed", b)
		}
	})
}

func FuzzFindInTable(f *testing.F) {
	const line = "   0: 0100007F:A112 0100007F:26B7 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 20 0 0 10 -1\n"
	f.Add(line)
	f.Add("  sl  local_address rem_address   st\n" + line)
	f.Add(strings.Replace(line, "4711", "0", 1)) // nobody has it any more
	f.Fuzz(func(t *testing.T, s string) {
		if _, inode, ok := findInTable(strings.NewReader(s), "0100007F:A112", "0100007F:26B7"); ok && (inode == 0 || !strings.Contains(s, "0100007F:26B7")) {
			t.Errorf("%q gives inode %d", s, inode)
		}
	})
}
