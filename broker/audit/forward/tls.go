package forward

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
)

// tlsConfig reads the files that a destination names. It is made for each
// connection, so that a certificate can be renewed while the daemon runs.
func (d Destination) tlsConfig() (*tls.Config, error) {
	host, _, err := net.SplitHostPort(d.host)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if d.ca != "" {
		pem, err := readFile(d.ca, maxPEM, nil)
		if err != nil {
			return nil, fmt.Errorf("read the authorities: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the authorities: %s holds no certificate in PEM", d.ca)
		}
	}
	if d.cert != "" {
		cert, err := readFile(d.cert, maxPEM, nil)
		if err != nil {
			return nil, fmt.Errorf("read the certificate: %w", err)
		}
		key, err := readFile(d.key, maxPEM, nil)
		if err != nil {
			return nil, fmt.Errorf("read the certificate's key: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil { // which may quote what is in them
			return nil, fmt.Errorf("%s and %s are not a certificate and its key in PEM", d.cert, d.key)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
