//go:build unix

package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gatepass/broker/prompt/program"
)

func TestAnchorCommand(t *testing.T) {
	if anchorBy("", nil) != nil {
		t.Error("no command is run")
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	t.Setenv(passphraseVariable, "hunter2")
	dir := t.TempDir()
	env := program.Env(os.Environ())
	// It appends what it gets, and says what it sees.
	command := "cat >> '" + dir + "/kept'; env > '" + dir + "/env'; pwd > '" + dir + "/pwd'"
	for range 2 {
		if err := anchorBy(command, env)(t.Context(), []byte("a checkpoint\n")); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"kept": "a checkpoint\na checkpoint\n", "pwd": "/\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "env")); err != nil || strings.Contains(string(got), "hunter2") || !strings.Contains(string(got), "PATH=") {
		t.Errorf("its environment: %s, %v", got, err)
	}
	for command, want := range map[string]string{
		"exit 3": "ended with status 3", "kill -9 $$": "ended with status -1", "/nonexistent/program": "status 127",
		"true": "", "yes | head -c 1000000; yes | head -c 1000000 >&2": "", "sleep 5 &": "",
	} {
		err := anchorBy(command, env)(t.Context(), []byte("a checkpoint\n"))
		if (err == nil) != (want == "") || err != nil && !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v", command, err)
		}
	}
}

// A daemon that ends does not wait for the command, nor leave it behind.
func TestAnchorCommandIsEnded(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		// The shell's child is what hangs, with the pipe open.
		done <- anchorBy("exec 3> '"+pipe+"'; sleep 1000 & echo up >&3; wait", program.Env(os.Environ()))(ctx, nil)
	}()
	f, err := os.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	up := make([]byte, 3)
	if _, err := io.ReadFull(f, up); err != nil || string(up) != "up\n" {
		t.Fatalf("%q, %v", up, err)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Error(err)
	}
	if rest, err := io.ReadAll(f); len(rest) > 0 || err != nil { // ends when nobody has the pipe open
		t.Errorf("%q, %v", rest, err)
	}
}
