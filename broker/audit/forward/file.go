package forward

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// The most that is read of files that a destination names, in bytes.
const (
	maxHeaders = 64 << 10
	maxPEM     = 1 << 20
)

// readFile reads a file that a destination names, of at most limit bytes, if
// allowed, which may be nil, has nothing against it.
func readFile(path string, limit int64, allowed func(fs.FileInfo) error) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for its writer
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if allowed != nil {
		if err := allowed(info); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return data, err
}
