package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"gatepass/broker/sts/ststest"
)

// serve runs the sandbox until ctx is done.
func serve(ctx context.Context, o options, config ststest.Config, sandbox *ststest.Sandbox, stderr io.Writer) error {
	l, err := listen(o.listen)
	if err != nil {
		return err
	}
	defer l.Close()
	url := "http://" + l.Addr().String()
	serving := l
	if o.tlsCert != "" {
		cert, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
		if err != nil {
			return fmt.Errorf("load the certificate: %w", err)
		}
		url = "https://" + l.Addr().String()
		serving = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
	}

	// A fault that drops a connection breaks that call alone: the listener
	// offers HTTP/1 and no HTTP/2, which shares connections.
	srv := &http.Server{Handler: sandbox, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(serving) }()
	defer srv.Close()

	if o.addrFile != "" {
		if err := writeFile(o.addrFile, url+"\n"); err != nil {
			return fmt.Errorf("write the address: %w", err)
		}
		defer os.Remove(o.addrFile)
	}
	if !o.quiet {
		fmt.Fprintf(stderr, "The sandbox answers at %s until Ctrl-C.\n\n", url)
		if err := printSetup(stderr, setupFor(config, o.config, url, o.tlsCert)); err != nil {
			return err
		}
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// writeFile puts text in path, at once or not at all.
func writeFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
