package report_test

import (
	"io"
	"path/filepath"
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
	peak := audittest.PeakHeap(func() {
		for b.Loop() {
			if err := report.Write(b.Context(), io.Discard, report.Options{LogDir: dir, Now: time.Now()}); err != nil {
				b.Error(err)
			}
		}
	})
	read, err := audittest.TimeRead(dir)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(read), "×read")
	b.ReportMetric(float64(peak)/1e6, "peak-MB")
}
