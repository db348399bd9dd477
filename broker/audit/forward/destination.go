package forward

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A protocol is how entries are sent.
type protocol string

const (
	journaldProtocol protocol = "journald"
	syslogUDP        protocol = "syslog+udp" // RFC 5426
	syslogTCP        protocol = "syslog+tcp" // RFC 6587, octet counting
	syslogTLS        protocol = "syslog+tls" // RFC 5425
	otlpHTTP         protocol = "otlp+http"  // OTLP/HTTP, JSON
	otlpHTTPS        protocol = "otlp+https"
)

// A Destination is where entries are sent.
type Destination struct {
	protocol protocol
	host     string // with its port; of journald nothing
	path     string // of OTLP
	ca       string // PEM file of authorities, instead of the system's
	cert     string // PEM files of a certificate that we show, and its key
	key      string
	headers  string // file of headers that OTLP requests bear
}

// Parse reads a destination as gatepass.toml has it:
//
//	journald
//	syslog+udp://HOST[:514]
//	syslog+tcp://HOST[:514]
//	syslog+tls://HOST[:6514][?ca=FILE][&cert=FILE&key=FILE]
//	otlp+http://HOST[:4318][/PATH][?headers=FILE]
//	otlp+https://HOST[:4318][/PATH][?headers=FILE][&ca=FILE][&cert=FILE&key=FILE]
//
// Its errors do not quote the text: somebody may have put a password in it.
func Parse(s string) (Destination, error) {
	if s == string(journaldProtocol) {
		return Destination{protocol: journaldProtocol}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return Destination{}, errors.New("not a URL")
	}
	d := Destination{protocol: protocol(u.Scheme), path: u.EscapedPath()}
	allowed, port := map[protocol][]string{
		syslogUDP: nil, syslogTCP: nil, syslogTLS: {"ca", "cert", "key"},
		otlpHTTP: {"headers"}, otlpHTTPS: {"headers", "ca", "cert", "key"},
	}, map[protocol]string{syslogUDP: "514", syslogTCP: "514", syslogTLS: "6514", otlpHTTP: "4318", otlpHTTPS: "4318"}[d.protocol]
	options, known := allowed[d.protocol]
	otlp := d.protocol == otlpHTTP || d.protocol == otlpHTTPS
	switch {
	case !known:
		return Destination{}, errors.New("it is neither journald nor a URL that begins with syslog+udp, syslog+tcp, syslog+tls, otlp+http or otlp+https")
	case u.User != nil:
		return Destination{}, errors.New("it holds a user; put credentials into a file, and name that: ?headers=FILE")
	case u.Hostname() == "" || u.Opaque != "":
		return Destination{}, errors.New("it names no host")
	case u.Fragment != "":
		return Destination{}, errors.New("it has a fragment (#)")
	case !otlp && d.path != "" && d.path != "/":
		return Destination{}, errors.New("a syslog server has no path")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return Destination{}, errors.New("its port is not a number from 1 to 65535")
		}
		port = p
	}
	host, ok := parseHost(u.Hostname())
	if strings.Contains(u.Hostname(), ":") && u.Host[0] != '[' { // else its end may be meant as a port
		return Destination{}, errors.New("an IPv6 address stands in brackets: [2001:db8::1]")
	}
	if !ok {
		return Destination{}, errors.New("its host is neither a DNS name nor an IP address")
	}
	d.host = net.JoinHostPort(host, port)
	if otlp && (d.path == "" || d.path == "/") {
		d.path = "/v1/logs" // https://opentelemetry.io/docs/specs/otlp/#otlphttp-request
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Destination{}, errors.New("what follows the question mark is malformed")
	}
	for name, values := range query {
		into := map[string]*string{"ca": &d.ca, "cert": &d.cert, "key": &d.key, "headers": &d.headers}[name]
		switch {
		case into == nil && strings.Trim(values[0], "=") == "": // it may be a token, in base64
			return Destination{}, errors.New("an option has no value")
		case into == nil || !slices.Contains(options, name):
			return Destination{}, fmt.Errorf("%s does not know the option %q", d.protocol, name)
		case len(values) != 1:
			return Destination{}, fmt.Errorf("the option %s is repeated", name)
		case !filepath.IsAbs(values[0]):
			return Destination{}, fmt.Errorf("the option %s is not an absolute path", name)
		}
		*into = filepath.Clean(values[0])
	}
	if (d.cert == "") != (d.key == "") {
		return Destination{}, errors.New("the options cert and key go together")
	}
	if d.protocol == otlpHTTP && d.headers != "" && !d.loopback() {
		return Destination{}, errors.New("headers would cross the network in the clear: use otlp+https")
	}
	return d, nil
}

// parseHost returns a host in the form in which two that are the same are
// equal: a DNS name in lower case, of letters, digits, "-" and "_" (one in
// another script as its A-labels, RFC 5890), or an IP address.
func parseHost(s string) (host string, ok bool) {
	ip, err := netip.ParseAddr(s)
	switch {
	case err == nil:
		return ip.String(), isWord(ip.Zone())
	case strings.Contains(s, ":"):
		return "", false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || !isWord(label) {
			return "", false
		}
	}
	return strings.ToLower(s), true
}

// isWord reports whether s can stand in a DNS name, or name an IPv6 zone.
func isWord(s string) bool {
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

// Name tells one destination from another, and is shown. It is the URL without
// its options, so that a cursor outlives a change of those.
func (d Destination) Name() string {
	if d.protocol == journaldProtocol {
		return string(d.protocol)
	}
	u := url.URL{Scheme: string(d.protocol), Host: d.host} // escapes an IPv6 zone
	return u.String() + d.otlpPath()
}

// otlpPath is the path where there can be one.
func (d Destination) otlpPath() string {
	if d.protocol == otlpHTTP || d.protocol == otlpHTTPS {
		return d.path
	}
	return ""
}

// loopback reports whether the destination is on this machine.
func (d Destination) loopback() bool {
	host, _, _ := net.SplitHostPort(d.host)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
