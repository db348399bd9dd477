package keystore

import (
	"github.com/99designs/keyring"
	"golang.org/x/sys/unix"
)

// openKeyctl opens the kernel's keyring of the user.
func (h *helper) openKeyctl() (vault, error) {
	if _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true); err != nil {
		return nil, missing("keyctl", "the kernel keeps no keys for us: "+err.Error())
	}
	// A login may come with another session keyring (ssh, cron, "keyctl
	// session") and then does not possess the user's: the permissions of the
	// user must do.
	const user = keyring.KEYCTL_PERM_ALL &^ keyring.KEYCTL_PERM_SETATTR
	return openRing("keyctl", keyring.Config{
		ServiceName: "gatepass",
		KeyCtlScope: "user",
		KeyCtlPerm:  keyring.GetPermissions(keyring.KEYCTL_PERM_ALL, user, 0, 0),
	})
}
