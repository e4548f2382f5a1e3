package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// ask calls f for all nodes concurrently and returns the successful answers, in any
// order. If they are fewer than a quorum, the error is ErrUnavailable. It waits for
// every node, up to budget, so that a write reaches as many nodes as possible.
func ask[T any](ctx context.Context, l *Locker, budget time.Duration, f func(context.Context, redis.UniversalClient) (T, error)) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	type answer struct {
		v   T
		err error
	}
	answers := make(chan answer, len(l.nodes))
	for _, n := range l.nodes {
		go func() {
			v, err := f(ctx, n)
			answers <- answer{v, err}
		}()
	}
	var got []T
	var errs []error
	for range l.nodes {
		if a := <-answers; a.err == nil {
			got = append(got, a.v)
		} else {
			errs = append(errs, a.err)
		}
	}
	if len(got) < l.quorum {
		return got, fmt.Errorf("%w: %d of %d answered, %d needed: %w", ErrUnavailable, len(got), len(l.nodes), l.quorum, errors.Join(errs...))
	}
	return got, nil
}

// median returns the middle value, of an even number the lower of the two. As a
// clock it is right while fewer than half of the answering nodes are wrong.
func median(v []int64) int64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[(len(v)-1)/2]
}

func count(v []bool) (n int) {
	for _, b := range v {
		if b {
			n++
		}
	}
	return n
}
