package audit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const lockName = "lock"

// An ErrLocked is why [Open] fails while another process writes the log.
type ErrLocked struct {
	Dir    string
	Socket string // where that process listens; "" when it has not said yet
}

func (e *ErrLocked) Error() string {
	if e.Socket == "" {
		return fmt.Sprintf("the audit log %s is held by another gatepassd", e.Dir)
	}
	return fmt.Sprintf("the audit log %s is held by the gatepassd at %s", e.Dir, e.Socket)
}

// A Holder is a daemon that holds a log.
type Holder struct {
	Socket string // where it listens; "" when it has not said yet
	Run    string // tells its run from any other; "" of one that does not say
}

// LockHolder returns the daemon that holds the log in dir, and whether one
// does. What a dead daemon left behind is not reported.
func LockHolder(dir string) (h Holder, held bool, err error) {
	f, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return Holder{}, false, nil
	}
	if err != nil {
		return Holder{}, false, fmt.Errorf("read who holds the audit log: %w", err)
	}
	// Closing lets go of the shared lock, if we got it.
	defer f.Close()
	free, err := lockFile(f, false)
	if err != nil || free {
		return Holder{}, false, err
	}
	h, err = lockContent(f)
	return h, true, err
}

// releaseLook is how often [AwaitRelease] looks.
const releaseLook = 20 * time.Millisecond

// AwaitRelease returns when h no longer holds the log in dir, which is the
// last that a daemon does, or with the error of ctx. It tells processes that
// it cannot see, in another PID namespace.
func AwaitRelease(ctx context.Context, dir string, h Holder) error {
	ticks := time.NewTicker(releaseLook)
	defer ticks.Stop()
	for {
		now, held, err := LockHolder(dir)
		if err != nil || !held || now != h {
			return err
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// acquireLock takes the lock and writes into it socket and, on a line of its
// own, an id of this run. The lock goes with the file, however the process ends.
func acquireLock(ctx context.Context, dir, socket string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	// A client that looks who holds the log has it shared for a moment, so
	// a refusal counts only when it lasts.
	for try := 0; ; try++ {
		got, err := lockFile(f, true)
		if err != nil {
			f.Close()
			return nil, err
		}
		if got {
			break
		}
		if try == 10 {
			holder, err := lockContent(f)
			f.Close()
			if err != nil {
				return nil, err
			}
			return nil, &ErrLocked{Dir: dir, Socket: holder.Socket}
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		}
	}
	lines := []byte(socket + "\n" + rand.Text() + "\n")
	if _, err = f.WriteAt(lines, 0); err == nil {
		err = f.Truncate(int64(len(lines)))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func lockContent(f *os.File) (Holder, error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err != nil {
		return Holder{}, fmt.Errorf("read who holds the audit log: %w", err)
	}
	socket, rest, _ := strings.Cut(string(b), "\n")
	run, _, _ := strings.Cut(rest, "\n")
	return Holder{Socket: socket, Run: run}, nil
}
