package keystore

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// harden does nothing: Windows has no core files, and lets programs of the
// user read each other.
func harden() error { return nil }

// checkParent returns nil where stdin and stdout are pipes and our parent
// runs this same program.
func checkParent() error {
	for _, f := range []*os.File{os.Stdin, os.Stdout} {
		if t, err := windows.GetFileType(windows.Handle(f.Fd())); err != nil || t != windows.FILE_TYPE_PIPE {
			return errors.New("stdin is not a pipe of it")
		}
	}
	parent, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(os.Getppid()))
	if err != nil {
		return fmt.Errorf("the parent is not known: %w", err)
	}
	defer windows.CloseHandle(parent)
	buf := make([]uint16, windows.MAX_LONG_PATH)
	n := uint32(len(buf))
	if err := windows.QueryFullProcessImageName(parent, 0, &buf[0], &n); err != nil {
		return fmt.Errorf("the parent's program is not known: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ours, err := os.Stat(self)
	if err != nil {
		return err
	}
	if theirs, err := os.Stat(windows.UTF16ToString(buf[:n])); err != nil || !os.SameFile(ours, theirs) {
		return errors.New("the parent is another program")
	}
	return nil
}

// endGroup ends this helper; it starts nothing on Windows.
func endGroup() { os.Exit(70) }
