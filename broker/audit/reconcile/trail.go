package reconcile

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// maxRecord bounds what is read at once, in bytes. CloudTrail's records are at
// most 1 MiB.
const maxRecord = 4 << 20

// Files returns the CloudTrail files that names lead to: of a directory, all
// *.json.gz and *.json below it but digests; of anything else, itself. What is
// not there, is neither a file nor a directory, or is a directory without any, is
// an error. So is a link to a directory in a directory, which is not followed:
// what is below it would be left out.
func Files(names []string) ([]string, error) {
	var files []string
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			if !info.Mode().IsRegular() { // it is read twice
				return nil, fmt.Errorf("%s is neither a file nor a directory", name)
			}
			files = append(files, name)
			continue
		}
		before := len(files)
		// With a separator at its end, a link is what it leads to.
		err = filepath.WalkDir(name+string(filepath.Separator), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			isFile := d.Type().IsRegular()
			if d.Type()&fs.ModeSymlink != 0 {
				info, err := os.Stat(path)
				if err == nil && info.IsDir() && d.Name() != "CloudTrail-Digest" {
					return fmt.Errorf("%s is a link to a directory, which is not followed: name the directories that hold files", path)
				}
				isFile = err != nil || info.Mode().IsRegular() // one that leads nowhere cannot be read
			}
			switch {
			case d.IsDir() && d.Name() == "CloudTrail-Digest":
				return fs.SkipDir
			case isFile && (strings.HasSuffix(path, ".json.gz") || strings.HasSuffix(path, ".json")) &&
				!strings.Contains(d.Name(), "_CloudTrail-Digest_"):
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if len(files) == before {
			return nil, fmt.Errorf("%s holds no CloudTrail files (*.json.gz or *.json)", name)
		}
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// A FileError is why a file was not read to its end.
type FileError struct {
	File string `json:"file"`
	What string `json:"what"`
}

func (e FileError) Error() string { return e.File + ": " + e.What }

// A trail is the files, read as often as needed.
type trail struct {
	files []string
	bad   []FileError      // of the last reading
	read  map[string]int64 // records of each file, as first read
}

// each calls f with every event, file by file. What is wrong with a file goes
// to t.bad, and the next one is read; the error is f's or the context's.
func (t *trail) each(ctx context.Context, f func(*Event) error) error {
	t.bad = nil
	first := t.read == nil
	if first {
		t.read = map[string]int64{}
	}
	for _, name := range t.files {
		var n int64
		err := eachOf(ctx, name, func(e *Event) error {
			n++
			e.File = name
			return f(e)
		})
		if stop := (*stopped)(nil); errors.As(err, &stop) {
			return stop.err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case err == errDigest:
		case err != nil:
			t.bad = append(t.bad, FileError{name, fmt.Sprintf("after %d records: %v", n, err)})
		case !first && t.read[name] != n:
			t.bad = append(t.bad, FileError{name, "changed while it was read"})
		}
		if first {
			t.read[name] = n
		}
	}
	return nil
}

// stopped is an error of the one who is given the events.
type stopped struct{ err error }

func (s *stopped) Error() string { return s.err.Error() }

// A batch is records on their way through a parser: raw in, events or an error
// out.
type batch struct {
	raw    []byte
	ends   []int
	events []*Event
	err    error
	parsed chan struct{}
}

const batchSize = 256 << 10 // bytes, about 150 records

func (b *batch) parse() {
	defer close(b.parsed)
	from := 0
	for _, to := range b.ends {
		e, err := parseEvent(b.raw[from:to])
		if err != nil {
			b.err = err
			return
		}
		b.events = append(b.events, e)
		from = to
	}
}

// eachOf calls f with every event of one file, in order.
func eachOf(ctx context.Context, name string, f func(*Event) error) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	return readEvents(ctx, file, f)
}

// readEvents calls f with every event of a CloudTrail file, in order. Records
// are parsed by all processors.
func readEvents(ctx context.Context, file io.Reader, f func(*Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	workers := runtime.GOMAXPROCS(0)
	todo, ordered := make(chan *batch), make(chan *batch, 2*workers)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for range workers {
		running.Go(func() {
			for b := range todo {
				b.parse()
			}
		})
	}
	var readErr error
	running.Go(func() {
		defer close(ordered)
		defer close(todo)
		b := &batch{parsed: make(chan struct{})}
		send := func() error {
			if len(b.ends) == 0 {
				return nil
			}
			select {
			case ordered <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
			todo <- b
			b = &batch{parsed: make(chan struct{})}
			return nil
		}
		readErr = readRecords(file, func(raw []byte) error {
			b.raw = append(b.raw, raw...)
			b.ends = append(b.ends, len(b.raw))
			if len(b.raw) < batchSize {
				return nil
			}
			return send()
		})
		if err := send(); readErr == nil {
			readErr = err
		}
	})
	for b := range ordered {
		<-b.parsed
		for _, e := range b.events {
			if err := f(e); err != nil {
				return &stopped{err}
			}
		}
		if b.err != nil {
			return b.err
		}
	}
	return readErr
}

// errDigest says that a file is one of CloudTrail's digests.
var errDigest = errors.New("is a digest file")

// readRecords calls f with each record of a CloudTrail file, gzipped or not:
// {"Records":[…]} as it is delivered, or {"Events":[…]} as "aws cloudtrail
// lookup-events" prints it, once or several times. raw is valid until f
// returns.
func readRecords(r io.Reader, f func(raw []byte) error) error {
	in := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		defer z.Close()
		return (&recordReader{in: z}).all(f)
	}
	return (&recordReader{in: in}).all(f)
}

// A recordReader splits JSON. As an io.Reader it bounds what its decoder reads
// in one step, so that no value, whatever a file unpacks to, fills the memory.
type recordReader struct {
	in   io.Reader
	left int
	dec  *json.Decoder
}

var errLong = errors.New("a record is longer than 4 MiB")

func (r *recordReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, errLong
	}
	// As much as there is room for: the decoder looks at all the white space
	// that it has before each reading.
	n, err := io.ReadFull(r.in, p[:min(len(p), r.left)])
	r.left -= n
	if n > 0 { // the error comes again
		err = nil
	}
	return n, err
}

// token returns the next token, and the error of what ends too early.
func (r *recordReader) token() (json.Token, error) {
	r.left = maxRecord
	t, err := r.dec.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return t, err
}

// more reports whether an object or array goes on.
func (r *recordReader) more() bool {
	r.left = maxRecord
	return r.dec.More()
}

func (r *recordReader) decode(v any) error {
	r.left = maxRecord
	err := r.dec.Decode(v)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (r *recordReader) all(f func(raw []byte) error) error {
	r.dec = json.NewDecoder(r)
	for n := 0; ; n++ {
		r.left = maxRecord
		t, err := r.dec.Token()
		switch {
		case err == io.EOF && n > 0:
			return nil
		case err == io.EOF:
			return errors.New("is empty")
		case err != nil:
			return fmt.Errorf("is not CloudTrail's JSON: %w", err)
		case t != json.Delim('{'):
			return errors.New(`is not CloudTrail's JSON: it does not begin with {`)
		}
		if err := r.object(f); err != nil {
			return err
		}
	}
}

// object reads one document after its brace.
func (r *recordReader) object(f func(raw []byte) error) error {
	var skipped json.RawMessage
	known := false
	for r.more() {
		key, err := r.token()
		if err != nil {
			return err
		}
		switch key {
		case "Records":
			known, err = true, r.array(f)
		case "Events":
			known, err = true, r.lookedUp(f)
		case "digestS3Object", "digestStartTime":
			return errDigest
		default:
			err = r.decode(&skipped)
		}
		if err != nil {
			return err
		}
	}
	if _, err := r.token(); err != nil {
		return err
	}
	if !known {
		return errors.New(`is not CloudTrail's: it has neither "Records" nor "Events"`)
	}
	return nil
}

func (r *recordReader) array(f func(raw []byte) error) error {
	if t, err := r.token(); err != nil || t != json.Delim('[') {
		return cmp.Or(err, errors.New(`is not CloudTrail's: "Records" or "Events" is no list`))
	}
	var raw json.RawMessage
	for r.more() {
		if err := r.decode(&raw); err != nil {
			return err
		}
		if err := f(raw); err != nil {
			return err
		}
	}
	_, err := r.token()
	return err
}

// lookedUp reads the list of lookup-events, in which each record is a string.
func (r *recordReader) lookedUp(f func(raw []byte) error) error {
	return r.array(func(raw []byte) error {
		var e struct {
			Record *string `json:"CloudTrailEvent"`
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			return err
		}
		if e.Record == nil {
			return errors.New(`is not what lookup-events prints: an event has no "CloudTrailEvent"`)
		}
		return f([]byte(*e.Record))
	})
}
