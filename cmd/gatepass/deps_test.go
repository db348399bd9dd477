package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The AWS CLI runs this program before each of its commands: what it links is
// paid for every time, and what reads keys or calls AWS belongs to the daemon.
func TestDependencies(t *testing.T) {
	forbidden := map[string]string{
		"net/http":                     "costs 0.6 ms of start-up",
		"net":                          "the wire speaks to its socket itself",
		"crypto/tls":                   "nothing here speaks to the network",
		"os/user":                      "needs cgo to be right, and $HOME is enough",
		"github.com/aws/aws-sdk-go-v2": "the daemon alone calls AWS",
		"github.com/aws/smithy-go":     "the daemon alone calls AWS",
		"github.com/99designs/keyring": "the daemon alone reads the keychain, by way of its helper",
		"github.com/godbus/dbus":       "its init dials the session bus",
		"github.com/pelletier/go-toml": "the daemon alone reads gatepass.toml",
		"gatepass/broker/keystore":     "the daemon alone reads the keychain",
		"gatepass/broker/scope":        "the daemon watches over process trees",
		"gatepass/broker/sts":          "the daemon alone calls AWS",
		"gatepass/broker/wire/door":    "the daemon's end of the wire",
		"gatepass/broker/policy":       "the daemon decides",
		"gatepass/broker/endpoint":     "the daemon serves",
		"runtime/cgo":                  "the client is one static file",
	}
	cmd := exec.Command("go", "list", "-deps", ".")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	var linked int
	for pkg := range strings.Lines(string(out)) {
		pkg = strings.TrimSpace(pkg)
		linked++
		for name, why := range forbidden {
			if pkg == name || strings.HasPrefix(pkg, name+"/") && strings.Contains(name, ".") {
				t.Errorf("gatepass links %s: %s", pkg, why)
			}
		}
	}
	if linked < 50 || !strings.Contains(string(out), "gatepass/broker/wire\n") {
		t.Errorf("the list of dependencies makes no sense:\n%s", out)
	}
}
