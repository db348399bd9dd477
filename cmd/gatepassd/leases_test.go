package main

import (
	"os"
	"path/filepath"
	"testing"

	"gatepass/broker"
	"gatepass/profiles"
)

// A room that cannot be made leaves nothing, and what is not the lease's stays,
// in the daemon's own directory too.
func TestRoomThatCannotBeMade(t *testing.T) {
	dir, here := t.TempDir(), t.TempDir()
	t.Chdir(here)
	config := filepath.Join(dir, "aws")
	kept := []string{filepath.Join(here, "config"), filepath.Join(dir, "elsewhere", "config"), filepath.Join(dir, "elsewhere", "token")}
	if err := os.Mkdir(filepath.Join(dir, "elsewhere"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(kept, config) {
		if err := os.WriteFile(path, []byte("[profile ops]\nregion = eu-west-1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := rooms{filepath.Join(dir, "leases")}
	l := &broker.Lease{ID: "l-1", Profiles: []string{"ops"}, Files: profiles.Files{Config: config}, Serve: "env"}
	// In its place is another directory, by way of a link.
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(r.dir, "l-1")); err != nil {
		t.Skipf("no link can be made here: %v", err)
	}
	if got, err := r.Open(l, "/usr/bin/gatepass"); broker.CodeOf(err) != broker.CodeConfig {
		t.Errorf("%q, %v", got, err)
	}
	for _, path := range kept {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(filepath.Join(r.dir, "l-1")); err != nil {
		t.Fatal(err)
	}
	got, err := r.Open(l, "/usr/bin/gatepass")
	if err != nil || got != filepath.Join(r.dir, "l-1") {
		t.Fatalf("%q, %v", got, err)
	}
	if err := r.Close(got); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(r.dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
