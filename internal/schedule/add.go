package schedule

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/notify"
)

// Item is a notification to schedule.
type Item struct {
	Draft notify.Draft
	When  notify.When
}

// Fence makes a repeated Add idempotent. Key is a Redis hash whose field "token" must
// equal Token, or Add returns ErrFenced. Add stores the ids in the field "scheduled" in
// the same step, and a later attempt returns them. The zero value guards nothing.
type Fence struct {
	Key   string
	Token int64
}

// Placed is a scheduled notification's id and time.
type Placed struct {
	ID string
	At time.Time // when it is due; now, if its time had passed
}

// Add schedules all items or none, and returns their ids and times in the same order. Its
// errors are *FullError, ErrFenced and redisx.ErrUnavailable.
func (s *Scheduler) Add(ctx context.Context, items []Item, f Fence) ([]Placed, error) {
	return s.add(ctx, items, f, "")
}

func (s *Scheduler) add(ctx context.Context, items []Item, f Fence, commit string) ([]Placed, error) {
	keys, whens, entries := packAll(items)
	token := ""
	if f.Key != "" {
		keys = append(keys, f.Key)
		token = strconv.FormatInt(f.Token, 10)
	}
	for range 2 { // a refusal as late returns Redis's time, so the second deadline is right
		v, err := s.runAdd(ctx, keys, whens, entries, token, commit)
		if err != nil {
			return nil, redisx.Unavailable("schedule", err)
		}
		switch v[0] {
		case "added":
			return s.placed(v[2:], len(items))
		case "fenced":
			return nil, ErrFenced
		case "full":
			return nil, &FullError{UserID: v[2], Most: s.o.MaxPerUser}
		}
	}
	return nil, redisx.Unavailable("schedule", errors.New("deadline refused twice by Redis"))
}

func packAll(items []Item) (keys []string, whens, entries []byte) {
	for i := range items {
		d, w := &items[i].Draft, items[i].When
		keys = append(keys, userKey(d.UserID), dueKey(shardOf(d.UserID)))
		before := len(entries)
		entries = appendPacked(entries, d)
		if w.At.IsZero() {
			whens = append(whens, '+')
			whens = strconv.AppendInt(whens, w.Delay.Milliseconds(), 10)
		} else {
			whens = strconv.AppendInt(whens, max(w.At.UnixMilli(), 0), 10)
		}
		whens = append(whens, ',')
		whens = strconv.AppendInt(whens, int64(len(entries)-before), 10)
		whens = append(append(append(whens, ','), d.UserID...), ';') // a user id holds neither ',' nor ';'
	}
	return keys, whens, entries
}

// runAdd runs the script and learns Redis's time if it refuses the deadline.
func (s *Scheduler) runAdd(ctx context.Context, keys []string, whens, entries []byte, token, commit string) ([]string, error) {
	deadline := int64(math.MaxInt64 >> 10)
	if now, known := s.clock.now(); known {
		deadline = now + s.o.Budget.Milliseconds()
	}
	v, err := s.evalAdd(ctx, keys, deadline, s.o.MaxPerUser, whens, entries, token, commit, pendingFor.Milliseconds())
	if err == nil && (len(v) < 2 || v[0] == "full" && len(v) != 3) {
		err = unexpected(len(v))
	}
	if err != nil {
		return nil, err
	}
	if v[0] == "late" {
		ms, err := strconv.ParseInt(v[1], 10, 64)
		if err != nil {
			return nil, unexpected(len(v))
		}
		s.clock.learn(ms)
	}
	return v, nil
}

func (s *Scheduler) evalAdd(ctx context.Context, keys []string, args ...any) ([]string, error) {
	if s.o.WaitReplicas == 0 {
		ctx, cancel := s.budget(ctx)
		defer cancel()
		return addScript.Run(ctx, s.rdb, keys, args...).StringSlice()
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Budget+s.o.WaitTimeout)
	defer cancel()
	var script, wait *redis.Cmd
	// WAIT counts the replicas that have the writes of the same connection.
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		script = p.Eval(ctx, addSource, keys, args...)
		wait = p.Do(ctx, "WAIT", s.o.WaitReplicas, s.o.WaitTimeout.Milliseconds())
		return nil
	})
	if err != nil {
		return nil, err
	}
	v, err := script.StringSlice()
	if err != nil || v[0] != "added" { // nothing was written
		return v, err
	}
	if n, err := wait.Int(); err != nil || n < s.o.WaitReplicas {
		return nil, errors.Join(fmt.Errorf("%d of %d replicas acknowledged", n, s.o.WaitReplicas), err)
	}
	return v, nil
}

// placed parses the ids and wakes the worker if one is due before its next poll.
func (s *Scheduler) placed(ids []string, want int) ([]Placed, error) {
	if len(ids) != want {
		return nil, redisx.Unavailable("schedule", unexpected(len(ids)))
	}
	list := make([]Placed, len(ids))
	for i, id := range ids {
		at, _, ok := ParseID(id)
		if !ok {
			return nil, redisx.Unavailable("schedule", unexpected(len(ids)))
		}
		list[i] = Placed{ID: id, At: at}
	}
	s.counts.added.Add(uint64(len(ids)))
	s.wakeFor(list)
	return list, nil
}

// wakeFor wakes the worker if an entry is due before its next poll.
func (s *Scheduler) wakeFor(list []Placed) {
	first := int64(math.MaxInt64)
	for _, p := range list {
		first = min(first, p.At.UnixMilli())
	}
	if first < s.wakeAt.Load() {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}
