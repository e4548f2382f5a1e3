package limiter_test

import (
	"context"
	"fmt"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/limiter"
)

func Example() {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	defer server.Close()
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: server.Addr()}, 0))
	defer rdb.Close()

	limit, err := limiter.ParseLimit("2/1m")
	if err != nil {
		panic(err)
	}
	requests := limiter.New(redisx.New(rdb), "api", limit, limiter.Options{})
	for range 3 {
		d := requests.Allow(context.Background(), "shop", 1)
		fmt.Println(d.Allowed, d.Remaining)
	}
	// Output:
	// true 1
	// true 0
	// false 0
}
