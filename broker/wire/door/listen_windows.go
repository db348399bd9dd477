package door

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// Listen makes the named pipe at path, for our own user alone and not over
// the network. A daemon that has it already is [ErrDaemonRunning]; the system
// removes the pipe with its last handle, so nothing is ever stale.
func Listen(path string) (net.Listener, error) {
	sid, err := wire.UserSID(windows.GetCurrentProcessId())
	if err != nil {
		return nil, broker.Errorf(broker.CodeConfig, "listen on %s: %w", path, err)
	}
	ln, err := winio.ListenPipe(path, &winio.PipeConfig{
		// Without this, everyone may read. D;;GA;;;NU comes first: the
		// network is refused even as this user.
		SecurityDescriptor: "O:" + sid + "D:P(D;;GA;;;NU)(A;;GA;;;" + sid + ")",
		InputBufferSize:    wire.MaxBody,
		OutputBufferSize:   wire.MaxBody,
	})
	if err == nil {
		return ln, nil
	}
	wait := 2 * time.Second
	if conn, dialErr := winio.DialPipe(path, &wait); dialErr == nil {
		conn.Close()
		return nil, ErrDaemonRunning
	}
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_PIPE_BUSY) {
		return nil, fmt.Errorf("%w, or another user has its pipe %s (%w)", ErrDaemonRunning, path, err)
	}
	return nil, broker.Errorf(broker.CodeConfig, "listen on %s: %w", path, err)
}
