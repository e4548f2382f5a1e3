package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/auth"
	"herald/internal/fetch"
	"herald/internal/recipients"
	"herald/patterns/cache"
)

// remote fetches keys and preferences from other servers, through caches that all nodes
// share.
type remote struct {
	jwks      *auth.JWKS            // nil without HERALD_JWKS_URL
	directory *recipients.Directory // nil without HERALD_RECIPIENTS_URL
	stats     map[string]func() cache.Stats
	caches    []sharedCache
	clients   []*fetch.Client
}

// sharedCache is a cache.Cache of any type.
type sharedCache interface {
	Channel() string
	Filled(payload string)
	Resubscribed()
	Close()
}

// remoteBudget is the time limit of a cache's call to Redis. After that the cache fetches
// from the other server.
const remoteBudget = 100 * time.Millisecond

func newRemote(rdb *redis.Client, cfg config, budget time.Duration, log *slog.Logger) *remote {
	r := &remote{stats: map[string]func() cache.Stats{}}
	if !cfg.embedded {
		budget = remoteBudget
	}
	if cfg.JWKSURL != "" {
		r.wireJWKS(rdb, cfg, budget, log)
	}
	if cfg.RecipientsURL != "" {
		r.wireRecipients(rdb, cfg, budget, log)
	}
	return r
}

// A key set is used for an hour after its last successful fetch, so tokens stay valid while
// their issuer is down.
const (
	jwksTTL   = 5 * time.Minute
	jwksStale = time.Hour
	jwksYoung = 10 * time.Second // maximum age of a set that answers for an unknown key id
	jwksBytes = 1 << 20
)

func (r *remote) wireJWKS(rdb *redis.Client, cfg config, budget time.Duration, log *slog.Logger) {
	client := fetch.New(fetch.Options{MaxBytes: jwksBytes})
	sets := cache.New(rdb, "jwks", cache.Options[json.RawMessage]{TTL: jwksTTL, Stale: jwksStale, NotFoundTTL: -1, Budget: budget, Log: log})
	r.add("jwks", client, sets, sets.Stats)
	load := func(ctx context.Context) (json.RawMessage, error) {
		set, err := client.Get(ctx, cfg.JWKSURL)
		if err == nil {
			err = auth.CheckKeySet(set)
		}
		return set, err
	}
	sum := sha256.Sum256([]byte(cfg.JWKSURL))
	key := hex.EncodeToString(sum[:])

	r.jwks = auth.NewJWKS(func(ctx context.Context, renew bool) (set []byte, err error) {
		if renew {
			set, err = sets.GetWithin(ctx, key, jwksYoung, load)
		} else {
			set, err = sets.Get(ctx, key, load)
		}
		if err != nil {
			log.Warn("HERALD_JWKS_URL cannot be fetched", "error", err)
		}
		return set, err
	}, auth.JWKSOptions{})
}

func (r *remote) wireRecipients(rdb *redis.Client, cfg config, budget time.Duration, log *slog.Logger) {
	client := fetch.New(fetch.Options{Token: cfg.RecipientsToken})
	known := cache.New(rdb, "recipients", cache.Options[recipients.Preferences]{
		TTL: cfg.RecipientsTTL, NotFoundTTL: min(cfg.RecipientsTTL, 30*time.Second), Budget: budget, Log: log,
	})
	r.add("recipients", client, known, known.Stats)
	r.directory = recipients.New(func(ctx context.Context, userID string) (recipients.Preferences, error) {
		p, err := known.Get(ctx, userID, func(ctx context.Context) (recipients.Preferences, error) {
			body, err := client.Get(ctx, recipients.Address(cfg.RecipientsURL, userID))
			switch {
			case errors.Is(err, fetch.ErrNotFound):
				return recipients.Preferences{}, cache.ErrNotFound
			case err != nil:
				return recipients.Preferences{}, err
			}
			return recipients.Parse(body)
		})
		if errors.Is(err, cache.ErrNotFound) {
			err = recipients.ErrNotFound
		}
		return p, err
	}, recipients.Options{Timeout: cfg.RecipientsTimeout, Log: log})
}

func (r *remote) add(name string, client *fetch.Client, c sharedCache, stats func() cache.Stats) {
	r.clients = append(r.clients, client)
	r.caches = append(r.caches, c)
	r.stats[name] = stats
}

// lookups returns functions that count the hits and misses of each cache.
func (r *remote) lookups() map[string]func() (hits, misses uint64) {
	all := make(map[string]func() (uint64, uint64), len(r.stats))
	for name, stats := range r.stats {
		all[name] = func() (uint64, uint64) {
			st := stats()
			return st.Hits + st.Stale, st.Misses
		}
	}
	return all
}

// channels adds the caches' channels to others.
func (r *remote) channels(others map[string]func(string)) map[string]func(string) {
	all := maps.Clone(others)
	for _, c := range r.caches {
		all[c.Channel()] = c.Filled
	}
	return all
}

func (r *remote) resubscribed() {
	for _, c := range r.caches {
		c.Resubscribed()
	}
}

func (r *remote) close() {
	for _, c := range r.caches {
		c.Close()
	}
	for _, c := range r.clients {
		c.Close()
	}
}
