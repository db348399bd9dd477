//go:build unix

package wire

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"gatepass/broker"
)

func TestSocketPath(t *testing.T) {
	uid := os.Getuid()
	own, link, file := t.TempDir(), filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "file")
	if err := os.Symlink(own, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for _, tt := range []struct {
		name   string
		getenv func(string) string
		want   string // "" when it is the last resort
	}{
		{"named", env("GATEPASS_SOCKET", "/a/./b.sock", "XDG_RUNTIME_DIR", own), "/a/b.sock"},
		{"runtime directory", env("XDG_RUNTIME_DIR", own), own + "/gatepass/gatepass.sock"},
		{"relative runtime directory", env("XDG_RUNTIME_DIR", "run"), ""},
		{"runtime directory that is none", env("XDG_RUNTIME_DIR", file), ""},
		{"runtime directory that is a link", env("XDG_RUNTIME_DIR", link), ""},
		{"runtime directory that is not there", env("XDG_RUNTIME_DIR", own+"/none"), ""},
		{"nothing", env(), ""},
	} {
		got, err := SocketPath(tt.getenv, uid)
		if tt.want == "" {
			// Not what the variable says, whatever the machine has.
			if err != nil || strings.HasPrefix(got, own) || strings.HasPrefix(got, link) || strings.HasPrefix(got, file) || !filepath.IsAbs(got) {
				t.Errorf("%s: %q, %v", tt.name, got, err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
	// Of another user, as after su.
	if got, err := SocketPath(env("XDG_RUNTIME_DIR", own), uid+54321); err != nil || strings.HasPrefix(got, own) {
		t.Errorf("another user's runtime directory: %q, %v", got, err)
	}
	for _, bad := range []string{"gatepass.sock", "./a", "/" + strings.Repeat("x", 120)} {
		if got, err := SocketPath(env("GATEPASS_SOCKET", bad), uid); broker.CodeOf(err) != broker.CodeConfig {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
	limit := map[string]int{"linux": 107, "darwin": 103}[runtime.GOOS]
	if _, err := SocketPath(env("GATEPASS_SOCKET", "/"+strings.Repeat("x", limit-1)), uid); err != nil {
		t.Errorf("the longest path: %v", err)
	}
	if _, err := SocketPath(env("GATEPASS_SOCKET", "/"+strings.Repeat("x", limit)), uid); broker.CodeOf(err) != broker.CodeConfig {
		t.Errorf("a byte more: %v", err)
	}
}

// In /tmp anybody could have made the directory before us.
func TestSocketPathInTmp(t *testing.T) {
	if os.Getuid() != 0 && os.Getenv("XDG_RUNTIME_DIR") != "" {
		t.Log("the directory is made as this user, and taken for another's")
	}
	nowhere := func(string) string { return "" }
	uid := 900000 + os.Getpid()%90000 // nobody's
	dir := fmt.Sprintf("/tmp/gatepass-%d", uid)
	want := dir + "/gatepass.sock"
	if got, err := SocketPath(nowhere, uid); err != nil || got != want {
		t.Fatalf("%q, %v, want %q", got, err, want)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if got, err := SocketPath(nowhere, uid); broker.CodeOf(err) != broker.CodeConfig {
		t.Errorf("another user's directory: %q, %v", got, err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
		if got, err := SocketPath(nowhere, uid); err != nil || got != want {
			t.Errorf("his own directory: %q, %v", got, err)
		}
		if err := os.Chmod(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		if got, err := SocketPath(nowhere, uid); broker.CodeOf(err) != broker.CodeConfig {
			t.Errorf("a directory that others may enter: %q, %v", got, err)
		}
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), dir); err != nil {
		t.Fatal(err)
	}
	if got, err := SocketPath(nowhere, uid); broker.CodeOf(err) != broker.CodeConfig {
		t.Errorf("a link: %q, %v", got, err)
	}
}
