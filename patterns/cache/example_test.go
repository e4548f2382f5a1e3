package cache_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"herald/patterns/cache"
)

type user struct{ Name string }

// loadUser stands for a slow query.
func loadUser(id string) cache.Loader[user] {
	return func(context.Context) (user, error) {
		fmt.Println("load", id)
		if id != "7" {
			return user{}, fmt.Errorf("user %s: %w", id, cache.ErrNotFound)
		}
		return user{Name: "Ann"}, nil
	}
}

// Values and "not found" are loaded once and then come from Redis.
func Example() {
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true})
	defer func() { _ = rdb.Close() }()

	users := cache.New(rdb, "users", cache.Options[user]{TTL: time.Minute})
	defer users.Close()
	for range 2 {
		u, err := users.Get(context.Background(), "7", loadUser("7"))
		fmt.Println(u.Name, err)
	}
	for range 2 {
		_, err := users.Get(context.Background(), "8", loadUser("8"))
		fmt.Println(errors.Is(err, cache.ErrNotFound))
	}
	// Output:
	// load 7
	// Ann <nil>
	// Ann <nil>
	// load 8
	// true
	// true
}
