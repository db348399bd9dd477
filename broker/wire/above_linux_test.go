package wire

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestLeaseAbove(t *testing.T) {
	proc := t.TempDir()
	process := func(pid, parent int, name, environ string) {
		dir := filepath.Join(proc, fmt.Sprint(pid))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(dir, "stat"), fmt.Appendf(nil, "%d (%s) S %d 1 1 0", pid, name, parent), 0o600)
		os.WriteFile(filepath.Join(dir, "environ"), []byte(environ), 0o600)
	}
	process(1, 0, "init", "A=B\x00")
	process(10, 1, "zsh", "HOME=/\x00GATEPASS_LEASE=l-1\x00X=Y\x00")
	process(20, 10, "evil) S 1 (", "") // a name made to mislead: its parent is 10
	process(30, 20, "sh", "XGATEPASS_LEASE=l-1\x00")
	process(40, 1, "sh", "GATEPASS_LEASE=\x00NOT_GATEPASS_LEASE=1\x00")
	process(50, 50, "loop", "")
	process(60, 61, "orphan", "")
	for pid, want := range map[int]int{1: 0, 10: 10, 20: 10, 30: 10, 40: 0, 50: 0, 60: 0, 99: 0} {
		if got := aboveIn(proc, pid); got != want {
			t.Errorf("above %d: %d, want %d", pid, got, want)
		}
	}
}
