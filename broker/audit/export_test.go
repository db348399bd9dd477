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
