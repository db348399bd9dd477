package endpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"gatepass/broker"
)

// ServeHTTP answers a request or refuses it, in the order that the package's
// documentation gives.
func (l *lease) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if v := recover(); v != nil {
			l.server.cfg.Logger.Error("panic while answering", "lease", l.Lease, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			l.fail(w, broker.Errorf(broker.CodeInternal, "gatepassd failed on this request; its log says where"))
		}
	}()
	c := r.Context().Value(connKey{}).(*conn)
	switch {
	case c.refused != nil:
		l.refuse(w, r, http.StatusForbidden, c.refused)
	case l.Kind == Container:
		l.container(w, r, c)
	default:
		l.imds(w, r, c)
	}
}

// checkHead refuses what no SDK sends.
func (l *lease) checkHead(r *http.Request) *broker.Error {
	for name := range r.Header {
		// What browsers add (also to requests that some page on the web made
		// them send) and what proxies do.
		switch {
		case name == "Origin", name == "Referer", name == "Cookie", name == "Forwarded", name == "Via", name == "X-Real-Ip",
			strings.HasPrefix(name, "Sec-"), strings.HasPrefix(name, "X-Forwarded"), strings.HasPrefix(name, "Proxy-"):
			return errBrowser
		}
	}
	// A page on the web can make a browser resolve its name to this machine.
	// net/http moves Host out of the header.
	if r.Host != l.hosts[0] && r.Host != l.hosts[1] {
		return errHost
	}
	return nil
}

// Refusals say nothing of what was sent: a client that is mistaken about where
// its token belongs must not find it in a log.
var (
	errRemote  = broker.Errorf(broker.CodeDenied, "only this machine's own connections are served")
	errBrowser = broker.Errorf(broker.CodeDenied, "requests with headers that browsers and proxies add are not served")
	errHost    = broker.Errorf(broker.CodeDenied, "requests for this host are not served, only for the address and port that the lease's variables name")
	errPath    = broker.Errorf(broker.CodeUsage, "nothing is served at this path")
	errBody    = broker.Errorf(broker.CodeUsage, "a request here has no body")
)

// A route is what is served at a path, for one method; the zero value means
// that nothing is.
type route struct {
	method string
	answer func(l *lease, w http.ResponseWriter, r *http.Request, c *conn)
}

// route answers a request that has the right token by a route of its path.
func (l *lease) route(w http.ResponseWriter, r *http.Request, c *conn, to route) {
	if why := l.ended.Load(); why != nil {
		l.refuse(w, r, http.StatusForbidden, why)
		return
	}
	if to.method == "" {
		l.refuse(w, r, http.StatusNotFound, errPath)
		return
	}
	if r.Method != to.method {
		w.Header().Set("Allow", to.method)
		l.refuse(w, r, http.StatusMethodNotAllowed, broker.Errorf(broker.CodeUsage, "this path takes %s alone", to.method))
		return
	}
	if r.ContentLength != 0 { // -1 for chunks
		l.refuse(w, r, http.StatusBadRequest, errBody)
		return
	}
	to.answer(l, w, r, c)
}

// credentials asks the gate and answers with what it gives.
func (l *lease) credentials(w http.ResponseWriter, r *http.Request, c *conn, document func(broker.Credentials) []byte) {
	grant, err := l.server.cfg.Credentials(r.Context(), l.Lease, l.caller(r.Context(), c))
	if why := l.ended.Load(); why != nil {
		l.refuse(w, r, http.StatusForbidden, why)
		return
	}
	if err == nil && (grant.Credentials.SessionToken.IsZero() || grant.Credentials.Expires.IsZero()) {
		err = broker.Errorf(broker.CodeInternal, "lease %s: what the gate gave is no session", l.Lease)
	}
	if err != nil {
		l.fail(w, err)
		return
	}
	b := document(grant.Credentials)
	write(w, http.StatusOK, jsonType, b)
	clear(b)
}

// refuse answers a request that does not get as far as the gate, and ends its
// connection.
func (l *lease) refuse(w http.ResponseWriter, r *http.Request, status int, e *broker.Error) {
	c := r.Context().Value(connKey{}).(*conn)
	if d := l.recordedBy(c, e); d != nil {
		if n, ok := d.pass(l.server.cfg.Clock.Now(), recordEvery); ok {
			l.server.cfg.Refused(r.Context(), l.Lease, l.refused(r.Context(), c), andMore(e, n))
		}
	}
	if n, ok := l.refusals.pass(l.server.cfg.Clock.Now(), logEvery); ok {
		l.server.cfg.Logger.Warn("refused a request", "lease", l.Lease, "status", status, "error", e.Message, "more", n)
	}
	w.Header().Set("Connection", "close")
	writeError(w, status, e)
}

// recordedBy returns the damper that a refusal passes on its way to the audit
// log, nil for a mistake, which does not go there.
func (l *lease) recordedBy(c *conn, e *broker.Error) *damper {
	switch {
	case e.Code != broker.CodeDenied:
		return nil
	case c.refused != nil:
		return &l.foreign
	case e == l.ended.Load():
		return &l.late
	}
	return &l.unauthorized
}

// refused describes who was refused on c. Of another user's process no more is
// known than whose it is.
func (l *lease) refused(ctx context.Context, c *conn) broker.Caller {
	if c.refused != nil {
		return broker.Caller{UID: c.uid, Via: l.Kind}
	}
	return l.caller(ctx, c)
}

// andMore adds to a refusal how many like it have not been recorded.
func andMore(e *broker.Error, n int) error {
	if n == 0 {
		return e
	}
	return fmt.Errorf("%w; %d more like it since the entry before", e, n)
}

// fail answers a request that failed at the gate.
func (l *lease) fail(w http.ResponseWriter, err error) {
	e := broker.AsError(err)
	if e.Code == broker.CodeInternal {
		l.server.cfg.Logger.Error("a request failed", "lease", l.Lease, "error", err)
	}
	writeError(w, statusOf(e.Code), e)
}

// statusOf tells SDKs whether asking again may help: they repeat what gets 429
// or 5xx (botocore and JavaScript's everything), and give up on 403.
func statusOf(code broker.Code) int {
	switch code {
	case broker.CodeThrottled:
		return http.StatusTooManyRequests
	case broker.CodeDaemonUnreachable, broker.CodeAWSUnreachable, broker.CodeKeychainMissing, broker.CodeKeychainTimeout, broker.CodeLogUnwritable:
		return http.StatusServiceUnavailable
	case broker.CodeInternal:
		return http.StatusInternalServerError
	}
	return http.StatusForbidden
}

// writeError writes what the SDKs for Go and JavaScript read, with the hint
// where a user will see it.
func writeError(w http.ResponseWriter, status int, e *broker.Error) {
	message := e.Message
	if e.Hint != "" {
		message += " (" + e.Hint + ")"
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // botocore shows the body as it is
	if err := enc.Encode(struct {
		Code    broker.Code
		Message string
	}{e.Code, message}); err != nil { // two strings
		panic(err)
	}
	write(w, status, jsonType, b.Bytes())
}

// Header values that never change, so that they cost nothing. The SDK for Go
// takes an error for JSON under this very type alone.
var (
	jsonType = []string{"application/json"}
	textType = []string{"text/plain"}
	noStore  = []string{"no-store"}
	noSniff  = []string{"nosniff"}
)

func write(w http.ResponseWriter, status int, contentType []string, body []byte) {
	h := w.Header()
	h["Content-Type"] = contentType
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	w.Write(body)
}

// How often a damper lets something through.
const (
	logEvery    = 10 * time.Second
	recordEvery = time.Minute
)

// A damper lets through what should be written down, one in a while, with how
// many there were in between.
type damper struct {
	mu   sync.Mutex
	last time.Time
	held int
}

func (d *damper) pass(now time.Time, every time.Duration) (held int, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if since := now.Sub(d.last); !d.last.IsZero() && since >= 0 && since < every {
		d.held++
		return 0, false
	}
	held, d.held, d.last = d.held, 0, now
	return held, true
}
