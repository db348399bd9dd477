package door

import (
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// activationFD is the first descriptor that systemd passes, SD_LISTEN_FDS_START.
const activationFD = 3

// Activation returns the listener that systemd passed when it started us for
// a connection to its socket unit, and false when it did not. The variables
// that say so are removed, so that no child believes them. The socket's file
// belongs to systemd and outlives the listener.
//
// One listening unix stream socket is what a gatepass.socket unit passes;
// anything else is a [broker.CodeConfig]. See sd_listen_fds(3).
func Activation() (net.Listener, bool, error) {
	pid, fds := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, false, nil // nothing, or meant for a parent
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		os.Unsetenv(name)
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 {
		return nil, false, broker.Errorf(broker.CodeConfig, "systemd passed LISTEN_FDS=%q", fds)
	}
	if n == 0 {
		return nil, false, nil
	}
	if n != 1 {
		return nil, false, broker.Errorf(broker.CodeConfig, "systemd passed %d sockets, and gatepassd serves one", n).
			WithHint("gatepass.socket needs a single ListenStream=")
	}
	for _, want := range []struct {
		option, value int
		what          string
	}{
		{unix.SO_DOMAIN, unix.AF_UNIX, "a unix socket"},
		{unix.SO_TYPE, unix.SOCK_STREAM, "a stream socket"},
		{unix.SO_ACCEPTCONN, 1, "listening"},
	} {
		got, err := unix.GetsockoptInt(activationFD, unix.SOL_SOCKET, want.option)
		if err != nil {
			return nil, false, broker.Errorf(broker.CodeConfig, "systemd passed no socket: %w", err)
		}
		if got != want.value {
			return nil, false, broker.Errorf(broker.CodeConfig, "what systemd passed is not %s", want.what).
				WithHint("gatepass.socket needs ListenStream= with a path, and Accept=no")
		}
	}
	f := os.NewFile(activationFD, "systemd socket")
	defer f.Close()
	ln, err := net.FileListener(f) // a duplicate, which no child gets
	if err != nil {
		return nil, false, broker.Errorf(broker.CodeConfig, "use the socket that systemd passed: %w", err)
	}
	return ln, true, nil
}
