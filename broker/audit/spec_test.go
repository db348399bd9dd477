package audit_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/sumdb/note"
)

// A second verifier, of what the package documentation says and nothing else:
// with sumdb/note for signatures, and SHA-256. Every test of verify and of
// proofs asks it too, and the two must agree.

var (
	specEntry   = regexp.MustCompile(`^\{"seq":(0|[1-9]\d*),"time":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)","event":"([a-z._]+)"[,}]`)
	specSegment = regexp.MustCompile(`^(0\d{5}|[1-9]\d{5,})\.jsonl(\.zst)?$`)
	specNote    = regexp.MustCompile(`^([^\n]+)\n(0|[1-9]\d*)\n([A-Za-z0-9+/]{43}=)\n\n((?:— [^ \n]+ [A-Za-z0-9+/]+=*\n)+)`)
	specNoteTop = regexp.MustCompile(`^[^\n]+(\n((0|[1-9]\d*)(\n([A-Za-z0-9+/]{0,43}=?(\n(\n((— [^ \n]+ [A-Za-z0-9+/]+=*\n)*(—? ?|— [^\n]*))?)?)?)?)?)?)?$`)
	specPruned  = regexp.MustCompile(`^([1-9]\d*) \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\n((?:[A-Za-z0-9+/]{43}=\n)+)\n`)
	specLink    = regexp.MustCompile(`^key ([^ ]+) follows ([^ ]+) at (\d+) ([A-Za-z0-9+/=]{44})$`)
)

// bySpecification verifies a log: how many entries are signed.
func bySpecification(im image, vkey, kept string) (signed int64, err error) {
	key, err := note.NewVerifier(vkey)
	if err != nil {
		return 0, err
	}
	log, err := specEntries(im)
	if err != nil {
		return 0, err
	}
	checkpoints, rest, err := specCheckpoints(string(im["checkpoints"]), key, true)
	if err != nil {
		return 0, err
	}
	// Cut within the sign that begins a signature, it is not text.
	rest = strings.TrimSuffix(strings.TrimSuffix(rest, "\x80"), "\xe2")
	if rest != "" && !(specNoteTop.MatchString(rest) && strings.HasPrefix(key.Name()+"\n", rest[:min(len(rest), len(key.Name())+1)])) {
		return 0, fmt.Errorf("rubbish after the checkpoints: %q", rest)
	}
	last := map[string]specCheckpoint{}
	size := int64(0)
	for _, c := range checkpoints {
		if c.size < size || !log.has(c) {
			return 0, fmt.Errorf("the checkpoint of %d entries does not fit", c.size)
		}
		size = c.size
		if c.ours {
			signed = c.size
		} else {
			last[c.signer] = c
		}
	}
	anchors, rest, err := specCheckpoints(kept, key, false)
	if err != nil || rest != "" || kept != "" && len(anchors) == 0 {
		return 0, fmt.Errorf("what was kept is no checkpoint: %v", err)
	}
	if remembered, ok := im["anchored"]; ok {
		at, text, _ := strings.Cut(string(remembered), "\n")
		if t, err := time.Parse(time.RFC3339Nano, at); err != nil || t.Format("2006-01-02T15:04:05.000000Z") != at {
			return 0, fmt.Errorf("anchored at %q", at)
		}
		one, rest, err := specCheckpoints(text, key, false)
		if err != nil || rest != "" || len(one) != 1 || one[0].text != text {
			return 0, errors.New("anchored is no checkpoint")
		}
		anchors = append(anchors, one...)
	}
	for _, c := range anchors {
		if !log.has(c) {
			return 0, errors.New("it is not the log that the kept checkpoint is of")
		}
		if _, ok := last[c.signer]; !ok && !c.ours {
			return 0, errors.New("a stranger signed the kept checkpoint")
		}
		if c.ours {
			signed = max(signed, c.size)
		}
	}
	for i, entry := range log.entries {
		if log.pruned+int64(i) >= size && !specWellFormed(entry) {
			return 0, fmt.Errorf("entry %d is none: %q", log.pruned+int64(i), entry)
		}
	}
	says := func(event string, right func(reason string) bool) bool {
		return slices.ContainsFunc(log.entries[:max(0, signed-log.pruned)], func(entry []byte) bool {
			var e struct{ Event, Reason string }
			json.Unmarshal(entry, &e)
			return e.Event == event && right(e.Reason)
		})
	}
	for signer, c := range last {
		if c.size >= log.pruned && !says("log.linked", func(reason string) bool {
			m := specLink.FindStringSubmatch(reason)
			return m != nil && m[2] == signer && m[3] == strconv.FormatInt(c.size, 10) && m[4] == c.head
		}) {
			return 0, fmt.Errorf("signed by %s", signer)
		}
	}
	if log.pruned > 0 && !says("log.pruned", func(reason string) bool {
		return reason == fmt.Sprintf("kept from entry %d on, after %s", log.pruned, base64.StdEncoding.EncodeToString(log.head(0, log.pruned)))
	}) {
		return 0, errors.New("nobody says that entries were pruned")
	}
	return signed, nil
}

// A specLog is what the segments hold, after entries that were pruned.
type specLog struct {
	pruned  int64
	edge    map[[2]int64][]byte // from, to: the head of the pruned leaves between
	entries [][]byte
}

// has reports whether a checkpoint is of this log, as far as can be told.
func (l *specLog) has(c specCheckpoint) bool {
	return c.size < l.pruned || c.size <= l.pruned+int64(len(l.entries)) && c.head == base64.StdEncoding.EncodeToString(l.head(0, c.size))
}

// head is that of the leaves between.
func (l *specLog) head(from, to int64) []byte {
	h, known := l.edge[[2]int64{from, to}]
	switch {
	case known:
		return h
	case from == to:
		empty := sha256.Sum256(nil)
		return empty[:]
	case from+1 == to && from >= l.pruned:
		return specLeaf(l.entries[from-l.pruned])
	case from+1 == to:
		return nil
	}
	k := from + specSplit(to-from)
	return specNode(l.head(from, k), l.head(k, to))
}

// specEdges reads the file pruned: the edges of the trees that it has, by their
// sizes.
func specEdges(text string) (map[int64]map[[2]int64][]byte, error) {
	all := map[int64]map[[2]int64][]byte{}
	for text != "" {
		m := specPruned.FindStringSubmatch(text)
		if m == nil || len(all) == 2 {
			return nil, fmt.Errorf("pruned: %q", text)
		}
		text = text[len(m[0]):]
		size, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			return nil, err
		}
		edge := map[[2]int64][]byte{}
		hashes := strings.Fields(m[2])
		for from, bit := int64(0), int64(1)<<62; bit > 0; bit >>= 1 {
			if size&bit == 0 {
				continue
			}
			if len(hashes) == 0 || !specBase64(hashes[0]) {
				return nil, errors.New("pruned: a hash is missing")
			}
			edge[[2]int64{from, from + bit}], _ = base64.StdEncoding.DecodeString(hashes[0])
			from, hashes = from+bit, hashes[1:]
		}
		if len(hashes) > 0 {
			return nil, errors.New("pruned: too many hashes")
		}
		all[size] = edge
	}
	return all, nil
}

// specEntries reads the segments.
func specEntries(im image) (log *specLog, err error) {
	log = &specLog{}
	segments := map[int][]byte{}
	for name, b := range im {
		m := specSegment.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		num, _ := strconv.Atoi(m[1])
		if m[2] != "" {
			if im[m[1]+".jsonl"] != nil {
				continue
			}
			if b, err = specDecompress(b); err != nil {
				return nil, err
			}
		}
		segments[num] = b
	}
	nums := slices.Sorted(maps.Keys(segments))
	if len(nums) > 0 && nums[0] > 1 {
		edges, err := specEdges(string(im["pruned"]))
		if err != nil || len(edges) == 0 {
			return nil, fmt.Errorf("segment 1 is missing: %v", err)
		}
		log.pruned = slices.Max(slices.Collect(maps.Keys(edges)))
		for _, num := range nums {
			if m := specEntry.FindSubmatch(segments[num]); m != nil {
				if seq, _ := strconv.ParseInt(string(m[1]), 10, 64); seq == 0 || edges[seq] != nil {
					log.pruned = seq
				}
				break
			}
		}
		log.edge = edges[log.pruned]
	}
	for i, num := range nums {
		if first := nums[0]; num != first+i {
			return nil, fmt.Errorf("segment %d is missing", first+i)
		}
		lines := bytes.Split(segments[num], []byte("\n"))
		if end := lines[len(lines)-1]; len(end) > 0 && i+1 != len(nums) {
			return nil, fmt.Errorf("segment %d ends in a line", num)
		}
		for _, line := range lines[:len(lines)-1] {
			next := log.pruned + int64(len(log.entries))
			m := specEntry.FindSubmatch(line)
			if m == nil || string(m[1]) != strconv.FormatInt(next, 10) {
				return nil, fmt.Errorf("entry %d begins %.60q", next, line)
			}
			log.entries = append(log.entries, line)
		}
	}
	return log, nil
}

// specDecompress reads a compressed segment as any decoder would, and looks at
// its table of frames.
func specDecompress(b []byte) ([]byte, error) {
	if len(b) < 17 || binary.LittleEndian.Uint32(b[len(b)-4:]) != 0x8F92EAB1 {
		return nil, errors.New("no table of frames")
	}
	n := int(binary.LittleEndian.Uint32(b[len(b)-9:]))
	at := len(b) - 9 - 8*n
	if n > 4096 || at < 8 || binary.LittleEndian.Uint32(b[at-8:]) != 0x184D2A5E {
		return nil, errors.New("no table of frames")
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var all []byte
	off := 0
	for i := range n {
		compressed, size := int(binary.LittleEndian.Uint32(b[at+8*i:])), int(binary.LittleEndian.Uint32(b[at+8*i+4:]))
		if compressed > at-8-off || size > 256<<10 {
			return nil, errors.New("a wrong table of frames")
		}
		frame, err := d.DecodeAll(b[off:off+compressed], nil)
		if err != nil || len(frame) != size {
			return nil, fmt.Errorf("frame %d: %d bytes, not %d: %v", i, len(frame), size, err)
		}
		all, off = append(all, frame...), off+compressed
	}
	if off != at-8 {
		return nil, errors.New("a table of other frames")
	}
	return all, nil
}

// specWellFormed reports whether a line is an entry.
func specWellFormed(line []byte) bool {
	m := specEntry.FindSubmatch(line)
	if m == nil || len(line) > 16384 || !utf8.Valid(line) {
		return false
	}
	if _, err := time.Parse(time.RFC3339Nano, string(m[2])); err != nil {
		return false
	}
	for _, r := range string(line) {
		if r != ' ' && !unicode.IsOneOf([]*unicode.RangeTable{unicode.L, unicode.M, unicode.N, unicode.P, unicode.S}, r) {
			return false
		}
	}
	var e struct {
		Seq         int64
		Time, Event string
	}
	return json.Unmarshal(line, &e) == nil && fmt.Sprint(e.Seq) == string(m[1]) && e.Time == string(m[2]) && e.Event == string(m[3])
}

type specCheckpoint struct {
	text   string
	size   int64
	head   string
	signer string // name and hash
	ours   bool
}

// specCheckpoints reads checkpoints up to something else. In the log's own
// file an empty line follows each, unless it is the last.
func specCheckpoints(text string, key note.Verifier, strict bool) (all []specCheckpoint, rest string, err error) {
	for text != "" {
		if !strict {
			if text = strings.TrimLeft(text, "\n"); text == "" {
				break
			}
		}
		m := specNote.FindStringSubmatch(text)
		if m == nil {
			break
		}
		after := text[len(m[0]):]
		if strict && after != "" && after[0] != '\n' {
			break
		}
		text = after
		if strict {
			text = strings.TrimPrefix(after, "\n")
		}
		c := specCheckpoint{text: m[0], head: m[3]}
		if c.size, err = strconv.ParseInt(m[2], 10, 64); err != nil || !specBase64(m[3]) {
			return nil, "", fmt.Errorf("no checkpoint: %q", m[0])
		}
		for line := range strings.Lines(m[4]) {
			f := strings.Fields(line)
			if !specBase64(f[2]) {
				return nil, "", fmt.Errorf("no signature: %q", line)
			}
			sig, _ := base64.StdEncoding.DecodeString(f[2])
			if len(sig) < 5 {
				return nil, "", fmt.Errorf("no signature: %q", line)
			}
			who := fmt.Sprintf("%s+%x", f[1], sig[:4])
			if who == fmt.Sprintf("%s+%08x", key.Name(), key.KeyHash()) {
				c.ours = true
			}
			if c.signer == "" || f[1] == m[1] && !strings.HasPrefix(c.signer, m[1]+"+") {
				c.signer = who
			}
		}
		if c.ours {
			if _, err := note.Open([]byte(m[0]), note.VerifierList(key)); err != nil || m[1] != key.Name() {
				return nil, "", fmt.Errorf("%v, of %q", err, m[1])
			}
		}
		all = append(all, c)
	}
	return all, text, nil
}

// specBase64 reports whether s is the one way to write what it stands for.
func specBase64(s string) bool {
	b, err := base64.StdEncoding.DecodeString(s)
	return err == nil && base64.StdEncoding.EncodeToString(b) == s
}

func specLeaf(entry []byte) []byte {
	h := sha256.Sum256(append([]byte{0}, entry...))
	return h[:]
}

func specNode(left, right []byte) []byte {
	h := sha256.Sum256(slices.Concat([]byte{1}, left, right))
	return h[:]
}

// specSplit is the largest power of two below n.
func specSplit(n int64) int64 {
	k := int64(1)
	for k*2 < n {
		k *= 2
	}
	return k
}

// proofBySpecification checks a proof and returns its entry.
func proofBySpecification(b []byte, vkey string) (entry []byte, err error) {
	key, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	top, text, ok := strings.Cut(string(b), "\n\n")
	lines := strings.Split(top, "\n")
	if !ok || len(b) > 65536 || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return nil, errors.New("no proof")
	}
	extra, ok1 := strings.CutPrefix(lines[1], "extra ")
	digits, ok2 := strings.CutPrefix(lines[2], "index ")
	index, err := strconv.ParseInt(digits, 10, 64)
	if !ok1 || !ok2 || err != nil || strconv.FormatInt(index, 10) != digits || !specBase64(extra) {
		return nil, errors.New("no proof")
	}
	entry, _ = base64.StdEncoding.DecodeString(extra)
	var path [][]byte
	for _, line := range lines[3:] {
		h, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(h) != 32 || !specBase64(line) {
			return nil, errors.New("no hash")
		}
		path = append(path, h)
	}
	all, rest, err := specCheckpoints(text, key, false)
	if err != nil || rest != "" || len(all) != 1 || !all[0].ours || all[0].text != text {
		return nil, fmt.Errorf("no checkpoint of the key: %v", err)
	}
	var head func(path [][]byte, index, size int64) []byte
	head = func(path [][]byte, index, size int64) []byte {
		last := len(path) - 1
		switch {
		case size == 1 && len(path) == 0:
			return specLeaf(entry)
		case size == 1 || len(path) == 0:
			return nil // too long or too short
		}
		k := specSplit(size)
		if index < k {
			return specNode(head(path[:last], index, k), path[last])
		}
		return specNode(path[last], head(path[:last], index-k, size-k))
	}
	if c := all[0]; index < 0 || index >= c.size || base64.StdEncoding.EncodeToString(head(path, index, c.size)) != c.head {
		return nil, errors.New("it does not lead to the head")
	}
	if m := specEntry.FindSubmatch(entry); m == nil || string(m[1]) != digits || !specWellFormed(entry) {
		return nil, errors.New("it proves something that is no entry")
	}
	return entry, nil
}

// The second verifier does not say yes to everything.
func TestSpecification(t *testing.T) {
	im, key := signedLog(t, 3, 9)
	if signed, err := bySpecification(im, key.verifier, ""); signed != 27 || err != nil {
		t.Errorf("%d, %v", signed, err)
	}
	changed := im.with("000001.jsonl", bytes.Replace(im["000001.jsonl"], []byte("alice"), []byte("malia"), 1))
	if _, err := bySpecification(changed, key.verifier, ""); err == nil {
		t.Error("a changed entry verifies")
	}
	if _, err := bySpecification(im, newKey(t).verifier, ""); err == nil {
		t.Error("another key verifies")
	}
}
