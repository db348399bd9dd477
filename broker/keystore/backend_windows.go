package keystore

import (
	"io/fs"

	"github.com/99designs/keyring"
	"github.com/danieljoos/wincred"

	"gatepass/broker"
)

func (h *helper) auto() (string, error) { return "wincred", nil }

// openWinCred opens Windows' credential manager.
func (h *helper) openWinCred() (vault, error) { return h.openWinCredOf("gatepass") }

// openWinCredOf opens the credentials of a program.
func (h *helper) openWinCredOf(program string) (vault, error) {
	ring, err := openRing("wincred", keyring.Config{ServiceName: program, WinCredPrefix: program})
	return winVault{ring}, err
}

// A winVault is Windows' credential manager.
type winVault struct{ ringVault }

// list: keyring takes credentials that cannot be listed for none.
func (v winVault) list() ([]string, error) {
	if _, err := wincred.List(); err != nil {
		return nil, mapError("wincred", err)
	}
	return v.ringVault.list()
}

func (v winVault) probe() error {
	_, err := v.list()
	return err
}

// put: CRED_MAX_CREDENTIAL_BLOB_SIZE is 5*512 bytes (wincred.h), and what is
// longer fails with "The stub received bad data".
func (v winVault) put(item string, data []byte) error {
	if len(data) > 5*512 {
		return broker.Errorf(broker.CodeData, "the keychain (wincred) holds at most 2560 bytes an item, %s has %d", item, len(data))
	}
	return v.ringVault.put(item, data)
}

func elsewhere(backend string) (vault, error) { return nil, missing(backend, "it is not for Windows") }

func (h *helper) openPass() (vault, error)          { return elsewhere("pass") }
func (h *helper) openKeyctl() (vault, error)        { return elsewhere("keyctl") }
func (h *helper) openSecretService() (vault, error) { return elsewhere("secret-service") }
func (h *helper) openKWallet() (vault, error)       { return elsewhere("kwallet") }

func (h *helper) openAWSVaultPass() (vault, error)          { return elsewhere("pass") }
func (h *helper) openAWSVaultSecretService() (vault, error) { return elsewhere("secret-service") }
func (h *helper) openAWSVaultKWallet() (vault, error)       { return elsewhere("kwallet") }

// checkPrivate leaves it to the access list of the user's profile.
func checkPrivate(string, fs.FileInfo) error { return nil }

// syncDir does nothing: Windows does not sync directories.
func syncDir(string) error { return nil }
