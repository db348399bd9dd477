package forward

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gatepass/broker"
)

// An otlpSink sends log records by OTLP/HTTP in its JSON encoding
// (https://opentelemetry.io/docs/specs/otlp/), written here: the protocol's Go
// package would bring protobuf and gRPC into the daemon for these few objects.
type otlpSink struct {
	to   Destination
	host string
	now  func() time.Time
}

func newOTLP(d Destination, host string) (sink, error) {
	s := &otlpSink{to: d, host: host, now: time.Now}
	if _, err := s.headers(); err != nil {
		return nil, err
	}
	if _, err := d.tlsConfig(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *otlpSink) rest(_ int, full bool) time.Duration { return restAfter(full) }

// headers reads the file of headers, anew each time, so that a token can be
// replaced while the daemon runs.
func (s *otlpSink) headers() (http.Header, error) {
	if s.to.headers == "" {
		return http.Header{}, nil
	}
	return readHeaders(s.to.headers)
}

// The objects of opentelemetry/proto/logs/v1 and collector/logs/v1.
type (
	otlpRequest struct {
		ResourceLogs []otlpResourceLogs `json:"resourceLogs"`
	}
	otlpResourceLogs struct {
		Resource  otlpResource    `json:"resource"`
		ScopeLogs []otlpScopeLogs `json:"scopeLogs"`
	}
	otlpResource struct {
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpScopeLogs struct {
		Scope      otlpScope    `json:"scope"`
		LogRecords []otlpRecord `json:"logRecords"`
	}
	otlpScope struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	otlpRecord struct {
		Time         int64           `json:"timeUnixNano,string"`
		ObservedTime int64           `json:"observedTimeUnixNano,string"`
		Severity     int             `json:"severityNumber"`
		SeverityText string          `json:"severityText"`
		EventName    string          `json:"eventName"`
		Body         otlpValue       `json:"body"`
		Attributes   []otlpAttribute `json:"attributes"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		String *string `json:"stringValue,omitempty"`
		Int    *string `json:"intValue,omitempty"` // 64 bits are decimal strings
	}
	otlpResponse struct {
		PartialSuccess struct {
			Rejected json.Number `json:"rejectedLogRecords"` // as string or number
			Message  string      `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
)

func text(key, value string) otlpAttribute {
	return otlpAttribute{key, otlpValue{String: &value}}
}

// The names of https://opentelemetry.io/docs/specs/otel/logs/data-model/.
const (
	otlpInfo = 9
	otlpWarn = 13
)

func (s *otlpSink) body(batch []record) ([]byte, error) {
	records := make([]otlpRecord, 0, len(batch))
	observed := s.now().UnixNano()
	for _, r := range batch {
		seq, raw := strconv.FormatInt(r.entry.Seq, 10), string(r.raw)
		out := otlpRecord{
			Time: r.entry.Time.UnixNano(), ObservedTime: observed, Severity: otlpInfo, SeverityText: "INFO",
			EventName: string(r.entry.Kind), Body: otlpValue{String: &raw},
			Attributes: []otlpAttribute{{"gatepass.seq", otlpValue{Int: &seq}}},
		}
		if r.bad() {
			out.Severity, out.SeverityText = otlpWarn, "WARN"
		}
		for _, f := range r.fields() {
			out.Attributes = append(out.Attributes, text("gatepass."+f.name, f.value))
		}
		records = append(records, out)
	}
	resource := otlpResource{[]otlpAttribute{text("service.name", "gatepass"), text("service.version", broker.Version()), text("host.name", s.host)}}
	return json.Marshal(otlpRequest{[]otlpResourceLogs{{
		Resource:  resource,
		ScopeLogs: []otlpScopeLogs{{Scope: otlpScope{"gatepass/broker/audit", broker.Version()}, LogRecords: records}},
	}}})
}

func (s *otlpSink) send(ctx context.Context, batch []record) error {
	body, err := s.body(batch)
	if err != nil {
		return err
	}
	headers, err := s.headers()
	if err != nil {
		return err
	}
	headers.Set("Content-Type", "application/json")
	headers.Set("User-Agent", "gatepass/"+broker.Version())
	cfg, err := s.to.tlsConfig()
	if err != nil {
		return err
	}
	url := strings.TrimPrefix(s.to.Name(), "otlp+")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = headers
	transport := newTransport(cfg)
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	switch {
	case resp.StatusCode == http.StatusRequestEntityTooLarge && len(batch) > 1:
		return s.sendHalves(ctx, batch)
	case resp.StatusCode == http.StatusOK && isPage(resp.Header):
		return errors.New("it answers with a web page: another server is in its place, or a network that wants a sign-in")
	case resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusNoContent: // which Loki answers
		return partial(answer, len(batch))
	}
	failure := fmt.Errorf("it answers %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	if in := retryAfter(resp.Header.Get("Retry-After"), s.now()); in > 0 {
		return &later{failure, in}
	}
	return failure
}

// isPage reports whether an answer is HTML: the protocol's is JSON or Protobuf,
// and some collectors send none.
func isPage(h http.Header) bool {
	media, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return media == "text/html" || media == "application/xhtml+xml"
}

// sendHalves sends a batch that was too large for one request. What is rejected
// of the first half does not keep the second.
func (s *otlpSink) sendHalves(ctx context.Context, batch []record) error {
	half := len(batch) / 2
	first := s.send(ctx, batch[:half])
	before, isRejected := errors.AsType[*rejected](first)
	if first != nil && !isRejected {
		return first
	}
	second := s.send(ctx, batch[half:])
	after, bothRejected := errors.AsType[*rejected](second)
	switch {
	case isRejected && bothRejected:
		return &rejected{before.entries + after.entries, after.why}
	case second != nil:
		return second
	}
	return first
}

// newTransport is for one request. No environment variable sends the log
// through a proxy, and as it is no client, no answer sends it, and the headers
// with it, elsewhere.
func newTransport(cfg *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig: cfg, ForceAttemptHTTP2: true, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: (&net.Dialer{}).DialContext,
	}
}

// partial tells of entries, of those that were sent, that the collector took and
// rejected. The protocol forbids to send those again.
func partial(answer []byte, sent int) error {
	var r otlpResponse
	if json.Unmarshal(answer, &r) != nil {
		return nil // the status is what counts; some answer with nothing
	}
	n, _ := r.PartialSuccess.Rejected.Int64()
	if n <= 0 {
		return nil
	}
	return &rejected{min(n, int64(sent)), strconv.Quote(r.PartialSuccess.Message[:min(len(r.PartialSuccess.Message), 200)])}
}

// retryAfter is RFC 9110's header, in seconds or as a date; 0 for none.
func retryAfter(value string, now time.Time) time.Duration {
	if s, err := strconv.ParseInt(value, 10, 32); err == nil {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return at.Sub(now)
	}
	return 0
}
