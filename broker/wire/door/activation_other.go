//go:build !linux

package door

import "net"

// Activation returns false: only systemd passes a listener.
func Activation() (net.Listener, bool, error) { return nil, false, nil }
