package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// ask asks all nodes at once and returns the answers of those that gave one, in
// any order; ErrUnavailable if they are fewer than a quorum. It waits for every
// node, so that whatever is written reaches as many as it can, but for none
// longer than budget.
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

// median of the nodes' clocks: right as long as fewer than half of those that
// answered are wrong. Of an even number it is the earlier one of the middle.
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
