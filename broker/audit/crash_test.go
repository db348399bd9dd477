package audit_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"gatepass/broker"
	"gatepass/broker/audit"

	"golang.org/x/mod/sumdb/note"
)

// crashEnv makes the test binary the writer that TestKill kills.
const crashEnv = "GATEPASS_AUDIT_TEST_WRITER"

func TestMain(m *testing.M) {
	if v := os.Getenv(crashEnv); v != "" {
		args := strings.Split(v, "\n")
		if err := writeUntilKilled(args[0], args[1], args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeUntilKilled prints the name of each entry once it is acknowledged.
func writeUntilKilled(dir, skey, run string) error {
	l, err := audit.Open(context.Background(), audit.Options{Dir: dir, SegmentSize: 16 << 10,
		Signer: func(context.Context) (note.Signer, error) { return note.NewSigner(skey) }})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; err == nil; i++ {
				e := event(i)
				e.Reason = fmt.Sprintf("%s-w%d-%d", run, w, i)
				if err = l.Append(context.Background(), e, i%2 == w%2); err == nil {
					fmt.Println(e.Reason)
				}
			}
		})
	}
	wg.Wait()
	return err
}

// killsEnv is how often the writer is killed, where it is to be more than a
// little.
const killsEnv = "GATEPASS_KILLS"

// TestKill kills a writer at random points, again and again on the same log:
// what it was told is written must be there, and all must verify, each time.
// Segments are small, so that it is often killed while one is compressed.
func TestKill(t *testing.T) {
	rounds := 8
	if s := os.Getenv(killsEnv); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	dir, key := logDir(t), newKey(t)
	var acked []string
	torn := 0
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s\n%s\nrun%d", crashEnv, dir, key.signer, round))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		left := 1 + rand.IntN(300)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			acked = append(acked, lines.Text())
			if left--; left == 0 {
				cmd.Process.Kill() // and read what it had still printed
			}
		}
		cmd.Wait()
		if left > 0 {
			t.Fatalf("the writer ended by itself: %s", stderr.String())
		}
		if rep, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir, Key: key.verifier}); err != nil {
			t.Fatalf("after a kill: %+v, %v", rep, err)
		}
		if plain, compressed := forms(t, dir); len(plain) > 0 && slices.Contains(compressed, plain[0]+".zst") || exists(filepath.Join(dir, plain[0]+".zst.tmp")) {
			torn++
		}
	}
	l := openAsIs(t, audit.Options{Dir: dir, Signer: key.Signer})
	shut(t, l)
	rep, err := verify(t, dir, key)
	if err != nil || rep.Unsigned != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	found := reasons(t, dir)
	for _, reason := range acked {
		if found[reason] != 1 {
			t.Errorf("%s was acknowledged and is there %d times", reason, found[reason])
		}
	}
	t.Logf("%d entries acknowledged, %d in the log, %d segments; killed %d times, %d while it compressed", len(acked), rep.Entries, rep.Segments, rounds, torn)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// fullEnv is the directory, on a small file system of its own, that
// TestFullDisk fills.
const fullEnv = "GATEPASS_AUDIT_TEST_FULL"

// TestFullDisk fills a real file system: nothing is acknowledged that is not
// there, and the log goes on when there is room. Then it makes it read-only.
func TestFullDisk(t *testing.T) {
	mnt := os.Getenv(fullEnv)
	if mnt == "" {
		unshare, err := exec.LookPath("unshare")
		if err != nil || os.Geteuid() != 0 {
			t.Skipf("a file system of its own needs root and unshare (uid %d, %v); TestFaults fills the disk without one", os.Geteuid(), err)
		}
		dir := t.TempDir()
		out, err := exec.Command(unshare, "--mount", "--propagation", "private", "sh", "-c",
			`mount -t tmpfs -o size=1m tmpfs "$1" || exit 99; `+fullEnv+`="$1" exec "$0" -test.run '^TestFullDisk$' -test.v`, os.Args[0], dir).CombinedOutput()
		if e, ok := err.(*exec.ExitError); ok && (e.ExitCode() == 99 || bytes.HasPrefix(out, []byte("unshare:"))) {
			t.Skipf("no file system of its own here: %s", out)
		}
		if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	dir, key := mnt+"/audit", newKey(t)
	l := open(t, audit.Options{Dir: dir, Signer: key.Signer, SegmentSize: 100 << 10})
	var ballast []string
	for i := range 3 {
		ballast = append(ballast, mnt+"/ballast"+strconv.Itoa(i))
		if err := os.WriteFile(ballast[i], make([]byte, 100<<10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	acked := 0
	for _, b := range ballast {
		refused := 0
		for i := 0; refused < 20; i++ {
			err := l.Append(t.Context(), event(i), i%5 == 0)
			switch {
			case err == nil:
				acked++
			case broker.CodeOf(err) != broker.CodeLogUnwritable || !strings.Contains(broker.AsError(err).Hint, "make room"):
				t.Fatalf("on a full disk: %v, %q", err, broker.AsError(err).Hint)
			default:
				refused++
			}
		}
		if l.Status().Error == "" {
			t.Error("status does not tell")
		}
		os.Remove(b)
		put(t, l, 3, true)
		acked += 3
		if s := l.Status(); s.Error != "" {
			t.Errorf("with room again: %+v", s)
		}
	}
	shut(t, l)
	rep, err := verify(t, dir, key)
	if err != nil || rep.Unsigned != 0 || rep.Entries < int64(acked) {
		t.Errorf("%d acknowledged: %+v, %v", acked, rep, err)
	}
	if out, err := exec.Command("mount", "-o", "remount,ro", mnt).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := audit.Open(t.Context(), audit.Options{Dir: dir}); broker.CodeOf(err) != broker.CodeLogUnwritable {
		t.Errorf("on a read-only file system: %v", err)
	}
	if _, err := verify(t, dir, key); err != nil {
		t.Errorf("verify on a read-only file system: %v", err)
	}
}

// TestReadOnly opens a log in a directory that cannot be written.
func TestReadOnly(t *testing.T) {
	dir := logDir(t)
	l := open(t, audit.Options{Dir: dir})
	put(t, l, 1, true)
	shut(t, l)
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	if os.Geteuid() == 0 {
		t.Skip("root writes where the mode says nobody may; TestFullDisk has a read-only file system")
	}
	os.Chmod(dir+"/lock", 0o400)
	if _, err := audit.Open(t.Context(), audit.Options{Dir: dir}); broker.CodeOf(err) != broker.CodeLogUnwritable {
		t.Errorf("%v", err)
	}
}
