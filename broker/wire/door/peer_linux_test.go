package door

import (
	"os"
	"testing"
)

func TestCallerIsThisProcess(t *testing.T) {
	ps := newProcesses()
	server, _ := pair(t)
	p, err := ps.peer(server)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for range 2 {
		c, err := p.caller()
		if err != nil {
			t.Fatal(err)
		}
		exe, _ := os.Executable()
		wd, _ := os.Getwd()
		if c.UID != os.Getuid() || c.PID != os.Getpid() || c.Exe != exe || c.Cwd != wd || c.Command == "" || len(c.Args) != len(os.Args) {
			t.Errorf("caller %+v", c)
		}
		if !c.Resolved || len(c.Ancestors) == 0 || c.Ancestors[0].PID != os.Getppid() || c.Ancestors[len(c.Ancestors)-1].PID != 1 {
			t.Errorf("resolved %v, ancestors %+v", c.Resolved, c.Ancestors)
		}
	}
}
