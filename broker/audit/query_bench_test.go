package audit_test

import (
	"testing"
	"time"

	"gatepass/broker/audit"
	"gatepass/broker/audit/audittest"
)

// BenchmarkQuery asks a log of 1,000,000 entries over 30 days. "×read" is the
// time as a multiple of what reading all of its bytes takes, in the same run.
func BenchmarkQuery(b *testing.B) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	log, err := audittest.Write(b.Context(), audittest.Options{Dir: logDir(b), Entries: 1_000_000, Until: now})
	if err != nil {
		b.Fatal(err)
	}
	last := now
	for line := range audit.Entries(b.Context(), log.Dir, audit.Query{Last: 1}) {
		last = line.Time()
	}
	list := func(q audit.Query) func(b *testing.B) int {
		return func(b *testing.B) (n int) {
			for _, err := range audit.Entries(b.Context(), log.Dir, q) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
			return n
		}
	}
	trace := func(id string) func(b *testing.B) int {
		return func(b *testing.B) (n int) {
			t, err := audit.FindTrace(b.Context(), log.Dir, id)
			if err != nil {
				b.Fatal(err)
			}
			for _, s := range t.Sessions {
				for _, r := range s.Recipients {
					n += r.Handouts
				}
			}
			return n
		}
	}
	for _, ask := range []struct {
		name string
		ask  func(b *testing.B) int
	}{
		{"since=1h", list(audit.Query{Since: last.Add(-time.Hour)})},
		{"since=1h/decoded", list(audit.Query{Since: last.Add(-time.Hour), Decode: true})},
		{"last=20", list(audit.Query{Last: 20})},
		{"seq", list(audit.Query{From: 500_000, To: 500_001})},
		{"profile", list(audit.Query{Profile: []string{log.Shared.Profile}})},
		{"denied", list(audit.Query{Outcome: []string{"denied"}})},
		{"all", list(audit.Query{})},
		{"all/decoded", list(audit.Query{Decode: true})},
		{"trace=session", trace(log.Shared.AccessKeyID)},
		{"trace=lease", trace(log.Lease)},
		{"trace=key", trace("AKIAIOSFODNN7EXAMPLE")},
	} {
		b.Run(ask.name, func(b *testing.B) {
			var n int
			b.ReportAllocs()
			for b.Loop() {
				n = ask.ask(b)
			}
			read, err := audittest.TimeRead(log.Dir)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(n), "found")
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(read), "×read")
		})
	}
}
