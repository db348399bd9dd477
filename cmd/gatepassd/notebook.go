package main

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"gatepass/broker"
)

// A notebook is the file with what is noted of keys beside the keychain. The
// daemon alone writes it.
type notebook struct{ path string }

// maxNotes limits what is read: a note has some hundred bytes.
const maxNotes = 1 << 20

type notesFile struct {
	Keys map[string]broker.KeyNote `json:"keys"`
}

func (b notebook) Notes() (map[string]broker.KeyNote, error) {
	f, err := os.Open(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, broker.Errorf(broker.CodeData, "read what is noted of keys: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxNotes+1))
	if err == nil && len(data) > maxNotes {
		err = errors.New("it is longer than 1 MiB")
	}
	var in notesFile
	if err == nil {
		err = json.Unmarshal(data, &in)
	}
	if err != nil {
		return nil, broker.Errorf(broker.CodeData, "%s is damaged: %w", b.path, err).
			WithHint("move it away; no key is in it, and an unfinished rotation is found again in the keychain")
	}
	return in.Keys, nil
}

// SaveNotes writes beside the file and renames, each on disk before the next.
func (b notebook) SaveNotes(notes map[string]broker.KeyNote) (err error) {
	defer func() {
		if err != nil {
			err = broker.Errorf(broker.CodeLogUnwritable, "write the journal of keys: %w", err).
				WithHint("%s must be writable, and its disk have room; until then no key is rotated", filepath.Dir(b.path))
		}
	}()
	data, err := json.MarshalIndent(notesFile{Keys: notes}, "", "  ")
	if err != nil {
		return err
	}
	next := b.path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(next)
		return err
	}
	if err := os.Rename(next, b.path); err != nil {
		os.Remove(next)
		return err
	}
	if runtime.GOOS == "windows" { // where directories cannot be synced
		return nil
	}
	dir, err := os.Open(filepath.Dir(b.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
