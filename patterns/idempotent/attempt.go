package idempotent

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errLost ends the work's context: its lease is over.
var errLost = errors.New("idempotent: the lease is lost")

// attempt works under the lease and records the result. Whatever becomes of the
// work, a panic included, without a result the claim is given up.
func (p *Processor) attempt(ctx context.Context, a Attempt, work Work) (result []byte, err error) {
	working, lose := context.WithCancelCause(ctx)
	held := make(chan struct{})
	go func() {
		defer close(held)
		p.hold(working, a, lose)
	}()
	worked := false
	defer func() {
		if !worked {
			lose(nil)
			<-held
			p.giveUp(ctx, a)
		}
	}()
	if result, err = work(working, a); err != nil {
		return nil, err
	}
	worked = true
	lose(nil)
	<-held
	return result, p.record(ctx, a, result)
}

// hold extends the lease until ctx ends, and loses it when another attempt has
// it, or when Redis was away until it ended.
func (p *Processor) hold(ctx context.Context, a Attempt, lose context.CancelCauseFunc) {
	tick := time.NewTicker(p.o.Lease / 3)
	defer tick.Stop()
	ends := time.Now().Add(p.o.Lease)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		ours, err := p.lease(ctx, a, p.o.Lease)
		switch {
		case err == nil && ours:
			ends = began.Add(p.o.Lease)
		case err == nil, time.Now().After(ends):
			lose(errLost)
			return
		}
	}
}

// lease sets how long the lease is from now; 0 gives it up.
func (p *Processor) lease(ctx context.Context, a Attempt, d time.Duration) (ours bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.Budget)
	defer cancel()
	return holdScript.Run(ctx, p.rdb, []string{a.Key}, a.Token, d.Milliseconds(), p.o.Keep.Milliseconds()).Bool()
}

// giveUp frees the key for another attempt; if Redis is away, the lease's end does.
func (p *Processor) giveUp(ctx context.Context, a Attempt) {
	_, _ = p.lease(context.WithoutCancel(ctx), a, 0)
}

// recordTries is how often a result is offered to Redis, a budget apart.
const recordTries = 3

// record is safe to repeat: a token records one result. A caller that has gone
// is no reason to forget what was done for it.
func (p *Processor) record(ctx context.Context, a Attempt, result []byte) error {
	ctx = context.WithoutCancel(ctx)
	var err error
	for i := range recordTries {
		if i > 0 {
			time.Sleep(p.o.Budget)
		}
		var verdict string
		if verdict, err = p.recordOnce(ctx, a, result); err != nil {
			continue
		}
		switch verdict {
		case "recorded":
			return nil
		case "superseded":
			return ErrSuperseded
		}
		return fmt.Errorf("%w: Redis has forgotten the claim", ErrNotRecorded)
	}
	return fmt.Errorf("%w: %w", ErrNotRecorded, err)
}

func (p *Processor) recordOnce(ctx context.Context, a Attempt, result []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.Budget)
	defer cancel()
	return recordScript.Run(ctx, p.rdb, []string{a.Key}, a.Token, result, p.o.Keep.Milliseconds()).Text()
}
