package sessions

import (
	"encoding/json"
	"testing"

	"herald/internal/testing/redistest"
)

func BenchmarkUse(b *testing.B) {
	s := New(redistest.Start(b).Client(), Options{})
	id, _ := create(b, s, "42", data{"name": json.RawMessage(`"Ada"`), "roles": json.RawMessage(`["a","b"]`)})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Use(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUseParallel(b *testing.B) {
	s := New(redistest.Start(b).Client(), Options{})
	id, _ := create(b, s, "42", nil)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Use(b.Context(), id); err != nil {
				b.Error(err)
			}
		}
	})
}

// Every session is of another user: an index of a million handles is not what
// is measured here.
func BenchmarkCreate(b *testing.B) {
	s := New(redistest.Start(b).Client(), Options{})
	d := data{"name": json.RawMessage(`"Ada"`)}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Create(b.Context(), newID(), d); err != nil {
			b.Fatal(err)
		}
	}
}
