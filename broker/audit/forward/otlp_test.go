package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// A collector takes log records in.
type collector struct {
	*httptest.Server
	mu       sync.Mutex
	got      []string
	requests int
	headers  http.Header
}

// collect starts a collector. answer decides on each request; what it answers
// with 200 is taken.
func collect(t *testing.T, start func(*httptest.Server), answer func(n, records int, h http.Header) (status int, body string)) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		dec := json.NewDecoder(r.Body)
		dec.DisallowUnknownFields()
		var in otlpRequest
		if err := dec.Decode(&in); err != nil || r.Method != "POST" || r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %v: %v", r.Method, r.URL, r.Header, err)
		}
		records := in.ResourceLogs[0].ScopeLogs[0].LogRecords
		c.headers = r.Header.Clone()
		status, body := answer(c.requests, len(records), w.Header())
		c.requests++
		if status == http.StatusOK {
			for _, rec := range records {
				c.got = append(c.got, *rec.Body.String)
			}
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	c.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of handshakes that are to fail
	start(c.Server)
	t.Cleanup(c.Close)
	return c
}

func fine(int, int, http.Header) (int, string) { return http.StatusOK, `{"partialSuccess":{}}` }

func (c *collector) url(options string) string { return "otlp+" + c.URL + options }

func (c *collector) sink(t *testing.T, options string) sink {
	t.Helper()
	d, err := Parse(c.url(options))
	if err != nil {
		t.Fatal(err)
	}
	s, err := newOTLP(d, "laptop")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (c *collector) arrived() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.got...)
}

func raws(batch []record) (all []string) {
	for _, r := range batch {
		all = append(all, string(r.raw))
	}
	return all
}

func TestOTLPRecords(t *testing.T) {
	batch := records(t, 10)
	s := &otlpSink{host: "laptop", now: func() time.Time { return time.Unix(1, 5) }}
	body, err := s.body(batch)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	at := func(path string) any {
		var x any = got
		for name := range strings.SplitSeq(path, ".") {
			if list, ok := x.([]any); ok {
				i, _ := strconv.Atoi(name)
				x = list[i]
			} else {
				x = x.(map[string]any)[name]
			}
		}
		return x
	}
	const first = "resourceLogs.0.scopeLogs.0.logRecords."
	for path, want := range map[string]any{
		"resourceLogs.0.resource.attributes.0.key":               "service.name",
		"resourceLogs.0.resource.attributes.0.value.stringValue": "gatepass",
		"resourceLogs.0.resource.attributes.2.value.stringValue": "laptop",
		first + "0.timeUnixNano":                                 strconv.FormatInt(batch[0].entry.Time.UnixNano(), 10),
		first + "0.observedTimeUnixNano":                         "1000000005",
		first + "0.severityNumber":                               9.0,
		first + "0.eventName":                                    "credentials.served",
		first + "0.body.stringValue":                             string(batch[0].raw),
		first + "0.attributes.0.key":                             "gatepass.seq",
		first + "0.attributes.0.value.intValue":                  "0",
		first + "0.attributes.3.key":                             "gatepass.profile",
		first + "7.severityNumber":                               13.0,
		first + "7.severityText":                                 "WARN",
	} {
		if at(path) != want {
			t.Errorf("%s is %v, want %v", path, at(path), want)
		}
	}
}

func TestOTLPDelivers(t *testing.T) {
	cert := newCertificates(t)
	headers := headersFile(t, "Authorization: Bearer hunter2\n", 0o600)
	for name, tt := range map[string]struct {
		start   func(*httptest.Server)
		options string
	}{
		"http":  {(*httptest.Server).Start, "?headers=" + headers},
		"https": {func(s *httptest.Server) { s.TLS = cert.server(t); s.StartTLS() }, "?headers=" + headers + "&ca=" + cert.ca + "&cert=" + cert.cert + "&key=" + cert.key},
	} {
		t.Run(name, func(t *testing.T) {
			c := collect(t, tt.start, fine)
			l, dir := newLog(t, audit.Options{})
			f := running(t, quick(dir, &memory{}), c.url(tt.options))
			write(t, l, 700)
			atEnd(t, f, l)
			if seams := inOrder(t, c.arrived(), lines(t, dir)); seams > 0 {
				t.Errorf("it went back %d times", seams)
			}
			if c.headers.Get("Authorization") != "Bearer hunter2" || c.headers.Get("User-Agent") != "gatepass/"+broker.Version() {
				t.Errorf("headers %v", c.headers)
			}
		})
	}
}

// What is no success is tried again: nothing is dropped because a collector
// does not like it today.
func TestOTLPFailures(t *testing.T) {
	for _, status := range []int{400, 401, 404, 429, 500, 502, 503, 504, 202, 301, 307} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			c := collect(t, (*httptest.Server).Start, func(n, _ int, h http.Header) (int, string) {
				if n < 3 {
					h.Set("Location", "http://127.0.0.1:1/v1/logs")
					return status, ""
				}
				return fine(0, 0, nil)
			})
			l, dir := newLog(t, audit.Options{})
			write(t, l, 20)
			f := running(t, quick(dir, &memory{}), c.url(""))
			atEnd(t, f, l)
			if inOrder(t, c.arrived(), lines(t, dir)); c.requests < 4 {
				t.Errorf("%d requests", c.requests)
			}
		})
	}
}

func TestOTLPErrors(t *testing.T) {
	answer := func(status int, body string, more ...string) error {
		c := collect(t, (*httptest.Server).Start, func(_, _ int, h http.Header) (int, string) {
			for i := 0; i+1 < len(more); i += 2 {
				h.Set(more[i], more[i+1])
			}
			return status, body
		})
		return c.sink(t, "").send(context.Background(), records(t, 2))
	}
	if err := answer(401, "your token hunter2 is no good"); err == nil || err.Error() != "it answers 401 Unauthorized" {
		t.Errorf("got %v", err)
	}
	if err := answer(204, ""); err != nil {
		t.Errorf("204 is a success of Loki's: got %v", err)
	}
	for media, isPage := range map[string]bool{"text/html; charset=utf-8": true, "TEXT/HTML": true, "application/xhtml+xml": true, "application/json": false, "text/plain": false, "": false} {
		if err := answer(200, "<!doctype html><title>Sign in</title>", "Content-Type", media); (err != nil) != isPage || isPage && !strings.Contains(err.Error(), "a web page") {
			t.Errorf("%q: got %v", media, err)
		}
	}
	err := answer(503, "", "Retry-After", "120")
	if l, ok := errors.AsType[*later](err); !ok || l.in != 2*time.Minute {
		t.Errorf("got %v", err)
	}
	for body, want := range map[string]int64{
		``: 0, `{}`: 0, `nonsense`: 0, `{"partialSuccess":{}}`: 0, `{"partialSuccess":{"errorMessage":"a hint"}}`: 0,
		`{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too\nold"}}`: 2, `{"partialSuccess":{"rejectedLogRecords":1}}`: 1,
		`{"partialSuccess":{"rejectedLogRecords":"9223372036854775807"}}`: 2, `{"partialSuccess":{"rejectedLogRecords":-1}}`: 0, // it got two
	} {
		err := answer(200, body)
		r, ok := errors.AsType[*rejected](err)
		if ok != (want > 0) || ok && r.entries != want || !ok && err != nil {
			t.Errorf("%s: got %v", body, err)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%q breaks the line", err)
		}
	}
}

// Too large a batch is halved until it fits, and stays in order.
func TestOTLPHalves(t *testing.T) {
	c := collect(t, (*httptest.Server).Start, func(_, records int, _ http.Header) (int, string) {
		if records > 7 {
			return http.StatusRequestEntityTooLarge, ""
		}
		return fine(0, 0, nil)
	})
	batch := records(t, 50)
	if err := c.sink(t, "").send(context.Background(), batch); err != nil {
		t.Fatal(err)
	}
	if got := c.arrived(); fmt.Sprint(got) != fmt.Sprint(raws(batch)) {
		t.Errorf("%d of 50 arrived, or not in order", len(got))
	}
	picky := collect(t, (*httptest.Server).Start, func(_, records int, _ http.Header) (int, string) {
		if records > 25 {
			return http.StatusRequestEntityTooLarge, ""
		}
		return http.StatusOK, `{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}`
	})
	err := picky.sink(t, "").send(context.Background(), batch)
	if r, ok := errors.AsType[*rejected](err); !ok || r.entries != 4 {
		t.Errorf("each half has 2 rejected: got %v", err)
	}
	if got := picky.arrived(); fmt.Sprint(got) != fmt.Sprint(raws(batch)) {
		t.Errorf("%d of 50 arrived, or not in order", len(got))
	}
	none := collect(t, (*httptest.Server).Start, func(int, int, http.Header) (int, string) { return http.StatusRequestEntityTooLarge, "" })
	if err := none.sink(t, "").send(context.Background(), batch); err == nil {
		t.Error("nothing fits, and it was sent")
	}
}

// The token is read anew for each batch, and goes nowhere once others can read
// its file.
func TestOTLPHeadersAreReadAnew(t *testing.T) {
	file := headersFile(t, "Authorization: one\n", 0o600)
	c := collect(t, (*httptest.Server).Start, fine)
	s := c.sink(t, "?headers="+file)
	batch := records(t, 1)
	for _, want := range []string{"one", "two"} {
		if err := os.WriteFile(file, []byte("Authorization: "+want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.send(context.Background(), batch); err != nil || c.headers.Get("Authorization") != want {
			t.Errorf("got %v, %v, want %s", c.headers, err, want)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := s.send(context.Background(), batch); err == nil {
		t.Error("without its headers it was sent")
	}
}

// The environment does not lead the log through a proxy. (Go has none for this
// machine, so that nothing less shows it.)
func TestOTLPNoProxy(t *testing.T) {
	if newTransport(nil).Proxy != nil {
		t.Error("there is a proxy")
	}
}

func TestOTLPStrangers(t *testing.T) {
	cert, other := newCertificates(t), newCertificates(t)
	c := collect(t, func(s *httptest.Server) { s.TLS = cert.server(t); s.StartTLS() }, fine)
	for _, options := range []string{"", "?ca=" + other.ca + "&cert=" + cert.cert + "&key=" + cert.key, "?ca=" + cert.ca} {
		if err := c.sink(t, options).send(context.Background(), records(t, 1)); err == nil {
			t.Errorf("%q: it was sent", options)
		}
	}
	if c.requests > 0 {
		t.Errorf("%d requests arrived", c.requests)
	}
}
