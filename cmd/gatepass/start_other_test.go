//go:build !unix

package main

func fakeDaemonMain() { panic("the stand-in for the daemon is written for Unix") }
