package idempotent

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errLost is the cause of the work's cancelled context when its lease has ended.
var errLost = errors.New("idempotent: the lease is lost")

// execute runs the work under its lease and records the result. Without a result, also
// after a panic, it releases the claim.
func (p *Processor) execute(ctx context.Context, a Attempt, work Work) (result []byte, err error) {
	working, lose := context.WithCancelCause(ctx)
	extended := make(chan struct{}) // closed when the extending goroutine has returned
	go func() {
		defer close(extended)
		p.extendLease(working, a, lose)
	}()
	worked := false
	defer func() {
		if !worked {
			lose(nil)
			<-extended
			p.release(ctx, a)
		}
	}()
	if result, err = work(working, a); err != nil {
		return nil, err
	}
	worked = true
	lose(nil)
	<-extended
	return result, p.record(ctx, a, result)
}

// extendLease extends the lease until ctx ends. It calls lose when another attempt has
// the claim, or when the lease has ended because Redis did not answer.
func (p *Processor) extendLease(ctx context.Context, a Attempt, lose context.CancelCauseFunc) {
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
		ours, err := p.setLease(ctx, a, p.o.Lease)
		switch {
		case err == nil && ours:
			ends = began.Add(p.o.Lease)
		case err == nil, time.Now().After(ends):
			lose(errLost)
			return
		}
	}
}

// setLease makes the lease end after d; 0 releases the claim.
func (p *Processor) setLease(ctx context.Context, a Attempt, d time.Duration) (ours bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.Budget)
	defer cancel()
	return leaseScript.Run(ctx, p.rdb, []string{a.Key}, a.Token, d.Milliseconds(), p.o.Keep.Milliseconds()).Bool()
}

// release frees the key for another attempt. If Redis does not answer, the end of the
// lease frees it.
func (p *Processor) release(ctx context.Context, a Attempt) {
	_, _ = p.setLease(context.WithoutCancel(ctx), a, 0)
}

// recordTries limits the tries to record a result; Options.Budget passes between two.
const recordTries = 3

// record stores the result. It is safe to repeat, because a token records one result. It
// ignores the end of ctx: the work is done, whether or not the caller still waits.
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
		return fmt.Errorf("%w: Redis has lost the claim", ErrNotRecorded)
	}
	return fmt.Errorf("%w: %w", ErrNotRecorded, err)
}

func (p *Processor) recordOnce(ctx context.Context, a Attempt, result []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.Budget)
	defer cancel()
	return recordScript.Run(ctx, p.rdb, []string{a.Key}, a.Token, result, p.o.Keep.Milliseconds()).Text()
}
