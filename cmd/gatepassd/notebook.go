package main

import (
	"path/filepath"

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
	var in notesFile
	if err := loadJSON(b.path, maxNotes, &in); err != nil {
		return nil, broker.Errorf(broker.CodeData, "%s cannot be read: %w", b.path, err).
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
	return saveJSON(b.path, notesFile{Keys: notes})
}
