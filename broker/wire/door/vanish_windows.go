package door

import (
	"context"
	"net"
)

// Vanished returns a channel that is never closed: a pipe lives as long as
// its listener.
func Vanished(ctx context.Context, ln net.Listener) <-chan struct{} { return make(chan struct{}) }
