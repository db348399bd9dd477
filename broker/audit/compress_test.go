package audit_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"gatepass/broker/audit"
)

// compressedLog returns a log of so many entries in segments of about 100 KiB,
// of which all but the last are compressed, and the bytes of its lines.
func compressedLog(t *testing.T, key testKey, entries int) (dir string, lines []byte) {
	t.Helper()
	dir = logDir(t)
	synctest.Test(t, func(t *testing.T) {
		opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 100 << 10}
		l := open(t, opts)
		put(t, l, entries, false)
		shut(t, l)
		lines = segments(t, dir)
		l = openAsIs(t, opts)
		synctest.Wait()
		shut(t, l)
	})
	return dir, lines
}

// Closed segments are compressed once they are signed, and nothing else about
// the log changes.
func TestCompress(t *testing.T) {
	key := newKey(t)
	dir, lines := compressedLog(t, key, 1000)
	plain, compressed := forms(t, dir)
	if len(plain) != 1 || len(compressed) < 5 || slices.Contains(compressed, plain[0]+".zst") {
		t.Fatalf("plain %v, compressed %v", plain, compressed)
	}
	var size int
	for _, name := range compressed {
		size += len(read(t, dir)[name])
	}
	t.Logf("%d segments compressed to 1/%.1f", len(compressed), float64(len(lines))/float64(size))
	if got := entriesOf(t, dir, audit.Query{}); !bytes.Equal(got, lines) {
		t.Errorf("%d bytes of entries, not %d", len(got), len(lines))
	}
	last := lines[:len(lines)-1]
	for range 300 {
		last = last[:bytes.LastIndexByte(last, '\n')]
	}
	if got := entriesOf(t, dir, audit.Query{Last: 300}); !bytes.Equal(got, lines[len(last)+1:]) {
		t.Errorf("the last 300 entries begin %.60q", got)
	}
	if rep, err := verify(t, dir, key); err != nil || rep.Signed != 1000 || rep.Segments != len(compressed)+1 || rep.Bytes != int64(len(lines)) {
		t.Errorf("%+v, %v", rep, err)
	}
	l := openAsIs(t, audit.Options{Dir: dir, Signer: key.Signer})
	put(t, l, 1, true)
	shut(t, l)
	if rep, err := verify(t, dir, key); err != nil || rep.Signed != 1001 {
		t.Errorf("gone on: %+v, %v", rep, err)
	}
	// A log that ends in a compressed segment goes on in a new one.
	os.Remove(filepath.Join(dir, plain[0]))
	os.Remove(filepath.Join(dir, "checkpoints"))
	l = openAsIs(t, audit.Options{Dir: dir, Signer: key.Signer})
	put(t, l, 1, true)
	shut(t, l)
	if rep, err := verify(t, dir, key); err != nil || rep.Unsigned != 0 {
		t.Errorf("without the last segment: %+v, %v", rep, err)
	}
	if again, _ := forms(t, dir); !slices.Equal(plain, again) {
		t.Errorf("the new segment is %v, not %v", again, plain)
	}
}

// The files are what other people's programs take for compressed ones.
func TestCompressedForOthers(t *testing.T) {
	zstd, err := exec.LookPath("zstd")
	if err != nil {
		if os.Getenv("GATEPASS_REAL") != "" {
			t.Fatal(err)
		}
		t.Skip("zstd is not here to read a compressed segment")
	}
	dir, lines := compressedLog(t, newKey(t), 1000)
	_, compressed := forms(t, dir)
	var out []byte
	for _, name := range compressed {
		one, err := exec.Command(zstd, "-dc", filepath.Join(dir, name)).Output()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, one...)
	}
	if len(out) == 0 || !bytes.HasPrefix(lines, out) {
		t.Errorf("it reads %d bytes that are not the log's", len(out))
	}
}

// Where both forms are there, the plain one counts, and what is in the other
// does not matter. It is compressed again.
func TestCompressAgain(t *testing.T) {
	key := newKey(t)
	dir, lines := compressedLog(t, key, 1000)
	im := read(t, dir)
	const first = "000001.jsonl"
	one := im[first+".zst"]
	plain := lines[:bytes.Index(lines, []byte("\n"+`{"seq":`+fmt.Sprint(lineCount(t, dir, 1))+","))+1]
	for name, other := range map[string][]byte{"whole": one, "torn": one[:len(one)/2], "of another": im["000002.jsonl.zst"], "empty": {}} {
		t.Run(name, func(t *testing.T) {
			dir := dirOf(t, im.with(first, plain).with(first+".zst", other))
			if rep, err := verify(t, dir, key); err != nil || rep.Signed != 1000 {
				t.Errorf("%+v, %v", rep, err)
			}
			if got := entriesOf(t, dir, audit.Query{}); !bytes.Equal(got, lines) {
				t.Error("the entries are not the log's")
			}
			synctest.Test(t, func(t *testing.T) {
				l := openAsIs(t, audit.Options{Dir: dir, Signer: key.Signer})
				synctest.Wait()
				shut(t, l)
			})
			if after := read(t, dir); !bytes.Equal(after[first+".zst"], one) || after[first] != nil {
				t.Errorf("not compressed again")
			}
		})
	}
}

// lineCount returns how many entries segment num of a log has, which is
// compressed.
func lineCount(t testing.TB, dir string, num int) int64 {
	t.Helper()
	all, err := audit.ReadCompressed(filepath.Join(dir, fmt.Sprintf("%06d.jsonl.zst", num)))
	if err != nil {
		t.Fatal(err)
	}
	return int64(bytes.Count(all, []byte("\n")))
}

// What is not as it was written is not compressed: it stays as evidence.
func TestCompressNothingChanged(t *testing.T) {
	key := newKey(t)
	dir := logDir(t)
	opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 20 << 10}
	l := open(t, opts)
	put(t, l, 100, false)
	shut(t, l)
	im := read(t, dir)
	changed := im.with("000002.jsonl", bytes.Replace(im["000002.jsonl"], []byte("alice"), []byte("malia"), 1))
	changed.write(t, dir)
	synctest.Test(t, func(t *testing.T) {
		l := openAsIs(t, opts)
		synctest.Wait()
		shut(t, l)
	})
	after := read(t, dir)
	if !bytes.Equal(after["000002.jsonl"], changed["000002.jsonl"]) || after["000002.jsonl.zst"] != nil || after["000001.jsonl.zst"] == nil || after["000003.jsonl.zst"] == nil {
		plain, compressed := forms(t, dir)
		t.Errorf("plain %v, compressed %v", plain, compressed)
	}
	if rep, err := verify(t, dir, key); err == nil || rep.Problem.File != "000002.jsonl" {
		t.Errorf("%+v", rep.Problem)
	}
}

// Nothing is compressed that no checkpoint covers.
func TestCompressOnlySigned(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	opts := audit.Options{Dir: dir, SegmentSize: 20 << 10}
	synctest.Test(t, func(t *testing.T) {
		signed := opts
		signed.Signer = key.Signer
		l := open(t, signed)
		fillTo(t, l, opts, 3)
		shut(t, l)
		for range 2 { // it is looked at when the log is opened
			l = openAsIs(t, opts)
			fillTo(t, l, opts, 5)
			settle()
			shut(t, l)
		}
	})
	if plain, compressed := forms(t, dir); len(plain) < 3 || !slices.Equal(compressed, []string{"000001.jsonl.zst", "000002.jsonl.zst"}) {
		t.Errorf("plain %v, compressed %v", plain, compressed)
	}
}
