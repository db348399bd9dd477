package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"gatepass/broker"
)

// Bounds of an answer, in bytes. A listing has every profile of files of up to
// 16 MiB; the rest is small.
const (
	maxAnswerHead = 16 << 10
	maxAnswerBody = 64 << 20
)

// An answer is a response of the daemon, read to its end.
type answer struct {
	status  int
	version string
	region  string
	session string
	body    []byte
}

// err returns the failure that an answer with an error status describes.
func (a answer) err() error {
	var e broker.Error
	if err := json.Unmarshal(a.body, &e); err != nil || e.Message == "" {
		return broker.Errorf(broker.CodeInternal, "gatepassd answered with status %d and %q", a.status, a.body[:min(len(a.body), 200)])
	}
	if !e.Code.Known() { // of a later version
		e.Message += fmt.Sprintf(" (%s)", e.Code)
		e.Code = broker.CodeInternal
	}
	return &e
}

// readAnswer reads one HTTP/1.1 response whose connection ends after it. It
// takes what the daemon sends and little else: a Content-Length (without one,
// a failure runs to the end of the connection), no transfer coding, no
// interim responses, no folded or malformed header.
func readAnswer(r io.Reader) (answer, error) {
	buf := make([]byte, 0, 4<<10)
	var a answer
	for {
		end := bytes.Index(buf, []byte("\r\n\r\n"))
		if end > maxAnswerHead || end < 0 && len(buf) > maxAnswerHead {
			return answer{}, errors.New("the answer's header is too long")
		}
		if end >= 0 {
			length, err := a.parseHead(buf[:end+2])
			if err != nil {
				return answer{}, fmt.Errorf("the answer is not gatepassd's: %w", err)
			}
			a.body, err = readBody(r, buf[end+4:], length)
			return a, err
		}
		n, err := r.Read(grow(&buf))
		buf = buf[:len(buf)+n]
		switch {
		case err == nil || n > 0:
		case len(buf) == 0 && (err == io.EOF || errors.Is(err, syscall.ECONNRESET)):
			return answer{}, ErrNoAnswer
		case err == io.EOF:
			return answer{}, fmt.Errorf("read the answer: %w", io.ErrUnexpectedEOF)
		default:
			return answer{}, fmt.Errorf("read the answer: %w", err)
		}
	}
}

// grow returns the free part of b, doubling b when there is none.
func grow(b *[]byte) []byte {
	if len(*b) == cap(*b) {
		*b = append(make([]byte, 0, 2*cap(*b)), *b...)
	}
	return (*b)[len(*b):cap(*b)]
}

// parseHead reads the status line and the headers, each ended by CRLF, and
// returns the body's length, -1 for "to the end of the connection".
func (a *answer) parseHead(head []byte) (length int, err error) {
	lines := string(head)
	status, lines, _ := strings.Cut(lines, "\r\n")
	// "HTTP/1.1 200 OK"; the reason is free text and may be empty.
	rest, ok := strings.CutPrefix(status, "HTTP/1.1 ")
	if !ok || len(rest) < 4 || rest[3] != ' ' || strings.ContainsAny(rest, "\r\n\x00") {
		return 0, fmt.Errorf("its status line is %q", status[:min(len(status), 80)])
	}
	if a.status, err = strconv.Atoi(rest[:3]); err != nil || a.status < 200 || a.status > 599 {
		return 0, fmt.Errorf("its status is %q", rest[:3])
	}
	length = -1
	for lines != "" {
		var line string
		line, lines, _ = strings.Cut(lines, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) || strings.ContainsFunc(value, isControl) {
			return 0, fmt.Errorf("a header is %q", line[:min(len(line), 80)])
		}
		value = strings.Trim(value, " \t")
		switch {
		case strings.EqualFold(name, "Content-Length"):
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil || length >= 0 {
				return 0, fmt.Errorf("its length is %q", value)
			}
			if n > maxAnswerBody {
				return 0, fmt.Errorf("it has %d bytes, more than %d", n, maxAnswerBody)
			}
			length = int(n)
		case strings.EqualFold(name, "Transfer-Encoding"), strings.EqualFold(name, "Content-Encoding"):
			return 0, fmt.Errorf("it is encoded (%q)", value)
		default:
			if err := a.set(name, value); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 && a.status < 300 {
		return 0, errors.New("it has no length")
	}
	return length, nil
}

// isControl reports whether r may not stand in a header's value (RFC 9110 §5.5).
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// set keeps a header that means something to us; none may come twice.
func (a *answer) set(name, value string) error {
	for _, known := range [...]struct {
		name  string
		value *string
	}{
		{VersionHeader, &a.version},
		{RegionHeader, &a.region},
		{SessionHeader, &a.session},
	} {
		if !strings.EqualFold(name, known.name) {
			continue
		}
		if *known.value != "" {
			return fmt.Errorf("it has %s twice", known.name)
		}
		if !utf8.ValidString(value) {
			return fmt.Errorf("its %s is %q", known.name, value)
		}
		*known.value = value
	}
	return nil
}

// isToken reports whether s can be a header's name (RFC 9110 §5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// readBody returns a body of length bytes (-1: to the end) whose beginning is
// in have already.
func readBody(r io.Reader, have []byte, length int) ([]byte, error) {
	if length < 0 {
		rest, err := io.ReadAll(io.LimitReader(r, maxAnswerHead))
		// A reset says that the other end did not read all of our request.
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		return append(have, rest...), nil
	}
	if len(have) > length {
		return nil, fmt.Errorf("the answer has %d bytes after its end", len(have)-length)
	}
	body := have
	if cap(body) < length {
		body = append(make([]byte, 0, length), have...)
	}
	if _, err := io.ReadFull(r, body[len(have):length]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return body[:length], nil
}
