package keystore

import "testing"

func TestFile(t *testing.T) { useStore(t, newStore(t, nil)) }

func BenchmarkKeyFile(b *testing.B) { benchmarkKey(b, newStore(b, nil)) }

func benchmarkKey(b *testing.B, s *Store) {
	if err := s.PutKey(b.Context(), testKey("ops")); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Key(b.Context(), "ops"); err != nil {
			b.Fatal(err)
		}
	}
}
