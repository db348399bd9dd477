package wire

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// LeaseAbove returns the process at or above pid that holds a lease: one
// whose environment, as it was when its program started, has GATEPASS_LEASE.
// It returns 0 when there is none. What the caller may not read belongs to
// another user, and a lease's root is ours.
func LeaseAbove(pid int) int {
	return aboveIn("/proc", pid)
}

func aboveIn(proc string, pid int) int {
	for range 1024 { // no tree is that deep; a loop would be a lie
		if pid <= 0 {
			break
		}
		env, err := os.ReadFile(fmt.Sprintf("%s/%d/environ", proc, pid))
		if err == nil && holdsLease(env) {
			return pid
		}
		pid = parentOf(proc, pid)
	}
	return 0
}

func holdsLease(environ []byte) bool {
	for v := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(v, []byte("GATEPASS_LEASE=")); ok && len(value) > 0 {
			return true
		}
	}
	return false
}

// parentOf returns the parent's pid, 0 when there is none to be seen. The
// program's name, in parentheses, may hold anything: the fields begin after
// its last one. See proc_pid_stat(5).
func parentOf(proc string, pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("%s/%d/stat", proc, pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	ppid, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return 0
	}
	return ppid
}
