package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"gatepass/broker/sts/ststest"
)

// Whenever the client or the daemon is killed under keys import, the plaintext
// is there while the profiles may need it, the next run goes on, and restoring
// gives the file back.
func TestKilledImportGoesOn(t *testing.T) {
	const config = "# mine\n[default]\nregion = eu-west-1\n\n[profile role]\nrole_arn = " + ststest.DeployARN + "\nsource_profile = default\n"
	// An import asks AWS who the key is, how old, for a session of it and for
	// one of the role; these calls are where it is killed.
	for _, at := range []string{"GetCallerIdentity", "ListAccessKeys", "GetSessionToken", "AssumeRole"} {
		for _, victim := range []string{"client", "daemon"} {
			t.Run(victim+" at "+at, func(t *testing.T) {
				t.Parallel()
				var mu sync.Mutex
				var pid int
				sandbox := ststest.Example()
				sandbox.Log = func(c ststest.Call) {
					mu.Lock()
					defer mu.Unlock()
					if pid != 0 && c.Action == at {
						syscall.Kill(pid, syscall.SIGKILL)
						pid = 0
					}
				}
				r := newRealmOf(t, sandbox)
				key := r.aws.Key("alice")
				plaintext := "[default]\naws_access_key_id = " + key.ID + "\naws_secret_access_key = " + key.Secret + "\n"
				r.write(t, ".aws/config", config)
				r.write(t, ".aws/credentials", plaintext)
				read := func(name string) string {
					t.Helper()
					data, err := os.ReadFile(filepath.Join(r.home, ".aws", name))
					if err != nil {
						t.Fatal(err)
					}
					return string(data)
				}

				run := r.command("gatepass", "keys", "import", "--yes")
				mu.Lock()
				if err := run.Start(); err != nil {
					t.Fatal(err)
				}
				if pid = run.Process.Pid; victim == "daemon" {
					pid = r.daemonPID()
				}
				mu.Unlock()
				err := run.Wait()
				mu.Lock()
				if pid != 0 {
					t.Error("nobody was killed")
				}
				mu.Unlock()
				// A client may outlive its daemon, for there will be another.
				if err == nil && victim == "client" {
					t.Error("the client ended well")
				}
				if got := read("credentials"); err != nil && got != plaintext {
					t.Fatalf("of the plaintext is left:\n%s", got)
				}
				for _, name := range []string{"default", "role"} {
					if strings.Contains(read("config"), "credential-process "+name) {
						if out, err := r.command("gatepass", "credential-process", name).CombinedOutput(); err != nil {
							t.Errorf("profile %s is adopted and does not work: %v: %s", name, err, out)
						}
					}
				}
				if out, err := r.command("gatepass", "keys", "import", "--yes").CombinedOutput(); err != nil {
					t.Fatalf("it does not go on: %v: %s", err, out)
				}
				if got := read("credentials"); strings.Contains(got, "aws_") {
					t.Errorf("the plaintext is left:\n%s", got)
				}
				for _, name := range []string{"default", "role"} {
					if out, err := r.command("gatepass", "credential-process", name).CombinedOutput(); err != nil || !strings.Contains(read("config"), "credential-process "+name) {
						t.Errorf("profile %s: %v: %s", name, err, out)
					}
				}
				if out, err := r.command("gatepass", "profiles", "restore", "--all").CombinedOutput(); err != nil {
					t.Fatalf("restore: %v: %s", err, out)
				}
				if got := read("config"); got != config {
					t.Errorf("restored:\n%s", got)
				}
			})
		}
	}
}
