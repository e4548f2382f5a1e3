package sessions

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"herald/internal/testing/redistest"
)

// together runs all functions at the same time and returns when all are done.
func together(functions ...func()) {
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for _, f := range functions {
		wg.Go(func() {
			<-gate
			f()
		})
	}
	close(gate)
	wg.Wait()
}

func TestDestroyedStaysDestroyed(t *testing.T) {
	rdb := redistest.Start(t).Client()
	s := New(rdb, patient(Options{}))
	for n := range 1000 {
		id, session := create(t, s, "42", data{"a": json.RawMessage(`1`)})
		alive := func(_ Session, err error) {
			if err != nil && !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		}
		together(
			func() { alive(s.Update(t.Context(), session.Handle, data{"a": json.RawMessage(`2`)})) },
			func() { alive(s.Use(t.Context(), id)) },
			func() {
				if n%2 == 0 {
					alive(Session{}, s.Revoke(t.Context(), session.Handle))
				} else if _, err := s.RevokeAll(t.Context(), "42"); err != nil {
					t.Error(err)
				}
			},
		)
		if keys := rdb.Keys(t.Context(), "*").Val(); len(keys) != 0 {
			t.Fatalf("round %d: the session came back: %q", n, keys)
		}
	}
}

func TestConcurrentUpdatesAllSurvive(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		for range 100 {
			id, session := create(t, s, "42", nil)
			update := func(name string) func() {
				return func() {
					if _, err := s.Update(t.Context(), session.Handle, data{name: json.RawMessage(`1`)}); err != nil {
						t.Error(err)
					}
				}
			}
			together(update("a"), update("b"), func() {
				if _, err := s.Use(t.Context(), id); err != nil {
					t.Error(err)
				}
			})
			got, err := s.Peek(t.Context(), session.Handle)
			if err != nil || !sameData(got.Data, data{"a": json.RawMessage(`1`), "b": json.RawMessage(`1`)}) {
				t.Fatalf("data %q, %v", got.Data, err)
			}
		}
		checkIndex(t, rdb)
	})
}

// However creations, uses and revocations of one user interleave, the index and
// the sessions agree, and the last revoke-all leaves nothing.
func TestIndexAgreesUnderLoad(t *testing.T) {
	rdb := redistest.Start(t).Client()
	s := New(rdb, patient(Options{}))
	worker := func(n int) func() {
		return func() {
			for i := range 60 {
				if err := mixture(t, s, n+i); err != nil {
					t.Error(err)
				}
			}
		}
	}
	var workers []func()
	for n := range 8 {
		workers = append(workers, worker(n))
	}
	together(workers...)
	checkIndex(t, rdb)
	if _, err := s.RevokeAll(t.Context(), "42"); err != nil {
		t.Error(err)
	}
	if keys := rdb.Keys(t.Context(), "*").Val(); len(keys) != 0 {
		t.Errorf("left behind: %q", keys)
	}
}

func mixture(t *testing.T, s *Store, n int) error {
	id, session, err := s.Create(t.Context(), "42", nil)
	if err != nil {
		return err
	}
	_, err1 := s.Use(t.Context(), id)
	_, err2 := s.Update(t.Context(), session.Handle, data{fmt.Sprint(n): json.RawMessage(`1`)})
	_, err3 := s.List(t.Context(), "42")
	var err4, err5 error
	if n%3 == 0 {
		err4 = s.Revoke(t.Context(), session.Handle)
	}
	if n%10 == 0 {
		_, err5 = s.RevokeAll(t.Context(), "42")
	}
	for _, err := range []error{err1, err2, err3, err4, err5} {
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}
