package audit_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// image is a log's directory in memory.
type image map[string][]byte

func read(t testing.TB, dir string) image {
	t.Helper()
	im := image{}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if im[n.Name()], err = os.ReadFile(filepath.Join(dir, n.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return im
}

func (im image) write(t testing.TB, dir string) {
	t.Helper()
	os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range im {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// dirOf is a directory that holds im.
func dirOf(t testing.TB, im image) string {
	t.Helper()
	dir := logDir(t)
	im.write(t, dir)
	return dir
}

// with returns im with one file replaced; nil removes it.
func (im image) with(name string, b []byte) image {
	im = maps.Clone(im)
	if im[name] = b; b == nil {
		delete(im, name)
	}
	return im
}

// signedLog is a closed log in segments of 6 KiB, to which each of so many runs
// of the daemon has added entries and a checkpoint.
func signedLog(t testing.TB, runs, each int) (im image, key testKey) {
	t.Helper()
	dir, key := logDir(t), newKey(t)
	for range runs {
		l := open(t, audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 6 << 10})
		put(t, l, each, true)
		shut(t, l)
	}
	return read(t, dir), key
}

func verify(t testing.TB, dir string, key testKey) (audit.Report, error) {
	t.Helper()
	return verifyAgainst(t, dir, key, "")
}

// verifyAgainst verifies, and has the second verifier agree.
func verifyAgainst(t testing.TB, dir string, key testKey, file string) (audit.Report, error) {
	t.Helper()
	rep, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir, Key: key.verifier, Against: file})
	var kept []byte
	if file != "" {
		var rerr error
		if kept, rerr = os.ReadFile(file); rerr != nil {
			t.Fatal(rerr)
		}
	}
	signed, second := bySpecification(read(t, dir), key.verifier, string(kept))
	if (err == nil) != (second == nil) || err == nil && signed != rep.Signed {
		t.Errorf("it says that %d are signed, %v; the second verifier %d, %v", rep.Signed, err, signed, second)
	}
	if (err == nil) != (rep.Problem == nil) || err != nil && broker.CodeOf(err) != broker.CodeData {
		t.Fatalf("problem %v, but error %v", rep.Problem, err)
	}
	return rep, err
}

// TestFlipEveryByte changes each byte of the entries and of the checkpoints;
// every change must be found, and be named where it is.
func TestFlipEveryByte(t *testing.T) {
	if raceEnabled {
		t.Skip("nobody writes meanwhile: nothing can race")
	}
	dir, key := logDir(t), newKey(t)
	for range 2 {
		l := open(t, audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 300})
		for range 2 {
			if err := l.Append(t.Context(), broker.Event{Kind: broker.EventDaemonStarted, Outcome: broker.OutcomeOK, Profile: "ä"}, true); err != nil {
				t.Fatal(err)
			}
		}
		shut(t, l)
	}
	im := read(t, dir)
	if rep, err := verify(t, dir, key); err != nil || rep.Checkpoints < 2 || rep.Segments < 2 {
		t.Fatalf("before: %+v, %v", rep, err)
	}
	for name, b := range im {
		if name == "lock" || name == "hashes" {
			continue
		}
		// The seq of the entry that each byte is in.
		seq := int64(-1)
		if strings.HasSuffix(name, ".jsonl") {
			fmt.Sscanf(string(b), `{"seq":%d,`, &seq)
		}
		file := filepath.Join(dir, name)
		line := int64(1)
		for i := range b {
			was := b[i]
			for _, to := range []byte{was ^ 1, '\n', 0xff} {
				if to == was {
					continue
				}
				b[i] = to
				if err := os.WriteFile(file, b, 0o600); err != nil {
					t.Fatal(err)
				}
				rep, err := verify(t, dir, key)
				switch p := rep.Problem; {
				case err == nil:
					t.Fatalf("%s: byte %d from %q to %q is not found", name, i, was, to)
				case seq >= 0 && (p.Seq != seq || p.File != name || p.Line != line):
					t.Errorf("%s: byte %d in line %d, entry %d, from %q to %q: found as entry %d, %s", name, i, line, seq, was, to, p.Seq, p)
				case seq < 0 && p.File != name && !strings.HasSuffix(p.File, ".jsonl"):
					t.Errorf("%s: byte %d from %q to %q: found as %s", name, i, was, to, p)
				}
				b[i] = was
			}
			if was == '\n' {
				line++
				if seq >= 0 {
					seq++
				}
			}
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTamperLines removes, repeats, swaps and adds lines, with the numbers
// left as they are and with the numbers put right.
func TestTamperLines(t *testing.T) {
	im, key := signedLog(t, 2, 8)
	dir := logDir(t)
	var names []string
	for name := range im {
		if strings.HasSuffix(name, ".jsonl") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	first := int64(0)
	for _, name := range names {
		lines := bytes.SplitAfter(im[name], []byte("\n"))
		lines = lines[:len(lines)-1]
		for i := range lines {
			for _, tt := range []struct {
				what  string
				lines [][]byte
			}{
				{"remove", slices.Delete(slices.Clone(lines), i, i+1)},
				{"double", slices.Insert(slices.Clone(lines), i, lines[i])},
				{"swap", swapped(lines, i)},
				{"insert", slices.Insert(slices.Clone(lines), i, []byte("{}\n"))},
				{"empty", slices.Insert(slices.Clone(lines), i, []byte("\n"))},
				{"truncate", lines[:i]},
			} {
				if tt.lines == nil {
					continue
				}
				im.with(name, slices.Concat(tt.lines...)).write(t, dir)
				rep, err := verify(t, dir, key)
				want := first + int64(i)
				if tt.what == "double" {
					want++ // the first of the two is right
				}
				if err == nil {
					t.Errorf("%s line %d of %s: not found", tt.what, i+1, name)
				} else if rep.Problem.Seq != want {
					t.Errorf("%s line %d of %s: found as entry %d, not %d: %s", tt.what, i+1, name, rep.Problem.Seq, want, rep.Problem)
				}
			}
		}
		first += int64(len(lines))
	}
	// Somebody who numbers the lines anew is found by the tree.
	all := bytes.SplitAfter(slices.Concat(im[names[0]]), []byte("\n"))
	all = all[:len(all)-1]
	forged := slices.Clone(all[:2])
	for i, line := range all[3:] {
		_, rest, _ := bytes.Cut(line, []byte(","))
		forged = append(forged, fmt.Appendf(nil, `{"seq":%d,%s`, i+2, rest))
	}
	im.with(names[0], slices.Concat(forged...)).write(t, dir)
	if rep, err := verify(t, dir, key); err == nil || rep.Problem.Seq != 2 {
		t.Errorf("numbered anew: %v, %v", rep.Problem, err)
	}
}

// TestAppendByHand adds lines at the end of each segment. In the middle of the
// log all are found; after its last checkpoint what could be an entry is told
// as one that nobody signed.
func TestAppendByHand(t *testing.T) {
	im, key := signedLog(t, 2, 8)
	dir := logDir(t)
	const more = `{"seq":%d,"time":"2026-11-23T08:40:10.123456Z","event":"key.removed","outcome":"ok"}` + "\n"
	next := int64(0)
	for _, num := range []string{"000001.jsonl", "000002.jsonl"} {
		lines := bytes.SplitAfter(im[num], []byte("\n"))
		next += int64(len(lines)) - 1
		last := num == "000002.jsonl"
		for name, b := range map[string][]byte{
			"the next one":         fmt.Appendf(nil, more, next),
			"the one after it":     fmt.Appendf(nil, more, next+1),
			"the first one again":  lines[0],
			"the last one again":   lines[len(lines)-2],
			"something else":       []byte("hello\n"),
			"an empty line":        []byte("\n"),
			"one without its end":  bytes.TrimSuffix(fmt.Appendf(nil, more, next), []byte("\n")),
			"one that repeats seq": bytes.Replace(fmt.Appendf(nil, more, next), []byte("}"), fmt.Appendf(nil, `,"seq":%d}`, next+1), 1),
		} {
			im.with(num, append(bytes.Clone(im[num]), b...)).write(t, dir)
			rep, err := verify(t, dir, key)
			switch {
			case last && name == "the next one":
				if err != nil || rep.Unsigned != 1 || rep.Signed != next {
					t.Errorf("%s: %s: %+v, %v", num, name, rep, err)
				}
			case last && name == "one without its end":
				if err != nil || rep.Unsigned != 0 || rep.Partial == 0 {
					t.Errorf("%s: %s: %+v, %v", num, name, rep, err)
				}
			case err == nil || rep.Problem.Seq != next || rep.Problem.File != num || rep.Problem.Line != int64(len(lines)):
				t.Errorf("%s: %s: %+v, %v", num, name, rep, err)
			}
		}
	}
	if len(im["000003.jsonl"]) > 0 {
		t.Fatal("there is a third segment")
	}
}

// TestTruncate cuts each file to each length. What the entries lose is found
// and named; what the checkpoints lose, together with the entries or not, is
// found by one that was kept elsewhere, and by it alone.
func TestTruncate(t *testing.T) {
	if raceEnabled {
		t.Skip("nobody writes meanwhile: nothing can race")
	}
	dir, key := logDir(t), newKey(t)
	var sizes []int64
	for n := range int64(2) {
		l := open(t, audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 300})
		for range 2 {
			if err := l.Append(t.Context(), broker.Event{Kind: broker.EventDaemonStarted, Outcome: broker.OutcomeOK}, true); err != nil {
				t.Fatal(err)
			}
		}
		shut(t, l)
		sizes = append(sizes, n*2+1, n*2+2)
	}
	im := read(t, dir)
	first := int64(0)
	for _, name := range []string{"000001.jsonl", "000002.jsonl"} {
		for n := range im[name] {
			im.with(name, im[name][:n]).write(t, dir)
			rep, err := verify(t, dir, key)
			if want := first + int64(bytes.Count(im[name][:n], []byte("\n"))); err == nil || rep.Problem.Seq != want {
				t.Errorf("%s cut to %d bytes: found as %+v, not as entry %d", name, n, rep.Problem, want)
			}
		}
		first += int64(bytes.Count(im[name], []byte("\n")))
	}
	if first != 4 {
		t.Fatalf("%d entries in two segments", first)
	}
	kept := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(kept, head(t, dir, key), 0o600); err != nil {
		t.Fatal(err)
	}
	for n := range im["checkpoints"] {
		fewer := im.with("checkpoints", im["checkpoints"][:n])
		fewer.write(t, dir)
		rep, err := verify(t, dir, key)
		if err != nil || rep.Entries != 4 || rep.Signed != 0 && !slices.Contains(sizes, rep.Signed) {
			t.Errorf("checkpoints cut to %d bytes: %+v, %v", n, rep, err)
		}
		if rep, err := verifyAgainst(t, dir, key, kept); err != nil || rep.Signed != 4 {
			t.Errorf("checkpoints cut to %d bytes, against one that was kept: %+v, %v", n, rep, err)
		}
		// Without the last entry this is an older copy, or would be one.
		lines := bytes.SplitAfter(im["000002.jsonl"], []byte("\n"))
		fewer.with("000002.jsonl", slices.Concat(lines[:len(lines)-2]...)).write(t, dir)
		if _, alone := verify(t, dir, key); (alone == nil) != (rep.Signed < 4) {
			t.Errorf("checkpoints cut to %d bytes, and the last entry: %v", n, alone)
		}
		if found, err := verifyAgainst(t, dir, key, kept); err == nil || rep.Signed < 4 && found.Problem.File != kept {
			t.Errorf("checkpoints cut to %d bytes, and the last entry, against one that was kept: %+v", n, found)
		}
	}
}

func swapped(lines [][]byte, i int) [][]byte {
	if i+1 == len(lines) {
		return nil
	}
	lines = slices.Clone(lines)
	lines[i], lines[i+1] = lines[i+1], lines[i]
	return lines
}

func TestTamperFiles(t *testing.T) {
	im, key := signedLog(t, 3, 8)
	other, otherKey := signedLog(t, 3, 8)
	dir := logDir(t)
	notes := bytes.SplitAfter(im["checkpoints"], []byte("\n\n"))
	for _, tt := range []struct {
		name string
		im   image
		want string
	}{
		{"segment in the middle", im.with("000002.jsonl", nil), "000002.jsonl"},
		{"first segment", im.with("000001.jsonl", nil), "000001.jsonl"},
		{"all segments", im.with("000001.jsonl", nil).with("000002.jsonl", nil).with("000003.jsonl", nil).with("000004.jsonl", nil), "ends before entry 0"},
		{"segment emptied", im.with("000002.jsonl", []byte{}), "the entries 8 to 15 are missing"},
		{"another log's segment", im.with("000001.jsonl", other["000001.jsonl"]), "entry 0 was changed"},
		{"another log's checkpoints", im.with("checkpoints", other["checkpoints"]), "not"},
		{"another log's checkpoints and entries", other, "not the key to trust"},
		{"another log's checkpoint added", im.with("checkpoints", slices.Concat(im["checkpoints"], other["checkpoints"])), "checkpoint"},
		{"checkpoints in another order", im.with("checkpoints", slices.Concat(notes[2], notes[3], notes[0], notes[1])), "follows"},
		{"rubbish after the checkpoints", im.with("checkpoints", append(slices.Clone(im["checkpoints"]), "x"...)), "checkpoint"},
		{"hashes gone", im.with("hashes", nil).with("000002.jsonl", bytes.Replace(im["000002.jsonl"], []byte("alice"), []byte("malia"), 1)), "one of the entries"},
		{"hashes of another log", im.with("hashes", other["hashes"]).with("000002.jsonl", bytes.Replace(im["000002.jsonl"], []byte("alice"), []byte("malia"), 1)), "one of the entries"},
	} {
		tt.im.write(t, dir)
		rep, err := verify(t, dir, key)
		if err == nil {
			t.Errorf("%s: not found", tt.name)
		} else if !strings.Contains(rep.Problem.String(), tt.want) {
			t.Errorf("%s: %s (want %q)", tt.name, rep.Problem, tt.want)
		}
	}
	// Derived data does not matter while the log is whole.
	im.with("hashes", nil).write(t, dir)
	if _, err := verify(t, dir, key); err != nil {
		t.Error(err)
	}
	im.write(t, dir)
	if _, err := verify(t, dir, otherKey); err == nil {
		t.Error("verifies with a key that did not sign it")
	}
	if _, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir}); err == nil {
		t.Error("verifies without a key")
	}
	if _, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir + "x", Key: key.verifier}); broker.CodeOf(err) != broker.CodeNotFound {
		t.Errorf("no log: %v", err)
	}
}

// TestUnsignedTail says what verify sees of entries that nothing signs yet:
// that they are entries, and their numbers.
func TestUnsignedTail(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	l := open(t, audit.Options{Dir: dir, Signer: key.Signer})
	put(t, l, 5, true)
	shut(t, l)
	l = open(t, audit.Options{Dir: dir})
	put(t, l, 3, true)
	shut(t, l)
	im := read(t, dir)
	rep, err := verify(t, dir, key)
	if err != nil || rep.Signed != 5 || rep.Unsigned != 3 {
		t.Errorf("%+v, %v", rep, err)
	}
	seg := im["000001.jsonl"]
	lines := bytes.SplitAfter(seg, []byte("\n"))
	for _, tt := range []struct {
		name  string
		b     []byte
		found bool
	}{
		{"torn", append(slices.Clone(seg), `{"seq":8,"ti`...), false},
		{"removed", slices.Concat(slices.Delete(slices.Clone(lines), 6, 7)...), true},
		{"not JSON", bytes.Replace(seg, []byte(`"prod-admin","account":"111122223333","role_arn":"arn:aws:iam::111122223333:role/Admin"`), []byte(`prod-admin","account":"111122223333","role_arn":"arn:aws:iam::111122223333:role/Admin"`), -1), true},
		{"control", slices.Concat(seg[:len(seg)-2], []byte(",\"x\":\"\x1b\"}\n")), true},
		{"repeated field", slices.Concat(seg[:len(seg)-2], []byte(",\"seq\":3}\n")), true},
		{"rubbish", append(slices.Clone(seg), "rubbish\n"...), true},
	} {
		im.with("000001.jsonl", tt.b).write(t, dir)
		if rep, err := verify(t, dir, key); (err != nil) != tt.found {
			t.Errorf("%s: %+v", tt.name, rep)
		}
	}
}
