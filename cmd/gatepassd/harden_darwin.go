package main

// harden keeps core files from being written. That other programs cannot
// read this one's memory is up to how it was signed (hardened runtime).
func harden() error { return hardenUnix() }
