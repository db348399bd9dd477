package door

import (
	"errors"

	"gatepass/broker"
)

// errForeign is why nothing at all is served: the kernel says that the other
// end of the connection is another user's.
var errForeign = errors.New("the connection is another user's")

// errGone is in the chain of an error about a process that has ended.
var errGone = errors.New("the process has ended")

// maxArgs bounds what is read of a process's command line, in bytes: an argv
// may have 2 MiB. What is cut off is whole arguments.
const maxArgs = 8 << 10

// gone is what a request gets whose process has ended: nothing is served to
// the dead, whoever may have inherited their connection.
func gone(pid int) error {
	return broker.Errorf(broker.CodeDenied, "the process that opened this connection (%d) has ended", pid)
}

// splitArgs splits an argv as the kernel shows it: each argument ended by
// NUL. cut says that b is only its beginning.
func splitArgs(b []byte, cut bool) []string {
	var args []string
	for len(b) > 0 {
		end := 0
		for end < len(b) && b[end] != 0 {
			end++
		}
		if end == len(b) && cut && len(args) > 0 {
			break // half an argument says something else than the whole
		}
		args = append(args, string(b[:end]))
		b = b[min(end+1, len(b)):]
	}
	return args
}
