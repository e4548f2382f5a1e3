package foreign

import (
	"fmt"
	"testing"
	"time"

	"herald/internal/testing/redistest"
	"herald/sessions"
)

// BenchmarkExpiries is one check of 10,000 open connections, each of a session as
// express-session writes it.
func BenchmarkExpiries(b *testing.B) {
	rdb := redistest.Start(b).Client()
	s := newStore(rdb, Express, Options{})
	held := make([]sessions.Ref, 10_000)
	for i := range held {
		name := fmt.Sprintf("a-session-of-some-32-bytes-%05d", i)
		if err := rdb.Set(b.Context(), "sess:"+name, alice, time.Hour).Err(); err != nil {
			b.Fatal(err)
		}
		session, err := s.Use(b.Context(), signed(name, secret))
		if err != nil {
			b.Fatal(err)
		}
		held[i] = sessions.Ref{Handle: session.Handle, UserID: session.UserID}
	}
	for b.Loop() {
		if _, err := s.Expiries(b.Context(), held); err != nil {
			b.Fatal(err)
		}
	}
}
