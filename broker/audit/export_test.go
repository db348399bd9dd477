package audit

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
