package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gatepass/broker"

	"golang.org/x/mod/sumdb/note"
)

// Options are how a log is opened.
type Options struct {
	// Dir holds the log, and is made (0700) if it is missing. One that
	// others may enter is refused.
	Dir string

	// Socket is where the daemon listens; it is written into the lock for
	// clients that look in another place.
	Socket string

	// Signer returns the key that signs checkpoints, whose name becomes
	// their origin. It is called when there is first something to sign, and
	// what it returns is held. While it fails, entries stay unsigned and it
	// is asked again at later checkpoints, less and less often. Its
	// signatures are to be deterministic, as Ed25519's are: the last
	// checkpoint of an earlier run is recognised by signing it again. Nil
	// leaves the log unsigned.
	Signer func(context.Context) (note.Signer, error)

	// SignerReady is closed once Signer may have the key where it had not
	// before: it is then called again at once. It may be nil.
	SignerReady <-chan struct{}

	// Command says what of command lines is recorded; by default CommandMasked.
	Command CommandMode

	// Anchor sends a checkpoint to where whoever can change this log cannot
	// change it. It is called with the newest one whenever there is one that
	// was not sent, by one goroutine; while it fails, again, less and less
	// often. ctx is done once Close is called. Nil sends nothing.
	Anchor func(ctx context.Context, checkpoint []byte) error

	// Alarm is called when entries can no longer be written, with why, and
	// with nil when they can again. Both are found out by writing one. It is
	// called by one goroutine, and ctx is done once Close is called. Nil tells
	// nobody.
	Alarm func(ctx context.Context, why error)

	// Keep is how long entries are kept. Segments go when all that is in them
	// is older; zero keeps all for ever.
	Keep time.Duration

	Now         func() time.Time // by default time.Now
	Logger      *slog.Logger     // by default none
	SegmentSize int64            // bytes; by default 64 MiB

	fs    fileSystem // by default the disk
	plain bool       // closed segments are not compressed
}

const (
	// syncDelay is how long an entry that nobody waits for may stay
	// unsynced.
	syncDelay = time.Second

	// syncBytes of unsynced lines are synced at once, and at maxPending
	// writers wait for the disk, so that memory stays bounded.
	syncBytes  = 512 << 10
	maxPending = 1 << 20

	checkpointInterval = 10 * time.Second
	signerBackoff      = 10 * time.Minute // the longest pause between two calls of Signer
	repairBackoff      = time.Minute      // the longest pause between two attempts to write again
)

// A Log is an open audit log. It implements [broker.Log].
//
// Writers, in Append, number entries under mu: that order is the log's. Of
// those who do not wait for the disk, the first to come writes what all have
// added.
// The syncer, one goroutine, writes the rest and brings it to disk (one write
// and one fdatasync for all who wait), begins segments, and repairs after a
// failure. What it has synced, a second goroutine adds to the tree, whose head
// a third, the signer, signs. A fourth, the keeper, compresses and removes old
// segments, of which the others know nothing. A fifth sends away what was
// signed, and a sixth tells whether entries can be written: what these two call
// may take its time.
type Log struct {
	dir    string
	opts   Options
	fs     fileSystem
	log    *slog.Logger
	lock   *os.File
	events sync.Pool // of *encoder

	// mu is held across write(2), and across all of a repair: while either
	// goes on, nothing can be released anyway. It is not held across fsync.
	mu    sync.Mutex
	seg   segment
	next  int64    // the next entry's number
	batch *batch   // what came since the last sync began
	spare [][]byte // empty, for the next batches; at most two
	// unwritten are the entries of the batch that are not in the file yet.
	// Their writers all wait; while broken is set there are none.
	unwritten []*encoder
	flushed   chan struct{} // closed when the writer that is about to flush has; nil while none is
	broken    error         // why nothing can be written until a repair; seg's file is not to be trusted
	full      bool          // a writer waits for a new segment, so all do
	cuts      []cut         // what repairs could not take out of old segments yet
	signed    int64         // how many entries the last checkpoint covers
	failure   error         // why entries cannot be written, nil when they can; see failLocked
	refused   error         // why nothing is signed any more
	closed    bool
	timer     *time.Timer // wakes the syncer for lines that nobody waits for
	waiting   bool        // the timer is set

	wake       chan struct{}   // the syncer's, one place
	ctx        context.Context // done once Close is called
	cancel     context.CancelFunc
	growerDone chan struct{} // the tree's goroutine, and so the syncer, have ended
	signWake   chan struct{} // the signer's, one place
	signerDone chan struct{}
	gone       chan struct{} // closed when the first Close has let go of the log

	// The syncer's own.
	released int           // writers released by the last sync, and those that had joined the next one by then
	lastSync time.Duration // how long it took
	repairIn time.Duration // pause before the next attempt
	made     int           // number of a segment that a failed attempt may have left behind

	synced chan []byte // lines, from the syncer to the tree
	hashes hashFile    // the tree's goroutine's own
	treeMu sync.Mutex  // the tree's goroutine writes it, the signer and the keeper read it
	tree   tree        // over synced entries alone

	anchor anchoring // has a lock of its own
	alarm  alarming  // mu guards what it is about

	sign signing // the signer's own, and Close's after it
	keep keeping // the keeper's own

	commands commands // has a lock of its own
}

var _ broker.Log = (*Log)(nil)

// A segment is the file that is being written.
type segment struct {
	num    int
	f      file
	size   int64 // bytes of whole lines
	synced int64 // bytes known to be on disk
}

// A cut is a piece at the end of an old segment that belongs to no entry.
type cut struct {
	num int
	to  int64
}

// Open opens the log in opts.Dir for writing, or begins one. It reads what no
// checkpoint covers, cuts a torn last line and records that it did.
//
// It returns *[ErrLocked] when a daemon has the log; [broker.CodeConfig] when
// opts make no sense or others may enter the directory; [broker.CodeData] when
// entries that a checkpoint covers are missing or changed, which it never
// repairs; [broker.CodeLogUnwritable] when the disk does not let it write.
func Open(ctx context.Context, opts Options) (*Log, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.SegmentSize == 0 {
		opts.SegmentSize = defaultSegmentSize
	}
	if opts.fs == nil {
		opts.fs = osFS{}
	}
	switch opts.Command {
	case "":
		opts.Command = CommandMasked
	case CommandMasked, CommandName, CommandNone:
	default:
		return nil, broker.Errorf(broker.CodeConfig, "open the audit log: command = %q is not masked, name or none", opts.Command)
	}
	if err := makeDir(opts.Dir); err != nil {
		return nil, err
	}
	lock, err := acquireLock(ctx, opts.Dir, opts.Socket)
	if err != nil {
		if _, ok := errors.AsType[*ErrLocked](err); ok || ctx.Err() != nil {
			return nil, err
		}
		return nil, unwritable(opts.Dir, err)
	}
	l := &Log{
		dir:        opts.Dir,
		opts:       opts,
		fs:         opts.fs,
		log:        opts.Logger,
		lock:       lock,
		batch:      &batch{done: make(chan struct{})},
		wake:       make(chan struct{}, 1),
		synced:     make(chan []byte, 2),
		growerDone: make(chan struct{}),
		signWake:   make(chan struct{}, 1),
		signerDone: make(chan struct{}),
		gone:       make(chan struct{}),
		anchor:     anchoring{wake: make(chan struct{}, 1), done: make(chan struct{})},
		alarm:      alarming{wake: make(chan struct{}, 1), done: make(chan struct{})},
		keep:       keeping{wake: make(chan struct{}, 1), done: make(chan struct{})},
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.commands.mode = opts.Command
	l.events.New = func() any { return &encoder{b: make([]byte, 0, 2<<10)} }
	l.timer = time.AfterFunc(time.Hour, l.wakeSyncer)
	l.timer.Stop()
	recovered, err := l.recover(ctx)
	if err != nil {
		l.closeFiles()
		return nil, err
	}
	l.wakeSigner() // for entries that were left unsigned
	go l.syncer()
	go l.grow()
	l.startAnchoring()
	l.startAlarm()
	go l.signAll()
	l.wakeKeeper() // for what is signed already
	go l.keepAll()
	if recovered != "" {
		l.log.Warn("audit log recovered", "what", recovered)
		err := l.Append(ctx, broker.Event{Kind: broker.EventLogRecovered, Outcome: broker.OutcomeOK, Reason: recovered}, true)
		if err != nil {
			l.Close(ctx)
			return nil, err
		}
	}
	return l, nil
}

// makeDir makes the log's directory, or refuses one that is not private.
func makeDir(dir string) error {
	if !filepath.IsAbs(dir) {
		return broker.Errorf(broker.CodeConfig, "open the audit log: %q is not an absolute path", dir)
	}
	if err := makeDirs(dir); err != nil {
		return unwritable(dir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return unwritable(dir, err)
	}
	if err := CheckPrivate(info); err != nil {
		return broker.Errorf(broker.CodeConfig, "open the audit log: the directory %s: %w", dir, err).
			WithHint("chmod 700 %s, after a look at who could have changed what is in it", dir)
	}
	return nil
}

// makeDirs makes dir and what is missing above it, so that it is there after a
// crash as well.
func makeDirs(dir string) error {
	_, err := os.Stat(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDirs(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// unwritable is how every failure to write the log in dir is returned.
func unwritable(dir string, err error) error {
	e := broker.Errorf(broker.CodeLogUnwritable, "write the audit log: %w", err)
	switch {
	case outOfSpace(err):
		return e.WithHint("make room on the disk of %s; nothing is released until an entry can be written", dir)
	case errors.Is(err, errNotInPlace):
		return e.WithHint("put it back, or restart the daemon to begin another log; until then nothing is released")
	case errors.Is(err, fs.ErrPermission):
		return e.WithHint("%s must belong to you and be writable; nothing is released until an entry can be written", dir)
	}
	return e.WithHint("look at %s and its disk; nothing is released until an entry can be written", dir)
}

// inPlace returns an error where the directory is not the log's any more. What
// is changed in it by name would be another's: a copy, or evidence that was put
// back.
func (l *Log) inPlace() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seg.f.InPlace()
}

// Status tells how many entries the log holds and how many of them are
// signed, and why none can be written now, else why none is signed any more.
func (l *Log) Status() broker.LogStatus {
	l.anchor.mu.Lock()
	anchored := l.anchor.status
	l.anchor.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := broker.LogStatus{Entries: l.next, Signed: l.signed, Anchored: anchored}
	if err := cmp.Or(l.failure, l.refused); err != nil {
		s.Error = err.Error()
	}
	return s
}

// Close brings everything to disk, signs it, and lets go of the log. What it
// signs is sent away (see Anchor in [Options]) after the next Open. ctx
// bounds the wait for the signing key; without the key the last entries stay
// unsigned, which is no error. Called again, it waits for the first call.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		<-l.gone
		return nil
	}
	l.closed = true
	l.timer.Stop()
	l.mu.Unlock()
	defer close(l.gone)
	l.cancel()
	<-l.growerDone
	<-l.signerDone
	<-l.anchor.done
	<-l.keep.done
	<-l.alarm.done
	l.checkpoint(ctx)
	l.finishPruning()

	var err error
	if n := len(l.batch.lines); n > 0 {
		err = unwritable(l.dir, fmt.Errorf("%d bytes of entries could not be brought to disk", n))
	}
	l.closeFiles()
	return err
}

func (l *Log) closeFiles() {
	if l.seg.f != nil {
		l.seg.f.Close()
	}
	l.hashes.close()
	l.sign.closeFile()
	l.lock.Close()
}

func (l *Log) wakeSyncer() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *Log) wakeSigner() {
	select {
	case l.signWake <- struct{}{}:
	default:
	}
}

func (l *Log) wakeKeeper() {
	select {
	case l.keep.wake <- struct{}{}:
	default:
	}
}

// rest waits for d, or until ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
