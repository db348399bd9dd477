package audit_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// checkProof checks a proof, and has the second verifier agree.
func checkProof(t testing.TB, proof []byte, key testKey) (audit.Proven, error) {
	t.Helper()
	got, err := audit.CheckProof(proof, key.verifier)
	entry, second := proofBySpecification(proof, key.verifier)
	if (err == nil) != (second == nil) || err == nil && !bytes.Equal(entry, got.Raw) {
		t.Errorf("it says %q, %v; the second verifier %q, %v; of\n%s", got.Raw, err, entry, second, proof)
	}
	if err != nil && broker.CodeOf(err) != broker.CodeData {
		t.Errorf("the code of %v is %s", err, broker.CodeOf(err))
	}
	return got, err
}

// Every entry of logs of every shape can be proved.
func TestProve(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	for n := int64(1); n <= 17; n++ {
		l := open(t, audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 2 << 10})
		put(t, l, 1, true)
		shut(t, l)
		lines := bytes.Split(segments(t, dir), []byte("\n"))
		for seq := range n {
			proof, err := audit.Prove(t.Context(), dir, key.verifier, seq)
			if err != nil {
				t.Fatalf("entry %d of %d: %v", seq, n, err)
			}
			got, err := checkProof(t, proof, key)
			if err != nil || got.Seq != seq || got.Size != n || !bytes.Equal(got.Raw, lines[seq]) || !strings.HasPrefix(key.verifier, got.Log+"+") {
				t.Errorf("entry %d of %d: %+v, %v", seq, n, got, err)
			}
		}
	}
}

// What is proved is what was signed, whatever the files say.
func TestProveFromDamagedFiles(t *testing.T) {
	im, key := signedLog(t, 3, 8)
	other, _ := signedLog(t, 3, 8)
	dir := logDir(t)
	changed := bytes.Replace(im["000002.jsonl"], []byte("alice"), []byte("malia"), 1)
	for _, tt := range []struct {
		name string
		im   image
		ok   []int64
		not  []int64
	}{
		{"whole", im, []int64{0, 8, 12, 23}, nil},
		{"no hashes", im.with("hashes", nil), []int64{0, 8, 23}, nil},
		{"hashes of another log", im.with("hashes", other["hashes"]), []int64{0, 8, 23}, nil},
		{"a changed entry", im.with("000002.jsonl", changed), []int64{0, 9, 23}, []int64{8}},
		{"a changed entry and no hashes", im.with("000002.jsonl", changed).with("hashes", nil), nil, []int64{0, 8, 23}},
		{"old entries are gone", im.with("000001.jsonl", nil), []int64{8, 23}, []int64{0, 7}},
		{"old entries are gone, and the hashes", im.with("000001.jsonl", nil).with("hashes", nil), nil, []int64{0, 8, 23}},
		{"no checkpoints", im.with("checkpoints", nil), nil, []int64{0}},
		{"a rubbish checkpoint", im.with("checkpoints", []byte("x\n0\n\n\n")), nil, []int64{0}},
		{"another log's checkpoints", im.with("checkpoints", other["checkpoints"]), nil, []int64{0}},
	} {
		tt.im.write(t, dir)
		for _, seq := range tt.ok {
			proof, err := audit.Prove(t.Context(), dir, key.verifier, seq)
			if err == nil {
				_, err = checkProof(t, proof, key)
			}
			if err != nil {
				t.Errorf("%s: entry %d: %v", tt.name, seq, err)
			}
		}
		for _, seq := range tt.not {
			if _, err := audit.Prove(t.Context(), dir, key.verifier, seq); broker.CodeOf(err) != broker.CodeData && broker.CodeOf(err) != broker.CodeNotFound {
				t.Errorf("%s: entry %d: %v", tt.name, seq, err)
			}
		}
	}
}

// Of a log that was pruned, what is left can be proved, with and without the
// file of hashes, and only that file knows the heads that were kept before.
func TestProveWhatIsLeft(t *testing.T) {
	key := newKey(t)
	dir := logDir(t)
	synctest.Test(t, func(t *testing.T) {
		opts := audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 10 << 10, Keep: 100 * 24 * time.Hour}
		l := prunable(t, opts, 4)
		dayByDay(t, l, 3)
		shut(t, l)
		im := read(t, dir)
		rep, err := verify(t, dir, key)
		if err != nil || rep.Pruned < 10 || rep.Signed != rep.Entries {
			t.Fatalf("%+v, %v", rep, err)
		}
		before := slices.Concat(bytes.SplitAfter(im["checkpoints"], []byte("\n\n"))[:2]...)
		kept := filepath.Join(t.TempDir(), "kept")
		for name, hashes := range map[string][]byte{"hashes": im["hashes"], "no hashes": nil, "empty hashes": make([]byte, len(im["hashes"]))} {
			im.with("hashes", hashes).write(t, dir)
			for seq := rep.Pruned - 1; seq < rep.Entries; seq += 1 + seq%5 {
				proof, err := audit.Prove(t.Context(), dir, key.verifier, seq)
				if seq < rep.Pruned {
					if broker.CodeOf(err) != broker.CodeNotFound {
						t.Errorf("%s: entry %d, which was pruned: %v", name, seq, err)
					}
					continue
				}
				if err == nil {
					_, err = checkProof(t, proof, key)
				}
				if err != nil {
					t.Fatalf("%s: entry %d: %v", name, seq, err)
				}
			}
			forged := audit.ForgeHead(before, key.signer)
			for _, tt := range []struct {
				head []byte
				want string
			}{{before, ""}, {forged, "they were written and signed anew"}} {
				if err := os.WriteFile(kept, tt.head, 0o600); err != nil {
					t.Fatal(err)
				}
				want := tt.want
				if name != "hashes" {
					want = "the file hashes, which could tell"
				}
				im.with("hashes", hashes).write(t, dir)
				_, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir, Key: key.verifier, Against: kept})
				if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("%s: against an older head: %v, want %q", name, err, want)
				}
				anchored := fmt.Appendf(nil, "2026-11-23T08:40:10.123456Z\n%s\n", bytes.TrimRight(tt.head, "\n"))
				im.with("hashes", hashes).with("anchored", anchored).write(t, dir)
				if _, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir, Key: key.verifier}); (err == nil) != (tt.want == "" || name != "hashes") {
					t.Errorf("%s: with an older head remembered: %v", name, err)
				}
			}
		}
	})
}

func TestProveRefuses(t *testing.T) {
	dir, key := logDir(t), newKey(t)
	l := open(t, audit.Options{Dir: dir, Signer: key.Signer})
	put(t, l, 5, true)
	shut(t, l)
	l = open(t, audit.Options{Dir: dir})
	put(t, l, 1, true)
	shut(t, l)
	for _, tt := range []struct {
		dir, key string
		seq      int64
		code     broker.Code
		want     string
	}{
		{dir, key.verifier, 5, broker.CodeData, "prove entry 5: it is not signed yet: the newest checkpoint covers the 5 entries before it"},
		{dir, key.verifier, 6, broker.CodeNotFound, "does not have so many entries"},
		{dir, key.verifier, -1, broker.CodeNotFound, "goes on with entry 0"},
		{dir, newKey(t).verifier, 0, broker.CodeData, "not by the key to trust"},
		{dir, "no key", 0, broker.CodeData, "the key to trust"},
		{dir + "x", key.verifier, 0, broker.CodeNotFound, "read the audit log"},
	} {
		if _, err := audit.Prove(t.Context(), tt.dir, tt.key, tt.seq); broker.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("entry %d: %v", tt.seq, err)
		}
	}
}

// aProof is a proof of entry 6 of 11, with a cosignature of a witness that
// nobody knows.
func aProof(t testing.TB) (proof []byte, key testKey) {
	t.Helper()
	im, key := signedLog(t, 1, 11)
	dir := dirOf(t, im)
	proof, err := audit.Prove(t.Context(), dir, key.verifier, 6)
	if err != nil {
		t.Fatal(err)
	}
	return append(proof, "— witness.example AAAAAQAAAAAA\n"...), key
}

func TestProofFlipEveryByte(t *testing.T) {
	if raceEnabled {
		t.Skip("nobody writes meanwhile: nothing can race")
	}
	proof, key := aProof(t)
	if _, err := checkProof(t, proof, key); err != nil {
		t.Fatal(err)
	}
	// What a witness signs is not ours to check, as the format wants it; all
	// but that line is.
	ours := bytes.Index(proof, []byte("— witness"))
	for i, was := range proof[:ours] {
		for _, to := range []byte{was ^ 1, was ^ 0x20, was + 1, '\n', 0xff} {
			if to == was {
				continue
			}
			proof[i] = to
			if got, err := checkProof(t, proof, key); err == nil {
				t.Errorf("byte %d from %q to %q: accepted, as entry %d", i, was, to, got.Seq)
			}
			proof[i] = was
		}
		if _, err := checkProof(t, proof[:i], key); err == nil {
			t.Errorf("cut to %d bytes: accepted", i)
		}
		if _, err := checkProof(t, slices.Delete(slices.Clone(proof), i, i+1), key); err == nil {
			t.Errorf("without byte %d: accepted", i)
		}
	}
}

func TestProofRefuses(t *testing.T) {
	proof, key := aProof(t)
	lines := bytes.SplitAfter(proof, []byte("\n"))
	edit := func(f func(lines [][]byte) [][]byte) []byte { return slices.Concat(f(slices.Clone(lines))...) }
	set := func(i int, s string) []byte {
		return edit(func(l [][]byte) [][]byte { l[i] = []byte(s); return l })
	}
	entry, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.TrimPrefix(string(lines[1]), "extra ")))
	other := bytes.Replace(entry, []byte("prod-admin"), []byte("test-admin"), 1)
	if bytes.Equal(entry, other) {
		t.Fatalf("%s", entry)
	}
	// A stranger's log of the same entries.
	im, stranger := signedLog(t, 1, 11)
	dir := dirOf(t, im)
	theirs, err := audit.Prove(t.Context(), dir, stranger.verifier, 6)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":                   nil,
		"only its name":             lines[0],
		"another version":           set(0, "c2sp.org/tlog-proof@v2\n"),
		"no entry":                  edit(func(l [][]byte) [][]byte { return slices.Delete(l, 1, 2) }),
		"another entry":             set(1, "extra "+base64.StdEncoding.EncodeToString(other)+"\n"),
		"an empty entry":            set(1, "extra \n"),
		"the entry in other base64": set(1, "extra "+base64.RawStdEncoding.EncodeToString(append(entry, '\n'))+"\n"),
		"the next entry's number":   set(2, "index 7\n"),
		"an entry beyond the tree":  set(2, "index 11\n"),
		"a number below 0":          set(2, "index -1\n"),
		"a number with a zero":      set(2, "index 06\n"),
		"a number too large":        set(2, "index 99999999999999999999\n"),
		"a hash less":               edit(func(l [][]byte) [][]byte { return slices.Delete(l, 3, 4) }),
		"a hash more":               edit(func(l [][]byte) [][]byte { return slices.Insert(l, 3, l[3]) }),
		"64 hashes":                 edit(func(l [][]byte) [][]byte { return slices.Insert(l, 3, slices.Repeat(l[3:4], 64)...) }),
		"hashes in another order":   edit(func(l [][]byte) [][]byte { l[3], l[4] = l[4], l[3]; return l }),
		"an empty line more":        edit(func(l [][]byte) [][]byte { return slices.Insert(l, 7, []byte("\n")) }),
		"something after it":        append(slices.Clone(proof), '\n'),
		"another checkpoint too":    append(slices.Clone(proof), slices.Concat([]byte("\n"), proof[bytes.Index(proof, []byte("\n\n"))+2:])...),
		"CRLF":                      bytes.ReplaceAll(proof, []byte("\n"), []byte("\r\n")),
		"a stranger's proof":        theirs,
		"a stranger's checkpoint":   slices.Concat(proof[:bytes.Index(proof, []byte("\n\n"))], theirs[bytes.Index(theirs, []byte("\n\n")):]),
		"too long":                  append(slices.Clone(proof), "— witness.example "+strings.Repeat("A", audit.MaxProof)+"\n"...),
	} {
		if got, err := audit.CheckProof(b, key.verifier); err == nil {
			t.Errorf("%s: accepted, as %+v", name, got)
		} else if broker.CodeOf(err) != broker.CodeData {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := proofBySpecification(b, key.verifier); err == nil {
			t.Errorf("%s: the second verifier accepts it", name)
		}
	}
}

// A signed leaf that is no entry, or is another's, is not shown as one: such a
// log only somebody with the key can make.
func TestProofOfWhatIsNoEntry(t *testing.T) {
	key := newKey(t)
	const good = `{"seq":0,"time":"2026-11-23T08:40:10.123456Z","event":"daemon.started"}`
	for _, tt := range []struct{ entry, origin, want string }{
		{good, "", ""},
		{good, "another/log", "a checkpoint of another log"},
		{`{"seq":1,"time":"2026-11-23T08:40:10.123456Z","event":"daemon.started"}`, "", "says that it is entry 1, and is entry 0"},
		{`{"seq":0,"time":"2026-11-23T08:40:10.123456Z","event":"daemon.started","reason":"` + "\x1b[2J" + `"}`, "", "escapes"},
		{`{"seq":0,"time":"2026-11-23T08:40:10.123456Z","event":"daemon.started","seq":1}`, "", "repeated"},
		{`hello`, "", "not an entry"},
	} {
		proof := audit.ForgeProof([]byte(tt.entry), key.signer, tt.origin)
		_, err := checkProof(t, proof, key)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.entry, err)
		}
	}
}

// fixedLog is a log of n entries that is the same in each process that fuzzes.
func fixedLog(t testing.TB, n int) (im image, key testKey) {
	t.Helper()
	const name = "gatepass-audit/alice@laptop/fuzzing2"
	seed := sha256.Sum256([]byte(name))
	public := append([]byte{1}, ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)...)
	id := sha256.Sum256(append([]byte(name+"\n"), public...))
	key = testKey{
		signer:   fmt.Sprintf("PRIVATE+KEY+%s+%x+%s", name, id[:4], base64.StdEncoding.EncodeToString(append([]byte{1}, seed[:]...))),
		verifier: fmt.Sprintf("%s+%x+%s", name, id[:4], base64.StdEncoding.EncodeToString(public)),
	}
	dir := logDir(t)
	l := open(t, audit.Options{Dir: dir, Signer: key.Signer, Now: func() time.Time { return time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC) }})
	put(t, l, n, true)
	shut(t, l)
	return read(t, dir), key
}

// FuzzCheckProof wants no panic, one way to write a proof, and nothing proved
// but what was signed.
func FuzzCheckProof(f *testing.F) {
	im, key := fixedLog(f, 11)
	proof, err := audit.Prove(f.Context(), dirOf(f, im), key.verifier, 6)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(proof)
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra \nindex 0\n\na\n1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if again, err := audit.RewriteProof(b); err == nil && !bytes.Equal(again, b) {
			t.Errorf("%q is also %q", b, again)
		}
		got, err := checkProof(t, b, key)
		if err == nil && (got.Seq != 6 || !bytes.Contains(proof, fmt.Appendf(nil, "extra %s\n", base64.StdEncoding.EncodeToString(got.Raw)))) {
			t.Errorf("it proves entry %d, %q", got.Seq, got.Raw)
		}
	})
}

// Where a log was pruned, its hashes say that what is left continues what was
// kept.
func TestContinues(t *testing.T) {
	im, _ := signedLog(t, 1, 21)
	dir := dirOf(t, im)
	if err := audit.CheckContinues(filepath.Join(dir, "hashes"), 21); err != nil {
		t.Error(err)
	}
}
