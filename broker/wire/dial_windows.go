package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"

	"gatepass/broker"
)

const pipePrefix = `\\.\pipe\`

// dial connects to the pipe at path and makes sure that a process of our own
// user made it: any user may create a pipe of that name before a daemon does.
func dial(ctx context.Context, deadline time.Time, path string) (net.Conn, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	// With identification the daemon can learn who we are, and not act as us.
	conn, err := winio.DialPipeAccessImpLevel(ctx, path, windows.GENERIC_READ|windows.GENERIC_WRITE, winio.PipeImpLevelIdentification)
	if errors.Is(err, os.ErrNotExist) {
		return nil, broker.Errorf(broker.CodeDaemonUnreachable, "call gatepassd: %w at %s", ErrNoDaemon, path).
			WithHint("gatepass daemon start")
	}
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	conn.SetDeadline(deadline)
	if err := checkListener(conn, path); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func checkListener(conn net.Conn, path string) error {
	f, ok := conn.(interface{ Fd() uintptr })
	if !ok {
		return errors.New("learn who listens: the pipe has no handle")
	}
	var pid uint32
	if err := windows.GetNamedPipeServerProcessId(windows.Handle(f.Fd()), &pid); err != nil {
		return fmt.Errorf("learn who listens: %w", err)
	}
	theirs, err := UserSID(pid)
	if err != nil {
		return fmt.Errorf("learn who listens: %w", err)
	}
	ours, err := UserSID(windows.GetCurrentProcessId())
	if err != nil {
		return fmt.Errorf("learn who we are: %w", err)
	}
	if theirs != ours {
		return broker.Errorf(broker.CodeDaemonUnreachable, "the pipe %s is served by user %s, not by us (%s): nothing was sent", path, theirs, ours)
	}
	return nil
}

// UserSID returns the security identifier of the user that a process runs as.
func UserSID(pid uint32) (string, error) {
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return "", fmt.Errorf("open process %d: %w", pid, err)
	}
	defer windows.CloseHandle(process)
	var token windows.Token
	if err := windows.OpenProcessToken(process, windows.TOKEN_QUERY, &token); err != nil {
		return "", fmt.Errorf("open the token of process %d: %w", pid, err)
	}
	defer token.Close()
	user, err := token.GetTokenUser()
	if err != nil {
		return "", fmt.Errorf("read the token of process %d: %w", pid, err)
	}
	return user.User.Sid.String(), nil
}

// SocketPath returns the named pipe at which the user's daemon listens:
// $GATEPASS_SOCKET when it is set, else \\.\pipe\gatepass-SID. It does not
// use uid, which means nothing here.
func SocketPath(getenv func(string) string, uid int) (string, error) {
	if path := getenv("GATEPASS_SOCKET"); path != "" {
		if !strings.HasPrefix(path, pipePrefix) || len(path) > 256 {
			return "", broker.Errorf(broker.CodeConfig, "GATEPASS_SOCKET=%q is not the name of a pipe (%sNAME)", path, pipePrefix)
		}
		return path, nil
	}
	sid, err := UserSID(windows.GetCurrentProcessId())
	if err != nil {
		return "", broker.Errorf(broker.CodeConfig, "name the daemon's pipe: %w", err)
	}
	return pipePrefix + "gatepass-" + sid, nil
}
