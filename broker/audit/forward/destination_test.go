package forward

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in, name string
		want     Destination
	}{
		{"journald", "journald", Destination{protocol: journaldProtocol}},
		{"syslog+udp://Logs.example.com", "syslog+udp://logs.example.com:514", Destination{protocol: syslogUDP, host: "logs.example.com:514"}},
		{"syslog+tcp://10.0.0.1:1514/", "syslog+tcp://10.0.0.1:1514", Destination{protocol: syslogTCP, host: "10.0.0.1:1514", path: "/"}},
		{"syslog+tls://[2001:db8::1]?ca=/etc/ca.pem&cert=/a/../c.pem&key=/k.pem", "syslog+tls://[2001:db8::1]:6514",
			Destination{protocol: syslogTLS, host: "[2001:db8::1]:6514", ca: "/etc/ca.pem", cert: "/c.pem", key: "/k.pem"}},
		{"syslog+tls://[FE80:0::1%25Eth0.1]", "syslog+tls://[fe80::1%25Eth0.1]:6514", Destination{protocol: syslogTLS, host: "[fe80::1%Eth0.1]:6514"}},
		{"syslog+udp://Log_1.example.", "syslog+udp://log_1.example.:514", Destination{protocol: syslogUDP, host: "log_1.example.:514"}},
		{"otlp+http://localhost?headers=/h", "otlp+http://localhost:4318/v1/logs", Destination{protocol: otlpHTTP, host: "localhost:4318", path: "/v1/logs", headers: "/h"}},
		{"otlp+https://otel.example.com:443/a%20b/v1/logs?headers=/h", "otlp+https://otel.example.com:443/a%20b/v1/logs",
			Destination{protocol: otlpHTTPS, host: "otel.example.com:443", path: "/a%20b/v1/logs", headers: "/h"}},
	} {
		got, err := Parse(tt.in)
		if err != nil || got != tt.want || got.Name() != tt.name {
			t.Errorf("%s: got %+v, %q, %v, want %+v, %q", tt.in, got, got.Name(), err, tt.want, tt.name)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "neither journald nor"},
		{"journal", "neither journald nor"},
		{"journald://", "neither journald nor"},
		{"https://host", "neither journald nor"},
		{"syslog://host", "neither journald nor"},
		{"syslog+tls://", "names no host"},
		{"syslog+tls:host", "names no host"},
		{"syslog+tls://:6514", "names no host"},
		{"syslog+tls://::", "in brackets"},
		{"syslog+tls://2001:db8::1:514", "in brackets"},
		{"syslog+tls://2001:db8::1", "in brackets"},
		{"syslog+tls://[fe80::1%25a%2fb]", "not a URL"},
		{"syslog+tls://[fe80::1%25a~b]", "neither a DNS name nor an IP address"},
		{"syslog+tls://a..b", "neither a DNS name nor an IP address"},
		{"syslog+tls://b\u00fccher.example", "neither a DNS name nor an IP address"},
		{"syslog+tls://a~b", "neither a DNS name nor an IP address"},
		{"syslog+tls://host:0", "port"},
		{"syslog+tls://host:65536", "port"},
		{"syslog+tls://host:x", "not a URL"},
		{"syslog+tls://host\x00", "not a URL"},
		{"otlp+https://me:hunter2@host", "?headers=FILE"},
		{"otlp+https://hunter2@host", "?headers=FILE"},
		{"otlp+https://host#hunter2", "fragment"},
		{"otlp+https://host?token=hunter2", `does not know the option "token"`},
		{"otlp+https://host?hunter2", "an option has no value"},
		{"otlp+https://host?headers=/a&hunter2==", "an option has no value"},
		{"otlp+https://host?headers=hunter2", "headers is not an absolute path"},
		{"otlp+https://host?headers=/a&headers=/b", "repeated"},
		{"otlp+https://host?headers=/a;b", "malformed"},
		{"otlp+http://host?headers=/a", "in the clear"},
		{"otlp+http://host?ca=/a", `does not know the option "ca"`},
		{"syslog+tcp://host?ca=/a", `does not know the option "ca"`},
		{"syslog+tls://host?headers=/a", `does not know the option "headers"`},
		{"syslog+tls://host?cert=/a", "go together"},
		{"syslog+tls://host?key=/a", "go together"},
		{"syslog+tls://host?ca=", "ca is not an absolute path"},
		{"syslog+tls://host/path", "has no path"},
	} {
		d, err := Parse(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %+v, %v, want %q", tt.in, d, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("syslog+tls://host:6514?ca=/ca.pem")
	f.Add("syslog+tls://[fe80::1%25eth0]")
	f.Add("sYslog+tls://::")
	f.Add("otlp+https://host/v1/logs?headers=/h")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := Parse(s)
		if err != nil {
			return
		}
		// A name leads to the same place again.
		if again, err := Parse(d.Name()); err != nil || again.Name() != d.Name() {
			t.Errorf("%q is named %q, which is %q, %v", s, d.Name(), again.Name(), err)
		}
	})
}
