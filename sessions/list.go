package sessions

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
)

//go:embed list.lua
var listLua string

var listScript = newScript(sessionLua, indexLua, listLua)

// listedBytes limits a reply of list.lua: the fields of 64 full sessions.
const listedBytes = 4 << 20

// List returns the live sessions of a user, newest first, without sliding them. Its time
// is proportional to their number. It returns about 4 MiB of data, of the sessions that
// expire last; the Data of the others is nil, and Peek returns it.
func (s *Store) List(ctx context.Context, userID string) ([]Session, error) {
	sessions, err := s.list(ctx, userID)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return sessions, nil
}

func (s *Store) list(ctx context.Context, userID string) ([]Session, error) {
	if err := checkUser(userID); err != nil {
		return nil, err
	}
	v, err := s.run(ctx, listScript, []string{indexKey(userID)}, listedBytes)
	if err != nil {
		return nil, err
	}
	rows, ok := v.([]any)
	if !ok {
		return nil, unexpected(v)
	}
	sessions := make([]Session, 0, len(rows))
	for _, row := range rows {
		session, err := listed(row)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		sessions = append(sessions, session)
	}
	slices.SortFunc(sessions, newestFirst)
	return sessions, nil
}

func listed(row any) (Session, error) {
	cells, ok := row.([]any)
	if !ok || len(cells) != 4 {
		return Session{}, unexpected(row)
	}
	handle, ok := cells[0].(string)
	if !ok {
		return Session{}, unexpected(cells[0])
	}
	session, err := decode(handle, cells[2], cells[3])
	if cells[1] == int64(0) {
		session.Data = nil
	}
	return session, err
}

// newestFirst orders by creation time, then by handle for a stable order.
func newestFirst(a, b Session) int {
	if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
		return c
	}
	return strings.Compare(a.Handle, b.Handle)
}
