package scope

import (
	"testing"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

func idOf(t testing.TB, pid int) broker.ProcessID {
	t.Helper()
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		t.Fatal(err)
	}
	return broker.ProcessID{PID: pid, Start: startOf(k)}
}
