package audit_test

import (
	"testing"

	"gatepass/broker/audit"
)

func TestVerify(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	l := open(t, audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 8 << 10})
	put(t, l, 100, false)
	shut(t, l)
	rep, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir, Key: key.verifier})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Entries != 100 || rep.Signed != 100 || rep.Unsigned != 0 || rep.Checkpoints < 1 || rep.Segments < 5 || rep.Bytes != int64(len(segments(t, dir))) {
		t.Errorf("%+v", rep)
	}
}
