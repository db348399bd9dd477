package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"github.com/klauspost/compress/zstd"
)

// A compressed segment is in Zstandard's seekable format: frames that can be
// decoded each by itself, and at the end a table of their sizes in a frame
// that decoders skip.
// https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md
const (
	skippableMagic  = 0x184D2A5E
	seekTableMagic  = 0x8F92EAB1
	skippableHeader = 8 // magic and size
	seekTableEntry  = 8 // compressed and decompressed size
	seekTableFooter = 9 // count, descriptor and magic
)

// What a reader takes, whoever wrote it: it holds two frames in memory,
// compressed and not, and the table.
const (
	maxFrame      = 256 << 10       // bytes of lines
	maxCompressed = maxFrame + 1024 // bytes that do not get smaller take 3 a block more, and the header
	maxFrames     = 4096            // in one segment
)

// A badSegment is why a compressed segment is not one.
type badSegment struct {
	name string // of the file
	what string
}

func (e *badSegment) Error() string {
	return fmt.Sprintf("the file %s %s", filepath.Base(e.name), e.what)
}

// unreadable reports whether err says that what is stored is damaged, not
// that it could not be read.
func unreadable(err error) bool {
	_, ok := errors.AsType[*badSegment](err)
	return ok
}

// A frame is where one lies in the file, and in the lines.
type frame struct {
	off, start       int64
	compressed, size int32
}

// A compressedSegment reads the lines of a compressed segment at any place,
// and holds the frame it was last in. It serves one goroutine.
type compressedSegment struct {
	f      *os.File
	frames []frame
	dec    *zstd.Decoder // nil before the first frame
	at     int           // which frame is in buf, -1 for none
	buf    []byte        // maxFrame of room
	raw    []byte
}

// openCompressed opens a compressed segment and reads its table. Files that
// hold anything beside frames and table are refused with a *[badSegment].
func openCompressed(name string) (*compressedSegment, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	frames, err := readSeekTable(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &compressedSegment{f: f, frames: frames, at: -1}, nil
}

func readSeekTable(f *os.File) ([]frame, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	bad := func(format string, args ...any) ([]frame, error) {
		return nil, &badSegment{f.Name(), fmt.Sprintf(format, args...)}
	}
	var footer [seekTableFooter]byte
	if size < skippableHeader+seekTableFooter {
		return bad("is too short for one")
	}
	if _, err := f.ReadAt(footer[:], size-seekTableFooter); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(footer[:])
	// A descriptor of 0: no checksums here, the frames have their own.
	if binary.LittleEndian.Uint32(footer[5:]) != seekTableMagic || footer[4] != 0 {
		return bad("does not end in a table of its frames")
	}
	if n > maxFrames {
		return bad("says that it has %d frames; at most %d are read", n, maxFrames)
	}
	table := make([]byte, skippableHeader+n*seekTableEntry)
	tableAt := size - seekTableFooter - int64(len(table))
	if tableAt < 0 {
		return bad("is too short for its table")
	}
	if _, err := f.ReadAt(table, tableAt); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint32(table) != skippableMagic || binary.LittleEndian.Uint32(table[4:]) != n*seekTableEntry+seekTableFooter {
		return bad("has no table of %d frames at its end", n)
	}
	frames := make([]frame, n)
	var off, start int64
	for i := range frames {
		entry := table[skippableHeader+i*seekTableEntry:]
		compressed, size := binary.LittleEndian.Uint32(entry), binary.LittleEndian.Uint32(entry[4:])
		if compressed == 0 || compressed > maxCompressed || size == 0 || size > maxFrame {
			return bad("has a frame of %d bytes for %d", compressed, size)
		}
		frames[i] = frame{off: off, start: start, compressed: int32(compressed), size: int32(size)}
		off += int64(compressed)
		start += int64(size)
	}
	if off != tableAt {
		return bad("has %d bytes where its table has %d", tableAt, off)
	}
	return frames, nil
}

func (s *compressedSegment) Close() error {
	if s.dec != nil {
		s.dec.Close()
	}
	return s.f.Close()
}

func (s *compressedSegment) size() (int64, error) {
	if len(s.frames) == 0 {
		return 0, nil
	}
	last := s.frames[len(s.frames)-1]
	return last.start + int64(last.size), nil
}

func (s *compressedSegment) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		i := sort.Search(len(s.frames), func(i int) bool { return s.frames[i].start > at }) - 1
		if i < 0 || at >= s.frames[i].start+int64(s.frames[i].size) {
			return n, io.EOF
		}
		if err := s.load(i); err != nil {
			return n, err
		}
		n += copy(p[n:], s.buf[at-s.frames[i].start:])
	}
	return n, nil
}

// load decodes frame i into buf.
func (s *compressedSegment) load(i int) error {
	if s.at == i {
		return nil
	}
	fr := s.frames[i]
	s.at = -1
	s.raw = slices.Grow(s.raw[:0], int(fr.compressed))[:fr.compressed]
	if _, err := s.f.ReadAt(s.raw, fr.off); err != nil {
		return err
	}
	if s.dec == nil {
		// Its limits are behind those of decode.
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxFrame), zstd.WithDecoderMaxMemory(maxFrame), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return err
		}
		s.dec, s.buf = dec, make([]byte, 0, maxFrame)
	}
	if err := s.decode(int(fr.size)); err != nil {
		return &badSegment{s.f.Name(), fmt.Sprintf("is damaged in the %d bytes from %d on: %v", fr.compressed, fr.off, err)}
	}
	s.at = i
	return nil
}

// decode decodes raw, which must be one frame of size bytes and no more.
func (s *compressedSegment) decode(size int) error {
	end, err := frameEnd(s.raw, size)
	if err != nil {
		return err
	}
	if end != len(s.raw) {
		return fmt.Errorf("its frame ends after %d", end)
	}
	s.buf, err = s.dec.DecodeAll(s.raw, s.buf[:0])
	if err == nil && len(s.buf) != size {
		err = fmt.Errorf("%d bytes came out, not %d", len(s.buf), size)
	}
	if err == nil && s.buf[size-1] != '\n' {
		err = errors.New("it does not end with a line") // and the next does not begin with one
	}
	return err
}

// frameEnd returns where the frame at the start of raw ends, which is to hold
// size bytes. A decoder would go on with whatever follows.
// https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1
func frameEnd(raw []byte, size int) (int, error) {
	var h zstd.Header
	if err := h.Decode(raw); err != nil {
		return 0, err
	}
	switch {
	case h.Skippable || h.DictionaryID != 0:
		return 0, errors.New("not a frame of its own")
	case !h.HasFCS || h.FrameContentSize != uint64(size):
		return 0, fmt.Errorf("its frame does not say that it holds %d bytes", size)
	case !h.SingleSegment && h.WindowSize > maxFrame:
		return 0, fmt.Errorf("it wants a window of %d bytes", h.WindowSize)
	case !h.HasCheckSum:
		return 0, errors.New("its frame has no checksum")
	}
	for at := h.HeaderSize; at+3 <= len(raw); {
		// Last_Block, Block_Type, Block_Size
		block := uint32(raw[at]) | uint32(raw[at+1])<<8 | uint32(raw[at+2])<<16
		n := int(block >> 3)
		if block>>1&3 == 1 { // one byte, repeated
			n = 1
		}
		at += 3 + n
		if block&1 == 1 {
			return at + 4, nil // the checksum
		}
	}
	return 0, io.ErrUnexpectedEOF
}

// A frameWriter writes a compressed segment.
type frameWriter struct {
	f       file
	enc     *zstd.Encoder
	off     int64
	scratch []byte
	table   []byte
}

func newFrameWriter(f file) (*frameWriter, error) {
	// Frames are encoded at once: no goroutines, and the window is theirs.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(maxFrame),
		zstd.WithEncoderCRC(true), zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	return &frameWriter{f: f, enc: enc}, nil
}

func (w *frameWriter) write(b []byte) error {
	if err := writeAt(w.f, b, w.off); err != nil {
		return err
	}
	w.off += int64(len(b))
	return nil
}

// frame writes lines, at most maxFrame bytes, as one frame.
func (w *frameWriter) frame(lines []byte) error {
	w.scratch = w.enc.EncodeAll(lines, w.scratch[:0])
	if err := w.write(w.scratch); err != nil {
		return err
	}
	w.table = binary.LittleEndian.AppendUint32(w.table, uint32(len(w.scratch)))
	w.table = binary.LittleEndian.AppendUint32(w.table, uint32(len(lines)))
	return nil
}

// finish writes the table and brings all to disk.
func (w *frameWriter) finish() error {
	n := len(w.table)
	b := binary.LittleEndian.AppendUint32(nil, skippableMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(n+seekTableFooter))
	b = append(b, w.table...)
	b = binary.LittleEndian.AppendUint32(b, uint32(n/seekTableEntry))
	b = append(b, 0) // no checksums
	b = binary.LittleEndian.AppendUint32(b, seekTableMagic)
	if err := w.write(b); err != nil {
		return err
	}
	return w.f.Sync()
}
