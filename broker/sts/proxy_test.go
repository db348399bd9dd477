package sts_test

import (
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/sts"
)

// connectProxy answers CONNECT by joining the client to target, whoever it
// asked for, and keeps what it was asked.
func connectProxy(target string, asked *[]string, user string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Method+" "+r.Host)
		if user != "" && r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(user)) {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		up, err := net.Dial("tcp", target)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		down, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			up.Close()
			return
		}
		down.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
		go func() {
			io.Copy(up, down)
			up.Close()
		}()
		io.Copy(down, up)
		down.Close()
	}
}

func TestProxy(t *testing.T) {
	ca := newCA(t)
	aws := newTLSFake(t, ca, identify, "sts.test", "sts.us-east-1.amazonaws.com")
	target := aws.Listener.Addr().String()
	call := func(t *testing.T, cfg sts.Config) error {
		cfg.CABundle = ca.bundle
		_, err := newClient(t, cfg).CallerIdentity(t.Context(), key(), broker.Target{})
		return err
	}
	t.Run("connects", func(t *testing.T) {
		var asked []string
		proxy := newFake(t, connectProxy(target, &asked, ""))
		if err := call(t, sts.Config{Proxy: proxy.URL}); err != nil {
			t.Fatal(err)
		}
		if len(asked) != 1 || asked[0] != "CONNECT sts.us-east-1.amazonaws.com:443" {
			t.Errorf("asked %q", asked)
		}
	})
	t.Run("user and password", func(t *testing.T) {
		var asked []string
		proxy := newFake(t, connectProxy(target, &asked, "alice:hunter2"))
		u, _ := url.Parse(proxy.URL)
		u.User = url.UserPassword("alice", "hunter2")
		if err := call(t, sts.Config{Proxy: u.String()}); err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("alice", "hunter3")
		err := call(t, sts.Config{Proxy: u.String()})
		e := wantError(t, err, broker.CodeAWSUnreachable, "the proxy refused to connect to sts.us-east-1.amazonaws.com: 407", "(proxy "+proxy.URL+")", "user and password")
		if strings.Contains(e.Message+e.Hint, "hunter") || strings.Contains(e.Message, "alice") {
			t.Errorf("user or password in %s", e.Message)
		}
	})
	t.Run("over tls", func(t *testing.T) {
		var asked []string
		proxy := newTLSFake(t, ca, connectProxy(target, &asked, ""), "proxy.test")
		c := newClient(t, sts.Config{Proxy: "https://proxy.test:3129", CABundle: ca.bundle})
		c.SetDial(dialTo(proxy.Listener.Addr().String(), nil))
		if _, err := c.CallerIdentity(t.Context(), key(), broker.Target{}); err != nil || len(asked) != 1 {
			t.Errorf("asked %q: %v", asked, err)
		}
	})
	t.Run("refuses", func(t *testing.T) {
		for status, attempts := range map[int]int64{403: 1, 502: 3} {
			proxy := newFake(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(status)
				io.WriteString(w, "<html>\x1b[31mblocked")
			})
			err := call(t, sts.Config{Proxy: proxy.URL})
			wantError(t, err, broker.CodeAWSUnreachable, "the proxy refused to connect to sts.us-east-1.amazonaws.com: ", http.StatusText(status), "(proxy "+proxy.URL+")")
			if n := proxy.asked.Load(); n != attempts {
				t.Errorf("%d attempts after %d", n, status)
			}
		}
	})
	t.Run("is down", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		err = call(t, sts.Config{Proxy: "http://alice:hunter2@" + l.Addr().String()})
		e := wantError(t, err, broker.CodeAWSUnreachable, "cannot connect to the proxy", "refused", "(proxy http://"+l.Addr().String()+")")
		if strings.Contains(e.Message, "hunter2") {
			t.Errorf("password in %s", e.Message)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		proxy := newFake(t, hang)
		err := call(t, sts.Config{Proxy: proxy.URL, Timeout: 50 * time.Millisecond})
		wantError(t, err, broker.CodeAWSUnreachable, "no answer from", "(proxy "+proxy.URL+")")
	})
	t.Run("aws refuses", func(t *testing.T) {
		var asked []string
		refusing := newTLSFake(t, ca, func(w http.ResponseWriter, r *http.Request) { refuse(w, 403, "AccessDenied", "no") }, "sts.us-east-1.amazonaws.com")
		proxy := newFake(t, connectProxy(refusing.Listener.Addr().String(), &asked, ""))
		wantError(t, call(t, sts.Config{Proxy: proxy.URL}), broker.CodeAWSDenied, "AWS refused: AccessDenied: no (proxy "+proxy.URL+")")
	})
	t.Run("not for this machine", func(t *testing.T) {
		proxy := newFake(t, func(w http.ResponseWriter, r *http.Request) { t.Error("the proxy was asked") })
		plain := newFake(t, identify)
		if err := call(t, sts.Config{Proxy: proxy.URL, EndpointURL: plain.URL}); err != nil {
			t.Error(err)
		}
	})
	t.Run("not for exceptions", func(t *testing.T) {
		proxy := newFake(t, func(w http.ResponseWriter, r *http.Request) { t.Error("the proxy was asked") })
		c := newClient(t, sts.Config{Proxy: proxy.URL, NoProxy: "localhost, .amazonaws.com", CABundle: ca.bundle})
		c.SetDial(dialTo(target, nil))
		if _, err := c.CallerIdentity(t.Context(), key(), broker.Target{}); err != nil {
			t.Error(err)
		}
	})
}

func TestProxiesThatAreRefused(t *testing.T) {
	for _, proxy := range []string{
		"proxy:3128", "alice:hunter2@proxy:3128", "socks5://proxy:1080", "http://", "http://alice:hunter2@", "ftp://alice:hunter2@proxy",
		"http://alice:hunter2@proxy:x", "http://alice:hunter2@proxy:99999", "http://proxy:0", "http://proxy/path?hunter2", "http://proxy/hunter2", "http://proxy#hunter2", "http:proxy", "http://pröxy", "http://alice:hunter2%zz@proxy",
	} {
		_, err := sts.New(sts.Config{Proxy: proxy})
		e := wantError(t, err, broker.CodeConfig, "[aws] proxy: not a URL")
		if strings.Contains(e.Message, "hunter2") {
			t.Errorf("password in %s", e.Message)
		}
	}
	for _, noProxy := range []string{"exa mple.com", "a.example,10.0.0.0/33", "host:port", "http://x", "*.*", "é.example"} {
		_, err := sts.New(sts.Config{Proxy: "http://proxy:3128", NoProxy: noProxy})
		wantError(t, err, broker.CodeConfig, "[aws] no_proxy: ")
	}
}

// The rows follow the documentation of NO_PROXY in golang.org/x/net/http/httpproxy.
func TestNoProxy(t *testing.T) {
	for _, tc := range []struct {
		noProxy, url string
		direct       bool
	}{
		{"", "https://sts.amazonaws.com", false},
		{"*", "https://sts.amazonaws.com", true},
		{"amazonaws.com", "https://sts.amazonaws.com", true},
		{"amazonaws.com", "https://amazonaws.com", true},
		{"amazonaws.com", "https://evilamazonaws.com", false},
		{".amazonaws.com", "https://sts.amazonaws.com", true},
		{".amazonaws.com", "https://amazonaws.com", false},
		{"*.amazonaws.com", "https://sts.amazonaws.com", true},
		{"*.amazonaws.com", "https://amazonaws.com", false},
		{"STS.amazonaws.COM", "https://sts.AMAZONAWS.com", true},
		{"amazonaws.com:443", "https://sts.amazonaws.com", true},
		{"amazonaws.com:8443", "https://sts.amazonaws.com", false},
		{"amazonaws.com:8443", "https://sts.amazonaws.com:8443", true},
		{" a.example ,, b.example ", "https://b.example", true},
		{"10.0.0.0/8", "https://10.1.2.3", true},
		{"10.0.0.0/8", "https://11.1.2.3", false},
		{"10.0.0.1", "https://10.0.0.1", true},
		{"10.0.0.1:443", "https://10.0.0.1", true},
		{"10.0.0.1:444", "https://10.0.0.1", false},
		{"[2001:db8::1]:443", "https://[2001:db8::1]", true},
		{"2001:db8::/32", "https://[2001:db8::1]", true},
		{"2001:db8::1", "https://[2001:db8::2]", false},
		{"0.1", "https://10.0.0.1", false}, // a domain never matches an address
		{"", "https://localhost", true},
		{"", "https://127.8.8.8", true},
		{"", "https://[::1]", true},
	} {
		direct, err := sts.GoesDirectly("http://proxy:3128", tc.noProxy, tc.url)
		if err != nil || direct != tc.direct {
			t.Errorf("no_proxy %q, %s: directly %v, %v", tc.noProxy, tc.url, direct, err)
		}
	}
}

func FuzzNoProxy(f *testing.F) {
	f.Add("10.0.0.0/8, .example.com:443,[::1]:1", "sts.example.com")
	f.Add("*", "x")
	f.Fuzz(func(t *testing.T, noProxy, host string) {
		u := url.URL{Scheme: "https", Host: host}
		direct, err := sts.GoesDirectly("http://proxy:3128", noProxy, u.String())
		if err == nil && direct && strings.Trim(noProxy, ", \t\r\n\v\f\u0085\u00a0") == "" {
			ip := net.ParseIP(u.Hostname())
			if !strings.EqualFold(u.Hostname(), "localhost") && !ip.IsLoopback() {
				t.Fatalf("%q is not asked through the proxy", host)
			}
		}
	})
}
