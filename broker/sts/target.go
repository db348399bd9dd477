package sts

import (
	"net"
	"net/url"
	"strings"

	"gatepass/broker"
)

// partitions are AWS's separate worlds: the region that stands in when none
// is configured, and what the partition's regions begin with. Regions that no
// row claims belong to aws. As in the SDK's partition table, except aws-cn's
// region, which is cn-northwest-1 there.
var partitions = []struct{ name, region, prefix string }{
	{"aws", "us-east-1", ""},
	{"aws-cn", "cn-north-1", "cn-"},
	{"aws-us-gov", "us-gov-west-1", "us-gov-"},
	{"aws-eusc", "eusc-de-east-1", "eusc-"},
	{"aws-iso", "us-iso-east-1", "us-iso-"},
	{"aws-iso-b", "us-isob-east-1", "us-isob-"},
	{"aws-iso-e", "eu-isoe-west-1", "eu-isoe-"},
	{"aws-iso-f", "us-isof-south-1", "us-isof-"},
}

// A place is where a call goes, once decided.
type place struct {
	region   string // to sign for, and of AWS's own endpoint
	endpoint string // "" for AWS's own in that region
}

// place decides where a call goes for a role in partition, "" when no role is
// known. The profile's endpoint goes before the configuration's.
func (c *Client) place(at broker.Target, partition string) (place, error) {
	p := place{region: at.Region, endpoint: c.endpoint}
	if at.Endpoint != "" {
		if err := checkEndpoint(at.Endpoint); err != nil {
			return place{}, broker.Errorf(broker.CodeConfig, "endpoint_url: %w", err)
		}
		p.endpoint = at.Endpoint
	}
	if p.region != "" {
		if !isRegion(p.region) {
			return place{}, broker.Errorf(broker.CodeConfig, "%.100q is not a region", p.region).
				WithHint("a region looks like eu-west-1")
		}
		if of := partitionOf(p.region); partition != "" && of != partition && p.endpoint == "" {
			return place{}, broker.Errorf(broker.CodeConfig, "region %s is in partition %s, but the role is in %s", p.region, of, partition).
				WithHint("no key or session works across partitions: set a region of %s", partition)
		}
		return p, nil
	}
	if partition == "" {
		partition = "aws"
	}
	for _, row := range partitions {
		if row.name == partition {
			p.region = row.region
			return p, nil
		}
	}
	return place{}, broker.Errorf(broker.CodeConfig, "partition %s has no default region that gatepass knows", partition).
		WithHint("set the profile's region")
}

func partitionOf(region string) string {
	for _, row := range partitions[1:] {
		if strings.HasPrefix(region, row.prefix) {
			return row.name
		}
	}
	return "aws"
}

// isRegion reports whether s has the form of a region's name, "us-gov-west-1".
// It becomes part of a host name, so that nothing else may pass.
func isRegion(s string) bool {
	parts := strings.Split(s, "-")
	if len(s) > 32 || len(parts) < 3 {
		return false
	}
	last := len(parts) - 1
	for _, p := range parts[:last] {
		if !only(p, 1, 32, func(c byte) bool { return c >= 'a' && c <= 'z' }) {
			return false
		}
	}
	return only(parts[last], 1, 2, isDigit)
}

// An endpointError says what is wrong with an endpoint. It quotes none of it
// but the scheme and the host: the rest may hold a password.
type endpointError string

func (e endpointError) Error() string { return string(e) }

// checkEndpoint refuses an endpoint that a request with credentials must not
// be sent to.
func checkEndpoint(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "" || !only(u.Host, 1, 300, isGraphic):
		return endpointError("not a URL such as https://host:port")
	case u.User != nil:
		return endpointError("it holds a user or password, which AWS endpoints do not take")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return endpointError("it holds a query or fragment")
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return endpointError("its scheme is neither https nor http")
	case !isLoopback(u.Hostname()):
		return endpointError("plain http to " + scrub(u.Hostname(), nil) + ", which is not this machine, would send sessions in the clear: use https")
	}
	return nil
}

// isLoopback reports whether host is this machine by its spelling alone;
// [transport.dial] sees to it that "localhost" is, whatever DNS says.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
