package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// profiles list, the whole process, of a config with 10,000 profiles in
// 100,000 lines: as it is listed again and again, and each time after a change.
func BenchmarkProfilesList(b *testing.B) {
	const n = 10000
	var config strings.Builder
	for i := range n {
		fmt.Fprintf(&config, "# team %d\n[profile team-%05d]\nrole_arn = arn:aws:iam::111122223333:role/team/Developer%d\nsource_profile = base\n"+
			"region = eu-west-1\noutput = json\ns3 =\n  max_concurrent_requests = 20\n  max_queue_size = 10000\n\n", i, i, i)
	}
	const base = "[profile base]\ngatepass_key = alice\n"
	r := newRealm(b)
	list := func(b *testing.B, args ...string) {
		out, err := r.command("gatepass", append([]string{"profiles", "list"}, args...)...).CombinedOutput()
		if err != nil || bytes.Count(out, []byte("team-")) != n {
			b.Fatalf("%v: %.300s", err, out)
		}
	}
	r.write(b, ".aws/config", base+config.String())
	for _, args := range [][]string{nil, {"--json"}} {
		b.Run(strings.Join(append([]string{"unchanged"}, args...), ""), func(b *testing.B) {
			for b.Loop() {
				list(b, args...)
			}
		})
	}
	b.Run("changed", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			r.write(b, ".aws/config", fmt.Sprintf("# %d\n%s%s", i, base, config.String()))
			b.StartTimer()
			list(b)
		}
	})
}
