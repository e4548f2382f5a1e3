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

// Use is for the holder of the secret: it returns the live session of that id
// and slides its expiry. A text that is not of an id's form is ErrNotFound
// without asking Redis.
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

// Peek returns a live session and changes nothing about it: its expiry does not
// slide.
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
