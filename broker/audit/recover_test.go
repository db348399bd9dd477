package audit_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// TestRecover opens what crashes leave, and what they cannot have left.
func TestRecover(t *testing.T) {
	// Three segments; the first entries are signed, the last few are not.
	dir, key := logDir(t), newKey(t)
	l := open(t, audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 6 << 10})
	put(t, l, 12, true)
	shut(t, l)
	l = open(t, audit.Options{Dir: dir, SegmentSize: 6 << 10})
	put(t, l, 8, true)
	shut(t, l)
	im := read(t, dir)
	const before, last, after, next = "000002.jsonl", "000003.jsonl", "000004.jsonl", "000005.jsonl"
	if im[last] == nil || im[after] != nil {
		t.Fatal("not the log this test is about")
	}
	lastLines := bytes.SplitAfter(im[last], []byte("\n"))
	lastLines = lastLines[:len(lastLines)-1]
	tail := func(n int) []byte { return slices.Concat(lastLines[len(lastLines)-n:]...) }
	join := func(b ...[]byte) []byte { return slices.Concat(b...) }
	flipped := func(name string, old, new string) image {
		b := bytes.Replace(im[name], []byte(old), []byte(new), 1)
		if bytes.Equal(b, im[name]) {
			t.Fatalf("no %q in %s", old, name)
		}
		return im.with(name, b)
	}
	checkpoint := im["checkpoints"][bytes.LastIndex(im["checkpoints"], []byte("\n\ngatepass-audit/"))+2:]
	const all = 20
	for _, tt := range []struct {
		name    string
		im      image
		entries int64  // afterwards, without the entry that tells of it
		mended  string // what that says; "" where there is none
		refused string // what the error says
	}{
		{"nothing", im, all, "", ""},
		{"torn line", im.with(last, join(im[last], []byte(`{"seq":20,"ti`))), all, "cut 13 bytes of an unfinished line in 000003.jsonl, where entry 20 should be", ""},
		{"torn after a newline was lost", im.with(last, im[last][:len(im[last])-1]), all - 1, "unfinished line in 000003.jsonl, where entry 19 should be", ""},
		{"zeros", im.with(last, join(im[last], make([]byte, 3000))), all, "cut 3000 bytes", ""},
		{"zeros and lines", im.with(last, join(im[last], make([]byte, 100), []byte("\nx\n"))), all, "moved 103 bytes from 000003.jsonl, where entry 20 should be, to the file 000003.cut-20", ""},
		{"empty new segment", im.with(after, []byte{}), all, "", ""},
		{"torn first line", im.with(after, []byte(`{"seq":2`)), all, "unfinished line in 000004.jsonl, where entry 20 should be", ""},
		{"new segment half copied", im.with(after, tail(3)[:900]), all, "removed the unfinished copy 000004.jsonl", ""},
		{"new segment copied in part, the rest zeros", im.with(after, join(tail(3)[:900], make([]byte, len(tail(3))-900))), all, "removed the unfinished copy 000004.jsonl", ""},
		{"new segment copied with a hole", im.with(after, join(tail(3)[:900], make([]byte, 100), tail(3)[1000:])), all, "moved the unfinished copy 000004.jsonl of 3 lines to the file 000004.cut-17", ""},
		{"new segment copied, its beginning zeros", im.with(after, join(make([]byte, 900), tail(3)[900:])), all, "to the file 000004.cut-20", ""},
		{"new segment copied", im.with(after, tail(3)), all, "cut 3 lines of 000003.jsonl that 000004.jsonl repeats", ""},
		{"new segment copied and gone on", im.with(last, im[last][:len(im[last])-len(tail(1))]).with(after, tail(3)), all, "cut 2 lines of 000003.jsonl that 000004.jsonl repeats", ""},
		{"new segment copied, and another one begun", im.with(after, tail(3)).with(next, []byte{}), all, "cut 3 lines of 000003.jsonl that 000004.jsonl repeats", ""},
		{"copied after a torn line, and another one begun", im.with(last, join(im[last], []byte(`{"seq`))).with(after, tail(3)).with(next, []byte{}), all, "cut 5 bytes of an unfinished line in 000003.jsonl, where entry 20 should be; cut 3 lines of 000003.jsonl", ""},
		{"copied after a torn line", im.with(last, im[last][:len(im[last])-30]).with(after, tail(3)), all, "000003.jsonl", ""},
		{"torn before the next segment", im.with(last, join(im[last][:len(im[last])-len(tail(3))], []byte(`{"seq`))).with(after, tail(3)), all, "cut 5 bytes", ""},
		{"no hashes", im.with("hashes", nil), all, "computed the file hashes again", ""},
		{"short hashes", im.with("hashes", im["hashes"][:100]), all, "computed the file hashes again", ""},
		{"wrong hashes", im.with("hashes", make([]byte, len(im["hashes"]))), all, "computed the file hashes again", ""},
		{"torn checkpoint", im.with("checkpoints", join(im["checkpoints"], []byte("gatepass-audit/"))), all, "unfinished checkpoint", ""},
		{"checkpoint with a hole", im.with("checkpoints", join(im["checkpoints"], make([]byte, 40), checkpoint[40:])), all, "unfinished checkpoint", ""},
		{"checkpoint with zeros for its signature", im.with("checkpoints", join(im["checkpoints"], checkpoint[:bytes.Index(checkpoint, []byte("\n\n"))+2], make([]byte, 90))), all, "unfinished checkpoint", ""},
		{"checkpoint without its empty line", im.with("checkpoints", bytes.TrimSuffix(im["checkpoints"], []byte("\n"))), all, "", ""},
		{"no checkpoints", im.with("checkpoints", nil), all, "", ""},

		{"unsigned entry missing", im.with(last, slices.Concat(slices.Delete(slices.Clone(lastLines), 1, 2)...)), 0, "moved", ""},
		{"signed segment missing", im.with("000001.jsonl", nil), 0, "", "segment 000001.jsonl is missing"},
		{"segment in the middle missing", im.with(before, nil), 0, "", "segment 000002.jsonl is missing"},
		{"all segments missing", im.with("000001.jsonl", nil).with(before, nil).with(last, nil), 0, "", "there is no segment"},
		{"signed entries missing", im.with(before, nil).with(last, nil), 0, "", "covers 12 entries"},
		{"last signed entry changed", flipped(before, `"seq":11,"time":"2`, `"seq":11,"time":"1`), 0, "", "are not the ones that were signed"},
		{"signed entry changed, and no hashes", flipped("000001.jsonl", "alice", "malia").with("hashes", nil), 0, "", "are not the ones that were signed"},
		{"gap between segments", im.with(before, im[before][:bytes.LastIndexByte(im[before][:len(im[before])-1], '\n')+1]), 0, "", "begins with entry"},
		{"less copied than another one goes on from", im.with(after, tail(3)[:len(tail(3))-len(tail(1))]).with(next, []byte{}), 0, "", "both have an entry 17"},
		{"two versions of an entry", im.with(after, bytes.ReplaceAll(tail(3), []byte("alice"), []byte("malia"))), 0, "", "both have an entry 17"},
		{"rubbish in a closed segment", im.with(before, join(im[before], []byte("rubbish\n"))).with(after, []byte{}), all, "moved 8 bytes", ""},
		{"rubbish instead of an entry", im.with(before, join(im[before][:len(im[before])-9], []byte("rubbish\n"))), 0, "", "what should be entry"},
		{"checkpoints that are none", im.with("checkpoints", []byte("a\nb\nc\n\nd\n")), 0, "", "not a checkpoint"},
		{"checkpoint with a zero, and another one", im.with("checkpoints", join(bytes.Replace(im["checkpoints"], []byte("\n12\n"), []byte("\n1\x00\n"), 1), im["checkpoints"])), 0, "", "not a checkpoint"},
		{"checkpoints that go back", im.with("checkpoints", join(im["checkpoints"], bytes.Replace(im["checkpoints"], []byte("\n12\n"), []byte("\n11\n"), 1))), 0, "", "goes back"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.im.write(t, dir)
			l, err := audit.Open(t.Context(), audit.Options{Dir: dir, Signer: key.Signer})
			if tt.refused != "" {
				if err == nil || broker.CodeOf(err) != broker.CodeData || broker.AsError(err).Hint == "" || !strings.Contains(err.Error(), tt.refused) {
					t.Errorf("error %v (%s), want %q", err, broker.CodeOf(err), tt.refused)
				}
				if err == nil {
					shut(t, l)
				}
				got := read(t, dir)
				for name, b := range tt.im {
					if name != "lock" && name != "hashes" && !bytes.Equal(got[name], b) {
						t.Errorf("refused, and yet changed %s", name)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			entries := l.Status().Entries
			put(t, l, 1, true)
			shut(t, l)
			rep, err := verify(t, dir, key)
			if err != nil || rep.Unsigned != 0 || rep.Entries != entries+1 {
				t.Errorf("verify: %+v, %v", rep, err)
			}
			var mended []string
			for line := range audit.Entries(t.Context(), dir, audit.Query{Event: []string{string(broker.EventLogRecovered)}}) {
				e, err := line.Entry()
				if err != nil {
					t.Fatal(err)
				}
				mended = append(mended, e.Reason)
			}
			if tt.mended == "" && mended != nil || tt.mended != "" && (len(mended) != 1 || !strings.Contains(mended[0], tt.mended)) {
				t.Errorf("mended %q, want %q", mended, tt.mended)
			}
			if want := tt.entries + int64(len(mended)); tt.entries > 0 && entries != want {
				t.Errorf("%d entries, want %d", entries, want)
			}
		})
	}
}
