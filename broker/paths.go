package broker

import (
	"path/filepath"
	"runtime"
)

// Paths are the places on disk that gatepass uses.
type Paths struct {
	ConfigFile string // gatepass.toml
	StateDir   string // 0700; holds the daemon's log and AuditDir
	AuditDir   string // 0700; the audit log, and the lock that names the live socket
	DaemonLog  string // gatepassd.log
	KeyNotes   string // what is noted of keys beside the keychain
	Leases     string // the leases that stand
	Forward    string // how far the audit log is sent to other places
	AuditKey   string // the pinned public key that audit verify trusts
}

// PathsFor returns the places for a user's environment and home directory:
// the XDG base directories on Linux (relative values are ignored, as the
// specification v0.8 asks), the platform's own elsewhere.
func PathsFor(getenv func(string) string, home string) Paths {
	dir := func(env, fallback string) string {
		if d := getenv(env); filepath.IsAbs(d) {
			return d
		}
		return fallback
	}
	var config, state string
	switch runtime.GOOS {
	case "darwin":
		config = filepath.Join(home, "Library", "Application Support")
		state = config
	case "windows":
		config = dir("APPDATA", filepath.Join(home, "AppData", "Roaming"))
		state = dir("LOCALAPPDATA", filepath.Join(home, "AppData", "Local"))
	default:
		config = dir("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
		state = dir("XDG_STATE_HOME", filepath.Join(home, ".local", "state"))
	}
	state = filepath.Join(state, "gatepass")
	return Paths{
		ConfigFile: dir("GATEPASS_CONFIG", filepath.Join(config, "gatepass", "gatepass.toml")),
		StateDir:   state,
		AuditDir:   filepath.Join(state, "audit"),
		DaemonLog:  filepath.Join(state, "gatepassd.log"),
		KeyNotes:   filepath.Join(state, "keys.json"),
		Leases:     filepath.Join(state, "leases.json"),
		Forward:    filepath.Join(state, "forward.json"),
		AuditKey:   filepath.Join(config, "gatepass", "audit.pub"),
	}
}
