package audit_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// FuzzParseEntry wants no panic, and of what is accepted a line that is safe
// to show and that a second reader would understand alike.
func FuzzParseEntry(f *testing.F) {
	f.Add([]byte(`{"seq":0,"time":"2026-11-23T08:40:10.123456Z","event":"daemon.started","outcome":"ok"}`))
	f.Add([]byte(`{"seq":12,"time":"2026-11-23T08:40:10.123456Z","event":"request.denied","outcome":"denied","caller":{"uid":1,"pid":2,"resolved":true,"ancestors":[{"pid":1}]},"error":{"code":"denied","message":"\u001b[0m"},"cut":["x"]}`))
	f.Add([]byte(`{"seq":0,"time":"2026-13-23T08:40:10.123456Z","event":"x","SEQ":1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := audit.ParseEntry(line)
		if err != nil {
			return
		}
		if len(line) > audit.MaxEntry || e.Seq < 0 || e.Time.IsZero() && !bytes.Contains(line, []byte("0001-01-01")) {
			t.Errorf("%+v", e)
		}
		for _, c := range line {
			if c < 0x20 || c == 0x7f {
				t.Errorf("accepted a line with byte %#x", c)
			}
		}
		again, err := audit.ParseEntry(bytes.Clone(line))
		if err != nil || again.Seq != e.Seq || !again.Time.Equal(e.Time) || again.Kind != e.Kind {
			t.Errorf("%+v, then %+v, %v", e, again, err)
		}
	})
}

// FuzzMask wants no panic, no growth beyond the masks, and nothing kept of a
// secret access key that stands alone.
func FuzzMask(f *testing.F) {
	f.Add("curl -u a:b https://c:d@e/?token=f", "--secret")
	f.Add(`x {\"password\": "`, "=")
	f.Fuzz(func(t *testing.T, a, b string) {
		const secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
		got := audit.MaskCommand(a + " " + secret + " " + b)
		if len(a) < 1000 && bytes.Contains([]byte(got), []byte(secret)) {
			t.Errorf("kept in %q", got)
		}
	})
}

// FuzzVerify changes a log's files at will. A log whose entries are not the
// signed ones must not be said to be signed.
func FuzzVerify(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "audit")
	key := newKey(f)
	for range 2 {
		l := open(f, audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 400})
		for range 2 {
			if err := l.Append(f.Context(), broker.Event{Kind: broker.EventDaemonStarted, Outcome: broker.OutcomeOK}, true); err != nil {
				f.Fatal(err)
			}
		}
		shut(f, l)
	}
	im := read(f, dir)
	want := segments(f, dir)
	f.Add(im["000001.jsonl"], im["000002.jsonl"], im["checkpoints"], im["hashes"])
	f.Add(want, []byte(nil), im["checkpoints"], []byte(nil))
	f.Add(want, []byte("{}\n"), im["checkpoints"][:20], []byte("x"))
	work := f.TempDir()
	f.Fuzz(func(t *testing.T, one, two, checkpoints, hashes []byte) {
		for name, b := range map[string][]byte{"000001.jsonl": one, "000002.jsonl": two, "checkpoints": checkpoints, "hashes": hashes} {
			if err := os.WriteFile(filepath.Join(work, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		rep, _ := audit.Verify(t.Context(), audit.VerifyOptions{Dir: work, Key: key.verifier})
		if rep.Problem != nil {
			return
		}
		if rep.Signed > 4 || rep.Signed+rep.Unsigned != rep.Entries {
			t.Errorf("%+v", rep)
		}
		all, want := append(bytes.Clone(one), two...), want
		for n := int64(0); n < rep.Signed; n++ {
			a, rest, _ := bytes.Cut(all, []byte("\n"))
			b, wantRest, _ := bytes.Cut(want, []byte("\n"))
			if !bytes.Equal(a, b) {
				t.Fatalf("entry %d is %q and was signed as %q: %+v", n, a, b, rep)
			}
			all, want = rest, wantRest
		}
		for line, err := range audit.Entries(t.Context(), work, audit.Query{Last: 3, Since: time.Unix(0, 0)}) {
			_, _ = line, err
		}
	})
}
