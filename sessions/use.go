package sessions

import (
	"context"
	_ "embed"
	"fmt"
)

//go:embed use.lua
var useLua string

//go:embed peek.lua
var peekLua string

var (
	useScript  = newScript(sessionLua, indexLua, useLua)
	peekScript = newScript(sessionLua, peekLua)
)

// Use returns the live session of a secret id and slides its expiry. A malformed id is
// ErrNotFound without a call to Redis.
func (s *Store) Use(ctx context.Context, id string) (Session, error) {
	if !ValidID(id) {
		return Session{}, fmt.Errorf("use session: %w", ErrNotFound)
	}
	session, err := s.use(ctx, Handle(id))
	if err != nil {
		return Session{}, fmt.Errorf("use session: %w", err)
	}
	return session, nil
}

func (s *Store) use(ctx context.Context, handle string) (Session, error) {
	v, err := s.run(ctx, useScript, []string{sessionKey(handle)}, handle, s.ttl.Milliseconds())
	if err != nil {
		return Session{}, err
	}
	return answered(handle, v)
}

// Peek returns a live session without changing it; its expiry does not slide.
func (s *Store) Peek(ctx context.Context, handle string) (Session, error) {
	session, err := s.peek(ctx, handle)
	if err != nil {
		return Session{}, fmt.Errorf("peek at session: %w", err)
	}
	return session, nil
}

func (s *Store) peek(ctx context.Context, handle string) (Session, error) {
	if !ValidHandle(handle) {
		return Session{}, ErrNotFound
	}
	v, err := s.run(ctx, peekScript, []string{sessionKey(handle)})
	if err != nil {
		return Session{}, err
	}
	return answered(handle, v)
}
