package door

import (
	"bytes"
	"errors"
	"fmt"
	"math"
)

// A stat is what gatepass needs of /proc/PID/stat. See proc_pid_stat(5) for
// the fields, which it numbers from 1.
type stat struct {
	pid   int    // 1
	ppid  int    // 4
	tty   uint32 // 7: device number, 0 for none
	start uint64 // 22: when it started, in clock ticks (10 ms) since boot
	ended bool   // 3, 20: a zombie or dead, and no thread of it runs on
	image layout
}

// A layout tells one program image of a process from the next. With address
// space randomisation every exec changes it; without, a different program or
// different arguments do. The kernel shows the addresses as 0 to those who
// may not read the process.
type layout struct {
	comm       [16]byte // 2, cut
	startStack uint64   // 28
	argStart   uint64   // 48
	argEnd     uint64   // 49
	envEnd     uint64   // 51
}

var errStat = errors.New("malformed /proc/PID/stat")

// parseStat reads one line of /proc/PID/stat. The name of the program stands
// in parentheses and may hold anything, parentheses, spaces and newlines
// included; nothing after it does.
func parseStat(b []byte) (stat, error) {
	var s stat
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || shut < open {
		return stat{}, errStat
	}
	pid, ok := number(b[:open-1])
	if !ok || pid == 0 || pid > math.MaxInt32 || b[open-1] != ' ' {
		return stat{}, errStat
	}
	s.pid = int(pid)
	copy(s.image.comm[:], b[open+1:shut])
	rest := b[shut+1:]
	for field := 3; field <= 51; field++ {
		if len(rest) == 0 || rest[0] != ' ' {
			return stat{}, fmt.Errorf("%w: field %d", errStat, field)
		}
		rest = rest[1:]
		end := 0
		for end < len(rest) && rest[end] != ' ' && rest[end] != '\n' {
			end++
		}
		var value uint64
		ok := true
		switch field {
		case 4, 20, 22, 28, 48, 49, 51:
			value, ok = number(rest[:end])
		}
		switch field {
		case 3:
			s.ended = end == 1 && (rest[0] == 'Z' || rest[0] == 'X')
		case 4:
			ok = ok && value <= math.MaxInt32
			s.ppid = int(value)
		case 7: // signed in print, and negative for a terminal beyond all limits
			if value, ok := number(rest[:end]); ok && value <= math.MaxInt32 {
				s.tty = uint32(value)
			}
		case 20:
			s.ended = s.ended && value <= 1
		case 22:
			s.start = value
		case 28:
			s.image.startStack = value
		case 48:
			s.image.argStart = value
		case 49:
			s.image.argEnd = value
		case 51:
			s.image.envEnd = value
		}
		if !ok {
			return stat{}, fmt.Errorf("%w: field %d is %q", errStat, field, string(rest[:end])) // a copy: b need not escape
		}
		rest = rest[end:]
	}
	return s, nil
}

// number reads an unsigned decimal number.
func number(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxUint64-9)/10 {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return n, true
}

// ttyName returns the path of a terminal by its device number, "" for none.
// https://www.kernel.org/doc/Documentation/admin-guide/devices.txt
func ttyName(dev uint32) string {
	// In stat, bits 31–20 and 7–0 are the minor number, 15–8 the major.
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	switch {
	case dev == 0:
		return ""
	case major >= 136 && major <= 143:
		return fmt.Sprintf("/dev/pts/%d", (major-136)<<20|minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("/dev/tty%d", minor)
	case major == 4:
		return fmt.Sprintf("/dev/ttyS%d", minor-64)
	}
	return fmt.Sprintf("/dev/char/%d:%d", major, minor)
}
