package audit_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gatepass/broker"
	"gatepass/broker/audit"

	"github.com/klauspost/compress/zstd"
)

// seekable makes a file of frames, each of which says in the table that it has
// so many bytes.
func seekable(sizes []uint32, frames ...[]byte) []byte {
	b := slices.Concat(frames...)
	b = binary.LittleEndian.AppendUint32(b, 0x184D2A5E)
	b = binary.LittleEndian.AppendUint32(b, uint32(8*len(frames)+9))
	for i, f := range frames {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f)))
		b = binary.LittleEndian.AppendUint32(b, sizes[i])
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frames)))
	return binary.LittleEndian.AppendUint32(append(b, 0), 0x8F92EAB1)
}

func frameOf(t testing.TB, b []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderConcurrency(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	return enc.EncodeAll(b, nil)
}

// streamed is a frame of b from an encoder that did not know how long b is.
func streamed(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	enc, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(256<<10))
	if err != nil {
		t.Fatal(err)
	}
	enc.Write(b[:1]) // and on, before it ends
	enc.Flush()
	enc.Write(b[1:])
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// rawFrame is a frame with a header and blocks that no encoder writes.
func rawFrame(header string, blocks ...[]byte) []byte {
	return append([]byte("\x28\xb5\x2f\xfd"+header), slices.Concat(blocks...)...)
}

// A compressed segment that somebody else made is refused, in little memory,
// by all who read it.
func TestHostileSegment(t *testing.T) {
	key := newKey(t)
	dir, lines := compressedLog(t, key, 500)
	im := read(t, dir)
	const name = "000002.jsonl.zst"
	good := im[name]
	n := lineCount(t, dir, 1)
	two, err := audit.ReadCompressed(filepath.Join(dir, name))
	if err != nil || !bytes.HasPrefix(lineFrom(lines, n), two) {
		t.Fatal(err)
	}
	size := uint32(len(two))
	frame := frameOf(t, two, zstd.WithSingleSegment(true))
	end := bytes.LastIndexByte(two[:len(two)/2], '\n') + 1
	half, other := frameOf(t, two[:end], zstd.WithSingleSegment(true)), frameOf(t, two[end:], zstd.WithSingleSegment(true))
	halves := []uint32{uint32(end), size - uint32(end)}
	zeros := make([]byte, 256<<10)
	// One byte, repeated 128 KiB times, block after block.
	block := []byte{0x02, 0x00, 0x10, 'x'}
	repeated := bytes.Repeat(block, 60_000)
	edit := func(at int, b ...byte) []byte {
		c := bytes.Clone(good)
		if at < 0 {
			at += len(c)
		}
		copy(c[at:], b)
		return c
	}

	// What is not hostile, first: the tests below fail for their own reason.
	for what, b := range map[string][]byte{"as written": good, "made here": seekable([]uint32{size}, frame), "two frames": seekable(halves, half, other)} {
		dir := dirOf(t, im.with(name, b))
		if rep, err := verify(t, dir, key); err != nil || rep.Signed != 500 {
			t.Errorf("%s: %+v, %v", what, rep.Problem, err)
		}
		if got := entriesOf(t, dir, audit.Query{}); !bytes.Equal(got, lines) {
			t.Errorf("%s: not the entries", what)
		}
	}

	for what, b := range map[string][]byte{
		"empty":                         {},
		"zeros":                         make([]byte, 1000),
		"garbage":                       bytes.Repeat([]byte("garbage"), 10_000),
		"a plain segment":               two,
		"a frame and no table":          frame,
		"cut short":                     good[:len(good)-1],
		"without its beginning":         good[1:],
		"trailing data":                 append(bytes.Clone(good), "more"...),
		"a trailing frame":              append(bytes.Clone(good), frameOf(t, []byte("{}\n"))...),
		"a byte in the frame":           edit(len(good)/2, good[len(good)/2]^1),
		"its checksum":                  edit(-4-9-8-8-1, good[len(good)-30]^1),
		"bytes between frame and table": seekable([]uint32{size}, append(bytes.Clone(frame), 0)),
		"bytes before the table":        slices.Insert(seekable([]uint32{size}, frame), len(frame), []byte("more")...),
		"no content size":               seekable([]uint32{size}, streamed(t, two)),
		"two frames for one":            seekable([]uint32{size}, slices.Concat(half, other)),
		"a frame and an empty one":      seekable([]uint32{size}, slices.Concat(frame, frameOf(t, nil, zstd.WithSingleSegment(true), zstd.WithZeroFrames(true)))),
		"a frame and a skipped one":     seekable([]uint32{size}, slices.Concat(frame, []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"))),
		"a skipped frame":               seekable([]uint32{4, size}, []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"), frame),
		"frames swapped":                seekable([]uint32{halves[1], halves[0]}, other, half),
		"more than the table says":      seekable([]uint32{size - 1}, frame),
		"less than the table says":      seekable([]uint32{size + 1}, frame),
		"a frame of nothing":            seekable([]uint32{0, size}, frameOf(t, nil, zstd.WithSingleSegment(true), zstd.WithZeroFrames(true)), frame),
		"no checksum":                   seekable([]uint32{size}, frameOf(t, two, zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false))),
		"a frame of too much":           seekable([]uint32{1 << 20}, frameOf(t, make([]byte, 1<<20), zstd.WithSingleSegment(true))),
		"a frame of too much, hidden":   seekable([]uint32{256 << 10}, frameOf(t, make([]byte, 1<<30/8), zstd.WithSingleSegment(true))),
		"a bomb that says nothing":      seekable([]uint32{256 << 10}, rawFrame("\x04\x38", repeated)),
		"a bomb that lies":              seekable([]uint32{256 << 10}, rawFrame("\xa4\x00\x00\x04\x00", repeated[:4*60_000], []byte{3, 0, 16, 'x', 0, 0, 0, 0})),
		"a bomb that lies, in 260 KiB":  seekable([]uint32{256 << 10}, rawFrame("\xa4\x00\x00\x04\x00", repeated[:4*50_000], []byte{3, 0, 16, 'x', 0, 0, 0, 0})),
		"a huge window":                 seekable([]uint32{size}, rawFrame("\x84\xf8"+string(binary.LittleEndian.AppendUint32(nil, size)), []byte{1, 0, 0}, []byte("abcd"))),
		"a dictionary":                  seekable([]uint32{size}, rawFrame("\xa5\x07"+string(binary.LittleEndian.AppendUint32(nil, size)), []byte{1, 0, 0}, []byte("abcd"))),
		"a reserved block":              seekable([]uint32{size}, rawFrame("\xa4"+string(binary.LittleEndian.AppendUint32(nil, size)), []byte{7, 0, 0}, []byte("abcd"))),
		"a block beyond the end":        seekable([]uint32{size}, rawFrame("\xa4"+string(binary.LittleEndian.AppendUint32(nil, size)), []byte{0xf8, 0xff, 0xff})),
		"a table of 4 billion frames":   edit(-9, 0xff, 0xff, 0xff, 0xff),
		"a table of frames of 4 GiB":    edit(-9-4, 0xff, 0xff, 0xff, 0xff),
		"a table with checksums":        edit(-5, 0x80),
		"a table with reserved bits":    edit(-5, 0x04),
		"5,000 frames":                  seekable(slices.Repeat([]uint32{3}, 5000), slices.Repeat([][]byte{frameOf(t, []byte("{}\n"), zstd.WithSingleSegment(true))}, 5000)...),
		"a hole":                        seekable([]uint32{size, 256 << 10}, frame, zeros),
	} {
		t.Run(what, func(t *testing.T) {
			dir := dirOf(t, im.with(name, b))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			rep, err := audit.Verify(t.Context(), audit.VerifyOptions{Dir: dir, Key: key.verifier})
			if broker.CodeOf(err) != broker.CodeData || rep.Problem == nil || rep.Problem.File != "000002.jsonl" || rep.Problem.Seq < n {
				t.Errorf("verify: %+v, %v", rep.Problem, err)
			} else {
				t.Log(rep.Problem)
			}
			err = nil
			for line, lerr := range audit.Entries(t.Context(), dir, audit.Query{}) {
				if lerr != nil && line.Raw == nil {
					err = lerr
				}
			}
			if what != "frames swapped" && (broker.CodeOf(err) != broker.CodeData || !strings.Contains(err.Error(), name)) {
				t.Errorf("entries: %v", err)
			}
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > 24<<20 {
				t.Errorf("it took %d MiB", took>>20)
			}
			// Nobody who writes has a need to look at it.
			l := openAsIs(t, audit.Options{Dir: dir, Signer: key.Signer})
			put(t, l, 1, true)
			shut(t, l)
			if after, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(after, b) {
				t.Errorf("the evidence was touched: %v", err)
			}
		})
	}
}

// FuzzSeekable wants no panic and bounded output of whatever stands in the
// place of a compressed segment.
func FuzzSeekable(f *testing.F) {
	frame := frameOf(f, []byte("{}\n{}\n"), zstd.WithSingleSegment(true))
	f.Add(seekable([]uint32{6}, frame))
	f.Add(seekable([]uint32{6, 6}, frame, frame))
	f.Add(seekable(nil))
	name := filepath.Join(f.TempDir(), "000001.jsonl.zst")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		lines, err := audit.ReadCompressed(name)
		if err != nil {
			return
		}
		// Any decoder reads the same.
		d, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		var out bytes.Buffer
		if _, err := d.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), lines) {
			t.Errorf("%d bytes, another decoder %d: %v", len(lines), out.Len(), err)
		}
	})
}
