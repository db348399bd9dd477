//go:build unix

package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"gatepass/broker"
)

// answering listens on a socket and answers each connection by f, once the
// request has come.
func answering(t testing.TB, f func(request *http.Request, c net.Conn)) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "wire") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close(); os.RemoveAll(dir) })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					f(r, c)
				}
			}()
		}
	}()
	return &Client{Socket: socket, Timeout: 20 * time.Second}
}

func saying(answer string) func(*http.Request, net.Conn) {
	return func(_ *http.Request, c net.Conn) { io.WriteString(c, answer) }
}

const ok = "HTTP/1.1 200 OK\r\nGatepass-Protocol: 1\r\n"

func TestClientAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		code         broker.Code
		says         string
	}{
		{"success", ok + "Content-Length: 2\r\n\r\n{}", "", ""},
		{"headers in another case", "HTTP/1.1 200 Fine\r\ngatepass-protocol:1\r\nCONTENT-LENGTH:   2  \r\n\r\n{}", "", ""},
		{"next version", "HTTP/1.1 200 OK\r\nGatepass-Protocol: 2\r\nContent-Length: 2\r\n\r\n{}", "", ""},
		{"an error", "HTTP/1.1 403 Forbidden\r\nGatepass-Protocol: 1\r\nContent-Length: 53\r\n\r\n" + `{"code":"denied","message":"no","hint":"ask for it"}` + "\n", broker.CodeDenied, "no"},
		{"an error of a later version", "HTTP/1.1 500 X\r\nGatepass-Protocol: 2\r\n\r\n" + `{"code":"too_late","message":"it is late"}`, broker.CodeInternal, "it is late (too_late)"},
		{"an error in HTML", "HTTP/1.1 502 Bad Gateway\r\nGatepass-Protocol: 1\r\n\r\n<html>", broker.CodeInternal, "status 502"},
		{"an empty error", "HTTP/1.1 500 X\r\nGatepass-Protocol: 1\r\nContent-Length: 0\r\n\r\n", broker.CodeInternal, "status 500"},
		{"a version far ahead", "HTTP/1.1 200 OK\r\nGatepass-Protocol: 3\r\nContent-Length: 2\r\n\r\n{}", broker.CodeDaemonUnreachable, "version 3"},
		{"an error of a version far ahead", "HTTP/1.1 403 No\r\nGatepass-Protocol: 3\r\n\r\n" + `{"code":"denied","message":"no"}`, broker.CodeDaemonUnreachable, "version 3"},
		{"no version", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", broker.CodeDaemonUnreachable, "no usable protocol version"},
		{"two versions", ok + "Gatepass-Protocol: 1\r\nContent-Length: 2\r\n\r\n{}", broker.CodeDaemonUnreachable, "twice"},
		{"a malformed version", "HTTP/1.1 200 OK\r\nGatepass-Protocol: +1\r\nContent-Length: 2\r\n\r\n{}", broker.CodeDaemonUnreachable, "no usable protocol version"},
		{"nothing", "", broker.CodeDaemonUnreachable, "without an answer"},
		{"half a header", ok, broker.CodeDaemonUnreachable, "unexpected EOF"},
		{"half a body", ok + "Content-Length: 20\r\n\r\n{}", broker.CodeDaemonUnreachable, "unexpected EOF"},
		{"more than the body", ok + "Content-Length: 2\r\n\r\n{}HTTP/1.1 200", broker.CodeDaemonUnreachable, "after its end"},
		{"no length", ok + "\r\n{}", broker.CodeDaemonUnreachable, "no length"},
		{"two lengths", ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", broker.CodeDaemonUnreachable, "length"},
		{"a malformed length", ok + "Content-Length: +2\r\n\r\n{}", broker.CodeDaemonUnreachable, "length"},
		{"an endless body", ok + "Content-Length: 2000000000\r\n\r\n{}", broker.CodeDaemonUnreachable, "more than"},
		{"chunks", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", broker.CodeDaemonUnreachable, "encoded"},
		{"compressed", ok + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", broker.CodeDaemonUnreachable, "encoded"},
		{"an endless header", ok + "X: " + strings.Repeat("x", 1<<20), broker.CodeDaemonUnreachable, "too long"},
		{"a long header", ok + "X: " + strings.Repeat("x", maxAnswerHead) + "\r\n\r\n", broker.CodeDaemonUnreachable, "too long"},
		{"a folded header", ok + "X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}", broker.CodeDaemonUnreachable, "header"},
		{"a header without a colon", ok + "hello\r\nContent-Length: 2\r\n\r\n{}", broker.CodeDaemonUnreachable, "header"},
		{"a bare newline", ok + "X: a\nContent-Length: 2\r\n\r\n{}", broker.CodeDaemonUnreachable, "header"},
		{"an interim answer", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 2\r\n\r\n{}", broker.CodeDaemonUnreachable, "status"},
		{"a redirect", "HTTP/1.1 302 Found\r\nGatepass-Protocol: 1\r\nLocation: http://evil.example\r\nContent-Length: 0\r\n\r\n", broker.CodeInternal, "302"},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nGatepass-Protocol: 1\r\nContent-Length: 2\r\n\r\n{}", broker.CodeDaemonUnreachable, "status line"},
		{"a bare newline in the status line", "HTTP/1.1 200 OK\nX: y\r\nGatepass-Protocol: 1\r\nContent-Length: 2\r\n\r\n{}", broker.CodeDaemonUnreachable, "status line"},
		{"another protocol", "SSH-2.0-OpenSSH_9.6\r\n\r\n", broker.CodeDaemonUnreachable, "status line"},
		{"no JSON", ok + "Content-Length: 2\r\n\r\n{]", broker.CodeInternal, "makes no sense"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out struct{}
			err := answering(t, saying(tt.answer)).Call(t.Context(), "GET", PathStatus, nil, &out)
			if tt.code == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var e *broker.Error
			if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Message, tt.says) {
				t.Errorf("%#v, want %s with %q", err, tt.code, tt.says)
			}
			if errors.Is(err, ErrNoAnswer) != (tt.answer == "") || errors.Is(err, ErrNoDaemon) {
				t.Errorf("%v: no answer %v, no daemon %v", err, errors.Is(err, ErrNoAnswer), errors.Is(err, ErrNoDaemon))
			}
		})
	}
}

func TestClientSends(t *testing.T) {
	requests := make(chan *http.Request, 1)
	bodies := make(chan string, 1)
	c := answering(t, func(r *http.Request, conn net.Conn) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		requests <- r
		bodies <- string(b)
		document := "{\"Version\":1}\n"
		fmt.Fprintf(conn, "%sGatepass-Region: eu-central-1\r\nGatepass-Session: s-1\r\nContent-Length: %d\r\n\r\n%s", ok, len(document), document)
	})
	document, h, err := c.Credentials(t.Context(), CredentialsRequest{Profile: "ops", Via: "export"})
	if err != nil || string(document) != "{\"Version\":1}\n" || h != (Header{Region: "eu-central-1", Session: "s-1"}) {
		t.Errorf("%q, %+v, %v", document, h, err)
	}
	r, body := <-requests, <-bodies
	if r.Method != "POST" || r.RequestURI != PathCredentials || r.Host != Host || r.Header.Get(VersionHeader) != "1" ||
		r.Header.Get("Content-Type") != "application/json" || !r.Close || body != `{"profile":"ops","via":"export"}` {
		t.Errorf("%+v %s", r, body)
	}
	if err := c.Call(t.Context(), "GET", PathKeys, nil, nil); err != nil {
		t.Error(err)
	}
	if r, body := <-requests, <-bodies; r.Method != "GET" || r.ContentLength != 0 || body != "" || r.Header.Get("Content-Type") != "" {
		t.Errorf("%+v %s", r, body)
	}
	if _, _, err := c.Credentials(t.Context(), CredentialsRequest{Profile: strings.Repeat("x", MaxBody)}); broker.CodeOf(err) != broker.CodeUsage {
		t.Errorf("a request that is too large: %v", err)
	}
	for _, bad := range []string{"", "{}", "hello\n", "{\"Version\":1"} {
		c := answering(t, saying(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", ok, len(bad), bad)))
		if document, _, err := c.Credentials(t.Context(), CredentialsRequest{Profile: "ops"}); broker.CodeOf(err) != broker.CodeInternal || document != nil {
			t.Errorf("%q is taken for a document: %s, %v", bad, document, err)
		}
	}
}

func TestClientReadsLongAnswers(t *testing.T) {
	keys := KeysResponse{}
	for i := range 20000 {
		keys.Keys = append(keys.Keys, broker.KeyState{KeyInfo: broker.KeyInfo{Name: fmt.Sprint("key", i)}})
	}
	b, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	c := answering(t, func(_ *http.Request, conn net.Conn) {
		for _, c := range []byte(fmt.Sprintf("%sContent-Length: %d\r\n\r\n", ok, len(b))) { // a byte at a time
			conn.Write([]byte{c})
		}
		conn.Write(b)
	})
	var got KeysResponse
	if err := c.Call(t.Context(), "GET", PathKeys, nil, &got); err != nil || !reflect.DeepEqual(got, keys) {
		t.Errorf("%d keys, %v", len(got.Keys), err)
	}
}

// A daemon that refuses before it has read all is understood all the same.
func TestClientRefusedEarly(t *testing.T) {
	c := answering(t, saying("HTTP/1.1 413 X\r\nGatepass-Protocol: 1\r\n\r\n"+`{"code":"usage","message":"too large"}`))
	in := map[string]string{"profile": strings.Repeat("x", MaxBody-100)}
	if err := c.Call(t.Context(), "POST", PathCredentials, in, nil); broker.CodeOf(err) != broker.CodeUsage || err.Error() != "too large" {
		t.Errorf("%v", err)
	}
}

func TestClientNoDaemon(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{filepath.Join(dir, "nothing"), filepath.Join(dir, "no", "dir"), filepath.Join(file, "s"), stale, file} {
		c := &Client{Socket: socket}
		_, _, err := c.Credentials(t.Context(), CredentialsRequest{Profile: "ops"})
		if !errors.Is(err, ErrNoDaemon) || broker.CodeOf(err) != broker.CodeDaemonUnreachable || !strings.Contains(err.Error(), socket) {
			t.Errorf("%s: %v", socket, err)
		}
		if err := c.Ping(t.Context()); !errors.Is(err, ErrNoDaemon) {
			t.Errorf("Ping %s: %v", socket, err)
		}
	}
	for _, socket := range []string{filepath.Join(dir, strings.Repeat("x", 200)), ""} {
		if _, err := (&Client{Socket: socket}).Status(t.Context()); broker.CodeOf(err) != broker.CodeDaemonUnreachable || errors.Is(err, ErrNoDaemon) {
			t.Errorf("%q: %v", socket, err)
		}
	}
}

func TestClientTimesOut(t *testing.T) {
	release := make(chan struct{})
	c := answering(t, func(*http.Request, net.Conn) { <-release })
	defer close(release)
	c.Timeout = 30 * time.Millisecond
	if _, err := c.Status(context.Background()); broker.CodeOf(err) != broker.CodeDaemonUnreachable || !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "in time") {
		t.Errorf("Timeout: %v", err)
	}
	c.Timeout = 0
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); broker.CodeOf(err) != broker.CodeDaemonUnreachable || !strings.Contains(err.Error(), "in time") {
		t.Errorf("deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := c.Status(ctx); broker.CodeOf(err) != broker.CodeCancelled || !errors.Is(err, context.Canceled) {
		t.Errorf("cancel: %v", err)
	}
	if _, err := c.Status(ctx); broker.CodeOf(err) != broker.CodeCancelled {
		t.Errorf("cancelled before: %v", err)
	}
	c.Timeout = -1
	if _, err := c.Status(context.Background()); broker.CodeOf(err) != broker.CodeDaemonUnreachable {
		t.Errorf("no time at all: %v", err)
	}
}

// A queue that is full is waited for, until the deadline or the end of ctx.
func TestClientWaitsForAPlace(t *testing.T) {
	dir := t.TempDir()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: socket}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	for range 2 { // fill the queue
		filler, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(filler)
		syscall.SetNonblock(filler, true)
		syscall.Connect(filler, &syscall.SockaddrUnix{Name: socket})
	}
	probe, _ := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	defer syscall.Close(probe)
	syscall.SetNonblock(probe, true)
	if err := syscall.Connect(probe, &syscall.SockaddrUnix{Name: socket}); err != syscall.EAGAIN {
		t.Skipf("this system does not let connections wait: %v", err)
	}
	c := &Client{Socket: socket, Timeout: 50 * time.Millisecond}
	if _, err := c.Status(context.Background()); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("until the deadline: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	c.Timeout = time.Minute
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("until ctx ended: %v", err)
	}
}

// Whoever could have put a socket where the daemon's should be gets nothing.
func TestClientChecksWhoListens(t *testing.T) {
	got := make(chan string, 1)
	c := answering(t, func(r *http.Request, _ net.Conn) { got <- r.RequestURI })
	if err := os.Chmod(filepath.Dir(c.Socket), 0o777); err != nil {
		t.Fatal(err)
	}
	in := AddKeyRequest{SecretAccessKey: "secret"}
	if err := c.Call(t.Context(), "POST", PathKeys, in, nil); broker.CodeOf(err) != broker.CodeConfig || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("a directory for everyone: %v", err)
	}
	t.Run("another user", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("needs root, to be another user")
		}
		dir, err := os.MkdirTemp("", "wire")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(exe)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "squatter"), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(filepath.Join(dir, "squatter"))
		cmd.Env = []string{"WIRE_TEST_SQUAT=" + filepath.Join(dir, "s")}
		cmd.Dir = "/"
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		r := bufio.NewReader(out)
		if line, err := r.ReadString('\n'); line != "listening\n" {
			t.Fatal(line, err)
		}
		// Only the listener is another's, so that no other check hides this one.
		if err := os.Chown(dir, 0, 0); err != nil {
			t.Fatal(err)
		}
		c := &Client{Socket: filepath.Join(dir, "s")}
		err = c.Call(t.Context(), "POST", PathKeys, in, nil)
		if broker.CodeOf(err) != broker.CodeDaemonUnreachable || !strings.Contains(err.Error(), "served by user 65534") || errors.Is(err, ErrNoDaemon) {
			t.Errorf("%v", err)
		}
		if line, err := r.ReadString('\n'); line != "got 0 bytes\n" {
			t.Error(line, err)
		}
	})
	select {
	case uri := <-got:
		t.Errorf("%s was sent", uri)
	default:
	}
}

func TestMain(m *testing.M) {
	if socket := os.Getenv("WIRE_TEST_SQUAT"); socket != "" {
		ln, err := net.Listen("unix", socket)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("listening")
		c, err := ln.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		b, _ := io.ReadAll(c)
		fmt.Println("got", len(b), "bytes")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The hand-written encoder says what encoding/json would, of every field.
func TestAppendJSON(t *testing.T) {
	var all CredentialsRequest
	v := reflect.ValueOf(&all).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(fmt.Sprintf("%d \"\\\n\x00é</script>\u2028", i))
		case reflect.Int:
			f.SetInt(int64(-i))
		case reflect.Pointer:
			f.Set(reflect.ValueOf(&Ask{Terminal: true, Mode: "tty", Env: []string{"DISPLAY=\"\n"}}))
		default:
			t.Fatalf("appendJSON knows no %s", f.Type())
		}
	}
	for _, r := range []CredentialsRequest{{}, {Profile: "ops"}, all} {
		var got CredentialsRequest
		b := r.appendJSON(nil)
		if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v became %s, %+v, %v", r, b, got, err)
		}
		want, err := json.Marshal(r)
		var a, c any
		if err := errors.Join(err, json.Unmarshal(want, &a), json.Unmarshal(b, &c)); err != nil || !reflect.DeepEqual(a, c) {
			t.Errorf("%s, and encoding/json has %s (%v)", b, want, err)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	for v, fits := range map[string]bool{"1": true, "0": true, "2": true, "3": false, "": false, "-1": false, "1.0": false, "65536": false, "99999999999999999999": false} {
		if err := CheckVersion("x", v); (err == nil) != fits || err != nil && broker.CodeOf(err) != broker.CodeDaemonUnreachable {
			t.Errorf("%q: %v", v, err)
		}
	}
}

// A daemon that does not fit is told to stop all the same: that is the way out.
func TestStopAcrossVersions(t *testing.T) {
	c := answering(t, saying("HTTP/1.1 200 OK\r\nGatepass-Protocol: 9\r\nContent-Length: 12\r\n\r\n{\"pid\":4242}"))
	var stopped StopResponse
	if err := c.Call(t.Context(), "POST", PathStop, struct{}{}, &stopped); err != nil || stopped.PID != 4242 {
		t.Errorf("%+v, %v", stopped, err)
	}
}

// What this parser takes, net/http's takes for the same.
func FuzzReadAnswer(f *testing.F) {
	for _, seed := range []string{
		ok + "Content-Length: 2\r\n\r\n{}", ok + "Content-Length: 3\r\nGatepass-Region: x\r\nGatepass-Session:\ty \r\n\r\n{}\n",
		"HTTP/1.1 403 Forbidden\r\nGatepass-Protocol: 1\r\n\r\n{\"code\":\"denied\"}", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 500 \r\n:\r\n\r\n", "HTTP/1.1 204 No\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 \r\nContent-Length:0\r\nX:\x7f\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := readAnswer(bytes.NewReader(b))
		split, splitErr := readAnswer(iotest.OneByteReader(bytes.NewReader(b)))
		if (err == nil) != (splitErr == nil) || err == nil && !reflect.DeepEqual(a, split) {
			// What follows the body is seen only when it comes with it.
			if splitErr != nil || !strings.Contains(err.Error(), "after its end") {
				t.Fatalf("in one read %+v, %v; by bytes %+v, %v", a, err, split, splitErr)
			}
		}
		if err != nil {
			return
		}
		r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
		if err != nil {
			t.Fatalf("%q is taken (%+v), and net/http refuses it: %v", b, a, err)
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, maxAnswerHead))
		if r.StatusCode == 204 || r.StatusCode == 304 { // which have no body, whatever is said
			return
		}
		if err != nil || r.StatusCode != a.status || r.Header.Get(VersionHeader) != a.version || !bytes.Equal(body, a.body) && len(a.body) < maxAnswerHead {
			t.Fatalf("%q is %+v, and to net/http %+v %q, %v", b, a, r, body, err)
		}
		a.err()
	})
}

func FuzzAppendJSON(f *testing.F) {
	f.Add("ops", "a\x7f\u2028\"")
	f.Fuzz(func(t *testing.T, profile, reason string) {
		r := CredentialsRequest{Profile: profile, Reason: reason}
		var got CredentialsRequest
		if err := json.Unmarshal(r.appendJSON(nil), &got); err != nil {
			t.Fatal(err)
		}
		if got.Profile != strings.ToValidUTF8(profile, "\ufffd") && got.Profile != string([]rune(profile)) {
			t.Errorf("%q became %q", profile, got.Profile)
		}
	})
}

// An OwnLease comes as it was sent, and half a one is an error.
func TestOwnLease(t *testing.T) {
	for _, l := range []OwnLease{
		{},
		{Profile: "ops", State: "live", Expires: time.Unix(1764112345, 0)},
		{Profile: "a b", State: "needs-mfa", Expires: time.Unix(-1, 0)},
		{Profile: "ops", State: "live"},
	} {
		var text []byte
		if l != (OwnLease{}) {
			text, _ = l.AppendText(nil)
		}
		c := answering(t, func(r *http.Request, conn net.Conn) {
			if r.Method != "GET" || r.URL.Path != PathLeaseOwn {
				t.Errorf("asked %s %s", r.Method, r.URL)
			}
			fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", ok, len(text), text)
		})
		if got, err := c.OwnLease(t.Context()); err != nil || got != l {
			t.Errorf("sent %+v, got %+v, %v", l, got, err)
		}
	}
	whole := "1764112345 live ops\n"
	for n := 1; n < len(whole); n++ {
		var l OwnLease
		if err := l.UnmarshalText([]byte(whole[:n])); err == nil || l != (OwnLease{}) {
			t.Errorf("%q is taken for %+v", whole[:n], l)
		}
	}
	var l OwnLease
	if err := l.UnmarshalText([]byte("now live ops\n")); err == nil {
		t.Errorf("got %+v", l)
	}
	refused := answering(t, saying("HTTP/1.1 403 Forbidden\r\nGatepass-Protocol: 1\r\n\r\n"+`{"code":"denied","message":"no"}`))
	if _, err := refused.OwnLease(t.Context()); broker.CodeOf(err) != broker.CodeDenied {
		t.Errorf("%v", err)
	}
}
