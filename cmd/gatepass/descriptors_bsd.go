//go:build unix && !linux

package main

// closeOnExec marks every descriptor but the standard streams, ours and
// inherited alike, so that no program that we start gets it.
func closeOnExec() { markListed("/dev/fd") }
