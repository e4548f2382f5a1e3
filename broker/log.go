package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/notify"
)

// Page is a range of a user's log.
type Page struct {
	Entries []notify.Frame // in order; JSON is "" where the ttl has ended
	Last    notify.ID      // the user's newest id when the page was read
	Full    bool           // there may be more after the last entry
}

// MaxPage is the most entries that one read of the log returns.
const MaxPage = 500

// After reads the entries after an id in the user's log: at most limit (≤ MaxPage), until
// their frames have at least so many bytes.
func (b *Broker) After(ctx context.Context, userID string, after notify.ID, limit, bytes int) (Page, error) {
	ctx, cancel := b.budget(ctx)
	defer cancel()
	keys := []string{logKey(userID), stateKey(userID)}
	v, err := afterScript.Run(ctx, b.rdb, keys, strconv.FormatInt(int64(after)+1, 10), min(limit, MaxPage), bytes).StringSlice()
	if err == nil && (len(v) < 3 || len(v)%2 == 0) {
		err = fmt.Errorf("unexpected reply of %d parts", len(v))
	}
	if err != nil {
		return Page{}, redisx.Unavailable("read log", err)
	}
	head, err := integers(v[:3])
	if err != nil {
		return Page{}, redisx.Unavailable("read log", err)
	}
	page := Page{Last: notify.ID(head[1]), Full: head[2] == 1}
	for v = v[3:]; len(v) > 0; v = v[2:] {
		m, ok := parseEntry(v[0], v[1], head[0])
		if !ok {
			b.o.Log.Error("log entry that is not ours", "user", userID)
			continue
		}
		page.Entries = append(page.Entries, m)
		page.Last = max(page.Last, m.ID)
	}
	return page, nil
}

// parseEntry reads an entry; ends is when its ttl ends, now is the current time, in Unix ms.
func parseEntry(frame, ends string, now int64) (notify.Frame, bool) {
	id, prev, ok := notify.ParseStored(frame)
	if !ok {
		return notify.Frame{}, false
	}
	if ends != "0" {
		if n, err := strconv.ParseInt(ends, 10, 64); err == nil && n <= now {
			frame = ""
		}
	}
	return notify.Frame{Event: "notification", ID: id, Prev: prev, JSON: frame}, true
}

func isNil(err error) bool { return errors.Is(err, redis.Nil) }

// Newest reads the newest ids of many users in one round trip; 0 for a user without any.
func (b *Broker) Newest(ctx context.Context, userIDs []string) ([]notify.ID, error) {
	ctx, cancel := b.budget(ctx)
	defer cancel()
	cmds := make([]*redis.StringCmd, len(userIDs))
	_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range userIDs {
			cmds[i] = p.HGet(ctx, stateKey(id), "last")
		}
		return nil
	})
	if err != nil && !isNil(err) {
		return nil, redisx.Unavailable("newest", err)
	}
	ids := make([]notify.ID, len(userIDs))
	for i, cmd := range cmds {
		n, err := cmd.Int64()
		if err != nil && !isNil(err) {
			return nil, redisx.Unavailable("newest", err)
		}
		ids[i] = notify.ID(n)
	}
	return ids, nil
}
