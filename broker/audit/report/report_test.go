package report_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/audit/report"
)

var day = time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC)

// at is a time on that day.
func at(hours float64) time.Time { return day.Add(time.Duration(hours * float64(time.Hour))) }

// An event is one that happened then.
type event struct {
	at time.Time
	broker.Event
}

// written is a log of these events.
func written(tb testing.TB, events ...event) (dir string) {
	tb.Helper()
	dir = filepath.Join(tb.TempDir(), "audit")
	now := day
	l, err := audit.Open(tb.Context(), audit.Options{Dir: dir, Now: func() time.Time { return now }})
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range events {
		now = e.at
		if e.Outcome == "" {
			e.Outcome = broker.OutcomeOK
		}
		if err := l.Append(tb.Context(), e.Event, false); err != nil {
			tb.Fatal(err)
		}
	}
	if err := l.Close(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// shown is the report of a log.
func shown(tb testing.TB, opts report.Options) string {
	tb.Helper()
	if opts.Now.IsZero() {
		opts.Now = at(24)
	}
	var out bytes.Buffer
	if err := report.Write(tb.Context(), &out, opts); err != nil {
		tb.Fatal(err)
	}
	return out.String()
}

// section is the text of one part of a report, without its tags.
func section(tb testing.TB, html, title string) string {
	tb.Helper()
	_, after, ok := strings.Cut(html, ">"+title+"</h2>")
	if !ok {
		tb.Fatalf("the report has no section %q:\n%.2000s", title, html)
	}
	body, _, _ := strings.Cut(after, "</section>")
	text := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, " ")
	return strings.Join(strings.Fields(text), " ")
}

// A table is what is embedded for the script.
type table struct {
	Rows  []int64
	Texts []string
}

const stride = 13 // numbers a row

func embedded(tb testing.TB, html string) (t table) {
	tb.Helper()
	_, after, _ := strings.Cut(html, `<script type="application/json" id="data">`)
	data, _, ok := strings.Cut(after, "</script>")
	if !ok {
		tb.Fatal("the report has no data")
	}
	if err := json.Unmarshal([]byte(data), &t); err != nil {
		tb.Fatalf("%v:\n%.500s", err, data)
	}
	return t
}

func wants(tb testing.TB, text string, want ...string) {
	tb.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			tb.Errorf("lacks %q:\n%.3000s", w, text)
		}
	}
}

// hostile are what any program can have written into the log.
var hostile = []string{
	`<script>alert(1)</script>`, `</script><script>alert(1)</script>`, `<!--`, `-->`, `<!--<script>`, `]]>`, `"'><img src=x onerror=alert(1)>`,
	"a\u2028b\u2029c", "\u202eexe.txt", "\x1b[31mred", `{{.}}`, `</style><style>*{display:none}`, `\u003cscript>`, `"><svg onload=alert(1)>`, "javascript:alert(1)", "é東京🔑",
}

// everywhere are events with text in each field that a report has.
func everywhere(text string, when time.Time) []event {
	caller := &broker.Caller{Program: text, PID: 42, Command: text, Cwd: text, TTY: text, User: text, Via: text}
	key := &broker.EventKey{Name: text, AccessKeyID: text, UserARN: text}
	session := &broker.EventSession{ID: text, AccessKeyID: text, Name: text}
	full := broker.Event{Profile: text, Account: text, RoleARN: "arn:aws:iam::1:role/" + text, Key: key, Session: session, Lease: text, Caller: caller,
		Reason: text, Decision: text, Groups: []string{text}, Error: &broker.EventError{Code: broker.Code(text), Message: text}}
	var all []event
	for _, kind := range []broker.EventKind{
		broker.EventKeyAdded, broker.EventKeyRotated, broker.EventLeaseStarted, broker.EventCredentialsServed, broker.EventRequestDenied, broker.EventLeaseEnded,
		"<b>another</b>", // of a later version
	} {
		e := full
		e.Kind, e.Outcome = kind, broker.OutcomeOK
		if kind == broker.EventRequestDenied {
			e.Outcome = text
		}
		all = append(all, event{when, e})
	}
	return all
}

// Whatever an entry says, the page has its own elements and no other, and the
// text is all there.
func TestHostileText(t *testing.T) {
	tags := func(html string) map[string]int {
		found := map[string]int{}
		for _, tag := range regexp.MustCompile(`<[!/a-zA-Z][^\s>]*`).FindAllString(html, -1) {
			found[tag]++
		}
		return found
	}
	plain := tags(shown(t, report.Options{LogDir: written(t, everywhere("plain", at(1))...)}))
	for _, text := range hostile {
		dir := written(t, everywhere(text, at(1))...)
		html := shown(t, report.Options{LogDir: dir, Verdict: report.Verdict{Text: text, Key: text, Checkpoint: text}})
		if got := tags(html); fmt.Sprint(got) != fmt.Sprint(plain) {
			t.Errorf("%q makes other elements:\n%v, not\n%v", text, got, plain)
		}
		for _, r := range "\u2028\u2029\u202e\x1b" {
			if strings.ContainsRune(html, r) {
				t.Errorf("%q: %U is in the report", text, r)
			}
		}
		data := embedded(t, html)
		if len(data.Rows) != 7*stride {
			t.Fatalf("%q: %d numbers", text, len(data.Rows))
		}
		served := data.Rows[3*stride : 4*stride] // the newest is first
		for column, want := range map[int]string{3: "credentials.served", 5: text, 6: text + " in " + text, 8: text, 9: text, 10: text, 11: text} {
			if got := data.Texts[served[column]]; got != broker.Printable(want) {
				t.Errorf("%q: column %d is %q", text, column, got)
			}
		}
	}
}

// The policy names what the page runs, and the page asks for nothing.
func TestPolicy(t *testing.T) {
	html := shown(t, report.Options{LogDir: written(t, everywhere("text", at(1))...)})
	if want := "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src &#39;none&#39;; "; !strings.HasPrefix(html, want) {
		t.Errorf("does not begin with its policy:\n%.300s", html)
	}
	_, policy, _ := strings.Cut(html, `Content-Security-Policy" content="`)
	policy, _, _ = strings.Cut(policy, `">`)
	policy = strings.NewReplacer("&#39;", "'", "&#43;", "+").Replace(policy)
	for _, element := range []string{"script", "style"} {
		inline := regexp.MustCompile(`(?s)<`+element+`>(.*?)</`+element+`>`).FindAllStringSubmatch(html, -1)
		if len(inline) != 1 {
			t.Fatalf("%d of <%s>", len(inline), element)
		}
		sum := sha256.Sum256([]byte(inline[0][1]))
		wants(t, policy, element+"-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	}
	for _, bad := range []string{"unsafe-", "http:", "https:", "*"} {
		if strings.Contains(policy, bad) {
			t.Errorf("the policy allows %s: %s", bad, policy)
		}
	}
	for _, bad := range []string{` src=`, `url(http`, `@import`, ` style="`, ` onload=`, ` onclick=`, `<a `, `<form`, `<iframe`, `<base`, `innerHTML`, `insertAdjacentHTML`, `document.write`, `eval(`, `fetch(`, `XMLHttpRequest`} {
		if strings.Contains(html, bad) {
			t.Errorf("the report has %q", bad)
		}
	}
	if got := regexp.MustCompile(`href="[^"]*"`).FindAllString(html, -1); len(got) != 1 || got[0] != `href="data:,"` {
		t.Errorf("it refers to %q", got)
	}
}

func TestVerdict(t *testing.T) {
	dir := written(t, everywhere("text", at(1))...)
	html := shown(t, report.Options{LogDir: dir, Verdict: report.Verdict{Whole: true, Text: "the audit log is whole\nnever anchored", Key: "name+1234+AbCd", Checkpoint: "name\n7\nhash=\n"}})
	wants(t, html, `<section class="verdict whole"`, "The log verifies", "the audit log is whole\nnever anchored", "name\n7\nhash=\n", "name&#43;1234&#43;AbCd")
	if strings.Contains(html, "NOT verify") {
		t.Error("says also that it does not verify")
	}
	html = shown(t, report.Options{LogDir: dir, Verdict: report.Verdict{Text: "entry 3 was changed"}})
	wants(t, html, `<section class="verdict broken" aria-label="Verification" role="alert">`, "The log does NOT verify", "entry 3 was changed", "<pre>none</pre>")
	if strings.Contains(html, "The log verifies") || strings.Index(html, "NOT verify") > strings.Index(html, "<main>") {
		t.Error("does not say at the top that it does not verify")
	}
}

func lease(when time.Time, kind broker.EventKind, id, profile string) event {
	return event{when, broker.Event{Kind: kind, Lease: id, Profile: profile, Caller: &broker.Caller{Program: "/usr/bin/zsh"}, Reason: "ticket " + id}}
}

func TestLeases(t *testing.T) {
	const start, end = broker.EventLeaseStarted, broker.EventLeaseEnded
	dir := written(t,
		lease(at(0), start, "l-old", "ops"), lease(at(1), end, "l-old", "ops"),
		lease(at(2), start, "l-a", "ops"), lease(at(3), start, "l-b", "ops"),
		lease(at(3.5), end, "l-a", "ops"), lease(at(5), end, "l-b", "ops"),
		lease(at(6), end, "l-pruned", "dev"), // its beginning is not in the log
		lease(at(8), start, "l-c", "ops"),
		event{at(10), broker.Event{Kind: broker.EventDaemonStopped}},
	)
	html := shown(t, report.Options{LogDir: dir})
	got := section(t, html, "Leases by profile")
	wants(t, got, "ops 4 6h 0m", "dev 1 6h 0m",
		"l-old, 2026-11-03 00:00 to 2026-11-03 01:00, by /usr/bin/zsh", "2 leases, 2026-11-03 02:00 to 2026-11-03 05:00", "l-c, 2026-11-03 08:00 to 2026-11-03 10:00",
		"l-c ops 2026-11-03 08:00:00 not ended", "l-pruned dev before this log 2026-11-03 06:00:00", "All leases")
	// Of ten hours, a thousand units.
	wants(t, html, `<rect class="lease" x="0" width="100" `, `<rect class="lease" x="200" width="300" `, `<rect class="lease" x="800" width="200" `, `<rect class="lease" x="0" width="600" `)

	// One that began before is drawn from the edge on.
	got = section(t, shown(t, report.Options{LogDir: dir, Since: at(4), Until: at(9)}), "Leases by profile")
	wants(t, got, "ops 2 2h 0m", "l-b, 2026-11-03 04:00 to 2026-11-03 05:00", "l-c, 2026-11-03 08:00 to 2026-11-03 09:00", "l-b ops 2026-11-03 03:00:00 2026-11-03 05:00:00")
	if strings.Contains(got, "l-old") || strings.Contains(got, "l-a") {
		t.Errorf("has what ended before:\n%s", got)
	}

	// The clock was set back; and there is a time between none.
	got = section(t, shown(t, report.Options{LogDir: written(t, lease(at(5), start, "l-x", "ops"), lease(at(4), end, "l-x", "ops"))}), "Leases by profile")
	wants(t, got, "ops 1 0h 0m")
	wants(t, section(t, shown(t, report.Options{LogDir: written(t, lease(at(5), start, "l-x", "ops"))}), "Leases by profile"), "ops 1 0h 0m")

	// Many profiles, many leases, and each within the picture.
	var many []event
	for i := range 30 {
		for j := range 1 + i%3 {
			id := fmt.Sprintf("l-%d-%d", i, j)
			many = append(many, lease(at(float64(i)), start, id, fmt.Sprint("profile-", i)), lease(at(float64(i)+0.001), end, id, fmt.Sprint("profile-", i)))
		}
	}
	html = shown(t, report.Options{LogDir: written(t, many...)})
	wants(t, section(t, html, "Leases by profile"), "And 10 leases of 10 other profiles.", "The newest 50 leases")
	for _, m := range regexp.MustCompile(`class="lease" x="([0-9.]+)" width="([0-9.]+)"`).FindAllStringSubmatch(html, -1) {
		var x, width float64
		fmt.Sscan(m[1], &x)
		fmt.Sscan(m[2], &width)
		if x < 0 || width < 2 || x+width > 1000.01 {
			t.Errorf("%s is not within the picture", m[0])
		}
	}
}

func TestKeys(t *testing.T) {
	key := func(when time.Time, kind broker.EventKind, name, id, outcome string) event {
		return event{when, broker.Event{Kind: kind, Outcome: outcome, Key: &broker.EventKey{Name: name, AccessKeyID: id, UserARN: "arn:aws:iam::111122223333:user/" + name}}}
	}
	const added, rotated, removed = broker.EventKeyAdded, broker.EventKeyRotated, broker.EventKeyRemoved
	dir := written(t,
		key(at(0), added, "work", "AKIA1", ""), key(at(24), added, "home", "AKIA2", ""), key(at(24), added, "ci", "AKIA3", ""),
		key(at(48), rotated, "work", "AKIA4", ""), key(at(48), broker.EventKeyRotating, "home", "AKIA2", ""), key(at(72), removed, "ci", "AKIA3", ""),
		key(at(72), added, "bad", "AKIA5", broker.OutcomeFailed),
	)
	// The log's age is reckoned by what it has from before the time that is shown, too.
	got := section(t, shown(t, report.Options{LogDir: dir, Since: at(71), Now: at(24 * 92)}), "Long-term keys")
	wants(t, got,
		"home AKIA2 arn:aws:iam::111122223333:user/home added 2026-11-04 00:00 in use, older than 90 days 91",
		"work AKIA4 arn:aws:iam::111122223333:user/work rotated 2026-11-05 00:00 in use 90",
		"ci AKIA3 arn:aws:iam::111122223333:user/ci added 2026-11-04 00:00 removed 2026-11-06 00:00 2",
		"work AKIA1 arn:aws:iam::111122223333:user/work added 2026-11-03 00:00 replaced 2026-11-05 00:00 2")
	if !regexp.MustCompile(`AKIA2.*AKIA4.*AKIA3.*AKIA1`).MatchString(got) || strings.Contains(got, "AKIA5") {
		t.Errorf("not in order, or with one that was not added:\n%s", got)
	}
	wants(t, section(t, shown(t, report.Options{LogDir: written(t, everywhere("x", at(1))[3:]...)}), "Long-term keys"), "does not tell of any")
}

func request(when time.Time, kind broker.EventKind, outcome, code, profile, program, message string) event {
	e := event{when, broker.Event{Kind: kind, Outcome: outcome, Profile: profile, Caller: &broker.Caller{Program: program}}}
	if code != "" {
		e.Error = &broker.EventError{Code: broker.Code(code), Message: message}
	}
	return e
}

func TestCounts(t *testing.T) {
	const served, denied, failed = broker.EventCredentialsServed, broker.EventRequestDenied, broker.EventRequestFailed
	dir := written(t,
		request(at(1), served, "ok", "", "ops", "/usr/bin/terraform", ""),
		request(at(2), denied, "denied", "denied", "prod", "/usr/bin/aws", "first"),
		request(at(25), served, "ok", "", "ops", "/usr/bin/terraform", ""),
		request(at(26), served, "ok", "", "dev", "/usr/bin/aws", ""),
		request(at(27), denied, "denied", "denied", "prod", "/usr/bin/aws", "second"),
		request(at(28), failed, "failed", "aws_unreachable", "prod", "/usr/bin/aws", "no such host"),
	)
	html := shown(t, report.Options{LogDir: dir, Rows: 4})
	wants(t, html, "<b>3</b> hand-outs", "<b>2</b> refused", "<b>1</b> failed", "6 entries, 2026-11-03 01:00 to 2026-11-04 04:00")
	wants(t, section(t, html, "Requests by day"), "2026-11-03 1 1 0", "2026-11-04 2 1 1", "the busiest day had 4")
	wants(t, section(t, html, "Hand-outs by program"), "/usr/bin/aws 1 3", "/usr/bin/terraform 2 0")
	wants(t, section(t, html, "Refusals and failures"),
		"2 denied denied prod /usr/bin/aws 2026-11-04 03:00:00 entry 4 second", "1 failed aws_unreachable prod /usr/bin/aws 2026-11-04 04:00:00 entry 5 no such host")
	// The table alone is bounded.
	wants(t, html, "The table has the newest 4 entries; 2 older ones are counted above")
	data := embedded(t, html)
	if len(data.Rows) != 4*stride || data.Rows[0] != 5 || data.Rows[3*stride] != 2 || data.Rows[1] != at(28).UnixMilli() {
		t.Errorf("the table has %v", data.Rows)
	}

	html = shown(t, report.Options{LogDir: dir, Since: at(2), Until: at(27)})
	wants(t, html, "3 entries, 2026-11-03 02:00 to 2026-11-04 02:00, since 2026-11-03 02:00, until 2026-11-04 03:00", "<b>2</b> hand-outs", "<b>1</b> refused")
	wants(t, section(t, html, "Refusals and failures"), "1 denied denied prod /usr/bin/aws 2026-11-03 02:00:00 entry 1 first")
	if data := embedded(t, html); len(data.Rows) != 3*stride {
		t.Errorf("the table has %v", data.Rows)
	}
	html = shown(t, report.Options{LogDir: dir, To: 2})
	wants(t, html, "2 entries, ", "<b>1</b> hand-outs")
	if data := embedded(t, html); len(data.Rows) != 2*stride {
		t.Errorf("the table has %v", data.Rows)
	}
	html = shown(t, report.Options{LogDir: dir, Since: at(27)})
	if got := section(t, html, "Refusals and failures"); strings.Contains(got, "2 denied") || !strings.Contains(got, "1 denied denied prod /usr/bin/aws 2026-11-04 03:00:00 entry 4 second") {
		t.Errorf("has what was refused before:\n%s", got)
	}
	html = shown(t, report.Options{LogDir: dir, Until: at(0)})
	wants(t, html, "No entries", "Nothing was asked for", "There were none")

	// Beyond a few months, by month.
	var long []event
	for i := range 200 {
		long = append(long, request(at(float64(24*i)), served, "ok", "", fmt.Sprint("profile-", i), fmt.Sprint("program-", i), ""))
	}
	html = shown(t, report.Options{LogDir: written(t, long...)})
	wants(t, section(t, html, "Requests by month"), "2026-11 28 0 0", "2027-05 21 0 0")
	wants(t, section(t, html, "Hand-outs by program"), "And 180 other programs")
	if got := strings.Count(html, `data-label="time"`); got != 200 {
		t.Errorf("%d rows without scripts", got)
	}
}

// What is no entry is told of, and the rest is shown.
func TestUnreadableLines(t *testing.T) {
	dir := written(t, everywhere("x", at(1))...)
	name := filepath.Join(dir, "000001.jsonl")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	const rubbish = "<script>rubbish</script>\n"
	for where, text := range map[string]string{"begin": rubbish + string(b), "end": string(b) + rubbish} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		html := shown(t, report.Options{LogDir: dir})
		wants(t, html, "1 of its lines cannot be read as entries", "7 entries, ")
		if n := len(embedded(t, html).Rows); n != 7*stride {
			t.Errorf("with rubbish at its %s, the table has %d entries of 7", where, n/stride)
		}
		if strings.Contains(html, "rubbish") {
			t.Error("shows it")
		}
	}
	if err := report.Write(t.Context(), new(bytes.Buffer), report.Options{LogDir: filepath.Join(dir, "nosuch")}); broker.CodeOf(err) != broker.CodeNotFound {
		t.Errorf("a missing log: %v", err)
	}
}

// Text can be read in both themes and on paper: the contrasts of WCAG 2.2, AA
// (https://www.w3.org/TR/WCAG22/#contrast-minimum, #non-text-contrast).
func TestContrast(t *testing.T) {
	css, err := os.ReadFile("page.css")
	if err != nil {
		t.Fatal(err)
	}
	luminance := func(colour string) float64 {
		var channels [3]float64
		digits := strings.TrimPrefix(colour, "#")
		if len(digits) == 3 {
			digits = strings.Join([]string{digits[:1], digits[:1], digits[1:2], digits[1:2], digits[2:], digits[2:]}, "")
		}
		for i := range channels {
			n, err := strconv.ParseUint(digits[2*i:2*i+2], 16, 8)
			if err != nil {
				t.Fatalf("%s: %v", colour, err)
			}
			if channels[i] = float64(n) / 255; channels[i] <= 0.04045 {
				channels[i] /= 12.92
			} else {
				channels[i] = math.Pow((channels[i]+0.055)/1.055, 2.4)
			}
		}
		return 0.2126*channels[0] + 0.7152*channels[1] + 0.0722*channels[2]
	}
	themes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(css), -1)
	if len(themes) != 3 {
		t.Fatalf("%d themes", len(themes))
	}
	for i, theme := range themes {
		colours := map[string]string{}
		for _, m := range regexp.MustCompile(`--([a-z]+): (#[0-9a-f]+);`).FindAllStringSubmatch(theme[1], -1) {
			colours[m[1]] = m[2]
		}
		if i > 0 && colours["focus"] == "" {
			colours["focus"] = colours["good"] // paper has none
		}
		for front, least := range map[string]float64{"text": 4.5, "quiet": 4.5, "bad": 4.5, "failed": 4.5, "whole": 4.5, "good": 3, "past": 3, "focus": 3} {
			for _, back := range []string{"ground", "raised"} {
				a, b := luminance(colours[front]), luminance(colours[back])
				if got := (max(a, b) + 0.05) / (min(a, b) + 0.05); got < least {
					t.Errorf("theme %d: %s (%s) on %s (%s) has a contrast of %.2f, want %.1f", i, front, colours[front], back, colours[back], got, least)
				}
			}
		}
	}
}
