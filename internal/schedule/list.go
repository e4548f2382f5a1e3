package schedule

import (
	"context"

	"herald/internal/redisx"
)

// pageBytes limits a page of List: entries are added until their sum reaches it.
const pageBytes = 512 << 10

// List returns at most limit of a user's entries after an id ("" for the first page), in
// the order of their times. more reports whether others follow.
func (s *Scheduler) List(ctx context.Context, userID, after string, limit int) (list []Entry, more bool, err error) {
	ctx, cancel := s.budget(ctx)
	defer cancel()
	v, err := listScript.Run(ctx, s.rdb, []string{userKey(userID)}, after, limit, pageBytes).StringSlice()
	if err == nil && len(v)%2 != 1 {
		err = unexpected(len(v))
	}
	if err != nil {
		return nil, false, redisx.Unavailable("list scheduled", err)
	}
	for i := 1; i < len(v); i += 2 {
		e, err := unpack(v[i], v[i+1])
		if err != nil {
			return nil, false, redisx.Unavailable("list scheduled", err)
		}
		list = append(list, e)
	}
	return list, v[0] == "1", nil
}
