package sessions

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
)

// expiriesChunk limits the handles of one pipeline. Each pipeline has the whole budget, so
// that many handles don't exceed it.
const expiriesChunk = 1000

// Expiries returns the expiry of each handle's session, or the zero time if the session
// does not exist or the handle is malformed. It does not slide expiries. A node uses it
// to re-check many sessions whose revocations it may have missed.
func (s *Store) Expiries(ctx context.Context, handles []string) ([]time.Time, error) {
	expiries := make([]time.Time, len(handles))
	for from := 0; from < len(handles); from += expiriesChunk {
		to := min(from+expiriesChunk, len(handles))
		if err := s.expiries(ctx, handles[from:to], expiries[from:to]); err != nil {
			return nil, fmt.Errorf("expiries of sessions: %w", redisx.Unavailable("sessions", err))
		}
	}
	return expiries, nil
}

// expiries stores its results in into, which must be as long as handles.
func (s *Store) expiries(ctx context.Context, handles []string, into []time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, s.budget)
	defer cancel()
	asked := make([]*redis.DurationCmd, len(handles))
	pipe := s.rdb.Pipeline()
	for i, h := range handles {
		if ValidHandle(h) {
			asked[i] = pipe.PExpireTime(ctx, sessionKey(h))
		}
	}
	if pipe.Len() == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	for i, cmd := range asked {
		// Redis says -2 for no key and -1 for no expiry; every live session has one.
		if cmd != nil && cmd.Val() > 0 {
			into[i] = unixMilli(cmd.Val().Milliseconds())
		}
	}
	return nil
}
