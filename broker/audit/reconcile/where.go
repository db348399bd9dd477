package reconcile

import (
	"net/netip"
	"slices"
	"strings"
)

// network is what tells one place from another: an IPv4 address, or the /64 of
// an IPv6 address, within which laptops change theirs.
func network(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

// known reports whether the broker called STS from a network, or the user vouches
// for it.
func (f *facts) known(network string) bool {
	if f.addresses[network] {
		return true
	}
	text, _, _ := strings.Cut(network, "/")
	a, err := netip.ParseAddr(text)
	return err == nil && slices.ContainsFunc(f.vouched, func(p netip.Prefix) bool { return p.Contains(a) })
}

// agentFamily is the operating system that a user agent names, or what comes
// first in it; "" for what says nothing of a laptop. Versions and programs
// come and go, systems seldom do.
func agentFamily(agent string) string {
	lower := strings.ToLower(agent)
	switch {
	case lower == "", strings.HasSuffix(lower, ".amazonaws.com"), strings.HasPrefix(lower, "aws internal"), strings.HasPrefix(lower, "aws-internal"),
		strings.HasPrefix(lower, "gatepass/"):
		return ""
	}
	for _, system := range [...]struct{ word, family string }{
		{"os/linux", "linux"}, {"os/macos", "macos"}, {"os/darwin", "macos"}, {"os/windows", "windows"}, {"os/android", "android"}, {"os/ios", "ios"},
		{"windows", "windows"}, {"darwin", "macos"}, {"macos", "macos"}, {"mac os", "macos"}, {"mac_os", "macos"}, {"linux", "linux"},
	} {
		if strings.Contains(lower, system.word) {
			return system.family
		}
	}
	product, _, _ := strings.Cut(lower, "/")
	product, _, _ = strings.Cut(product, " ")
	return product[:min(len(product), 64)]
}
