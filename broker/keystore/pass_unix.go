//go:build unix

package keystore

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/99designs/keyring"

	"gatepass/broker"
)

// A passVault is pass, the password store of gpg. keyring runs it, and loses
// what it says: all failures are "exit status 2", and a store that cannot be
// looked into is empty.
type passVault struct {
	ringVault
	root   string // of the store
	prefix string // of the items' names
}

func (h *helper) openPass() (vault, error) {
	v, err := h.openPassAt()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(v.root, ".gpg-id")); errors.Is(err, fs.ErrNotExist) {
		return nil, missing("pass", v.root+" is no password store").WithHint("make one: pass init <gpg key>")
	} else if err != nil {
		return nil, denied("pass", err.Error())
	}
	return v, nil
}

// openPassAt opens what the request names, be it a store or not.
func (h *helper) openPassAt() (*passVault, error) {
	root := h.req.PassDir
	if root == "" {
		root = os.Getenv("PASSWORD_STORE_DIR")
	}
	if root == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, missing("pass", "neither HOME nor PASSWORD_STORE_DIR is set")
		}
		root = filepath.Join(home, ".password-store")
	}
	for _, program := range []string{"pass", "gpg"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, missing("pass", "the program "+program+" is not on PATH")
		}
	}
	if h.req.Bus != "" {
		os.Setenv("DBUS_SESSION_BUS_ADDRESS", h.req.Bus) // for pinentry
	}
	if h.mayPrompt() {
		h.prompt(false)
	}
	ring, err := openRing("pass", keyring.Config{PassDir: root, PassPrefix: h.req.PassPrefix})
	return &passVault{ring, root, h.req.PassPrefix}, err
}

func (v *passVault) list() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(v.root, v.prefix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, denied("pass", err.Error())
	}
	var items []string
	for _, e := range entries {
		if item, ok := strings.CutSuffix(e.Name(), ".gpg"); ok {
			items = append(items, item)
		}
	}
	return items, nil
}

// An awsVaultPass is aws-vault's part of a password store. Its items may stand
// in folders: "team/ops".
type awsVaultPass struct{ *passVault }

func (h *helper) openAWSVaultPass() (vault, error) {
	v, err := h.openPassAt()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(v.root, v.prefix)); errors.Is(err, fs.ErrNotExist) {
		return nil, noAWSVault("%s is not there", filepath.Join(v.root, v.prefix))
	} else if err != nil {
		return nil, denied("pass", err.Error())
	}
	return awsVaultPass{v}, nil
}

func (v awsVaultPass) list() ([]string, error) {
	top := filepath.Join(v.root, v.prefix)
	var items []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if item, ok := strings.CutSuffix(strings.TrimPrefix(path, top+"/"), ".gpg"); ok && !d.IsDir() {
			items = append(items, item)
		}
		return nil
	})
	if err != nil {
		return nil, denied("pass", err.Error())
	}
	return items, nil
}

func (v *passVault) get(item string) (data []byte, err error) {
	if _, err := os.Stat(filepath.Join(v.root, v.prefix, item+".gpg")); errors.Is(err, fs.ErrNotExist) {
		return nil, errAbsent
	} else if err != nil {
		return nil, denied("pass", err.Error())
	}
	text := hear(func() { data, err = v.ringVault.get(item) })
	return data, v.explain(err, text)
}

// put writes another item, reads it back and moves it: gpg writes into the
// file itself, so an end in between would lose both old and new; and what can
// be encrypted cannot always be decrypted.
func (v *passVault) put(item string, data []byte) (err error) {
	text := hear(func() {
		next := "gatepass.next." + item
		if err = v.ringVault.put(next, data); err != nil {
			return
		}
		defer func() {
			if err != nil {
				v.ringVault.remove(next)
			}
		}()
		kept, e := v.ringVault.get(next)
		if err = e; err != nil {
			return
		}
		if !broker.NewSecret(kept).Equal(broker.NewSecret(data)) {
			err = broker.Errorf(broker.CodeData, "the keychain (pass) does not give back what it took")
			return
		}
		cmd := exec.Command("pass", "mv", "-f", v.prefix+"/"+next, v.prefix+"/"+item)
		cmd.Env = append(os.Environ(), "PASSWORD_STORE_DIR="+v.root)
		cmd.Stderr = os.Stderr
		err = cmd.Run()
	})
	return v.explain(err, text)
}

func (v *passVault) remove(item string) (err error) {
	text := hear(func() { err = v.ringVault.remove(item) })
	return v.explain(err, text)
}

// hear runs f and returns what the programs that it ran said on stderr:
// keyring hands them ours.
func hear(f func()) string {
	r, w, err := os.Pipe()
	if err != nil {
		f()
		return ""
	}
	defer r.Close()
	stderr := os.Stderr
	os.Stderr = w
	text := make(chan string, 1)
	go func() {
		var b bytes.Buffer
		io.Copy(&b, io.LimitReader(r, 8<<10))
		io.Copy(io.Discard, r) // or it would wait for us
		text <- b.String()
	}()
	f()
	os.Stderr = stderr
	w.Close()
	// A gpg-agent that was started meanwhile may hold the other end on.
	r.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	return <-text
}

// explain gives a failure of pass its code by what gpg said.
func (v *passVault) explain(err error, text string) error {
	if err == nil || broker.CodeOf(err) == broker.CodeData {
		return err
	}
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("Operation cancelled"):
		return denied("pass", "gpg's dialog was cancelled")
	case has("Bad passphrase"):
		return denied("pass", "the passphrase of gpg's key was wrong")
	case has("Inappropriate ioctl", "No pinentry", "Timeout", "No passphrase", "cannot open '/dev/tty'"),
		has("No secret key") && v.hasSecretKey(): // gpg's word for a pinentry that cannot ask
		return locked("pass", "gpg's key needs its passphrase, and there is no way to ask for it")
	case has("No secret key"):
		return denied("pass", "gpg does not have the secret key of the store")
	case has("no valid OpenPGP data", "decryption failed", "No such file", "CRC error", "invalid packet"):
		return broker.Errorf(broker.CodeData, "an item of the password store does not decrypt: %s", lastLine(text))
	}
	if line := lastLine(text); line != "" {
		return denied("pass", line)
	}
	return mapError("pass", err)
}

// hasSecretKey reports whether gpg has a secret key that the store is
// encrypted to, be it locked or not.
func (v *passVault) hasSecretKey() bool {
	dir := filepath.Join(v.root, v.prefix)
	ids, err := os.ReadFile(filepath.Join(dir, ".gpg-id"))
	for err != nil && dir != v.root && dir != filepath.Dir(dir) { // a folder has the keys of the one above
		dir = filepath.Dir(dir)
		ids, err = os.ReadFile(filepath.Join(dir, ".gpg-id"))
	}
	if err != nil {
		return false
	}
	for id := range strings.Lines(string(ids)) {
		id, _, _ = strings.Cut(id, "#")
		id = strings.TrimSpace(id)
		if id == "" {
			continue
		}
		out, err := exec.Command("gpg", "--batch", "--with-colons", "--list-secret-keys", "--", id).Output()
		if err == nil && strings.Contains(string(out), "sec:") {
			return true
		}
	}
	return false
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return printableText(lines[len(lines)-1])
}
