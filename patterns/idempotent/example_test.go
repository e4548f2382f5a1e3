package idempotent_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"herald/patterns/idempotent"
)

// charge stands for a payment provider that refuses a token smaller than the largest it
// has seen for the order.
func charge(_ context.Context, order string, token int64) (receipt string, err error) {
	if token == 0 {
		return "", errors.New("no token")
	}
	return "receipt for " + order, nil
}

// A payment is processed once; a repeated request gets the recorded receipt.
func Example() {
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true})
	defer func() { _ = rdb.Close() }()

	payments := idempotent.New(rdb, "payments", idempotent.Options{Keep: 24 * time.Hour})
	for range 2 {
		receipt, replayed, err := payments.Do(context.Background(), "order-17", "100 EUR",
			func(ctx context.Context, a idempotent.Attempt) ([]byte, error) {
				receipt, err := charge(ctx, "order-17", a.Token)
				return []byte(receipt), err
			})
		fmt.Println(string(receipt), replayed, err)
	}
	_, _, err := payments.Do(context.Background(), "order-17", "999 EUR", nil)
	fmt.Println(err)
	// Output:
	// receipt for order-17 false <nil>
	// receipt for order-17 true <nil>
	// idempotent: key used with another request
}
