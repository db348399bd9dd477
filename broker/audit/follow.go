package audit

import (
	"context"
	"time"
)

// A watcher waits for changes in a directory.
type watcher interface {
	// wait returns when something may have changed since the last wait, or
	// ctx's error.
	wait(ctx context.Context) error
	close()
}

// A pollWatcher is for where the system does not tell of changes.
type pollWatcher struct{}

const pollInterval = 500 * time.Millisecond

func (pollWatcher) wait(ctx context.Context) error {
	return rest(ctx, pollInterval)
}

func (pollWatcher) close() {}
