package audit

import (
	"context"
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

// LockHolder returns the socket of the daemon that holds the log in dir, and
// whether one does. A name that a dead daemon left behind is not reported.
func LockHolder(dir string) (socket string, held bool, err error) {
	f, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read who holds the audit log: %w", err)
	}
	// Closing lets go of the shared lock, if we got it.
	defer f.Close()
	free, err := lockFile(f, false)
	if err != nil || free {
		return "", false, err
	}
	socket, err = lockContent(f)
	return socket, true, err
}

// acquireLock takes the lock and writes socket into it. The lock goes with
// the file, however the process ends.
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
			return nil, &ErrLocked{Dir: dir, Socket: holder}
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		}
	}
	line := []byte(socket + "\n")
	if _, err = f.WriteAt(line, 0); err == nil {
		err = f.Truncate(int64(len(line)))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func lockContent(f *os.File) (string, error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err != nil {
		return "", fmt.Errorf("read who holds the audit log: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line, nil
}
