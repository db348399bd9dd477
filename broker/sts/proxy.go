package sts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// A proxyConfig decides which requests go through a proxy, as
// golang.org/x/net/http/httpproxy decides it by NO_PROXY, but for entries that
// make no sense, which are errors here. That package would bring
// golang.org/x/text for host names that are not ASCII; ours are.
type proxyConfig struct {
	proxy  *url.URL // nil for none
	except []exception
}

// An exception is one entry of no_proxy.
type exception struct {
	all    bool         // "*"
	prefix netip.Prefix // "10.0.0.0/8", "10.1.2.3"; zero for a domain
	domain string       // ".example.com"
	itself bool         // "example.com": the domain as well as what is below
	port   string       // "" for every port
}

// newProxyConfig parses [aws] proxy and no_proxy. Errors do not quote the
// proxy, which may hold a password.
func newProxyConfig(proxy, noProxy string) (*proxyConfig, error) {
	if proxy == "" {
		return &proxyConfig{}, nil
	}
	u, err := url.Parse(proxy)
	if err != nil || u.Opaque != "" || u.Hostname() == "" || !only(u.Host, 1, 300, isGraphic) ||
		u.Scheme != "http" && u.Scheme != "https" ||
		u.Port() != "" && !validPort(u.Port()) || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, badConfig("proxy", errors.New("not a URL such as http://host:3128 or https://user:password@host:3128"))
	}
	p := &proxyConfig{proxy: u}
	for entry := range strings.SplitSeq(noProxy, ",") {
		entry = strings.ToLower(strings.TrimSpace(entry))
		if entry == "" {
			continue
		}
		e, ok := parseException(entry)
		if !ok {
			return nil, badConfig("no_proxy", fmt.Errorf("%.100q is not a host, domain, address or network", entry))
		}
		p.except = append(p.except, e)
	}
	return p, nil
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func parseException(s string) (exception, bool) {
	if s == "*" {
		return exception{all: true}, true
	}
	if prefix, err := netip.ParsePrefix(s); err == nil {
		return exception{prefix: prefix.Masked()}, true
	}
	var e exception
	if host, port, err := net.SplitHostPort(s); err == nil {
		s, e.port = host, port
		if !only(port, 1, 5, isDigit) {
			return exception{}, false
		}
	}
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		e.prefix = netip.PrefixFrom(ip, ip.BitLen())
		return e, true
	}
	s = strings.TrimPrefix(s, "*")
	e.itself = !strings.HasPrefix(s, ".")
	e.domain = "." + strings.TrimPrefix(s, ".")
	ok := only(e.domain, 2, 254, func(c byte) bool { return isWord(c) || c == '-' || c == '.' })
	return e, ok
}

// of returns the proxy that u is asked through, nil for none. This machine is
// never asked through one.
func (p *proxyConfig) of(u *url.URL) (*url.URL, error) {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if p.proxy == nil || isLoopback(host) {
		return nil, nil
	}
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	ip, err := netip.ParseAddr(host)
	isIP := err == nil
	for _, e := range p.except {
		if e.port != "" && e.port != port {
			continue
		}
		switch {
		case e.all:
			return nil, nil
		case e.prefix.IsValid():
			if isIP && e.prefix.Contains(ip.Unmap()) {
				return nil, nil
			}
		case !isIP && (strings.HasSuffix(host, e.domain) || e.itself && host == e.domain[1:]):
			return nil, nil
		}
	}
	return p.proxy, nil
}

// A connectError is a proxy's refusal of CONNECT.
type connectError struct{ status int }

func (e *connectError) Error() string { return statusText(e.status) }

func statusText(status int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
}

// checkConnect keeps the status of a refused CONNECT, of which net/http itself
// would pass on the proxy's text alone.
func checkConnect(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
	if res.StatusCode != http.StatusOK {
		return &connectError{res.StatusCode}
	}
	return nil
}
