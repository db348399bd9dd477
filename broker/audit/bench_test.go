package audit_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatepass/broker/audit"
)

// BenchmarkAppendDurable has writers wait for the disk, who come back at once.
// "×sync" is the number of appends in the time of one sync of one entry, the
// median of those before and after, and "p99×sync" the 99th percentile of what
// an append takes, by that same time. What they can be is up to the disk, which
// takes longer for the bytes of 32 entries than for those of one, so "×bare" and
// "p99×bare" compare with [bareGroupCommit], which has nothing else to do, and
// "sync-p99×sync" is the 99th percentile of the disk alone.
func BenchmarkAppendDurable(b *testing.B) {
	for _, writers := range []int{1, 32} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) { appendDurable(b, writers) })
	}
}

func appendDurable(b *testing.B, writers int) {
	dir := b.TempDir()
	syncs := timeSyncs(b, dir)
	bare := bareGroupCommit(b, dir, writers, b.N)
	l := open(b, audit.Options{Dir: filepath.Join(dir, "audit"), Signer: newKey(b).Signer})
	e := event(1)
	b.ReportAllocs()
	b.ResetTimer()
	took := eachWriter(writers, b.N, func() {
		if err := l.Append(b.Context(), e, true); err != nil {
			b.Error(err)
		}
	})
	b.StopTimer()
	bare = append(bare, bareGroupCommit(b, dir, writers, b.N)...)
	syncs = append(syncs, timeSyncs(b, dir)...)
	one := median(syncs)
	perSecond := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(perSecond, "appends/s")
	b.ReportMetric(float64(one.Microseconds()), "sync-µs")
	b.ReportMetric(perSecond*one.Seconds(), "×sync")
	b.ReportMetric(sum(bare).Seconds()/2/sum(took).Seconds(), "×bare")
	b.ReportMetric(p99(took).Seconds()/one.Seconds(), "p99×sync")
	b.ReportMetric(p99(took).Seconds()/p99(bare).Seconds(), "p99×bare")
	b.ReportMetric(p99(syncs).Seconds()/one.Seconds(), "sync-p99×sync")
	shut(b, l)
}

// eachWriter has so many goroutines call f, n times together, and returns how
// long each call took.
func eachWriter(writers, n int, f func()) []time.Duration {
	took := make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range (n + i) / writers {
				start := time.Now()
				f()
				took[next.Add(1)-1] = time.Since(start)
			}
		})
	}
	wg.Wait()
	return took
}

// bareGroupCommit returns how long n appends of ready-made lines by the same
// writers each take where one goroutine writes and syncs what has come together:
// no entry is made, hashed or signed. As the log's does, it lets those whom a
// sync released come back first.
func bareGroupCommit(b *testing.B, dir string, writers, n int) []time.Duration {
	f, err := (audit.OSFS{}).OpenFile(filepath.Join(dir, "bare"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	type batch struct {
		lines   []byte
		waiters int
		done    chan struct{}
	}
	var mu sync.Mutex
	next := &batch{done: make(chan struct{})}
	wake := make(chan struct{}, 1)
	line := bytes.Repeat([]byte("x"), len(segments(b, oneEntry(b))))
	var syncer sync.WaitGroup
	syncer.Go(func() {
		var off int64
		released := 0
		for range wake {
			for try := 0; try < 1000 && released > 1; try++ {
				mu.Lock()
				back := next.waiters
				mu.Unlock()
				if back >= released {
					break
				}
				runtime.Gosched()
			}
			mu.Lock()
			now := next
			next = &batch{done: make(chan struct{})}
			mu.Unlock()
			if _, err := f.WriteAt(now.lines, off); err != nil {
				b.Error(err)
			}
			if err := f.Sync(); err != nil {
				b.Error(err)
			}
			off += int64(len(now.lines))
			released = now.waiters
			close(now.done)
		}
	})
	took := eachWriter(writers, n, func() {
		mu.Lock()
		now := next
		now.lines = append(now.lines, line...)
		now.waiters++
		mu.Unlock()
		select {
		case wake <- struct{}{}:
		default:
		}
		<-now.done
	})
	close(wake)
	syncer.Wait()
	return took
}

// oneEntry returns the directory of a log of one entry.
func oneEntry(b *testing.B) string {
	dir := logDir(b)
	l := open(b, audit.Options{Dir: dir})
	put(b, l, 1, true)
	shut(b, l)
	return dir
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

// BenchmarkLength opens logs of 10,000, 100,000 and 1,000,000 entries that end
// in a checkpoint, and appends to them. "×first" are the multiples of what it
// takes with the first: length must make no difference.
func BenchmarkLength(b *testing.B) {
	key := newKey(b)
	var first struct{ open, append time.Duration }
	for _, entries := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			dir := logDir(b)
			opts := audit.Options{Dir: dir, Signer: key.Signer}
			l := open(b, opts)
			put(b, l, entries, false)
			shut(b, l)
			var opening, appending []time.Duration
			var heap uint64
			b.ResetTimer()
			for b.Loop() {
				before := heapInUse()
				start := time.Now()
				l := open(b, opts)
				opening = append(opening, time.Since(start))
				start = time.Now()
				put(b, l, 1000, false)
				appending = append(appending, time.Since(start))
				heap = max(heap, heapInUse()-before)
				shut(b, l)
			}
			if entries == 10_000 {
				first.open, first.append = median(opening), median(appending)
			}
			b.ReportMetric(float64(median(opening).Microseconds()), "open-µs")
			b.ReportMetric(float64(median(opening))/float64(first.open), "open×first")
			b.ReportMetric(float64(median(appending))/float64(first.append), "append×first")
			b.ReportMetric(float64(heap)/(1<<20), "heap-MiB")
		})
	}
}

// BenchmarkProve proves entries all over a log of 200,000, and reports its time
// as a part of that of a verify of it in the same run.
func BenchmarkProve(b *testing.B) {
	dir, key := logDir(b), newKey(b)
	l := open(b, audit.Options{Dir: dir, Signer: key.Signer})
	put(b, l, 200_000, false)
	shut(b, l)
	start := time.Now()
	if _, err := audit.Verify(b.Context(), audit.VerifyOptions{Dir: dir, Key: key.verifier}); err != nil {
		b.Fatal(err)
	}
	whole := time.Since(start)
	for _, hashes := range []bool{true, false} {
		b.Run(fmt.Sprintf("hashes=%v", hashes), func(b *testing.B) {
			if !hashes {
				if err := os.Remove(filepath.Join(dir, "hashes")); err != nil {
					b.Fatal(err)
				}
			}
			seq := int64(0)
			for b.Loop() {
				if _, err := audit.Prove(b.Context(), dir, key.verifier, seq); err != nil {
					b.Fatal(err)
				}
				seq = (seq + 61_803) % 200_000
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(whole), "×verify")
		})
	}
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)*99/100]
}

func sum(all []time.Duration) (total time.Duration) {
	for _, t := range all {
		total += t
	}
	return total
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkCompress compresses one full segment beside a writer who waits for
// the disk. "×alone" is the 99th percentile of what an append takes then, as a
// multiple of the same without.
func BenchmarkCompress(b *testing.B) {
	key := newKey(b)
	appends := func(l *audit.Log, until func() bool) (all []time.Duration) {
		for !until() {
			start := time.Now()
			put(b, l, 1, true)
			all = append(all, time.Since(start))
		}
		return all
	}
	var alone, beside, took time.Duration
	var plain, compressed int64
	for b.Loop() {
		dir := logDir(b)
		l := open(b, audit.Options{Dir: dir, Signer: key.Signer})
		for i := 0; ; i++ {
			put(b, l, 1, false)
			if i%1000 == 0 {
				if files, _ := forms(b, dir); len(files) == 2 {
					break
				}
			}
		}
		n := 0
		alone += p99(appends(l, func() bool { n++; return n > 3000 }))
		shut(b, l)
		info, err := os.Stat(filepath.Join(dir, "000001.jsonl"))
		if err != nil {
			b.Fatal(err)
		}
		plain = info.Size()
		l = openAsIs(b, audit.Options{Dir: dir, Signer: key.Signer})
		start := time.Now()
		beside += p99(appends(l, func() bool {
			_, err := os.Stat(filepath.Join(dir, "000001.jsonl"))
			return err != nil
		}))
		took += time.Since(start)
		shut(b, l)
		if info, err = os.Stat(filepath.Join(dir, "000001.jsonl.zst")); err != nil {
			b.Fatal(err)
		}
		compressed = info.Size()
	}
	b.ReportMetric(float64(plain)/float64(compressed), "×smaller")
	b.ReportMetric(took.Seconds()/float64(b.N), "s/segment")
	b.ReportMetric(float64(beside)/float64(alone), "p99×alone")
}
