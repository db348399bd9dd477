package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatepass/broker/sts/ststest"
)

// Nothing of the long-term key, nor of the passphrase that opens its keychain,
// is anywhere below a lease, though whoever began it had both in his
// environment: not in the memory, environment, command line or open files of a
// process, and in no file that was written meanwhile, while one process has the
// lease's session, another talks to the daemon, and the daemon has the key in
// hand. A canary that is planted in all these places is found in each.
func TestNothingOfTheKeyBelowALease(t *testing.T) {
	if raceEnabled {
		t.Skip("with -race: programs have more memory of the detector's than can be searched")
	}
	for _, mode := range []string{"container", "env", "imds"} {
		t.Run(mode, func(t *testing.T) { nothingOfTheKey(t, mode) })
	}
}

// plant is what the lease's first process does: $1 is gatepass. It gets a
// session, plants the canary that it reads, and then has a client wait for the
// daemon.
const plant = `set -e
session=$("$1" credential-process)
IFS= read -r canary
CANARY=$canary sleep 1000 <&- >&- 2>&- &
sh -c 'sleep 1000; :' sh "$canary" <&- >&- 2>&- &
coded=$(printf %s "$canary" | base64 -w0)
printf %s "$canary" >"${AWS_CONFIG_FILE%/*}/planted"
printf %s "$canary" >"$TMPDIR/planted"
exec 9>"$TMPDIR/unlinked"
printf %s "$canary" >&9
rm "$TMPDIR/unlinked"
echo ready
IFS= read -r go
"$1" exec -- true <&- &
IFS= read -r end
`

func nothingOfTheKey(t *testing.T, mode string) {
	config := ststest.Example()
	secret, passphrase, canary := newSecret(), newSecret(), newSecret()
	for a := range config.Accounts {
		for u := range config.Accounts[a].Users {
			if user := &config.Accounts[a].Users[u]; user.Name == "alice" {
				user.Keys[0].Secret = secret
			}
		}
	}
	r := newEmptyRealm(t, config)
	key := r.aws.Key("alice")
	if key.Secret != secret {
		t.Fatalf("alice's key is another: %+v", config)
	}
	temp := filepath.Join(r.home, "temp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{
		"GATEPASS_FILE_PASSPHRASE=" + passphrase, "TMPDIR=" + temp, "AWS_ACCESS_KEY_ID=" + key.ID, "AWS_SECRET_ACCESS_KEY=" + secret,
		"AWS_SECRET_KEY=" + secret, "AWS_VAULT_FILE_PASSPHRASE=" + passphrase,
	} {
		r.setenv(v)
	}
	began := time.Now()
	if out, err := r.command("gatepass", "keys", "add", "alice", "--env").CombinedOutput(); err != nil {
		t.Fatalf("keys add: %v: %s", err, out)
	}

	args := []string{"exec", "deploy", "--", "sh", "-c", plant, "sh", filepath.Join(r.bin, "gatepass")}
	if mode != "container" {
		args = slices.Insert(args, 2, "--"+mode)
	}
	cmd := r.command("gatepass", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	}()
	fmt.Fprintln(in, canary)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v: %s", line, err, said.String())
	}
	if mode != "env" { // whose lease has no other inside it
		r.aws.Faults().Add(ststest.Fault{Action: "AssumeRole", Delay: time.Minute})
		defer func() {
			r.aws.Faults().Clear()
			r.aws.CloseClientConnections()
		}()
		fmt.Fprintln(in, "go")
		for deadline := time.Now().Add(30 * time.Second); r.entries(t, "session.requested") < 2; {
			if time.Now().After(deadline) {
				t.Fatalf("no session is asked for inside: %s", said.String())
			}
		}
	}

	needles := map[string][][]byte{"key": forms(secret), "passphrase": forms(passphrase), "canary": forms(canary), "session": {[]byte("ASIA")}}
	found := map[string][]string{} // by needle: where
	note := func(where string, src io.Reader) {
		for _, name := range search(src, needles) {
			found[name] = append(found[name], where)
		}
	}
	var programs []string
	for _, pid := range below(t, cmd.Process.Pid) {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			continue // it has ended
		}
		program := strings.TrimSpace(string(name))
		programs = append(programs, program)
		scanProcess(t, pid, program, note)
	}
	for _, dir := range []string{r.home, os.TempDir(), "/var/tmp", "/dev/shm"} {
		scanFiles(t, dir, began, note)
	}
	t.Logf("%d processes: %q", len(programs), programs)

	for _, name := range []string{"key", "passphrase"} {
		if where := found[name]; len(where) > 0 {
			t.Errorf("the %s is in %q", name, where)
		}
	}
	for _, want := range []string{
		"environment of sleep", "command line of sh", "memory of sh", "memory of sleep", "open file of sh",
		filepath.Join(r.home, "run", "gatepass", "leases"), filepath.Join(temp, "planted"),
	} {
		if !slices.ContainsFunc(found["canary"], func(where string) bool { return strings.HasPrefix(where, want) }) {
			t.Errorf("the canary is not found in: %s; it is in %q", want, found["canary"])
		}
	}
	if !slices.Contains(found["session"], "memory of sh") {
		t.Errorf("the session is not found where it is, only in %q", found["session"])
	}
	if mode != "env" && !slices.Contains(programs, "gatepass") {
		t.Error("no gatepass was waiting")
	}
}

// newSecret looks like a key's secret, in none of whose forms another's is.
func newSecret() string {
	b := make([]byte, 30)
	rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

// forms are the bytes by which a secret is found: as it is, in UTF-16, in hex,
// and in base64 wherever it begins in what was encoded.
func forms(secret string) [][]byte {
	var wide []byte
	for _, c := range []byte(secret) {
		wide = append(wide, c, 0)
	}
	all := [][]byte{[]byte(secret), wide, []byte(hex.EncodeToString([]byte(secret))), []byte(strings.ReplaceAll(secret, "/", `\/`))}
	for before := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			coded := enc.EncodeToString(append(make([]byte, before), secret...))
			// Without the characters that depend on what is beside it.
			all = append(all, []byte(coded[4:len(coded)-3]))
		}
	}
	return all
}

// search returns which of the needles are in src, as far as that can be read.
func search(src io.Reader, needles map[string][][]byte) (found []string) {
	const overlap = 256 // longer than any needle
	buf := make([]byte, 0, 1<<20)
	for {
		n, err := io.ReadFull(src, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		for name, forms := range needles {
			if !slices.Contains(found, name) && slices.ContainsFunc(forms, func(form []byte) bool { return bytes.Contains(buf, form) }) {
				found = append(found, name)
			}
		}
		if err != nil {
			return found
		}
		buf = buf[:copy(buf, buf[len(buf)-overlap:])]
	}
}

// below returns a process and all those below it.
func below(t *testing.T, root int) []int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	children := map[int][]int{}
	for _, path := range dirs {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		parent, err := strconv.Atoi(fields[1]) // after the state
		if err != nil {
			t.Fatalf("%s: %q", path, stat)
		}
		children[parent] = append(children[parent], pid)
	}
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids
}

// scanProcess notes what a process has in its environment, command line,
// memory and open files.
func scanProcess(t *testing.T, pid int, program string, note func(where string, src io.Reader)) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/", pid)
	for file, what := range map[string]string{"environ": "environment", "cmdline": "command line"} {
		data, err := os.ReadFile(dir + file)
		if err != nil {
			t.Fatalf("the %s of %s: %v", what, program, err)
		}
		note(what+" of "+program, bytes.NewReader(data))
	}
	maps, err := os.ReadFile(dir + "maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(dir + "mem")
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("the kernel does not let this test read another process's memory: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		var from, to int64
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil || !strings.HasPrefix(fields[1], "r") {
			continue // [vsyscall] is beyond an int64, and never written
		}
		note("memory of "+program, io.NewSectionReader(mem, from, to-from))
	}
	files, err := os.ReadDir(dir + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		path := dir + "fd/" + f.Name()
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if file, err := os.Open(path); err == nil {
			note("open file of "+program, file)
			file.Close()
		}
	}
}

// scanFiles notes what is in the files below dir that were changed since.
func scanFiles(t *testing.T, dir string, since time.Time, note func(where string, src io.Reader)) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // it is gone, or another user's
		}
		// The kernel's idea of a file's time is up to a tick behind.
		if info, err := d.Info(); err != nil || info.ModTime().Before(since.Add(-time.Second)) {
			return nil
		}
		if f, err := os.Open(path); err == nil {
			note(path, f)
			f.Close()
		}
		return nil
	})
}
