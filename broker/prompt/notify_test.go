//go:build unix

package prompt_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatepass/broker/prompt"
)

// With a desktop the text is a notification, of which no part is markup.
func TestNotifyDesktop(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "notify-send")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nprintf '%s|' \"$@\" \"$DISPLAY\" >"+dir+"/told\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := prompt.New(prompt.Config{
		Env: []string{"PATH=/usr/bin:/bin"}, Desktop: []string{"DISPLAY=:7"},
		Look: func(name string) (string, error) { return filepath.Join(dir, name), nil },
	})
	p.Notify(t.Context(), "lease <b>l-1</b>\x1b ends", "")
	told, err := os.ReadFile(filepath.Join(dir, "told"))
	if want := "--app-name=gatepass|--|gatepass|lease &lt;b&gt;l-1&lt;/b&gt;? ends|:7|"; string(told) != want {
		t.Errorf("told %q, %v", told, err)
	}
}

// What is no terminal of ours is not written to.
func TestNotifyWritesOnTerminalsAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := prompt.New(prompt.Config{})
	for _, tty := range []string{"", file, "/dev/../" + file, "/dev/nowhere"} {
		p.Notify(t.Context(), "text", tty)
	}
	if got, err := os.ReadFile(file); err != nil || len(got) > 0 {
		t.Errorf("the file holds %q, %v", got, err)
	}
	if env := prompt.Desktop([]string{"DISPLAY=:0", "AWS_SECRET_ACCESS_KEY=x", "DBUS_SESSION_BUS_ADDRESS=unix:path=/x"}); strings.Join(env, " ") != "DISPLAY=:0 DBUS_SESSION_BUS_ADDRESS=unix:path=/x" {
		t.Errorf("the desktop's variables are %q", env)
	}
}
