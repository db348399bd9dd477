//go:build unix

package scope

import "gatepass/broker"

// exitOf reads a status as of waitpid(2).
func exitOf(status int) broker.Exit {
	if signal := status & 0x7f; signal != 0 {
		return broker.Exit{Known: true, Status: 128 + signal}
	}
	return broker.Exit{Known: true, Status: status >> 8 & 0xff}
}
