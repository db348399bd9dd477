//go:build unix

package profiles

import (
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives f the owner and mode of the file that it will replace.
func keepOwner(f *os.File, old fs.FileInfo) error {
	if st, ok := old.Sys().(*syscall.Stat_t); ok {
		now, err := f.Stat()
		if err != nil {
			return err
		}
		have, _ := now.Sys().(*syscall.Stat_t)
		if have == nil || have.Uid != st.Uid || have.Gid != st.Gid {
			if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
				return err
			}
		}
	}
	return f.Chmod(old.Mode().Perm())
}

// hardLinks returns how many names the file has.
func hardLinks(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}
