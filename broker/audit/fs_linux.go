package audit

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncData is fdatasync: the size is data to it, the times are not.
func syncData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
