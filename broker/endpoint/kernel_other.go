//go:build !linux

package endpoint

import (
	"net"
	"os"

	"gatepass/broker"
)

// A kernel does not tell here whose the other end of a connection is.
type kernel struct{ uid int }

func newKernel() *kernel { return &kernel{uid: os.Geteuid()} }

func (*kernel) close() {}

// A socket cannot be told from another here.
type socket struct{}

// client refuses what does not come from this machine, and no more.
func (*kernel) client(c net.Conn) (_ socket, uid int, refused *broker.Error) {
	if !c.RemoteAddr().(*net.TCPAddr).IP.IsLoopback() {
		return socket{}, -1, errRemote
	}
	return socket{}, -1, nil
}

// A holder is never found here.
type holder struct{ pid int }

func (*kernel) holds(holder, socket) bool { return false }

func (*kernel) search(socket, int, []int, bool) (holder, bool) {
	return holder{}, false
}

func (*kernel) variable(int, string) string { return "" }

// runs leaves it to whoever watches the lease's root that it is alive.
func (*kernel) runs(broker.ProcessID) bool { return true }
