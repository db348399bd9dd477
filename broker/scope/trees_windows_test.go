package scope

import (
	"testing"

	"golang.org/x/sys/windows"

	"gatepass/broker"
)

func idOf(t testing.TB, pid int) broker.ProcessID {
	t.Helper()
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		t.Fatal(err)
	}
	defer windows.CloseHandle(process)
	start, err := startOf(process)
	if err != nil {
		t.Fatal(err)
	}
	return broker.ProcessID{PID: pid, Start: start}
}
