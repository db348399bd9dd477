package sts_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/sts"
)

const (
	roleARN    = "arn:aws:iam::111122223333:role/ops/Deploy"
	sessionARN = "arn:aws:sts::111122223333:assumed-role/Deploy/alice-s1"

	keyID      = "AKIAGATEPASSTEST0001"
	secretKey  = "f4kE/s3cr3t+K3y/0nly+f0r/Tests+0123456789"
	sessionID  = "ASIAGATEPASSTEST0002"
	sessionKey = "an0ther/f4kE+s3cr3t/0f/a+Sess10n/98765432"
	sessionTok = "FwoGZXIvYXdzEFf4k3T0k3n//////////wEaDGZha2VzdHVmZg=="
)

func key() broker.Credentials {
	return broker.Credentials{AccessKeyID: keyID, SecretAccessKey: broker.NewSecret(secretKey), AccountID: "111122223333"}
}

func assume() broker.AssumeRoleInput {
	return broker.AssumeRoleInput{RoleARN: roleARN, SessionName: "alice-s1"}
}

// newClient returns a client that does not wait between attempts.
func newClient(t testing.TB, cfg sts.Config) *sts.Client {
	t.Helper()
	c, err := sts.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c.NoBackoff()
}

// A fake answers as its handler says and counts the requests.
type fake struct {
	*httptest.Server
	asked atomic.Int64
}

func newFake(t testing.TB, h http.HandlerFunc) *fake {
	t.Helper()
	f := unstarted(h)
	f.Start()
	t.Cleanup(f.Close)
	return f
}

func unstarted(h http.HandlerFunc) *fake {
	f := &fake{}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked.Add(1)
		h(w, r)
	}))
	f.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	return f
}

// credentialsXML is the Credentials element of an answer.
func credentialsXML(expires time.Time) string {
	return "<Credentials><AccessKeyId>" + sessionID + "</AccessKeyId><SecretAccessKey>" + sessionKey +
		"</SecretAccessKey><SessionToken>" + sessionTok + "</SessionToken><Expiration>" +
		expires.UTC().Format(time.RFC3339) + "</Expiration></Credentials>"
}

// resultXML wraps what op answers.
func resultXML(op, inner string) string {
	return fmt.Sprintf(`<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult>%[2]s</%[1]sResult>`+
		`<ResponseMetadata><RequestId>5f1b2c3d-0000-4000-8000-000000000001</RequestId></ResponseMetadata></%[1]sResponse>`, op, inner)
}

func assumedXML(arn string, expires time.Time) string {
	return resultXML("AssumeRole", "<AssumedRoleUser><AssumedRoleId>AROAGATEPASS:alice-s1</AssumedRoleId><Arn>"+arn+
		"</Arn></AssumedRoleUser>"+credentialsXML(expires))
}

// answer writes an answer of AWS's.
func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/xml")
	w.Header().Set("X-Amzn-Requestid", "5f1b2c3d-0000-4000-8000-000000000001")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// refuse writes an error of AWS's.
func refuse(w http.ResponseWriter, status int, code, message string) {
	answer(w, status, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>`+code+
		`</Code><Message>`+message+`</Message></Error><RequestId>5f1b2c3d-0000-4000-8000-000000000001</RequestId></ErrorResponse>`)
}

// grant answers AssumeRole with an hour's session.
func grant(w http.ResponseWriter, _ *http.Request) {
	answer(w, 200, assumedXML(sessionARN, time.Now().Add(time.Hour)))
}

// wantError checks an error's code and what its message and hint hold, and
// that they hold no secret.
func wantError(t *testing.T, err error, code broker.Code, parts ...string) *broker.Error {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", code)
	}
	e, ok := err.(*broker.Error)
	if !ok {
		t.Fatalf("error is a %T, want *broker.Error: %v", err, err)
	}
	if e.Code != code {
		t.Errorf("code is %s, want %s: %s", e.Code, code, e.Message)
	}
	both := e.Message + "\n" + e.Hint
	for _, p := range parts {
		if !strings.Contains(both, p) {
			t.Errorf("%q is not in:\n%s", p, both)
		}
	}
	for _, s := range []string{secretKey, sessionKey, sessionTok} {
		for i := 0; i+12 <= len(s); i++ {
			if strings.Contains(both, s[i:i+12]) {
				t.Fatalf("a part of a secret is in:\n%s", both)
			}
		}
	}
	return e
}

// A testCA signs certificates for servers that pretend to be others.
type testCA struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	bundle string // path of its PEM file
}

func newCA(t testing.TB) *testCA {
	t.Helper()
	ca := &testCA{key: newECKey(t), bundle: filepath.Join(t.TempDir(), "ca.pem")}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gatepass test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &ca.key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca.bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue returns a certificate for names, valid from an hour ago until notAfter.
func (ca *testCA) issue(t testing.TB, notAfter time.Time, names ...string) tls.Certificate {
	t.Helper()
	k := newECKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: names,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, &k.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
}

func newECKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newTLSFake is newFake with a certificate of ca's for names.
func newTLSFake(t testing.TB, ca *testCA, h http.HandlerFunc, names ...string) *fake {
	t.Helper()
	cfg := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, time.Now().Add(time.Hour), names...)}}
	return newTLSFakeWith(t, cfg, h)
}

func newTLSFakeWith(t testing.TB, cfg *tls.Config, h http.HandlerFunc) *fake {
	t.Helper()
	f := unstarted(h)
	f.TLS = cfg
	f.StartTLS()
	t.Cleanup(f.Close)
	return f
}

// dialTo sends every connection to addr and keeps where it was meant to go.
func dialTo(addr string, meant *[]string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, to string) (net.Conn, error) {
		if meant != nil {
			*meant = append(*meant, to)
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
}
