package lock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"herald/patterns/lock"
)

// Three Redis servers vote. Only the holder of the lock may write the stock, and a
// write with an earlier holder's token is refused.
func Example() {
	var nodes []redis.UniversalClient
	for range 3 {
		server := miniredis.NewMiniRedis()
		if err := server.Start(); err != nil {
			fmt.Println(err)
			return
		}
		defer server.Close()
		rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true})
		defer func() { _ = rdb.Close() }()
		nodes = append(nodes, rdb)
	}
	db, ctx := nodes[0], context.Background() // the protected data may be anywhere
	setStock := lock.NewScript(`return redis.call('SET', KEYS[1], ARGV[1])`)

	locks := lock.New(nodes, lock.Options{})
	var first lock.Token
	for n := range 2 {
		err := locks.WithLock(ctx, "stock:7", 30*time.Second, func(ctx context.Context, t lock.Token) error {
			if n == 0 {
				first = t
			}
			_, err := setStock.Run(ctx, db, "stock:7:guard", t, []string{"stock:7"}, 100-n)
			return err
		})
		fmt.Println(err, db.Get(ctx, "stock:7").Val())
	}
	_, err := setStock.Run(ctx, db, "stock:7:guard", first, []string{"stock:7"}, 0)
	fmt.Println(errors.Is(err, lock.ErrFenced), db.Get(ctx, "stock:7").Val())
	// Output:
	// <nil> 100
	// <nil> 99
	// true 99
}

// All nodes of a cluster try to run a job as often as they like; one of them runs it,
// once a day.
func ExampleLocker_RunOncePerPeriod() {
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true})
	defer func() { _ = rdb.Close() }()

	locks := lock.New([]redis.UniversalClient{rdb}, lock.Options{})
	for range 2 {
		ran, err := locks.RunOncePerPeriod(context.Background(), "report", 24*time.Hour, func(context.Context, lock.Token) error {
			fmt.Println("report sent")
			return nil
		})
		fmt.Println(ran, err)
	}
	// Output:
	// report sent
	// true <nil>
	// false <nil>
}
