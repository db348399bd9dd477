package wire

import "gatepass/broker"

// RefuseBelow keeps a daemon from starting below a lease, whose root is the
// process pid (0: there is none): it would be behind its own wall, end with
// the lease, and serve what the wall is there to refuse.
func RefuseBelow(pid int) error {
	if pid == 0 {
		return nil
	}
	return broker.Errorf(broker.CodeDaemonUnreachable, "no daemon is started below a lease, and process %d holds one", pid).
		WithHint("start it outside: gatepass daemon start")
}
