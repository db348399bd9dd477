package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	segmentExt         = ".jsonl"
	compressedExt      = ".zst"
	defaultSegmentSize = 64 << 20
)

// segmentName is a segment's name, and that of its file unless it is
// compressed: that one has compressedExt after it.
func segmentName(num int) string { return fmt.Sprintf("%06d%s", num, segmentExt) }

// cutName names what was cut out of a segment where an entry should be.
func cutName(num int, seq string) string { return fmt.Sprintf("%06d.cut-%s", num, seq) }

// segmentNumber returns the number of the segment that a file of this name
// holds; 0 for other files.
func segmentNumber(name string) int {
	name = strings.TrimSuffix(name, compressedExt)
	digits, ok := strings.CutSuffix(name, segmentExt)
	if !ok || len(digits) < 6 {
		return 0
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || segmentName(n) != name {
		return 0
	}
	return n
}

// listSegments returns the numbers of the segments in dir, ascending. There
// may be gaps: what they mean is for the caller to say.
func listSegments(dir string) ([]int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var nums []int
	for _, name := range names {
		if n := segmentNumber(name); n > 0 {
			nums = append(nums, n)
		}
	}
	slices.Sort(nums)
	return slices.Compact(nums), nil // both forms of one, for a moment
}

// A segmentReader reads a segment, however it is stored, by places in its
// lines. It serves one goroutine.
type segmentReader interface {
	io.ReaderAt
	io.Closer
	size() (int64, error) // of the lines, in bytes, as of now
}

type plainSegment struct{ *os.File }

func (s plainSegment) size() (int64, error) {
	info, err := s.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// openSegment opens a segment to be read. Where both forms of it are there,
// the plain one counts: the other may not have been held against it yet.
func openSegment(dir string, num int) (segmentReader, error) {
	name := filepath.Join(dir, segmentName(num))
	f, err := os.Open(name)
	if err == nil {
		return plainSegment{f}, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		// The plain file goes only once the other is there.
		s, cerr := openCompressed(name + compressedExt)
		if cerr == nil {
			return s, nil
		}
		if !errors.Is(cerr, fs.ErrNotExist) {
			return nil, cerr
		}
	}
	return nil, err
}

// A lineReader reads a segment forward.
type lineReader struct {
	f   segmentReader
	r   *bufio.Reader
	off int64 // of the next line
}

func newLineReader(dir string, num int, off int64) (*lineReader, error) {
	f, err := openSegment(dir, num)
	if err != nil {
		return nil, err
	}
	return newLines(f, off), nil
}

// newLines reads the lines of f from off on; closing it closes f.
func newLines(f segmentReader, off int64) *lineReader {
	return &lineReader{f: f, r: bufio.NewReaderSize(io.NewSectionReader(f, off, math.MaxInt64-off), 64<<10), off: off}
}

func (r *lineReader) Close() error { return r.f.Close() }

// errLong is what next returns for what is too long to be an entry.
var errLong = fmt.Errorf("is longer than %d bytes", MaxEntry)

// next returns the next line without its newline, valid until the call after;
// of one that is too long only the beginning, with errLong. At the end it
// returns io.EOF and what follows the last newline, and off stays before that.
func (r *lineReader) next() ([]byte, error) {
	line, err := r.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		start := bytes.Clone(line[:MaxEntry])
		n := int64(0)
		for err == bufio.ErrBufferFull {
			n += int64(len(line))
			line, err = r.r.ReadSlice('\n')
		}
		if err != nil {
			return start, err
		}
		r.off += n + int64(len(line))
		return start, errLong
	}
	if err != nil {
		return line, err
	}
	r.off += int64(len(line))
	if line = line[:len(line)-1]; len(line) > MaxEntry {
		return line, errLong
	}
	return line, nil
}

// A backReader reads a segment's lines from its end.
type backReader struct {
	f    segmentReader
	off  int64  // of buf in the segment
	buf  []byte // what is read and not yet returned
	tail bool   // the first call: what is after the last newline comes first
}

func newBackReader(dir string, num int) (*backReader, error) {
	f, err := openSegment(dir, num)
	if err != nil {
		return nil, err
	}
	size, err := f.size()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &backReader{f: f, off: size, tail: true}, nil
}

func (r *backReader) Close() error { return r.f.Close() }

// prev returns the line before the last one returned and where it starts,
// io.EOF before the first. The first call returns what follows the last
// newline, mostly nothing. Lines are valid until the next call.
func (r *backReader) prev() (line []byte, start int64, err error) {
	end := len(r.buf) // without the newline that ends the line
	if !r.tail {
		if len(r.buf) == 0 && r.off == 0 {
			return nil, 0, io.EOF
		}
		end--
	}
	r.tail = false
	for from := end; ; {
		if i := bytes.LastIndexByte(r.buf[:from], '\n'); i >= 0 {
			line = r.buf[i+1 : end]
			r.buf = r.buf[:i+1]
			return line, r.off + int64(i) + 1, nil
		}
		if r.off == 0 {
			line = r.buf[:end]
			r.buf = r.buf[:0]
			return line, 0, nil
		}
		before := len(r.buf)
		if err := r.fill(); err != nil {
			return nil, 0, err
		}
		grown := len(r.buf) - before
		end += grown
		from = grown
	}
}

// fill puts the bytes before buf in front of it.
func (r *backReader) fill() error {
	n := min(r.off, int64(max(64<<10, len(r.buf))))
	buf := make([]byte, int(n)+len(r.buf))
	if _, err := r.f.ReadAt(buf[:n], r.off-n); err != nil {
		return err
	}
	copy(buf[n:], r.buf)
	r.buf = buf
	r.off -= n
	return nil
}

// firstSeq returns the number of a segment's first entry; ok is false for a
// segment that holds no whole line that begins like one.
func firstSeq(dir string, num int) (seq int64, ok bool, err error) {
	r, err := newLineReader(dir, num, 0)
	if err != nil {
		return 0, false, err
	}
	defer r.Close()
	line, err := r.next()
	if err == errLong || err == io.EOF {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	h, err := parseHead(line)
	return h.seq, err == nil, nil
}
