package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// startTimeout is how long a client waits for a daemon that is starting.
const startTimeout = 10 * time.Second

// startDaemon starts gatepassd and returns when it serves socket, by this
// client's doing or another's.
func (c *client) startDaemon(ctx context.Context, socket string) error {
	if err := c.refuseBelowLease(); err != nil {
		return err
	}
	program, err := c.daemonProgram()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(startTimeout)
	unlock, err := lockStart(socket, deadline)
	if err != nil {
		return err
	}
	defer unlock()
	if (&wire.Client{Socket: socket, Timeout: time.Until(deadline)}).Ping(ctx) == nil {
		return nil // whoever held the lock before us started it
	}
	return c.spawn(program, deadline)
}

// refuseBelowLease keeps a daemon from starting inside a lease, where it
// would be below its own wall and end with it.
func (c *client) refuseBelowLease() error { return wire.RefuseBelow(c.leaseAbove()) }

// lockStart waits for its turn to start the daemon of socket, so that of a
// thousand clients one starts it and the others find it.
func lockStart(socket string, deadline time.Time) (unlock func(), err error) {
	fail := func(err error) (func(), error) {
		if _, ok := errors.AsType[*broker.Error](err); ok {
			return nil, fmt.Errorf("start the daemon: %w", err)
		}
		return nil, broker.Errorf(broker.CodeDaemonUnreachable, "start the daemon: %w", err)
	}
	name, err := lockName(socket)
	if err != nil {
		return fail(err)
	}
	f, err := openLock(name)
	if err != nil {
		return fail(err)
	}
	locked := make(chan error, 1)
	go func() { locked <- lockFile(f) }() // ends with the lock, or with the process
	select {
	case err := <-locked:
		if err != nil {
			f.Close()
			return fail(err)
		}
		return func() { f.Close() }, nil
	case <-time.After(time.Until(deadline)):
		return nil, broker.Errorf(broker.CodeDaemonUnreachable, "another gatepass has been starting the daemon for %s", startTimeout).
			WithHint("see: gatepass daemon status")
	}
}

// spawn starts program and waits until it says that it serves, or why it
// cannot. See the package documentation of gatepassd for the other end.
func (c *client) spawn(program string, deadline time.Time, args ...string) error {
	news, process, err := spawnDetached(program, args, daemonEnvironment(c.environ()))
	if err != nil {
		return broker.Errorf(broker.CodeDaemonUnreachable, "start %s: %w", program, err)
	}
	defer news.Close()
	news.SetReadDeadline(deadline)
	line := make([]byte, 16<<10)
	n := 0
	for err == nil && n < len(line) {
		var m int
		m, err = news.Read(line[n:])
		n += m
	}
	line = line[:n]
	log := ""
	if home, err := c.home(); err == nil {
		log = "its diagnostics: " + broker.PathsFor(c.getenv, home).DaemonLog
	}
	if string(line) == "ok\n" {
		process.Release()
		return nil
	}
	var said broker.Error
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		process.Release()
		return broker.Errorf(broker.CodeDaemonUnreachable, "gatepassd has been starting for %s and does not answer yet", startTimeout).WithHint("%s", log)
	case json.Unmarshal(line, &said) == nil && said.Code.Known() && said.Message != "":
		process.Release()
		e := broker.Errorf(said.Code, "gatepassd did not start: %s", said.Message)
		if said.Hint != "" {
			log = said.Hint
		}
		return e.WithHint("%s", log)
	}
	return broker.Errorf(broker.CodeDaemonUnreachable, "gatepassd ended before it was ready (%s)", exitOf(process)).WithHint("%s", log)
}

// exitOf says how a process ended, if it does within a second.
func exitOf(p *os.Process) string {
	ended := make(chan string, 1)
	go func() {
		state, err := p.Wait()
		if err != nil {
			ended <- err.Error()
			return
		}
		ended <- state.String()
	}()
	select {
	case how := <-ended:
		return how
	case <-time.After(time.Second):
		return "it runs on, and said nothing"
	}
}

// daemonProgram returns the path of gatepassd: beside this program, as it is
// or as it was called, else on PATH.
func (c *client) daemonProgram() (string, error) {
	name := "gatepassd"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	for _, self := range c.self() {
		beside := filepath.Join(filepath.Dir(self), name)
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && (runtime.GOOS == "windows" || info.Mode()&0o111 != 0) {
			return beside, nil
		}
	}
	if found, err := exec.LookPath(name); err == nil && filepath.IsAbs(found) {
		return found, nil
	}
	return "", broker.Errorf(broker.CodeDaemonUnreachable, "gatepassd is neither beside gatepass nor on PATH").
		WithHint("install both programs into one directory")
}

// selfPaths returns the paths of this program: without symbolic links, then
// as it was called.
func selfPaths() []string {
	var paths []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		paths = append(paths, exe)
	}
	if called, err := exec.LookPath(os.Args[0]); err == nil {
		if abs, err := filepath.Abs(called); err == nil && !slices.Contains(paths, abs) {
			paths = append(paths, abs)
		}
	}
	return paths
}

// daemonEnvironment returns what a daemon gets of environ: where the user's
// files, session and prompts are. Nothing of AWS is among it, and no proxy:
// what the first client happened to carry must not rule every later call.
func daemonEnvironment(environ []string) []string {
	names := []string{
		"HOME", "USER", "LOGNAME", "PATH", "LANG", "TZ", "TMPDIR",
		"DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
		"GNUPGHOME", "PASSWORD_STORE_DIR",
		"GATEPASS_CONFIG", "GATEPASS_SOCKET", "GATEPASS_FILE_PASSPHRASE",
	}
	if runtime.GOOS == "windows" { // without these, nothing runs or finds its files
		names = append(names, "SYSTEMROOT", "USERPROFILE", "USERNAME", "APPDATA", "LOCALAPPDATA", "TEMP", "TMP")
	}
	var kept []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if runtime.GOOS == "windows" {
			name = strings.ToUpper(name)
		}
		if slices.Contains(names, name) || strings.HasPrefix(name, "LC_") || strings.HasPrefix(name, "XDG_") {
			kept = append(kept, v)
		}
	}
	return kept
}
