package main

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

// packages lists what is below each package of this module, for one platform.
func packages(t *testing.T, goos string) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Standard", "gatepass/...")
	cmd.Env = append(cmd.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	var list []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

// The imports form a star: the domain in the middle needs the standard
// library alone, its siblings do not know one another, and each library that
// brings risk or weight is imported in one place.
func TestImportsFormAStar(t *testing.T) {
	siblings := []string{"audit", "endpoint", "keystore", "policy", "prompt", "scope", "sts", "wire"}
	sibling := func(path string) string {
		rest, ok := strings.CutPrefix(path, "gatepass/broker/")
		if !ok {
			return ""
		}
		name, _, _ := strings.Cut(rest, "/")
		return name
	}
	only := map[string]string{ // a library or package: who may import it
		"github.com/99designs/keyring": "keystore",
		"github.com/godbus/dbus":       "keystore",
		"github.com/godbus/dbus/v5":    "scope",
		"github.com/aws":               "sts",
		"golang.org/x/net":             "sts",
		"github.com/Microsoft":         "wire",
		"github.com/urfave/cli":        "gatepass",
		"golang.org/x/mod":             "audit, gatepassd",
		"github.com/pelletier/go-toml": "gatepassd, gatepass-sandbox, sts/ststest",
		"gatepass/broker/sts/ststest":  "gatepass-sandbox",
		"gatepass/broker/keystore":     "keystore, gatepassd",
		"gatepass/broker/scope":        "scope, gatepassd",
		"gatepass/broker/wire/door":    "gatepassd",
	}
	for _, goos := range []string{"linux", "darwin", "windows"} {
		for _, p := range packages(t, goos) {
			if !strings.HasPrefix(p.ImportPath, "gatepass/") {
				continue
			}
			for _, imp := range p.Imports {
				inner := p.ImportPath == "gatepass/broker" || p.ImportPath == "gatepass/profiles"
				external := strings.Contains(imp, ".")
				switch {
				case inner && external:
					t.Errorf("%s: %s imports %s; the domain needs the standard library alone", goos, p.ImportPath, imp)
				case p.ImportPath == "gatepass/profiles" && strings.HasPrefix(imp, "gatepass/"),
					p.ImportPath == "gatepass/broker" && strings.HasPrefix(imp, "gatepass/") && imp != "gatepass/profiles":
					t.Errorf("%s: %s imports %s: against the direction", goos, p.ImportPath, imp)
				case slices.Contains(siblings, sibling(p.ImportPath)) && sibling(imp) != "" && sibling(imp) != sibling(p.ImportPath):
					t.Errorf("%s: %s imports %s; siblings do not know one another", goos, p.ImportPath, imp)
				}
				lib := "" // the longest that imp is, or is in
				for name := range only {
					if len(name) > len(lib) && strings.HasPrefix(imp+"/", name+"/") {
						lib = name
					}
				}
				allowed := lib == "" || slices.ContainsFunc(strings.Split(only[lib], ", "), func(name string) bool {
					return strings.HasPrefix(p.ImportPath+"/", "gatepass/broker/"+name+"/") || p.ImportPath == "gatepass/cmd/"+name
				})
				if !allowed {
					t.Errorf("%s: %s imports %s, which is for %s alone", goos, p.ImportPath, imp, only[lib])
				}
			}
		}
	}
}
