package forward

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func headersFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadHeaders(t *testing.T) {
	got, err := readHeaders(headersFile(t, "# of the collector\n\nauthorization:  Bearer hunter2 \r\nX-Tenant: a:b\n", 0o600))
	if err != nil || len(got) != 2 || got.Get("Authorization") != "Bearer hunter2" || got.Get("X-Tenant") != "a:b" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestReadHeadersRefuses(t *testing.T) {
	for _, tt := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"Authorization: hunter2\n", 0o640, "lets others in"},
		{"Authorization: hunter2\n", 0o604, "lets others in"},
		{"\nhunter2\n", 0o600, "line 2 of"},
		{"A b: hunter2\n", 0o600, "line 1 of"},
		{": hunter2\n", 0o600, "line 1 of"},
		{"A: \n", 0o600, "line 1 of"},
		{"A: hunter2\x00\n", 0o600, "line 1 of"},
		{"A: hunter2\rB: c\n", 0o600, "line 1 of"},
		{"content-type: hunter2\n", 0o600, "not for it"},
		{"Host: hunter2\n", 0o600, "not for it"},
		{strings.Repeat("A: hunter2\n", maxHeaders/11+1), 0o600, "longer than"},
	} {
		if runtime.GOOS == "windows" && tt.mode != 0o600 {
			continue
		}
		got, err := readHeaders(headersFile(t, tt.text, tt.mode))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.40q: got %v, %v, want %q", tt.text, got, err, tt.want)
		}
	}
	if _, err := readHeaders(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
}
