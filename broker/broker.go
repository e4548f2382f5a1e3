// Package broker publishes notifications through Redis: it appends them to each user's log
// and announces them, reads the log, keeps read positions, and subscribes to what all nodes
// announce.
//
// While Redis is down it accepts nothing (redisx.ErrUnavailable: callers answer 503) and
// loses nothing it accepted: Listen subscribes again until it succeeds, and a Repairer reads
// what was announced meanwhile from the log.
package broker

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/notify"
)

// ErrMismatch means that an idempotency key was used before with another request.
var ErrMismatch = errors.New("broker: idempotency key used with another request")

// Options configures a Broker. The zero value works.
type Options struct {
	LogLength      int            // notifications kept per user; default 1000
	LogRetention   time.Duration  // how long they are kept, and up to a sixteenth of it longer, at most an hour; default 7 days
	Budget         time.Duration  // the longest a call to Redis may take; default 400 ms
	IdempotencyTTL time.Duration  // how long an idempotency key is kept; default 24 h
	WaitReplicas   int            // replicas that must have a publish before it is acknowledged; default none
	WaitTimeout    time.Duration  // how long they may take, beside Budget; default 250 ms
	Admit          string         // Lua that defines admit(key, costs), for PublishAdmitted; see publishbatch.lua. Default: everything is admitted
	CanaryEvery    time.Duration  // between canaries; default 1 s. A subscription that has not heard one for twice this is renewed
	Node           string         // this node's name, in its canary; default random
	States         redis.Scripter // client for State and MarkRead; default the broker's
	Log            *slog.Logger   // default: nothing is logged
}

// Broker uses one Redis primary. Its clients must never retry a write.
type Broker struct {
	rdb redis.UniversalClient
	o   Options

	publishScript, batchScript, ticketsScript luaScript // static

	// offset is Redis's clock minus this node's monotonic one, in ms, as of the
	// last answer; the deadlines that store.lua checks are computed with it.
	offset atomic.Int64
	start  time.Time

	batches redisx.Group[*pending]
	sub     subscription
}

//go:embed after.lua
var afterSource string

//go:embed state.lua
var stateSource string

var (
	stateScript = redis.NewScript(stateSource)
	afterScript = redis.NewScript(afterSource)
)

// New returns a broker on rdb, which must never retry (MaxRetries -1) and must respect
// contexts' deadlines (ContextTimeoutEnabled); see redisx.Configure.
func New(rdb redis.UniversalClient, o Options) *Broker {
	if o.LogLength == 0 {
		o.LogLength = 1000
	}
	if o.LogRetention == 0 {
		o.LogRetention = 7 * 24 * time.Hour
	}
	if o.Budget == 0 {
		o.Budget = 400 * time.Millisecond
	}
	if o.IdempotencyTTL == 0 {
		o.IdempotencyTTL = 24 * time.Hour
	}
	if o.WaitTimeout == 0 {
		o.WaitTimeout = 250 * time.Millisecond
	}
	if o.CanaryEvery == 0 {
		o.CanaryEvery = time.Second
	}
	if o.Node == "" {
		o.Node = randomName()
	}
	if o.States == nil {
		o.States = rdb
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{
		rdb: rdb, o: o, start: time.Now(),
		publishScript: newScript(storeLua, publishLua),
		batchScript:   newScript(o.Admit, storeLua, batchLua),
		ticketsScript: newScript(storeLua, ticketsLua),
	}
	b.batches = redisx.Group[*pending]{
		MaxItems: maxBatch, MaxWeight: maxBatchBytes,
		Weight: func(p *pending) int { return len(p.draft.Message) },
		Send:   b.publishBatch,
	}
	return b
}

func (b *Broker) budget(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, b.o.Budget)
}

// State is the position of a user's stream.
type State struct {
	Last   notify.ID // the newest id; 0 if there never was one
	Read   notify.ID // read up to
	Unread int       // stored, retained, unexpired, after Read
	Moved  bool      // MarkRead has moved Read
}

// State reads the position of the user's stream.
func (b *Broker) State(ctx context.Context, userID string) (State, error) {
	return b.state(ctx, "state", userID, "", "")
}

// MarkRead moves the user's read position to upTo: never back, never past the newest id.
// If it moved, the same script announces it to the user's devices on all nodes.
func (b *Broker) MarkRead(ctx context.Context, userID string, upTo notify.ID) (State, error) {
	return b.state(ctx, "mark read", userID, strconv.FormatInt(int64(upTo), 10), readChannel)
}

func (b *Broker) state(ctx context.Context, operation, userID, upTo, announce string) (State, error) {
	ctx, cancel := b.budget(ctx)
	defer cancel()
	keys := []string{logKey(userID), stateKey(userID), expiringKey(userID)}
	v, err := stateScript.Run(ctx, b.o.States, keys, upTo, announce, userID).StringSlice()
	if err != nil {
		return State{}, redisx.Unavailable(operation, err)
	}
	n, err := integers(v)
	if err != nil || len(n) != 4 {
		return State{}, redisx.Unavailable(operation, fmt.Errorf("unexpected reply %q", v))
	}
	return State{Last: notify.ID(n[0]), Read: notify.ID(n[1]), Unread: int(n[2]), Moved: n[3] == 1}, nil
}

func integers(texts []string) ([]int64, error) {
	n := make([]int64, len(texts))
	for i, t := range texts {
		var err error
		if n[i], err = strconv.ParseInt(t, 10, 64); err != nil {
			return nil, err
		}
	}
	return n, nil
}
