// Package report shows an audit log, or what it has of a while, as one HTML
// file for people: whether it verifies, what was handed out to which program,
// what was refused, leases over time, the age of keys, and a table of entries
// that can be searched.
//
// The file needs nothing but a browser, and asks for nothing: its policy
// (Content-Security-Policy) lets it load nothing and run one script, named by
// its hash. What came from outside, and any program on the laptop can have an
// entry written, is never markup. The static part is written by html/template.
// The table's entries are JSON with all of "<>&" escaped, in an element that
// no browser executes, and the script puts them on the page as text alone.
//
// Without scripts, and on paper, everything is there but the search.
package report

import (
	"bufio"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"strconv"
	"strings"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// Options say what is shown.
type Options struct {
	LogDir string
	// To bounds what is read of the log: up to, but not with, this number; 0
	// for all.
	To           int64
	Since, Until time.Time // bound the time that an entry bears, as in [audit.Query]
	Rows         int       // of the table, the newest ones; by default DefaultRows
	Now          time.Time // when it is made

	Verdict Verdict
}

// DefaultRows are a few megabytes that a browser opens within a second. What
// is counted and drawn is of all entries.
const DefaultRows = 100_000

// A Verdict is what [audit.Verify] said of the log.
type Verdict struct {
	Whole      bool
	Text       string // in sentences
	Key        string // the verifier key that was trusted
	Checkpoint string // the newest, "" for none
}

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string
)

const (
	staticRows = 200 // of the table, where there are no scripts
	minutes    = "2006-01-02 15:04"
	seconds    = "2006-01-02 15:04:05"
)

// A page is what page.html shows.
type page struct {
	Options
	CSS, Policy string
	*facts
	Hidden int64 // entries that are not in the table
	Static []row
	JS     string
}

// Write reads the log and writes the report. The log may go on growing while
// it does. Lines that are no entries are counted, and shown by their number; a
// log that cannot be read is an error as of [audit.Entries].
func Write(ctx context.Context, w io.Writer, opts Options) error {
	if opts.Rows == 0 {
		opts.Rows = DefaultRows
	}
	if opts.To == 0 { // all that is read is of the same entries
		for line, err := range audit.Entries(ctx, opts.LogDir, audit.Query{Reverse: true}) {
			if err != nil && line.Raw == nil {
				return err
			}
			if err == nil { // what is at the end need not be an entry
				opts.To = line.Seq + 1
				break
			}
		}
	}
	opts.Verdict.Text = printable(opts.Verdict.Text)
	opts.Verdict.Key, opts.Verdict.Checkpoint = printable(opts.Verdict.Key), printable(opts.Verdict.Checkpoint)
	found, err := gather(ctx, opts)
	if err != nil {
		return err
	}
	templates, err := template.New("").Funcs(template.FuncMap{
		"css":      func(s string) template.CSS { return template.CSS(s) },
		"js":       func(s string) template.JS { return template.JS(s) },
		"minutes":  func(t time.Time) string { return t.UTC().Format(minutes) },
		"seconds":  func(t time.Time) string { return t.UTC().Format(seconds) },
		"number":   number[int64],
		"numeral":  number[int],
		"duration": hours,
		"last":     func(all []bars) bars { return all[len(all)-1] },
		"none":     orNone,
	}).Parse(pageHTML)
	if err != nil {
		return broker.Errorf(broker.CodeInternal, "the report's template: %w", err)
	}
	p := &page{
		Options: opts, CSS: pageCSS, JS: pageJS, facts: found,
		Hidden: max(0, found.Stats.Entries-int64(opts.Rows)),
		Policy: "default-src 'none'; script-src '" + hash(pageJS) + "'; style-src '" + hash(pageCSS) + "'; img-src data:; " +
			"base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'",
	}
	out := bufio.NewWriterSize(w, 64<<10)
	if err := templates.ExecuteTemplate(out, "begin", p); err != nil {
		return err
	}
	if p.Static, err = writeRows(ctx, out, opts); err != nil {
		return err
	}
	if err := templates.ExecuteTemplate(out, "end", p); err != nil {
		return err
	}
	return out.Flush()
}

// entries calls f with each entry that q selects and what may be shown of it:
// a control or bidi character stands in the page as its escape. Lines that are
// no entries are left out; Stats counts them.
func entries(ctx context.Context, dir string, q audit.Query, f func(*audit.Entry) error) error {
	for line, err := range audit.Entries(ctx, dir, q) {
		if err != nil && line.Raw == nil {
			return err
		}
		e, bad := line.Entry()
		if err != nil || bad != nil {
			continue
		}
		e.Kind = broker.EventKind(broker.Printable(string(e.Kind)))
		texts := []*string{&e.Outcome, &e.Profile, &e.Account, &e.RoleARN, &e.Lease, &e.Reason}
		if k := e.Key; k != nil {
			texts = append(texts, &k.Name, &k.AccessKeyID, &k.UserARN)
		}
		if s := e.Session; s != nil {
			texts = append(texts, &s.ID, &s.AccessKeyID)
		}
		if c := e.Caller; c != nil {
			texts = append(texts, &c.Program)
		}
		if x := e.Error; x != nil {
			x.Code = broker.Code(broker.Printable(string(x.Code)))
			texts = append(texts, &x.Message)
		}
		for _, text := range texts {
			*text = broker.Printable(*text)
		}
		if err := f(&e); err != nil {
			return err
		}
	}
	return nil
}

// printable is text as it may be shown, in its lines.
func printable(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = broker.Printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// hash is a source of a Content-Security-Policy that allows one inline text.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// number writes n with its thousands apart.
func number[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// hours writes how long something took.
func hours(d time.Duration) string {
	return strconv.Itoa(int(d.Hours())) + "h " + strconv.Itoa(int(d.Minutes())%60) + "m"
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}
