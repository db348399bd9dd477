package audit_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// The public half is found again from the private one.
func TestVerifierKey(t *testing.T) {
	for range 20 { // base64 holds a plus sign in some
		signer, verifier, err := audit.GenerateKey(audit.KeyName("alice", "laptop"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := audit.VerifierKey(signer); err != nil || got != verifier {
			t.Fatalf("got %s, %v, want %s", got, err, verifier)
		}
	}
	for _, bad := range []string{"", "PRIVATE+KEY+a+b", "PRIVATE+KEY+a+b+AAAA", "PRIVATE+KEY+a+b+hunter2!"} {
		if got, err := audit.VerifierKey(broker.NewSecret(bad)); broker.CodeOf(err) != broker.CodeData || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %s, %v", bad, got, err)
		}
	}
}

func TestPinnedKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gatepass", "audit.pub")
	a, b := newKey(t).verifier, newKey(t).verifier
	if _, err := audit.ReadPinnedKey(file); broker.CodeOf(err) != broker.CodeNotFound {
		t.Errorf("no file: %v", err)
	}
	for _, bad := range []string{"", "x", a + a, "PRIVATE+KEY+x"} {
		if err := audit.WritePinnedKey(file, bad, true); broker.CodeOf(err) != broker.CodeData {
			t.Errorf("pinned %q: %v", bad, err)
		}
	}
	for range 2 { // the same key again is fine
		if err := audit.WritePinnedKey(file, a, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := audit.WritePinnedKey(file, b, false); broker.CodeOf(err) != broker.CodeData {
		t.Errorf("another key: %v", err)
	}
	if got, err := audit.ReadPinnedKey(file); got != a || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := audit.WritePinnedKey(file, b, true); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(file, []byte("rubbish"), 0o600)
	if _, err := audit.ReadPinnedKey(file); broker.CodeOf(err) != broker.CodeData {
		t.Errorf("rubbish: %v", err)
	}
	if err := audit.WritePinnedKey(file, a, false); err == nil {
		t.Error("rubbish is overwritten unasked")
	}
	for _, name := range []string{"", "a b", "a+b", "a\nb"} {
		if _, _, err := audit.GenerateKey(name); err == nil {
			t.Errorf("a key called %q", name)
		}
	}
	if _, _, err := audit.GenerateKey(audit.KeyName("a b", "h+\x00\xff")); err != nil {
		t.Error(err)
	}
}
