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

// Ref names a session, and the user that a connection was opened for.
type Ref struct{ Handle, UserID string }

// Expiries returns the expiry of each session, or the zero time if the session does not
// exist or the handle is malformed. A session never changes its user, so UserID is not
// compared. It does not slide expiries. A node uses it
// to re-check many sessions whose revocations it may have missed.
func (s *Store) Expiries(ctx context.Context, refs []Ref) ([]time.Time, error) {
	expiries := make([]time.Time, len(refs))
	for from := 0; from < len(refs); from += expiriesChunk {
		to := min(from+expiriesChunk, len(refs))
		if err := s.expiries(ctx, refs[from:to], expiries[from:to]); err != nil {
			return nil, fmt.Errorf("expiries of sessions: %w", redisx.Unavailable("sessions", err))
		}
	}
	return expiries, nil
}

// expiries stores its results in into, which must be as long as refs.
func (s *Store) expiries(ctx context.Context, refs []Ref, into []time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, s.budget)
	defer cancel()
	asked := make([]*redis.DurationCmd, len(refs))
	pipe := s.rdb.Pipeline()
	for i, ref := range refs {
		if ValidHandle(ref.Handle) {
			asked[i] = pipe.PExpireTime(ctx, sessionKey(ref.Handle))
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
