package forward

import (
	"crypto/sha256"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// A Cursor says how far a destination is: marks, the newest first. There are
// older ones because a power cut may take back the log's last second: what was
// sent of that is then no longer in the log, and other entries have its
// numbers. The first mark whose entry is still there is where to go on.
type Cursor struct {
	Marks []Mark `json:"marks"`
}

// A Mark is a place between two entries.
type Mark struct {
	Next int64     `json:"next"` // all entries below this number are delivered
	Hash []byte    `json:"hash"` // SHA-256 of the entry before it
	Time time.Time `json:"time"` // when it was delivered
}

// Cursors keep the cursors of all destinations, by name, across restarts.
type Cursors interface {
	Cursors() (map[string]Cursor, error)
	SaveCursors(map[string]Cursor) error
}

const (
	// markDistance is more than the log takes to bring an entry to disk.
	markDistance = 10 * time.Second
	marksKept    = 3

	// saveInterval bounds how often cursors are written down. What was sent
	// since is sent again after a crash.
	saveInterval = time.Second
)

func markAfter(r record, now time.Time) Mark {
	hash := sha256.Sum256(r.raw)
	return Mark{Next: r.entry.Seq + 1, Hash: hash[:], Time: now}
}

// add makes m the newest mark. The others are at least markDistance apart.
func (c *Cursor) add(m Mark) {
	if n := len(c.Marks); n >= 2 && c.Marks[0].Time.Sub(c.Marks[1].Time).Abs() < markDistance {
		c.Marks = slices.Clone(c.Marks)
		c.Marks[0] = m
		return
	}
	c.Marks = slices.Concat([]Mark{m}, c.Marks)
	c.Marks = c.Marks[:min(len(c.Marks), marksKept)]
}

// next is the number of the first entry that is not delivered.
func (c Cursor) next() int64 {
	if len(c.Marks) == 0 {
		return 0
	}
	return c.Marks[0].Next
}

// A book has the cursors of all destinations, and writes them down.
type book struct {
	store Cursors
	now   func() time.Time
	log   *slog.Logger

	mu      sync.Mutex
	cursors map[string]Cursor
	saved   time.Time
	dirty   bool
	failed  bool // the last attempt to save
}

// openBook reads what is written down. Where that cannot be read, all is sent
// again: twice is better than never.
func openBook(store Cursors, now func() time.Time, log *slog.Logger) *book {
	b := &book{store: store, now: now, log: log, cursors: map[string]Cursor{}}
	cursors, err := store.Cursors()
	if err != nil {
		log.Warn("what was forwarded cannot be read; the log is forwarded from its beginning", "err", err)
	} else {
		maps.Copy(b.cursors, cursors)
	}
	return b
}

func (b *book) cursor(name string) Cursor {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cursors[name]
}

func (b *book) set(name string, c Cursor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cursors[name] = c
	b.dirty = true
	if now := b.now(); now.Sub(b.saved).Abs() >= saveInterval {
		b.saveLocked(now)
	}
}

// flush writes down what is not yet.
func (b *book) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dirty {
		b.saveLocked(b.now())
	}
}

func (b *book) saveLocked(now time.Time) {
	b.saved = now
	err := b.store.SaveCursors(b.cursors)
	if err != nil && !b.failed {
		b.log.Warn("what was forwarded cannot be written down; after a restart it is forwarded again", "err", err)
	}
	b.failed, b.dirty = err != nil, err != nil
}
