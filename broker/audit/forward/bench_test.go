package forward

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"gatepass/broker/audit"
)

// BenchmarkAppendBeside says what those who write to the log pay for its being
// forwarded: as "×alone", the time of 32 writers beside a destination that
// hangs, one that is not there and one that takes all, over their time with
// none of them.
func BenchmarkAppendBeside(b *testing.B) {
	c := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	b.Cleanup(c.Close)
	run := func(forwarded bool) time.Duration {
		l, dir := newLog(b, audit.Options{})
		if forwarded {
			cfg := quick(dir, &memory{})
			cfg.sleep = sleep
			forwarding(b, cfg, &fakeSink{do: func(ctx context.Context, _ []record) (int, error) { <-ctx.Done(); return 0, ctx.Err() }})
			running(b, cfg, "syslog+tcp://127.0.0.1:1")
			running(b, cfg, "otlp+"+c.URL)
		}
		start := time.Now()
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for i := range b.N/32 + 1 {
					if err := l.Append(context.Background(), event(i), false); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return time.Since(start)
	}
	alone := run(false)
	beside := run(true)
	b.ReportMetric(float64(beside)/float64(alone), "×alone")
	b.ReportMetric(float64(beside.Nanoseconds())/float64(b.N), "ns/append")
}
