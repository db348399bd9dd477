package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// errNotWritten is for a segment that does not hold what was written to it.
var errNotWritten = errors.New("not what was written")

// compress puts a compressed file in the place of segment num, which holds the
// entries from first to before end. The plain one goes once the other is on
// disk and its leaves are those of the tree; a crash before leaves both, and
// then the plain one counts, and this is done again.
func (l *Log) compress(ctx context.Context, num int, first, end int64) error {
	plain := filepath.Join(l.dir, segmentName(num))
	name := plain + compressedExt
	tmp := name + ".tmp"
	err := l.writeCompressed(ctx, plain, tmp)
	if err == nil {
		err = l.holdAgainstTree(ctx, tmp, first, end)
	}
	if err == nil {
		err = l.fs.Rename(tmp, name)
	}
	if err != nil {
		l.fs.Remove(tmp)
		return err
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	if err := l.fs.Remove(plain); err != nil {
		return err
	}
	return l.fs.SyncDir(l.dir)
}

func (l *Log) writeCompressed(ctx context.Context, plain, tmp string) error {
	in, err := os.Open(plain)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := l.fs.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	w, err := newFrameWriter(out)
	if err != nil {
		return err
	}
	buf := make([]byte, maxFrame)
	var p pace
	for fill := 0; ; {
		n, err := io.ReadFull(in, buf[fill:])
		fill += n
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		if fill == 0 {
			return w.finish()
		}
		end := bytes.LastIndexByte(buf[:fill], '\n') + 1
		if end == 0 {
			return fmt.Errorf("a line without its end: %w", errNotWritten)
		}
		if err := w.frame(buf[:end]); err != nil {
			return err
		}
		fill = copy(buf, buf[end:fill])
		if err := p.at(ctx, w.off+maxFrame); err != nil {
			return err
		}
	}
}

// holdAgainstTree reads a compressed segment and compares its leaves with
// those that the tree was made of, from first to before end.
func (l *Log) holdAgainstTree(ctx context.Context, name string, first, end int64) error {
	in, err := openCompressed(name)
	if err != nil {
		return err
	}
	defer in.Close()
	hashes, err := os.Open(filepath.Join(l.dir, hashesName))
	if err != nil {
		return err
	}
	defer hashes.Close()
	lines, leaves := newLines(in, 0), newLeafReader(hashes, first)
	var p pace
	for {
		line, err := lines.next()
		if err == io.EOF && len(line) == 0 && leaves.n == end {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read entry %d again: %w", leaves.n, err)
		}
		leaf, err := leaves.next()
		if err != nil {
			return fmt.Errorf("read the hash of entry %d: %w", leaves.n, err)
		}
		if leaf != tlog.RecordHash(line) {
			return fmt.Errorf("entry %d is %w", leaves.n-1, errNotWritten)
		}
		if err := p.at(ctx, lines.off); err != nil {
			return err
		}
	}
}

// A pace has work that nobody waits for rest often, and longer than it works:
// the processors have better things to do.
type pace struct {
	next  int64
	since time.Time
}

// at rests if the work has come a frame further, now at off.
func (p *pace) at(ctx context.Context, off int64) error {
	if off < p.next {
		return nil
	}
	if p.next > 0 {
		if err := rest(ctx, 3*time.Since(p.since)); err != nil {
			return err
		}
	}
	p.next, p.since = off+maxFrame, time.Now()
	return nil
}
