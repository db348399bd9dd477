// Package prompttest is an X display of a test's own (Xvfb), on which real
// dialogs appear, and somebody who sits at it (xdotool).
package prompttest

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long a dialog may take to come or to go.
const patience = 30 * time.Second

// Need skips a test where one of the programs is not installed. Under
// GATEPASS_REAL=1 it fails.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("GATEPASS_REAL") == "1" {
			t.Fatalf("GATEPASS_REAL=1 and %s is not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
}

// A Display is a screen of 1024 by 768 without a window manager.
type Display struct {
	Name string // for DISPLAY
	t    testing.TB
}

// New starts a Display that ends with the test.
func New(t testing.TB) *Display {
	t.Helper()
	Need(t, "Xvfb", "xdotool")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	x := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1024x768x24", "-nolisten", "tcp",
		"-r",       // a key that a slow machine is late to release is not to repeat
		"-noreset") // whenever the last window goes it would begin anew, and refuse meanwhile
	x.ExtraFiles = []*os.File{w}
	var said bytes.Buffer
	x.Stdout, x.Stderr = &said, &said
	err = x.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Process.Kill(); x.Wait() })
	r.SetReadDeadline(time.Now().Add(patience))
	number, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		x.Process.Kill()
		x.Wait()
		t.Fatalf("Xvfb does not start: %v\n%s", err, &said)
	}
	return &Display{Name: ":" + strings.TrimSpace(number), t: t}
}

func (d *Display) xdotool(args ...string) (string, error) {
	cmd := exec.Command("xdotool", args...)
	cmd.Env = append(os.Environ(), "DISPLAY="+d.Name)
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// A Window is a dialog. Its id alone may be that of one before it.
type Window struct {
	ID  string
	PID int // of the process that shows it
}

// Windows are the dialogs that can be seen.
func (d *Display) Windows() (list []Window) {
	out, _ := d.xdotool("search", "--onlyvisible", "--name", "^gatepass") // fails where there are none
	for _, id := range strings.Fields(out) {
		pid, err := d.xdotool("getwindowpid", id)
		n, bad := strconv.Atoi(pid)
		if err != nil || bad != nil {
			continue // it is gone meanwhile
		}
		list = append(list, Window{id, n})
	}
	return list
}

// Dialog waits for the only dialog there is, and that is not the one of
// before.
func (d *Display) Dialog(before Window) Window {
	d.t.Helper()
	var seen []Window
	for end := time.Now().Add(patience); time.Now().Before(end); pause() {
		seen = d.Windows()
		if len(seen) == 1 && seen[0] != before {
			return seen[0]
		}
	}
	d.t.Fatalf("after %s there are the dialogs %v", patience, seen)
	return Window{}
}

// First waits for the only dialog there is.
func (d *Display) First() Window {
	d.t.Helper()
	return d.Dialog(Window{})
}

// Gone waits until there is no dialog.
func (d *Display) Gone() {
	d.t.Helper()
	for end := time.Now().Add(patience); len(d.Windows()) > 0; pause() {
		if time.Now().After(end) {
			d.t.Fatalf("after %s there still is a dialog", patience)
		}
	}
}

// Type types text into a dialog, and then presses key ("Return", "Escape").
func (d *Display) Type(w Window, text, key string) {
	d.t.Helper()
	args := []string{"windowfocus", "--sync", w.ID}
	if text != "" {
		args = append(args, "type", "--delay", "20", text)
	}
	if _, err := d.xdotool(args...); err != nil {
		d.t.Fatalf("xdotool: %v", err)
	}
	if _, err := d.xdotool("key", key); err != nil {
		d.t.Fatalf("xdotool: %v", err)
	}
}

// Size is the size of a window.
func (d *Display) Size(w Window) (width, height int) {
	d.t.Helper()
	out, err := d.xdotool("getwindowgeometry", "--shell", w.ID)
	for line := range strings.Lines(out) {
		fmt.Sscanf(line, "WIDTH=%d", &width)
		fmt.Sscanf(line, "HEIGHT=%d", &height)
	}
	if err != nil || width == 0 || height == 0 {
		d.t.Fatalf("size of a window: %v: %s", err, out)
	}
	return width, height
}

func pause() { <-time.After(20 * time.Millisecond) }
