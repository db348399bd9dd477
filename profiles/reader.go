package profiles

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// maxFile bounds a file that is read, in bytes.
	maxFile = 16 << 20
	// maxCached bounds how many pairs of files are kept: a client names them.
	maxCached = 32
	// granularity is the coarsest step of time stamps that file systems keep
	// (2 s on FAT). What changed less than that before it was read may change
	// again and look the same.
	granularity = 2 * time.Second
	// maxTries bounds how often a file that changes under us is read again.
	maxTries = 8
)

// A Reader resolves profiles. It keeps what the files say until they change:
// each call looks at both files' size, inode and times, and reads them again
// when those differ or when the last change was too fresh to tell. No secret
// of a file is kept. Its methods may be called by many goroutines.
type Reader struct {
	now     func() time.Time
	stampOf func(fs.FileInfo) stamp
	open    func(path string) (*os.File, error)
	seed    maphash.Seed

	mu      sync.Mutex // never held while a file is touched
	cached  map[Files]*snapshot
	reading map[Files]*reading
}

// A snapshot is what two files said at one time.
type snapshot struct {
	started time.Time // before either was opened
	stamps  [2]stamp
	settled bool      // a later change shows in the stamps
	sums    [2]uint64 // of the contents
	set     *resolver
	err     error // a *ConfigError in the contents
}

// A reading is a snapshot being taken, by one goroutine for all who wait.
type reading struct {
	done    chan struct{}
	started time.Time
	snap    *snapshot
	err     error
}

// A stamp tells one state of a file from the next. The zero stamp is that of
// a file that does not exist.
type stamp struct {
	exists   bool
	size     int64
	dev, ino uint64
	mtime    int64 // in ns since 1970
	changed  int64 // the inode's change time, which nobody can set; mtime where there is none
}

// NewReader returns a Reader that has read nothing yet.
func NewReader() *Reader {
	return &Reader{
		now:     time.Now,
		stampOf: stampOf,
		open:    openFile,
		seed:    maphash.MakeSeed(),
		cached:  map[Files]*snapshot{},
		reading: map[Files]*reading{},
	}
}

// Resolve returns what the named profile means. It fails with a
// *[NotFoundError] for a profile that is in neither file, and with a
// *[ConfigError] for whatever else is wrong. The slices within the hops are
// shared: they are not the caller's to change.
func (r *Reader) Resolve(files Files, name string) (*Chain, error) {
	set, err := r.load(files)
	if err != nil {
		return nil, err
	}
	chain, err := set.resolve(name)
	if err != nil {
		return nil, err
	}
	c := *chain
	c.Hops = slices.Clone(c.Hops)
	c.Notes = slices.Clone(c.Notes)
	return &c, nil
}

// A Resolution is what one profile means, or why it means nothing.
type Resolution struct {
	Name  string
	Chain *Chain // shared: not to be changed
	Err   error  // as of [Reader.Resolve]
}

// All resolves every profile that Names returns, in its order, in the state
// in which the files are now. The chains are not kept: there may be many.
func (r *Reader) All(files Files) (iter.Seq[Resolution], error) {
	set, err := r.load(files)
	if err != nil {
		return nil, err
	}
	return func(yield func(Resolution) bool) {
		for _, name := range set.names {
			res := set.meaning(name, set.profiles[name])
			if !yield(Resolution{Name: name, Chain: res.chain, Err: res.err}) {
				return
			}
		}
	}, nil
}

// Names returns the names of all profiles, sorted. Those that cannot be asked
// for, because they hold control characters, are left out.
func (r *Reader) Names(files Files) ([]string, error) {
	set, err := r.load(files)
	if err != nil {
		return nil, err
	}
	return slices.Clone(set.names), nil
}

// load returns the meaning of files as they are now or were at some time since
// the call began.
func (r *Reader) load(files Files) (*resolver, error) {
	arrived := r.now()
	for {
		stamps, err := r.look(files)
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		if s := r.cached[files]; s != nil && s.stamps == stamps && (s.settled || !s.started.Before(arrived)) {
			r.mu.Unlock()
			return s.set, s.err
		}
		rd := r.reading[files]
		leads := rd == nil
		if leads {
			rd = &reading{done: make(chan struct{}), started: r.now()}
			r.reading[files] = rd
		}
		old := r.cached[files]
		r.mu.Unlock()

		if leads {
			r.read(rd, files, old)
		} else {
			<-rd.done
		}
		// What was begun before we came may have missed a change that we know of.
		if rd.started.Before(arrived) {
			continue
		}
		if rd.err != nil {
			return nil, rd.err
		}
		return rd.snap.set, rd.snap.err
	}
}

// look returns the stamps of both files.
func (r *Reader) look(files Files) (stamps [2]stamp, err error) {
	for i, path := range [2]string{files.Config, files.Credentials} {
		fi, err := statFile(path)
		if err != nil {
			return stamps, err
		}
		if fi != nil {
			stamps[i] = r.stampOf(fi)
		}
	}
	return stamps, nil
}

// read takes the snapshot that rd announces, and lets those who wait go on
// whatever happens.
func (r *Reader) read(rd *reading, files Files, old *snapshot) {
	rd.err = errors.New("internal: reading the profiles did not finish")
	defer func() {
		r.mu.Lock()
		delete(r.reading, files)
		if rd.err == nil {
			if r.cached[files] == nil && len(r.cached) >= maxCached {
				for other := range r.cached { // in random order
					delete(r.cached, other)
					break
				}
			}
			r.cached[files] = rd.snap
		}
		r.mu.Unlock()
		close(rd.done)
	}()
	rd.snap, rd.err = r.snapshot(rd.started, files, old)
}

func (r *Reader) snapshot(started time.Time, files Files, old *snapshot) (*snapshot, error) {
	s := &snapshot{started: started, settled: true}
	var data [2][]byte
	defer func() {
		for _, d := range data {
			clear(d) // plaintext keys may be in it
		}
	}()
	for i, path := range [2]string{files.Config, files.Credentials} {
		var err error
		if data[i], s.stamps[i], err = r.readFile(path); err != nil {
			return nil, err
		}
		s.sums[i] = maphash.Bytes(r.seed, data[i])
		if s.stamps[i].exists && s.stamps[i].changed > started.Add(-granularity).UnixNano() {
			s.settled = false
		}
	}
	if old != nil && old.sums == s.sums && old.stamps[0].size == s.stamps[0].size && old.stamps[1].size == s.stamps[1].size {
		s.set, s.err = old.set, old.err
		return s, nil
	}
	set, err := newProfileSet(files, data[0], data[1], keep)
	if err != nil {
		s.err = err
		return s, nil
	}
	s.set = newResolver(files, set)
	return s, nil
}

// readFile returns a file's content and the stamp that goes with it. A file
// that does not exist has neither.
func (r *Reader) readFile(path string) ([]byte, stamp, error) {
	for range maxTries {
		fi, err := statFile(path)
		if err != nil || fi == nil {
			return nil, stamp{}, err
		}
		data, before, after, err := r.readOnce(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // replaced just now
		}
		if err != nil {
			return nil, stamp{}, err
		}
		if before == after {
			return data, after, nil
		}
		clear(data)
	}
	// Half a profile may be one without its role: better none.
	return nil, stamp{}, &ConfigError{File: path, Msg: "the file keeps changing while it is read: try again"}
}

// readOnce reads the file and returns its stamps before and after.
func (r *Reader) readOnce(path string) (data []byte, before, after stamp, err error) {
	f, err := r.open(path)
	if err != nil {
		return nil, before, after, unreadable(path, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, before, after, unreadable(path, err)
	}
	if err := checkKind(path, fi); err != nil {
		return nil, before, after, err
	}
	data = make([]byte, 0, min(fi.Size(), maxFile)+1)
	for {
		n, err := f.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			clear(data)
			return nil, before, after, unreadable(path, err)
		}
		if len(data) == cap(data) {
			if len(data) > maxFile {
				clear(data)
				return nil, before, after, tooLarge(path)
			}
			// The file is longer than it said, and so is being written.
			bigger := make([]byte, len(data), min(2*cap(data)+512, maxFile+1))
			copy(bigger, data)
			clear(data)
			data = bigger
		}
	}
	last, err := f.Stat()
	if err != nil {
		clear(data)
		return nil, before, after, unreadable(path, err)
	}
	return data, r.stampOf(fi), r.stampOf(last), nil
}

// openFile opens a file for reading. Should the path have become a FIFO, nobody
// waits for a writer.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// statFile describes a file that can be read, or returns nil for one that
// does not exist.
func statFile(path string) (fs.FileInfo, error) {
	if path == "" || path == os.DevNull {
		return nil, nil
	}
	if !filepath.IsAbs(path) {
		return nil, &ConfigError{File: path, Msg: "the path is not absolute"}
	}
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(path, err)
	}
	if fi.Mode()&fs.ModeDevice != 0 {
		if null, err := os.Stat(os.DevNull); err == nil && os.SameFile(fi, null) {
			return nil, nil // a link to it
		}
	}
	return fi, checkKind(path, fi)
}

// checkKind refuses what is not a regular file of a readable size.
func checkKind(path string, fi fs.FileInfo) error {
	switch mode := fi.Mode(); {
	case mode.IsDir():
		return &ConfigError{File: path, Msg: "is a directory"}
	case !mode.IsRegular():
		return &ConfigError{File: path, Msg: "is not a regular file"}
	case fi.Size() > maxFile:
		return tooLarge(path)
	}
	return nil
}

func tooLarge(path string) error {
	return &ConfigError{File: path, Msg: fmt.Sprintf("is larger than %d MiB", maxFile>>20)}
}

// unreadable says why a file cannot be read, without repeating its path.
func unreadable(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &ConfigError{File: path, Msg: "cannot be read: " + err.Error(), err: err}
}
