package schedule

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Limits of a batch, which is one call of Deliver and so about one script. Redis is
// blocked while a script runs.
const (
	batchEntries = 200
	batchBytes   = 1 << 20 // entries are added until their sum reaches this
)

const (
	busyPause    = 100 * time.Millisecond // before another try for a shard that another node has claimed
	postponement = time.Minute            // of an entry that can't be delivered
)

// Run delivers due notifications until ctx ends. While Redis is down it retries every
// Options.Recheck.
func (s *Scheduler) Run(ctx context.Context) {
	failing := false
	for ctx.Err() == nil {
		pause, err := s.round(ctx)
		if err != nil && ctx.Err() == nil {
			if !failing {
				s.o.Log.Warn("scheduled notifications are delayed", "error", err)
			}
			pause = s.o.Recheck
		}
		failing = err != nil
		s.sleep(ctx, pause)
	}
}

// sleep waits for d, or until an entry is added that is due sooner.
func (s *Scheduler) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-s.wake:
	}
}

// round delivers the due entries of all shards that no other node has claimed, and
// returns the pause until the next round.
func (s *Scheduler) round(ctx context.Context) (time.Duration, error) {
	// From here on each added entry wakes the worker, because this peek may miss it. With
	// the time set below only an earlier entry does.
	s.wakeAt.Store(math.MaxInt64)
	now, due, next, err := s.peek(ctx)
	if err != nil {
		return 0, err
	}
	if len(due) == 0 {
		s.wakeAt.Store(next)
		return time.Duration(next-now) * time.Millisecond, nil
	}
	// A random order lets several nodes share the shards.
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	pause := time.Duration(0)
	for _, shard := range due {
		ours, err := s.drain(ctx, shard)
		if err != nil {
			return 0, err
		}
		if !ours {
			pause = busyPause
		}
	}
	return pause, nil
}

// peek returns Redis's time, the shards with due entries, and the time of the next peek:
// when the next entry is due, at the latest after Recheck. Times are Unix ms.
func (s *Scheduler) peek(ctx context.Context) (now int64, due []int, next int64, err error) {
	ctx, cancel := s.budget(ctx)
	defer cancel()
	keys := make([]string, shards)
	for i := range keys {
		keys[i] = dueKey(i)
	}
	began := time.Now()
	v, err := peekScript.Run(ctx, s.rdb, keys).StringSlice()
	if err == nil && len(v) != 1+2*shards {
		err = unexpected(len(v))
	}
	if err != nil {
		return 0, nil, 0, fmt.Errorf("read the schedule: %w", err)
	}
	if now, err = strconv.ParseInt(v[0], 10, 64); err != nil {
		return 0, nil, 0, unexpected(len(v))
	}
	// Learning from a slow call would make the deadlines of Add too early.
	if _, known := s.clock.now(); !known || time.Since(began) < s.o.Budget/20 {
		s.clock.learn(now)
	}
	pending := int64(0)
	next = now + s.o.Recheck.Milliseconds()
	for i := range shards {
		n, err := strconv.ParseInt(v[1+2*i], 10, 64)
		if err != nil {
			return 0, nil, 0, unexpected(len(v))
		}
		pending += n
		first, err := strconv.ParseFloat(v[2+2*i], 64)
		switch {
		case v[2+2*i] == "":
		case err != nil:
			return 0, nil, 0, unexpected(len(v))
		case int64(first) <= now:
			due = append(due, i)
		default:
			next = min(next, int64(first))
		}
	}
	s.counts.pending.Store(pending)
	return now, due, next, nil
}

// drain delivers the due entries of a shard in batches. ours is false if another node
// has claimed it.
func (s *Scheduler) drain(ctx context.Context, shard int) (ours bool, err error) {
	for ctx.Err() == nil {
		b, err := s.claim(ctx, shard)
		if err != nil || !b.ours {
			return false, err
		}
		if b.size == 0 {
			return true, nil // the script has released the claim
		}
		if err := s.deliverBatch(ctx, b); err != nil {
			s.release(ctx, shard)
			return false, err
		}
	}
	s.release(ctx, shard)
	return false, ctx.Err()
}

// batch is the result of a claim.
type batch struct {
	shard   int
	ours    bool
	size    int // entries claimed; more than len(due) if some cannot be read
	due     []Due
	claimed time.Time // when the reply arrived
	now     int64     // Redis's time of the reply, Unix ms
}

func (s *Scheduler) claim(ctx context.Context, shard int) (batch, error) {
	ctx, cancel := s.budget(ctx)
	defer cancel()
	v, err := claimScript.Run(ctx, s.rdb, []string{leaseKey(shard), dueKey(shard)},
		s.node, s.o.Lease.Milliseconds(), batchEntries, batchBytes).StringSlice()
	if err == nil && (len(v) < 3 || len(v)%2 != 1) {
		err = unexpected(len(v))
	}
	if err != nil {
		return batch{}, fmt.Errorf("claim: %w", err)
	}
	b := batch{shard: shard, ours: v[1] == "1", size: (len(v) - 3) / 2, claimed: time.Now()}
	b.now, err = strconv.ParseInt(v[0], 10, 64)
	removed, err2 := strconv.Atoi(v[2])
	if err != nil || err2 != nil {
		return batch{}, fmt.Errorf("claim: %w", unexpected(len(v)))
	}
	s.takenBack(removed)
	for i := 3; i < len(v); i += 2 {
		e, err := unpack(v[i], v[i+1])
		if err != nil { // kept, so that a repaired entry is delivered later
			s.postpone(ctx, b, v[i], err)
			continue
		}
		b.due = append(b.due, Due{Entry: e, Key: userKey(e.Draft.UserID), Field: e.ID})
	}
	return b, nil
}

// deliverBatch delivers all entries together. If Redis refuses that, it delivers them
// one by one, so that a bad entry does not block the others.
func (s *Scheduler) deliverBatch(ctx context.Context, b batch) error {
	if len(b.due) == 0 {
		return nil
	}
	err := s.deliverNow(ctx, b, b.due)
	for i := 0; refused(err) && i < len(b.due); i++ {
		one := b.due[i : i+1]
		oneErr := s.deliverNow(ctx, b, one)
		if refused(oneErr) && s.postpone(ctx, b, one[0].ID, oneErr) {
			oneErr = nil
		}
		if oneErr != nil {
			return fmt.Errorf("deliver: %w", oneErr)
		}
	}
	if err != nil && !refused(err) {
		return fmt.Errorf("deliver: %w", err)
	}
	return nil
}

// refused reports whether Redis replied with an error, which an immediate retry would
// only repeat.
func refused(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

func (s *Scheduler) deliverNow(ctx context.Context, b batch, due []Due) error {
	n, err := s.deliver(ctx, due)
	if err != nil {
		return err
	}
	now := b.now + time.Since(b.claimed).Milliseconds()
	for i := range due {
		s.counts.observe(time.Duration(now-due[i].At.UnixMilli()) * time.Millisecond)
	}
	s.counts.delivered.Add(uint64(n))
	return nil
}

// postpone delays an entry that can't be delivered, and reports whether Redis stored the
// new time.
func (s *Scheduler) postpone(ctx context.Context, b batch, id string, reason error) bool {
	ctx, cancel := s.budget(ctx)
	defer cancel()
	later := float64(b.now + postponement.Milliseconds())
	err := s.rdb.ZAddXX(ctx, dueKey(b.shard), redis.Z{Score: later, Member: id}).Err()
	if err != nil {
		return false
	}
	s.counts.failed.Add(1)
	s.o.Log.Error("a scheduled notification is postponed", "id", id, "for", postponement, "error", reason)
	return true
}

// release gives up a shard. If Redis does not answer, the end of the lease frees it.
func (s *Scheduler) release(ctx context.Context, shard int) {
	ctx, cancel := s.budget(context.WithoutCancel(ctx))
	defer cancel()
	if err := releaseScript.Run(ctx, s.rdb, []string{leaseKey(shard)}, s.node).Err(); err != nil {
		s.o.Log.Debug("shard not released; its lease expires", "shard", shard, "error", err)
	}
}
