package door

import "syscall"

// bindPrivately gives the socket's file its mode before it has a name: Linux
// takes it from the unbound socket. Elsewhere a moment passes, in which the
// door itself refuses other users.
func bindPrivately(network, address string, c syscall.RawConn) error {
	var err error
	if ctlErr := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); ctlErr != nil {
		return ctlErr
	}
	return err
}
