package keystore

import (
	"slices"

	"github.com/godbus/dbus"

	"gatepass/broker/keystore/busguard"
)

// Well-known names on the session bus.
const (
	secretsName = "org.freedesktop.secrets"
	kwalletName = "org.kde.kwalletd5"
)

// sessionBus returns the connection that keyring's init made. Where there is
// none, it does not look for one: that would start a bus.
func sessionBus() (*dbus.Conn, string) {
	if busguard.Disabled() {
		return nil, "there is no session bus (DBUS_SESSION_BUS_ADDRESS is not set)"
	}
	conn, err := dbus.SessionBus()
	if err != nil {
		return nil, "the session bus does not answer: " + printableText(err.Error())
	}
	return conn, ""
}

// offered reports whether somebody on the bus has the name, or the bus can
// start somebody.
func offered(conn *dbus.Conn, name string) (bool, error) {
	var owned bool
	if err := conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, name).Store(&owned); err != nil || owned {
		return owned, err
	}
	var names []string
	err := conn.BusObject().Call("org.freedesktop.DBus.ListActivatableNames", 0).Store(&names)
	return slices.Contains(names, name), err
}

// auto picks the desktop's keychain: the Secret Service, else KWallet.
func (h *helper) auto() (string, error) {
	conn, why := sessionBus()
	if conn == nil {
		return "", missing("auto", why)
	}
	for _, b := range []struct{ backend, name string }{{"secret-service", secretsName}, {"kwallet", kwalletName}} {
		there, err := offered(conn, b.name)
		if err != nil {
			return "", mapError("auto", err)
		}
		if there {
			return b.backend, nil
		}
	}
	return "", missing("auto", "neither a Secret Service nor KWallet is on the session bus")
}

func (h *helper) openWinCred() (vault, error) { return h.openWinCredOf("") }
func (h *helper) openWinCredOf(string) (vault, error) {
	return nil, missing("wincred", "it is not for Linux")
}

// property reads a property of an object into value.
func property(o dbus.BusObject, name string, value any) error {
	v, err := o.GetProperty(name)
	if err != nil {
		return err
	}
	return dbus.Store([]any{v.Value()}, value)
}
