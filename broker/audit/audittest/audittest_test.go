package audittest_test

import (
	"path/filepath"
	"testing"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/audit/audittest"
)

// What is written verifies, has a bit of everything, and says the truth of
// itself.
func TestWrite(t *testing.T) {
	const entries = 5000
	l, err := audittest.Write(t.Context(), audittest.Options{Dir: filepath.Join(t.TempDir(), "audit"), Entries: entries, Seed: 1, SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	r, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: l.Dir, Key: l.Verifier})
	if err != nil || r.Entries != entries || r.Signed != entries || r.Segments < 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	kinds, profiles := map[broker.EventKind]int{}, map[string]int{}
	var handouts int
	bytes := 0
	for line, err := range audit.Entries(t.Context(), l.Dir, audit.Query{Decode: true}) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := line.Entry()
		if err != nil {
			t.Fatal(err)
		}
		bytes += len(line.Raw) + 1
		kinds[e.Kind]++
		profiles[e.Profile]++
		if e.Kind == broker.EventCredentialsServed && e.Session.ID == l.Shared.ID && e.Caller.Program != "" {
			handouts++
		}
	}
	for _, k := range []broker.EventKind{
		broker.EventDaemonStarted, broker.EventDaemonStopped, broker.EventKeyAdded, broker.EventMFAVerified, broker.EventSessionRequested, broker.EventSessionIssued,
		broker.EventSessionRenewed, broker.EventSessionEnded, broker.EventLeaseStarted, broker.EventLeaseEnded, broker.EventCredentialsServed, broker.EventRequestDenied, broker.EventRequestFailed,
	} {
		if kinds[k] == 0 {
			t.Errorf("no %s", k)
		}
	}
	if len(profiles) < 30 || kinds[broker.EventCredentialsServed] < entries/3 {
		t.Errorf("%d profiles, %v", len(profiles), kinds)
	}
	if handouts != l.Shared.Handouts || len(l.Shared.Programs) < 2 || l.Leased.ID == "" || l.Lease == "" {
		t.Errorf("%d hand-outs of %+v; %+v of %s", handouts, l.Shared, l.Leased, l.Lease)
	}
	t.Logf("%d bytes an entry, %v", bytes/entries, kinds)
}
