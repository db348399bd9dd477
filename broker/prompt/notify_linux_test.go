package prompt

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gatepass/broker/prompt/prompttest"
)

// A real desktop shows what it is told, as it is; where nothing shows
// notifications the text has to go elsewhere.
func TestNotificationIsShown(t *testing.T) {
	prompttest.Need(t, "dbus-daemon", "notify-send", "dunst")
	d := prompttest.New(t)
	start := func(env []string, program string, args ...string) *bufio.Reader {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "HOME="+t.TempDir(), "LANG=C.UTF-8")
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
			if t.Failed() {
				t.Logf("%s said: %s", program, &said)
			}
		})
		return bufio.NewReader(out)
	}
	address, err := start(nil, "dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address").ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	desktop := []string{"DISPLAY=" + d.Name, "DBUS_SESSION_BUS_ADDRESS=" + strings.TrimSpace(address)}
	p := New(Config{Env: []string{"PATH=" + os.Getenv("PATH")}, Desktop: desktop})
	const text = "lease l-1 of <b>profile</b> ops expires in 5 min"
	if p.notification(t.Context(), text) {
		t.Fatal("nothing shows notifications, and it was shown")
	}
	shown := start(desktop, "dunst", "-print")
	for end := time.Now().Add(time.Minute); !p.notification(t.Context(), text); {
		if time.Now().After(end) {
			t.Fatal("it is not shown")
		}
	}
	for {
		line, err := shown.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if body, ok := strings.CutPrefix(strings.TrimSpace(line), "body: "); ok {
			// dunst says the markup that it draws.
			if body != "'lease l-1 of &lt;b&gt;profile&lt;/b&gt; ops expires in 5 min'" {
				t.Errorf("it shows %s", body)
			}
			return
		}
	}
}
