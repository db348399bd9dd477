//go:build unix

package audit_test

import (
	"bytes"
	"testing"

	"gatepass/broker/audit"

	"golang.org/x/sys/unix"
)

// To find the changed entry among many segments, verify has one open at a time.
func TestVerifyOpensFewFiles(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	l := open(t, audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 500})
	put(t, l, 200, false)
	shut(t, l)
	im := read(t, dir)
	const last = "000200.jsonl"
	im.with(last, bytes.Replace(im[last], []byte("alice"), []byte("malia"), 1)).write(t, dir)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := was
	few.Cur = 50
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	rep, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir, Key: key.verifier})
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if rep.Problem == nil || rep.Problem.Seq != 199 || rep.Problem.File != last {
		t.Errorf("%+v, %v", rep.Problem, err)
	}
}
