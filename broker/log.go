package broker

import (
	"context"
	"strconv"

	"github.com/redis/go-redis/v9"

	"herald/notify"
)

// Page is a piece of a user's log.
type Page struct {
	Entries []notify.Message // in order; Frame is "" where the ttl is over
	Last    notify.ID        // the user's newest id when the page was read
	Full    bool             // there may be more after the last entry
}

// MaxPage is how many entries one read of the log returns at most.
const MaxPage = 500

// Limit is how many entries to read next so that they come to about so many
// bytes, judged by the size of this page's: at least one, at most MaxPage. A
// reader that goes by it never holds a whole log, whatever the size of messages.
func (p Page) Limit(bytes int) int {
	size := 0
	for _, m := range p.Entries {
		size += len(m.Frame)
	}
	return min(MaxPage, max(1, len(p.Entries)*bytes/max(1, size)))
}

// After reads at most limit (≤ MaxPage) entries of the user's log after an id.
func (b *Broker) After(ctx context.Context, userID string, after notify.ID, limit int) (Page, error) {
	ctx, cancel := b.budget(ctx)
	defer cancel()
	limit = min(limit, MaxPage)
	var (
		now     *redis.TimeCmd
		last    *redis.StringCmd
		entries *redis.XMessageSliceCmd
	)
	_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		now = p.Time(ctx)
		// Before the entries: what is announced later is found by Target.
		last = p.HGet(ctx, stateKey(userID), "last")
		entries = p.XRangeN(ctx, logKey(userID), strconv.FormatInt(int64(after)+1, 10), "+", int64(limit))
		return nil
	})
	if err != nil && !isNil(err) {
		return Page{}, unavailable("read log", err)
	}
	page := Page{Full: len(entries.Val()) == limit}
	if n, err := last.Int64(); err == nil {
		page.Last = notify.ID(n)
	}
	for _, e := range entries.Val() {
		m, ok := parseEntry(e, now.Val().UnixMilli())
		if !ok {
			b.o.Log.Error("log entry that is not ours", "user", userID, "entry", e.ID)
			continue
		}
		page.Entries = append(page.Entries, m)
		page.Last = max(page.Last, m.ID)
	}
	return page, nil
}

func parseEntry(e redis.XMessage, now int64) (notify.Message, bool) {
	frame, _ := e.Values["f"].(string)
	id, prev, ok := notify.ParseStored(frame)
	if !ok {
		return notify.Message{}, false
	}
	if x, _ := e.Values["x"].(string); x != "0" {
		if expires, err := strconv.ParseInt(x, 10, 64); err == nil && expires <= now {
			frame = ""
		}
	}
	return notify.Message{Event: "notification", ID: id, Prev: prev, Frame: frame}, true
}

func isNil(err error) bool { return err == redis.Nil }

// Newest asks for the newest ids of many users in one round trip; 0 where there
// never was one.
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
		return nil, unavailable("newest", err)
	}
	ids := make([]notify.ID, len(userIDs))
	for i, cmd := range cmds {
		n, err := cmd.Int64()
		if err != nil && !isNil(err) {
			return nil, unavailable("newest", err)
		}
		ids[i] = notify.ID(n)
	}
	return ids, nil
}
