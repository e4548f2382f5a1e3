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

// listedBytes bounds one answer of List; it is the fields of 64 full sessions.
const listedBytes = 4 << 20

// List returns the live sessions of a user, newest first, and slides none. It
// takes time in proportion to their number. After about 4 MiB of data, spent on
// those that expire last, the Data of the rest is nil; Peek has it.
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

// newestFirst orders by creation, and sessions of the same millisecond by handle,
// so that two lists of the same sessions are the same.
func newestFirst(a, b Session) int {
	if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
		return c
	}
	return strings.Compare(a.Handle, b.Handle)
}
