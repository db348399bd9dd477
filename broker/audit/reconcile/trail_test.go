package reconcile_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/audit/reconcile"
)

// one is a record as small as can be.
const one = `{"eventTime":"2026-11-03T09:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","eventID":"1","userIdentity":{"type":"IAMUser"}}`

func gzipped(t testing.TB, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// emptyLog is the directory of a log with one entry.
func emptyLog(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "audit")
	l, err := audit.Open(context.Background(), audit.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append(context.Background(), broker.Event{Kind: broker.EventDaemonStarted, Outcome: broker.OutcomeOK}, false); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// What cannot be read is named, with why, and the result is not passed for all;
// the files beside it count.
func TestHostileFiles(t *testing.T) {
	log := emptyLog(t)
	whole := gzipped(t, `{"Records":[`+one+`]}`)
	long := `{"Records":[{"eventTime":"` + strings.Repeat("x", 5<<20)
	for _, tt := range []struct {
		name string
		data []byte
		want string // "" for nothing wrong
		n    int64  // records that count
	}{
		{"plain", []byte(`{"Records":[` + one + `]}`), "", 1},
		{"two documents", []byte(`{"Records":[` + one + `]} {"Records":[]}`), "", 1},
		{"more fields", []byte(`{"x":{"y":[1]},"Records":[` + one + `],"NextToken":"z"}`), "", 1},
		{"two gzip members", append(bytes.Clone(gzipped(t, `{"Records":[`+one)), gzipped(t, `]}`)...), "", 1},
		{"nothing happened", []byte(`{"Records":[]}`), "", 0},
		{"a digest", []byte(`{"awsAccountId":"1","digestStartTime":"2026-11-03T09:00:00Z"}`), "", 0},
		{"empty", nil, "is empty", 0},
		{"not JSON", []byte("hello"), "is not CloudTrail's JSON", 0},
		{"a list", []byte(`[` + one + `]`), "does not begin with {", 0},
		{"another document", []byte(`{"a":1}`), `neither "Records" nor "Events"`, 0},
		{"no list", []byte(`{"Records":{}}`), "is no list", 0},
		{"cut off", []byte(`{"Records":[` + one), "unexpected EOF", 1},
		{"cut off in a record", []byte(`{"Records":[` + one + `,` + one[:40]), "unexpected EOF", 1},
		{"garbage after it", []byte(`{"Records":[` + one + `]} x`), "invalid character", 1},
		{"cut off gzip", whole[:len(whole)-6], "unexpected EOF", 1},
		{"changed gzip", append(append([]byte{}, whole[:len(whole)-6]...), 0, 0, 0, 0, 0, 0), "checksum", 1},
		{"no gzip", []byte("\x1f\x8b\x00\x00"), "gzip", 0},
		{"invalid UTF-8", []byte(`{"Records":[` + strings.Replace(one, "GetObject", "Get\xff", 1) + `]}`), "is not UTF-8", 0},
		{"a record that is none", []byte(`{"Records":[` + one + `,{}]}`), "is missing", 1},
		{"a number", []byte(`{"Records":[7]}`), "is no CloudTrail event", 0},
		{"a field of another type", []byte(`{"Records":[` + strings.Replace(one, `"GetObject"`, `[1]`, 1) + `]}`), "is no CloudTrail event", 0},
		{"a time that is none", []byte(`{"Records":[` + strings.Replace(one, "09:00", "25:00", 1) + `]}`), "eventTime", 0},
		{"an STS call of another shape", []byte(`{"Records":[` + strings.Replace(one, `"s3.amazonaws.com"`, `"sts.amazonaws.com","requestParameters":[1]`, 1) + `]}`), "no CloudTrail event of sts:GetObject", 0},
		{"a looked-up event without its record", []byte(`{"Events":[{"EventId":"1"}]}`), "CloudTrailEvent", 0},
		{"a record without end", []byte(long), "longer than 4 MiB", 0},
		{"a bomb", gzipped(t, `{"Records":[`+one+`,{"x":"`+strings.Repeat("0", 16<<20)+`"}]}`), "longer than 4 MiB", 1},
		{"a bomb before the records", gzipped(t, `{"x":"`+strings.Repeat("0", 16<<20)+`"}`), "longer than 4 MiB", 0},
		{"a bomb of spaces", gzipped(t, `{"Records":[`+strings.Repeat(" ", 16<<20)+`]}`), "longer than 4 MiB", 0},
		{"a deep record", []byte(`{"Records":[{"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}]}`), "depth", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			bad, good := filepath.Join(dir, "bad.json.gz"), filepath.Join(dir, "good.json")
			if err := os.WriteFile(bad, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(good, []byte(`{"Records":[`+strings.Replace(one, `"1"`, `"2"`, 1)+`]}`), 0o600); err != nil {
				t.Fatal(err)
			}
			sum, err := reconcile.Run(t.Context(), reconcile.Options{LogDir: log, Files: []string{dir}}, func(reconcile.Finding) error { return nil })
			if sum.Records != tt.n+1 || sum.Foreign != tt.n+1 {
				t.Errorf("summary: %+v", sum)
			}
			if tt.want == "" {
				if err != nil || len(sum.Incomplete) > 0 {
					t.Errorf("%v, %+v", err, sum.Incomplete)
				}
				return
			}
			if broker.CodeOf(err) != broker.CodeData || !strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %q of %s", err, tt.want, bad)
			}
			if len(sum.Incomplete) != 1 || sum.Incomplete[0].File != bad {
				t.Errorf("incomplete: %+v", sum.Incomplete)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"AWSLogs/1/CloudTrail/eu-west-1/2026/11/03/a.json.gz", "AWSLogs/1/CloudTrail/eu-west-1/2026/11/03/b.json", "AWSLogs/1/CloudTrail/readme.txt",
		"AWSLogs/1/CloudTrail-Digest/eu-west-1/2026/11/03/c.json.gz", "other/1_CloudTrail-Digest_eu-west-1.json.gz",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := filepath.Join(dir, "AWSLogs/1/CloudTrail/eu-west-1/2026/11/03/a.json.gz")
	files, err := reconcile.Files([]string{dir, a})
	if err != nil || len(files) != 2 || files[0] != a || !strings.HasSuffix(files[1], "b.json") {
		t.Errorf("%v, %v", files, err)
	}
	// Links to files count as files, and one to a directory cannot be left out
	// in silence.
	links := t.TempDir()
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	link(a, "a.json.gz")
	link("readme.txt", "nowhere.txt")
	if files, err := reconcile.Files([]string{links}); err != nil || len(files) != 1 || files[0] != filepath.Join(links, "a.json.gz") {
		t.Errorf("links: %v, %v", files, err)
	}
	link(filepath.Dir(a), "2026")
	if _, err := reconcile.Files([]string{links}); err == nil || !strings.Contains(err.Error(), "2026 is a link to a directory") {
		t.Errorf("a link to a directory: %v", err)
	}
	if files, err := reconcile.Files([]string{filepath.Join(links, "2026")}); err != nil || len(files) != 2 {
		t.Errorf("a directory by its link: %v, %v", files, err)
	}
	if _, err := reconcile.Files([]string{filepath.Join(dir, "other")}); err == nil {
		t.Error("a directory without files of CloudTrail's passes")
	}
	if _, err := reconcile.Files([]string{filepath.Join(dir, "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := reconcile.Files([]string{os.DevNull}); err == nil {
		t.Error("a device passes")
	}
}

// A log that cannot be read explains nothing, so nothing is told.
func TestBrokenLog(t *testing.T) {
	log := emptyLog(t)
	file := filepath.Join(t.TempDir(), "a.json")
	if err := os.WriteFile(file, []byte(`{"Records":[`+one+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	segment := filepath.Join(log, "000001.jsonl")
	data, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte(`"daemon.started"`), []byte(`"session.issued","x":}`), 1)
	if err := os.WriteFile(segment, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = reconcile.Run(t.Context(), reconcile.Options{LogDir: log, Files: []string{file}}, func(reconcile.Finding) error { t.Error("told"); return nil })
	if broker.CodeOf(err) != broker.CodeData || !strings.Contains(err.Error(), "entry 0") {
		t.Errorf("got %v", err)
	}
	if _, err := reconcile.Run(t.Context(), reconcile.Options{LogDir: log + ".none", Files: []string{file}}, nil); broker.CodeOf(err) != broker.CodeNotFound {
		t.Errorf("no log: %v", err)
	}
}

// A file that becomes another between the readings is judged by what the first
// one did not see.
func TestChangedFile(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "1.json"), filepath.Join(dir, "2.json")
	for _, name := range []string{first, second} {
		if err := os.WriteFile(name, []byte(`{"Records":[`+one+`]}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := reconcile.Run(t.Context(), reconcile.Options{LogDir: emptyLog(t), Files: []string{dir}, All: true}, func(reconcile.Finding) error {
		return os.WriteFile(second, []byte(`{"Records":[]}`), 0o600)
	})
	if broker.CodeOf(err) != broker.CodeData || len(sum.Incomplete) != 1 || sum.Incomplete[0].File != second {
		t.Errorf("%v, %+v", err, sum.Incomplete)
	}
}

// A reader that stops ends the run with its error, and leaves nothing running.
func TestStop(t *testing.T) {
	w := newWorld(t)
	day(w)
	if err := w.log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "bucket")
	if err := w.trail.Write(dir); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	if _, err := reconcile.Run(t.Context(), reconcile.Options{LogDir: w.dir, Files: []string{dir}}, func(reconcile.Finding) error { return enough }); err != enough {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	if _, err := reconcile.Run(ctx, reconcile.Options{LogDir: w.dir, Files: []string{dir}}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// FuzzTrail wants no panic and no end of it, whatever a file holds, and that
// what is read as an event has what every event has.
func FuzzTrail(f *testing.F) {
	f.Add([]byte(`{"Records":[` + one + `]}`))
	f.Add([]byte(`{"Events":[{"CloudTrailEvent":"{\"eventTime\":\"2026-11-03T09:00:00Z\",\"eventSource\":\"sts.amazonaws.com\",\"eventName\":\"AssumeRole\",\"requestParameters\":{\"roleArn\":\"x\"},\"responseElements\":{\"credentials\":{\"accessKeyId\":\"ASIA\"}}}"}]}`))
	f.Add(gzipped(f, `{"Records":[`+one+`]}`))
	f.Add([]byte(`{"digestStartTime":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		reconcile.ReadEvents(t.Context(), bytes.NewReader(data), func(e *reconcile.Event) error {
			if e.Name == "" || e.Source == "" || e.Time.Location() != time.UTC || !utf8.ValidString(e.Agent+e.Identity.ARN+e.SessionName) {
				t.Errorf("%+v", e)
			}
			return nil
		})
	})
}
