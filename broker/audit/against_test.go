package audit_test

import (
	"bytes"
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

	"golang.org/x/mod/sumdb/note"
)

// head returns the newest checkpoint of a log, as one keeps it elsewhere.
func head(t testing.TB, dir string, key testKey) []byte {
	t.Helper()
	h, err := audit.NewestHead(dir, key.verifier)
	if err != nil {
		t.Fatal(err)
	}
	return h.Checkpoint
}

// run is a run of the daemon that adds n entries.
func run(t testing.TB, dir string, key testKey, n int) {
	t.Helper()
	l := open(t, audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 4 << 10})
	put(t, l, n, true)
	shut(t, l)
}

// What the same user can do to a log, with its signing key in hand, that a
// checkpoint kept elsewhere tells.
func TestAgainst(t *testing.T) {
	dir, key, other := logDir(t), newKey(t), newKey(t)
	run(t, dir, key, 5)
	older, small := read(t, dir), head(t, dir, key)
	run(t, dir, key, 4)
	large := head(t, dir, key)
	run(t, dir, key, 3)
	im := read(t, dir)

	begun := func(key testKey, n ...int) image {
		dir := logDir(t)
		for _, n := range n {
			run(t, dir, key, n)
		}
		return read(t, dir)
	}
	anew, strangers := begun(key, 5, 4, 3), begun(other, 5, 4, 3)
	goneOn := func(im image, key testKey, n int) image {
		dir := dirOf(t, im)
		run(t, dir, key, n)
		return read(t, dir)
	}
	forked := goneOn(older, key, 7)
	dirLinked := dirOf(t, im)
	synctest.Test(t, func(t *testing.T) { // the entry that links them is signed later
		l := must(audit.Open(t.Context(), audit.Options{Dir: dirLinked, Signer: other.Signer}))
		defer l.Close(t.Context())
		put(t, l, 2, true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
	})
	linked := read(t, dirLinked)
	notes := bytes.SplitAfter(im["checkpoints"], []byte("\n\n"))
	fewer := im.with("checkpoints", slices.Concat(notes[:2]...))
	forged := bytes.Replace(small, []byte("\n5\n"), []byte("\n4\n"), 1)
	nobody, err := note.Sign(&note.Note{Text: strings.SplitAfter(string(large), "\n\n")[0][:bytes.Index(large, []byte("\n\n"))+1]}, must(note.NewSigner(other.signer)))
	if err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(t.TempDir(), "kept")
	work := logDir(t)
	for _, tt := range []struct {
		name    string
		im      image
		key     testKey
		against []byte
		want    string // in the problem, "" for none
		signed  int64
	}{
		{"its own", im, key, head(t, dir, key), "", 12},
		{"an older one", im, key, small, "", 12},
		{"two, one after the other", im, key, slices.Concat(small, large), "", 12},
		{"two, with an empty line, the newer one first", im.with("hashes", nil), key, slices.Concat(large, []byte("\n"), small, []byte("\n\n")), "", 12},
		{"the log's own file", im, key, im["checkpoints"], "", 12},
		{"an older copy", older, key, large, "covers 9 entries, and the log has 5: this is an older copy", 0},
		{"an older copy, which is the one that was kept", older, key, small, "", 5},
		{"begun anew with the same key", anew, key, small, "covers other entries than the log's 0 to 4: they were written and signed anew", 0},
		{"begun anew with another key", strangers, other, small, "this is another log, or it was begun anew", 0},
		{"an older copy that went on otherwise", forked, key, large, "covers other entries than the log's 0 to 8", 0},
		{"an older copy that went on otherwise, between two", forked, key, slices.Concat(small, large), "covers other entries than the log's 5 to 8", 0},
		{"a new key that follows", linked, other, large, "", 15},
		{"a new key that follows, and what it did not sign", linked, other, head(t, dirOf(t, anew), key), "covers other entries", 0},
		{"the newest checkpoints removed", fewer, key, head(t, dir, key), "", 12},
		{"another log's", im, key, strangers["checkpoints"], "was signed by " + name(other), 0},
		{"the right head, signed by nobody we know", im, key, nobody, "was signed by " + name(other), 0},
		{"cosigned as well", im, key, append(bytes.Clone(large), "— witness.example AAAAAQAAAAAA\n"...), "", 12},
	} {
		tt.im.write(t, work)
		if err := os.WriteFile(file, tt.against, 0o600); err != nil {
			t.Fatal(err)
		}
		rep, err := verifyAgainst(t, work, tt.key, file)
		switch {
		case tt.want == "" && (err != nil || rep.Signed != tt.signed || rep.Against == 0):
			t.Errorf("%s: %+v, %v", tt.name, rep, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || rep.Problem.File != file || rep.Problem.Line == 0):
			t.Errorf("%s: %+v, %v", tt.name, rep, err)
		}
	}

	// What is no checkpoint proves nothing.
	im.write(t, work)
	for name, b := range map[string][]byte{
		"empty": nil, "blank": []byte("\n\n"), "rubbish": []byte("rubbish\n"), "cut short": small[:len(small)-1],
		"forged": forged, "forged after a good one": slices.Concat(large, forged), "no signature": small[:bytes.Index(small, []byte("—"))],
		"too long": append(bytes.Clone(small), bytes.Repeat([]byte("\n"), 64<<20)...),
	} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		rep, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: work, Key: key.verifier, Against: file})
		if broker.CodeOf(err) != broker.CodeData || rep.Entries != 0 || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %+v, %v", name, rep, err)
		}
		if len(b) < 1<<20 {
			if _, err := bySpecification(im, key.verifier, string(b)); err == nil && len(bytes.TrimSpace(b)) > 0 {
				t.Errorf("%s: the second verifier accepts it", name)
			}
		}
	}
	if _, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: work, Key: key.verifier, Against: file + ".missing"}); broker.CodeOf(err) != broker.CodeNotFound {
		t.Errorf("missing: %v", err)
	}
	if _, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: work, Key: key.verifier, Against: work}); broker.CodeOf(err) != broker.CodeConfig {
		t.Errorf("a directory: %v", err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// name is a key's as messages have it, without its hash.
func name(key testKey) string {
	name, _, _ := strings.Cut(key.verifier, "+")
	return name
}

// Every byte of a kept checkpoint counts.
func TestAgainstFlipEveryByte(t *testing.T) {
	if raceEnabled {
		t.Skip("nobody writes meanwhile: nothing can race")
	}
	im, key := signedLog(t, 2, 5)
	dir := dirOf(t, im)
	kept := head(t, dir, key)
	file := filepath.Join(t.TempDir(), "kept")
	for i, was := range kept {
		for _, to := range []byte{was ^ 1, was ^ 0x20, '\n', 0xff} {
			if to == was {
				continue
			}
			kept[i] = to
			if err := os.WriteFile(file, kept, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir, Key: key.verifier, Against: file}); broker.CodeOf(err) != broker.CodeData {
				t.Errorf("byte %d from %q to %q: %v", i, was, to, err)
			}
			if _, err := bySpecification(im, key.verifier, string(kept)); err == nil {
				t.Errorf("byte %d from %q to %q: the second verifier accepts it", i, was, to)
			}
			kept[i] = was
		}
	}
}

// FuzzAgainst wants no panic, and no log taken for another one.
func FuzzAgainst(f *testing.F) {
	im, key := fixedLog(f, 6)
	dir := dirOf(f, im)
	shorter, _ := fixedLog(f, 4)
	other, _ := signedLog(f, 2, 3)
	f.Add(head(f, dir, key))
	f.Add(shorter["checkpoints"])
	f.Add(slices.Concat(im["checkpoints"], shorter["checkpoints"]))
	f.Add(other["checkpoints"])
	f.Add([]byte("a\n0\n" + "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— a AAAAAQAAAAAA\n"))
	file := filepath.Join(f.TempDir(), "kept")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		rep, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir, Key: key.verifier, Against: file})
		_, second := bySpecification(im, key.verifier, string(b))
		if (err == nil) != (second == nil && len(bytes.TrimSpace(b)) > 0) {
			t.Fatalf("it says %+v, %v; the second verifier %v", rep, err, second)
		}
		if err == nil && (rep.Against < 1 || !bytes.Contains(b, []byte(fmt.Sprintf("\n— %s ", name(key))))) {
			t.Errorf("%+v", rep)
		}
	})
}
