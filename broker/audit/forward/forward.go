// Package forward sends the entries of the audit log to other places as they
// are written: to journald, to a syslog server, to an OpenTelemetry collector.
//
// It reads the log's files as any reader does, so it is never in the way of a
// request, needs no queue of its own, and goes on after an outage or a restart
// where it was: a cursor for each destination says what is there already. What
// arrives is in the log's order. Every entry arrives at least once, as far as
// the destination's protocol can say that something arrived: a batch counts as
// delivered when
//
//	syslog+tcp, syslog+tls   the server has read all of it and has closed the
//	                         connection, which is made anew for every batch
//	otlp                     the answer is 200, or 204
//	journald                 it is in journald's socket, which systemd holds
//	                         while journald restarts
//	syslog+udp               it was sent, which is no delivery: what is lost on
//	                         the way is lost
//
// Else all of it is sent again, so entries may come twice where there was a
// failure; their numbers tell. A destination that was never used begins with
// the first entry that the log has.
//
// What arrives holds the entry as it stands in the log, byte for byte. So the
// leaf of the log's tree can be computed from it, and the log be held against
// what was sent away.
package forward

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gatepass/broker"
)

// A Config says what is sent where.
type Config struct {
	Dir          string // the audit log
	Destinations []Destination
	Cursors      Cursors
	Host         string       // this machine's name, for those who get entries of many
	Logger       *slog.Logger // by default none

	now     func() time.Time
	sleep   func(context.Context, time.Duration) error
	timeout time.Duration // of a batch
	gather  time.Duration // how long a batch waits for further entries
	drain   time.Duration // at the end
}

// A Forwarder sends entries to all destinations, each on its own.
type Forwarder struct {
	cfg   Config
	to    []namedSink
	book  *book // from Start on, as are the feeds
	feeds []*feed
	wg    sync.WaitGroup
	stop  context.CancelFunc
}

type namedSink struct {
	name string
	sink sink
}

// New returns a forwarder that does not run yet. An error is about the
// destination that it names, and never quotes what a file of headers holds.
func New(cfg Config) (*Forwarder, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	if cfg.sleep == nil {
		cfg.sleep = sleep
	}
	if cfg.gather == 0 {
		cfg.gather = batchWait
	}
	if cfg.timeout == 0 {
		cfg.timeout = sendTimeout
	}
	if cfg.drain == 0 {
		cfg.drain = drainTime
	}
	f := &Forwarder{cfg: cfg}
	for _, d := range cfg.Destinations {
		s, err := newSink(d, cfg.Host)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Name(), err)
		}
		f.to = append(f.to, namedSink{d.Name(), s})
	}
	return f, nil
}

// newSink returns the way to a destination.
func newSink(d Destination, host string) (sink, error) {
	switch d.protocol {
	case journaldProtocol:
		return newJournald()
	case otlpHTTP, otlpHTTPS:
		return newOTLP(d, host)
	}
	return newSyslog(d, host)
}

// Start begins to send. By then the log is to be the caller's: the cursors are
// read here, since whoever had the log before moves them on until it is.
func (f *Forwarder) Start() {
	if len(f.to) > 0 {
		f.book = openBook(f.cfg.Cursors, f.cfg.now, f.cfg.Logger)
	}
	for _, to := range f.to {
		f.feeds = append(f.feeds, newFeed(f.cfg, to.name, to.sink, f.book))
	}
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	for _, feed := range f.feeds {
		f.wg.Go(func() { feed.run(ctx) })
	}
}

// Written tells that the log has further entries: a destination that failed is
// then tried again sooner. It never waits.
func (f *Forwarder) Written() {
	for _, feed := range f.feeds {
		feed.written()
	}
}

// drainTime is how long the last entries may take to leave at the end.
const drainTime = 2 * time.Second

// Close ends the sending. Destinations that answered lately are given a
// moment, so that they get the log's last entries, of which there are entries.
func (f *Forwarder) Close(entries int64) {
	if f.stop == nil || f.book == nil {
		return
	}
	for _, feed := range f.feeds {
		feed.finish(entries)
	}
	late := time.AfterFunc(f.cfg.drain, f.stop)
	f.wg.Wait()
	late.Stop()
	f.stop()
	f.book.flush()
}

// Status tells how far each destination is, in a log of so many entries.
func (f *Forwarder) Status(entries int64) []broker.ForwardStatus {
	var all []broker.ForwardStatus
	for _, feed := range f.feeds {
		all = append(all, feed.status(entries))
	}
	return all
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
