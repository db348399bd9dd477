package audit_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// A second verifier, of what the package documentation says and nothing else:
// with sumdb/note for signatures, and SHA-256. Every test of verify and of
// proofs asks it too, and the two must agree.

var (
	specSegment = regexp.MustCompile(`^(0\d{5}|[1-9]\d{5,})\.jsonl$`)
	specEntry   = regexp.MustCompile(`^\{"seq":(0|[1-9]\d*),"time":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)","event":"([a-z._]+)"[,}]`)
	specNote    = regexp.MustCompile(`^([^\n]+)\n(0|[1-9]\d*)\n([A-Za-z0-9+/]{43}=)\n\n((?:— [^ \n]+ [A-Za-z0-9+/]+=*\n)+)`)
	specNoteTop = regexp.MustCompile(`^[^\n]+(\n((0|[1-9]\d*)(\n([A-Za-z0-9+/]{0,43}=?(\n(\n((— [^ \n]+ [A-Za-z0-9+/]+=*\n)*(—? ?|— [^\n]*))?)?)?)?)?)?)?$`)
	specLink    = regexp.MustCompile(`^key ([^ ]+) follows ([^ ]+) at (\d+) ([A-Za-z0-9+/=]{44})$`)
)

// bySpecification verifies a log: how many entries are signed.
func bySpecification(im image, vkey, kept string) (signed int64, err error) {
	key, err := note.NewVerifier(vkey)
	if err != nil {
		return 0, err
	}
	entries, err := specEntries(im)
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
		if c.size < size || c.size > int64(len(entries)) || c.head != specHead(entries[:c.size]) {
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
		if c.size > int64(len(entries)) || c.head != specHead(entries[:c.size]) {
			return 0, errors.New("it is not the log that the kept checkpoint is of")
		}
		if _, ok := last[c.signer]; !ok && !c.ours {
			return 0, errors.New("a stranger signed the kept checkpoint")
		}
		if c.ours {
			signed = max(signed, c.size)
		}
	}
	for i := range entries {
		if int64(i) >= size && !specWellFormed(entries[i]) {
			return 0, fmt.Errorf("entry %d is none: %q", i, entries[i])
		}
	}
	for signer, c := range last {
		if !slices.ContainsFunc(entries[:signed], func(entry []byte) bool {
			var e struct{ Event, Reason string }
			json.Unmarshal(entry, &e)
			m := specLink.FindStringSubmatch(e.Reason)
			return e.Event == "log.linked" && m != nil && m[2] == signer && m[3] == strconv.FormatInt(c.size, 10) && m[4] == c.head
		}) {
			return 0, fmt.Errorf("signed by %s", signer)
		}
	}
	return signed, nil
}

// specEntries reads the segments.
func specEntries(im image) (entries [][]byte, err error) {
	var nums []int
	for name := range im {
		if m := specSegment.FindStringSubmatch(name); m != nil {
			num, _ := strconv.Atoi(m[1])
			nums = append(nums, num)
		}
	}
	slices.Sort(nums)
	for i, num := range nums {
		if num != i+1 {
			return nil, fmt.Errorf("segment %d is missing", i+1)
		}
		lines := bytes.Split(im[fmt.Sprintf("%06d.jsonl", num)], []byte("\n"))
		if end := lines[len(lines)-1]; len(end) > 0 && num != len(nums) {
			return nil, fmt.Errorf("segment %d ends in a line", num)
		}
		for _, line := range lines[:len(lines)-1] {
			m := specEntry.FindSubmatch(line)
			if m == nil || string(m[1]) != strconv.Itoa(len(entries)) {
				return nil, fmt.Errorf("entry %d begins %.60q", len(entries), line)
			}
			entries = append(entries, line)
		}
	}
	return entries, nil
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

func specHead(entries [][]byte) string {
	if len(entries) == 0 {
		h := sha256.Sum256(nil)
		return base64.StdEncoding.EncodeToString(h[:])
	}
	var head func(entries [][]byte) []byte
	head = func(entries [][]byte) []byte {
		if len(entries) == 1 {
			return specLeaf(entries[0])
		}
		k := specSplit(int64(len(entries)))
		return specNode(head(entries[:k]), head(entries[k:]))
	}
	return base64.StdEncoding.EncodeToString(head(entries))
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
