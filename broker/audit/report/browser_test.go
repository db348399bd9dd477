package report_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	protocol "github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"gatepass/broker"
	"gatepass/broker/audit/audittest"
	"gatepass/broker/audit/report"
)

// A tab is one of a real Chromium, and what it has said and asked for.
type tab struct {
	testing.TB
	ctx context.Context

	mu       sync.Mutex
	requests []string
	says     []string // what a page should not: violations of its policy, errors, dialogs
}

// newTab starts a browser that ends with the test.
func newTab(tb testing.TB) *tab {
	tb.Helper()
	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "headless-shell"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		if os.Getenv("GATEPASS_REAL") == "1" {
			tb.Fatal("GATEPASS_REAL=1 and chromium is not installed")
		}
		tb.Skip("chromium is not installed")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.UserDataDir(tb.TempDir()), chromedp.WindowSize(1280, 900))
	if os.Getuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // it refuses to be root's otherwise
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	tb.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	tb.Cleanup(func() { chromedp.Cancel(ctx); cancel() })
	t := &tab{TB: tb, ctx: ctx}
	err := chromedp.Listen(ctx, func(event any) {
		t.mu.Lock()
		defer t.mu.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			t.requests = append(t.requests, e.Request.URL)
		case *log.EventEntryAdded:
			t.says = append(t.says, e.Entry.Text)
		case *runtime.EventExceptionThrown:
			t.says = append(t.says, "exception: "+e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			t.says = append(t.says, fmt.Sprintf("console.%s", e.Type))
		case *page.EventJavascriptDialogOpening:
			t.says = append(t.says, "dialog: "+e.Message)
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	t.ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	tb.Cleanup(cancel)
	command(t, network.Enable, network.EnableParams{})
	command(t, log.Enable, protocol.Empty{})
	return t
}

func (t *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(t.ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// run does one thing that gives something.
func run[T any](t *tab, action chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(t.ctx, action)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// command sends a command of the browser's protocol.
func command[P, R any](t *tab, c protocol.Command[P, R], params P) R {
	t.Helper()
	result, err := chromedp.Call(t.ctx, c, params)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// eval returns what a JavaScript expression gives.
func eval[T any](t *tab, js string) T {
	t.Helper()
	return run(t, chromedp.Evaluate[T](js))
}

// set chooses, or types, a value.
func (t *tab) set(id, value string) {
	t.Helper()
	t.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`{
		const input = document.getElementById(%s);
		input.value = %s;
		input.dispatchEvent(new Event("input"));
	}`, quoted(id), quoted(value))))
}

// said returns what there was to object to, and forgets it.
func (t *tab) said() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	says := t.says
	t.says = nil
	return says
}

// file is a report as a file, and its address.
func file(tb testing.TB, html string) string {
	tb.Helper()
	name := filepath.Join(tb.TempDir(), "report.html")
	if err := os.WriteFile(name, []byte(html), 0o600); err != nil {
		tb.Fatal(err)
	}
	return "file://" + name
}

// example is a report of a log that has everything, most of all hostile text.
func example(tb testing.TB) string {
	tb.Helper()
	var events []event
	for i := range 250 {
		profile := []string{"ops", "dev"}[i%2]
		if i%25 == 0 {
			events = append(events, lease(at(float64(i)), broker.EventLeaseStarted, fmt.Sprint("l-", i), profile), lease(at(float64(i)+0.7), broker.EventLeaseEnded, fmt.Sprint("l-", i), profile))
		}
		events = append(events, request(at(float64(i)+0.8), broker.EventCredentialsServed, "ok", "", profile, "/usr/bin/terraform", ""))
		if i%10 == 0 {
			events = append(events, request(at(float64(i)+0.9), broker.EventRequestDenied, "denied", "denied", "prod", "/usr/bin/aws", "by a rule"))
		}
	}
	for _, text := range hostile {
		events = append(events, everywhere(text, at(250))...)
	}
	return shown(tb, report.Options{LogDir: written(tb, events...), Now: at(24 * 150), Verdict: report.Verdict{Whole: true,
		Text: "the audit log is whole: 399 entries in 1 file\nlast anchored 2026-11-13 10:02, with 398 entries",
		Key:  "gatepass-audit/alice@laptop/x2kq7r5d+5b2c1a90+Abc", Checkpoint: "gatepass-audit/alice@laptop/x2kq7r5d\n399\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— gatepass-audit/alice@laptop/x2kq7r5d Az3grlgt\n"}})
}

const (
	shownJS = `document.getElementById("shown").textContent`
	rowsJS  = `[...document.querySelectorAll("#table tbody tr")].map(r => [...r.cells].map(c => c.textContent).join("|"))`
)

func TestInBrowser(t *testing.T) {
	p := newTab(t)
	address := file(t, example(t))
	p.do(chromedp.Navigate(address))
	if got := eval[string](p, shownJS); got != "1 to 100 of 407 entries" {
		t.Errorf("at first: %q", got)
	}

	// By keyboard: to the search, words, and away from it.
	p.do(chromedp.KeyEvent("/"), chromedp.KeyEvent("TERRA ops"))
	if got := eval[string](p, shownJS); got != "1 to 100 of 125 that match, of 407 entries" {
		t.Errorf("two words: %q", got)
	}
	for _, row := range eval[[]string](p, rowsJS) {
		if !strings.Contains(row, "|ops|") || !strings.Contains(row, "terraform") {
			t.Fatalf("a row that does not match: %s", row)
		}
	}
	p.do(chromedp.Focus("#next"), chromedp.KeyEvent(kb.Enter))
	if got := eval[string](p, shownJS); got != "101 to 125 of 125 that match, of 407 entries" {
		t.Errorf("the next page: %q", got)
	}
	if got := eval[[]bool](p, `["first", "previous", "next", "last"].map(id => document.getElementById(id).disabled)`); fmt.Sprint(got) != "[false false true true]" {
		t.Errorf("on the last page are disabled: %v", got)
	}

	// The address has what is looked for.
	p.do(chromedp.Reload())
	if got := eval[string](p, shownJS); got != "1 to 100 of 125 that match, of 407 entries" {
		t.Errorf("loaded again: %q", got)
	}
	p.do(chromedp.Focus("#reset"), chromedp.KeyEvent(kb.Enter))
	if got := eval[string](p, shownJS+` + " " + location.hash + " " + document.activeElement.id`); got != "1 to 100 of 407 entries  text" {
		t.Errorf("reset: %q", got)
	}

	// By choices.
	p.set("order", "oldest")
	p.set("outcome", "denied")
	p.do(chromedp.Focus("#profile"), chromedp.KeyEvent("prod"))
	rows := eval[[]string](p, rowsJS)
	if len(rows) != 25 || !strings.HasPrefix(rows[0], "3|2026-11-03 00:54:00|request.denied|denied|prod|") || !strings.HasSuffix(rows[0], "|/usr/bin/awspid 0|denied: by a rule") && !strings.HasSuffix(rows[0], "|denied: by a rule") {
		t.Errorf("refusals, the oldest first: %d, %q", len(rows), rows[:min(1, len(rows))])
	}
	p.do(chromedp.Navigate(address + "#text=" + "%23" + "17"))
	if rows := eval[[]string](p, rowsJS); len(rows) != 1 || !strings.HasPrefix(rows[0], "17|") {
		t.Errorf("an entry by its number: %q", rows)
	}
	p.do(chromedp.Navigate(address + "#event=nosuch&text=nothing-has-this"))
	if got := eval[string](p, shownJS+` + document.getElementById("event").value`); got != "None of 407 entries match." {
		t.Errorf("nothing: %q", got)
	}

	// What entries say is text, before the search and after.
	for _, text := range hostile {
		text = broker.Printable(text)
		p.set("text", text)
		is := `c => c.firstChild?.nodeType === Node.TEXT_NODE && c.firstChild.data === ` + quoted(text)
		if !eval[bool](p, `[...document.querySelectorAll("#table tbody td")].some(`+is+`)`) {
			t.Errorf("%q is not in the table: %q", text, eval[[]string](p, rowsJS))
		}
		if !eval[bool](p, `[...document.querySelectorAll("main section[aria-labelledby=h-programs] th")].some(`+is+`)`) {
			t.Errorf("%q is not among the programs", text)
		}
	}
	if got := eval[int](p, `document.querySelectorAll("script").length + 100 * document.querySelectorAll("img, iframe, object, embed, main b, main [onload], main [onerror], style ~ style").length`); got != 2 {
		t.Errorf("entries have made elements: %d", got)
	}
	if says := p.said(); len(says) > 0 {
		t.Errorf("the browser objects: %q", says)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.requests {
		if !strings.HasPrefix(r, address) && r != "data:," {
			t.Errorf("a request for %s", r)
		}
	}
	if len(p.requests) == 0 {
		t.Error("requests are not seen")
	}
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// The policy holds: a script that got into the page after all neither runs nor
// reaches anybody, and it is told of.
func TestPolicyInBrowser(t *testing.T) {
	p := newTab(t)
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1) }))
	defer server.Close()
	html := example(t)
	inject := `<script>document.title = "hacked"</script><img src="` + server.URL + `/img"><p id="styled" style="color: #010203" onclick="document.title='clicked'">x</p><script src="` + server.URL + `/js"></script>`
	p.do(chromedp.Navigate(file(t, strings.Replace(html, "<main>", "<main>"+inject, 1))))
	p.do(chromedp.Click("#styled"))
	if got := eval[string](p, `document.title + " " + getComputedStyle(document.getElementById("styled")).color`); got != "gatepass audit report rgb(27, 31, 36)" {
		t.Errorf("ran: %s", got)
	}
	if got := eval[string](p, `(() => { try { document.body.innerHTML = "<b>x</b>"; return "done" } catch (e) { return e.name } })()`); got != "TypeError" {
		t.Errorf("text as markup: %s", got)
	}
	if got := run(p, chromedp.Evaluate[string](`fetch("`+server.URL+`/fetch").then(() => "done", e => e.name)`, chromedp.EvalAwaitPromise)); got != "TypeError" {
		t.Errorf("a request: %s", got)
	}
	if got := eval[int64](p, shownRows); got != 100 {
		t.Errorf("beside it the table has %d rows", got)
	}
	says := strings.Join(p.said(), "\n")
	for _, want := range []string{"script-src", "style-src", "img-src", "default-src", "TrustedHTML"} {
		if !strings.Contains(says, want) {
			t.Errorf("no violation of %s is told of:\n%s", want, says)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests have left", n)
	}
}

const shownRows = `document.querySelectorAll("#table tbody tr").length`

// Without scripts everything is there but the search, which is not offered.
func TestWithoutScripts(t *testing.T) {
	p := newTab(t)
	command(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	p.do(chromedp.Navigate(file(t, example(t))))
	for selector, want := range map[string]int{
		"#table tbody tr": 200, "#filters[hidden]": 1, "#pages[hidden]": 1, "noscript > p": 1, ".lanes tbody tr": 2 + len(hostile), ".columns svg": 11,
	} {
		found := run(p, chromedp.QueryNodeIDs(chromedp.CSSAll(selector)))
		if len(found) != want {
			t.Errorf("%d of %s, want %d", len(found), selector, want)
		}
	}
}

// overlapsJS are the labels of the timeline that the one before touches.
const overlapsJS = `[...document.querySelectorAll(".ticks span")].filter(s => getComputedStyle(s).visibility === "visible").filter((s, i, all) => {
	const text = s => { const r = document.createRange(); r.selectNodeContents(s); return r.getBoundingClientRect() };
	return i > 0 && text(s).left < text(all[i - 1]).right + 4;
}).map(s => s.textContent)`

// Looked at in both themes, narrow, and on paper. The pictures are kept by
// "go test -artifacts".
func TestPictures(t *testing.T) {
	p := newTab(t)
	dir := t.ArtifactDir()
	p.do(chromedp.Navigate(file(t, example(t))))
	brightness := map[string]uint32{}
	for _, theme := range []string{"light", "dark"} {
		for _, width := range []int64{1280, 860, 390} {
			command(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}})
			p.do(chromedp.EmulateViewport(width, 900))
			picture := run(p, chromedp.FullScreenshot(100))
			name := fmt.Sprintf("%s-%d", theme, width)
			if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600); err != nil {
				t.Fatal(err)
			}
			img, err := png.Decode(bytes.NewReader(picture))
			if err != nil {
				t.Fatal(err)
			}
			r, g, b, _ := img.At(2, 2).RGBA()
			brightness[theme] = (r + g + b) / 3 >> 8
			if over := eval[int64](p, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
				t.Errorf("%s: %d pixels are beyond the right edge", name, over)
			}
			labels := eval[[]string](p, overlapsJS)
			if len(labels) > 0 {
				t.Errorf("%s: labels of the timeline overlap: %q", name, labels)
			}
		}
	}
	if brightness["light"] < 240 || brightness["dark"] > 40 {
		t.Errorf("the themes are as bright as %v", brightness)
	}
	command(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
	p.do(chromedp.ResetViewport())
	paper := run(p, chromedp.PrintToPDF(chromedp.PDFPreferCSSPageSize()))
	if err := os.WriteFile(filepath.Join(dir, "paper.pdf"), paper, 0o600); err != nil {
		t.Fatal(err)
	}
	if pages := bytes.Count(paper, []byte("/Type /Page\n")); pages < 3 || pages > 30 {
		t.Errorf("%d pages of paper", pages)
	}
}

// BenchmarkOpen opens a report with as many rows as there can be. "open-ms" is
// from the navigation until the table is there, "search-ms" a search in it.
func BenchmarkOpen(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "audit")
	if _, err := audittest.Write(b.Context(), audittest.Options{Dir: dir, Entries: report.DefaultRows}); err != nil {
		b.Fatal(err)
	}
	html := shown(b, report.Options{LogDir: dir})
	p := newTab(b)
	address := file(b, html)
	var open, search float64
	for b.Loop() {
		p.do(chromedp.Navigate("about:blank"), chromedp.Navigate(address))
		if got := eval[string](p, shownJS); got != "1 to 100 of 100,000 entries" {
			b.Fatal(got)
		}
		open += eval[float64](p, `performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd`)
		search += eval[float64](p, `(() => {
			const start = performance.now(), text = document.getElementById("text");
			text.value = "terraform prod";
			text.dispatchEvent(new Event("input"));
			document.body.offsetHeight;
			return performance.now() - start;
		})()`)
	}
	b.ReportMetric(open/float64(b.N), "open-ms")
	b.ReportMetric(search/float64(b.N), "search-ms")
	b.ReportMetric(float64(len(html))/1e6, "MB")
}
