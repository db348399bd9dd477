package sts

import (
	"context"
	"net"
	"net/url"
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
)

// GoesDirectly reports whether a URL is asked without the proxy.
func GoesDirectly(proxy, noProxy, rawURL string) (bool, error) {
	p, err := newProxyConfig(proxy, noProxy)
	if err != nil {
		return false, err
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return false, err
	}
	via, err := p.of(u)
	return via == nil, err
}

const MaxText = maxText
