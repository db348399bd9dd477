package forward

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// decodeJournal reads a message as journald does.
func decodeJournal(t *testing.T, b []byte) map[string]string {
	t.Helper()
	got := map[string]string{}
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			t.Fatalf("the message ends in %q", b)
		}
		name, value, ok := strings.Cut(string(line), "=")
		if !ok {
			n := binary.LittleEndian.Uint64(rest)
			value, rest = string(rest[8:8+n]), rest[8+n:]
			if rest[0] != '\n' {
				t.Fatalf("no newline after %s", name)
			}
			rest = rest[1:]
		}
		if strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || name[0] == '_' {
			t.Fatalf("journald refuses the name %q", name)
		}
		got[name] = value
		b = rest
	}
	return got
}

// journal is a socket as journald's, and what it read from there.
type journal struct {
	t    *testing.T
	conn *net.UnixConn
}

func newJournal(t *testing.T) (journal, *journaldSink) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return journal{t, conn}, &journaldSink{path}
}

// next reads a message, from the datagram or from the file that comes with it.
func (j journal) next() (fields map[string]string, inFile bool) {
	j.t.Helper()
	buf, oob := make([]byte, 1<<20), make([]byte, 1<<10)
	j.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, oobn, _, _, err := j.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		j.t.Fatal(err)
	}
	if oobn == 0 {
		return decodeJournal(j.t, buf[:n]), false
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		j.t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 || n != 0 {
		j.t.Fatalf("%d descriptors with %d bytes: %v", len(fds), n, err)
	}
	f := os.NewFile(uintptr(fds[0]), "memfd")
	defer f.Close()
	// What journald asks of a file that it maps.
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if want := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL; err != nil || seals != want {
		j.t.Errorf("seals %x, %v", seals, err)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 16<<20))
	if err != nil {
		j.t.Fatal(err)
	}
	return decodeJournal(j.t, data), true
}

func TestJournaldMessages(t *testing.T) {
	j, s := newJournal(t)
	batch := records(t, 8)
	batch[2].entry.Reason = "one\ntwo=three\n"
	batch[3].raw = bytes.Repeat([]byte("x"), 400<<10) // more than a datagram takes
	done := make(chan error, 1)
	go func() { done <- s.send(context.Background(), batch) }()
	for i, r := range batch {
		got, inFile := j.next()
		if got["GATEPASS_ENTRY"] != string(r.raw) || got["GATEPASS_REASON"] != r.entry.Reason || got["MESSAGE"] != r.entry.Summary() ||
			got["SYSLOG_IDENTIFIER"] != "gatepass" || got["GATEPASS_EVENT"] != string(r.entry.Kind) || got["GATEPASS_SESSION"] != "s-1" ||
			got["PRIORITY"] != map[bool]string{false: "6", true: "4"}[r.bad()] {
			t.Errorf("message %d: %.500q", i, got)
		}
		if inFile != (i == 3) {
			t.Errorf("message %d in a file: %v", i, inFile)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A journald that is not there, and one that does not read, are errors.
func TestJournaldFailures(t *testing.T) {
	j, s := newJournal(t)
	batch := records(t, 500)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := s.send(ctx, batch); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it does not read: %v", err)
	}
	j.conn.Close()
	if err := s.send(context.Background(), records(t, 1)); err == nil {
		t.Error("nobody listens, and it was sent")
	}
}

// It is never told faster than it takes in.
func TestJournaldRate(t *testing.T) {
	const limit, interval = 10000, 30 * time.Second // journald.conf(5)
	s := &journaldSink{}
	if n := int(interval/s.rest(batchEntries, true)) * batchEntries; n > limit*3/4 {
		t.Errorf("%d messages in %s", n, interval)
	}
}
