package wire

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"time"

	"gatepass/broker"
)

// ErrNoDaemon is in the chain of a [Client]'s error when nothing listens on
// the socket: starting a daemon may help.
var ErrNoDaemon = errors.New("nothing listens")

// ErrNoAnswer is in the chain of a [Client]'s error when the connection ended
// before the first byte of an answer: the daemon stopped, and may or may not
// have done what was asked.
var ErrNoAnswer = errors.New("the connection ended without an answer")

// defaultTimeout lets a credential request wait for its prompt (45 s) and its
// STS calls (15 s).
const defaultTimeout = 75 * time.Second

// A Client calls the daemon, with a connection for each call. Set Socket; the
// rest may stay zero. It may be used by several goroutines.
//
// Before it sends anything it asks the kernel who listens: a socket that is
// not served by our own user gets nothing, least of all a key.
//
// Errors are *[broker.AskError]s where the user must be asked first, else
// *[broker.Error]s: the daemon's own, or
// [broker.CodeDaemonUnreachable] for a daemon that is not there, does not
// answer in time or is not gatepassd.
type Client struct {
	// Socket is the daemon's, as [SocketPath] finds it.
	Socket string
	// Timeout bounds a call whose context has no deadline; 0 means 75 s,
	// which is longer than the daemon ever makes a caller wait.
	Timeout time.Duration
}

// statusNeeded is 202 Accepted: the body is a [Needed].
const statusNeeded = 202

// A Header is what stands beside a credentials document.
type Header struct {
	Region  string // what region variables should say; "" for none
	Session string // the session's id
}

// Call sends in as JSON (nil sends no body) and decodes the answer into out
// (nil discards it).
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return broker.Errorf(broker.CodeInternal, "encode the request for %s: %w", path, err)
		}
	}
	ans, err := c.call(ctx, method, path, body)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(ans.body, out); err != nil {
		return broker.Errorf(broker.CodeInternal, "gatepassd's answer to %s makes no sense: %w", path, err)
	}
	return nil
}

// Credentials asks for a profile's session and returns the daemon's document
// as it came, for standard output: the JSON that a credential_process prints,
// with a final newline.
func (c *Client) Credentials(ctx context.Context, in CredentialsRequest) (document []byte, h Header, err error) {
	ans, err := c.call(ctx, "POST", PathCredentials, in.appendJSON(nil))
	if err != nil {
		return nil, Header{}, err
	}
	if n := len(ans.body); n == 0 || ans.body[0] != '{' || ans.body[n-1] != '\n' {
		return nil, Header{}, broker.Errorf(broker.CodeInternal, "gatepassd's answer to %s is not a credentials document", PathCredentials)
	}
	return ans.body, Header{Region: ans.region, Session: ans.session}, nil
}

// WhoAmI asks AWS, through the daemon, whose session the profile is, and who
// is behind it.
func (c *Client) WhoAmI(ctx context.Context, in CredentialsRequest) (id broker.IdentityDetail, err error) {
	err = c.Call(ctx, "POST", PathWhoAmI, in, &id)
	return id, err
}

// Status asks the daemon how it is.
func (c *Client) Status(ctx context.Context) (s broker.Status, err error) {
	err = c.Call(ctx, "GET", PathStatus, nil, &s)
	return s, err
}

// Glance is Status for who asks again and again.
func (c *Client) Glance(ctx context.Context) (s broker.Status, err error) {
	err = c.Call(ctx, "GET", PathGlance, nil, &s)
	return s, err
}

// OwnLease asks for the lease that the caller is in; the zero OwnLease is none.
func (c *Client) OwnLease(ctx context.Context) (l OwnLease, err error) {
	ans, err := c.call(ctx, "GET", PathLeaseOwn, nil)
	if err != nil {
		return l, err
	}
	return l, l.UnmarshalText(ans.body)
}

// call makes one request on a connection of its own and returns the answer of
// a success; anything else is an error.
func (c *Client) call(ctx context.Context, method, path string, body []byte) (answer, error) {
	if len(body) > MaxBody {
		return answer{}, broker.Errorf(broker.CodeUsage, "the request has %d bytes, more than the %d that gatepassd takes", len(body), MaxBody)
	}
	ans, err := c.exchange(ctx, appendRequest(nil, method, path, body))
	clear(body) // it may hold a key
	switch {
	case err == nil:
	case errors.Is(ctx.Err(), context.Canceled):
		return answer{}, broker.Errorf(broker.CodeCancelled, "call gatepassd: %w", ctx.Err())
	case errors.Is(err, os.ErrDeadlineExceeded), ctx.Err() != nil:
		return answer{}, broker.Errorf(broker.CodeDaemonUnreachable, "gatepassd at %s did not answer in time: %w", c.Socket, err).
			WithHint("if it hangs or was stopped, end the process gatepassd and ask again: that starts another")
	default:
		var e *broker.Error
		if errors.As(err, &e) {
			return answer{}, err
		}
		return answer{}, broker.Errorf(broker.CodeDaemonUnreachable, "call gatepassd at %s: %w", c.Socket, err)
	}
	// Whoever answers before the version is known to fit is not understood,
	// not even in its errors. To stop a daemon that does not fit is the way out.
	if err := CheckVersion("gatepassd", ans.version); err != nil && path != PathStop {
		return answer{}, err
	}
	if ans.status == statusNeeded {
		var in Needed
		if err := json.Unmarshal(ans.body, &in); err != nil {
			return answer{}, broker.Errorf(broker.CodeInternal, "gatepassd's answer to %s makes no sense: %w", path, err)
		}
		return answer{}, &broker.AskError{Question: in.Question}
	}
	if ans.status/100 == 2 {
		return ans, nil
	}
	return answer{}, ans.err()
}

// deadline is when a call that begins now is over.
func (c *Client) deadline(ctx context.Context) time.Time {
	if d, ok := ctx.Deadline(); ok {
		return d
	}
	if c.Timeout != 0 {
		return time.Now().Add(c.Timeout)
	}
	return time.Now().Add(defaultTimeout)
}

// exchange sends request, clears it, and reads the answer.
func (c *Client) exchange(ctx context.Context, request []byte) (answer, error) {
	defer clear(request)
	conn, err := dial(ctx, c.deadline(ctx), c.Socket)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	// A daemon that refuses early, the body unread, has answered before it
	// closed: the answer says more than the broken pipe.
	_, sendErr := conn.Write(request)
	ans, err := readAnswer(conn)
	if err != nil && sendErr != nil {
		err = sendErr
	}
	return ans, err
}

// appendRequest appends a request whose connection ends with its answer.
func appendRequest(b []byte, method, path string, body []byte) []byte {
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, path...)
	b = append(b, " HTTP/1.1\r\nHost: "+Host+"\r\n"+VersionHeader+": "...)
	b = strconv.AppendInt(b, Version, 10)
	b = append(b, "\r\nConnection: close\r\n"...)
	if body != nil {
		b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	return append(b, body...)
}

// appendJSON appends r as JSON, by hand: encoding/json would spend a quarter
// of a millisecond on its first value, a good part of what the whole client
// takes. What is not UTF-8 stays as it is, for the daemon to refuse.
func (r CredentialsRequest) appendJSON(b []byte) []byte {
	b = append(b, `{"profile":`...)
	b = appendString(b, r.Profile)
	for _, f := range [...]struct{ name, value string }{
		{`,"via":`, r.Via},
		{`,"region":`, r.Region},
		{`,"reason":`, r.Reason},
		{`,"config_file":`, r.ConfigFile},
		{`,"credentials_file":`, r.CredentialsFile},
	} {
		if f.value != "" {
			b = append(b, f.name...)
			b = appendString(b, f.value)
		}
	}
	if r.DurationSeconds != 0 {
		b = append(b, `,"duration_seconds":`...)
		b = strconv.AppendInt(b, int64(r.DurationSeconds), 10)
	}
	if r.MinLeftSeconds != 0 {
		b = append(b, `,"min_left_seconds":`...)
		b = strconv.AppendInt(b, int64(r.MinLeftSeconds), 10)
	}
	if r.MFACode != "" {
		b = append(b, `,"mfa_code":`...)
		b = appendString(b, r.MFACode)
	}
	if r.Ask != nil {
		if ask, err := json.Marshal(r.Ask); err == nil { // strings and a bool
			b = append(append(b, `,"ask":`...), ask...)
		}
	}
	return append(b, '}')
}

// appendString appends s as a JSON string (RFC 8259 §7).
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
