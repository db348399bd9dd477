package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gatepass/broker"
)

// anchoredName is the file that says which checkpoint last left this machine,
// and when.
const anchoredName = "anchored"

// anchorBackoff is the longest pause between two attempts to send a
// checkpoint away.
const anchorBackoff = 10 * time.Minute

// anchoring is the state of what sends checkpoints away.
type anchoring struct {
	wake chan struct{} // one place
	done chan struct{} // closed when nothing is sent any more

	mu     sync.Mutex
	newest []byte // the newest checkpoint on disk, nil without one
	sent   []byte // the last one that was sent
	status broker.Anchor
}

// anchorAll sends the newest checkpoint away whenever there is one that was
// not, one at a time. What came while one was sent or could not be, is skipped
// but for the newest: it covers all that they did.
func (l *Log) anchorAll() {
	a := &l.anchor
	defer close(a.done)
	if l.opts.Anchor == nil {
		return
	}
	var backoff time.Duration
	for {
		select {
		case <-a.wake:
		case <-l.ctx.Done():
			return
		}
		for {
			err := l.anchorNewest()
			if l.ctx.Err() != nil {
				return
			}
			if err == nil {
				backoff = 0
				break
			}
			backoff = min(max(2*backoff, checkpointInterval), anchorBackoff)
			l.log.Warn("audit log's checkpoint cannot be sent away", "retry", backoff, "err", err)
			if rest(l.ctx, backoff) != nil {
				return
			}
		}
	}
}

// anchorNewest sends the newest checkpoint away, if it was not yet, and
// remembers on disk that it did.
func (l *Log) anchorNewest() error {
	a := &l.anchor
	a.mu.Lock()
	newest, sent := a.newest, a.sent
	a.mu.Unlock()
	if newest == nil || bytes.Equal(newest, sent) {
		return nil
	}
	c, _, err := nextCheckpoint(newest)
	if err == nil {
		err = l.opts.Anchor(l.ctx, newest)
	}
	if err != nil {
		a.mu.Lock()
		a.status.Error = err.Error()
		a.mu.Unlock()
		return err
	}
	at := l.opts.Now().UTC()
	a.mu.Lock()
	a.sent, a.status = newest, broker.Anchor{Time: at, Entries: c.size}
	a.mu.Unlock()
	name := filepath.Join(l.dir, anchoredName)
	err = l.inPlace()
	if err == nil {
		err = writeFile(l.fs, l.dir, name, fmt.Appendf(nil, "%s\n%s", at.Format(timeFormat), newest))
	}
	if err != nil {
		l.log.Warn("audit log's last anchored checkpoint cannot be remembered", "err", err)
	}
	return nil
}

// toAnchor makes msg the newest checkpoint.
func (l *Log) toAnchor(msg []byte) {
	l.anchor.mu.Lock()
	l.anchor.newest = msg
	l.anchor.mu.Unlock()
	select {
	case l.anchor.wake <- struct{}{}:
	default:
	}
}

// startAnchoring goes on from what an earlier run sent.
func (l *Log) startAnchoring() {
	a := &l.anchor
	last, at, err := readAnchored(l.dir)
	if err != nil {
		l.log.Warn("audit log does not know which checkpoint was last sent away", "err", err)
	}
	if last != nil {
		a.sent, a.status = last.note, broker.Anchor{Time: at, Entries: last.size}
	}
	if err := l.writeFound(); err != nil {
		l.log.Warn("audit log's last checkpoint cannot be brought to disk", "err", err)
	} else if c := l.sign.last; c != nil {
		l.toAnchor(c.note)
	}
	go l.anchorAll()
}

// readAnchored returns the checkpoint that last left this machine, and when,
// as far as the file beside the log tells: nil without one.
func readAnchored(dir string) (*checkpoint, time.Time, error) {
	f, err := os.Open(filepath.Join(dir, anchoredName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 2*maxCheckpoint)) // more is cut short, and so is none
	if err != nil {
		return nil, time.Time{}, err
	}
	when, rest, _ := bytes.Cut(b, []byte("\n"))
	at, err := time.Parse(timeFormat, string(when))
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("the file %s does not begin with a time", anchoredName)
	}
	c, n, err := nextCheckpoint(rest)
	if err != nil || n != len(rest) || len(c.note) != n {
		return nil, time.Time{}, fmt.Errorf("the file %s holds no checkpoint after its time", anchoredName)
	}
	return &c, at, nil
}
