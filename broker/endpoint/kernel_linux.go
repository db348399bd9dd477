package endpoint

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// A kernel tells whose the other end of a connection is, and which process's.
//
// mu guards netlink and sequence, and is held while the kernel answers, which
// it does at once.
type kernel struct {
	uid  int
	proc string // "/proc"

	mu       sync.Mutex
	netlink  int // -1 while there is none
	sequence uint32
	noDiag   atomic.Bool // sock_diag does not know TCP here
}

func newKernel() *kernel { return &kernel{uid: os.Geteuid(), proc: "/proc", netlink: -1} }

func (k *kernel) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closeLocked()
}

func (k *kernel) closeLocked() {
	if k.netlink >= 0 {
		unix.Close(k.netlink)
		k.netlink = -1
	}
}

// A socket is the other end of a connection, by its inode: what links in
// /proc/PID/fd name it by.
type socket uint32

// client returns the socket at the other end of c and its user, -1 where that
// is not known, or why it is not served: it is another user's, or nobody can
// tell whose.
//
// The addresses and ports of both ends name one socket for as long as ours is
// open. Its user is that of the process that made it, whoever has it now.
func (k *kernel) client(c net.Conn) (_ socket, uid int, refused *broker.Error) {
	client, server := c.RemoteAddr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()
	if !client.Addr().IsLoopback() {
		return 0, -1, errRemote
	}
	uid, inode, err := k.lookup(client, server)
	if err == nil && inode == 0 {
		err = errors.New("the client has closed it")
	}
	if err != nil {
		return 0, -1, broker.Errorf(broker.CodeDenied, "the kernel does not tell whose connection this is: %w", err)
	}
	if uid != k.uid {
		return 0, uid, broker.Errorf(broker.CodeDenied, "this endpoint serves user %d alone, and the connection is user %d's", k.uid, uid).
			WithHint("run the program as the user whose lease it is; what must be another's: gatepass exec --env")
	}
	return socket(inode), uid, nil
}

func (k *kernel) lookup(client, server netip.AddrPort) (uid int, inode uint32, err error) {
	if !k.noDiag.Load() {
		if uid, inode, err = k.diag(client, server); err == nil {
			return uid, inode, nil
		}
	}
	uid, inode, tableErr := k.table(client, server)
	if tableErr != nil {
		return 0, 0, errors.Join(err, tableErr)
	}
	if errors.Is(err, unix.ENOENT) { // and the kernel looked for its module
		k.noDiag.Store(true)
	}
	return uid, inode, nil
}

// Sizes and offsets of sock_diag(7)'s structures inet_diag_req_v2,
// inet_diag_sockid and inet_diag_msg.
const (
	diagRequestSize = 56
	diagReplySize   = 72
	diagID          = 8 // in the request
	diagReplyID     = 4
	diagReplyUID    = 64
	diagReplyInode  = 68
)

// diag asks sock_diag for one socket by its addresses.
func (k *kernel) diag(client, server netip.AddrPort) (uid int, inode uint32, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if uid, inode, err = k.diagLocked(client, server); err != nil && err != unix.ENOENT {
		k.closeLocked() // an answer that comes too late must not be the next one's
	}
	if err != nil {
		err = fmt.Errorf("sock_diag: %w", err)
	}
	return uid, inode, err
}

func (k *kernel) diagLocked(client, server netip.AddrPort) (uid int, inode uint32, err error) {
	if k.netlink < 0 {
		if k.netlink, err = openNetlink(); err != nil {
			return 0, 0, err
		}
	}
	k.sequence++
	native := binary.NativeEndian
	b := make([]byte, unix.SizeofNlMsghdr+diagRequestSize)
	native.PutUint32(b[0:], uint32(len(b)))
	native.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST)
	native.PutUint32(b[8:], k.sequence)
	request := b[unix.SizeofNlMsghdr:]
	request[0], request[1] = unix.AF_INET, unix.IPPROTO_TCP
	native.PutUint32(request[4:], 1<<32-1) // in any state
	id := request[diagID:]
	binary.BigEndian.PutUint16(id[0:], client.Port())
	binary.BigEndian.PutUint16(id[2:], server.Port())
	source, destination := client.Addr().Unmap().As4(), server.Addr().Unmap().As4()
	copy(id[4:], source[:])
	copy(id[20:], destination[:])
	native.PutUint32(id[40:], 1<<32-1) // INET_DIAG_NOCOOKIE, both words
	native.PutUint32(id[44:], 1<<32-1)
	if err := unix.Sendto(k.netlink, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, 0, err
	}
	var reply [1024]byte
	for {
		n, from, err := unix.Recvfrom(k.netlink, reply[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		sender, ok := from.(*unix.SockaddrNetlink)
		if !ok || sender.Pid != 0 { // not the kernel
			continue
		}
		uid, inode, err := parseDiag(reply[:n], k.sequence, client, server)
		if err != errOtherReply {
			return uid, inode, err
		}
	}
}

func openNetlink() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return -1, err
	}
	second := unix.NsecToTimeval(1e9)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &second); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

var errOtherReply = errors.New("the reply is to another request")

// parseDiag reads the reply to a request for one socket.
func parseDiag(b []byte, sequence uint32, client, server netip.AddrPort) (uid int, inode uint32, err error) {
	native := binary.NativeEndian
	if len(b) < unix.SizeofNlMsghdr || native.Uint32(b[8:]) != sequence {
		return 0, 0, errOtherReply
	}
	kind, b := native.Uint16(b[4:]), b[unix.SizeofNlMsghdr:]
	switch {
	case kind == unix.NLMSG_ERROR && len(b) >= 4:
		return 0, 0, unix.Errno(-int32(native.Uint32(b)))
	case kind != unix.SOCK_DIAG_BY_FAMILY || len(b) < diagReplySize:
		return 0, 0, fmt.Errorf("a reply of type %d with %d bytes", kind, len(b))
	}
	// Where nothing is connected so, the kernel may find what listens on the
	// port.
	id := b[diagReplyID:]
	if binary.BigEndian.Uint16(id[0:]) != client.Port() || binary.BigEndian.Uint16(id[2:]) != server.Port() ||
		!sameAddr(b[0], id[4:20], client.Addr()) || !sameAddr(b[0], id[20:36], server.Addr()) {
		return 0, 0, errors.New("the reply is about another socket")
	}
	return int(native.Uint32(b[diagReplyUID:])), native.Uint32(b[diagReplyInode:]), nil
}

// sameAddr compares an address as the kernel has it: a socket of family 10 may
// be connected to an IPv4 address too.
func sameAddr(family byte, b []byte, want netip.Addr) bool {
	var got netip.Addr
	if family == unix.AF_INET {
		got = netip.AddrFrom4([4]byte(b[:4]))
	} else {
		got = netip.AddrFrom16([16]byte(b[:16])).Unmap()
	}
	return got == want.Unmap()
}

// table looks for a socket in /proc/net/tcp, where it is there for every
// kernel, and in tcp6, where one of family AF_INET6 is.
func (k *kernel) table(client, server netip.AddrPort) (uid int, inode uint32, err error) {
	mapped := "0000000000000000FFFF0000" // ::ffff:0:0/96
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		mapped = "00000000000000000000FFFF"
	}
	for _, t := range [...]struct{ name, prefix string }{{"tcp", ""}, {"tcp6", mapped}} {
		f, err := os.Open(k.proc + "/net/" + t.name)
		if err != nil {
			continue
		}
		uid, inode, ok := findInTable(f, t.prefix+tableAddr(client), t.prefix+tableAddr(server))
		f.Close()
		if ok {
			return uid, inode, nil
		}
	}
	return 0, 0, errors.New("it is not in /proc/net/tcp")
}

// tableAddr is how the table shows an address: the word in memory, as a number.
func tableAddr(a netip.AddrPort) string {
	ip := a.Addr().Unmap().As4()
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip[:]), a.Port())
}

// findInTable reads lines such as
//
//	0: 0100007F:A1B2 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 …
func findInTable(r io.Reader, local, remote string) (uid int, inode uint32, ok bool) {
	lines := bufio.NewScanner(r)
	for n := 0; lines.Scan() && n < 1<<18; n++ {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[1] != local || f[2] != remote {
			continue
		}
		uid, err := strconv.ParseUint(f[7], 10, 32)
		n, err2 := strconv.ParseUint(f[9], 10, 32)
		if err == nil && err2 == nil && n != 0 {
			return int(uid), uint32(n), true
		}
	}
	return 0, 0, false
}
