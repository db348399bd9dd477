package scope

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/scope/scopetest"
)

// BenchmarkWithin is the gate's question about each caller: which lease it is
// inside. The caller is ten processes deep and none of them is a lease's root,
// so that the scope has the last word: of a process outside of all leases, and
// of one that is left in a lease's scope.
func BenchmarkWithin(b *testing.B) {
	m := scopetest.Start(b, os.Getuid())
	trees := newTrees(b, Config{RuntimeDir: m.RuntimeDir})
	root, outside := start(b, 0), start(b, 0)
	scope := mustEnclose(b, trees, root.id)
	left := start(b, 0)
	dir, err := trees.hierarchy.scopeDir(scope)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, left.id.PID), 0); err != nil {
		b.Fatal(err)
	}
	gate := broker.New(broker.Config{
		Log: noLog{}, Leases: &broker.Leases{Processes: trees, Book: oneLease{broker.Lease{
			ID: "l-one", Profiles: []string{"ops"}, Root: root.id, Boot: trees.Boot(), Scope: scope, Started: time.Now(),
		}}},
	})
	if err := gate.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	ask := func(b *testing.B, id broker.ProcessID, inside bool) {
		c := broker.Caller{PID: id.PID, ID: id, Resolved: true}
		for i := range 10 {
			c.Ancestors = append(c.Ancestors, broker.Process{PID: i + 1, ID: broker.ProcessID{PID: i + 1, Start: 1}})
		}
		b.ReportAllocs()
		begin := cpuTime(b)
		for b.Loop() {
			if _, got := gate.OwnLease(c); got != inside {
				b.Fatalf("inside: %v", got)
			}
		}
		reportCPU(b, begin)
	}
	both := func(b *testing.B) {
		b.Run("outside", func(b *testing.B) { ask(b, outside.id, false) })
		b.Run("left in the scope", func(b *testing.B) { ask(b, left.id, true) })
	}
	b.Run("PIDFD_GET_INFO", func(b *testing.B) {
		if !trees.tellsGroup {
			b.Skip("the kernel does not tell control groups by pidfd (Linux 6.13)")
		}
		both(b)
	})
	b.Run("older kernels", func(b *testing.B) {
		trees.tellsGroup = false
		trees.asked.close()
		both(b)
	})
}

type noLog struct{ broker.Log }

func (noLog) Append(context.Context, broker.Event, bool) error { return nil }

type oneLease struct{ lease broker.Lease }

func (o oneLease) Leases() ([]broker.Lease, error) { return []broker.Lease{o.lease}, nil }
func (oneLease) SaveLeases([]broker.Lease) error   { return nil }
