//go:build race

package main

const raceEnabled = true

// raceOptions is for programs that are built with the race detector. They
// would sleep a second at their end, so that other threads can report.
const raceOptions = "atexit_sleep_ms=0"
