package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatepass/broker/wire"
)

// promptLine is the line for a shell's prompt that the README gives.
func promptLine(t *testing.T, shell string) string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(readme)) {
		if code, _, ok := strings.Cut(line, "# "+shell+": "); ok {
			return strings.TrimSpace(code)
		}
	}
	t.Fatalf("the README has no line for %s", shell)
	return ""
}

// What the README says of prompts shows the lease in each shell.
func TestPromptLines(t *testing.T) {
	h, gatepass := newLeaseHome(t)
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"GET " + wire.PathLeaseOwn: func([]byte) (int, map[string]string, string) {
			return 200, nil, fmt.Sprintf("%d live deploy\n", time.Now().Add(42*time.Minute+30*time.Second).Unix())
		},
	})
	h.env["PATH"] = filepath.Dir(gatepass) + ":" + h.env["PATH"]
	h.env["GATEPASS_LEASE"], h.env["TERM"], h.env["LANG"], h.env["TMUX_TMPDIR"] = "l-1", "xterm", "C.UTF-8", h.env["HOME"]
	conf := filepath.Join(h.env["HOME"], "tmux.conf")
	if err := os.WriteFile(conf, []byte(promptLine(t, "tmux")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for shell, args := range map[string][]string{
		"bash": {"--norc", "--noprofile", "-i"}, "zsh": {"-f", "-i"}, "fish": {"--no-config", "-i"}, "tmux": {"-L", "deploy", "-f", conf, "new", "cat"},
	} {
		t.Run(shell, func(t *testing.T) {
			if ok, err := condition("real:" + shell); err != nil {
				t.Fatal(err)
			} else if !ok {
				t.Skipf("%s is not installed", shell)
			}
			p := startPTY(t, exec.Command(shell, args...), true, h.environ()...)
			p.resize(80, 24)
			if shell == "tmux" {
				t.Cleanup(func() {
					end := exec.Command("tmux", "-L", "deploy", "kill-server")
					end.Env = h.environ()
					end.Run()
				})
			} else {
				p.enter(promptLine(t, shell) + "\n")
			}
			p.expect("deploy 42m")
		})
	}
}
