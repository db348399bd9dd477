package wire

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The client's start-up is a good part of a warm credential_process. These
// would each add a tenth or more to it, and net a dynamic linker with cgo.
func TestDeps(t *testing.T) {
	forbidden := map[string]string{
		"net/http":                         "it starts up longer than the whole client runs",
		"net":                              "the client makes its own system calls; with cgo, net makes it a dynamic program",
		"os/user":                          "with cgo, it makes the client a dynamic program",
		"crypto/tls":                       "the socket needs none",
		"github.com/godbus/dbus":           "the keychain is the daemon's",
		"github.com/godbus/dbus/v5":        "the service manager is the daemon's to speak to",
		"github.com/99designs/keyring":     "the keychain is the daemon's",
		"github.com/aws/aws-sdk-go-v2/aws": "AWS is the daemon's",
	}
	cmd := exec.Command("go", "list", "-deps", ".")
	cmd.Env = append(os.Environ(), "GOOS=linux")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 10 {
		t.Fatalf("go list says only %q", deps)
	}
	for _, dep := range deps {
		if why, ok := forbidden[dep]; ok {
			t.Errorf("package wire links %s: %s", dep, why)
		}
	}
}
