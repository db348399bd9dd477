package audit_test

import (
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"gatepass/broker/audit"
)

// BenchmarkAppendDurable has 32 writers wait for the disk. "×sync" is the
// number of appends in the time of one sync of one entry, the median of those
// before and after; the target is 0.6 × 32 = 19.2.
func BenchmarkAppendDurable(b *testing.B) {
	const writers = 32
	dir := b.TempDir()
	syncs := timeSyncs(b, dir)
	l := open(b, audit.Options{Dir: filepath.Join(dir, "audit"), Signer: newKey(b).Signer})
	work := make(chan int)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			e := event(1)
			for n := range work {
				for range n {
					if err := l.Append(b.Context(), e, true); err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range writers {
		work <- (b.N + i) / writers
	}
	close(work)
	wg.Wait()
	b.StopTimer()
	syncs = append(syncs, timeSyncs(b, dir)...)
	slices.Sort(syncs)
	median := syncs[len(syncs)/2]
	perSecond := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(perSecond, "appends/s")
	b.ReportMetric(float64(median.Microseconds()), "sync-µs")
	b.ReportMetric(perSecond*median.Seconds(), "×sync")
	shut(b, l)
}

// timeSyncs measures how long the fdatasync after an append of an entry's size
// takes.
func timeSyncs(b *testing.B, dir string) []time.Duration {
	f, err := (audit.OSFS{}).OpenFile(filepath.Join(dir, "probe"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	var all []time.Duration
	line := make([]byte, 800)
	for i := range 300 {
		if _, err := f.WriteAt(line, int64(i*len(line))); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(start))
	}
	return all
}

// BenchmarkAppend is one writer who does not wait for the disk: what a
// hand-out from the cache pays.
func BenchmarkAppend(b *testing.B) {
	l := open(b, audit.Options{Dir: logDir(b), Signer: newKey(b).Signer})
	e := event(1)
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Append(b.Context(), e, false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
	shut(b, l)
}

// BenchmarkVerify reports its time as a multiple of that of sha256sum, or
// where there is none of crypto/sha256, over the same bytes. The target is 3.
func BenchmarkVerify(b *testing.B) {
	dir, key := logDir(b), newKey(b)
	l := open(b, audit.Options{Dir: dir, Signer: key.Signer})
	put(b, l, 200_000, false)
	shut(b, l)
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(segments(b, dir))))
	var sum time.Duration
	b.ReportAllocs()
	for b.Loop() {
		if _, err := audit.Verify(b.Context(), audit.VerifyOptions{Dir: dir, Key: key.verifier}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		start := time.Now()
		if out, err := exec.Command("sha256sum", names...).CombinedOutput(); err != nil {
			b.Logf("sha256sum: %v %s", err, out)
			start = time.Now()
			for _, name := range names {
				f, err := os.Open(name)
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(sha256.New(), f)
				f.Close()
			}
		}
		sum += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed())/float64(sum), "×sha256sum")
}

// BenchmarkOpen opens a log of 200,000 entries that ends in a checkpoint.
func BenchmarkOpen(b *testing.B) {
	dir, key := logDir(b), newKey(b)
	l := open(b, audit.Options{Dir: dir, Signer: key.Signer})
	put(b, l, 200_000, false)
	shut(b, l)
	for b.Loop() {
		l := open(b, audit.Options{Dir: dir, Signer: key.Signer})
		shut(b, l)
	}
}
