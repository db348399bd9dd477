package main

import (
	"encoding/json"
	"os"
	"strconv"

	"gatepass/broker"
)

// readyFDVariable names the descriptor on which whoever started the daemon
// waits: one line, "ok" or a broker.Error as JSON, then it is closed.
const readyFDVariable = "GATEPASS_READY_FD"

// A readyPipe tells the starter, once, how the start went.
type readyPipe struct{ f *os.File }

// takeReadyPipe takes the descriptor out of the environment, so that no child
// inherits it.
func takeReadyPipe() *readyPipe {
	v := os.Getenv(readyFDVariable)
	os.Unsetenv(readyFDVariable)
	fd, err := strconv.Atoi(v)
	if err != nil || fd < 3 {
		return &readyPipe{}
	}
	f := os.NewFile(uintptr(fd), "ready")
	closeOnExec(f)
	return &readyPipe{f}
}

func (r *readyPipe) tell(err error) {
	if r.f == nil {
		return
	}
	line := []byte("ok")
	if err != nil {
		line, _ = json.Marshal(broker.AsError(err)) // three strings always marshal
	}
	r.f.Write(append(line, '\n')) // the starter may be gone, and need not know
	r.f.Close()
	r.f = nil
}
