// Gatepass-sandbox is a stand-in for AWS on this machine: it checks
// signatures, keys, trust policies and MFA codes as AWS does, so that gatepass
// can be tried, and tested, without an AWS account. The engine, and what it
// does and does not check, is package gatepass/broker/sts/ststest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"gatepass/broker/sts/ststest"
)

const usage = `Usage: gatepass-sandbox [flags]

A stand-in for AWS STS on this machine. It verifies signatures, keys, trust
policies, external ids and MFA codes as AWS does, and mints sessions that only
it accepts. Without --config it starts from a built-in example.

  --listen ADDR       loopback address and port (default 127.0.0.1:0, any free port)
  --config FILE       the accounts, in TOML
  --tls-cert FILE     serve TLS with this certificate, PEM …
  --tls-key FILE      … and its key
  --addr-file FILE    write the URL there once it can be called; removed at the end
  --quiet             do not log calls, and do not print how to use it

Print something and exit:

  --print-config      the built-in example, to start your own from
  --print-key USER    the user's access key id and secret, one a line ("root" too)
  --print-code USER   the code that the user's MFA device shows now
  --print-setup URL   what to type to use a sandbox at that URL
  --help

Start it in one terminal, and do what it prints in another:

  gatepass-sandbox --listen 127.0.0.1:4599

Store the key of the example's user alice in gatepass:

  gatepass-sandbox --print-key alice | gatepass keys add alice --stdin

Make it misbehave, and see what it was asked:

  curl -d '{"action":"AssumeRole","kind":"throttle","count":2}' http://127.0.0.1:4599/sandbox/fault
  curl -d '{"delay":"2s"}' http://127.0.0.1:4599/sandbox/fault
  curl -X DELETE http://127.0.0.1:4599/sandbox/fault
  curl http://127.0.0.1:4599/sandbox/calls

A fault has an action (absent: any), a kind (throttle, fail, drop, truncate,
garbage, html, empty, incomplete), a count (absent: until cleared), a delay, a
skew of AWS's clock, and for "fail" a status, code and message.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	var bad usageError
	switch {
	case err == nil:
	case errors.As(err, &bad):
		fmt.Fprintf(os.Stderr, "gatepass-sandbox: %v\ntry gatepass-sandbox --help\n", err)
		os.Exit(64)
	default:
		fmt.Fprintf(os.Stderr, "gatepass-sandbox: %v\n", err)
		os.Exit(1)
	}
}

// A usageError is a command line that makes no sense.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

type options struct {
	listen, config, tlsCert, tlsKey, addrFile string
	quiet                                     bool

	printConfig                     bool
	printKey, printCode, printSetup string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := flag.NewFlagSet("gatepass-sandbox", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "")
	f.StringVar(&o.config, "config", "", "")
	f.StringVar(&o.tlsCert, "tls-cert", "", "")
	f.StringVar(&o.tlsKey, "tls-key", "", "")
	f.StringVar(&o.addrFile, "addr-file", "", "")
	f.BoolVar(&o.quiet, "quiet", false, "")
	f.BoolVar(&o.printConfig, "print-config", false, "")
	f.StringVar(&o.printKey, "print-key", "", "")
	f.StringVar(&o.printCode, "print-code", "", "")
	f.StringVar(&o.printSetup, "print-setup", "", "")
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, err := io.WriteString(stdout, usage)
		return err
	case err != nil:
		return usageError{err}
	case f.NArg() > 0:
		return usagef("unexpected argument %q", f.Arg(0))
	case (o.tlsCert == "") != (o.tlsKey == ""):
		return usagef("--tls-cert and --tls-key go together")
	}
	if o.printConfig {
		_, err := io.WriteString(stdout, ststest.ExampleTOML)
		return err
	}

	config := ststest.Example()
	if o.config != "" {
		data, err := os.ReadFile(o.config)
		if err != nil {
			return fmt.Errorf("read the configuration: %w", err)
		}
		if config, err = ststest.ParseConfig(o.config, data); err != nil {
			return err
		}
	}
	if !o.quiet {
		config.Log = func(c ststest.Call) { io.WriteString(stderr, logLine(c)) }
	}
	sandbox, err := ststest.New(config)
	if err != nil && o.config != "" {
		return fmt.Errorf("%s: %w", o.config, err)
	} else if err != nil {
		return err
	}

	switch {
	case o.printKey != "":
		key := sandbox.Key(o.printKey)
		if key.ID == "" {
			return fmt.Errorf("no user %q with a key; there are %s", o.printKey, users(config))
		}
		_, err := fmt.Fprintf(stdout, "%s\n%s\n", key.ID, key.Secret)
		return err
	case o.printCode != "":
		code := sandbox.Code(o.printCode)
		if code == "" {
			return fmt.Errorf("no user %q with an MFA device; there are %s", o.printCode, users(config))
		}
		_, err := fmt.Fprintln(stdout, code)
		return err
	case o.printSetup != "":
		return printSetup(stdout, setupFor(config, o.config, o.printSetup, o.tlsCert))
	}
	return serve(ctx, o, config, sandbox, stderr)
}

// users lists who has keys, for errors.
func users(c ststest.Config) string {
	var names []string
	for _, a := range c.Accounts {
		for _, u := range a.Users {
			names = append(names, u.Name)
		}
	}
	return strings.Join(names, ", ")
}

// logLine is one call in one line:
//
//	12:00:01 AssumeRole AKIAEXAMPLEALICE0001 arn:aws:iam::111122223333:role/Deploy alice-s7f3k2 200
func logLine(c ststest.Call) string {
	words := []string{c.Time.Format("15:04:05"), c.Action, c.AccessKeyID, c.RoleARN, c.SessionName}
	if c.Fault != "" {
		words = append(words, "fault:"+string(c.Fault))
	}
	if c.Status != 0 {
		words = append(words, fmt.Sprint(c.Status))
	}
	words = append(words, c.Code)
	if c.Why != "" {
		words = append(words, "("+c.Why+")")
	}
	if c.Action == "" {
		words[1] = "-"
	}
	var b strings.Builder
	for _, w := range words {
		if w == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(w)
	}
	return b.String() + "\n"
}

// listen listens on a loopback address and nowhere else.
func listen(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usagef("--listen %q: %w", addr, err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, usagef("--listen %q is not a loopback address such as 127.0.0.1:4599; the sandbox's keys are public", addr)
	}
	return net.Listen("tcp", net.JoinHostPort(host, port))
}
