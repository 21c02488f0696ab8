package store_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
		})
	}
}

// BenchmarkFree measures free answers, from the first row queued to the last one durable.
func BenchmarkFree(b *testing.B) {
	s, err := store.Open(ctx, "sqlite:"+b.TempDir(), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	for i := range b.N {
		a := store.Attempt{ID: store.NewID(time.Now()), RequestID: fmt.Sprint(i), At: time.Now(), Task: "triage", Tier: "linear", Model: "triage@1234",
			Answered: true, Status: 200, Latency: time.Duration(i%1000) * time.Microsecond}
		if err := s.RecordFree(ctx, a); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "attempts/s")
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
