package sts

import (
	"context"
	"net"
	"time"
)

// What the tests need to reach: the wait between attempts, the network, and
// the parsers.

func (c *Client) NoBackoff() *Client {
	c.backoff = func(int) time.Duration { return 0 }
	return c
}

func (c *Client) SetDial(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	c.transport.dialTCP = dial
}

func (c *Client) Skew() time.Duration { return time.Duration(c.skew.Load()) }

var (
	Scrub         = scrub
	CheckEndpoint = checkEndpoint
	IsRegion      = isRegion
	Product       = product
	Backoff       = backoff
)

const MaxText = maxText
