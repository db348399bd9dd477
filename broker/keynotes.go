package broker

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A KeyNote is what is noted of a stored key beside the keychain. It holds no
// secret, and losing it loses no key.
type KeyNote struct {
	Created  time.Time `json:"created,omitzero"`   // when AWS made it, where that could be seen
	LastUsed time.Time `json:"last_used,omitzero"` // by us, to the hour
	Rotated  time.Time `json:"rotated,omitzero"`   // when this key took its predecessor's place
	Rotation *Rotation `json:"rotation,omitempty"` // one that is not finished
}

// A KeyState is what a listing shows of a key.
type KeyState struct {
	KeyInfo
	KeyNote
}

// A Notebook keeps the notes of all keys, by name.
type Notebook interface {
	Notes() (map[string]KeyNote, error)
	// SaveNotes replaces the notes: they are on disk when it returns, and
	// after a crash the old ones or the new ones are.
	SaveNotes(map[string]KeyNote) error
}

// lookPatience is how long AWS may take to say when a key was made.
const lookPatience = 5 * time.Second

// noteMade notes when AWS made a key, where its user may see that. A key that
// is years old is not new for being stored just now.
func (b *Broker) noteMade(ctx context.Context, key Key) {
	if b.cfg.IAM == nil || !strings.Contains(key.UserARN, ":user/") {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	keys, err := b.cfg.IAM.AccessKeys(ctx, key.Credentials(), key.UserARN)
	if at := slices.IndexFunc(keys, func(k AccessKey) bool { return k.ID == key.AccessKeyID }); at >= 0 {
		err = b.notes.update(ctx, key.Name, func(n *KeyNote) { n.Created = keys[at].Created })
	}
	if err != nil {
		b.cfg.Logger.Info("when a key was made is not known", "key", key.Name, "err", err)
	}
}

// useResolution is how exactly the last use of a key is noted.
const useResolution = time.Hour

// keyNotes reads a Notebook once and follows what it writes. turn is held by
// the one who writes; mu guards notes, which is replaced and never changed.
type keyNotes struct {
	book Notebook // nil for none
	turn chan struct{}

	mu    sync.Mutex
	notes map[string]KeyNote // nil until they were read
}

func newKeyNotes(book Notebook) *keyNotes {
	n := &keyNotes{book: book, turn: make(chan struct{}, 1)}
	if book == nil {
		n.notes = map[string]KeyNote{}
	}
	return n
}

// all returns the notes of all keys, which are not to be changed.
func (n *keyNotes) all() (map[string]KeyNote, error) {
	n.mu.Lock()
	notes := n.notes
	n.mu.Unlock()
	if notes != nil {
		return notes, nil
	}
	notes, err := n.book.Notes()
	if err != nil {
		return nil, err
	}
	if notes == nil {
		notes = map[string]KeyNote{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.notes == nil {
		n.notes = notes
	}
	return n.notes, nil
}

// of returns the note of one key.
func (n *keyNotes) of(name string) (KeyNote, error) {
	notes, err := n.all()
	return notes[name], err
}

// update changes the note of one key, on disk before it returns.
func (n *keyNotes) update(ctx context.Context, name string, change func(*KeyNote)) error {
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	old, err := n.all()
	if err != nil {
		return err
	}
	notes := maps.Clone(old)
	note := notes[name]
	if change(&note); note == notes[name] {
		return nil
	}
	if notes[name] = note; note == (KeyNote{}) {
		delete(notes, name)
	}
	if n.book != nil {
		if err := n.book.SaveNotes(notes); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.notes = notes
	return nil
}

// noteUse notes that the named key signs a call now.
func (b *Broker) noteUse(name string) {
	now := b.cfg.Clock.Now().UTC()
	note, err := b.notes.of(name)
	if err == nil && now.Sub(note.LastUsed).Abs() < useResolution {
		return
	}
	if err == nil {
		err = b.notes.update(context.Background(), name, func(n *KeyNote) { n.LastUsed = now.Truncate(time.Second) })
	}
	if err != nil {
		b.cfg.Logger.Warn("the use of a key is not noted", "key", name, "err", err)
	}
}
