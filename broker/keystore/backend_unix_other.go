//go:build unix && !linux

package keystore

import "runtime"

func (h *helper) auto() (string, error) {
	if runtime.GOOS == "darwin" {
		return "keychain", nil
	}
	return "", missing("auto", "gatepass knows of none on "+runtime.GOOS)
}

func elsewhere(backend string) (vault, error) {
	return nil, missing(backend, "it is not for "+runtime.GOOS)
}

func (h *helper) openWinCred() (vault, error)       { return elsewhere("wincred") }
func (h *helper) openKeyctl() (vault, error)        { return elsewhere("keyctl") }
func (h *helper) openSecretService() (vault, error) { return elsewhere("secret-service") }
func (h *helper) openKWallet() (vault, error)       { return elsewhere("kwallet") }

func (h *helper) openWinCredOf(string) (vault, error)       { return elsewhere("wincred") }
func (h *helper) openAWSVaultSecretService() (vault, error) { return elsewhere("secret-service") }
func (h *helper) openAWSVaultKWallet() (vault, error)       { return elsewhere("kwallet") }
