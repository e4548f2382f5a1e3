package redisx

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestEachCallerOfAGroupIsAnsweredOnce mixes deadlines, cancellations and panics: each
// caller gets its own answer or an error, and a withdrawn item is never sent.
func TestEachCallerOfAGroupIsAnsweredOnce(t *testing.T) {
	type item struct {
		in, out int
		sent    atomic.Int32
	}
	var panics atomic.Int64
	g := Group[*item]{MaxItems: 8, MaxWeight: 20, Weight: func(i *item) int { return i.in % 7 }}
	g.Send = func(ctx context.Context, items []*item) {
		weight := 0
		for _, i := range items {
			i.sent.Add(1)
			weight += g.Weight(i)
		}
		if len(items) > 8 || len(items) > 1 && weight > 20 {
			t.Errorf("a batch of %d items weighs %d", len(items), weight)
		}
		select {
		case <-time.After(time.Duration(rand.IntN(300)) * time.Microsecond):
		case <-ctx.Done():
		}
		if rand.IntN(20) == 0 {
			panics.Add(1)
			panic("send")
		}
		for _, i := range items {
			i.out = 2 * i.in
		}
	}
	var answered, withdrawn atomic.Int64
	var cancelled sync.Map // items that must never be sent
	var callers sync.WaitGroup
	for n := range 32 {
		callers.Go(func() {
			for k := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				switch rand.IntN(3) {
				case 0:
					ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.IntN(1000))*time.Microsecond)
				case 1:
					time.AfterFunc(time.Duration(rand.IntN(500))*time.Microsecond, cancel)
				}
				i := &item{in: 1000*n + k}
				err := g.Do(ctx, i)
				if sent := i.sent.Load(); sent > 1 || errors.Is(err, context.Canceled) && sent != 0 {
					t.Errorf("%v, and sent %d times", err, sent)
				}
				switch {
				case err == nil && i.out != 2*i.in:
					t.Errorf("%d is answered %d", i.in, i.out)
				case err == nil:
					answered.Add(1)
				case errors.Is(err, context.Canceled):
					withdrawn.Add(1)
					cancelled.Store(i, nil)
				}
				cancel()
			}
		})
	}
	callers.Wait()
	cancelled.Range(func(i, _ any) bool {
		if n := i.(*item).sent.Load(); n != 0 {
			t.Errorf("a withdrawn item was sent %d times", n)
		}
		return true
	})
	if g.calls != 0 || g.busy || len(g.queue) != 0 {
		t.Errorf("left behind: %d calls, busy %t, %d queued", g.calls, g.busy, len(g.queue))
	}
	if answered.Load() == 0 || withdrawn.Load() == 0 || panics.Load() == 0 {
		t.Errorf("not everything happened: %d answered, %d withdrawn, %d panics", answered.Load(), withdrawn.Load(), panics.Load())
	}
}
