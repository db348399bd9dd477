package keystore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/99designs/keyring"

	"gatepass/broker"
)

// A fileVault is keyring's file backend, made safe: it writes into the file
// itself, so an end in between would lose both old and new; it takes any
// directory as it is; and it takes a directory that cannot be read for empty.
type fileVault struct {
	ringVault
	h   *helper
	dir string
	cfg keyring.Config
}

func (h *helper) openFile() (vault, error) {
	dir := h.req.FileDir
	if !filepath.IsAbs(dir) {
		return nil, broker.Errorf(broker.CodeConfig, "the directory of the file keychain is not an absolute path: %q", dir)
	}
	if len(h.req.passphrase) == 0 && h.req.Op != opUnlock {
		return nil, locked("file", "it has no passphrase to open with")
	}
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) && h.req.Op == opPut {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, denied("file", err.Error())
		}
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return nil, denied("file", err.Error())
		}
		st, err = os.Stat(dir)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return emptyVault{}, nil
	case err != nil:
		return nil, denied("file", err.Error())
	case !st.IsDir():
		return nil, broker.Errorf(broker.CodeConfig, "the file keychain %s is not a directory", dir)
	}
	if err := checkPrivate(dir, st); err != nil {
		return nil, err
	}
	passphrase := string(h.req.passphrase)
	v := &fileVault{h: h, dir: dir, cfg: keyring.Config{
		FileDir:          dir,
		FilePasswordFunc: func(string) (string, error) { return passphrase, nil },
	}}
	v.ringVault, err = openRing("file", v.cfg)
	return v, err
}

// An emptyVault is a file keychain whose directory is not there yet.
type emptyVault struct{}

func (emptyVault) list() ([]string, error)    { return nil, nil }
func (emptyVault) get(string) ([]byte, error) { return nil, errAbsent }
func (emptyVault) put(string, []byte) error   { return errAbsent }
func (emptyVault) remove(string) error        { return errAbsent }
func (emptyVault) probe() error               { return nil }
func (emptyVault) unlock() (answer, error)    { return answer{New: true, Opens: true}, nil }

func (v *fileVault) list() ([]string, error) {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return nil, denied("file", err.Error())
	}
	var items []string
	for _, e := range entries {
		items = append(items, e.Name()) // an item's name is a file's name, see itemName
	}
	return items, nil
}

func (v *fileVault) get(item string) ([]byte, error) {
	if err := v.readable(item); err != nil {
		return nil, err
	}
	return v.open(v.ringVault, item)
}

// readable: whatever lies there is not to be read for ever, nor without end.
func (v *fileVault) readable(file string) error {
	st, err := os.Stat(filepath.Join(v.dir, file))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errAbsent
	case err != nil:
		return denied("file", err.Error())
	case !st.Mode().IsRegular() || st.Size() > 4*maxItem:
		return broker.Errorf(broker.CodeData, "%s in the file keychain is not a stored item", file)
	}
	return nil
}

// open reads an item through ring. A wrong passphrase and a damaged file look
// alike where the wrapped key does not open; all else is damage.
func (v *fileVault) open(ring ringVault, item string) ([]byte, error) {
	it, err := ring.ring.Get(item)
	switch {
	case errors.Is(err, keyring.ErrKeyNotFound):
		return nil, errAbsent
	case errors.Is(err, fs.ErrPermission):
		return nil, denied("file", err.Error())
	case err != nil && strings.Contains(err.Error(), "KeyUnwrap"):
		return nil, broker.Errorf(broker.CodeKeychainDenied, "the keychain (file) refused: %w %s, or the file is damaged", errPassphrase, item).
			WithHint("start gatepassd with the passphrase that the store was made with, or remove %s", filepath.Join(v.dir, item))
	case err != nil:
		return nil, broker.Errorf(broker.CodeData, "the item %s of the file keychain is damaged", item).
			WithHint("remove %s and store it again", filepath.Join(v.dir, item))
	}
	return it.Data, nil
}

// errPassphrase is in the chain of a refusal that may be the passphrase's.
var errPassphrase = errors.New("the passphrase does not open")

// staging is the prefix of the directories in which items are written.
const staging = ".put-"

// put writes the item into a directory of its own, reads it back, and renames
// it into place, each step on disk before the next. A kill at any point leaves
// the old item or the new one.
func (v *fileVault) put(item string, data []byte) (err error) {
	// An item under another passphrase would leave a store that none opens.
	if err := v.probe(); err != nil {
		return err
	}
	v.sweep()
	defer func() {
		if e := (*broker.Error)(nil); err != nil && !errors.As(err, &e) {
			err = broker.Errorf(broker.CodeKeychainDenied, "write the file keychain: %w", err).
				WithHint("%s must be writable, and its disk have room", v.dir)
		}
	}()
	tmp, err := os.MkdirTemp(v.dir, staging)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	cfg := v.cfg
	cfg.FileDir = tmp
	ring, err := openRing("file", cfg)
	if err != nil {
		return err
	}
	if err := ring.ring.Set(keyring.Item{Key: item, Data: data}); err != nil {
		return err
	}
	v.h.reach("written")
	if err := syncPath(filepath.Join(tmp, item)); err != nil {
		return err
	}
	kept, err := v.open(ring, item)
	if err != nil {
		return err
	}
	if !broker.NewSecret(kept).Equal(broker.NewSecret(data)) {
		return fmt.Errorf("%s reads back as something else", item)
	}
	v.h.reach("synced")
	if err := os.Rename(filepath.Join(tmp, item), filepath.Join(v.dir, item)); err != nil {
		return err
	}
	v.h.reach("renamed")
	return syncDir(v.dir)
}

// sweep removes what killed writes have left. Another's write of this moment
// is young.
func (v *fileVault) sweep() {
	left, _ := filepath.Glob(filepath.Join(v.dir, staging+"*"))
	for _, dir := range left {
		if st, err := os.Lstat(dir); err == nil && time.Since(st.ModTime()) > time.Hour {
			os.RemoveAll(dir)
		}
	}
}

func (v *fileVault) remove(item string) error {
	if err := os.Remove(filepath.Join(v.dir, item)); err != nil {
		return denied("file", err.Error())
	}
	if err := syncDir(v.dir); err != nil {
		return denied("file", err.Error())
	}
	return nil
}

// probe returns nil where the passphrase opens at least one item, or there is
// none yet.
func (v *fileVault) probe() error {
	items, err := v.list()
	if err != nil {
		return err
	}
	var first error
	for _, item := range items {
		if !isOurs(item) {
			continue
		}
		data, err := v.get(item)
		clear(data)
		if err == nil {
			return nil
		}
		if first == nil && err != errAbsent && broker.CodeOf(err) != broker.CodeData {
			first = err
		}
	}
	return first
}

// unlock says whether the passphrase is the store's. A store in which nothing
// is has none yet.
func (v *fileVault) unlock() (answer, error) {
	items, err := v.list()
	if err != nil {
		return answer{}, err
	}
	if !slices.ContainsFunc(items, isOurs) {
		return answer{New: true, Opens: true}, nil
	}
	if len(v.h.req.passphrase) == 0 {
		return answer{}, nil
	}
	if err = v.probe(); err != nil && !errors.Is(err, errPassphrase) {
		return answer{}, err
	}
	return answer{Opens: err == nil}, nil
}

func isOurs(item string) bool { return strings.HasPrefix(item, "gatepass.") }

func syncPath(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Sync()
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
