package keystore

import "syscall"

// childAttr: the death of the daemon reaches a helper as SIGTERM even while
// keyring's init hangs, before HelperMain has run.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
}
