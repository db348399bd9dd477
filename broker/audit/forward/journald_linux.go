package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const journaldSocket = "/run/systemd/journal/socket"

// A journaldSink speaks journald's native protocol
// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/). The library for it,
// coreos/go-systemd's journal, has one connection for the whole process to
// one fixed path, and no deadline.
type journaldSink struct{ path string }

func newJournald() (sink, error) { return &journaldSink{journaldSocket}, nil }

// rest keeps below what journald takes of one sender before it drops:
// RateLimitBurst=10000 in RateLimitIntervalSec=30s (journald.conf).
func (*journaldSink) rest(n int, _ bool) time.Duration {
	return time.Duration(n) * 5 * time.Millisecond
}

func (s *journaldSink) send(ctx context.Context, batch []record) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unixgram", s.path)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var message []byte
	for _, r := range batch {
		message = appendJournal(message[:0], r)
		_, err := conn.Write(message)
		if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
			err = sendFile(conn.(*net.UnixConn), message)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// appendJournal appends the entry as journald takes it.
func appendJournal(b []byte, r record) []byte {
	priority := syslogInfo
	if r.bad() {
		priority = syslogWarning
	}
	b = appendVariable(b, "MESSAGE", r.entry.Summary())
	b = appendVariable(b, "PRIORITY", strconv.Itoa(priority))
	b = appendVariable(b, "SYSLOG_FACILITY", strconv.Itoa(syslogFacility))
	b = appendVariable(b, "SYSLOG_IDENTIFIER", "gatepass")
	b = appendVariable(b, "GATEPASS_SEQ", strconv.FormatInt(r.entry.Seq, 10))
	for _, f := range r.fields() {
		b = appendVariable(b, "GATEPASS_"+strings.ToUpper(f.name), f.value)
	}
	return appendVariable(b, "GATEPASS_ENTRY", string(r.raw))
}

// appendVariable writes NAME=value, or where there is a newline in the value,
// its length before it.
func appendVariable(b []byte, name, value string) []byte {
	b = append(b, name...)
	if !strings.Contains(value, "\n") {
		b = append(append(b, '='), value...)
		return append(b, '\n')
	}
	b = append(b, '\n')
	b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	return append(append(b, value...), '\n')
}

// sendFile passes a message that is too large for a datagram, in a file of
// memory that is sealed, so that journald need not copy it.
func sendFile(conn *net.UnixConn, message []byte) error {
	fd, err := unix.MemfdCreate("gatepass-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	defer f.Close()
	if _, err := f.Write(message); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	// Go's WriteMsgUnix is not for sockets that are connected, and one that is
	// not cannot be waited for while journald's queue is full.
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	rights := unix.UnixRights(int(f.Fd()))
	var sent error
	if err := raw.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), nil, rights, nil, 0)
		return sent != unix.EAGAIN && sent != unix.EINTR
	}); err != nil {
		return err
	}
	return os.NewSyscallError("sendmsg", sent)
}
