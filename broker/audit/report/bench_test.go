package report_test

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"gatepass/broker/audit/audittest"
	"gatepass/broker/audit/report"
)

// BenchmarkWrite reports on a log of 1,000,000 entries. "×read" is the time as
// a multiple of what reading all of its bytes takes, in the same run, and
// "peak-MB" the most that the heap came to.
func BenchmarkWrite(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "audit")
	if _, err := audittest.Write(b.Context(), audittest.Options{Dir: dir, Entries: 1_000_000}); err != nil {
		b.Fatal(err)
	}
	var peak uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var m runtime.MemStats
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
		}
	}()
	for b.Loop() {
		if err := report.Write(b.Context(), io.Discard, report.Options{LogDir: dir, Now: time.Now()}); err != nil {
			b.Fatal(err)
		}
	}
	close(stop)
	<-done
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 256<<10))
		f.Close()
	}
	read := time.Since(start)
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(read), "×read")
	b.ReportMetric(float64(peak)/1e6, "peak-MB")
}
