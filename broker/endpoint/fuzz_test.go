package endpoint

import (
	"strings"
	"testing"
	"time"
)

// Whatever is sent as a request's method and target, with the right token: the
// gate is asked for what is served, as it is written in the package's
// documentation to the byte, and for nothing else.
func FuzzRequest(f *testing.F) {
	h := newHarness(f)
	h.patience = 100 * time.Millisecond // with half a request
	container, imds := h.open(f, Container), h.open(f, IMDS)
	authorization, token := container.token(f), imds.imdsToken(f)
	for _, seed := range []string{
		"GET /", "GET " + rolePath, "GET //", "GET /?", "GET /%2f", "GET /../", "GET http://127.0.0.1/", "POST /", "PUT /latest/api/token",
		"GET / HTTP/1.1\r\nOrigin: x\r\nX:", "GET /\t", "\r\nGET /", "GET /latest/meta-data/iam/security-credentials/", "GET /\x00", "GET / HTTP/1.0\nA:",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for _, tt := range []struct {
			s             *served
			header, serve string
		}{
			{container, "Authorization: " + authorization, "GET / "},
			{imds, "X-aws-ec2-metadata-token: " + token, "GET " + rolePath + " "},
		} {
			request := line + " HTTP/1.1\r\n" + tt.s.host() + tt.header + "\r\nConnection: close\r\n\r\n"
			answer, err := exchange(tt.s.port, request)
			if err != nil && !strings.Contains(err.Error(), "reset") {
				t.Fatal(err)
			}
			asked := len(h.calls()) > 0
			if strings.Contains(answer, secretKey) != asked {
				t.Errorf("%q: the gate was asked: %v; the answer: %s", line, asked, answer)
			}
			// What the line smuggles in must not reach it either: only a request
			// that begins as the one that is served.
			if asked && !strings.HasPrefix(request, tt.serve+"HTTP/1.") {
				t.Errorf("%q is served", line)
			}
		}
	})
}
