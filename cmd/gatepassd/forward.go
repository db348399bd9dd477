package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/audit/forward"
)

// newForwarder returns what sends the log to other places. What it cannot use
// of cfg is told with its place in the file.
func newForwarder(cfg config, paths broker.Paths, log *slog.Logger) (*forward.Forwarder, error) {
	host, _ := os.Hostname()
	f, err := forward.New(forward.Config{
		Dir: paths.AuditDir, Destinations: cfg.Audit.forward, Cursors: cursorBook{paths.Forward}, Host: host, Logger: log,
	})
	if err != nil && cfg.refuse != nil {
		return nil, cfg.refuse("audit.forward", err)
	}
	return f, err
}

// A forwardedLog is the audit log together with where it is sent.
type forwardedLog struct {
	*audit.Log
	forwarder forwarder
}

// A forwarder is a [forward.Forwarder].
type forwarder interface {
	Written()
	Status(entries int64) []broker.ForwardStatus
}

func (l forwardedLog) Append(ctx context.Context, e broker.Event, durable bool) error {
	err := l.Log.Append(ctx, e, durable)
	l.forwarder.Written() // a refusal too may have written what waited before
	return err
}

func (l forwardedLog) Status() broker.LogStatus {
	st := l.Log.Status()
	st.Forward = l.forwarder.Status(st.Entries)
	return st
}

// A cursorBook is the file that says how far the log is sent. The daemon alone
// writes it.
type cursorBook struct{ path string }

// maxCursors limits what is read: a cursor has some hundred bytes.
const maxCursors = 1 << 20

type cursorsFile struct {
	Forward map[string]forward.Cursor `json:"forward"`
}

func (b cursorBook) Cursors() (map[string]forward.Cursor, error) {
	var in cursorsFile
	if err := loadJSON(b.path, maxCursors, &in); err != nil {
		return nil, fmt.Errorf("read %s: %w", b.path, err)
	}
	return in.Forward, nil
}

func (b cursorBook) SaveCursors(all map[string]forward.Cursor) error {
	if err := saveJSON(b.path, cursorsFile{Forward: all}); err != nil {
		return fmt.Errorf("write %s: %w", b.path, err)
	}
	return nil
}
