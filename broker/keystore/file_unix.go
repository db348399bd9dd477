//go:build unix

package keystore

import (
	"io/fs"
	"os"
	"syscall"

	"gatepass/broker"
)

// checkPrivate refuses a directory that is not ours alone: who can write to
// it can put another key in the place of one.
func checkPrivate(dir string, st fs.FileInfo) error {
	if s, ok := st.Sys().(*syscall.Stat_t); !ok || int(s.Uid) != os.Geteuid() {
		return broker.Errorf(broker.CodeConfig, "the file keychain %s belongs to another user", dir)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return broker.Errorf(broker.CodeConfig, "the file keychain %s is open to others (mode %04o)", dir, st.Mode().Perm()).
			WithHint("chmod 700 %s", dir)
	}
	return nil
}

// syncDir makes a rename or removal in dir last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
