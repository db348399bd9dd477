package sts_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/broker/sts"
)

// piped returns a client in a synctest bubble. Each connection that it makes
// is served by serve, which gets a reader past the first request.
func piped(t *testing.T, serve func(conn net.Conn, r *bufio.Reader)) *sts.Client {
	c, err := sts.New(sts.Config{EndpointURL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	var servers sync.WaitGroup
	t.Cleanup(func() {
		c.Close()
		servers.Wait()
	})
	c.SetDial(func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		servers.Go(func() {
			defer theirs.Close()
			r := bufio.NewReader(theirs)
			req, err := http.ReadRequest(r)
			if err == nil {
				io.Copy(io.Discard, req.Body)
				serve(theirs, r)
			}
		})
		return ours, nil
	})
	return c
}

func respond(conn net.Conn, status int, body string) {
	fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

// Whatever AWS does, a call is over after 15 s.
func TestAnyCallEndsWithin15s(t *testing.T) {
	for name, serve := range map[string]func(net.Conn, *bufio.Reader){
		"silence": func(_ net.Conn, r *bufio.Reader) { r.ReadByte() },
		"drip": func(conn net.Conn, _ *bufio.Reader) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			for {
				if _, err := io.WriteString(conn, " "); err != nil {
					return
				}
				<-time.After(time.Second)
			}
		},
		"late failures": func(conn net.Conn, r *bufio.Reader) {
			<-time.After(6 * time.Second)
			respond(conn, 503, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := piped(t, serve)
				start := time.Now()
				_, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
				wantError(t, err, broker.CodeAWSUnreachable)
				if took := time.Since(start); took != 15*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// Attempts are spaced, and three are soon over.
func TestAttemptsAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		c := piped(t, func(conn net.Conn, _ *bufio.Reader) {
			at = append(at, time.Now())
			respond(conn, 503, "")
		})
		_, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{})
		wantError(t, err, broker.CodeAWSUnreachable)
		if len(at) != 3 {
			t.Fatalf("%d attempts", len(at))
		}
		first, second := at[1].Sub(at[0]), at[2].Sub(at[1])
		if first < 100*time.Millisecond || first > 200*time.Millisecond || second < 200*time.Millisecond || second > 400*time.Millisecond {
			t.Errorf("waited %v and %v", first, second)
		}
	})
}

// A connection serves the calls that follow one another, and ends soon after:
// a daemon at rest holds none.
func TestIdleConnectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		served := 0
		ended := make(chan time.Time, 1)
		c := piped(t, func(conn net.Conn, r *bufio.Reader) {
			for {
				served++
				respond(conn, 200, assumedXML(sessionARN, time.Now().Add(time.Hour)))
				req, err := http.ReadRequest(r)
				if err != nil {
					ended <- time.Now()
					return
				}
				io.Copy(io.Discard, req.Body)
			}
		})
		for range 3 {
			if _, err := c.AssumeRole(t.Context(), key(), assume(), broker.Target{}); err != nil {
				t.Fatal(err)
			}
		}
		last := time.Now()
		if idle := (<-ended).Sub(last); served != 3 || idle != 10*time.Second {
			t.Errorf("one connection served %d calls and was idle for %v", served, idle)
		}
	})
}
