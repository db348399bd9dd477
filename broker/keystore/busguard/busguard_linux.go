package busguard

import (
	"os"
	"strconv"
	"syscall"
)

const (
	variable = "DBUS_SESSION_BUS_ADDRESS"
	disabled = "disabled:"
)

// What the variable was at start, for Restore.
var (
	original string
	wasSet   bool
)

func init() {
	original, wasSet = os.LookupEnv(variable)
	address := disabled
	if isHelper() {
		address = known(original)
	}
	os.Setenv(variable, address)
}

// Restore gives the environment back the session bus's address that it came
// with, for programs that the daemon starts. It is for an init that runs after
// keyring's. In a helper it does nothing: there the bus is to be dialled at
// the guarded address or not at all.
func Restore() {
	switch {
	case isHelper():
	case wasSet:
		os.Setenv(variable, original)
	default:
		os.Unsetenv(variable)
	}
}

// Disabled reports whether the session bus must not be dialled now.
func Disabled() bool { return os.Getenv(variable) == disabled }

func isHelper() bool { return len(os.Args) == 2 && os.Args[1] == HelperArg }

// known returns address where it names a bus, else the user's bus at its
// usual place, else the disabled address. "autolaunch:" would start one.
func known(address string) string {
	if address != "" && address != "autolaunch:" {
		return address
	}
	uid := os.Getuid()
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/run/user/" + strconv.Itoa(uid)} {
		var st syscall.Stat_t
		bus := dir + "/bus"
		if dir != "" && dir[0] == '/' && syscall.Lstat(bus, &st) == nil &&
			st.Mode&syscall.S_IFMT == syscall.S_IFSOCK && int(st.Uid) == uid {
			return "unix:path=" + bus
		}
	}
	return disabled
}
