package keystore

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/mod/semver"
)

// keyring asks for versions with known holes; go.mod must raise them.
func TestMinimumVersions(t *testing.T) {
	gomod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	// go.mod lists every module that is linked, with the version that is
	// used, as the go line is above 1.17.
	used := map[string]string{}
	for line := range strings.Lines(string(gomod)) {
		if f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require ")); len(f) >= 2 {
			used[f[0]] = f[1]
			if f[0] == "replace" {
				t.Errorf("go.mod replaces a module: %s", line)
			}
		}
	}
	for module, least := range map[string]string{
		"github.com/dvsekhvalnov/jose2go": "v1.11.0", // GO-2023-2409, GO-2025-4123: a file that costs all CPU or memory
		"golang.org/x/sys":                "v0.49.0",
		"golang.org/x/term":               "v0.47.0",
		"github.com/danieljoos/wincred":   "v1.2.3",
	} {
		if v := used[module]; !semver.IsValid(v) || semver.Compare(v, least) < 0 {
			t.Errorf("%s is %q, must be %s or later", module, v, least)
		}
	}
}
