package keystore

import (
	"slices"

	"github.com/99designs/keyring"
	"github.com/godbus/dbus"

	"gatepass/broker"
)

const (
	kwalletPath  = "/modules/kwalletd5"
	kwalletIface = "org.kde.KWallet."
	kwalletApp   = "gatepass"
)

// A kwalletVault is KDE's wallet, known to be open. keyring opens it whatever
// it costs (a dialog that nobody sees, for ever), takes a refusal for an open
// wallet, and an entry that it may not read for none.
type kwalletVault struct {
	ringVault
	wallet dbus.BusObject
	handle int32
	folder string
}

func (h *helper) openKWallet() (vault, error) {
	return h.openWallet("gatepass", func(v *kwalletVault) (name string, err error) {
		err = mapError("kwallet", v.call("networkWallet").Store(&name))
		return name, err
	})
}

// openAWSVaultKWallet opens aws-vault's wallet, which has a name of its own. To
// open one that is not there would ask whether to make it.
func (h *helper) openAWSVaultKWallet() (vault, error) {
	return h.openWallet("aws-vault", func(v *kwalletVault) (string, error) {
		const name = "aws-vault"
		var all []string
		if err := v.call("wallets").Store(&all); err != nil {
			return "", mapError("kwallet", err)
		}
		if !slices.Contains(all, name) {
			return "", noAWSVault("the keychain (kwallet) has no wallet %q", name)
		}
		return name, nil
	})
}

// openWallet opens the wallet that find names, for the items in a folder.
func (h *helper) openWallet(folder string, find func(*kwalletVault) (string, error)) (vault, error) {
	conn, why := sessionBus()
	if conn == nil {
		return nil, missing("kwallet", why)
	}
	there, err := offered(conn, kwalletName)
	if err != nil {
		return nil, mapError("kwallet", err)
	} else if !there {
		return nil, missing("kwallet", "nobody on the session bus offers "+kwalletName)
	}
	v := &kwalletVault{wallet: conn.Object(kwalletName, kwalletPath), folder: folder}
	var enabled, open bool
	if err := v.call("isEnabled").Store(&enabled); err != nil {
		return nil, mapError("kwallet", err)
	}
	if !enabled {
		return nil, missing("kwallet", "it is switched off in its settings")
	}
	name, err := find(v)
	if err != nil {
		return nil, err
	}
	if err := v.call("isOpen", name).Store(&open); err != nil {
		return nil, mapError("kwallet", err)
	}
	if !open && !h.mayPrompt() {
		return nil, locked("kwallet", "the wallet is closed, and there is no desktop to ask on")
	}
	if h.req.Op == opProbe {
		return probedVault{}, nil // to open it may ask, also where it is open to others
	}
	if h.mayPrompt() {
		h.prompt(!open)
	}
	if err := v.call("open", name, int64(0), kwalletApp).Store(&v.handle); err != nil {
		return nil, mapError("kwallet", err)
	}
	if v.handle < 0 {
		return nil, denied("kwallet", "the wallet was not opened: its dialog was cancelled, or it does not let gatepass in").
			WithHint("allow gatepass in the settings of KDE Wallet")
	}
	v.ringVault, err = openRing("kwallet", keyring.Config{
		ServiceName:   name,
		KWalletAppID:  kwalletApp,
		KWalletFolder: folder,
	})
	return v, err
}

func (v *kwalletVault) call(method string, args ...any) *dbus.Call {
	return v.wallet.Call(kwalletIface+method, 0, args...)
}

// has reports whether the entry is there, and fails where the wallet was
// closed meanwhile, which also looks like an entry that is not.
func (v *kwalletVault) has(item string) (bool, error) {
	var there bool
	if err := v.call("hasEntry", v.handle, v.folder, item, kwalletApp).Store(&there); err != nil {
		return false, mapError("kwallet", err)
	}
	if there {
		return true, nil
	}
	return false, v.stillOpen()
}

func (v *kwalletVault) stillOpen() error {
	var open bool
	if err := v.call("isOpen", v.handle).Store(&open); err != nil {
		return mapError("kwallet", err)
	}
	if !open {
		return locked("kwallet", "it was closed meanwhile")
	}
	return nil
}

// list: a wallet that was closed meanwhile looks like an empty one.
func (v *kwalletVault) list() ([]string, error) {
	items, err := v.ringVault.list()
	if err == nil && len(items) == 0 {
		err = v.stillOpen()
	}
	return items, err
}

func (v *kwalletVault) get(item string) ([]byte, error) {
	there, err := v.has(item)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, errAbsent
	}
	data, err := v.ringVault.get(item)
	if err == errAbsent {
		return nil, broker.Errorf(broker.CodeKeychainDenied, "the keychain (kwallet) has the entry %s and does not give it", item)
	}
	return data, err
}

// A probedVault is one that is known to be readable and not opened.
type probedVault struct{ emptyVault }
