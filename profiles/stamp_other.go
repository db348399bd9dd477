//go:build !linux && !darwin

package profiles

import "io/fs"

func stampOf(fi fs.FileInfo) stamp {
	t := fi.ModTime().UnixNano()
	return stamp{exists: true, size: fi.Size(), mtime: t, changed: t}
}
