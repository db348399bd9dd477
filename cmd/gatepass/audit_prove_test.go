package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatepass/broker/audit"
)

// What goes wrong on the command line has its exit status, and prints nothing
// that could be taken for a proof.
func TestAuditEvidenceRefusals(t *testing.T) {
	h, _ := logged(t)
	bare := newHome(t)
	dir := h.env["HOME"]
	proof := filepath.Join(dir, "proof")
	if r := h.run("audit", "prove", "3", "-o", proof); r != (result{}) {
		t.Fatalf("%+v", r)
	}
	if info, err := os.Stat(proof); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, []byte(strings.Repeat("x", audit.MaxProof+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(h.run("audit", "key").stdout)
	for _, tt := range []struct {
		h    *home
		args []string
		code int
	}{
		{h, []string{"verify", "--against", ""}, 64},
		{h, []string{"verify", "--key", ""}, 78},
		{h, []string{"checkpoint", "more"}, 64},
		{h, []string{"key", "more"}, 64},
		{h, []string{"prove"}, 64},
		{h, []string{"prove", "1", "2"}, 64},
		{h, []string{"prove", "x"}, 64},
		{h, []string{"prove", "--", "-1"}, 64},
		{h, []string{"prove", "1", "--output", ""}, 64},
		{h, []string{"prove", "6"}, 78},
		{h, []string{"prove", "1", "--key", "missing.pub"}, 78},
		{h, []string{"check-proof"}, 64},
		{h, []string{"check-proof", dir}, 78},
		{h, []string{"check-proof", proof + ".missing"}, 78},
		{h, []string{"check-proof", big}, 65},
		{h, []string{"check-proof", proof, "--key", proof}, 65},
		{bare, []string{"key"}, 78},
		{bare, []string{"checkpoint"}, 78},
		{bare, []string{"checkpoint", "--key", key}, 78},
		{bare, []string{"prove", "0", "--key", key}, 78},
		{bare, []string{"check-proof", proof}, 78},
	} {
		if r := tt.h.run(append([]string{"audit"}, tt.args...)...); r.code != tt.code || r.stdout != "" || r.stderr == "" {
			t.Errorf("%q: %+v, not %d", tt.args, r, tt.code)
		}
	}

	// A key that is named is not called the pinned one.
	for _, name := range []string{"missing.pub", proof, dir} {
		for _, args := range [][]string{{"verify"}, {"reconcile", dir}} {
			r := h.run(append(append([]string{"audit"}, args...), "--key", name)...)
			if !strings.Contains(r.stderr, "read the public key to trust: ") || strings.Contains(r.stderr, "pinned") || strings.Contains(r.stderr, "--no-verify") {
				t.Errorf("%q --key %s: %+v", args, name, r)
			}
		}
	}

	// With the key itself on the command line all is well.
	for _, args := range [][]string{{"verify"}, {"checkpoint"}, {"prove", "3"}, {"check-proof", proof}, {"check-proof", proof, "--json"}} {
		if r := h.run(append(append([]string{"audit"}, args...), "--key", key)...); r.code != 0 || r.stderr != "" || r.stdout == "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

// A proof shows what it proves, and what a terminal would obey stays text.
func TestAuditCheckProofShowsTheEntry(t *testing.T) {
	h, entries := logged(t)
	h.stdin = h.run("audit", "prove", "4").stdout
	r := h.run("audit", "check-proof", "-")
	for _, want := range []string{"entry 4 of the log test/log, signed when it had 6 entries:\n{\n", `"event": "request.denied",`, `"program": "python3 \u001b[31mevil"`, "\n}\n"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in %+v", want, r)
		}
	}
	if r := h.run("audit", "check-proof", "-", "--json"); r != (result{stdout: entries[4]}) {
		t.Errorf("--json: %+v", r)
	}
}
