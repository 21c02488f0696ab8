package store_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
	"occam/internal/store/storetest"
)

var ctx = context.Background()

// BenchmarkPaid measures intent + outcome with 64 callers: each op is two durable writes.
func BenchmarkPaid(b *testing.B) {
	for _, d := range []struct {
		name string
		store.Durability
	}{{"full", store.Full}, {"normal", store.Normal}} {
		b.Run(d.name, func(b *testing.B) {
			s, err := store.Open(ctx, "sqlite:"+b.TempDir(), store.Options{Durability: d.Durability})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			var n atomic.Int64
			var group sync.WaitGroup
			began := cpuTime(b)
			b.ReportAllocs()
			b.ResetTimer()
			for range 64 {
				group.Go(func() {
					for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
						a := storetest.Paid(store.NewID(time.Now()), time.Now())
						if err := s.Intend(ctx, a); err != nil {
							b.Error(err)
						}
						if err := s.Finish(ctx, storetest.Settle(a, 5)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			group.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "attempts/s")
			b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
		})
	}
}

// BenchmarkFree measures free answers, from the first row queued to the last one in the database, as the gateway records them: of one
// task, and of 8 tasks with 3 tiers each for 16 keys. CPU is the whole process's, so compare it with itself only.
func BenchmarkFree(b *testing.B) {
	for _, spread := range []struct {
		name               string
		tasks, tiers, keys int
	}{{"one", 1, 1, 1}, {"mixed", 8, 3, 16}} {
		b.Run(spread.name, func(b *testing.B) {
			s, err := store.Open(ctx, "sqlite:"+b.TempDir(), store.Options{})
			if err != nil {
				b.Fatal(err)
			}
			names := func(format string, n int) (all []string) {
				for i := range n {
					all = append(all, fmt.Sprintf(format, i))
				}
				return all
			}
			tasks, tiers, keys := names("triage-%d", spread.tasks), names("linear-%d", spread.tiers), names("01K6B3QY8V4N5C9D2F7G0H%04d", spread.keys)
			models := names("triage@1234567890ab%04d", spread.tasks*spread.tiers)
			b.ReportAllocs()
			began := cpuTime(b)
			b.ResetTimer()
			for i := range b.N {
				at := time.Now()
				r := (i * 7919) >> 3
				task, tier := r%spread.tasks, r/5%spread.tiers
				a := store.Attempt{ID: store.NewID(at), RequestID: store.NewID(at), At: at, KeyID: keys[r/3%spread.keys],
					Task: tasks[task], Tier: tiers[tier], Model: models[task*spread.tiers+tier], InputHash: uint64(i) * 0x9E3779B97F4A7C15,
					Reason: "certified", Answered: true, Confidence: 0.9 + float64(i%1000)/1e4, Status: 200, Reference: cost.Amount(40_000 + i%5000),
					Latency: time.Duration(80+i%400) * time.Microsecond}
				if err := s.RecordFree(ctx, a); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "attempts/s")
			b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
		})
	}
}

// cpuTime returns the time that this process has spent on a processor.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPaced sends 500 paid attempts a second, whatever the ledger does, and measures how long each waits for its two
// durable writes together. Run it with -benchtime 5000x or more.
func BenchmarkPaced(b *testing.B) {
	for _, d := range []struct {
		name string
		store.Durability
	}{{"full", store.Full}, {"normal", store.Normal}} {
		b.Run(d.name, func(b *testing.B) {
			s, err := store.Open(ctx, "sqlite:"+b.TempDir(), store.Options{Durability: d.Durability})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			waits := make([]time.Duration, b.N)
			var group sync.WaitGroup
			start := time.Now()
			for i := range b.N {
				due := start.Add(time.Duration(i) * 2 * time.Millisecond)
				time.Sleep(time.Until(due))
				group.Go(func() {
					a := storetest.Paid(store.NewID(due), due)
					if err := s.Intend(ctx, a); err != nil {
						b.Error(err)
					}
					intended := time.Since(due)
					time.Sleep(20 * time.Millisecond) // the call
					called := time.Now()
					if err := s.Finish(ctx, storetest.Settle(a, 5)); err != nil {
						b.Error(err)
					}
					waits[i] = intended + time.Since(called)
				})
			}
			group.Wait()
			slices.Sort(waits)
			b.ReportMetric(waits[len(waits)/2].Seconds()*1000, "p50-ms")
			b.ReportMetric(waits[len(waits)*99/100].Seconds()*1000, "p99-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}
