package sts

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxAnswer = 1 << 20  // bytes of a response's body; STS's are a few KiB
	maxHeader = 64 << 10 // bytes of a response's header
	maxBundle = 8 << 20  // bytes of a CA bundle; the public one has 200 KiB
)

// A transport carries the SDK's requests: HTTP/1.1 through the configured
// proxy or none, TLS 1.2 or later, no redirects, no compression, bounded
// answers. It writes what it saw of a request to the [exchange] in its context.
type transport struct {
	http      *http.Transport
	proxy     *proxyConfig
	dialTCP   func(ctx context.Context, network, addr string) (net.Conn, error)
	userAgent string
	now       func() time.Time
}

// An exchange is what the transport saw of one attempt. It belongs to the
// attempt's goroutine, except sent.
type exchange struct {
	skew      time.Duration // the request was signed for this much later than now
	host      string        // that was asked
	proxy     string        // that was used, without user and password; "" for none
	sent      atomic.Bool   // there was a connection: AWS may have seen the request
	status    int           // 0 until there is a whole answer
	requestID string
	code      string        // of AWS's error; "" when there is none
	message   string        // of AWS's error, as it came
	received  time.Time     // when the answer's header was there, by this machine's clock
	offset    time.Duration // the answer's Date less received
	dated     bool          // offset was measured
	signature string        // of the request, to be kept out of messages
	err       error         // of the transport, before the SDK wrapped it
}

type exchangeKey struct{}

func newTransport(cfg Config) (*transport, error) {
	t := &transport{
		dialTCP:   (&net.Dialer{Timeout: cfg.Timeout / 3}).DialContext,
		userAgent: "gatepass/" + product(cfg.Version),
		now:       cfg.Now,
	}
	proxy, err := newProxyConfig(cfg.Proxy, cfg.NoProxy)
	if err != nil {
		return nil, err
	}
	t.proxy = proxy
	roots, err := loadRoots(cfg.CABundle)
	if err != nil {
		return nil, err
	}
	var http1 http.Protocols
	http1.SetHTTP1(true)
	t.http = &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return t.proxy.of(r.URL) },
		OnProxyConnectResponse: checkConnect,
		DialContext:            t.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    cfg.Timeout / 3,
		DisableCompression:     true,
		MaxIdleConns:           4,
		MaxIdleConnsPerHost:    2,
		MaxConnsPerHost:        32,
		IdleConnTimeout:        10 * time.Second, // long enough for the next hop of a chain
		MaxResponseHeaderBytes: maxHeader,
		Protocols:              &http1,
	}
	return t, nil
}

// Do implements the SDK's HTTPClient. It returns only whole answers, so that
// the SDK's parser never waits and never sees a cut one.
func (t *transport) Do(req *http.Request) (*http.Response, error) {
	x := req.Context().Value(exchangeKey{}).(*exchange)
	x.host = req.URL.Host
	if u, err := t.proxy.of(req.URL); err == nil && u != nil {
		x.proxy = u.Scheme + "://" + u.Host
	}
	_, x.signature, _ = strings.Cut(req.Header.Get("Authorization"), "Signature=")
	// The SDK fills these two from the environment (AWS_EXECUTION_ENV,
	// AWS_LAMBDA_FUNCTION_NAME and _X_AMZN_TRACE_ID). Neither is signed.
	req.Header.Set("User-Agent", t.userAgent)
	req.Header.Del("X-Amzn-Trace-Id")

	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { x.sent.Store(true) },
	})
	// RoundTrip, unlike Client.Do, follows no redirect.
	res, err := t.http.RoundTrip(req.WithContext(ctx))
	if err != nil {
		x.err = err
		return nil, err
	}
	x.received = t.now()
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil && res.Header.Get("Age") == "" {
		x.offset, x.dated = date.Sub(x.received), true
	}
	body, err := readAnswer(res)
	if err != nil {
		x.err = err
		return nil, err
	}
	x.status = res.StatusCode
	x.requestID = res.Header.Get("X-Amzn-Requestid")
	if res.StatusCode >= 300 && res.StatusCode < 400 {
		x.err = errRedirect
		clear(body)
		return nil, errRedirect
	}
	if res.StatusCode >= 400 {
		x.code, x.message = parseError(body)
	}
	res.Body = &clearedBody{Reader: bytes.NewReader(body), b: body}
	return res, nil
}

var (
	errRedirect = errors.New("redirected")
	errTooLarge = fmt.Errorf("answer larger than %d KiB", maxAnswer>>10)
)

func readAnswer(res *http.Response) ([]byte, error) {
	defer res.Body.Close()
	if res.ContentLength > maxAnswer {
		return nil, errTooLarge
	}
	// Large enough from the start, as what it grew out of is not cleared.
	room := max(16<<10, res.ContentLength+bytes.MinRead)
	buf := bytes.NewBuffer(make([]byte, 0, room))
	_, err := buf.ReadFrom(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && buf.Len() > maxAnswer {
		err = errTooLarge
	}
	if err != nil {
		clear(buf.Bytes())
		return nil, err
	}
	return buf.Bytes(), nil
}

// parseError returns the code and message of an error answer, "" when it is
// none. The SDK knows only ErrorResponse>Error, as STS writes it; other
// services and stand-ins wrap it in Errors, or have Error for a root.
func parseError(body []byte) (code, message string) {
	type awsError struct{ Code, Message string }
	var doc struct {
		awsError
		Error  awsError
		Errors struct{ Error awsError }
	}
	if xml.Unmarshal(body, &doc) != nil {
		return "", ""
	}
	for _, e := range []awsError{doc.Error, doc.Errors.Error, doc.awsError} {
		if e.Code != "" {
			return e.Code, e.Message
		}
	}
	return "", ""
}

// A clearedBody overwrites what was read once the SDK has parsed it. What the
// parser made of it are strings, which nobody can overwrite.
type clearedBody struct {
	*bytes.Reader
	b []byte
}

func (c *clearedBody) Close() error {
	clear(c.b)
	return nil
}

// dial connects. "localhost" is this machine and never a question to DNS:
// plain http is allowed to it.
func (t *transport) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || !strings.EqualFold(host, "localhost") {
		return t.dialTCP(ctx, network, addr)
	}
	conn, err := t.dialTCP(ctx, network, net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		if conn, err6 := t.dialTCP(ctx, network, net.JoinHostPort("::1", port)); err6 == nil {
			return conn, nil
		}
	}
	return conn, err
}

// loadRoots reads a PEM file of the authorities to trust. As with
// AWS_CA_BUNDLE, they are trusted instead of the system's; "" means those.
func loadRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	fail := func(why any) (*x509.CertPool, error) {
		return nil, badConfig("ca_bundle", fmt.Errorf("%q: %v", path, why))
	}
	info, err := os.Stat(path)
	if err != nil {
		return fail(errors.Unwrap(err))
	}
	// Looked at first: opening a pipe would wait for its writer.
	if !info.Mode().IsRegular() {
		return fail("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(errors.Unwrap(err))
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, maxBundle+1))
	switch {
	case err != nil:
		return fail(err)
	case len(pem) > maxBundle:
		return fail(fmt.Sprintf("larger than %d MiB", maxBundle>>20))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fail("no certificate in it (PEM is expected)")
	}
	return pool, nil
}

// product returns a version as a product token of the User-Agent header.
func product(version string) string {
	if version == "" {
		return "devel"
	}
	return strings.Map(func(r rune) rune {
		if r < 0x80 && (isWord(byte(r)) || strings.ContainsRune("+.-", r)) {
			return r
		}
		return '-'
	}, version)
}
