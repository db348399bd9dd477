package audit

import (
	"context"
	"iter"
)

// The seams that tests reach through.

type (
	FileSystem = fileSystem
	File       = file
	OSFS       = osFS
)

func (o Options) WithFS(fsys FileSystem) Options {
	o.fs = fsys
	return o
}

var (
	MaskCommand  = maskCommand
	AppendString = appendString
)

// EntriesBy is Entries with stretches of size bytes, or of segments that are
// read as compressed ones are.
func EntriesBy(ctx context.Context, dir string, q Query, size int64, stream bool) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		r := newReader(ctx, dir)
		r.size, r.stream = size, stream
		r.yield(q, yield)
	}
}

const (
	MaxPending = maxPending
	MaxString  = maxString
)

// Abandon is the end of the process without Close: what is in memory is lost,
// the lock is free.
func Abandon(l *Log) {
	l.mu.Lock()
	l.closed = true
	l.batch.lines, l.batch.written, l.unwritten = nil, 0, nil
	l.broken = nil
	l.timer.Stop()
	l.mu.Unlock()
	l.cancel()
	<-l.growerDone
	<-l.signerDone
	l.closeFiles()
}
