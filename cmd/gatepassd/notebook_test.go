package main

import (
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
)

func TestNotebook(t *testing.T) {
	dir := t.TempDir()
	b := notebook{filepath.Join(dir, "keys.json")}
	if notes, err := b.Notes(); err != nil || len(notes) > 0 {
		t.Fatalf("of nothing: %v, %v", notes, err)
	}
	rotation := &broker.Rotation{Step: broker.StepKept, Old: "AKIA1", Until: time.Date(2026, 11, 25, 9, 30, 0, 5, time.UTC)}
	for _, want := range []map[string]broker.KeyNote{
		{"a": {LastUsed: time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)}},
		{"a": {Rotation: rotation}, "b=,+@": {Rotated: rotation.Until}},
		{},
	} {
		if err := os.WriteFile(b.path+".new", []byte("what a killed daemon left"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := b.SaveNotes(want); err != nil {
			t.Fatal(err)
		}
		got, err := b.Notes()
		if rot := got["a"].Rotation; rot != nil { // compared by value
			if *rot != *rotation {
				t.Errorf("got %+v", *rot)
			}
			note := got["a"]
			note.Rotation = rotation
			got["a"] = note
		}
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if info, err := os.Stat(b.path); err != nil || info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d files", len(left))
	}
}

// What cannot be read is never an empty notebook, for it may tell of a rotation
// that is not finished.
func TestNotebookUnreadable(t *testing.T) {
	for name, text := range map[string]string{
		"empty":       "",
		"cut off":     `{"keys":{"a":{"rotation":{"step":"create"`,
		"of the kind": `{"keys":{"a":3}}`,
		"endless":     `{"keys":{}}` + strings.Repeat(" ", maxNotes),
	} {
		b := notebook{filepath.Join(t.TempDir(), "keys.json")}
		if err := os.WriteFile(b.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		notes, err := b.Notes()
		if broker.CodeOf(err) != broker.CodeData || notes != nil || !strings.Contains(broker.AsError(err).Hint, "move it away") {
			t.Errorf("%s: %v, %v", name, notes, err)
		}
	}
	dir := t.TempDir()
	b := notebook{filepath.Join(dir, "keys.json")}
	if err := os.Mkdir(b.path, 0o700); err != nil {
		t.Fatal(err)
	}
	if notes, err := b.Notes(); broker.CodeOf(err) != broker.CodeData {
		t.Errorf("a directory: %v, %v", notes, err)
	}
	// Nor does it become one by a failed write.
	err := b.SaveNotes(map[string]broker.KeyNote{"a": {}})
	if broker.CodeOf(err) != broker.CodeLogUnwritable || broker.AsError(err).Hint == "" {
		t.Errorf("written over a directory: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d files", len(left))
	}
	if err := (notebook{filepath.Join(t.TempDir(), "none", "keys.json")}).SaveNotes(nil); broker.CodeOf(err) != broker.CodeLogUnwritable {
		t.Errorf("without a directory: %v", err)
	}
}
