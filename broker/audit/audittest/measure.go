package audittest

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// TimeRead returns how long it takes to read all bytes of the log in dir, none
// of whose segments is compressed: what benchmarks of readers compare with.
func TimeRead(dir string) (time.Duration, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	start := time.Now()
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		// Neither end may have a way of its own to copy.
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
		f.Close()
		if err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

// PeakHeap returns the most that the heap came to while f ran, in bytes, as
// seen every 20 milliseconds.
func PeakHeap(f func()) (peak uint64) {
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
	f()
	close(stop)
	<-done
	return peak
}
