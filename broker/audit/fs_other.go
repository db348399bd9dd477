//go:build !linux

package audit

import "os"

// syncData is fsync; on macOS [os.File.Sync] is F_FULLFSYNC, which is what
// reaches the medium there.
func syncData(f *os.File) error { return f.Sync() }
