//go:build unix

package door

import (
	"context"
	"net"
	"os"
	"time"
)

// vanishInterval is how often the socket is looked at where the kernel does
// not tell: more often than the next daemon gives up waiting for this one.
const vanishInterval = 3 * time.Second

// Vanished returns a channel that is closed once the socket of ln has gone
// from its path or been replaced: no client will find this daemon again. The
// watch ends with ctx. A listener without a path never vanishes.
//
// On Linux the kernel tells (inotify); elsewhere, and where the user's
// inotify instances are used up, the path is looked at every 3 s. A
// directory above the socket's own that is renamed goes unnoticed on Linux.
func Vanished(ctx context.Context, ln net.Listener) <-chan struct{} {
	gone := make(chan struct{})
	path := ln.Addr().String()
	if path == "" || path[0] != '/' {
		return gone
	}
	var file os.FileInfo
	if l, ok := ln.(*listener); ok {
		file = l.file
	} else if file, _ = os.Lstat(path); file == nil {
		close(gone)
		return gone
	}
	there := func() bool {
		now, err := os.Lstat(path)
		return err == nil && os.SameFile(now, file)
	}
	wait, err := watch(ctx, path)
	if err != nil {
		wait = look(ctx)
	}
	go func() {
		for there() { // once more after the watch began
			if !wait() {
				return
			}
		}
		if ctx.Err() == nil {
			close(gone)
		}
	}()
	return gone
}

// look returns a function that waits for the time of another look, or
// returns false when ctx ends.
func look(ctx context.Context) func() bool {
	tick := time.NewTicker(vanishInterval)
	return func() bool {
		select {
		case <-tick.C:
			return true
		case <-ctx.Done():
			tick.Stop()
			return false
		}
	}
}
