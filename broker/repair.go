package broker

import (
	"context"
	"sync"
	"time"

	"herald/notify"
)

// Local is the access of a repair to the sockets of this node (hub.Hub).
type Local interface {
	UserIDs(f func(userID string) bool)
	Repair(userID string, newest notify.ID) bool
	Position(userID string) (last notify.ID, ok bool)
	Target(userID string) notify.ID
	Backfill(userID string, entries []notify.Frame)
	Repaired(userID string, target, newest notify.ID) bool
	// AwaitRoom returns when the user's sockets can take more, or ctx ends.
	AwaitRoom(ctx context.Context, userID string)
}

// Repairer fills gaps in local users' streams from the log, while their sockets stay open.
// At most eight repairs run at once. A repair retries until Redis answers.
type Repairer struct {
	b     *Broker
	local Local

	mu      sync.Mutex
	waiting []string      // guarded by mu: users to repair, each at most once (Local sees to it)
	sweep   bool          // guarded by mu: compare every local user with the log
	wake    chan struct{} // holds one token while there may be work; never closed
}

// repairers is the most users repaired at once.
const repairers = 8

// comparedAtOnce is the number of users whose newest ids are read in one round trip.
const comparedAtOnce = 500

// NewRepairer returns a repairer. It repairs while Run runs.
func NewRepairer(b *Broker, local Local) *Repairer {
	return &Repairer{b: b, local: local, wake: make(chan struct{}, 1)}
}

// User queues the repair of one user whom Local has marked. It never blocks.
func (r *Repairer) User(userID string) {
	r.mu.Lock()
	r.waiting = append(r.waiting, userID)
	r.mu.Unlock()
	r.signal()
}

// All queues a comparison of every local user with the log, and a repair of those who
// missed something. It never blocks.
func (r *Repairer) All() {
	r.mu.Lock()
	r.sweep = true
	r.mu.Unlock()
	r.signal()
}

func (r *Repairer) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run repairs until ctx ends, and returns when its goroutines have exited.
func (r *Repairer) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, repairers)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for {
			userID, sweep, ok := r.next()
			if !ok {
				break
			}
			if sweep {
				r.compareAll(ctx)
				continue
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				defer func() { <-slots }()
				r.repair(ctx, userID)
			})
		}
	}
}

func (r *Repairer) next() (userID string, sweep, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sweep {
		r.sweep = false
		return "", true, true
	}
	if len(r.waiting) == 0 {
		r.waiting = nil
		return "", false, false
	}
	userID = r.waiting[0]
	r.waiting = r.waiting[1:]
	return userID, false, true
}

// compareAll reads the newest id of every local user and queues those who missed something.
func (r *Repairer) compareAll(ctx context.Context) {
	users := make([]string, 0, comparedAtOnce)
	compare := func() {
		for i, newest := range r.newest(ctx, users) {
			if r.local.Repair(users[i], newest) {
				r.User(users[i])
			}
		}
		users = users[:0]
	}
	r.local.UserIDs(func(userID string) bool {
		users = append(users, userID)
		if len(users) == comparedAtOnce {
			compare()
		}
		return ctx.Err() == nil
	})
	if len(users) > 0 {
		compare()
	}
}

// newest retries until Redis answers or ctx ends.
func (r *Repairer) newest(ctx context.Context, users []string) []notify.ID {
	for wait := minRepairWait; ctx.Err() == nil; wait = nextRepairWait(wait) {
		ids, err := r.b.Newest(ctx, users)
		if err == nil {
			return ids
		}
		pause(ctx, wait)
	}
	return nil
}

// repair reads the user's log from the local sockets' position until no announced
// notification is missing.
func (r *Repairer) repair(ctx context.Context, userID string) {
	for wait := minRepairWait; ctx.Err() == nil; {
		target := r.local.Target(userID)
		after, ok := r.local.Position(userID)
		if !ok {
			if r.local.Repaired(userID, target, target) {
				return
			}
			continue // a socket has gone live meanwhile
		}
		page, err := r.b.After(ctx, userID, after, MaxPage, repairBytes)
		if err != nil {
			pause(ctx, wait)
			wait = nextRepairWait(wait)
			continue
		}
		wait = minRepairWait
		r.local.Backfill(userID, page.Entries)
		if !page.Full && r.local.Repaired(userID, target, page.Last) {
			return
		}
		r.awaitRoom(ctx, userID)
	}
}

// awaitRoom waits until the sockets have written their queues: a long repair must not make
// them look like slow consumers. It gives up after repairPatience, because a socket that
// writes nothing for that long is one.
func (r *Repairer) awaitRoom(ctx context.Context, userID string) {
	ctx, cancel := context.WithTimeout(ctx, repairPatience)
	defer cancel()
	r.local.AwaitRoom(ctx, userID)
}

// A page of a repair fills half a socket's queue.
const (
	repairBytes    = 128 << 10
	repairPatience = 2 * time.Second
)

const (
	minRepairWait = 50 * time.Millisecond
	maxRepairWait = time.Second
)

func nextRepairWait(wait time.Duration) time.Duration { return min(2*wait, maxRepairWait) }
