// Package busguard keeps github.com/99designs/keyring off the session bus
// until it is wanted there.
//
// Importing keyring is enough to have its init functions dial the D-Bus
// session bus and, where DBUS_SESSION_BUS_ADDRESS is not set, run dbus-launch,
// which leaves a dbus-daemon behind for each process. A stopped bus hangs the
// process before main. None of that may happen to the daemon.
//
// Go initialises packages in the order of their import paths, each as soon as
// all that it imports is ready (https://go.dev/ref/spec#Program_initialization).
// "gatepass/…" comes before "github.com/…", and this package imports nothing
// that keyring does not wait for too, so its init runs first. It makes the
// address "disabled:", a transport that D-Bus does not know and so never
// dials. [Restore] puts back what was there. Only in a helper, which is a
// process that may hang, is the bus left reachable, and only at an address
// that is known beforehand.
package busguard

// HelperArg is the one argument with which gatepassd is run as a helper.
const HelperArg = "keychain-helper"
